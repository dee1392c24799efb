"""ONNX graphs with branches: several inputs and outputs, joins, slices, against ONNX Runtime."""

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import assert_round_trips

import fastlayer as fl

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import numpy_helper, parser

from fastlayer.convert.onnx import from_onnx

TWO = "float[N, 4] s, float[N, 2] u"


def model(text, inputs="float[N, 6] x", outputs="float[N, 3] y", opset=17):
    """Return a graph; the names in it that `CONSTANTS` has are its weights."""
    made = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> g ({inputs}) => ({outputs}) {{ {text} }}'
    )
    used = {name for node in made.graph.node for name in node.input}
    for name, value in CONSTANTS.items():
        if name in used:
            made.graph.initializer.append(numpy_helper.from_array(value, name))
    return made


def _constants():
    rng = np.random.default_rng(5)
    shapes = {
        "W": (6, 8), "V": (8, 3), "V1": (8, 1), "S": (4, 8), "A": (2, 8), "T": (10, 8),
        "b": (8,), "c": (3,), "wide": (1, 8), "long": (16, 8), "Q": (4, 3), "high": (3,),
    }  # fmt: skip
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    made.update(one=np.float32(1), spread=np.ones((1, 3), np.float32))
    made.update({f"i{n}": np.array([n]) for n in range(5)}, m1=np.array([-1]))
    made.update(three=np.array([1, 3]))
    made.update(order=np.array([2, 0, 1]), odd=np.array([3, 5]), last=np.array([2**62]))
    made.update(sizes=np.array([2, 4, 2]))
    return {name: np.asarray(value) for name, value in made.items()}


CONSTANTS = _constants()


def check(made, **options):
    """Return the network of a model; it gives what ONNX Runtime does for each input apart."""
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    net = from_onnx(made, **options)
    rng = np.random.default_rng(7)
    for m in (1, 9):
        feeds = {
            i.name: rng.standard_normal((m, i.shape[1])).astype(np.float32)
            for i in session.get_inputs()
        }
        wanted = session.run(None, feeds)
        given = net(*feeds.values())
        given = given if isinstance(given, tuple) else (given,)
        assert len(given) == len(wanted)
        for ours, theirs in zip(given, wanted, strict=True):
            full = np.broadcast_to(theirs, ours.shape)  # a constant is in each row
            np.testing.assert_allclose(ours, full, rtol=2e-5, atol=2e-5)
        row = np.concatenate([*feeds.values()], axis=1)
        again = net(row)
        for ours, same in zip(given, again if isinstance(again, tuple) else (again,), strict=True):
            assert_same_bits(ours, same)
    assert net.verification.bound_share <= 1
    assert_round_trips(net, row)
    return net


def kinds(net):
    return [type(part).__name__ for part in net]


