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
_LONGEST_NAME = 4096
LONGEST_TEXT = 2 << 20
_SHARED_BYTES = 32 << 20
# Bytes of structures and texts that are gone through, each time anew where objects share them: the
# largest model takes half of it. One look-up costs as much as some bytes, one name as much as its
# characters take in memory, and one text of a list as comparing it later does.
_MOST_WORK = 24 << 20
_LOOK_UP, _CHARACTER, _TEXT = 32, 4, 64
_SPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE = 0x01, 0x03, 0x08, 0x0C
_CONTINUATION, _SYMBOLS, _ATTRIBUTES = 0x10, 0x11, 0x15
_REFUSED = {
    0x02: "a group of the newer kind",
    0x06: "a group of the newer kind",
    0x07: "data in another file",
    0x0B: "compressed data",
    _ATTRIBUTES: "attributes of the newer kind",
}
_KNOWN = {_SPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE, _SYMBOLS, *_REFUSED}
_SHARED = 0x02  # a flag of messages
# Datatype messages of IEEE numbers, without their version and flags: the layout of bits.
_FLOATS = {
    (4, 0, 32, 23, 8, 0, 23, 127): "f4",
    (8, 0, 64, 52, 11, 0, 52, 1023): "f8",
    (2, 0, 16, 10, 5, 0, 10, 15): "f2",
}
_BIG_ENDIAN, _OTHER_ORDER = 0x01, 0x40  # flags of floats


class _Message(NamedTuple):
    """One message of an object header."""

    kind: int
    at: int
    data: bytes


def _damaged(at: int, why: str) -> Damaged:
    return Damaged(f"byte {at} of the HDF5 data", why)


def _require(met: bool, at: int, why: str) -> None:
    if not met:
        raise _damaged(at, why)


