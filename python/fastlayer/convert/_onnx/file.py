"""ONNX files as models of the `onnx` package, and what the rest asks of them.

The package parses. Protobuf makes of each byte of a file a hundred in memory at most, of empty
messages. What is checked here is what comes of that: how much a graph lists, as each piece takes
time; where files of tensors lie, and how often tensors name the same bytes of one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._onnx.contrib import plain
from fastlayer.errors import ConversionError, Damaged, ModelFileError
from fastlayer.files.reading import read_bytes, reading, size_of

if TYPE_CHECKING:
    from types import ModuleType

    from fastlayer.arrays import Array

# TensorProto.DataType -> NumPy.
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
_OLDEST = (1, 21)  # which looks where external data lies
# Thousands of layers, and what a hostile file can cost in time.
_MOST_NODES = 1 << 13
_MOST_AXES = 32
# What nodes and the graph list: tensors, inputs, outputs and attributes.
_MOST_PIECES = 100_000
_COPY = "a model must not read other files; put a copy of it there"
# Tensors may share bytes of an external file, within reason.
_MOST_SHARES = 4


def the_package() -> ModuleType:
    """Return `onnx`.

    Raises
    ------
    ImportError
        It is not there, or too old.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("reading ONNX models needs the onnx package: pip install onnx") from error
    version = tuple(int(n) for n in re.findall(r"\d+", onnx.__version__)[:2])
    if version < _OLDEST:
        raise ImportError(
            f"reading ONNX models needs onnx {'.'.join(map(str, _OLDEST))} or newer, which checks "
            f"where external data lies; this is {onnx.__version__}: pip install -U onnx"
        )
    return onnx


class Model:
    """What a forward pass needs of a model; `path` is None for one in memory."""

    def __init__(self, proto: Any, path: str | None, nbytes: int) -> None:
        self.onnx, self._path, self.nbytes = the_package(), path, nbytes
        versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
        self.opset: int = max(versions, default=1)
        if not proto.HasField("graph"):
            raise Damaged("model", "has 0 graphs, expected one; is it an ONNX file?")
        if self.opset < 6:
            raise ConversionError(
                "model",
                f"it is of ONNX opset {self.opset}, and those before 6 mean other things by the "
                "same names; convert it with onnx.version_converter.convert_version(model, 21)",
            )
        graph = proto.graph
        if len(graph.node) > _MOST_NODES:
            raise Damaged("graph", f"has more than {_MOST_NODES} nodes")
        pieces = [graph.initializer, graph.input, graph.output]
        for node in graph.node:
            pieces += [node.input, node.output, node.attribute]
        if sum(map(len, pieces)) > _MOST_PIECES:
            raise Damaged("graph", f"lists more than {_MOST_PIECES} tensors, names and attributes")
        if graph.sparse_initializer:
            raise ConversionError("graph", "it has sparse weights; export it with dense ones")
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        names = Counter(tensor.name for tensor in graph.initializer)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise Damaged(f"tensor {twice[0]!r}", "is there twice")
        self.nodes = [
            Node(part, i)
            for i, proto in enumerate(graph.node)
            for part in plain(self.onnx, proto, self.opset)
        ]
        self.inputs = [v for v in graph.input if v.name not in self.tensors]
        self.outputs = [v.name for v in graph.output]
        self._taken: Counter[str] = Counter()  # bytes that tensors have of external files

    def array(self, tensor: Any) -> Array:
        """Return the numbers of a tensor, read-only; it must hold as many as its shape says.

        Raises
        ------
        Damaged
            It doesn't, or the shape is impossible.
        ConversionError
            A type that NumPy doesn't have.
        """
        key, kind, dims = f"tensor {tensor.name!r}", tensor.data_type, tuple(tensor.dims)
        if kind == self.onnx.TensorProto.STRING:
            return _texts(key, tensor)
        if kind not in DTYPES:
            names = self.onnx.TensorProto.DataType
            name = names.Name(kind) if kind in names.values() else f"number {kind}"
            raise ConversionError(
                key, f"has the type {name}; convert it to float32, or export the model again in it"
            )
        if len(dims) > _MOST_AXES or any(d < 0 for d in dims):
            raise Damaged(key, f"has the impossible shape {_short(dims)}")
        try:
            if tensor.data_location == tensor.EXTERNAL:
                values = self._external(key, tensor)
            else:
                values = self.onnx.numpy_helper.to_array(tensor)
        except Damaged:
            raise
        except Exception as error:  # of many kinds, the package's own among them
            raise Damaged(key, f"of shape {_short(dims)} can't be read: {error}") from error
        if values.shape != dims or values.dtype != DTYPES[kind]:
            raise Damaged(key, f"has shape {_short(dims)} and {values.size} numbers")
        values.flags.writeable = False
        return values

    def _external(self, key: str, tensor: Any) -> Array:
        """Return the numbers of a tensor that lie in another file."""
        info = self.onnx.external_data_helper.ExternalDataInfo(tensor)
        dtype = np.dtype(DTYPES[tensor.data_type]).newbyteorder("<")
        size, offset = prod(tensor.dims) * dtype.itemsize, info.offset or 0
        if self._path is None:
            raise Damaged(
                key,
                f"is in the file {info.location!r}, and a model in memory or in an open file has no "
                "folder; give the path of the model, or call onnx.load_external_data_for_model first",
            )
        if info.length not in (None, size):
            raise Damaged(
                key,
                f"has {info.length} bytes at {offset} of {info.location!r}, and its shape takes "
                f"{size}",
            )
        path = self._beside(key, info.location)
        try:
            with reading(path) as file:
                whole, links = size_of(file), os.fstat(file.fileno()).st_nlink
                inside = 0 <= offset <= whole - size
                data = read_bytes(file, offset, size, key) if inside and links == 1 else b""
        except (ModelFileError, OSError) as error:
            why = error.why if isinstance(error, ModelFileError) else f"can't be read: {error}"
            raise Damaged(key, f"lies in {info.location!r}, which {why}") from error
        if links != 1:
            raise Damaged(key, f"lies in {info.location!r}, which is a hard link: {_COPY}")
        if not inside:
            raise Damaged(
                key,
                f"takes {size} bytes from {offset} on of {info.location!r}, which has {whole}",
            )
        self.nbytes += size
        self._taken[path] += size
        if self._taken[path] > _MOST_SHARES * whole:
            raise Damaged(key, f"overlaps other tensors in {info.location!r}")
        values: Array = np.frombuffer(data, dtype).reshape(tuple(tensor.dims))
        return values.astype(dtype.newbyteorder("="))

    def _beside(self, key: str, location: str) -> str:
        """Return the real path of a file of tensors.

        It must lie in the folder of the model or in that of the real model file: in a cache that
        keeps all files under other names, both are links, and the real ones lie together.
        """
        assert self._path is not None
        if os.path.isabs(location) or not location or "\0" in location:
            raise Damaged(key, f"lies in {location!r}, which is no path in the model's folder")
        folders = [os.path.dirname(os.path.abspath(self._path))]
        folders.append(os.path.dirname(os.path.realpath(self._path)))
        found = [os.path.join(folder, location) for folder in folders]
        real = os.path.realpath(next(filter(os.path.exists, found), found[0]))
        homes = [os.path.join(os.path.realpath(folder), "") for folder in folders]
        if not any(real.startswith(home) for home in homes):
            raise Damaged(
                key,
                f"lies in {location!r}, a link or a path out of the model's folder: {_COPY}",
            )
        return real


