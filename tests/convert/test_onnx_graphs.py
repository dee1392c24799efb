"""from_onnx: shapes, types, opsets, files, and refusals by the name of the node."""

import re

import numpy as np
import pytest

from fastlayer.convert._onnx import network
from fastlayer.convert._onnx.evaluator import evaluator
from fastlayer.convert._prove import prove
from fastlayer.convert.onnx import from_onnx, load_onnx
from fastlayer.errors import ConversionError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import NEWEST, WEIGHTS, check, integers, judge, make, number

RESHAPES = {
    "Flatten": "f = Flatten(x)",
    "Flatten<axis=-2>": "f = Flatten<axis=-2>(x)",
    "Reshape to (-1, 12)": "f = Reshape(x, s)",
    "Reshape to (0, -1)": "f = Reshape(x, z)",
    "Reshape by Shape": "s0 = Shape(x)\ng = Gather<axis=0>(s0, i)\nu = Unsqueeze(g, a)\n"
    "c0 = Concat<axis=0>(u, n)\nf = Reshape(x, c0)",
    "Reshape by Slice and Cast": "s0 = Shape(x)\ng0 = Cast<to=6>(s0)\ng = Slice(g0, a, o)\n"
    "c0 = Cast<to=7>(g)\nc1 = Concat<axis=0>(c0, n)\nf = Reshape(x, c1)",
    "Reshape and back": "f1 = Reshape(x, s)\nf2 = Reshape(f1, t)\nf = Flatten(f2)",
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", RESHAPES)
def test_reshape(name, frozen):
    vectors = {
        "s": integers(-1, 12), "z": integers(0, -1), "i": np.array(0), "a": integers(0),
        "n": integers(-1), "o": integers(1), "t": integers(-1, 2, 6),
    }  # fmt: skip
    text = RESHAPES[name] + "\ny = MatMul(f, w)"
    used = {k: v for k, v in vectors.items() if k in text.replace("Reshape", "")}
    check(make(text, 13, shape=(2 if frozen else "N", 3, 4), w=(12, 5), **used), (3, 4))


@pytest.mark.parametrize("batch", [1, 7])
def test_frozen_batch_size_is_opened(batch):
    text = "r = Reshape(x, s)\nh = Gemm<transB=1>(r, w, b)\ny = Reshape(h, t)"
    shapes = {"s": integers(batch, 4), "t": integers(batch, 3)}
    net = check(make(text, shape=(batch, 4), w=(3, 4), b=(3,), **shapes))
    assert net(np.zeros((5, 4), np.float32)).shape == (5, 3)


@pytest.mark.parametrize("takes_more", [True, False])
def test_proof_runs_a_model_of_one_sample_on_all_rows_where_it_takes_them(monkeypatch, takes_more):
    calls = []

    def counted(nodes, opset, outputs):
        compute = evaluator(nodes, opset, outputs)
        return lambda feeds: calls.append(len(feeds["x"])) or compute(feeds)

    monkeypatch.setattr(network, "evaluator", counted)
    text = "r = Reshape(x, s)\ny = MatMul(r, w)"
    model = make(text, shape=(1, 4), w=(4, 3), s=integers(-1 if takes_more else 1, 4))
    samples = from_onnx(model).verification.samples
    if takes_more:  # the first in the model's own size, all of them together
        assert calls == [1, samples]
    else:  # which fails after the first
        assert calls == [1, samples, *[1] * samples]


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_and_unsqueeze(opset):
    if opset < 13:
        text = "u = Unsqueeze<axes=[1, -1]>(x)\ns = Squeeze<axes=[1, 3]>(u)"
        axes = {}
    else:
        text = "u = Unsqueeze(x, i)\ns = Squeeze(u, i)"
        axes = {"i": integers(1, -1)}
    check(make(f"{text}\nh = MatMul(s, w)\ny = Relu(h)", opset, w=(4, 3), **axes))


def test_squeezed_output_stays_a_row():
    net = check(make("h = MatMul(x, w)\ny = Squeeze(h, i)", w=(4, 1), i=integers(1)))
    assert net(np.zeros((5, 4), np.float32)).shape == (5, 1)


def test_axes_of_length_1_between_layers():
    text = """u = Unsqueeze(x, i)
    h = MatMul(u, w)
    t = Transpose<perm=[1, 0, 2]>(h)
    r = Relu(t)
    b = Transpose<perm=[1, 0, 2]>(r)
    y = Squeeze(b, i)"""
    check(make(text, w=(4, 3), i=integers(1)))


# Shapes that change and come back, or that say more or less than the input's.
RESHAPED = {
    "Squeeze of all": ("f = Squeeze(x)\ny = MatMul(f, w)", ("N", 1, 4), {"w": (4, 3)}),
    "Squeeze of all, one sample": ("h = MatMul(x, w)\ny = Squeeze(h)", (1, 4), {"w": (4, 3)}),
    "Reshape to the features alone": ("f = Reshape(x, s)\ny = MatMul(f, w)", (1, 4),
                                      {"s": integers(4), "w": (4, 3)}),
    "Flatten of the only sample": ("f = Flatten<axis=0>(x)\ny = MatMul(f, w)", (1, 4),
                                   {"w": (4, 3)}),
    "Reshape with allowzero": ("f = Reshape<allowzero=1>(x, s)\ny = MatMul(f, w)", ("N", 4),
                               {"s": integers(-1, 4), "w": (4, 3)}),
    "Reshape that keeps all": ("f = Reshape(x, s)\ny = MatMul(f, w)", ("N", 4),
                               {"s": integers(0, 0), "w": (4, 3)}),
}  # fmt: skip


@pytest.mark.parametrize("name", RESHAPED)
def test_reshaped_and_the_same_numbers(name):
    text, shape, constants = RESHAPED[name]
    check(make(text, shape=shape, **constants), shape[1:])


def test_the_same_rows_flattened_twice():
    text = "f = Flatten(x)\ng = Flatten(x)\nr = Relu(f)\nh = Add(r, g)\ny = MatMul(h, w)"
    check(make(text, shape=("N", 2, 3), w=(6, 2)), (2, 3))


def test_a_sum_with_what_was_reshaped_and_back():
    text = """f = Flatten(x)
    r = Relu(f)
    u = Reshape(r, s)
    h = Add(x, u)
    g = Flatten(h)
    y = MatMul(g, w)"""
    check(make(text, shape=("N", 2, 3), s=integers(-1, 2, 3), w=(6, 2)), (2, 3))


def test_input_with_an_axis_of_length_1():
    check(make("y = MatMul(x, w)", shape=("N", 1, 4), w=(4, 3)), (1, 4))
    check(make("s = Squeeze(x, i)\ny = MatMul(s, w)", shape=("N", 1, 4), w=(4, 3),
               i=integers(1)), (1, 4))  # fmt: skip


@pytest.mark.parametrize("opset", [7, 10, 12, 13])
def test_dropout_is_nothing(opset):
    net = check(make("h = Dropout(x)\ny = MatMul(h, w)", opset, w=(4, 3)))
    assert len(net) == 1


def test_dropout_with_a_mode():
    text = "h = Dropout(x, r, m)\ny = MatMul(h, w)"
    check(make(text, w=(4, 3), r=number(0.5), m=np.array(False)))
    with pytest.raises(ConversionError, match="training mode"):
        from_onnx(make(text, w=(4, 3), r=number(0.5), m=np.array(True)))


@pytest.mark.parametrize("kind", ["uint8", "int64", "float64", "float16", "bool"])
def test_cast_of_the_input(kind):
    model = make("h = Cast<to=1>(x)\ny = MatMul(h, w)", w=(4, 3))
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model.graph.input[0].type.tensor_type.elem_type = to
    net = from_onnx(model)
    assert net.dtype == np.float32
    x = np.array([[0, 1, 1, 0], [1, 1, 0, 1]], kind)
    # two or three products each, whatever the order: four roundings of numbers below 8
    assert np.abs(net(x) - judge(model)(x)).max() <= 32 * np.finfo(np.float32).eps


def test_cast_of_the_result_to_double():
    model = make("h = MatMul(x, w)\nr = Relu(h)\nc = Cast<to=11>(r)\ny = Identity(c)", w=(4, 3))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    assert check(model).dtype == np.float32


def test_cast_to_the_same_type_is_nothing():
    assert len(check(make("h = MatMul(x, w)\ny = Cast<to=1>(h)", w=(4, 3)))) == 1


def test_constant_nodes():
    text = """w = Constant<value=float[4, 2] {1, 2, 3, 4, 5, 6, 7, 8}>()
    h = MatMul(x, w)
    b = Constant<value_floats=[0.5, -1.0]>()
    g = Add(h, b)
    s = Constant<value_float=0.25>()
    y = Mul(g, s)"""
    layer, norm = check(make(text))
    assert layer.bias.tolist() == [0.5, -1]
    assert norm.weight.tolist() == [0.25, 0.25]


# Weights w (4, 3) out of operations on constants, as exporters leave them behind.
FOLDED = {
    "Reshape": "s = Constant<value_ints=[0, -1]>()\nf = Reshape(u, s)\nw = Squeeze(f)",
    "Flatten": "w = Flatten(u)",
    "Flatten<axis=-2>": "w = Flatten<axis=-2>(u)",
    "Squeeze": "w = Squeeze(u)",
    "Expand": "i = Constant<value_ints=[4, 3]>()\ne = Expand(r, i)\nw = Add(e, e)",
    "ConstantOfShape": "i = Constant<value_ints=[4, 3]>()\no = ConstantOfShape(i)\nw = Add(o, r)",
    "with a value": "i = Constant<value_ints=[4, 3]>()\n"
    "o = ConstantOfShape<value=float[1] {0.5}>(i)\nw = Mul(o, r)",
    "Cast": "c = Cast<to=11>(u)\nd = Cast<to=1>(c)\nw = Squeeze(d)",
    "Div": "d = Div(r, h)\no = Exp(d)\nq = Sqrt(o)\nn = Neg(q)\nt = Squeeze(u)\nw = Sub(t, n)",
    "Div of integers": "j = Constant<value_ints=[-9, 13]>()\nk = Constant<value_int=3>()\n"
    "d = Div(j, k)\nl = Neg(d)\na = Add(l, j)\nb = Constant<value_ints=[10, -6]>()\n"
    "i = Add(a, b)\nw = Reshape(u, i)",
    "weight norm": "n = ReduceL2<axes=[0], keepdims=1>(u)\nd = Div(u, n)\nw = Squeeze(d)",
    "softplus": "t = Squeeze(u)\nw = Softplus(t)",
    "product": "t = Squeeze(u)\ng = MatMul(k4, t)\nw = Tanh(g)",
    "quantised": "w = DequantizeLinear(q8, h)",
    "Pad": "i = Constant<value_ints=[0, 0, 3, 0]>()\nw = Pad(r, i)",
    "Tile": "i = Constant<value_ints=[4, 1]>()\nw = Tile(r, i)",
    "Einsum": 't = Squeeze(u)\nw = Einsum<equation="ij,jk->ik">(k4, t)',
    "Gemm": "t = Squeeze(u)\nw = Gemm<transA=1>(k4, t)",
    "LpNormalization": "t = Squeeze(u)\nw = LpNormalization<axis=0>(t)",
    "Mean": "t = Squeeze(u)\nw = Mean(t, r)",
    "quantised and back": "t = Squeeze(u)\nz = QuantizeLinear(t, tenth)\nw = DequantizeLinear(z, tenth)",
    "rounded": "t = Squeeze(u)\nd = Div(t, tenth)\no = Round(d)\nw = Mul(o, tenth)",
    "Pow": "p = Pow(r, two)\nc = Reciprocal(p)\nt = Squeeze(u)\nw = Mul(t, c)",
}


@pytest.mark.parametrize("name", FOLDED)
def test_constants_are_computed_while_loading(name):
    used = {
        "u": (4, 3, 1), "r": number([[0.5, 2, -1]]), "tenth": number(0.1), "h": number(4), "two": number(2), "k4": (4, 4),
        "q8": np.arange(-6, 6, dtype=np.int8).reshape(4, 3),
    }  # fmt: skip
    names = set(re.findall(r"\w+", FOLDED[name]))
    constants = {key: value for key, value in used.items() if key in names}
    net = check(make(FOLDED[name] + "\ny = MatMul(x, w)", **constants))
    assert len(net) == 1


def test_slice_with_attributes():
    text = "v = Slice<axes=[0, 1], starts=[1, 0], ends=[5, 3]>(u)\ny = MatMul(x, v)"
    check(make(text, 9, u=(6, 4)))


def test_initialisers_that_are_also_inputs():
    model = make("y = MatMul(x, w)", 8, w=(4, 3))
    kind = onnx.TensorProto.FLOAT
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", kind, (4, 3)))
    check(model)


@pytest.mark.parametrize("field", ["raw_data", "float_data", "double_data"])
def test_where_tensors_keep_their_numbers(field):
    dtype = np.float64 if field == "double_data" else np.float32
    model = make("y = MatMul(x, w)", dtype=dtype, w=(4, 3))
    w = onnx.numpy_helper.to_array(model.graph.initializer[0])
    if field != "raw_data":
        kind = onnx.helper.np_dtype_to_tensor_dtype(w.dtype)
        tensor = onnx.helper.make_tensor("w", kind, w.shape, w.ravel().tolist())
        model.graph.initializer[0].CopyFrom(tensor)
    assert len(getattr(model.graph.initializer[0], field))
    check(model)
    assert (from_onnx(model)[0].weight == w.T).all()


@pytest.mark.parametrize("shape", [("N", "M"), ("N", 4)])
def test_a_constant_tells_the_width_of_the_input(shape):
    text = "h = Add(x, c)\ny = LayerNormalization(h, s)"
    net = from_onnx(make(text, shape=shape, c=(4,), s=(4,)))
    assert net.in_features == 4
    assert net.verification.bound_share <= 1


def test_a_norm_tells_the_width_of_the_input():
    text = "y = LayerNormalization(x, s, t)"
    net = from_onnx(make(text, shape=("N", "M"), s=(4,), t=(4,)))
    assert net.in_features == 4
    assert net.verification.bound_share <= 1


def test_unknown_shape_of_the_input():
    model = make("h = Sub(x, m)\ny = MatMul(h, w)", m=number(0.5), w=(4, 3))
    expected = from_onnx(model)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    net = from_onnx(model)
    x = np.random.default_rng(0).standard_normal((5, 4))
    assert (net(x) == expected(x)).all()


@pytest.mark.parametrize("opset", [6, 7, 8, 9, 10, 11, 12, 13, 14, 17, 18, 21, NEWEST])
def test_opset(opset):
    text = "h = Gemm<transB=1>(x, w, b)\nr = Relu(h)\ny = Gemm<transB=1>(r, v, c)"
    text = text.replace("<", "<broadcast=1, ") if opset == 6 else text
    net = from_onnx(make(text, opset, **WEIGHTS))
    run = judge(make(text.replace("broadcast=1, ", ""), min(max(opset, 7), 21), **WEIGHTS))
    prove(net, run, source="onnx")
    assert len(net) == 2
    assert net[0].activation.name == "relu"


def test_files(tmp_path):
    model = make("y = MatMul(x, w)", w=(4, 3))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    for net in (load_onnx(path), from_onnx(path), from_onnx(str(path)), from_onnx(model)):
        assert (net[0].weight == from_onnx(model)[0].weight).all()


def test_weights_in_a_file_beside(tmp_path):
    model = make("h = MatMul(x, w)\ny = Add(h, b)", w=(64, 32), b=(32,), shape=("N", 64))
    expected = from_onnx(model)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size >= 64 * 32 * 4
    net = load_onnx(path)
    assert (net[0].weight == expected[0].weight).all()
    assert (net[0].bias == expected[0].bias).all()


def test_from_onnx_takes_paths_and_models():
    with pytest.raises(
        TypeError, match=r"a path, an open binary file or an onnx\.ModelProto, got int"
    ):
        from_onnx(3)
    with pytest.raises(FileNotFoundError):
        from_onnx("no_such_file.onnx")


# ----------------------------------------------------------------------------- refusals

REFUSED = {
    "LSTM": ("y, s, t = LSTM<hidden_size=2>(x, w, v)", r"ONNX LSTM\): fastlayer runs dense"),
    "Conv": ("y = Conv(x, w)", r"ONNX Conv\): fastlayer runs dense"),
    "ArgMax of samples": ("h = MatMul(x, w)\ny = ArgMax(h)", r"along axis 0 of \(batch, 3\)"),
    "labels in a formula": (
        "h = MatMul(x, w)\na = ArgMax<axis=1>(h)\ny = Add(a, at)",
        r"takes? the other outputs.*argmax\(axis=-1\)",
    ),
    "Concat": ("y = Concat<axis=0>(x, x)", r"along axis 0 of \(batch, 4\)"),
    "Concat of a column": ("y = Concat<axis=1>(x, w)", "not one row"),
    "Gather": ("y = Gather<axis=0>(x, zero1)", r"along axis 0 of \(batch, 4\)"),
    "Gather of matrices": ("y = Gather<axis=1>(x, at)", "constant list"),
    "Slice of rows": ("y = Slice(x, p, s2, zero1)", r"along axis 0 of \(batch, 4\)"),
    "Split": ("a, y = Split<axis=0>(x)", r"along axis 0 of \(batch, 4\)"),
    "attention": ("h = Transpose(x)\ny = MatMul(x, h)", "as attention does"),
    "Erf": ("y = Erf(x)", "nothing for it"),
    "Erf inside": ("h = Erf(x)\ny = MatMul(h, w)", r"ONNX Erf\): fastlayer has nothing"),
    "quotient": ("h = Tanh(x)\ny = Div(x, h)", r"ONNX Div\): fastlayer has nothing"),
    "columns": ("y = MatMul(w, x)", "samples are columns"),
    "output in columns": ("h = MatMul(x, w)\ny = Transpose(h)", "a network gives rows"),
    "batch softmax": ("y = Softmax<axis=0>(x)", r"along axis 0 of \(batch, 4\)"),
    "mixed rows": ("y = Reshape(x, s)", "mixes the rows"),
    "unflattened output": ("y = Reshape(x, t)", "a network gives rows"),
    "features apart": ("h = Reshape(x, t)\ny = MatMul(h, u)", "take features apart"),
    "part of a formula": ("h = MatMul(x, q)\ng = Erf(x)\ny = Add(h, g)", "nothing"),
    "other domain": ("y = com.microsoft.Sampling(x, w, b)", "own operators.*ORT_ENABLE_BASIC"),
    "mixed types": ("h = MatMul(x, w)\ny = Mul(h, d)", "mixes float64 constants with float32"),
    "columns in": ("y = Gemm<transA=1>(x, w)", "the batch as the first axis"),
    "spread samples": ("y = Expand(x, deep)", "known is one feature"),
    "half inside": (
        "h = Cast<to=10>(x)\ny = MatMul(h, e)",
        "computes in float16.*before it is made half",
    ),
    "cast inside": (
        "h = MatMul(x, w)\nc = Cast<to=11>(h)\ny = Relu(c)",
        "in the midst of a network",
    ),
    "half weights": ("y = MatMul(x, e)", "mixes float16 constants"),
    "empty range": ("y = Clip(x, one, zero)", "there is nothing"),
    "training": ("y = BatchNormalization<training_mode=1>(x, b, b, b, b)", "for inference"),
    "mask": ("h, m = Dropout(x)\nf = Cast<to=1>(m)\ny = Mul(h, f)", "only the first one"),
    "rows differ": ("y = Add(x, r)", "from row to row"),
    "batch in numbers": (
        "i = Shape(x)\nj = Add(i, two)\ny = Reshape(x, j)",
        "the number of rows, which the network must not know",
    ),
    "default left out": ("k = Add(, w)\ny = MatMul(x, k)", "leaves out an input before"),
    "stack of weights": ("y = MatMul(x, stack)", "one product for each batch"),
    "no neurons": ("y = MatMul(x, none)", "at least one neuron"),
    "slopes from x": ("h = MatMul(x, q)\ny = PRelu(h, x)", "its slopes must be constants"),
    "power of x": ("y = Pow(x, x)", "its exponent must be one constant number"),
    "bounds from x": (
        "h = MatMul(x, w)\nm = Relu(x)\ny = Clip(h, m)",
        "its bounds must be constant",
    ),
    "sparse constant": (
        'c = Constant<value_string="a">()\ny = Mul(x, c)',
        "of a kind that no dense",
    ),
    "half-known axes": ("h = MatMul(x, w)\ny = Squeeze(x, h)", "axes are computed from the input"),
    "shape from x": ("h = MatMul(x, w)\ny = Reshape(x, h)", "its shape is computed from the input"),
    "softmax of columns": ("h = Transpose(x)\ny = Softmax(h)", "the batch as the first axis"),
    "reshaped columns": ("h = Transpose(x)\ny = Reshape(h, s)", "mixes the rows"),
    "all in one row": ("y = Flatten<axis=0>(x)", "mixes the rows"),
    "fewer features": ("y = Reshape(x, few)", "mixes the rows"),
    "axis that is longer": ("y = Squeeze(x, one_axis)", r"takes dimensions \(4,\) away"),
    "features reordered": ("h = Reshape(x, t)\ny = Transpose<perm=[0, 2, 1]>(h)", "reorders"),
    "unlike sums": ("h = MatMul(x, w)\ny = Add(x, h)", r"\(batch, 4\) and \(batch, 3\)"),
    "spread features": ("h = MatMul(x, one_out)\ny = Add(h, b)", "a MatMul can do that"),
    "mean of samples": ("y = ReduceMean<axes=[0]>(x)", r"reduces axes \[0\]"),
    "mean of all": ("y = ReduceMean(x)", "reduces axes None"),
    "statistics from x": ("y = BatchNormalization(x, b, b, b, x)", "must be constants"),
    "stack from the left": ("y = MatMul(stack, x)", "from the left"),
    "columns of three dimensions": (
        "h = Unsqueeze(x, one_axis)\ng = Transpose(h)\ny = Add(g, high)",
        "more than two dimensions",
    ),
    "unknown constant": ("t2 = Hardmax(w)\ny = MatMul(x, t2)", "simplify the model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_names_the_node_and_teaches(name):
    text, why = REFUSED[name]
    constants = {
        "w": (4, 3), "q": (4, 4), "v": (3, 4), "b": (4,), "u": (2, 2), "s": integers(-1, 2),
        "t": integers(-1, 2, 2), "d": number(2, np.float64), "e": np.ones((4, 3), np.float16),
        "two": integers(2), "deep": integers(5, 1, 4), "stack": (2, 4, 3), "none": (4, 0), "one": number(1), "zero": number(0), "r": np.arange(8, dtype=np.float32).reshape(2, 4),
        "few": integers(0, 3), "zero1": integers(0), "at": integers(0, 1).reshape(1, 2), "p": integers(1), "s2": integers(2), "one_axis": integers(1), "one_out": (4, 1), "high": (4, 1, 1),
    }  # fmt: skip
    model = make(text, 17, **constants)
    model.graph.node[0].name = "first"
    with pytest.raises(ConversionError, match=why) as caught:
        from_onnx(model)
    assert caught.value.place.startswith("node ")


# What the shape of the input decides.
REFUSED_SHAPES = {
    "one sample for a stack": ("y = MatMul(x, v)", 17, (4,), {"v": (1, 4, 3)}, "a single sample"),
    "norm of unknown width": ("y = LayerNormalization(x, s)", 17, ("N", "M"), {"s": (0,)}, "not known"),
    "gain beside unknown widths": ("y = Add(x, c)", 17, ("N", 4, "M"), {"c": (4, 1)}, "not known"),
    "statistics of each position": (
        "y = BatchNormalization<spatial=0, is_test=1>(x, b, b, b, b)", 7, ("N", 4, 2), {"b": (4,)},
        "for each position",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_SHAPES)
def test_refusal_of_what_the_input_does_not_tell(name):
    text, opset, shape, constants, why = REFUSED_SHAPES[name]
    model = make(text, opset, shape=shape, **constants)
    with pytest.raises(ConversionError, match=why) as caught:
        from_onnx(model)
    assert caught.value.place.startswith("node ")


def test_a_norm_without_its_gain_does_not_take_its_shift_for_one():
    """No proof looks at this network: what comes before Flatten works on the last of two axes."""
    text = "h = MatMul(x, w)\nn = LayerNormalization(h, s, t)\nf = Flatten(n)\ny = MatMul(f, v)"
    model = make(text, shape=("N", 2, 4), w=(4, 3), s=(3,), t=(3,), v=(6, 2))
    model.graph.node[1].input[1] = ""
    with pytest.raises(ValueError, match=r"node 1 \(ONNX LayerNormalization\)"):
        from_onnx(model)


def test_an_input_that_is_no_array():
    model = make("y = MatMul(x, w)", w=(4, 3))
    kind = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ("N", 4))
    model.graph.input[0].type.CopyFrom(onnx.helper.make_sequence_type_proto(kind))
    with pytest.raises(ConversionError, match="input 'x': it is not an array of numbers"):
        from_onnx(model)
    model.graph.input[0].type.CopyFrom(
        onnx.helper.make_tensor_type_proto(onnx.TensorProto.STRING, ("N", 4))
    )
    with pytest.raises(ConversionError, match="input 'x': it is not an array of numbers"):
        from_onnx(model)


def test_residuals_one_after_the_other():
    """A sum finds its other end beside it, however many there are."""
    lines = ["h0 = Tanh(x)"]
    for i in range(1500):
        lines += [f"t{i} = Tanh(h{i})", f"h{i + 1} = Add(h{i}, t{i})"]
    net = from_onnx(make("\n".join([*lines, "y = MatMul(h1500, w)"]), w=(4, 3)))
    assert len(net) == 1502


def test_sums_of_all_that_came_before():
    """Each sum goes back to the input: 1500 squared steps are too many."""
    lines = ["h0 = Tanh(x)"]
    for i in range(1500):
        lines += [f"t{i} = Tanh(h{i})", f"h{i + 1} = Add(t{i}, x)"]
    net = from_onnx(make("\n".join([*lines[:40], "y = MatMul(h19, w)"]), w=(4, 3)))
    assert net.verification.bound_share <= 1
    with pytest.raises(ConversionError, match=r"more than 64 deep|too many layers"):
        from_onnx(make("\n".join([*lines, "y = MatMul(h1500, w)"]), w=(4, 3)))


def test_what_branches_share_is_bounded():
    """Each sum needs the two before it, so that what they share doubles."""
    lines = ["h0 = Tanh(x)", "h1 = Tanh(h0)"]
    for i in range(2, 60):
        lines += [f"t{i} = Tanh(h{i - 2})", f"h{i} = Add(h{i - 1}, t{i})"]
    with pytest.raises(ConversionError, match=r"deep in each other|too many layers"):
        from_onnx(make("\n".join([*lines, "y = MatMul(h59, w)"]), w=(4, 3)))


def test_sparse_weights_are_refused():
    model = make("y = MatMul(x, w)", w=(4, 3))
    indices = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, (1,), [0])
    values = onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, (1,), [1.0])
    sparse = onnx.helper.make_sparse_tensor(values, indices, (4, 3))
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ConversionError, match="sparse weights; export it with dense ones"):
        from_onnx(model)


