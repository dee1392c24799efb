"""HDF5 files as h5py writes them by default, which is what Keras uses: groups, texts, plain arrays.

A reader in Python, because the HDF5 library can be made to crash by a damaged file. What it reads is
version 0 of the format (HDF Group, "HDF5 File Format Specification Version 3.0", 2021): superblock,
version 1 object headers, symbol-table groups, contiguous or compact datasets of floating-point
numbers, attributes of text. Every offset and count is checked before it is used; links, chunks,
compression and external files are refused.
"""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType

MAGIC = b"\x89HDF\r\n\x1a\n"
_NOWHERE = (1 << 64) - 1
# Far above what any model needs; more than that is a hostile file.
_MOST_ENTRIES = 1 << 16
_MOST_READS = 200_000
_LONGEST_NAME = 4096
LONGEST_TEXT = 2 << 20
_SHARED_BYTES = 32 << 20
_SPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE = 0x01, 0x03, 0x08, 0x0C
_CONTINUATION, _SYMBOLS, _ATTRIBUTES = 0x10, 0x11, 0x15
_REFUSED = {
    0x02: "a group of the newer kind",
    0x06: "a group of the newer kind",
    0x07: "data in another file",
    0x0B: "compressed data",
    _ATTRIBUTES: "attributes of the newer kind",
}
_SHARED = 0x02  # a flag of messages
# Datatype messages of little-endian IEEE numbers, without their version: flags and layout of bits.
_FLOATS = {
    (4, 0, 32, 23, 8, 0, 23, 127): "<f4",
    (8, 0, 64, 52, 11, 0, 52, 1023): "<f8",
    (2, 0, 16, 10, 5, 0, 10, 15): "<f2",
}


class _Message(NamedTuple):
    """One message of an object header."""

    kind: int
    at: int
    data: bytes


def _damaged(at: int, why: str) -> Damaged:
    return Damaged(f"byte {at} of the HDF5 data", why)


