"""ONNX files as models of the `onnx` package, and what the rest asks of them.

The package parses, finds external data and refuses paths out of the model's folder. What is checked
here is how much a file asks for: of a few bytes protobuf makes hundreds, and tensors may name the
same bytes of an external file again and again.
"""

from __future__ import annotations

import os
import re
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.errors import ConversionError, Damaged

if TYPE_CHECKING:
    from types import ModuleType

    from fastlayer.arrays import Array, DType

# TensorProto.DataType -> NumPy.
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
_OLDEST = (1, 21)  # which looks where external data lies
# A layer takes about 40 fields, each some hundred bytes when it is parsed; the count of them takes
# some microseconds for each. Packed integers, axes and shapes, grow eightfold.
_MOST = 100_000
_MOST_NESTED = 60
# Thousands of layers, and what a hostile file can cost in time.
_MOST_NODES = 1 << 13
_MOST_AXES = 32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf
_INTEGERS = {1, 2, 3, 4}  # its FieldDescriptor.CppType of integers with and without signs


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
    """What a forward pass needs of a model; `folder` is None for one in memory."""

    def __init__(self, proto: Any, folder: str | None, nbytes: int) -> None:
        self.onnx, self._folder, self.nbytes = the_package(), folder, nbytes
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
        if graph.sparse_initializer:
            raise ConversionError("graph", "it has sparse weights; export it with dense ones")
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        if len(self._tensors) != len(graph.initializer):
            names = [tensor.name for tensor in graph.initializer]
            twice = next(name for name in names if names.count(name) > 1)
            raise Damaged(f"tensor {twice!r}", "is there twice")
        self.nodes = [Node(proto, i) for i, proto in enumerate(graph.node)]
        self.inputs = [v for v in graph.input if v.name not in self._tensors]
        self.outputs = [v.name for v in graph.output]
        self._read: dict[tuple[str, int, int], Array] = {}  # bytes of external files, by place
        self._left: dict[str, int] = {}  # bytes that are still to come, by file

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str) -> Array:
        """Return an initialiser, read-only; see `array`."""
        return self.array(self._tensors[name])

    def array(self, tensor: Any) -> Array:
        """Return the numbers of a tensor; it must hold as many as its shape says.

        Raises
        ------
        Damaged
            It doesn't, or the shape is impossible.
        ConversionError
            A type that NumPy doesn't have.
        """
        key, kind, dims = f"tensor {tensor.name!r}", tensor.data_type, tuple(tensor.dims)
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
                values = self._external(key, tensor, np.dtype(DTYPES[kind])).reshape(dims)
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

    def _external(self, key: str, tensor: Any, dtype: DType) -> Array:
        """Return the numbers of a tensor that lie in another file, in one row."""
        helper = self.onnx.external_data_helper
        info, size = helper.ExternalDataInfo(tensor), prod(tensor.dims) * dtype.itemsize
        if self._folder is None:
            raise Damaged(
                key,
                f"is in the file {info.location!r}, and a model in memory has no folder; call "
                "onnx.load_external_data_for_model first, or give the path of the model",
            )
        at = info.offset or 0
        if (size if info.length is None else info.length) != size:
            raise Damaged(
                key,
                f"has {info.length} bytes at {at} of {info.location!r}, and its shape takes {size}",
            )
        path = os.path.realpath(os.path.join(self._folder, info.location))
        if (path, at, size) not in self._read:
            part = self.onnx.TensorProto(name=tensor.name, data_location=tensor.EXTERNAL)
            entries = {"location": info.location, "offset": at, "length": size}
            for name, value in entries.items():
                part.external_data.add(key=name, value=str(value))
            helper.load_external_data_for_tensor(part, self._folder)
            self._read[path, at, size] = np.frombuffer(part.raw_data, np.uint8)
            self.nbytes += size
            self._left[path] = self._left.get(path, os.path.getsize(path)) - size
            if self._left[path] < 0:
                raise Damaged(key, f"overlaps other tensors in {info.location!r}")
        return self._read[path, at, size].view(dtype)


class Node:
    """One operation; absent inputs are empty names."""

    def __init__(self, proto: Any, index: int) -> None:
        self.proto, self.index = proto, index
        self.op: str = proto.op_type
        self.inputs = tuple(proto.input)
        self.outputs = tuple(proto.output)
        self.attributes = {a.name: _value(a) for a in proto.attribute}

    @property
    def own(self) -> bool:
        """Whether it is one of ONNX's own operators."""
        return self.proto.domain in ("", "ai.onnx")

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
        if value is not None and not isinstance(value, list):
            raise self.damaged(f"attribute {name} must be integers, got {value!r}")
        return value


def _value(attribute: Any) -> Any:
    """Return what an attribute holds, None for what no operation here has."""
    kinds = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}
    value = getattr(attribute, kinds.get(attribute.type, ""), None)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if attribute.type > 4 and value is not None else value


def parsed(data: bytes) -> Any:
    """Return the model in the bytes of a file.

    Raises
    ------
    Damaged
        They are none, or ask for far more memory than they take.
    """
    onnx = the_package()
    counts = dict.fromkeys(("fields", "bytes of integers"), 0)
    _count(data, onnx.ModelProto.DESCRIPTOR, 0, len(data), counts, 0)
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own, which is nothing but an Exception
        raise Damaged("ModelProto", str(error)) from error


def _count(data: bytes, kind: Any, at: int, end: int, counts: dict[str, int], depth: int) -> None:
    """Count what the message of this kind at data[at:end] makes a parser allocate."""
    if depth > _MOST_NESTED:
        raise Damaged(f"byte {at}", f"messages are nested more than {_MOST_NESTED} deep")
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        field = kind.fields_by_number.get(tag >> 3)
        size, wire = 0, tag & 7
        counts["fields"] += 1
        if wire == _VARINT:
            _, at = _varint(data, at, end)
        elif wire == _BYTES:
            size, at = _varint(data, at, end)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise Damaged(f"byte {start}", f"wire type {wire} is not one of ONNX")
        if at + size > end:
            raise Damaged(
                f"byte {start}", f"a field runs to byte {at + size}, past its end at {end}"
            )
        if wire == _BYTES and field is not None:
            if field.message_type is not None:
                _count(data, field.message_type, at, at + size, counts, depth + 1)
            elif field.cpp_type in _INTEGERS:
                counts["bytes of integers"] += size
        for what, count in counts.items():
            if count > _MOST:
                raise Damaged(f"byte {at}", f"more than {_MOST} {what}; no dense network has those")
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    start = at
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise Damaged(f"byte {start}", "a number is cut short or too long")


def _short(dims: tuple[int, ...]) -> str:
    return str(dims) if len(dims) <= 8 else f"({', '.join(map(str, dims[:8]))}, ...)"
