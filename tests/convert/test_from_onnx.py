"""from_onnx: products, norms and constants, judged by ONNX Runtime or by onnx.reference."""

import re

import numpy as np
import pytest
from helpers import assert_within, linear_bound

import fastlayer as fl
from fastlayer.convert._onnx.network import _OPERATIONS
from fastlayer.convert.onnx import from_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import BACK, DENSE, NEWEST, WEIGHTS, check, integers, make, number


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("c", [None, (), (1,), (3,), (1, 3), (1, 1), (5, 1), (5, 3)], ids=str)
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, -2.0), (1.5, 0.0)])
def test_gemm(dtype, c, alpha, beta):
    text = f"y = Gemm<alpha={alpha}, beta={beta}, transB=1>(x, w{'' if c is None else ', c'})"
    constants = {} if c is None else {"c": c}
    if c is not None and len(c) == 2 and c[0] == 5:  # all rows alike, and the batch frozen
        rng = np.random.default_rng(5)
        row = rng.standard_normal((1, c[1])).astype(dtype)
        if c[1] == 1:
            row[:] = 0.25
        constants = {"c": np.repeat(row, 5, axis=0)}
    model = make(text, 13, dtype, (5, 4), w=(3, 4), **constants)
    assert check(model).dtype == dtype


@pytest.mark.parametrize("trans", ["", "<transB=0>", "<transA=0>"])
def test_gemm_without_transposition(trans):
    check(make(f"y = Gemm{trans}(x, w, b)", w=(4, 3), b=(3,)))


def test_gemm_with_both_transposed():
    check(make("t = Transpose(x)\ny = Gemm<transA=1, transB=1>(t, w, b)", w=(3, 4), b=(3,)))


@pytest.mark.parametrize("trans", ["transA=0, transB=1", "transA=1, transB=1"])
def test_gemm_weights_from_the_left(trans):
    w = (3, 4) if "transA=0" in trans else (4, 3)
    text = f"h = Gemm<{trans}>(w, x, c)\ny = Transpose(h)"
    check(make(text, w=w, c=(3, 1)))


@pytest.mark.parametrize("text", ["y = Add(h, b)", "y = Add(b, h)"])
@pytest.mark.parametrize("b", [(3,), (1, 3), (), (1,)], ids=str)
def test_matmul_and_add(text, b):
    net = check(make("h = MatMul(x, w)\n" + text, w=(4, 3), b=b))
    assert len(net) == 1
    assert net[0].bias is not None


@pytest.mark.parametrize("text", ["y = MatMul(x, w)", "y = MatMul(w, x)"])
def test_matmul_of_one_sample(text):
    model = make(text, shape=(4,), w=(4, 3) if "(x" in text else (3, 4))
    net = check(model)
    assert net(np.ones(4, np.float32)).shape == (3,)


def test_matmul_of_columns_inside():
    check(make("t = Transpose(x)\nh = MatMul(w, t)\na = Add(h, b)\nr = Relu(a)\ny = Transpose(r)",
               w=(3, 4), b=(3, 1)))  # fmt: skip


def test_matmul_with_a_vector():
    net = check(make("y = MatMul(x, w)", w=(4,)))
    assert net(np.ones((2, 4), np.float32)).shape == (2, 1)


def test_matmul_with_a_vector_from_the_left():
    net = check(make("y = MatMul(w, x)", shape=(4,), w=(4,)))
    assert net(np.ones(4, np.float32)).shape == (1,)
    net = check(make("t = Transpose(x)\ny = MatMul(w, t)", w=(4,)))
    assert net(np.ones((2, 4), np.float32)).shape == (2, 1)


def test_matmul_along_the_last_of_three_axes():
    check(make("h = MatMul(x, w)\ny = Add(h, b)", shape=("N", 5, 4), w=(4, 3), b=(3,)), (5, 4))


def test_layers_before_and_after_flatten():
    text = "h = MatMul(x, w)\na = Relu(h)\nf = Flatten(a)\ny = Gemm(f, v, c)"
    check(make(text, shape=("N", 5, 4), w=(4, 3), v=(15, 2), c=(2,)), (5, 4))


