"""Cost in calls and in memory grows no faster than a file, whatever it says, in every reader.

Counted for files of 1, 2 and 4 times a size, in each dimension that a format has. What no count shows,
collisions of keys among it, has a second of processor time in a jail.
"""

from __future__ import annotations

import json
import struct
import sys
from contextlib import closing

import numpy as np
import pytest
from growth import assert_no_faster, calls, peak
from hostile import Jail
from hostile_corpus import read_state_dict
from hostile_hdf5 import EMPTY, Writer, h5, symbols, texts
from keras_files import dense, sequential, write_keras
from model_files import DATA, npy, pickled, pt, word, zipped

import fastlayer as fl
from fastlayer.convert._keras.calls import refs_of

# Beside the input: buffers in which files are opened.
CALLS, MEMORY = 300, 2 << 20


def measured(tmp_path, suffix, make, size, read=fl.load, larger=16):
    """Files of 1, 2 and 4 times the size cost no more than in proportion.

    Counting calls takes long, and little memory is not to be told from none: it is measured with
    files that are `larger`.
    """
    for cost, spare, unit in ((calls, CALLS, size), (peak, MEMORY, larger * size)):
        runs = []
        for times in (1, 2, 4):
            path = tmp_path / f"{times}{suffix}"
            path.write_bytes(make(times * unit))
            runs.append(lambda path=path: read(str(path)))
        assert_no_faster(cost, runs, spare)


# ----------------------------------------------------------------------------- JSON


def named(count):
    """An object of so many names, the last of which is there twice."""
    names = [f'"{i:06x}":0' for i in range(count)]
    return ("{" + ",".join([*names, names[-1]]) + "}").encode()


def own(text):
    return zipped({"fastlayer.npy": npy(np.frombuffer(text, np.uint8))})


def layers(count, layer):
    document = {"format": "fastlayer", "version": 1, "dtype": "float32"}
    return json.dumps({**document, "layers": [*[layer] * count, {"type": "no"}]}).encode()


def chained(count):
    """Networks in each other, 60 deep, and so many norms in the innermost."""
    inner = json.dumps({"type": "LayerNorm", "features": 4, "eps": 0, "arrays": []})
    text = ",".join([inner] * count)
    for _ in range(60):
        text = f'{{"type": "Residual", "layers": [{text}]}}'
    head = '{"format": "fastlayer", "version": 1, "dtype": "float32", "layers": ['
    return own(f'{head}{text}, {{"type": "no"}}]}}'.encode())