GRAPHS = {
    "inputs joined first": (TWO, "x = Concat<axis=1>(s, u) h = MatMul(x, W) r = Relu(h) y = MatMul(r, V)"),
    "inputs joined in the middle": (
        TWO,
        ("h = MatMul(s, S) r = Relu(h) x = Concat<axis=-1>(r, u) g = MatMul(x, T) t = Tanh(g) "
        "y = MatMul(t, V)"),
    ),
    "an input joined twice": (
        TWO,
        ("h = MatMul(s, S) r = Relu(h) x = Concat<axis=1>(r, u) g = MatMul(x, T) t = Tanh(g) "
        "z = Concat<axis=1>(t, u) k = MatMul(z, T) y = MatMul(k, V)"),
    ),
    "layers of two inputs summed": (
        TWO,
        "h = MatMul(s, S) g = MatMul(u, A) t = Add(h, g) z = Add(t, b) r = Relu(z) y = MatMul(r, V)",
    ),
    "the other way round": (TWO, "x = Concat<axis=1>(u, s) h = MatMul(x, W) y = MatMul(h, V)"),
    "a skip": (
        "float[N, 6] x",
        ("h = MatMul(x, W) r = Relu(h) o = Slice(x, i0, i2, i1) z = Concat<axis=1>(r, o) "
        "g = MatMul(z, T) y = MatMul(g, V)"),
    ),
    "one part": ("float[N, 6] x", "z = Concat<axis=1>(x) h = MatMul(z, W) y = MatMul(h, V)"),
    "heads with an activation each": (
        "float[N, 6] x",
        ("h = MatMul(x, W) o = MatMul(h, V) a = Slice(o, i0, i2, i1) d = Slice(o, i2, last, i1) "
        "t = Tanh(a) g = Sigmoid(d) y = Concat<axis=1>(t, g)"),
    ),
    "features in another order": (
        "float[N, 6] x", "h = MatMul(x, W) o = MatMul(h, V) y = Gather<axis=1>(o, order)",
    ),
    "every second one, backwards": (
        "float[N, 6] x",
        "h = MatMul(x, W) o = Slice(h, m1, i0, i1, back) y = MatMul(o, Q)",
    ),
    "split": (
        "float[N, 6] x",
        ("h = MatMul(x, W) a, d, e = Split<axis=-1>(h, sizes) t = Tanh(a) g = Mul(t, e) "
        "z = Concat<axis=1>(d, g) k = Slice(z, i0, i4, i1) y = MatMul(k, Q)"),
    ),
    "a gate": (
        "float[N, 6] x",
        "h = MatMul(x, W) g = Sigmoid(h) t = Tanh(h) p = Mul(g, t) y = MatMul(p, V)",
    ),
    "a square": ("float[N, 6] x", "h = MatMul(x, W) p = Mul(h, h) y = MatMul(p, V)"),
    "a highway": (
        "float[N, 6] x",
        ("h = MatMul(x, W) g = Sigmoid(h) t = Tanh(h) p = Mul(g, t) n = Sub(one, g) q = Mul(n, h) "
        "z = Add(p, q) y = MatMul(z, V)"),
    ),
    "branches of branches": (
        "float[N, 6] x",
        ("h = MatMul(x, W) t = Tanh(h) z = Add(h, t) k = Tanh(z) l = Add(k, t) m = Add(l, z) "
        "y = MatMul(m, V)"),
    ),
    "a constant in each row": (
        "float[N, 6] x",
        ("h = MatMul(x, W) k = Shape(h) n = Gather<axis=0>(k, i0) e = Concat<axis=0>(n, m1) "
        "l = Shape(e) o = ConstantOfShape<value=int64[1] {1}>(l) q = Mul(o, m1) "
        "g = Equal(e, q) f = Where(g, o, e) d = Expand(wide, f) z = Concat<axis=1>(d, h) "
        "t = MatMul(z, long) y = MatMul(t, V)"),
    ),
    "zeros for each row": (
        "float[N, 6] x",
        ("h = MatMul(x, W) k = Shape(h) e = ConstantOfShape(k) z = Concat<axis=1>(e, h) "
        "t = MatMul(z, long) y = MatMul(t, V)"),
    ),
    "sums": (
        "float[N, 6] x",
        ("h = MatMul(x, W) k = ReduceSum(h, m1) t = Tanh(h) l = ReduceSum(t, m1) z = Mul(k, l) "
        "g = Mul(h, z) y = MatMul(g, V)"),
    ),
    "two classes": (
        "float[N, 6] x",
        "h = MatMul(x, W) k = MatMul(h, V1) p = Sigmoid(k) q = Sub(one, p) y = Concat<axis=1>(q, p)",
    ),
}  # fmt: skip
CONSTANTS["back"] = np.array([-2])


@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name):
    inputs, text = GRAPHS[name]
    outputs = f"float[N, {2 if name == 'two classes' else 3}] y"
    net = check(model(text, inputs, outputs))
    assert net.input_names == (("s", "u") if inputs == TWO else ())
    assert net.output_names == ()


