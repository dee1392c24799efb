"""Hostile .keras and .h5 files: refused in one way, in little time and memory; see hostile.py."""

from __future__ import annotations

import json
import os
import struct
import sys
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hostile import Jail
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_files import dense, layer, sequential, weights_file, write_h5, write_keras

import fastlayer as fl
from fastlayer.convert.keras import load_keras

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the jail is made of Linux's limits"
)
h5py = pytest.importorskip("h5py")

KERNEL, BIAS = np.ones((3, 2), np.float32), np.ones(2, np.float32)
CONFIG = sequential(dense("a", 2, "relu", batch_input_shape=[None, 3]))
WEIGHTS = {"a": {"kernel": KERNEL, "bias": BIAS}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return {
        "h5": write_h5(folder / "m.h5", CONFIG, WEIGHTS),
        "keras": write_keras(folder / "m.keras", CONFIG, weights_file({"dense": [KERNEL, BIAS]})),
    }


@pytest.fixture(scope="module")
def jail(sound):
    jail = Jail("fastlayer.convert.keras:load_keras", list(sound.values()))
    yield jail
    jail.close()


def many(count, **config):
    """A configuration of many layers with the same weights."""
    return sequential(*(dense("a", 2, **config) for _ in range(count)))


def circle():
    nodes = {"x": [], "a": ["b"], "b": ["a"]}
    layers = [
        {
            **layer("InputLayer" if name == "x" else "Dropout", name),
            "name": name,
            "inbound_nodes": [[[n, 0, 0, {}] for n in before]] if before else [],
        }
        for name, before in nodes.items()
    ]
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["b", 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "m", "layers": layers, **ends}}


def called_with(*arguments, **more):
    """A functional model of one layer, as Keras 3 writes it, called with these: "x" is the input."""
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}}
    inputs = [tensor if a == "x" else a for a in arguments]
    start = {**layer("InputLayer", "x", batch_shape=[None, 3]), "name": "x", "inbound_nodes": []}
    add = {**layer("Add", "s"), "name": "s", "inbound_nodes": [{"args": inputs, "kwargs": {}}]}
    ends = {"input_layers": ["x", 0, 0], "output_layers": ["s", 0, 0]}
    config = {"name": "m", "layers": [start, {**add, **more}], **ends}
    return {"class_name": "Functional", "config": config}


def ending_in(output):
    """The same with another output."""
    spec = called_with("x", 2.0)
    spec["config"]["output_layers"] = output
    return spec


def deep(count):
    spec = sequential(dense("a", 2))
    for _ in range(count):
        spec = sequential({**spec, "name": "inner"})
    return spec


def computed(kind, *arguments, width=3, **config):
    """A functional model of one operation of Keras 3, called with these: "x" is the input."""
    spec = called_with(*arguments)
    start, node = spec["config"]["layers"]
    start["config"]["batch_shape"] = [None, width]
    node |= {"class_name": kind, "module": "keras.src.ops.numpy", "config": {"name": "s", **config}}
    return spec


def array(value, dtype="float32"):
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": dtype}}


def item(*parts):
    whole = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}
    named = ("start", "stop", "step")
    last = {"class_name": "__slice__", "config": dict(zip(named, parts, strict=True))}
    return computed("GetItem", "x", [whole, last])


def nested(count, value=0):
    for _ in range(count):
        value = [value]
    return value


def around(count):
    """A layer in a layer in a layer ..."""
    spec = dense("a", 2)
    for _ in range(count):
        spec = layer("TimeDistributed", "t", layer=spec)
    return sequential(spec)


def concatenated(count, twice=True):
    """Each array beside itself, or beside all that were before it."""
    spec = called_with("x")
    layers, names = spec["config"]["layers"][:1], ["x"]
    for i in range(count):
        before = [names[-1]] * 2 if twice else names
        calls = [[[name, 0, 0, {}] for name in before]]
        layers.append({**layer("Concatenate", f"c{i}"), "name": f"c{i}", "inbound_nodes": calls})
        names.append(f"c{i}")
    spec["config"] |= {"layers": layers, "output_layers": [[names[-1], 0, 0]]}
    return spec