DOCUMENTS = {
    "names": lambda n: own(named(n)),
    "norms": lambda n: own(layers(n, {"type": "LayerNorm", "features": 4, "eps": 0, "arrays": []})),
    "activations": lambda n: own(layers(n, {"type": "Activation", "name": "relu", "parameters": {}})),
    "norms in residuals": chained,
    "lists": lambda n: own(b"[" * 250 + b"]" * 250 + b" " * n),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(tmp_path, name):
    measured(tmp_path, ".npz", DOCUMENTS[name], 400)


def test_headers_of_safetensors(tmp_path):
    pytest.importorskip("safetensors")

    def header(count):
        text = named(count)
        return struct.pack("<Q", len(text)) + text

    measured(tmp_path, ".safetensors", header, 400)


def test_configurations_of_keras(tmp_path):
    def archive(count):
        return zipped({"config.json": named(count), "model.weights.h5": b"x"})

    measured(tmp_path, ".keras", archive, 400)


# ----------------------------------------------------------------------------- pickles

# All of these have the same hash, and so are in each other's way in a dictionary.
COLLIDING = [1 + i * sys.hash_info.modulus for i in range(60_000)]


def by_number(keys):
    """A state dict whose names are numbers."""
    return pt(b"\x80\x02}(" + b"".join(number_of(k) + b"N" for k in keys) + b"u.")


def number_of(value):
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return bytes([0x8A, len(data)]) + data


def test_names_that_collide(tmp_path):
    with closing(Jail("hostile_corpus:read_state_dict", [DATA / "state_dict.pt"])) as jail:
        path = tmp_path / "numbers.pt"
        path.write_bytes(by_number(COLLIDING))
        assert "not a tensor" in jail.refuse(path, "ConversionError")


def test_dictionary_that_many_names_share(tmp_path):
    """Each name of the state dict has the same dictionary, in which a tensor is looked for."""

    def shared(count):
        inner = b"}(" + b"".join(word(f"{i}") + b"N" for i in range(count)) + b"uq\0"
        outer = b"".join(word(f"n{i}") + b"h\0" for i in range(count))
        return pt(b"\x80\x02}(" + word("first") + inner + outer + b"u.")

    measured(tmp_path, ".pt", shared, 300, read_state_dict)


def test_long_name_of_a_folder(tmp_path):
    """A folder whose name is put together with that of each storage."""
    data = zipped({"m" * 60_000 + "/data.pkl": pickled({}), "m/version": b"3\n"})
    path = tmp_path / "long.pt"
    path.write_bytes(data)
    with pytest.raises(fl.ModelFileError, match="name of 60009 characters"):
        read_state_dict(str(path))


# ----------------------------------------------------------------------------- HDF5

NAMES = ["d/kernel:0", "d/bias:0"]
START = dense("d", 2, batch_input_shape=[None, 2])


def same_layers(count, last="none"):
    return sequential(START, *[dense("d", 2)] * count, dense(last, 2))


def weights(writer, *more):
    """The group of one layer."""
    inner = writer.group({"kernel:0": writer.ones(2, 2), "bias:0": writer.ones(2)})
    return writer.group({"d": inner}, *more, texts("weight_names", NAMES))


def lists_of_names(count):
    """Names in many attributes, each of which was looked for among all."""
    writer = Writer()
    lists = [texts(f"weight_names{i}", ["d/k:0"]) for i in range(count)]
    group = writer.group({"d": writer.group({})}, *lists)
    return h5(writer, sequential(START), writer.group({"d": group}))


def long_header(layers, messages):
    """Layers of one name, whose group has a long header."""
    writer = Writer()
    group = weights(writer, *[EMPTY] * messages)
    return h5(writer, same_layers(layers), writer.group({"d": group}))


def folder(name, layers, entries):
    """The folder of the layers, in which each is looked for."""
    writer = Writer()
    layer = writer.group({"vars": writer.group({"0": writer.ones(2, 2), "1": writer.ones(2)})})
    inner = writer.group({f"dense_{i}" if i else "dense": layer for i in range(entries)})
    config = sequential(START, *[dense(f"d{i}", 2) for i in range(layers)], dense("x", 3))
    return config, writer.done(writer.group({name: inner}))


def shared_names(count):
    """Names of 4000 bytes that overlap, and take four bytes a character in memory."""
    writer = Writer()
    unit = ("a" * 4080 + "\U0001f600").encode() + b"\0"
    entries = [(i, 96) for i in range(count)]
    group = writer.header(symbols(writer.tree(entries), writer.heap(unit)))
    return h5(writer, sequential(START), group)


H5 = {
    "attributes": (lists_of_names, 50),
    "layers on a header": (lambda n: long_header(n, 5), 100),
    "messages of a header": (lambda n: long_header(10, n), 100),
    "layers and messages": (lambda n: long_header(n, n), 100),
    "names that overlap": (shared_names, 500),
}


@pytest.mark.parametrize("name", H5)
def test_hdf5(tmp_path, name):
    make, size = H5[name]
    measured(tmp_path, ".h5", make, size, larger=4)


@pytest.mark.parametrize("name", ["layers", "_layer_checkpoint_dependencies"])
@pytest.mark.parametrize("dimension", ["layers", "entries", "both"])
def test_folders(tmp_path, name, dimension):
    def archive(times):
        layers = 100 * (1 if dimension == "entries" else times)
        entries = 110 * (1 if dimension == "layers" else times)
        config, data = folder(name, layers, max(entries, layers + 2))
        path = tmp_path / "made.keras"
        write_keras(path, config, data)
        return path.read_bytes()

    measured(tmp_path, ".keras", archive, 1, larger=4)
    path = tmp_path / "1.keras"
    with pytest.raises(fl.ModelFileError, match="for 3 units"):
        fl.load(path)


HUGE = {
    "attributes": lambda: lists_of_names(30_000),
    "messages": lambda: long_header(1990, 60_000),
    "names that overlap": lambda: shared_names(4000),
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_hdf5(tmp_path, name):
    """Work that the file shares out among its layers is refused, in time and memory."""
    good, path = tmp_path / "good.h5", tmp_path / "huge.h5"
    writer = Writer()
    good.write_bytes(h5(writer, sequential(START), writer.group({"d": weights(writer)})))
    path.write_bytes(HUGE[name]())
    with closing(Jail("fastlayer:load", [good])) as jail:
        jail.refuse(path)


# ----------------------------------------------------------------------------- ONNX


def graph(count, op, width=None, last="Foo"):
    """A chain of operations, each on the same constant where there is a width, and one unknown."""
    helper = pytest.importorskip("onnx.helper")
    constant = () if width is None else ("c",)
    nodes = [
        helper.make_node(op, ["x" if i == 0 else f"h{i}", *constant], [f"h{i + 1}"])
        for i in range(count)
    ]
    nodes.append(helper.make_node(last, [f"h{count}"], ["y"]))
    values = np.linspace(0.5, 2, width or 4)
    tensor = helper.make_tensor("c", 1, values.shape, values)
    x = helper.make_tensor_value_info("x", 1, ["N", len(values)])
    y = helper.make_tensor_value_info("y", 1, ["N", len(values)])
    made = helper.make_graph(nodes, "g", [x], [y], [tensor])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


@pytest.mark.parametrize(("op", "width"), [("Mul", 4), ("PRelu", 4), ("Relu", None), ("Softmax", None)])  # fmt: skip
def test_nodes(tmp_path, op, width):
    measured(tmp_path, ".onnx", lambda n: graph(n, op, width), 60, larger=4)


@pytest.mark.parametrize(("op", "width"), [("Mul", 8192), ("PRelu", 1000)])
def test_one_constant_of_many_nodes(tmp_path, op, width):
    """Features times nodes: what a small file may ask for of memory is bounded."""
    path = tmp_path / "m.onnx"
    path.write_bytes(graph(400, op, width))
    with pytest.raises(fl.ModelFileError, match="far more numbers out of the file"):
        fl.load(path)
    assert peak(lambda: fl.load(path)) <= path.stat().st_size + (64 << 20)


def test_nodes_without_end(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(graph(4096, "Neg"))
    with pytest.raises(fl.ConversionError, match="Foo"):
        fl.load(path)
    path.write_bytes(graph(4097, "Neg", last="Neg"))
    with pytest.raises(fl.ConversionError, match=r"no products.*onnx\.utils\.extract_model"):
        fl.load(path)
    half = str(tmp_path / "half.onnx")
    pytest.importorskip("onnx.utils").extract_model(str(path), half, ["x"], ["h2001"])
    assert fl.load(half)([[1.0, -2.0, 3.0, 4.0]]).tolist() == [[-1.0, 2.0, -3.0, -4.0]]


def test_outputs_of_one_name():
    """Each gets a number of its own, which is not looked for from the first one on."""
    refs = [["r", 0, 0]] * 3 + [["r_2", 0, 0]]
    assert [*refs_of(refs, "key")] == ["r", "r_1", "r_2", "r_2_1"]
    refs_of([["r", 0, 0]] * 60_000, "key")  # takes hours where that is so


def test_layers_of_an_agent(tmp_path):
    def agent(count):
        names = [f"actor.latent_pi.{i}.weight" for i in range(count)]
        return pt(pickled(dict.fromkeys([*names, "actor.mu.weight"], b"N")))

    def read(path):
        return fl.from_state_dict(path, network="actor", activation="relu")

    measured(tmp_path, ".pt", agent, 200, read)