def test_weights_computed_from_constants():
    text = "t = Transpose(w)\nh = MatMul(x, t)\ns = Mul(b, two)\ny = Add(h, s)"
    check(make(text, w=(3, 4), b=(3,), two=number(2)))


# ----------------------------------------------------------------------------- norms, constants

STATISTICS = {
    "s": (6,), "t": (6,), "mean": (6,), "var": np.linspace(0.5, 2, 6, dtype=np.float32),
}  # fmt: skip


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_normalization(opset):
    text = f"{DENSE}g = BatchNormalization<epsilon=0.01>(h, s, t, mean, var)\na = Relu(g){BACK}"
    net = check(make(text, opset, **WEIGHTS, **STATISTICS))
    assert str(net.summary()).count("folded into layer") == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_normalization_whose_sums_cancel(dtype):
    mean = np.array([-3, 0.01, 20, 1e3], dtype)
    var, s = np.array([0.5, 1, 2, 4], dtype), np.array([1, 2, -1, 3], dtype)
    t = (mean / np.sqrt(var + 1e-5) * s * (1 + 1e-3)).astype(dtype)
    model = make(
        "y = BatchNormalization(x, s, t, mean, var)", dtype=dtype, s=s, t=t, mean=mean, var=var
    )
    assert len(check(model)) == 2


def test_batch_normalization_behind_an_activation():
    text = f"{DENSE}g = Relu(h)\na = BatchNormalization(g, s, t, mean, var){BACK}"
    net = check(make(text, **WEIGHTS, **STATISTICS))
    assert str(net.summary()).count("folded into layer") == 1


def test_batch_normalization_in_opset_6():
    text = "h = Gemm<broadcast=1>(x, w, b)\ny = BatchNormalization<is_test=1>(h, s, t, mean, var)"
    one = {n: np.ones(6, np.float32) for n in ("s", "t", "mean", "var")}
    model = make(text, 6, w=(4, 6), b=(6,), **one)
    w, b = (onnx.numpy_helper.to_array(t) for t in model.graph.initializer[:2])
    x = np.random.default_rng(4).standard_normal((8, 4)).astype(np.float32)
    exact = (x.astype(np.float64) @ w + b - 1) / np.sqrt(1 + 1e-5) + 1
    # The sum, and a weight and a bias that are rounded once: linear_bound allows for two more.
    assert_within(from_onnx(model)(x), exact, linear_bound(x, w.T, np.abs(b) + 2))


def test_batch_normalization_of_channels():
    text = "g = BatchNormalization(x, s, t, mean, var)\nf = Flatten(g)\ny = MatMul(f, v)"
    check(make(text, shape=("N", 6, 5), v=(30, 3), **STATISTICS), (6, 5))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization(bias, axis):
    op = f"LayerNormalization<axis={axis}, epsilon=0.001>(h, s{', t' if bias else ''})"
    constants = {"s": (6,), "t": (6,)} if bias else {"s": (6,)}
    check(make(f"{DENSE}a = {op}{BACK}", **WEIGHTS, **constants))


def test_layer_normalization_of_two_axes():
    text = "g = LayerNormalization<axis=1>(x, s, t)\nf = Flatten(g)\ny = MatMul(f, v)"
    check(make(text, shape=("N", 3, 4), s=(3, 4), t=(3, 4), v=(12, 2)), (3, 4))


def test_rms_normalization():
    check(make(f"{DENSE}a = RMSNormalization<epsilon=0.001>(h, s){BACK}", 23, **WEIGHTS, s=(6,)))


HEADS = {
    "Sub(x, m)": lambda x, m: (x - m, x),
    "Div(x, m)": lambda x, m: (x / m, 0),
    "Mul(m, x)": lambda x, m: (m * x, 0),
    "Add(m, x)": lambda x, m: (m + x, x),
    "Sub(m, x)": lambda x, m: (m - x, x),
}