def test_inputs_joined_first_are_read_as_one_row():
    net = check(model(GRAPHS["inputs joined first"][1], TWO))
    assert kinds(net) == ["Layer", "Layer"]
    net = check(model(GRAPHS["layers of two inputs summed"][1], TWO))
    assert kinds(net) == ["Layer", "Layer"]  # one layer over both
    assert net[0].activation.name == "relu"
    assert net[0].bias is not None


SHARED = "h = MatMul(x, W) r = Relu(h) y = MatMul(r, V) "


def test_several_outputs():
    outputs = "float[N, 3] y, float[N, 1] v"
    made = model(f"{SHARED} v = MatMul(r, V1)", outputs=outputs)
    net = check(made)
    assert net.output_names == ("y", "v")
    assert kinds(net) == ["Layer", "Concat"]  # what both need is computed once
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    y, v = net(x)
    assert y.base is v.base is not None
    for wanted, right in (("y", y), ("v", v)):
        one = from_onnx(made, outputs=wanted)
        assert kinds(one) == ["Layer", "Layer"]
        assert_same_bits(one(x), right)
        assert one.output_names == ()
    (only,) = from_onnx(made, outputs=["v"])(x)
    assert_same_bits(only, v)
    assert from_onnx(made, outputs=["v", "y"]).output_names == ("v", "y")
    assert_same_bits(from_onnx(made, outputs=["v", "y"])(x)[1], y)


def test_the_same_array_twice():
    made = model(f"{SHARED} v = Identity(y)", outputs="float[N, 3] y, float[N, 3] v")
    assert check(made).output_names == ("y", "v")


@pytest.mark.parametrize("text", ["v = Identity(c)", "v = Exp(c)", "e = Exp(c) v = Mul(e, one)"])
def test_an_output_that_is_a_constant_is_in_each_row(text):
    net = check(model(f"{SHARED} {text}", outputs="float[N, 3] y, float[3] v"))
    y, v = net(np.full((4, 6), np.nan, np.float32))
    assert np.isnan(y).all()
    right = CONSTANTS["c"] if "Identity" in text else np.exp(CONSTANTS["c"])
    np.testing.assert_allclose(v, np.broadcast_to(right, (4, 3)), rtol=1e-6)
    y, v = net(np.full((0, 6), np.nan, np.float32))
    assert v.shape == (0, 3)


def test_what_an_output_does_not_need_is_left_out(tmp_path):
    """Also an input, and a node that is no part of a dense network."""
    text = f"{SHARED} q = MatMul(z, A) v = Erf(q)"
    made = model(text, "float[N, 6] x, float[N, 2] z", "float[N, 3] y, float[N, 8] v")
    with pytest.raises(fl.ConversionError, match="Erf"):
        from_onnx(made)
    net = from_onnx(made, outputs="y")
    assert net.input_names == ()
    assert net.in_features == 6
    path = str(tmp_path / "policy.onnx")
    onnx.save(made, path)
    x = np.ones((2, 6), np.float32)
    assert_same_bits(fl.load(path, outputs="y")(x), net(x))
    with pytest.raises(fl.ConversionError, match="has the outputs 'y', 'v'; outputs='policy'"):
        fl.load(path, outputs="policy")
    for wrong in ([], ["y", "y"]):
        with pytest.raises(fl.ConversionError, match="has to name some of them, each once"):
            fl.load(path, outputs=wrong)


DUELLING = {
    "value first": "q = Add(v, a) m = ReduceMean<axes=[1], keepdims=1>(a) y = Sub(q, m)",
    "advantage first": "m = ReduceMean<axes=[1], keepdims=1>(a) d = Sub(a, m) y = Add(v, d)",
    "without a mean": "y = Add(a, v)",
    "mean without its axis": "m = ReduceMean<axes=[1], keepdims=0>(a) u = Unsqueeze(m, i1) d = Sub(a, u) "
    "y = Add(v, d)",
    "as many values": "e = Expand(v, three) m = ReduceMean<axes=[1], keepdims=1>(a) n = Expand(m, three) "
    "d = Sub(a, n) y = Add(e, d)",
    "weighed": "m = ReduceMean<axes=[-1]>(a) d = Sub(a, m) e = Mul(d, c) y = Add(v, e)",
}


