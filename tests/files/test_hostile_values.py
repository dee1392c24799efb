"""Texts and numbers of a file that NumPy or the interpreter would choke on: refused as all the rest is."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from helpers import assert_same_bits
from hostile_corpus import read_state_dict
from hostile_hdf5 import Writer
from keras_files import write_keras
from model_files import npy, pickled, pt, storage, tensor, zipped

import fastlayer as fl
from fastlayer.errors import Damaged
from fastlayer.files.reading import parse_json
from fastlayer.network.chain import Residual

# Syntax of Python's, no text at all, and names of other dtypes: NumPy parses all of them.
DTYPES = ["(1,2", "i4,(", "1,,", "\ud800", "2147483648f4", "(9,)f4", "object", "float16", ">f4", "f4", "", "\0"]  # fmt: skip


def write(path, text):
    path.write_bytes(zipped({"fastlayer.npy": npy(np.frombuffer(text.encode(), np.uint8))}))
    return path


def document(layers, dtype="float32"):
    return json.dumps({"format": "fastlayer", "version": 1, "dtype": dtype, "layers": layers})


def prelu(dtype):
    slopes = {"weight": {"shape": [2], "dtype": dtype}}
    return document([{"type": "Activation", "name": "prelu", "parameters": slopes}])


@pytest.mark.parametrize("dtype", DTYPES, ids=ascii)
@pytest.mark.parametrize("make", [lambda d: document([], d), prelu], ids=["network", "prelu"])
def test_dtypes(tmp_path, make, dtype):
    path = write(tmp_path / "m.npz", make(dtype))
    with pytest.raises(fl.ModelFileError, match="expected float32 or float64"):
        fl.load(path)


@pytest.mark.parametrize("depth", [10, 290, *range(500, 1000, 20)])
def test_values_deep_in_a_deep_document(tmp_path, depth):
    """The levels of both count where Python counts calls of functions."""
    layer = f'{{"type": "Slice", "begin": 0, "end": {"[" * depth + "]" * depth}}}'
    for _ in range(62):
        layer = f'{{"type": "Network", "layers": [{layer}]}}'
    text = document([]).replace("[]", f"[{layer}]")
    with pytest.raises(fl.ModelFileError, match=r"deep in each other|holds|is not JSON"):
        fl.load(write(tmp_path / "m.npz", text))


def test_depth_of_json():
    text = b"[" * 300 + b"]" * 300
    assert json.dumps(parse_json(text, "key")).encode() == text
    with pytest.raises(Damaged, match="more than 300 deep"):
        parse_json(b"[" + text + b"]", "key")


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["large", "small"])
def test_whole_number_that_no_float_holds(tmp_path, value):
    norm = {"type": "LayerNorm", "features": 4, "eps": value, "arrays": []}
    hardtanh = {"min_val": -1, "max_val": value}
    clip = {"type": "Activation", "name": "hardtanh", "parameters": hardtanh}
    for layer in (norm, clip):
        with pytest.raises(fl.ModelFileError):
            fl.load(write(tmp_path / "m.npz", document([layer])))


def single(shape, strides):
    """A state dict of one tensor over four numbers."""
    data = np.arange(4, dtype="<f4").tobytes()
    return pt(pickled({"0.weight": tensor(storage("0", 4), 0, shape, strides)}), {"0": data})


@pytest.mark.parametrize("stride", [0, 1000, 1 << 61, (1 << 62) - 1])
def test_stride_that_is_never_taken(tmp_path, stride):
    path = tmp_path / "m.pt"
    path.write_bytes(single((1, 4), (stride, 1)))
    net = read_state_dict(str(path))
    assert_same_bits(net.layers[0].weight, np.arange(4, dtype=np.float32).reshape(1, 4))


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((2, 2), (1 << 61, 1)),
        ((0, 2), (1, 1 << 61)),
        ((0, 1 << 61), (1, 1)),
        ((2, 2), (1 << 62, 1)),
    ],
)
def test_stride_that_leads_nowhere(tmp_path, shape, strides):
    path = tmp_path / "m.pt"
    path.write_bytes(single(shape, strides))
    with pytest.raises((fl.ModelFileError, fl.ConversionError)):
        read_state_dict(str(path))


@pytest.mark.parametrize("error", [TypeError, ValueError, AttributeError])
def test_mistakes_of_ours_are_no_damage(tmp_path, monkeypatch, error):
    """What goes wrong in a reader itself is told as it is."""

    def outline(spec, key, reader):
        raise error("a mistake")

    monkeypatch.setattr(Residual, "_outline", outline)
    path = write(tmp_path / "m.npz", document([{"type": "Residual", "layers": []}]))
    with pytest.raises(error, match="a mistake") as caught:
        fl.load(path)
    assert not isinstance(caught.value, fl.ModelFileError)


def connected(sources):
    """A functional model of Keras, whose input is called a second time where nobody calls it."""
    told = {"class_name": "__keras_tensor__", "config": {"keras_history": ["i", 0, 0]}}
    layers = [
        {
            "class_name": "InputLayer",
            "name": "i",
            "config": {"batch_shape": [None, 2]},
            "inbound_nodes": [],
        },
        {"class_name": "ReLU", "name": "r", "config": {}, "inbound_nodes": [{"args": [told]}]},
    ]
    ends = {"input_layers": sources, "output_layers": [["r", 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "m", "layers": layers, **ends}}


def test_call_that_is_not_there(tmp_path):
    writer = Writer()
    weights = writer.done(writer.group({"layers": writer.group({"x": 96})}))
    path = write_keras(tmp_path / "m.keras", connected([["i", 0, 0]]), weights)
    assert fl.load(path)([[-1.0, 2.0]]).tolist() == [[0.0, 2.0]]
    path = write_keras(tmp_path / "m.keras", connected([["i", 7, 0]]), weights)
    with pytest.raises(fl.ConversionError, match="has 0 outputs here"):
        fl.load(path)


@pytest.mark.parametrize("kind", [str, io.StringIO])
def test_configuration_that_is_no_text(tmp_path, kind):
    writer = Writer()
    empty = writer.group({"layers": writer.group({"dense": writer.group({})})})
    path = tmp_path / "m.weights.h5"
    path.write_bytes(writer.done(empty))
    with pytest.raises(fl.ModelFileError, match="is not JSON"):
        fl.load(path, config=kind('{"class_name": "\ud800"}'))


ODD = [
    ("Greater", ("x", "c", "c"), {}, "3 inputs, too many"),
    ("Add", ("x", "c", "c"), {}, "3 inputs, too many"),
    ("Div", ("c", "c", "x"), {}, "3 inputs, too many"),
    ("Where", ("b", "x", "c", "c"), {}, "4 inputs, too many"),
    ("Unsqueeze", ("x",), {"axes": [0.5]}, "must be integers"),
    ("Squeeze", ("x",), {"axes": [0.5]}, "must be integers"),
    ("Transpose", ("x",), {"perm": ["a"]}, "must be integers"),
]


@pytest.mark.parametrize(("op", "inputs", "attributes", "why"), ODD)
def test_nodes_that_onnx_does_not_have(op, inputs, attributes, why):
    helper = pytest.importorskip("onnx.helper")
    x, y = (helper.make_tensor_value_info(n, 1, ["N", 4]) for n in "xy")
    constants = [
        helper.make_tensor("c", 1, [4], [1.0] * 4),
        helper.make_tensor("b", 9, [1], [True]),
    ]
    node = helper.make_node(op, inputs, ["y"], **attributes)
    graph = helper.make_graph([node], "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    with pytest.raises(fl.ModelFileError, match=why):
        fl.from_onnx(model)
