"""Files of Keras that no Keras is needed for: those of Keras 2, and those that are refused."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_same_bits, assert_within, ref_network
from keras_files import (
    arrays_for,
    dense,
    layer,
    sequential,
    weights_file,
    write_h5,
    write_keras,
)

import fastlayer as fl
from fastlayer.convert.keras import load_keras

h5py = pytest.importorskip("h5py")
DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_mlp_of_keras_2(rng, tmp_path, dtype):
    first, second = arrays_for(rng, 5, 8, dtype), arrays_for(rng, 8, 3, dtype)
    config = sequential(
        dense("a", 8, "relu", dtype=dtype, batch_input_shape=[None, 5]), dense("b", 3, "softmax")
    )
    named = [dict(zip(("kernel", "bias"), pair, strict=True)) for pair in (first, second)]
    path = write_h5(tmp_path / "m.h5", config, dict(zip("ab", named, strict=True)))
    net = load_keras(path)
    assert net.dtype == np.dtype(dtype)
    x = rng.standard_normal((9, 5)).astype(dtype)
    layers = [(first[0].T, first[1], "relu"), (second[0].T, second[1], "softmax")]
    assert_within(net(x), *ref_network(x, layers, dtype))
    assert_same_bits(fl.load(path)(x), net(x))


def test_list_of_layers_before_keras_2_2_3(rng, tmp_path):
    kernel, bias = arrays_for(rng, 5, 8)
    config = {"class_name": "Sequential", "config": [dense("a", 8, batch_input_shape=[None, 5])]}
    path = write_h5(tmp_path / "m.h5", config, {"a": {"kernel": kernel, "bias": bias}}, None)
    x = rng.standard_normal((9, 5)).astype(np.float32)
    assert_same_bits(load_keras(path)(x), fl.linear(x, np.ascontiguousarray(kernel.T), bias))


# What Keras 2 means by a layer that follows a Dense, and what Keras 3 does.
CHANGED = {
    "leaky alpha": (layer("LeakyReLU", "act", alpha=0.25), "leaky_relu", 0.25),
    "leaky default": (layer("LeakyReLU", "act"), "leaky_relu", 0.3),
    "relu with a slope": (layer("ReLU", "act", negative_slope=0.5), "leaky_relu", 0.5),
    "elu": (layer("ELU", "act", alpha=2.0), "elu", 2.0),
}


@pytest.mark.parametrize("name", CHANGED)
def test_layers_whose_parameters_were_renamed(rng, tmp_path, name):
    spec, activation, value = CHANGED[name]
    kernel, bias = arrays_for(rng, 5, 8)
    config = sequential(dense("a", 8, batch_input_shape=[None, 5]), spec)
    path = write_h5(tmp_path / "m.h5", config, {"a": {"kernel": kernel, "bias": bias}, "act": {}})
    (made,) = load_keras(path)
    assert made.activation.name == activation
    assert list(made.activation.parameters.values()) == [value]


@pytest.mark.parametrize("version", ["2.15.0", "3.0.0"])
def test_hard_sigmoid_changed_its_slope(rng, tmp_path, version):
    kernel, bias = arrays_for(rng, 5, 8)
    path = write_h5(
        tmp_path / "m.h5",
        sequential(dense("a", 8, "hard_sigmoid")),
        {"a": {"kernel": kernel, "bias": bias}},
        version,
    )
    x = 3 * rng.standard_normal((99, 5))
    z = x.astype(np.float32).astype(np.float64) @ kernel + bias
    expected = np.clip(z / (5 if version < "3" else 6) + 0.5, 0, 1)
    # sums of five products below 10
    assert np.abs(load_keras(path)(x) - expected).max() <= 40 * np.finfo(np.float32).eps


def test_batch_normalization_with_a_list_of_axes(rng, tmp_path):
    kernel, bias = arrays_for(rng, 5, 8)
    norm = {name: rng.uniform(0.5, 2, 8) for name in ("gamma", "beta", "moving_mean")}
    norm["moving_variance"] = rng.uniform(0.5, 2, 8)
    norm = {key: a.astype(np.float32) for key, a in norm.items()}
    config = sequential(
        dense("a", 8, batch_input_shape=[None, 5]),
        layer("BatchNormalization", "norm", axis=[1], epsilon=0.01, momentum=0.9),
        layer("Activation", "act", activation="tanh"),
    )
    weights = {"a": {"kernel": kernel, "bias": bias}, "norm": norm, "act": {}}
    net = load_keras(write_h5(tmp_path / "m.h5", config, weights))
    x = rng.standard_normal((9, 5)).astype(np.float32)
    z = x.astype(np.float64) @ kernel + bias
    scaled = (z - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 0.01)
    expected = np.tanh(scaled * norm["gamma"] + norm["beta"])
    assert np.abs(net(x) - expected).max() <= 64 * np.finfo(np.float32).eps


def functional_of_keras_2(*, training=False):
    def called(spec, *nodes):
        options = {"training": True} if training and spec["class_name"] == "Dropout" else {}
        nodes = [[[name, 0, 0, options] for name in nodes]] if nodes else []
        return {**spec, "name": spec["config"]["name"], "inbound_nodes": nodes}

    config = {
        "name": "model",
        "layers": [
            called(layer("InputLayer", "x", batch_input_shape=[None, 5], dtype="float32")),
            called(dense("a", 5, "relu"), "x"),
            called(layer("Dropout", "drop", rate=0.5), "a"),
            called(layer("Add", "sum"), "x", "drop"),
        ],
        "input_layers": [["x", 0, 0]],
        "output_layers": [["sum", 0, 0]],
    }
    return {"class_name": "Functional", "config": config}


def test_functional_model_of_keras_2(rng, tmp_path):
    kernel, bias = arrays_for(rng, 5, 5)
    weights = {"a": {"kernel": kernel, "bias": bias}}
    net = load_keras(write_h5(tmp_path / "m.h5", functional_of_keras_2(), weights))
    x = rng.standard_normal((9, 5)).astype(np.float32)
    assert_same_bits(net(x), fl.linear(x, np.ascontiguousarray(kernel.T), bias, "relu") + x)


def of_tensorflow(function, call):
    """A functional model of Keras 2: an input "x", a dense layer "a" and a function of both."""
    config = functional_of_keras_2()
    start, fc = config["config"]["layers"][:2]
    kind = "SlicingOpLambda" if function.endswith("getitem") else "TFOpLambda"
    spec = layer(kind, "f", trainable=True, dtype="float32", function=function)
    config["config"]["layers"] = [start, fc, {**spec, "name": "f", "inbound_nodes": [call]}]
    config["config"]["output_layers"] = [["f", 0, 0]]
    return config


VECTOR = [0.5, -1.0, 2.0, 4.0, 0.25]
PARTS = ("start", "stop", "step")
# What Keras 2 writes for an operator or a function of TensorFlow, and what it is of x and a.
TENSORFLOW = {
    "x - mean": ("math.subtract", ["x", 0, 0, {"y": VECTOR, "name": None}], lambda x, a: x - VECTOR),
    "x / std": ("math.truediv", ["x", 0, 0, {"y": [VECTOR]}], lambda x, a: x / np.array(VECTOR)),
    "2 - x": (
        "math.subtract", ["_CONSTANT_VALUE", -1, 2.0, {"y": ["x", 0, 0]}], lambda x, a: 2 - x,
    ),
    "x * 3": ("math.multiply", ["x", 0, 0, {"y": 3, "name": None}], lambda x, a: x * 3),
    "a + x": ("__operators__.add", ["a", 0, 0, {"y": ["x", 0, 0]}], lambda x, a: a + x),
    "a * x": ("math.multiply", ["a", 0, 0, {"y": ["x", 0, 0]}], lambda x, a: a * x),
    "clip": (
        "clip_by_value", ["x", 0, 0, {"clip_value_min": -1, "clip_value_max": 0.5}],
        lambda x, a: np.clip(x, -1, 0.5),
    ),
    "relu": ("nn.relu", ["x", 0, 0, {"name": None}], lambda x, a: np.maximum(x, 0)),
    "log_softmax": (
        "nn.log_softmax", ["x", 0, 0, {"axis": -1}],
        lambda x, a: x - np.log(np.exp(x).sum(axis=-1, keepdims=True)),
    ),
    "concat": (
        "concat", [["a", 0, 0, {"axis": -1}], ["x", 0, 0, {"axis": -1}]],
        lambda x, a: np.concatenate([a, x], axis=-1),
    ),
    "slice": (
        "__operators__.getitem",
        ["a", 0, 0, {"slice_spec": [dict.fromkeys(PARTS), {"start": 1, "stop": 4, "step": None}]}],
        lambda x, a: a[:, 1:4],
    ),
    "cast": ("cast", ["a", 0, 0, {"dtype": "float32"}], lambda x, a: a),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORFLOW)
def test_functions_of_tensorflow_in_files_of_keras_2(rng, tmp_path, name):
    function, call, expected = TENSORFLOW[name]
    kernel, bias = arrays_for(rng, 5, 5)
    weights = {"a": {"kernel": kernel, "bias": bias}}
    net = load_keras(write_h5(tmp_path / "m.h5", of_tensorflow(function, call), weights))
    x = rng.standard_normal((9, 5)).astype(np.float32)
    a = np.maximum(x.astype(np.float64) @ kernel + bias, 0)
    # a sum of five products below 10
    assert np.abs(net(x) - expected(x.astype(np.float64), a)).max() <= 40 * np.finfo("f4").eps


def test_other_functions_of_tensorflow(rng, tmp_path):
    weights = {"a": dict(zip(("kernel", "bias"), arrays_for(rng, 5, 5), strict=True))}
    for function, call, why in (
        ("io.read_file", ["x", 0, 0, {}], "is 'io.read_file' of TensorFlow; fastlayer runs dense"),
        ("math.reduce_mean", ["x", 0, 0, {"axis": 0}], r"\(keras TFOpLambda\): is over axis 0"),
        ("nn.softmax", ["x", 0, 0, {"axis": 0}], "works along axis 0"),
    ):
        path = write_h5(tmp_path / "m.h5", of_tensorflow(function, call), weights)
        with pytest.raises(fl.ConversionError, match=why):
            load_keras(path)


@pytest.mark.parametrize("kind", ["Sequential", "Functional"])
def test_models_in_models_of_keras_2(rng, tmp_path, kind):
    """Their own call, from their input, is number 0, and not in the file."""
    first, second = arrays_for(rng, 5, 5), arrays_for(rng, 5, 5)
    config = functional_of_keras_2()
    start, fc, *_ = config["config"]["layers"]
    inside = [
        {**layer("InputLayer", "i", batch_input_shape=[None, 5]), "name": "i", "inbound_nodes": []},
        {**dense("b", 5, "tanh"), "name": "b", "inbound_nodes": [[["i", 0, 0, {}]]]},
    ]
    ends = {"input_layers": [["i", 0, 0]], "output_layers": [["b", 0, 0]]}
    inner = {"class_name": kind, "config": {"name": "inner", "layers": inside, **ends}}
    calls = [[["a", 0, 0, {}]], [["inner", 1, 0, {}]]]
    config["config"]["layers"] = [start, fc, {**inner, "name": "inner", "inbound_nodes": calls}]
    config["config"]["output_layers"] = [["inner", 2, 0]]
    weights = {"a": dict(zip(("kernel", "bias"), first, strict=True))}
    weights["inner"] = {"b/kernel:0": second[0], "b/bias:0": second[1]}
    net = load_keras(write_h5(tmp_path / "m.h5", config, weights))
    x = rng.standard_normal((9, 5)).astype(np.float32)
    expected = np.maximum(x.astype(np.float64) @ first[0] + first[1], 0)
    for _ in range(2):
        expected = np.tanh(expected @ second[0] + second[1])
    # three sums of five products below 10
    assert np.abs(net(x) - expected).max() <= 120 * np.finfo("f4").eps


def test_dropout_that_is_always_on(rng, tmp_path):
    weights = {"a": dict(zip(("kernel", "bias"), arrays_for(rng, 5, 5), strict=True))}
    path = write_h5(tmp_path / "m.h5", functional_of_keras_2(training=True), weights)
    with pytest.raises(fl.ConversionError, match="training=True"):
        load_keras(path)


def test_axis_1_of_rows_whose_shape_is_not_told(rng, tmp_path):
    """The first axis after the samples is the last one where a sample is a row."""
    kernel, bias = arrays_for(rng, 5, 8)
    norm = {name: rng.uniform(0.5, 2, 8).astype(np.float32) for name in ("gamma", "beta")}
    norm |= {f"moving_{name}": norm["gamma"] for name in ("mean", "variance")}
    weights = {"a": {"kernel": kernel, "bias": bias}, "norm": norm}
    config = sequential(dense("a", 8), layer("BatchNormalization", "norm", axis=1))
    last = sequential(dense("a", 8), layer("BatchNormalization", "norm", axis=-1))
    x = rng.standard_normal((9, 5)).astype(np.float32)
    first = load_keras(write_h5(tmp_path / "m.h5", config, weights))(x)
    assert_same_bits(first, load_keras(write_h5(tmp_path / "l.h5", last, weights))(x))


def test_names_of_weights_in_several_attributes(rng, tmp_path):
    """Lists above 64 KB are kept in parts."""
    kernel, bias = arrays_for(rng, 5, 8)
    weights = {"a": {"kernel": kernel, "bias": bias}}
    path = write_h5(tmp_path / "m.h5", sequential(dense("a", 8)), weights)
    with h5py.File(path, "a") as file:
        attributes = file["model_weights/a"].attrs
        names = list(attributes["weight_names"])
        del attributes["weight_names"]
        for i, name in enumerate(names):
            attributes[f"weight_names{i}"] = [name]
    (made,) = load_keras(path)
    assert_same_bits(made.weight, np.ascontiguousarray(kernel.T))
    assert_same_bits(made.bias, bias)


def test_names_of_a_fixed_length(rng, tmp_path):
    """As Keras 2 writes them, NumPy's bytes."""
    kernel, bias = arrays_for(rng, 5, 8)
    weights = {"a": {"kernel": kernel, "bias": bias}}
    path = write_h5(tmp_path / "m.h5", sequential(dense("a", 8)), weights)
    with h5py.File(path, "a") as file:
        attributes = file["model_weights/a"].attrs
        attributes["weight_names"] = np.array(list(attributes["weight_names"]), "S")
    (made,) = load_keras(path)
    assert_same_bits(made.weight, np.ascontiguousarray(kernel.T))