@pytest.mark.parametrize("body", ["one body", "two bodies"])
@pytest.mark.parametrize("name", DUELLING)
def test_duelling_heads_are_one_layer(name, body):
    other = "r" if body == "one body" else "g"
    heads = f"h = MatMul(x, W) r = Relu(h) g = Tanh(h) a = MatMul(r, V) v = MatMul({other}, V1) "
    net = check(model(heads + DUELLING[name]))
    assert kinds(net) == (["Layer"] * 2 if other == "r" else ["Layer", "Concat", "Layer"])


def test_a_mean_of_large_numbers_is_within_the_rounding_of_the_source():
    """What the source loses in a sum of large numbers is no fault of the one layer here."""
    text = "h = MatMul(x, W) o = MatMul(h, V) a = Add(o, far) m = ReduceMean<axes=[1]>(a) y = Sub(a, m)"
    CONSTANTS["far"] = np.float32([3e4, 3e4, 3e4])
    made = model(text)
    net = from_onnx(made)
    assert kinds(net) == ["Layer", "Layer"]
    x = np.random.default_rng(1).standard_normal((5, 6))
    a = x @ CONSTANTS["W"].astype(float) @ CONSTANTS["V"].astype(float)
    right = a - a.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(net(x.astype(np.float32)), right, rtol=1e-5, atol=1e-5)
    assert net.verification.max_abs > 1e-4  # the source is that far off


def test_one_feature_is_spread_over_those_beside_it():
    net = check(
        model("h = MatMul(x, W) k = MatMul(h, V1) g = Sigmoid(k) o = MatMul(h, V) y = Mul(o, g)")
    )
    assert "Multiply" in kinds(net)
    check(model("m = ReduceMean<axes=[1], keepdims=1>(x) y = Sub(x, m)", outputs="float[N, 6] y"))


def test_features_that_nothing_reads_still_have_to_be_there():
    net = check(model("o = Slice(x, i0, i4, i1) y = MatMul(o, Q)"))
    assert net.in_features == 6
    assert net(np.ones(6, np.float32)).shape == (3,)
    with pytest.raises(ValueError, match=r"expected x of shape \(..., 6\), got \(2, 5\)"):
        net(np.ones((2, 5), np.float32))


def test_inputs_of_other_types_than_the_network():
    text = "a = Cast<to=1>(s) d = Cast<to=1>(u) x = Concat<axis=1>(a, d) h = MatMul(x, W) y = MatMul(h, V)"
    net = from_onnx(model(text, "int64[N, 4] s, uint8[N, 2] u"))
    s, u = np.arange(8).reshape(2, 4), np.array([[1, 2], [3, 255]], np.uint8)
    right = np.concatenate([s, u], axis=1) @ CONSTANTS["W"] @ CONSTANTS["V"]
    np.testing.assert_allclose(net(s, u), right, rtol=1e-5)
    with pytest.raises(fl.ConversionError, match=r"'u'.*it is float64, and another input float32"):
        from_onnx(model("y = Concat<axis=1>(s, u)", "float[N, 2] s, double[N, 1] u"))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_fixed_number_of_rows_is_opened(rows):
    inputs = TWO.replace("N", str(rows))
    net = from_onnx(model(GRAPHS["inputs joined in the middle"][1], inputs, f"float[{rows}, 3] y"))
    assert net(np.ones((5, 4)), np.ones((5, 2))).shape == (5, 3)
    assert net.verification.bound_share <= 1
    with pytest.raises(fl.ConversionError, match="has 2 rows, and another input 3"):
        from_onnx(model("y = Concat<axis=1>(s, u)", "float[3, 4] s, float[2, 2] u"))