def many_inputs(count, name="i{}"):
    """A model that adds so many inputs."""
    names = [name.format(i) for i in range(count)]
    layers = [
        {**layer("InputLayer", n, batch_shape=[None, 1 << 39]), "name": n, "inbound_nodes": []}
        for n in names
    ]
    calls = [[[n, 0, 0, {}] for n in names]]
    layers.append({**layer("Add", "sum"), "name": "sum", "inbound_nodes": calls})
    ends = {"input_layers": [[n, 0, 0] for n in names], "output_layers": [["sum", 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "m", "layers": layers, **ends}}


# Configurations in a sound file.
CONFIGS = {
    "no JSON": "{",
    "no object": "[]",
    "number": "1",
    "nested a million deep": "[" * 1_000_000,
    "twenty megabytes": json.dumps(sequential(dense("a", 2, padding="x" * 20_000_000))),
    "a million values": "[" + "1," * 1_000_000 + "1]",
    "long number": '{"class_name": ' + "9" * 100_000 + "}",
    "the same name twice": '{"class_name": "Sequential", "class_name": "Sequential"}',
    "no layers": {"class_name": "Sequential", "config": {}},
    "layers of numbers": {"class_name": "Sequential", "config": {"layers": [1, 2]}},
    "class without a name": sequential({"class_name": 3, "config": {}}),
    "units of another kernel": sequential(dense("a", 7)),
    "units of a text": sequential(dense("a", "2")),
    "units without bounds": sequential(dense("a", 1 << 70)),
    "activation of a number": sequential(dense("a", 2, 3)),
    "slope of a text": sequential(dense("a", 2), layer("LeakyReLU", "b", alpha="1")),
    "slope that is NaN": sequential(dense("a", 2), layer("LeakyReLU", "b", alpha=float("nan"))),
    "epsilon below zero": sequential(
        layer("LayerNormalization", "b", epsilon=-1, center=False, scale=False,
              batch_input_shape=[None, 3])
    ),
    "shape of texts": sequential(dense("a", 2, batch_input_shape=["x"])),
    "shape below zero": sequential(dense("a", 2, batch_input_shape=[None, -3])),
    "scale of many": sequential(dense("a", 2), layer("Rescaling", "b", scale={"config": 3})),
    "weights that are not there": sequential(dense("b", 2), dense("c", 2)),
    "circle": circle(),
    "models too deep inside each other": deep(40),
    "a hundred thousand layers": many(100_000),
}  # fmt: skip
# Sound in themselves, and not for fastlayer.
UNSUITABLE = {
    "scaled rows without end": sequential(
        layer("Rescaling", "b", scale=2.0, batch_input_shape=[None, 1 << 39])
    ),
    "layers that do not fit": many(3),
    "Lambda": sequential(layer("Lambda", "f", function="os.system")),
    "own layer": sequential({**layer("Thing", "t"), "module": "os"}),
    "sum of numbers": called_with(1.0, 2.0),
    "sum of a number": called_with(1.0),
    "sum of nothing": called_with(),
    "sum of two numbers and an array": called_with("x", 1.0, 2.0),
    "class of one's own beside a number": called_with("x", 2.0, module="os"),
    "split without end": computed(
        "Split", "x", width=1 << 39, indices_or_sections=1 << 38, axis=-1
    ),
    "split at texts": computed("Split", "x", indices_or_sections=["a"], axis=-1),
    "split at what is not there": computed("Split", "x", indices_or_sections=[5, 1 << 80], axis=-1),
    "slice beyond": item(1 << 80, None, None),
    "slice backwards": item(None, None, -1),
    "slice of texts": item("a", None, None),
    "mean over lists": computed("Mean", "x", axis=[[1]], keepdims=True),
    "axis beyond": computed("ExpandDims", "x", axis=1 << 70),
    "squeezed lists": computed("Squeeze", "x", axis=[[1]]),
    "shape without end": computed("Reshape", "x", newshape=[-1, 1 << 70, -1]),
    "shape of texts": computed("Reshape", "x", newshape=["a"]),
    "axis of a list": computed("Concatenate", ["x", "x"], axis=[1]),
    "ragged constant": computed("Multiply", "x", array([[1.0], [1.0, 2.0]])),
    "constant of texts": computed("Multiply", "x", array("abc")),
    "constant that is NaN": computed("Multiply", "x", array([float("nan")] * 3)),
    "constant of objects": computed("Multiply", "x", array([1.0, 2.0, 3.0], "object")),
    "dtype of a list": computed("Multiply", "x", array([1.0], ["float32"])),
    "constant of many axes": computed("Multiply", "x", array(nested(60))),
    "constant of more axes than there can be": computed("Multiply", "x", array(nested(300))),
    "arguments deep in each other": computed("Multiply", nested(300, "x")),
    "matrix of nothing": computed("Matmul", "x", array([[]])),
    "matrix that does not fit": computed("Matmul", "x", array([[1.0, 2.0]])),
    "equation of a number": computed("Einsum", "x", array([[1.0]]), subscripts=3),
    "equation without end": computed("Einsum", "x", array([[1.0]]), subscripts="a" * 100_000),
    "function of the system": computed("system", "x", command="true"),
    "layers deep around each other": around(200),
    "layer around nothing": sequential(layer("TimeDistributed", "t", layer=3)),
    "everything beside everything": concatenated(60, twice=False),
    "inputs without end": many_inputs(1500),
    "inputs without names": many_inputs(2, "{}" + "x" * 300),
    "function of TensorFlow": sequential(layer("TFOpLambda", "f", function="io.read_file")),
    "function that is a list": sequential(layer("TFOpLambda", "f", function=["io"])),
}


def put(folder, suffix, config, weights=WEIGHTS):
    path = folder / f"model.{suffix}"
    if suffix == "keras":
        return write_keras(path, config, weights_file({"dense": [KERNEL, BIAS]}))
    if isinstance(config, str):
        write_h5(path, None, weights)
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = config
        return path
    return write_h5(path, config, weights)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_sound_file_passes_the_jail(jail, sound, suffix):
    assert jail.accept(sound[suffix]) == "Network"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_damaged_configuration(jail, tmp_path, name, suffix):
    path = put(tmp_path, suffix, CONFIGS[name])
    assert str(path) in jail.refuse(path)


# Connections that no Keras writes, and what the message says of them.
CONNECTIONS = {
    "called with a text": (called_with("text"), "called with 'text', which is not an array or"),
    "called with a text alone": (
        called_with(inbound_nodes=[{"args": "text", "kwargs": {}}]), "called with 'text'",
    ),
    "options of a number": (called_with(inbound_nodes=[{"args": [], "kwargs": 3}]), "with 3"),
    "call of a number": (called_with(inbound_nodes=[3]), "is called with 3"),
    "call that is not there": (called_with(inbound_nodes=[]), "has no call number 0"),
    "output that is not there": (called_with("x", name="t"), "'s' is called, and not there"),
    "outputs in a list of their own": (
        ending_in([[["s", 0, 0], ["x", 0, 0]]]), "in lists or dictionaries of their own",
    ),
    "no output": (ending_in([]), "has no inputs, or no outputs"),
    "output of a text": (ending_in("s"), "is connected to 's'"),
    "output with a flag": (ending_in(["s", True, 0]), "is connected to ['s', True, 0]"),
    "second array of a call": (ending_in(["s", 0, 1]), "is connected to ['s', 0, 1]"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONNECTIONS)
def test_connections_that_no_keras_writes(jail, tmp_path, name):
    spec, why = CONNECTIONS[name]
    assert why in jail.refuse(put(tmp_path, "keras", spec), "ConversionError", "ModelFileError")


def test_features_without_end(jail, tmp_path):
    """Twice as many each time: a kilobyte would ask for more than any memory holds."""
    said = jail.refuse(put(tmp_path, "keras", concatenated(40)), "ConversionError")
    assert "by joining them again and again" in said
    assert jail.accept(put(tmp_path, "keras", concatenated(6))) == "Network"


def test_sum_whose_matrix_is_far_larger_than_the_file(jail, tmp_path):
    """One number of a wide layer beside a wide layer: 80 GB, were they one matrix."""
    n = 100_000
    calls = {"a": ["x"], "b": ["a"], "c": ["x"], "s": ["b", "c"]}
    layers = called_with("x")["config"]["layers"][:1]
    for name, spec in {
        "a": dense("a", n, "relu"), "b": dense("b", 1), "c": dense("c", n), "s": layer("Add", "s")
    }.items():  # fmt: skip
        nodes = [[[before, 0, 0, {}] for before in calls[name]]]
        layers.append({**spec, "name": name, "inbound_nodes": nodes})
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["s", 0, 0]]}
    spec = {"class_name": "Functional", "config": {"name": "m", "layers": layers, **ends}}
    shapes = {"a": (3, n), "b": (n, 1), "c": (3, n)}
    weights = {
        name: {"kernel": np.ones(shape, np.float32), "bias": np.ones(shape[1], np.float32)}
        for name, shape in shapes.items()
    }
    assert jail.accept(write_h5(tmp_path / "m.h5", spec, weights)) == "Network"