@pytest.mark.parametrize("op", HEADS)
@pytest.mark.parametrize("shape", [(), (4,), (1, 4)], ids=str)
def test_constant_at_the_head(op, shape):
    rng = np.random.default_rng(3)
    m = np.asarray(rng.uniform(0.5, 2, shape), np.float32)
    model = make(f"h = {op}\ny = Gemm(h, w, b)", w=(4, 3), b=(3,), m=m)
    net = from_onnx(model)
    assert [type(part).__name__ for part in net] == ["BatchNorm", "Layer"]
    x = rng.standard_normal((64, 4)).astype(np.float32)
    w, b = (onnx.numpy_helper.to_array(t) for t in model.graph.initializer[:2])
    exact, shifted = HEADS[op](x.astype(np.float64), m.astype(np.float64))
    # Folded, a sum has x and m apart; each term of it and the bias are rounded once more, which
    # is within what linear_bound allows.
    magnitude = np.abs(exact) + 2 * np.abs(shifted)
    bound = linear_bound(magnitude, w.T, b, np.float32)
    assert_within(net(x), exact @ w.astype(np.float64) + b, bound)


def test_scaled_images():
    text = "s = Sub(x, mean)\nd = Div(s, std)\nf = Flatten(d)\ny = MatMul(f, w)"
    std = np.linspace(0.2, 0.4, 3, dtype=np.float32).reshape(3, 1, 1)
    check(make(text, shape=("N", 3, 2, 2), w=(12, 5), mean=(3, 1, 1), std=std), (3, 2, 2))


def test_slopes_of_opset_6_are_those_of_channels():
    text = "h = PRelu(x, s)\nf = Flatten(h)\ny = MatMul(f, w)"
    model = make(text, 6, shape=("N", 3, 2), s=(3,), w=(6, 2))
    x = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
    s, w = (onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer)
    exact = np.where(x < 0, s[:, None] * x, x).reshape(4, 6)
    net = from_onnx(model)
    assert_within(net(x), exact @ w, linear_bound(2 * np.abs(exact), w.T, dtype=np.float32))


def test_constants_of_opset_6_broadcast_from_an_axis():
    text = "h = Add<broadcast=1, axis=1>(x, b)\nf = Flatten(h)\ny = MatMul(f, w)"
    model = make(text, 6, shape=("N", 3, 2), b=(3,), w=(6, 2))
    net = from_onnx(model)
    x = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
    b, w = (onnx.numpy_helper.to_array(t) for t in model.graph.initializer)
    exact = (x.astype(np.float64) + b[:, None]).reshape(4, 6)
    magnitude = np.abs(x.reshape(4, 6)) + np.repeat(np.abs(b), 2)
    assert_within(net(x), exact @ w.astype(np.float64), linear_bound(magnitude, w.T))


# ----------------------------------------------------------------------------- residual sums


@pytest.mark.parametrize("order", ["x, a", "a, x"])
def test_residual(order):
    text = f"h = Gemm(x, w, b)\nr = Relu(h)\na = Gemm(r, v, c)\ny = Add({order})"
    net = check(make(text, w=(4, 6), b=(6,), v=(6, 4), c=(4,)))
    assert isinstance(net[0], fl.Residual)


def test_residual_inside_a_residual():
    text = """h = MatMul(x, w)
    i = Relu(h)
    j = MatMul(i, v)
    k = Sum(j, h)
    l = Tanh(k)
    m = Add(x, l)
    y = MatMul(m, v)"""
    check(make(text, w=(4, 4), v=(4, 4)))


def test_residual_around_an_activation():
    check(make("h = Tanh(x)\na = Add(x, h)\ny = MatMul(a, w)", w=(4, 3)))


@pytest.mark.parametrize("op", ["Sub(x, h)", "Sub(h, x)"])
def test_residual_difference(op):
    check(make(f"g = MatMul(x, v)\nh = Tanh(g)\na = {op}\ny = MatMul(a, w)", v=(4, 4), w=(4, 3)))


def test_residual_as_the_summand_of_gemm():
    check(make("h = MatMul(x, w)\nr = Relu(h)\ny = Gemm<beta=1.0>(r, v, x)", w=(4, 6), v=(6, 4)))