def test_bfloat16_weights_are_refused_by_name():
    model = make("y = MatMul(x, w)", w=(4, 3))
    model.graph.initializer[0].data_type = onnx.TensorProto.BFLOAT16
    with pytest.raises(ConversionError, match="'w': has the type BFLOAT16; convert it to float32"):
        from_onnx(model)


def test_refusal_of_graphs():
    kind = onnx.TensorProto.FLOAT
    two = make("h = Relu(x)\ny = MatMul(h, w)", shape=("N", "k"), w=(4, 3))
    two.graph.output.append(onnx.helper.make_tensor_value_info("h", kind, None))
    with pytest.raises(ConversionError, match="output 'h': its number of features is not known"):
        from_onnx(two)
    with pytest.raises(ConversionError, match=r"has the outputs 'y', 'h'; outputs='z'"):
        from_onnx(two, outputs="z")
    two = make("h = Add(x, z)\ny = MatMul(h, w)", w=(4, 3))
    two.graph.input.append(onnx.helper.make_tensor_value_info("z", kind, ("N", "k")))
    with pytest.raises(ConversionError, match=r"input 'z': it has shape \(\?,\) for each sample"):
        from_onnx(two)
    del two.graph.input[:]
    with pytest.raises(ConversionError, match=r"uses .x. before|no inputs"):
        from_onnx(two)
    with pytest.raises(ConversionError, match="opset 5"):
        from_onnx(make("y = Relu(x)", 5))