@pytest.mark.parametrize("name", UNSUITABLE)
@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_unsuitable_configuration(jail, tmp_path, name, suffix):
    path = put(tmp_path, suffix, UNSUITABLE[name])
    assert str(path) in jail.refuse(path, "ConversionError", "ModelFileError")


# ----------------------------------------------------------------------------- HDF5


def external_link(file):
    del file["model_weights/a/a/kernel:0"]
    file["model_weights/a/a/kernel:0"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft_link(file):
    file["elsewhere"] = KERNEL
    del file["model_weights/a/a/kernel:0"]
    file["model_weights/a/a/kernel:0"] = h5py.SoftLink("/elsewhere")


def external_data(file):
    del file["model_weights/a/a/kernel:0"]
    file.create_dataset(
        "model_weights/a/a/kernel:0", (3, 2), "f4", external=[("/etc/passwd", 0, 24)]
    )


def replaced(shape, dtype="f4", **options):
    def change(file):
        del file["model_weights/a/a/kernel:0"]
        file.create_dataset("model_weights/a/a/kernel:0", shape, dtype, **options)

    return change


def virtual(file):
    del file["model_weights/a/a/kernel:0"]
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 2))
    file.create_virtual_dataset("model_weights/a/a/kernel:0", layout)


def no_names(file):
    del file["model_weights/a"].attrs["weight_names"]