def test_arrays_inside_their_headers(rng, tmp_path):
    """HDF5 calls them compact."""
    kernel, bias = arrays_for(rng, 5, 8)
    weights = {"a": {"kernel": kernel, "bias": bias}}
    path = write_h5(tmp_path / "m.h5", sequential(dense("a", 8)), weights)
    with h5py.File(path, "a") as file:
        del file["model_weights/a/a/bias:0"]
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(bias.shape)
        kind = h5py.h5t.py_create(bias.dtype)
        inside = file["model_weights/a/a"].id
        h5py.h5d.create(inside, b"bias:0", kind, space, compact).write(space, space, bias)
    (made,) = load_keras(path)
    assert_same_bits(made.bias, bias)


def test_a_file_that_leaves_its_version_empty(rng, tmp_path):
    """Files that tell no version are older than Keras 3: LeakyReLU's slope is alpha."""
    kernel, bias = arrays_for(rng, 5, 8)
    config = sequential(dense("a", 8), layer("LeakyReLU", "act", alpha=0.25))
    weights = {"a": {"kernel": kernel, "bias": bias}, "act": {}}
    (made,) = load_keras(write_h5(tmp_path / "m.h5", config, weights, ""))
    assert made.activation.parameters == {"negative_slope": 0.25}


def test_names_with_scopes(rng, tmp_path):
    kernel, bias = arrays_for(rng, 5, 8)
    weights = {"a": {"model/a/kernel:0": kernel, "model/a/bias:0": bias}}
    net = load_keras(write_h5(tmp_path / "m.h5", sequential(dense("a", 8)), weights))
    assert_same_bits(net[0].weight, np.ascontiguousarray(kernel.T))