def test_missing_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install onnx$"):
        from_onnx(make("y = Relu(x)"))


@pytest.mark.parametrize("version", ["1.20.1", "1.9.0", "0.9"])
def test_old_package(monkeypatch, version):
    model = make("y = Relu(x)")
    monkeypatch.setattr(onnx, "__version__", version)
    with pytest.raises(ImportError, match=rf"onnx 1.21 or newer.*this is {version}"):
        from_onnx(model)


def test_what_is_not_compared_says_so():
    text = "g = MatMul(x, w)\nf = Flatten(g)\ny = MatMul(f, v)"
    net = from_onnx(make(text, shape=("N", 2, 4), w=(4, 3), v=(6, 2)))
    assert net.verification is None
    text = "g = Relu(x)\nf = Flatten(g)\ny = MatMul(f, v)"
    net = from_onnx(make(text, shape=("N", 2, 3), v=(6, 2)))
    assert net.verification.bound_share <= 1


def test_a_model_that_differs_from_its_network_is_refused(monkeypatch):
    from fastlayer.convert._onnx import evaluator

    own = [({"Relu"}, float("inf"), lambda node, opset: lambda x: x)]
    monkeypatch.setattr(evaluator, "_OWN", own)
    with pytest.raises(ConversionError, match=r"ONNX model: .* differs from the original"):
        from_onnx(make("y = Relu(x)"))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_weights_that_are_no_numbers_stay_so(value):
    w = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    w[1, 2] = value
    net = from_onnx(make("y = MatMul(x, w)", w=w))
    np.testing.assert_array_equal(net[0].weight, w.T)


def test_a_softplus_of_large_numbers():
    check(make("h = MatMul(x, w)\ny = Softplus(h)", w=np.full((4, 3), 200, np.float32)))


@pytest.mark.parametrize("shape", [("N", "M", 2), ("N", "M", "K"), ("N", "M")])
def test_rows_of_dimensions_that_are_open(shape):
    net = from_onnx(make("f = Flatten(x)\ns = Tanh(f)\ny = MatMul(s, w)", shape=shape, w=(4, 3)))
    assert net.verification.bound_share <= 1