def numbers_for_names(file):
    file["model_weights/a"].attrs["weight_names"] = [1, 2]


HDF5 = {
    "external link": external_link,
    "soft link": soft_link,
    "external data": external_data,
    "virtual data": virtual,
    # The library writes no byte of these, the bomb is in the header alone.
    "a terabyte that is not there": replaced((1 << 20, 1 << 18)),
    "shape beyond 64 bits": replaced((1 << 40, 1 << 40), chunks=(1, 1024)),
    "compressed": replaced((3, 2), compression="gzip"),
    "compressed bomb": replaced((100_000, 1000), compression="gzip", fillvalue=0),
    "chunks": replaced((3, 2), chunks=(1, 2)),
    "scalar": replaced(()),
    "no elements": replaced((0, 2)),
    "three axes": replaced((3, 2, 1)),
    "no names": no_names,
    "numbers for names": numbers_for_names,
}


@pytest.mark.parametrize("name", HDF5)
def test_hostile_hdf5(jail, tmp_path, name):
    path = write_h5(tmp_path / "m.h5", CONFIG, WEIGHTS)
    try:
        with h5py.File(path, "a") as file:
            HDF5[name](file)
    except (OverflowError, ValueError):
        pytest.fail("h5py did not write the file")
    assert str(path) in jail.refuse(path)