class Hdf5:
    """HDF5 data of `size` bytes; objects are known by the address of their header.

    ``read(at, size)`` returns bytes of it, as any buffer.
    """

    def __init__(self, read: Callable[[int, int], Any], size: int) -> None:
        self._source, self._size = read, size
        self._work = self._array_bytes = 0
        # By address, as bytes: numbers of the file as keys could be such that they collide.
        self._groups: dict[bytes, dict[str, int]] = {}
        self._held: tuple[int, dict[bytes, _Message], Damaged | None] = (-1, {}, None)
        self._heap: tuple[int, dict[int, tuple[int, int]]] = (-1, {})  # the last one of long texts
        magic, version, widths, base, end, self.root = self._unpack("<8sB4x2s9xQ8xQ16xQ", 0)
        _require(magic == MAGIC, 0, "is not HDF5")
        why = f"version {version} of the format; fastlayer reads what h5py writes by default, 0"
        _require((version, widths, base) == (0, b"\x08\x08", 0), 8, why)
        _require(end <= size, 40, f"the data are cut short: {size} bytes of {end}")

    def _take(self, at: int, size: int) -> Any:
        """Return bytes as the source has them."""
        if at + size > self._size:
            raise _damaged(at, f"needs {size} bytes, and the data end at {self._size}")
        return self._source(at, size)

    def charge(self, work: int, at: int) -> None:
        """Count work in bytes; what no model takes is refused."""
        self._work += work
        if self._work > _MOST_WORK:
            raise _damaged(at, "more objects, messages and names to go through than any model has")

    def _read(self, at: int, size: int) -> bytes:
        self.charge(size + _LOOK_UP, at)
        return bytes(self._take(at, size))

    def _unpack(self, form: str, at: int) -> tuple[Any, ...]:
        return struct.unpack(form, self._read(at, struct.calcsize(form)))

    def _messages(self, address: int) -> list[_Message]:
        """Return the messages of an object."""
        version, count, size = self._unpack("<BxH4xI", address)
        _require(version == 1, address, f"an object header of version {version}, expected 1")
        # Addresses as bytes, see _groups.
        blocks, seen = [(address + 16, size)], {struct.pack("<Q", address + 16)}
        messages: list[_Message] = []
        many = 0
        for start, length in blocks:
            _require(length <= LONGEST_TEXT, start, f"an object header of {length} bytes")
            data, at = self._read(start, length), 0
            while at + 8 <= length and many < count:
                many += 1
                kind, held, flags = struct.unpack_from("<HHB", data, at)
                body = data[at + 8 : at + 8 + held]
                if len(body) != held:
                    raise _damaged(start + at, "a message longer than its block")
                if flags & _SHARED and kind in (_SPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE):
                    raise _damaged(start + at, "a message that is shared with others")
                if kind == _CONTINUATION and held >= 16:
                    fresh = body[:8] not in seen
                    _require(fresh, start + at, "an object header that goes round in a circle")
                    seen.add(body[:8])
                    blocks.append(struct.unpack_from("<QQ", body))
                if kind in _KNOWN:
                    messages.append(_Message(kind, start + at + 8, body))
                at += 8 + held
            self.charge(_LOOK_UP * many, start)
        return messages

    def entries(self, address: int) -> dict[str, int]:
        """Return what a group holds: names, and the addresses of their objects."""
        key = struct.pack("<Q", address)
        if key in self._groups:
            return self._groups[key]
        found = self._plain(address).get(_SYMBOLS)
        if found is None or len(found.data) < 16:
            raise _damaged(address, "is not a group")
        tree, heap = struct.unpack_from("<QQ", found.data)
        magic, size, start = self._unpack("<4s4xQ8xQ", heap)
        _require(magic == b"HEAP", heap, "is not a heap of names")
        names = self._read(start, size)
        entries: dict[str, int] = {}
        for node in self._leaves(tree):
            magic, count = self._unpack("<4s2xH", node)
            _require(magic == b"SNOD", node, "is not a symbol node")
            symbols = self._read(node + 8, 40 * count)
            for offset, header, cache in struct.iter_unpack("<QQI20x", symbols):
                end = names.find(b"\0", offset, offset + _LONGEST_NAME)
                if cache == 2 or end <= offset or header == _NOWHERE:
                    why = "a link to somewhere else, or a name that is empty or does not end"
                    raise _damaged(node, why)
                self.charge(_LOOK_UP + _CHARACTER * (end - offset), node)
                name = names[offset:end].decode("utf-8", "replace")
                if name in entries or len(entries) >= _MOST_ENTRIES:
                    raise _damaged(node, f"{name!r:.60} is there twice, or among too many")
                entries[name] = header
        self._groups[key] = entries
        return entries

    def _leaves(self, address: int) -> list[int]:
        """Return the addresses of the symbol nodes under a node of a B-tree."""
        leaves: list[int] = []
        waiting, seen = [address], {struct.pack("<Q", address)}  # as bytes, see _groups
        while waiting:
            at = waiting.pop()
            magic, level, used = self._unpack("<5sBH16x", at)
            known = magic == b"TREE\0" and len(seen) <= _MOST_ENTRIES
            _require(known, at, "is not a tree of names")
            children = [c for (c,) in struct.iter_unpack("<8x8s", self._read(at + 24, 16 * used))]
            fresh = seen.isdisjoint(children) and len(set(children)) == used
            _require(fresh, at, "a tree that goes round in a circle")
            seen.update(children)
            below = struct.unpack(f"<{used}Q", b"".join(children))
            (waiting if level else leaves).extend(reversed(below) if level else below)
        return leaves

    def _plain(self, address: int) -> dict[int, _Message]:
        """Return the first message of each kind of an object that holds nothing refused."""
        messages = self._messages(address)
        _refuse(messages)
        return {m.kind: m for m in reversed(messages)}

    def find(self, start: int | None, path: str) -> int | None:
        """Return the address of an object below a group, None where there is none, or no group."""
        at = start
        for name in path.split("/"):
            at = None if at is None else self.entries(at).get(name)
        return at

    def texts(self, address: int, name: str) -> list[str] | None:
        """Return an attribute of text as a list, None where there is none of this name."""
        if self._held[0] != address:
            self._held = address, *self._attributes(address)
        _, named, error = self._held
        found = named.get(name.encode())
        if found is None and error is not None:
            raise error
        return None if found is None else self._texts(found, name)

    def _attributes(self, address: int) -> tuple[dict[bytes, _Message], Damaged | None]:
        """Return the attributes of an object up to the first that can't be read, and why that is."""
        named: dict[bytes, _Message] = {}
        try:
            for message in self._messages(address):
                if message.kind in (_ATTRIBUTE, _ATTRIBUTES):
                    _refuse([message])
                    named.setdefault(_parts_of(message)[0].rstrip(b"\0"), message)
        except Damaged as error:
            return named, error
        return named, None

    def _texts(self, message: _Message, name: str) -> list[str]:
        at, (_, kind, space, rest) = message.at, _parts_of(message)
        count = prod(_shape_of(space, at))
        if count == 0:
            return []
        size = int.from_bytes(kind[4:8], "little")
        fits = len(kind) >= 8 and count <= _MOST_ENTRIES and size * count <= len(rest)
        _require(fits, at, f"the attribute {name!r} is longer than its message")
        self.charge(_TEXT * count, at)
        cells = [rest[i * size : (i + 1) * size] for i in range(count)]
        if kind[0] & 15 == 3 and kind[1] & 15 <= 2:
            return [_unpadded(c, kind[1] & 15).decode("utf-8", "replace") for c in cells]
        text = kind[0] & 15 == 9 and kind[1] & 15 == 1 and size == 16
        _require(text, at, f"the attribute {name!r} is not text")
        places = [struct.unpack("<IQI", c) for c in cells]
        short = sum(length for length, _, _ in places) <= LONGEST_TEXT
        _require(short, at, f"the attribute {name!r} is longer than any model's")
        return [self._long_text(at, *place) for place in places]

    def _long_text(self, at: int, length: int, address: int, wanted: int) -> str:
        """Return a text of variable length, from a global heap."""
        if length == 0 and address in (0, _NOWHERE):
            return ""
        if self._heap[0] != address:
            self._heap = address, self._places(address)
        _require(wanted in self._heap[1], at, "a text that is not where it should be")
        place, size = self._heap[1][wanted]
        _require(length == size, place, "a text of another length than its place")
        return _unpadded(self._read(place, length), 0).decode("utf-8", "replace")

    def _places(self, address: int) -> dict[int, tuple[int, int]]:
        """Return where a global heap has its objects, and their sizes, by their index of 16 bits."""
        magic, size = self._unpack("<4s4xQ", address)
        place, end = address + 16, address + size
        found: dict[int, tuple[int, int]] = {}
        index = -1
        while magic == b"GCOL" and place + 16 <= end <= self._size and index != 0:
            index, size = self._unpack("<H6xQ", place)
            found.setdefault(index, (place + 16, size))
            place += 16 + size + -size % 8
        return found

    def array(self, address: int) -> Array:
        """Return a dataset of floating-point numbers.

        Raises
        ------
        TypeError
            Numbers of another kind.
        Damaged
            Whatever else is wrong.
        """
        held = self._plain(address)
        complete = {_SPACE, _DATATYPE, _LAYOUT} <= held.keys()
        _require(complete, address, "is not an array")
        shape = _shape_of(held[_SPACE].data, held[_SPACE].at)
        dtype = _dtype_of(held[_DATATYPE].data)
        size = prod(shape) * dtype.itemsize
        layout = held[_LAYOUT]
        why = f"an array of shape {shape} is empty, or larger than the file"
        _require(0 < size <= self._size, layout.at, why)
        self._array_bytes += size  # layers may share weights, which takes room for each of them
        fits = self._array_bytes <= self._size + _SHARED_BYTES
        _require(fits, layout.at, "layers take more weights than the file has")
        values = np.frombuffer(self._stored(layout, size), dtype)
        return values.astype(dtype.newbyteorder("="), copy=False).reshape(shape)

    def _stored(self, layout: _Message, size: int) -> Any:
        data = layout.data
        kind, compact = data[:2], int.from_bytes(data[2:4], "little")
        if kind == b"\3\1" and len(data) >= 18:  # contiguous
            at, held = struct.unpack_from("<QQ", data, 2)
            if held == size:
                self.charge(_LOOK_UP, at)
                return self._take(at, size)
        elif kind == b"\3\0" and compact == size and len(data) >= 4 + size:
            return data[4 : 4 + size]
        raise _damaged(layout.at, "an array in pieces, or of another size than its shape says")