class Node:
    """One operation; absent inputs are empty names."""

    def __init__(self, proto: Any, index: int) -> None:
        self.proto, self.index = proto, index
        self.op = str(proto.op_type)  # bytes, where it is no text
        self.inputs = tuple(proto.input)
        self.outputs = tuple(proto.output)
        self.attributes = {a.name: _value(a) for a in proto.attribute}

    @property
    def own(self) -> bool:
        """Whether it is one of ONNX's own operators."""
        return self.proto.domain in ("", "ai.onnx")

    @property
    def results(self) -> tuple[str, ...]:
        """The outputs that are computed: no other operation needs more than the first."""
        return self.outputs if self.op == "Split" else self.outputs[:1]

    @property
    def place(self) -> str:
        """The node as messages name it."""
        which = repr(self.proto.name) if self.proto.name else str(self.index)
        domain = "" if self.own else f"{self.proto.domain}."
        return f"node {which} (ONNX {domain}{self.op})"

    def refuse(self, why: str) -> ConversionError:
        """Return the error that says why this node can't be converted."""
        return ConversionError(self.place, why)

    def damaged(self, why: str) -> Damaged:
        """Return the error for what no ONNX model may say."""
        return Damaged(self.place, why)

    def number(self, name: str, default: float) -> float:
        """Return an attribute that is a number, which ONNX keeps in float32, the default too."""
        value = self.attributes.get(name, float(np.float32(default)))
        if not isinstance(value, float) or np.isnan(value):
            raise self.damaged(f"attribute {name} must be a number, got {value!r}")
        return value

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is an integer."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise self.damaged(f"attribute {name} must be an integer, got {value!r}")
        return value

    def integers(self, name: str) -> list[int] | None:
        """Return an attribute that is a list of integers, None where it isn't there."""
        value = self.attributes.get(name)
        listed = isinstance(value, list) and all(type(v) is int for v in value)
        if value is not None and not listed:
            raise self.damaged(f"attribute {name} must be integers, got {value!r:.60}")
        return value


def _value(attribute: Any) -> Any:
    """Return what an attribute holds, None for what no operation here has."""
    kinds = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
    value = getattr(attribute, kinds.get(attribute.type, ""), None)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if attribute.type > 4 and value is not None else value


def _texts(key: str, tensor: Any) -> Array:
    """Return the texts of a tensor, which are the names of classes."""
    texts = [text.decode(errors="replace") for text in tensor.string_data]
    if prod(tensor.dims) != len(texts):
        raise Damaged(key, f"has shape {_short(tuple(tensor.dims))} and {len(texts)} texts")
    return np.array([*texts, None], object)[:-1].reshape(tuple(tensor.dims))


def parsed(data: bytes) -> tuple[Any, int]:
    """Return the model in the bytes of a file, and how many those are.

    Raises
    ------
    Damaged
        They are none.
    """
    try:
        return the_package().load_model_from_string(data), len(data)
    except Exception as error:  # protobuf's own, which is nothing but an Exception
        raise Damaged("ModelProto", str(error)) from error


def _short(dims: tuple[int, ...]) -> str:
    return str(dims) if len(dims) <= 8 else f"({', '.join(map(str, dims[:8]))}, ...)"
