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
    "Sin": 7, "Cos": 7, "ThresholdedRelu": 10, "ThresholdedRelu<alpha=0.25>": 10, "Shrink": 9,
    "Shrink<lambd=0.25>": 9, "Shrink<bias=0.25, lambd=0.25>": 9, "Shrink<lambd=-1.0>": 9,
    "LogSoftmax": 6, "Softmax<axis=1>": 6, "Softmax<axis=-1>": 13,
}  # fmt: skip
# Both judges compute erf and HardSwish's 1/6 in float32, and ONNX Runtime all of Shrink.
IN_FLOAT32 = {
    "Gelu": ("gelu", {}),
    'Gelu<approximate="tanh">': ("gelu", {"approximate": "tanh"}),
    "HardSwish": ("hardswish", {}),
    "Shrink": ("hardshrink", {}),
    "Shrink<lambd=0.25>": ("hardshrink", {"lambd": 0.25}),
    "Shrink<bias=0.25, lambd=0.25>": ("softshrink", {"lambd": 0.25}),
    "Shrink<lambd=-1.0>": ("hardshrink", {"lambd": -1.0}),
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


@pytest.mark.parametrize("attributes", ["bias=0.25", "bias=-1.0, lambd=-1.0"])
def test_other_shrinks_are_refused(attributes):
    model = make(f"{DENSE}a = Shrink<{attributes}>(h){BACK}", 9, **WEIGHTS)
    with pytest.raises(ConversionError, match=r"ONNX Shrink\): it has bias .*softshrink"):
        from_onnx(model)


def test_celu():
    for alpha in ("", "<alpha=1.3>"):  # float32 is all that ONNX has it for
        check(make(f"{DENSE}a = Celu{alpha}(h){BACK}", 12, **WEIGHTS))


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


@pytest.mark.parametrize(("op", "most"), [("Clip(h, , k)", np.max), ("Clip(h, k)", np.min)])
def test_clip_to_one_side(op, most):
    net = check(make(f"h = MatMul(x, w)\ny = {op}", w=(4, 3), k=number(0.5)))
    x = np.random.default_rng(6).standard_normal((50, 4)).astype(np.float32)
    assert most(net(x)) == 0.5