MEANS = (
    "m = {0}\nd = Sub(h, m)\ns = Mul(d, d)\nn = {1}\ne = Add(n, tiny)\nr = Sqrt(e)\na = Div(d, r)"
)
# Each operator in a use that a network has, and how it was written before some opset.
OPERATORS = {
    "Abs": "s = Abs(h)\np = Add(s, one)\na = Div(h, p)",
    "BatchNormalization": "a = BatchNormalization(h, t, t, t, t)",
    "Cast": "a = Cast<to=1>(h)",
    "Clip": (11, "a = Clip<min=-1.0, max=1.0>(h)", "a = Clip(h, half, one)"),
    "Concat": "d1 = Concat<axis=1>(h, h)\na = MatMul(d1, tall)",
    "Expand": "f1 = MatMul(h, thin)\ne = Expand(f1, wide)\na = Add(e, h)",
    "Mean": "r = Tanh(h)\na = Mean(h, r, t)",
    "Einsum": 'a = Einsum<equation="ij,jk->ik">(h, q)',
    "Erf": "d = Mul(h, i)\ne = Erf(d)\np = Add(one, e)\nm = Mul(half, h)\na = Mul(m, p)",
    "Gather": "a = Gather<axis=1>(h, order)",
    "Gemm": "a = Gemm(h, q)",
    "LayerNormalization": "a = LayerNormalization(h, t, t)",
    "Log": "s = Sigmoid(h)\na = Log(s)",
    "LpNormalization": "a = LpNormalization(h)",
    "MatMul": "a = MatMul(h, q)",
    "PRelu": "a = PRelu(h, t)",
    "Slice": (
        10,
        "d1 = Slice<starts=[1], ends=[4], axes=[1]>(h)\na = Concat<axis=1>(d1, d1)",
        "d1 = Slice(h, begin, end, begin)\na = Concat<axis=1>(d1, d1)",
    ),
    "Split": (
        18,
        "d1, d2 = Split<axis=1>(h)\na = Concat<axis=1>(d2, d1)",
        "d1, d2 = Split<axis=1, num_outputs=2>(h)\na = Concat<axis=1>(d2, d1)",
    ),
    "Pow": "s = Pow(h, three)\nu = Mul(s, k)\nb = Add(u, h)\nv1 = Mul(b, z)\nw1 = Tanh(v1)\n"
    "x1 = Add(w1, one)\ny1 = Mul(x1, half)\na = Mul(h, y1)",
    "RMSNormalization": "a = RMSNormalization(h, t)",
    "Reciprocal": "n = Neg(h)\ne = Exp(n)\np = Add(e, one)\na = Reciprocal(p)",
    "ReduceMean": (
        18,
        MEANS.format("ReduceMean<axes=[1]>(h)", "ReduceMean<axes=[1]>(s)"),
        MEANS.format("ReduceMean(h, last)", "ReduceMean(s, last)"),
    ),
    "Reshape": "a = Reshape(h, rows)",
    "Squeeze": (
        13,
        "u = Unsqueeze<axes=[1]>(h)\na = Squeeze<axes=[1]>(u)",
        "u = Unsqueeze(h, last)\na = Squeeze(u, last)",
    ),
    "Transpose": "u = Transpose(h)\na = Transpose(u)",
    **{op: f"a = {op}(h, t)" for op in ("Add", "Sub", "Mul", "Div", "Sum")},
    **{op: f"a = {op}(h, one)" for op in ("Max", "Min")},
    **{
        op: f"g = {op}(h, half)\nf = Cast<to=1>(g)\na = Mul(h, f)"
        for op in ("Greater", "GreaterOrEqual")
    },
    **{
        op: f"g = {op}(h, half)\nf = Cast<to=1>(g)\nr = Mul(h, f)\na = Sub(h, r)"
        for op in ("Less", "LessOrEqual")
    },
    "And": "g = Greater(h, m1)\nl = Less(h, one)\no = And(g, l)\nf = Cast<to=1>(o)\nr = Mul(h, f)\na = Sub(h, r)",
    "Or": "g = Greater(h, one)\nl = Less(h, m1)\no = Or(g, l)\nf = Cast<to=1>(o)\na = Mul(h, f)",
    "Not": "l = Less(h, half)\ng = Not(l)\nf = Cast<to=1>(g)\na = Mul(h, f)",
    "ReduceLogSumExp": (
        18,
        "m = ReduceLogSumExp<axes=[1]>(h)\na = Sub(h, m)",
        "m = ReduceLogSumExp(h, last)\na = Sub(h, m)",
    ),
    "ReduceMax": (
        18,
        "m = ReduceMax<axes=[1]>(h)\ns = Sub(h, m)\nl = ReduceLogSumExp<axes=[1]>(s)\na = Sub(s, l)",
        "m = ReduceMax(h, last)\ns = Sub(h, m)\nl = ReduceLogSumExp(s, last)\na = Sub(s, l)",
    ),
    "ReduceSum": (
        13,
        "e = Exp(h)\nt0 = ReduceSum<axes=[1]>(e)\na = Div(e, t0)",
        "e = Exp(h)\nt0 = ReduceSum(e, last)\na = Div(e, t0)",
    ),
    "Shrink": "a = Shrink(h)",
    "Sign": "s = Sign(h)\na = Mul(s, h)",
    "ThresholdedRelu": "a = ThresholdedRelu(h)",
    "Where": "g = Greater(h, half)\na = Where(g, h, one)",
}
ALONE = {
    "Celu", "Cos", "Dropout", "Elu", "Exp", "Flatten", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "LogSoftmax", "Mish", "Neg", "Relu", "Selu", "Shrink", "Sigmoid", "Sin", "Softmax",
    "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
}  # fmt: skip
OPERATORS.update({op: f"a = {op}(h)" for op in ALONE})
BESIDE = {
    "t": np.linspace(0.5, 2, 6, dtype=np.float32), "q": (6, 6), "rows": integers(-1, 6),
    "last": integers(-1), "one": number(1), "m1": number(-1), "half": number(0.5), "three": number(3),
    "tall": (12, 6), "thin": (6, 1), "wide": integers(1, 6), "order": integers(2, 0, 1, 5, -2, 3), "begin": integers(1), "end": integers(4),
    "tiny": number(1e-5), "i": number(0.5**0.5), "k": number(0.044715),
    "z": number((2 / np.pi) ** 0.5),
}  # fmt: skip


