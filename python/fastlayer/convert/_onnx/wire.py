"""ONNX files cut into their pieces by a walk over the protobuf fields, before anything is parsed.

A few bytes of protobuf can stand for hundreds of bytes of objects, and a parser copies all weights.
So the walk counts what the parser would be given, leaves the weights where they are, and drops what
a forward pass doesn't need: descriptions, intermediate shapes, metadata, subgraphs. The message
types and field numbers are those of onnx.proto.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fastlayer.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

# Wire types of protobuf.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# A layer takes about 40 fields; the walk takes some microseconds for each.
_MOST_FIELDS = 100_000
# Of names and small constants; the objects made of them take a few times as much.
_MOST_BYTES = 8 << 20
# Packed integers grow eightfold: they are axes and shapes.
_MOST_INTEGERS = 100_000


class Span(NamedTuple):
    """A stretch of the file."""

    start: int
    end: int


@dataclass(slots=True)
class Message:
    """The bytes that a parser gets, and what was kept from it."""

    text: bytearray = field(default_factory=bytearray)
    payload: tuple[int, Span] | None = None  # field number and place of a tensor's numbers
    parts: list[tuple[int, Message]] = field(default_factory=list)  # by field number


@dataclass(frozen=True)
class Kind:
    """What to do with the fields of a message: parse, set aside, walk into; drop all others."""

    plain: frozenset[int]
    integers: frozenset[int] = frozenset()
    payload: frozenset[int] = frozenset()
    inside: dict[int, Kind] = field(default_factory=dict)  # walked and parsed in place
    apart: dict[int, Kind] = field(default_factory=dict)  # walked and parsed on their own


def _numbers(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


_ENTRY = Kind(_numbers(1, 2))
_TENSOR = Kind(
    _numbers(2, 3, 6, 8, 14),
    integers=_numbers(1, 5, 7, 11),
    payload=_numbers(4, 9, 10),
    inside={13: _ENTRY},
)
# Fields 6 and 9 to 23 are graphs, strings and other things that no operation here has: of those
# the attribute's type, 20, remains, which is enough to name them.
_ATTRIBUTE = Kind(_numbers(1, 2, 3, 4, 20, 21), integers=_numbers(7, 8), apart={5: _TENSOR})
_NODE = Kind(_numbers(1, 2, 3, 4, 7), apart={5: _ATTRIBUTE})
_SHAPE = Kind(_numbers(), inside={1: Kind(_numbers(1, 2))})
_TENSOR_TYPE = Kind(_numbers(1), inside={2: _SHAPE})
# Other types than tensors are kept as empty messages, which tells them from a missing type.
_EMPTY = Kind(_numbers())
_TYPE = Kind(
    _numbers(), inside={1: _TENSOR_TYPE, 4: _EMPTY, 5: _EMPTY, 7: _EMPTY, 8: _EMPTY, 9: _EMPTY}
)
_VALUE = Kind(_numbers(1), inside={2: _TYPE})
_GRAPH = Kind(_numbers(), apart={1: _NODE, 5: _TENSOR, 11: _VALUE, 12: _VALUE, 15: _EMPTY})
MODEL = Kind(_numbers(1), apart={7: _GRAPH, 8: Kind(_numbers(1, 2))})


class Walk:
    """One walk over a file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._fields = self._bytes = self._integers = 0

    def message(self, kind: Kind, span: Span) -> Message:
        """Return the message at `span`.

        Raises
        ------
        Damaged
            Broken or too many fields.
        """
        result = Message()
        for number, wire, start, content in self._read(span):
            if number in kind.apart and wire == BYTES:
                result.parts.append((number, self.message(kind.apart[number], content)))
            elif number in kind.inside and wire == BYTES:
                inner = self.message(kind.inside[number], content).text
                result.text += _varint(number << 3 | BYTES) + _varint(len(inner)) + inner
            elif number in kind.payload and wire == BYTES:
                if result.payload is not None:
                    raise Damaged(f"byte {start}", "a tensor has its numbers in several pieces")
                result.payload = number, content
            elif number in kind.plain or number in kind.integers or number in kind.payload:
                if wire == BYTES and number in kind.integers:
                    self._integers += content.end - content.start
                self._bytes += content.end - start
                self._check(start)
                result.text += self.data[start : content.end]
        return result

    def _check(self, at: int) -> None:
        for count, most, what in (
            (self._fields, _MOST_FIELDS, "fields"),
            (self._bytes, _MOST_BYTES, "bytes beside the weights"),
            (self._integers, _MOST_INTEGERS, "bytes of integers"),
        ):
            if count > most:
                raise Damaged(f"byte {at}", f"more than {most} {what}; no dense network has those")

    def _read(self, span: Span) -> Iterator[tuple[int, int, int, Span]]:
        """Yield number, wire type, start and content of the fields at `span`."""
        at, end = span
        while at < end:
            start = at
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                self._check(start)
            tag, at = self._varint(at, end)
            wire = tag & 7
            content = at
            if wire == VARINT:
                _, at = self._varint(at, end)
            elif wire == BYTES:
                size, content = self._varint(at, end)
                at = content + size
            elif wire in (FIXED32, FIXED64):
                at += 4 if wire == FIXED32 else 8
            else:
                raise Damaged(f"byte {start}", f"wire type {wire} is not one of ONNX")
            if at > end:
                raise Damaged(f"byte {start}", f"a field runs to byte {at}, past its end at {end}")
            if tag >> 3 == 0:
                raise Damaged(f"byte {start}", "a field has the number 0")
            yield tag >> 3, wire, start, Span(content, at)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        start = at
        while at < end and shift < 70:
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
        raise Damaged(f"byte {start}", "a number is cut short or too long")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
