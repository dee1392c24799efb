"""Labels at the end of ONNX graphs: the class of the largest score."""

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import assert_round_trips

import fastlayer as fl

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import helper, numpy_helper, parser

from fastlayer.convert.onnx import from_onnx

X = np.random.default_rng(3).standard_normal((40, 4)).astype(np.float32)
W = np.random.default_rng(4).standard_normal((4, 3)).astype(np.float32)


def model(text, outputs, opset=17, **constants):
    made = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}, "ai.onnx.ml": 1]> '
        f"g (float[N, 4] x) => ({outputs}) {{ {text} }}"
    )
    for name, value in {"W": W, **constants}.items():
        if isinstance(value, list):
            tensor = helper.make_tensor(name, 8, [len(value)], [v.encode() for v in value])
        else:
            tensor = numpy_helper.from_array(np.asarray(value), name)
        made.graph.initializer.append(tensor)
    return made


def check(made, **options):
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    wanted = session.run(None, {"x": X})
    net = from_onnx(made, **options)
    given = net(X)
    for ours, theirs in zip(given if isinstance(given, tuple) else (given,), wanted, strict=True):
        assert ours.shape == theirs.shape
        if theirs.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        else:
            assert (ours == theirs).all()
    assert net.verification.bound_share <= 1
    assert_round_trips(net, X)
    return net