def test_every_operator_is_tried():
    assert set(_OPERATIONS) == {*OPERATORS, "ArgMax", "Shape", "Sqrt", "Unsqueeze"}  # are in others


@pytest.mark.parametrize("op", OPERATORS)
def test_operator_in_every_opset(op):
    schemas = onnx.defs.get_all_schemas_with_history()
    first = min(s.since_version for s in schemas if s.name == op and s.domain == "")
    for opset in range(max(first, 6), NEWEST + 1):
        text = OPERATORS[op]
        if not isinstance(text, str):
            since, old, new = text
            text = old if opset < since else new
        if opset == 6:
            text = re.sub(r"= (Add|Sub|Mul|Div|Pow|Greater|Less)\(", r"= \1<broadcast=1>(", text)
            text = re.sub(r"(BatchNormalization|Dropout)\(", r"\1<is_test=1>(", text)
        used = {n: c for n, c in BESIDE.items() if re.search(rf"\b{n}\b", text)}
        net = from_onnx(
            make(f"h = MatMul(x, w)\n{text}\ny = MatMul(a, v)", opset, w=(4, 6), v=(6, 3), **used)
        )
        assert net.verification.bound_share <= 1


def test_without_the_comparison(tmp_path):
    model = make(f"{DENSE}a = Relu(h){BACK}", **WEIGHTS)
    onnx.save(model, tmp_path / "model.onnx")
    proven = from_onnx(model)
    assert proven.verification is not None
    x = np.random.default_rng(0).normal(size=(5, proven.in_features)).astype(np.float32)
    for given in (model, tmp_path / "model.onnx"):
        net = from_onnx(given, verify=False)
        assert net.verification is None
        assert np.array_equal(net(x), proven(x))