class Hdf5:
    """HDF5 data of `size` bytes; objects are known by the address of their header.

    ``read(at, size)`` returns bytes of it, as any buffer.
    """

    def __init__(self, read: Callable[[int, int], Any], size: int) -> None:
        self._source, self._size = read, size
        self._reads = self._array_bytes = 0
        self._groups: dict[int, dict[str, int]] = {}
        magic, version, widths, base, end, self.root = self._unpack("<8sB4x2s9xQ8xQ16xQ", 0)
        if magic != MAGIC:
            raise _damaged(0, "is not HDF5")
        if version != 0 or widths != b"\x08\x08" or base != 0:
            raise _damaged(
                8,
                f"version {version} of the format; fastlayer reads what h5py writes by default, 0",
            )
        if end > size:
            raise _damaged(40, f"the data are cut short: {size} bytes of {end}")

    def _take(self, at: int, size: int) -> Any:
        if at < 0 or size < 0 or at + size > self._size:
            raise _damaged(at, f"needs {size} bytes, and the data end at {self._size}")
        self._reads += 1
        if self._reads > _MOST_READS:
            raise _damaged(at, "more objects than any model has")
        return self._source(at, size)

    def _read(self, at: int, size: int) -> bytes:
        return bytes(self._take(at, size))

    def _unpack(self, form: str, at: int) -> tuple[Any, ...]:
        return struct.unpack(form, self._read(at, struct.calcsize(form)))

    def _messages(self, address: int) -> list[_Message]:
        """Return the messages of an object."""
        version, count, size = self._unpack("<BxH4xI", address)
        if version != 1:
            raise _damaged(address, f"an object header of version {version}, expected 1")
        blocks, seen = [(address + 16, size)], {address + 16}
        messages: list[_Message] = []
        for start, length in blocks:
            if length > LONGEST_TEXT:
                raise _damaged(start, f"an object header of {length} bytes")
            data, at = self._read(start, length), 0
            while at + 8 <= length and len(messages) < count:
                kind, held, flags = struct.unpack_from("<HHB", data, at)
                body = data[at + 8 : at + 8 + held]
                if len(body) != held:
                    raise _damaged(start + at, "a message longer than its block")
                if flags & _SHARED and kind in (_SPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE):
                    raise _damaged(start + at, "a message that is shared with others")
                if kind == _CONTINUATION and held >= 16:
                    blocks.append(struct.unpack_from("<QQ", body))
                    if blocks[-1][0] in seen:
                        raise _damaged(start + at, "an object header that goes round in a circle")
                    seen.add(blocks[-1][0])
                messages.append(_Message(kind, start + at + 8, body))
                at += 8 + held
        return messages

    def entries(self, address: int) -> dict[str, int]:
        """Return what a group holds: names, and the addresses of their objects."""
        if address in self._groups:
            return self._groups[address]
        messages = self._messages(address)
        self._refuse(messages)
        found = [m.data for m in messages if m.kind == _SYMBOLS and len(m.data) >= 16]
        if not found:
            raise _damaged(address, "is not a group")
        tree, heap = struct.unpack_from("<QQ", found[0])
        magic, size, start = self._unpack("<4s4xQ8xQ", heap)
        if magic != b"HEAP":
            raise _damaged(heap, "is not a heap of names")
        names = self._read(start, size)
        entries: dict[str, int] = {}
        for node in self._leaves(tree):
            magic, count = self._unpack("<4s2xH", node)
            if magic != b"SNOD":
                raise _damaged(node, "is not a symbol node")
            symbols = self._read(node + 8, 40 * count)
            for offset, header, cache in struct.iter_unpack("<QQI20x", symbols):
                end = names.find(b"\0", offset, offset + _LONGEST_NAME)
                if cache == 2 or end < 0 or header == _NOWHERE:
                    raise _damaged(node, "a link to somewhere else, or a name that does not end")
                name = names[offset:end].decode("utf-8", "replace")
                if name in entries or len(entries) >= _MOST_ENTRIES:
                    raise _damaged(node, f"{name!r:.60} is there twice, or among too many")
                entries[name] = header
        self._groups[address] = entries
        return entries

    def _leaves(self, address: int) -> list[int]:
        """Return the addresses of the symbol nodes under a node of a B-tree."""
        leaves: list[int] = []
        waiting, seen = [address], {address}
        while waiting:
            at = waiting.pop()
            magic, level, used = self._unpack("<5sBH16x", at)
            if magic != b"TREE\0" or len(seen) > _MOST_ENTRIES:
                raise _damaged(at, "is not a tree of names")
            children = struct.iter_unpack("<8xQ", self._read(at + 24, 16 * used))
            below = [child for (child,) in children]
            if seen.intersection(below) or len(set(below)) != used:
                raise _damaged(at, "a tree that goes round in a circle")
            seen.update(below)
            (waiting if level else leaves).extend(reversed(below) if level else below)
        return leaves

    def _refuse(self, messages: list[_Message]) -> None:
        for message in messages:
            if message.kind in _REFUSED:
                raise _damaged(message.at, f"holds {_REFUSED[message.kind]}; fastlayer reads none")

    def find(self, start: int, path: str) -> int | None:
        """Return the address of an object below a group, None where there is none."""
        at: int | None = start
        for name in path.split("/"):
            at = None if at is None else self.entries(at).get(name)
        return at

    def texts(self, address: int, name: str) -> list[str] | None:
        """Return an attribute of text as a list, None where there is none of this name."""
        for message in self._messages(address):
            if message.kind in (_ATTRIBUTE, _ATTRIBUTES):
                self._refuse([message])
                found = self._attribute(message, name)
                if found is not None:
                    return found
        return None

    def _attribute(self, message: _Message, name: str) -> list[str] | None:
        data, at = message.data, message.at
        if len(data) < 9:
            raise _damaged(at, "an attribute cut short")
        version, flags, *sizes = struct.unpack_from("<BBHHH", data)
        if version not in (1, 2, 3) or (version > 1 and flags):
            raise _damaged(at, f"an attribute of version {version}")
        start, parts = (9 if version == 3 else 8), []
        for size in sizes:
            parts.append(data[start : start + size])
            start += size + (-size % 8 if version == 1 else 0)
        if parts[0].rstrip(b"\0") != name.encode():
            return None
        shape, kind, rest = _shape_of(parts[2], at), parts[1], data[start:]
        count = prod(shape)
        if count == 0:
            return []
        size = int.from_bytes(kind[4:8], "little")
        if len(kind) < 8 or count > _MOST_ENTRIES or size * count > len(rest):
            raise _damaged(at, f"the attribute {name!r} is longer than its message")
        cells = [rest[i * size : (i + 1) * size] for i in range(count)]
        if kind[0] & 15 == 3:
            return [c.rstrip(b"\0 ").decode("utf-8", "replace") for c in cells]
        if kind[0] & 15 == 9 and kind[1] & 15 == 1 and size == 16:
            if sum(int.from_bytes(c[:4], "little") for c in cells) > LONGEST_TEXT:
                raise _damaged(at, f"the attribute {name!r} is longer than any model's")
            return [self._long_text(c, at) for c in cells]
        raise _damaged(at, f"the attribute {name!r} is not text")

    def _long_text(self, cell: bytes, at: int) -> str:
        """Return a text of variable length, from a global heap."""
        length, address, wanted = struct.unpack("<IQI", cell)
        if length == 0:
            return ""
        magic, size = self._unpack("<4s4xQ", address)
        end = address + size
        if magic != b"GCOL" or end > self._size:
            raise _damaged(at, "a text that is not where it should be")
        place = address + 16
        while place + 16 <= end:
            index, size = self._unpack("<H6xQ", place)
            if index == wanted:
                if length > size:
                    raise _damaged(place, "a text cut short")
                return self._read(place + 16, length).rstrip(b"\0").decode("utf-8", "replace")
            if index == 0:
                break
            place += 16 + size + -size % 8
        raise _damaged(at, "a text that is not where it should be")

    def array(self, address: int) -> Array:
        """Return a dataset of floating-point numbers.

        Raises
        ------
        TypeError
            Numbers of another kind.
        Damaged
            Whatever else is wrong.
        """
        messages = self._messages(address)
        self._refuse(messages)
        held: dict[int, _Message] = {m.kind: m for m in reversed(messages)}
        if not {_SPACE, _DATATYPE, _LAYOUT} <= held.keys():
            raise _damaged(address, "is not an array")
        shape = _shape_of(held[_SPACE].data, held[_SPACE].at)
        dtype = _dtype_of(held[_DATATYPE].data)
        size = prod(shape) * dtype.itemsize
        layout = held[_LAYOUT]
        if size > self._size:
            raise _damaged(layout.at, f"an array of shape {shape} is larger than the file")
        self._array_bytes += size  # layers may share weights, which takes room for each of them
        if self._array_bytes > self._size + _SHARED_BYTES:
            raise _damaged(layout.at, "layers take more weights than the file has")
        values = np.frombuffer(self._stored(layout, size), dtype)
        return values.astype(dtype.newbyteorder("="), copy=False).reshape(shape)

    def _stored(self, layout: _Message, size: int) -> Any:
        data = layout.data
        if len(data) >= 18 and data[0] == 3 and data[1] == 1:  # contiguous
            at, held = struct.unpack_from("<QQ", data, 2)
            if held == size:
                return b"" if size == 0 else self._take(at, size)
        elif (
            len(data) >= 4 + size
            and data[:2] == b"\3\0"  # compact
            and int.from_bytes(data[2:4], "little") == size
        ):
            return data[4 : 4 + size]
        raise _damaged(layout.at, "an array in pieces, or of another size than its shape says")


def _shape_of(data: bytes, at: int) -> tuple[int, ...]:
    """Return the shape that a message about space tells."""
    if len(data) < 4 or data[0] not in (1, 2) or data[1] > 32:
        raise _damaged(at, "a shape of another version")
    start = 8 if data[0] == 1 else 4
    if data[0] == 2 and data[3] == 2:
        raise _damaged(at, "an array without a shape")
    if len(data) < start + 8 * data[1]:
        raise _damaged(at, "a shape cut short")
    return struct.unpack_from(f"<{data[1]}Q", data, start)


def _dtype_of(data: bytes) -> DType:
    """Return the dtype that a message about datatypes tells.

    Raises
    ------
    TypeError
        Anything but little-endian floating-point numbers.
    """
    if len(data) >= 20 and data[0] & 15 == 1 and not data[1] & 0x41:
        size = int.from_bytes(data[4:8], "little")
        found = _FLOATS.get((size, *struct.unpack_from("<HHBBBBI", data, 8)))
        if found is not None:
            return np.dtype(found)
    raise TypeError("numbers that are not little-endian float32 or float64")
