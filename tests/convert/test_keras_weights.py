"""Weights that Keras saved alone, with the configuration beside them."""

import io
import json

import numpy as np
import pytest
from helpers import assert_same_bits
from keras_files import arrays_for, dense, layer, sequential, weights_file, write_keras

import fastlayer as fl

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def write_old(path, arrays, version="2.15.0"):
    """Write what ``model.save_weights("w.h5")`` of Keras 2 writes: {layer: {weight: array}}."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in arrays]
        file.attrs["keras_version"] = version
        for name, given in arrays.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{key}:0".encode() for key in given]
            for key, a in given.items():
                group[f"{name}/{key}:0"] = a
    return path


def write_new(path, slots, folder="layers"):
    path.write_bytes(weights_file(slots, folder))
    return path


PAIR = ("kernel", "bias")
# Where the weights of "a" and "b" are in the file of each version of Keras.
LAYOUTS = {
    "Keras 3": lambda path, a, b: write_new(path, {"dense": a, "dense_1": b}),
    "Keras 2.13": lambda path, a, b: write_new(
        path, {"dense": a, "dense_1": b}, "_layer_checkpoint_dependencies"
    ),
    "Keras 2.13 on Windows": lambda path, a, b: write_new(
        path, {"dense": a, "dense_1": b}, "_layer_checkpoint_dependencies\\"
    ),
    "Keras 3 on Windows": lambda path, a, b: write_new(
        path, {"dense": a, "dense_1": b}, "layers\\"
    ),
    "Keras 2": lambda path, a, b: write_old(
        path,
        {"a": dict(zip(PAIR, a, strict=True)), "drop": {}, "b": dict(zip(PAIR, b, strict=True))},
    ),
}


def two_layers():
    return sequential(
        dense("a", 8, "relu", batch_input_shape=[None, 5]), layer("Dropout", "drop"), dense("b", 3)
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(rng, tmp_path, name):
    a, b = arrays_for(rng, 5, 8), arrays_for(rng, 8, 3)
    path = LAYOUTS[name](tmp_path / "model.weights.h5", a, b)
    net = fl.load(path, config=two_layers())
    for made, (kernel, bias) in zip(net, (a, b), strict=True):
        assert_same_bits(made.weight, np.ascontiguousarray(kernel.T))
        assert_same_bits(made.bias, bias)


@pytest.fixture
def weights(rng, tmp_path):
    pairs = arrays_for(rng, 5, 8), arrays_for(rng, 8, 3)
    return LAYOUTS["Keras 3"](tmp_path / "model.weights.h5", *pairs)


def test_forms_of_the_configuration(tmp_path, weights):
    config = two_layers()
    text = json.dumps(config)
    file = tmp_path / "model.json"
    file.write_text(text)
    given = [
        config,
        config["config"],
        text,
        file,
        str(file),
        io.StringIO(text),
        io.BytesIO(text.encode()),
    ]
    x = np.ones((2, 5), np.float32)
    first, *others = [fl.load(weights, config=one)(x) for one in given]
    for other in others:
        assert_same_bits(other, first)


INPUT_OF_2 = layer("InputLayer", "i", batch_input_shape=[None, 5])
INPUT_OF_3 = layer("InputLayer", "i", batch_shape=[None, 5])
# What tells the version of Keras, and whether it is the third.
VERSIONS = {
    "written down": ({"keras_version": "2.15.0"}, [], "layers", False),
    "written down, 3": ({"keras_version": "3.0.0"}, [INPUT_OF_2], "layers", True),
    "modules": ({"module": "keras"}, [], "layers", True),
    "modules and shapes of 3": ({"module": "keras"}, [INPUT_OF_3], "layers", True),
    "modules and shapes of 2": ({"module": "keras"}, [INPUT_OF_2], "layers", False),
    "modules and the folder of 2": (
        {"module": "keras"},
        [],
        "_layer_checkpoint_dependencies",
        False,
    ),
    "modules of layers": ({}, [{**INPUT_OF_3, "module": "keras.layers"}], "layers", True),
    "nothing": ({}, [], "layers", False),
}


@pytest.mark.parametrize("name", VERSIONS)
def test_version_of_the_configuration(rng, tmp_path, name):
    """Hard sigmoids have another slope since Keras 3."""
    told, before, folder, third = VERSIONS[name]
    path = write_new(tmp_path / "w.h5", {"dense": arrays_for(rng, 5, 8)}, folder)
    x = np.ones((2, 5), np.float32)
    z = fl.load(path, config=sequential(dense("a", 8)))(x)
    config = sequential(*before, dense("a", 8, "hard_sigmoid")) | told
    expected = np.clip(z / (6 if third else 5) + 0.5, 0, 1)
    assert np.abs(fl.load(path, config=config)(x) - expected).max() <= 16 * np.finfo("f4").eps


@pytest.mark.parametrize("name", LAYOUTS)
def test_without_a_configuration(rng, tmp_path, name):
    path = LAYOUTS[name](tmp_path / "w.h5", arrays_for(rng, 5, 8), arrays_for(rng, 8, 3))
    with pytest.raises(fl.ModelFileError) as caught:
        fl.load(path)
    for said in ("weights alone", "model.to_json()", "config=", "model.save('model.keras')"):
        assert said in str(caught.value)


@pytest.mark.parametrize("name", ["Keras 3", "Keras 2"])
def test_configuration_of_another_model(rng, tmp_path, name):
    path = LAYOUTS[name](tmp_path / "w.h5", arrays_for(rng, 5, 8), arrays_for(rng, 8, 3))
    shorter = sequential(dense("a", 8, "relu"))
    with pytest.raises(fl.ConversionError, match="no such layer: it belongs to another model"):
        fl.load(path, config=shorter)
    longer = two_layers()
    longer["config"]["layers"].append(dense("c", 3))
    with pytest.raises(fl.ModelFileError, match="has no weights in the file"):
        fl.load(path, config=longer)
    wider = sequential(dense("a", 9, "relu"), dense("b", 3))
    with pytest.raises(fl.ModelFileError, match="for 9 units"):
        fl.load(path, config=wider)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ('{"config": 3}', "config"),
        ('{"class_name": "Sequential", "config": {"layers": 3}}', "has no layers"),
        ("[" * 100_000, "brackets|not JSON"),
        ("\xff", "not JSON"),
    ],
)
def test_damaged_configuration(tmp_path, weights, text, message):
    file = tmp_path / "model.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(fl.ModelFileError, match=message):
        fl.load(weights, config=file)


def test_configuration_too_large(tmp_path, weights):
    file = tmp_path / "model.json"
    file.write_text(" " * (5 << 20))
    with pytest.raises(fl.ModelFileError, match=r"model\.json.*more than a model"):
        fl.load(weights, config=file)
    with pytest.raises(fl.ModelFileError, match="more than a model"):
        fl.load(weights, config=io.StringIO(" " * (5 << 20)))


def test_configuration_where_the_file_has_its_own(rng, tmp_path):
    content = weights_file({"dense": arrays_for(rng, 5, 8)})
    path = write_keras(tmp_path / "m.keras", sequential(dense("a", 8)), content)
    with pytest.raises(ValueError, match="a configuration of its own"):
        fl.load(path, config=two_layers())
    with pytest.raises(ValueError, match=r"config= is for \.keras, \.h5, \.hdf5 files"):
        fl.load(tmp_path / "m.npz", config=two_layers())


def test_file_that_is_not_of_keras(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["table"] = np.ones(3)
    with pytest.raises(fl.ModelFileError, match="not a model that Keras saved"):
        fl.load(tmp_path / "data.h5", config=two_layers())


def test_live_model(rng, tmp_path):
    """A model of models and of layers around layers, as Keras saves it."""
    models = pytest.importorskip("keras_models")
    keras = models.keras
    x = keras.Input((6,))
    inner = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.BatchNormalization()]
    )
    end = keras.layers.SpectralNormalization(keras.layers.Dense(2))
    model = models.randomized(keras.Model(x, end(inner(keras.layers.Dropout(0.2)(x)))))
    model.save_weights(tmp_path / "model.weights.h5")
    (tmp_path / "model.json").write_text(model.to_json())
    net = fl.load(tmp_path / "model.weights.h5", config=tmp_path / "model.json")
    rows = rng.standard_normal((9, 6)).astype(np.float32)
    assert_same_bits(net(rows), fl.from_keras(model)(rows))