def test_newer_kind_of_hdf5(jail, tmp_path):
    content = weights_file({"dense": [KERNEL, BIAS]}, libver="latest")
    path = write_keras(tmp_path / "m.keras", CONFIG, content)
    assert "version" in jail.refuse(path)


def at(data, wanted):
    place = bytes(data).find(wanted)
    assert place > 0
    return place


def tree_of_itself(data):
    place = at(data, b"TREE")
    data[place + 5] = 1
    data[place + 32 : place + 40] = struct.pack("<Q", place)


def endless_continuation(data):
    """An object header whose continuation is its own first block."""
    root = int.from_bytes(data[64:72], "little")
    data[root + 16 : root + 40] = struct.pack("<HHBxxxQQ", 0x10, 16, 0, root + 16, 24)


def heap_without_end(data):
    place = at(data, b"HEAP")
    data[place + 8 : place + 16] = struct.pack("<Q", (1 << 64) - 8)


def names_beyond_the_heap(data):
    place = at(data, b"SNOD")
    data[place + 8 : place + 16] = struct.pack("<Q", 1 << 63)


def symbols_without_end(data):
    place = at(data, b"SNOD")
    data[place + 6 : place + 8] = b"\xff\xff"


def text_without_end(data):
    place = at(data, b"GCOL")
    data[place + 24 : place + 32] = struct.pack("<Q", (1 << 64) - 1)


def collection_without_end(data):
    place = at(data, b"GCOL")
    data[place + 8 : place + 16] = struct.pack("<Q", 1 << 62)


def userblock(data):
    data[24:32] = struct.pack("<Q", 512)


def root_beyond_the_end(data):
    data[64:72] = struct.pack("<Q", 1 << 63)


PATCHES = [
    tree_of_itself,
    endless_continuation,
    heap_without_end,
    names_beyond_the_heap,
    symbols_without_end,
    text_without_end,
    collection_without_end,
    userblock,
    root_beyond_the_end,
]


@pytest.mark.parametrize("patch", PATCHES, ids=lambda p: p.__name__)
def test_structures_that_lie(jail, sound, tmp_path, patch):
    data = bytearray(sound["h5"].read_bytes())
    patch(data)
    path = tmp_path / "m.h5"
    path.write_bytes(data)
    assert str(path) in jail.refuse(path)


def test_weights_shared_by_many_layers(jail, tmp_path):
    """Two thousand layers that all claim one megabyte take two gigabytes."""
    kernel, bias = np.ones((512, 512), np.float32), np.ones(512, np.float32)
    config = sequential(*(dense("a", 512) for _ in range(1999)))
    path = write_h5(tmp_path / "m.h5", config, {"a": {"kernel": kernel, "bias": bias}})
    assert "more weights than the file has" in jail.refuse(path)


# ----------------------------------------------------------------------------- .keras


def test_zip_bomb(jail, tmp_path):
    path = write_keras(
        tmp_path / "m.keras", CONFIG, bytes(200 << 20), compression=zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 1 << 20
    assert "compressed" in jail.refuse(path)


@pytest.mark.parametrize("missing", ["config.json", "model.weights.h5"])
def test_missing_member(jail, tmp_path, missing):
    content = weights_file({"dense": [KERNEL, BIAS]})
    path = write_keras(tmp_path / "m.keras", CONFIG, content, **{missing: None})
    assert missing in jail.refuse(path)


def test_member_that_leads_elsewhere(jail, tmp_path):
    content = weights_file({"dense": [KERNEL, BIAS]})
    path = write_keras(tmp_path / "m.keras", CONFIG, content, **{"../config.json": "{}"})
    jail.refuse(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"x" * 99])