def _unpadded(cell: bytes, padding: int) -> bytes:
    """Return a text of fixed length without what fills it up: from the first zero on, zeros, spaces."""
    if padding == 0:
        return cell.partition(b"\0")[0]
    return cell.rstrip(b" " if padding == 2 else b"\0")


def _refuse(messages: list[_Message]) -> None:
    for kind, at, _ in messages:
        if kind in _REFUSED:
            raise _damaged(at, f"holds {_REFUSED[kind]}; fastlayer reads none")


def _parts_of(message: _Message) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the name of an attribute, the messages about its type and space, and its value."""
    data, at = message.data, message.at
    _require(len(data) >= 9, at, "an attribute cut short")
    version, flags, *sizes = struct.unpack_from("<BBHHH", data)
    known = version == 1 or (version in (2, 3) and not flags)
    _require(known, at, f"an attribute of version {version}")
    start, parts = (9 if version == 3 else 8), []
    for size in sizes:
        parts.append(data[start : start + size])
        start += size + (-size % 8 if version == 1 else 0)
    called, kind, space = parts
    return called, kind, space, data[start:]


def _shape_of(data: bytes, at: int) -> tuple[int, ...]:
    """Return the shape that a message about space tells."""
    known = len(data) >= 4 and data[0] in (1, 2) and data[1] <= 32
    _require(known, at, "a shape of another version")
    _require(data[0] == 1 or data[3] != 2, at, "an array without a shape")
    start = 8 if data[0] == 1 else 4
    _require(len(data) >= start + 8 * data[1], at, "a shape cut short")
    return struct.unpack_from(f"<{data[1]}Q", data, start)


def _dtype_of(data: bytes) -> DType:
    """Return the dtype that a message about datatypes tells.

    Raises
    ------
    TypeError
        Anything but floating-point numbers in one of the two byte orders.
    """
    if len(data) >= 20 and data[0] & 15 == 1 and not data[1] & _OTHER_ORDER:
        size = int.from_bytes(data[4:8], "little")
        found = _FLOATS.get((size, *struct.unpack_from("<HHBBBBI", data, 8)))
        if found is not None:
            return np.dtype((">" if data[1] & _BIG_ENDIAN else "<") + found)
    raise TypeError("numbers that are not float32 or float64")