GRAPHS = {
    "the number of the largest": ("h = MatMul(x, W) y = ArgMax<axis=1>(h)", "int64[N, 1] y", {}),
    "without its axis": (
        "h = MatMul(x, W) y = ArgMax<axis=-1, keepdims=0>(h)", "int64[N] y", {},
    ),
    "a class": (
        "h = MatMul(x, W) a = ArgMax<axis=1, keepdims=0>(h) y = Gather(c, a)",
        "int64[N] y",
        {"c": np.array([7, -2, 30])},
    ),
    "as skl2onnx writes it": (
        ("h = MatMul(x, W) p = Softmax<axis=1>(h) a = ArgMax<axis=1>(p) "
        "f = ai.onnx.ml.ArrayFeatureExtractor(c, a) r = Reshape(f, s) y = Cast<to=7>(r)"),
        "int64[N] y, float[N, 3] p",
        {"c": np.array([[7, -2, 30]]), "s": np.array([-1])},
    ),
    "a text": (
        "h = MatMul(x, W) a = ArgMax<axis=1, keepdims=0>(h) y = Gather(c, a)",
        "string[N] y",
        {"c": ["one", "zwei", "три"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_label(name):
    text, outputs, constants = GRAPHS[name]
    net = check(model(text, outputs, **constants))
    assert isinstance(net(X), tuple) == ("skl2onnx" in name)


def test_labels_of_any_shape_of_input():
    text, outputs, constants = GRAPHS["a class"]
    net = from_onnx(model(text, outputs, **constants))
    labels = net(X)
    assert labels.dtype == np.int64
    assert net(X[0]) == labels[0]
    assert (net(X.reshape(5, 8, 4)) == labels.reshape(5, 8)).all()
    assert (net(X.T, axis=0) == labels).all()
    assert net(X[:0]).shape == (0,)
    assert (net.predict(X, batch_size=7) == labels).all()


LINEAR = {
    "two classes": ([-1, 1], "LOGISTIC", [[1.0, 2, -1, 0.5], [-1, -2, 1, -0.5]], [0.25, -0.25]),
    "three classes": ([4, 5, 9], "SOFTMAX", W.T.tolist(), [0.1, 0.0, -0.2]),
    "scores alone": ([0, 1, 2], "NONE", W.T.tolist(), [0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("texts", [False, True])
def test_linear_classifier(name, texts):
    classes, transform, weights, shifts = LINEAR[name]
    labels = [f"class {c}" for c in classes] if texts else classes
    kind = "classlabels_strings" if texts else "classlabels_ints"
    made = model("y = Identity(x)", f"{'string' if texts else 'int64'}[N] y, float[N, k] p")
    del made.graph.node[:]
    made.graph.node.append(
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["y", "p"],
            domain="ai.onnx.ml",
            coefficients=np.ravel(weights).astype(np.float32).tolist(),
            intercepts=shifts,
            post_transform=transform,
            multi_class=int(len(classes) > 2),
            **{kind: labels},
        )
    )
    net = check(made)
    assert net.output_names == ("y", "p")
    assert_same_bits(from_onnx(made, outputs="p")(X), net(X)[1])
    assert (from_onnx(made, outputs="y")(X) == net(X)[0]).all()


def test_probabilities_by_the_names_of_classes_are_an_array():
    made = model(
        "h = MatMul(x, W) p = Softmax(h) y = ai.onnx.ml.ZipMap<classlabels_int64s=[1, 2, 3]>(p)",
        "float[N, 3] y",
    )
    right = from_onnx(model("h = MatMul(x, W) y = Softmax(h)", "float[N, 3] y"))(X)
    assert_same_bits(from_onnx(made)(X), right)


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("activation", ["Softmax<axis=1>", "Sigmoid"])
def test_probabilities_divided_by_their_sum(activation, opset):
    """As skl2onnx writes it behind a LinearClassifier."""
    made = model(
        f'h = MatMul(x, W) p = {activation}(h) y = ai.onnx.ml.Normalizer<norm="L1">(p)',
        "float[N, 3] y",
        opset,
    )
    net = check(made)
    kinds = [part if isinstance(part, fl.Activation) else part.activation for part in net]
    assert [a.name for a in kinds][-1] == "softmax"
    with pytest.raises(fl.ConversionError, match=r"its norm is .MAX.; L1, L2 can be converted"):
        from_onnx(
            model('h = MatMul(x, W) y = ai.onnx.ml.Normalizer<norm="MAX">(h)', "float[N, 3] y")
        )
    with pytest.raises(fl.ConversionError, match="nothing for it"):
        from_onnx(
            model('h = MatMul(x, W) y = ai.onnx.ml.Normalizer<norm="L1">(h)', "float[N, 3] y")
        )


REFUSED = {
    "the last of the largest": ("h = MatMul(x, W) y = ArgMax<axis=1, select_last_index=1>(h)", "last of"),
    "computed with": ("h = MatMul(x, W) a = ArgMax<axis=1>(h) y = Add(a, c)", "computes with labels"),
    "classes that are not there": (
        "h = MatMul(x, W) a = ArgMax<axis=1>(h) y = Gather(d, a)", "not there, of 2",
    ),
    "another shape": ("h = MatMul(x, W) a = ArgMax<axis=1>(h) y = Reshape(a, e)", "another shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    text, why = REFUSED[name]
    constants = {"c": np.array([1]), "d": np.array([1, 2]), "e": np.array([-1, 2, 2])}
    with pytest.raises((fl.ConversionError, fl.ModelFileError), match=why):
        from_onnx(model(text, "int64[N] y", **constants))


def test_texts_that_are_not_there():
    made = model(
        "h = MatMul(x, W) a = ArgMax<axis=1>(h) y = Gather(c, a)", "string[N] y", c=["a", "b", "c"]
    )
    made.graph.initializer[1].string_data.pop()
    with pytest.raises(fl.ModelFileError, match="2 texts"):
        from_onnx(made)


DAMAGED = [
    {"labels": [1, 2]},
    {"labels": [1, 2, "3"], "keepdims": False},
    {"labels": [1, 2, 1 << 63], "keepdims": False},
    {"labels": [1, 2, None]},
    {"labels": "abc"},
    {"labels": [1, 2, 3], "keepdims": 1},
    {"labels": [1, 2, 3], "keepdims": "no"},
    [1, 2, 3],
]


@pytest.mark.parametrize("classes", DAMAGED)
def test_a_document_with_other_classes_is_damaged(classes):
    from fastlayer.files.document import from_document
    from fastlayer.network.network import PARTS

    layer = {"type": "Activation", "name": "relu", "parameters": {}}
    document = {
        "format": "fastlayer", "version": 2, "dtype": "float32", "layers": [layer],
        "outputs": [["y", 3, classes]], "single": True,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"class|label|keepdims"):
        from_document(document, None, PARTS)