@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_other_files(jail, tmp_path, content, suffix):
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(content)
    jail.refuse(path)


# ----------------------------------------------------------------------------- every byte


def tried(path, data):
    """Read changed data: a network, or one of the two errors, and nothing else."""
    path.write_bytes(data)
    with suppress(fl.ModelFileError, fl.ConversionError):
        assert isinstance(load_keras(path), fl.Network)
        return True
    return False


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_every_truncation(sound, tmp_path, suffix):
    data = sound[suffix].read_bytes()
    path = tmp_path / f"m.{suffix}"
    assert not any(tried(path, data[:size]) for size in range(len(data)))


def told(data):
    """The places of bytes that say something: not within the long rows of zeros between parts."""
    used = np.frombuffer(data, np.uint8) != 0
    return np.flatnonzero(np.convolve(used, np.ones(17), "same")).tolist()


@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_every_changed_byte_of_hdf5(sound, tmp_path, flip):
    data = sound["h5"].read_bytes()
    for i in told(data):
        changed = bytearray(data)
        changed[i] ^= flip
        tried(tmp_path / "m.h5", changed)


def test_every_changed_byte_of_an_archive(sound, tmp_path):
    """The weights have a checksum: in them every sixteenth byte is enough."""
    data = sound["keras"].read_bytes()
    start, end = data.index(b"\x89HDF"), data.index(b"PK\1\2")
    for i in [*range(start), *range(start, end, 16), *range(end, len(data))]:
        changed = bytearray(data)
        changed[i] ^= 0xFF
        accepted = tried(tmp_path / "m.keras", changed)
        assert not (accepted and start <= i < end)


@settings(max_examples=200)
@given(st.data())
def test_fuzzed_hdf5(sound, tmp_path_factory, data):
    changed = bytearray(sound["h5"].read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(changed)))
        changed[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    tried(tmp_path_factory.getbasetemp() / "fuzz.h5", bytes(changed))


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.sampled_from(["relu", "Dense", "a", "LeakyReLU", "", "float32", "softmax"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["class_name", "config", "name", "layers"]), inner)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["class_name", "config", "units", "activation", "use_bias", "dtype", "name", "axis", "alpha",
     "batch_input_shape", "epsilon", "scale", "center", "mean", "variance", "target_shape",
     "max_value", "threshold", "inbound_nodes", "module", "registered_name", "data_format"]
)  # fmt: skip
KINDS = st.sampled_from(
    ["Dense", "ReLU", "LeakyReLU", "PReLU", "BatchNormalization", "LayerNormalization", "Flatten",
     "Normalization", "Rescaling", "Softmax", "Reshape", "Activation", "Sequential", "Functional",
     "Add", "InputLayer", "Gelu", "SoftShrink", "Threshold"]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.tuples(KINDS, st.dictionaries(KEYS, VALUES, max_size=4)), max_size=3))
def test_fuzzed_configuration(tmp_path_factory, layers):
    folder = tmp_path_factory.getbasetemp()
    specs = [{"class_name": kind, "config": {"name": "b", **c}, **c} for kind, c in layers]
    content = _WEIGHTS_OF_ALL
    path = write_keras(folder / "fuzz.keras", sequential(dense("a", 2), *specs), content)
    tried(path, path.read_bytes())


def _weights_of_all():
    vectors = [np.ones(2, np.float32)] * 4
    slots = {"dense": [KERNEL, BIAS], "dense_1": [np.ones((2, 2), np.float32), BIAS]}
    for slot in ("p_re_lu", "batch_normalization", "layer_normalization", "normalization"):
        slots[slot] = vectors
    return weights_file(slots)


_WEIGHTS_OF_ALL = _weights_of_all()


def test_pipe_is_no_file(jail, tmp_path):
    path = tmp_path / "m.keras"
    os.mkfifo(path)
    assert "regular file" in jail.refuse(path)