def test_many_layers_in_one_group(rng, tmp_path):
    """More names than one node of HDF5's tree holds."""
    pairs = {f"d{i}": arrays_for(rng, 3, 3) for i in range(300)}
    named = {name: {"kernel": k, "bias": b} for name, (k, b) in pairs.items()}
    config = sequential(*(dense(name, 3, "tanh") for name in pairs))
    net = load_keras(write_h5(tmp_path / "m.h5", config, named))
    assert len(net) == 300
    for made, (k, b) in zip(net, pairs.values(), strict=True):
        assert_same_bits(made.weight, np.ascontiguousarray(k.T))
        assert_same_bits(made.bias, b)


# Where the layers are in the file: Keras 2.12 counted those with weights twice.
FOLDERS = {
    "layers": ("layers", ["dense", "dense_1"]),
    "old": ("_layer_checkpoint_dependencies", ["dense", "dense_1"]),
    "old with gaps": ("_layer_checkpoint_dependencies", ["dense", "dense_2"]),
    "old, of Windows": ("_layer_checkpoint_dependencies\\", ["dense", "dense_1"]),
    "old with gaps, of Windows": ("_layer_checkpoint_dependencies\\", ["dense", "dense_3"]),
    "of Windows": ("layers\\", ["dense", "dense_1"]),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_keras_archive(rng, tmp_path, name):
    folder, slots = FOLDERS[name]
    pairs = [arrays_for(rng, 5, 5), arrays_for(rng, 5, 5)]
    content = weights_file(dict(zip(slots, pairs, strict=True)), folder)
    config = sequential(dense("b", 5, "relu"), dense("a", 5))
    net = load_keras(write_keras(tmp_path / "m.keras", config, content))
    for made, (kernel, bias) in zip(net, pairs, strict=True):
        assert_same_bits(made.weight, np.ascontiguousarray(kernel.T))
        assert_same_bits(made.bias, bias)


@pytest.mark.parametrize("folder", ["layers", "_layer_checkpoint_dependencies"])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_models_in_models_of_every_layout(rng, tmp_path, folder, separator):
    first, second, third = (arrays_for(rng, 5, 5) for _ in range(3))
    inner = f"{folder}{separator}sequential{separator}{folder}{separator}"
    slots = {f"{folder}{separator}dense": first, f"{inner}dense": second, f"{inner}dense_1": third}
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for slot, pair in slots.items():
            file[f"{slot}/vars/0"], file[f"{slot}/vars/1"] = pair
    below = sequential(dense("c", 5, "tanh"), dense("d", 5))
    below["config"]["name"] = "below"
    config = sequential(dense("b", 5, "relu"), below)
    net = load_keras(write_keras(tmp_path / "m.keras", config, content.getvalue()))
    found = [part.weight for part in net if hasattr(part, "weight")]
    for weight, (kernel, _) in zip(found, (first, second, third), strict=True):
        assert_same_bits(weight, np.ascontiguousarray(kernel.T))


@pytest.mark.parametrize("outputs", [{"action": ["d", 0, 0]}, [["d", 0, 0]], ["d", 0, 0]])
def test_one_output_in_whatever_it_is_given(rng, tmp_path, outputs):
    config = {
        "class_name": "Functional",
        "config": {
            "name": "m",
            "layers": [
                {**layer("InputLayer", "x", batch_shape=[None, 4]), "name": "x"},
                {**dense("d", 3), "name": "d", "inbound_nodes": [[["x", 0, 0, {}]]]},
                {
                    **layer("Clip", "c", x_min=-1, x_max=0.5), "name": "c",
                    "inbound_nodes": [[["d", 0, 0, {}]]],
                },
            ],
            "input_layers": {"x": ["x", 0, 0]},
            "output_layers": outputs,
        },
    }  # fmt: skip
    kernel, bias = arrays_for(rng, 4, 3)
    content = weights_file({"dense": [kernel, bias]})
    net = load_keras(write_keras(tmp_path / "m.keras", config, content))
    assert_same_bits(net[0].weight, np.ascontiguousarray(kernel.T))
    config["config"]["output_layers"] = ["c", 0, 0]
    clipped = load_keras(write_keras(tmp_path / "c.keras", config, content))
    x = 3 * rng.standard_normal((9, 4), np.float32)
    assert_same_bits(clipped(x), np.clip(net(x), np.float32(-1), np.float32(0.5)))
    config["config"]["output_layers"] = {"b": ["d", 0, 0], "a": ["c", 0, 0]}
    two = load_keras(write_keras(tmp_path / "two.keras", config, content))
    assert two.output_names == ("a", "b")
    for ours, alone in zip(two(x), (clipped, net), strict=True):
        assert_same_bits(ours, alone(x))


def test_contents_count_not_suffixes(rng, tmp_path):
    kernel, bias = arrays_for(rng, 5, 8)
    path = tmp_path / "m.h5"
    write_keras(path, sequential(dense("a", 8)), weights_file({"dense": [kernel, bias]}))
    assert load_keras(path).in_features == 5


REFUSED = {
    "lambda": (layer("Lambda", "f", function=["4wEAAAAAAA", None, None]), "(keras Lambda)"),
    "own layer": (
        {
            **layer("Dense", "own", units=3),
            "module": "builtins",
            "registered_name": "Package>Dense",
        },
        "code in a model is never run",
    ),
    "own activation": (
        dense("a", 3, {"class_name": "function", "config": "os.system", "module": "posix"}),
        "never run",
    ),
    "own class of activation": (
        dense("a", 3, {"class_name": "Popen", "config": {}, "module": "subprocess"}),
        "never run",
    ),
    "own layer called as a function of Keras": (
        layer("Tanh", "t", trainable=True, dtype="float32"),
        "'t' (keras Tanh)",
    ),
    "batch renormalisation": (
        layer("BatchNormalization", "n", renorm=True),
        "batch renormalisation, which fastlayer lacks",
    ),
    "deviations without means": (
        layer("LayerNormalization", "n", rms_scaling=True),
        "fastlayer has RMSNormalization",
    ),
    "table of factors": (
        layer("Rescaling", "r", scale=[[1.0, 2.0], [3.0, 4.0]]),
        "has a scale of shape (2, 2); fastlayer takes one for each feature",
    ),
    "unknown layer as activation": (
        dense("a", 3, {"class_name": "HyperAct", "config": {}, "module": "keras.layers"}),
        "has the activation 'HyperAct'",
    ),
    "unknown layer": (layer("HyperDense", "h"), "'h' (keras HyperDense)"),
    "unknown activation": (dense("a", 3, "hyper"), "'hyper'"),
    "layer as name of an activation": (dense("a", 3, "LeakyReLU"), "'LeakyReLU'"),
    "float16": (dense("a", 3, dtype="float16"), "'float16'"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_refusal(rng, tmp_path, name, suffix):
    spec, message = REFUSED[name]
    kernel, bias = arrays_for(rng, 5, 3)
    path = tmp_path / f"m.{suffix}"
    if suffix == "h5":
        write_h5(path, sequential(spec), {"a": {"kernel": kernel, "bias": bias}})
    else:
        write_keras(path, sequential(spec), weights_file({"dense": [kernel, bias]}))
    with pytest.raises(fl.ConversionError) as caught:
        load_keras(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_in_either_byte_order(rng, tmp_path, dtype, order):
    """h5py writes in the order of the machine."""
    kernel, bias = arrays_for(rng, 5, 3, dtype)
    stored = {"kernel": kernel, "bias": bias}
    stored = {name: a.astype(a.dtype.newbyteorder(order)) for name, a in stored.items()}
    path = write_h5(tmp_path / "m.h5", sequential(dense("a", 3, dtype=dtype)), {"a": stored})
    made = load_keras(path)[0]
    assert_same_bits(made.weight, np.ascontiguousarray(kernel.T))
    assert_same_bits(made.bias, bias)


def test_weights_of_other_kinds(rng, tmp_path):
    for bad in (np.ones((5, 3), np.int8), np.ones((5, 3), np.float16)):
        weights = {"a": {"kernel": bad, "bias": np.ones(3, np.float32)}}
        path = write_h5(tmp_path / "m.h5", sequential(dense("a", 3)), weights)
        with pytest.raises(fl.ConversionError, match="float32 or float64"):
            load_keras(path)


def test_norm_that_does_not_tell_its_width(tmp_path):
    bare = layer("LayerNormalization", "n", center=False, scale=False)
    path = write_h5(tmp_path / "m.h5", sequential(bare), {"n": {}})
    with pytest.raises(fl.ConversionError, match="does not tell how many features it normalises"):
        load_keras(path)
    bare["config"]["batch_input_shape"] = [None, 5]
    assert load_keras(write_h5(path, sequential(bare), {"n": {}})).in_features == 5


def test_weights_of_another_dtype_than_their_layer(rng, tmp_path):
    kernel, bias = arrays_for(rng, 5, 3, "float64")
    config = sequential(dense("a", 3, dtype="float32"))
    path = write_h5(tmp_path / "m.h5", config, {"a": {"kernel": kernel, "bias": bias}})
    with pytest.raises(fl.ModelFileError, match="kernel is float64, its layer float32"):
        load_keras(path)


def test_nothing_but_numpy_is_imported(rng, tmp_path):
    """Neither Keras nor h5py nor any framework."""
    kernel, bias = arrays_for(rng, 5, 8)
    path = write_h5(
        tmp_path / "m.h5", sequential(dense("a", 8)), {"a": {"kernel": kernel, "bias": bias}}
    )
    code = (
        "import sys, fastlayer as fl\n"
        "fl.load(sys.argv[1])\n"
        "print([m for m in ('keras', 'h5py', 'tensorflow', 'torch', 'jax') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_configuration_as_h5py_writes_long_ones(rng, tmp_path):
    """Texts above 64 KB lie outside of their attribute."""
    kernel, bias = arrays_for(rng, 5, 8)
    config = sequential(dense("a", 8, padding="x" * 100_000))
    assert len(json.dumps(config)) > 1 << 16
    path = write_h5(tmp_path / "m.h5", config, {"a": {"kernel": kernel, "bias": bias}})
    assert load_keras(path).in_features == 5