WRONG = {
    "more pieces than there are": ("y = Gather<axis=1>(x, odd)", "odd", [3, 6], "features that are not there"),
    "sizes": ("y, z = Split<axis=1>(x, sizes)", "sizes", [2, 3], "splits 6 features into"),
    "an empty range": ("y = Slice(x, i3, i3, i1)", "i3", [3], "takes 0 pieces"),
    "a step of nothing": ("y = Slice(x, i0, i3, i1, i0)", "i0", [0], "different lengths"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_pieces_are_refused(name):
    text, constant, values, why = WRONG[name]
    made = model(text)
    for tensor in made.graph.initializer:
        if tensor.name == constant:
            tensor.CopyFrom(numpy_helper.from_array(np.array(values), constant))
    with pytest.raises((fl.ConversionError, fl.ModelFileError), match=why):
        from_onnx(made)


def test_thousands_of_pieces_are_refused():
    CONSTANTS["many"] = np.arange(2000)[::-1].copy()
    made = model("y = Gather<axis=1>(x, many)", "float[N, 2000] x", "float[N, 2000] y")
    with pytest.raises(fl.ConversionError, match="takes 2000 pieces"):
        from_onnx(made)


def repeated(line, count):
    """Lines in which {i} counts, from x over h1, h2, ... to y."""
    names = ["x", *(f"h{i}" for i in range(1, count)), "y"]
    return " ".join(line.format(a=names[i], b=names[i + 1], i=i) for i in range(count))


@pytest.mark.parametrize("width", ["6", "K"])
def test_joins_of_joins_do_not_ask_for_more_than_a_file_holds(width):
    """A file of a kilobyte would make millions of features of six."""
    text = repeated("{b} = Concat<axis=1>({a}, {a})", 20)
    with pytest.raises(fl.ConversionError, match="by joining them again and again"):
        from_onnx(model(text, f"float[N, {width}] x", "float[N, M] y"))
    net = from_onnx(model(repeated("{b} = Concat<axis=1>({a}, {a})", 6), outputs="float[N, 384] y"))
    x = np.arange(6, dtype=np.float32)[None]
    assert_same_bits(net(x), np.tile(x, 64))


def test_outputs_at_all_depths():
    """Each holds those before it, so that many are too much work."""
    text = repeated("{b} = Tanh({a})", 20)
    outputs = ", ".join(f"float[N, 6] {name}" for name in [*(f"h{i}" for i in range(1, 20)), "y"])
    assert len(check(model(text, outputs=outputs)).output_names) == 20
    text = repeated("{b} = Tanh({a})", 3000)
    outputs = ", ".join(f"float[N, 6] {name}" for name in [*(f"h{i}" for i in range(1, 3000)), "y"])
    with pytest.raises(fl.ConversionError, match="too many layers"):
        from_onnx(model(text, outputs=outputs))


@pytest.mark.parametrize(
    "text",
    [
        "y = Gather<axis=1>(x, order)",
        "y, z = Split<axis=1>(x)",
        "y = Slice(x, m1, last, i1)",
    ],
)
def test_pieces_of_unknown_features(text):
    with pytest.raises(fl.ConversionError, match="is not known; declare it in the model"):
        from_onnx(model(text, "float[N, K] x", "float[N, M] y"))
    sure = from_onnx(model("y = Slice(x, i1, i3, i1)", "float[N, K] x", "float[N, 2] y"))
    assert_same_bits(sure(np.arange(5.0)), np.array([1, 2], np.float32))


def test_single_samples_of_several_inputs():
    text = "x = Concat<axis=0>(s, u) h = MatMul(x, W) r = Relu(h) y = MatMul(r, V)"
    net = from_onnx(model(text, "float[4] s, float[2] u", "float[3] y"))
    s, u = np.arange(4, dtype=np.float32), np.float32([1, -1])
    h = np.concatenate([s, u]) @ CONSTANTS["W"]
    np.testing.assert_allclose(net(s, u), np.maximum(h, 0) @ CONSTANTS["V"], rtol=1e-5)
    assert net.verification.bound_share <= 1
    with pytest.raises(fl.ConversionError, match="'u': it is one array for all samples"):
        from_onnx(model("y = Add(s, u)", "float[N, 4] s, float[4] u", "float[N, 4] y"))
