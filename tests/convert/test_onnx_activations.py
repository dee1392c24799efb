"""from_onnx: activations, whole and taken apart, judged by ONNX Runtime or by onnx.reference."""

import numpy as np
import pytest

from fastlayer.convert.onnx import from_onnx
from fastlayer.errors import ConversionError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import BACK, DENSE, WEIGHTS, check, check_by_hand, make, number

SIMPLE = {
    "Relu": 6, "LeakyRelu": 6, "LeakyRelu<alpha=0.3>": 6, "Elu": 6, "Elu<alpha=0.7>": 6, "Selu": 6,
    "Selu<alpha=1.5, gamma=0.9>": 6, "Sigmoid": 6, "Tanh": 6, "Softplus": 6, "Softsign": 6,
    "HardSigmoid": 6, "HardSigmoid<alpha=0.16666667, beta=0.5>": 6, "Exp": 6, "Identity": 6,
    "Clip<min=-0.5, max=0.75>": 6, "Clip<min=0.0>": 6, "Clip<max=6.0>": 6, "Clip": 6, "HardSwish": 14, "Mish": 18, "Gelu": 20,
    'Gelu<approximate="tanh">': 20, "Swish": 24, "Swish<alpha=1.702>": 24, "Softmax": 6,
    "LogSoftmax": 6, "Softmax<axis=1>": 6, "Softmax<axis=-1>": 13,
}  # fmt: skip
# Both judges compute erf and HardSwish's 1/6 in float32.
IN_FLOAT32 = {
    "Gelu": ("gelu", {}),
    'Gelu<approximate="tanh">': ("gelu", {"approximate": "tanh"}),
    "HardSwish": ("hardswish", {}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", SIMPLE)
def test_activation(op, dtype):
    model = make(f"{DENSE}a = {op}(h){BACK}", max(SIMPLE[op], 7), dtype, **WEIGHTS)
    if dtype == np.float64 and op in IN_FLOAT32:
        name, parameters = IN_FLOAT32[op]
        check_by_hand(model, name, **parameters)
    else:
        check(model)


def test_celu():
    for alpha in ("", "<alpha=1.3>"):  # float32 is all that ONNX has it for
        check(make(f"{DENSE}a = Celu{alpha}(h){BACK}", 12, **WEIGHTS))


DECOMPOSED = {
    "gelu": "d = Div(h, r)\ne = Erf(d)\np = Add(e, one)\nm = Mul(h, p)\na = Mul(m, half)",
    "gelu, half first": "d = Mul(h, i)\ne = Erf(d)\np = Add(one, e)\nm = Mul(half, h)\n"
    "a = Mul(m, p)",
    "gelu tanh": "q = Mul(h, h)\nt = Mul(h, q)\nu = Mul(k, t)\ns = Add(h, u)\nv1 = Mul(z, s)\n"
    "w1 = Tanh(v1)\nx1 = Add(one, w1)\ny1 = Mul(h, x1)\na = Mul(half, y1)",
    "gelu tanh, power": "t = Pow(h, three)\nu = Mul(t, k)\ns = Add(u, h)\nv1 = Mul(s, z)\n"
    "w1 = Tanh(v1)\nx1 = Add(w1, one)\ny1 = Mul(x1, half)\na = Mul(h, y1)",
    "silu": "s = Sigmoid(h)\na = Mul(h, s)",
    "silu, by hand": "n = Neg(h)\ne = Exp(n)\np = Add(e, one)\na = Div(h, p)",
    "quick gelu": "s0 = Mul(h, three)\ns = Sigmoid(s0)\na = Mul(s, h)",
    "mish": "s = Softplus(h)\nt = Tanh(s)\na = Mul(h, t)",
    "mish, by hand": "e = Exp(h)\np = Add(e, one)\ns = Log(p)\nt = Tanh(s)\na = Mul(t, h)",
    "hard swish": "s = Add(h, three)\nc1 = Clip(s, zero, six)\nd = Div(c1, six)\na = Mul(h, d)",
    "hard swish, product first": "s = Add(h, three)\nc1 = Clip(s, zero, six)\nm = Mul(h, c1)\n"
    "a = Div(m, six)",
    "hard swish, hard sigmoid": "s = HardSigmoid<alpha=0.16666667, beta=0.5>(h)\na = Mul(h, s)",
    "hard sigmoid": "s = Add(h, three)\nc1 = Clip(s, zero, six)\na = Div(c1, six)",
    "softplus": "e = Exp(h)\np = Add(e, one)\na = Log(p)",
    "softplus, beta": "m = Mul(h, three)\ns = Softplus(m)\na = Div(s, three)",
    "log sigmoid": "s = Sigmoid(h)\na = Log(s)",
    "log sigmoid, softplus": "n = Neg(h)\ns = Softplus(n)\na = Neg(s)",
    "sigmoid": "n = Neg(h)\ne = Exp(n)\np = Add(one, e)\na = Reciprocal(p)",
    "softsign": "s = Abs(h)\np = Add(s, one)\na = Div(h, p)",
    "relu, Max": "a = Max(h, zero)",
    "clip, Min and Max": "s = Min(h, one)\na = Max(zero, s)",
    "a line": "s = Sub(one, h)\nt = Div(s, three)\nu = Neg(t)\na = Mul(u, six)",
    "layer norm": "m = ReduceMean<axes=[-1]>(h)\nd = Sub(h, m)\ns = Pow(d, two)\n"
    "n = ReduceMean<axes=[-1]>(s)\ne = Add(n, tiny)\nr1 = Sqrt(e)\nf = Div(d, r1)\n"
    "g = Mul(f, g0)\na = Add(g, h0)",
    "rms norm": "s = Mul(h, h)\nn = ReduceMean<axes=[-1]>(s)\ne = Add(n, tiny)\nr1 = Sqrt(e)\n"
    "i1 = Reciprocal(r1)\nf = Mul(h, i1)\na = Mul(f, g0)",
}
NUMBERS = {
    "zero": 0, "half": 0.5, "one": 1, "two": 2, "three": 3, "six": 6, "r": 2**0.5, "i": 0.5**0.5,
    "k": 0.044715, "z": (2 / np.pi) ** 0.5, "tiny": 1e-5,
}  # fmt: skip
ONE_PART = {"quick gelu", "a line", "layer norm", "rms norm", "softplus, beta", "relu, Max"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DECOMPOSED)
def test_activation_taken_apart(name, dtype):
    text = f"{DENSE}{DECOMPOSED[name]}{BACK}"
    used = {n: number(v, dtype) for n, v in NUMBERS.items() if n in text}
    constants = {**WEIGHTS, "g0": (6,), "h0": (6,)} if "norm" in name else WEIGHTS
    model = make(text, 13, dtype, **constants, **used)
    if (name, dtype) == ("hard swish, hard sigmoid", np.float64):
        with pytest.raises(ConversionError, match="nothing for it"):  # 1/6 rounded to float32
            from_onnx(model)
        return
    erf = "Erf" in text and dtype == np.float64
    net = check_by_hand(model, "gelu") if erf else check(model)
    if name not in ONE_PART and "clip" not in name:
        assert len(net) == 2, net


@pytest.mark.parametrize("slope", [(), (1,), (6,), (1, 6)], ids=str)
def test_prelu(slope):
    check(make(f"{DENSE}a = PRelu(h, s){BACK}", **WEIGHTS, s=slope))


def test_prelu_of_channels():
    text = "f = PRelu(x, s)\ny = Flatten(f)"
    check(make(text, 9, shape=("N", 3, 4), s=(3, 1)), (3, 4))


@pytest.mark.parametrize("opset", [6, 11])
def test_softmax_before_13_takes_all_features(opset):
    model = make("h = Softmax<axis=1>(x)\ny = Flatten(h)", opset, shape=("N", 2, 3))
    net = from_onnx(model)
    x = np.random.default_rng(2).standard_normal((5, 2, 3)).astype(np.float32)
    expected = np.exp(x) / np.exp(x).sum(axis=(1, 2), keepdims=True)
    # exp, a sum of six and a quotient: some ten roundings of numbers below 1
    assert np.abs(net(x) - expected.reshape(5, 6)).max() <= 10 * np.finfo(np.float32).eps


def test_softmax_since_13_takes_one_axis():
    check(make("y = Softmax(x)", 13, shape=("N", 5, 4)), (5, 4))
    with pytest.raises(ConversionError, match=r"axis 1 of \(batch, 5, 4\)"):
        from_onnx(make("y = Softmax<axis=1>(x)", 13, shape=("N", 5, 4)))


def test_selu_of_other_constants_in_float64_is_not_ours():
    # ONNX keeps SELU's constants in float32.
    net = from_onnx(make("y = Selu(x)", dtype=np.float64))
    assert "selu" not in repr(net)
