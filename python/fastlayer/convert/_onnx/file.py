"""ONNX models as plain data: nodes, tensors, the input and the output.

The `onnx` package parses the pieces that the walk in `wire` hands it; the numbers of a
tensor stay where they are until `Tensor.array` looks at them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._onnx.external import External
from fastlayer.convert._onnx.wire import MODEL, Message, Span, Walk
from fastlayer.errors import ConversionError, Damaged

if TYPE_CHECKING:
    from types import ModuleType

    from fastlayer.arrays import Array

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
# Where a tensor without raw_data keeps its numbers, as (field number, field name, dtype).
_FIELDS: dict[str, tuple[int, str, str]] = {
    "float32": (4, "float_data", "<f4"),
    "float64": (10, "double_data", "<f8"),
    "int64": (7, "int64_data", "<i8"),
    "uint32": (11, "uint64_data", "<u8"),
    "uint64": (11, "uint64_data", "<u8"),
}
_INT32 = (5, "int32_data", "<i4")
_RAW = 9
# Thousands of layers, and what a hostile file can cost in time.
_MOST_NODES = 1 << 13
_MOST_AXES = 32


class Tensor:
    """Constant numbers in a model."""

    def __init__(self, message: Message, source: Source) -> None:
        proto = source.parse("TensorProto", message)
        self.name: str = proto.name
        self.dims = tuple(proto.dims)
        self._proto, self._payload, self._source = proto, message.payload, source
        self._array: Array | None = None

    def array(self) -> Array:
        """Return the numbers, read-only; the file must hold as many as the shape says.

        Raises
        ------
        Damaged
            It doesn't, or the shape is impossible.
        ConversionError
            A type that NumPy doesn't have.
        """
        if self._array is None:
            self._array = self._read()
            self._array.flags.writeable = False
        return self._array

    def _read(self) -> Array:
        key, kind = f"tensor {self.name!r}", self._proto.data_type
        if kind not in DTYPES:
            names = self._source.onnx.TensorProto.DataType
            name = names.Name(kind) if kind in names.values() else f"number {kind}"
            raise ConversionError(
                key, f"has the type {name}; convert it to float32, or export the model again in it"
            )
        dtype = np.dtype("<" + np.dtype(DTYPES[kind]).str[1:])
        if len(self.dims) > _MOST_AXES or any(d < 0 for d in self.dims):
            raise Damaged(key, f"has the impossible shape {_short(self.dims)}")
        count = prod(self.dims)
        if self._proto.data_location == 1:
            entries = {e.key: e.value for e in self._proto.external_data}
            data = self._source.external.read(key, entries, count * dtype.itemsize)
            return np.frombuffer(data, dtype).reshape(self.dims)
        values = self._inside(dtype)
        if values.size != count:
            raise Damaged(
                key, f"has shape {_short(self.dims)} and {values.size} numbers, expected {count}"
            )
        return values.reshape(self.dims)

    def _inside(self, dtype: np.dtype[Any]) -> Array:
        number, name, wide = _FIELDS.get(dtype.name, _INT32)
        if self._payload is not None:
            place, span = self._payload
            if place not in (_RAW, number):
                raise Damaged(
                    f"tensor {self.name!r}", f"keeps {dtype.name} in another type's field"
                )
            held = dtype if place == _RAW else np.dtype(wide)
            if (span.end - span.start) % held.itemsize:
                raise Damaged(
                    f"tensor {self.name!r}", f"does not hold whole numbers of {held.name}"
                )
            data = memoryview(self._source.data)[span.start : span.end]
            return np.frombuffer(data, held)
        values = np.array(getattr(self._proto, name), wide)
        if dtype.name == "float16":  # its bits
            return values.astype("<u2").view("<f2")
        return values.astype(dtype)


@dataclass(frozen=True, eq=False)
class Node:
    """One operation; absent inputs are empty names."""

    op: str
    domain: str
    name: str
    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def place(self) -> str:
        """The node as messages name it."""
        which = repr(self.name) if self.name else str(self.index)
        domain = f"{self.domain}." if self.domain not in ("", "ai.onnx") else ""
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


@dataclass(frozen=True)
class Value:
    """An input or output of the model; `shape` None is unknown, as is each None in it."""

    name: str
    kind: int | None  # TensorProto.DataType, None where it isn't said
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Model:
    """What a forward pass needs of a model."""

    nodes: list[Node]
    tensors: dict[str, Tensor]
    inputs: list[Value]
    outputs: list[Value]
    opset: int


class Source:
    """The bytes of a model, its folder for external data, and who parses."""

    def __init__(self, onnx: ModuleType, data: bytes, folder: str | None) -> None:
        self.onnx = onnx
        self.data = data
        self.external = External(folder)

    def parse(self, kind: str, message: Message) -> Any:
        """Return the `onnx` object of a message."""
        try:
            return getattr(self.onnx, kind).FromString(bytes(message.text))
        except Exception as error:  # protobuf's own, which is nothing but an Exception
            raise Damaged(kind, str(error)) from error

    def model(self) -> Model:
        """Read the model.

        Raises
        ------
        Damaged
            It isn't one.
        ConversionError
            It has parts that this package knows nothing of.
        """
        top = Walk(self.data).message(MODEL, Span(0, len(self.data)))
        graphs = [part for number, part in top.parts if number == 7]
        if len(graphs) != 1:
            raise Damaged("model", f"has {len(graphs)} graphs, expected one; is it an ONNX file?")
        opsets = [self.parse("OperatorSetIdProto", part) for n, part in top.parts if n == 8]
        versions = [o.version for o in opsets if o.domain in ("", "ai.onnx")]
        opset = max(versions, default=1)
        if opset < 6:
            raise ConversionError(
                "model",
                f"it is of ONNX opset {opset}, and those before 6 mean other things by the same "
                "names; convert it with onnx.version_converter.convert_version(model, 21)",
            )
        return self._graph(graphs[0], opset)

    def _graph(self, graph: Message, opset: int) -> Model:
        parts: dict[int, list[Message]] = {}
        for number, part in graph.parts:
            parts.setdefault(number, []).append(part)
        if len(parts.get(1, [])) > _MOST_NODES:
            raise Damaged("graph", f"has more than {_MOST_NODES} nodes")
        if 15 in parts:
            raise ConversionError("graph", "it has sparse weights; export it with dense ones")
        tensors: dict[str, Tensor] = {}
        for part in parts.get(5, []):
            tensor = Tensor(part, self)
            if tensor.name in tensors:
                raise Damaged(f"tensor {tensor.name!r}", "is there twice")
            tensors[tensor.name] = tensor
        return Model(
            [self._node(part, i) for i, part in enumerate(parts.get(1, []))],
            tensors,
            [self._value(part) for part in parts.get(11, [])],
            [self._value(part) for part in parts.get(12, [])],
            opset,
        )

    def _node(self, message: Message, index: int) -> Node:
        proto = self.parse("NodeProto", message)
        attributes = dict(self._attribute(part) for _, part in message.parts)
        texts = (tuple(proto.input), tuple(proto.output))
        return Node(proto.op_type, proto.domain, proto.name, index, *texts, attributes)

    def _attribute(self, message: Message) -> tuple[str, Any]:
        proto = self.parse("AttributeProto", message)
        for _, part in message.parts:
            return proto.name, Tensor(part, self)
        # In the order of AttributeProto.AttributeType; untyped ones come from before ONNX 1.3.
        names = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints"}
        name = names.get(proto.type)
        if not proto.type:
            name = next((n for n in ("f", "i", "s") if proto.HasField(n)), None)
            name = name or next((n for n in ("floats", "ints") if getattr(proto, n)), None)
        if name is None:
            return proto.name, None
        value = getattr(proto, name)
        if name == "s":
            return proto.name, value.decode(errors="replace")
        return proto.name, list(value) if name.endswith("s") else value

    def _value(self, message: Message) -> Value:
        proto = self.parse("ValueInfoProto", message)
        if not proto.HasField("type"):
            return Value(proto.name, None, None)
        if proto.type.WhichOneof("value") not in (None, "tensor_type"):
            return Value(proto.name, -1, None)
        kind = proto.type.tensor_type
        if not kind.HasField("shape"):
            return Value(proto.name, kind.elem_type, None)
        dims = (d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        return Value(proto.name, kind.elem_type, tuple(dims))


def _short(dims: tuple[int, ...]) -> str:
    return str(dims) if len(dims) <= 8 else f"({', '.join(map(str, dims[:8]))}, ...)"
