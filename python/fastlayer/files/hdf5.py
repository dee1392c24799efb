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
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.files.hdf5_messages import Message, damaged, dtype_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array

MAGIC = b"\x89HDF\r\n\x1a\n"
_NOWHERE = (1 << 64) - 1
# Far above what any model needs; more than that is a hostile file.
_MOST_ENTRIES = 1 << 16
_MOST_READS = 200_000
_LONGEST_NAME = 4096
LONGEST_TEXT = 2 << 20
_SHARED_BYTES = 32 << 20
_SPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE = 0x01, 0x03, 0x08, 0x0C
_CONTINUATION, _SYMBOLS = 0x10, 0x11
_REFUSED = {
    0x02: "a group of the newer kind",
    0x06: "a group of the newer kind",
    0x07: "data in another file",
    0x0B: "compressed data",
    0x15: "attributes of the newer kind",
}
_SHARED = 0x02  # a flag of messages


class Hdf5:
    """HDF5 data of `size` bytes; objects are known by the address of their header.

    ``read(at, size)`` returns bytes of it, as any buffer.
    """

    def __init__(self, read: Callable[[int, int], Any], size: int) -> None:
        self._source, self._size = read, size
        self._reads = 0
        self._array_bytes = 0
        head = self._read(0, 96)
        if head[:8] != MAGIC:
            raise damaged(0, "is not HDF5")
        if head[8] != 0 or head[13:15] != b"\x08\x08" or self._u64(head, 24) != 0:
            raise damaged(
                8,
                f"version {head[8]} of the format; fastlayer reads what h5py writes by default, 0",
            )
        if self._u64(head, 40) > size:
            raise damaged(40, f"the data are cut short: {size} bytes of {self._u64(head, 40)}")
        self.root = self._u64(head, 64)
        self._groups: dict[int, dict[str, int]] = {}

    def _take(self, at: int, size: int) -> Any:
        if at < 0 or size < 0 or at + size > self._size:
            raise damaged(at, f"needs {size} bytes, and the data end at {self._size}")
        self._reads += 1
        if self._reads > _MOST_READS:
            raise damaged(at, "more objects than any model has")
        return self._source(at, size)

    def _read(self, at: int, size: int) -> bytes:
        return bytes(self._take(at, size))

    @staticmethod
    def _u64(data: bytes, at: int) -> int:
        return int.from_bytes(data[at : at + 8], "little")

    def _messages(self, address: int) -> list[Message]:
        """Return the messages of an object."""
        version, _, count, _, size = struct.unpack("<BBHII", self._read(address, 12))
        if version != 1:
            raise damaged(address, f"an object header of version {version}, expected 1")
        blocks, seen = [(address + 16, size)], {address + 16}
        messages: list[Message] = []
        for start, length in blocks:
            if length > LONGEST_TEXT:
                raise damaged(start, f"an object header of {length} bytes")
            data, at = self._read(start, length), 0
            while at + 8 <= length and len(messages) < count:
                kind, held, flags = struct.unpack_from("<HHB", data, at)
                body = data[at + 8 : at + 8 + held]
                if len(body) != held:
                    raise damaged(start + at, "a message longer than its block")
                if flags & _SHARED and kind in (_SPACE, _DATATYPE, _LAYOUT, _ATTRIBUTE):
                    raise damaged(start + at, "a message that is shared with others")
                if kind == _CONTINUATION and held >= 16:
                    more = self._u64(body, 0), self._u64(body, 8)
                    if more[0] in seen:
                        raise damaged(start + at, "an object header that goes round in a circle")
                    seen.add(more[0])
                    blocks.append(more)
                messages.append(Message(kind, start + at + 8, body))
                at += 8 + held
        return messages

    def entries(self, address: int) -> dict[str, int]:
        """Return what a group holds: names, and the addresses of their objects."""
        if address in self._groups:
            return self._groups[address]
        messages = self._messages(address)
        self._refuse(messages)
        found = [m for m in messages if m.kind == _SYMBOLS and len(m.data) >= 16]
        if not found:
            raise damaged(address, "is not a group")
        tree, heap = self._u64(found[0].data, 0), self._u64(found[0].data, 8)
        names = self._heap(heap)
        entries: dict[str, int] = {}
        for node in self._leaves(tree):
            head = self._read(node, 8)
            if head[:4] != b"SNOD":
                raise damaged(node, "is not a symbol node")
            symbols = self._read(node + 8, 40 * int.from_bytes(head[6:8], "little"))
            for at in range(0, len(symbols), 40):
                offset, header, cache = struct.unpack_from("<QQI", symbols, at)
                end = names.find(b"\0", offset, offset + _LONGEST_NAME)
                if cache == 2 or end < 0 or header == _NOWHERE:
                    raise damaged(node, "a link to somewhere else, or a name that does not end")
                name = names[offset:end].decode("utf-8", "replace")
                if name in entries or len(entries) >= _MOST_ENTRIES:
                    raise damaged(node, f"{name!r:.60} is there twice, or among too many")
                entries[name] = header
        self._groups[address] = entries
        return entries

    def _heap(self, address: int) -> bytes:
        head = self._read(address, 32)
        if head[:4] != b"HEAP":
            raise damaged(address, "is not a heap of names")
        return self._read(self._u64(head, 24), self._u64(head, 8))

    def _leaves(self, address: int) -> list[int]:
        """Return the addresses of the symbol nodes under a node of a B-tree."""
        leaves: list[int] = []
        waiting, seen = [address], {address}
        while waiting:
            at = waiting.pop()
            head = self._read(at, 24)
            level, used = head[5], int.from_bytes(head[6:8], "little")
            if head[:5] != b"TREE\0" or len(seen) > _MOST_ENTRIES:
                raise damaged(at, "is not a tree of names")
            children = self._read(at + 24, 16 * used)
            below = [self._u64(children, 16 * i + 8) for i in range(used)]
            if seen.intersection(below) or len(set(below)) != used:
                raise damaged(at, "a tree that goes round in a circle")
            seen.update(below)
            (waiting if level else leaves).extend(reversed(below) if level else below)
        return leaves

    def _refuse(self, messages: list[Message]) -> None:
        for message in messages:
            if message.kind in _REFUSED:
                raise damaged(message.at, f"holds {_REFUSED[message.kind]}; fastlayer reads none")

    def find(self, start: int, path: str) -> int | None:
        """Return the address of an object below a group, None where there is none."""
        at = start
        for name in path.split("/"):
            found = self.entries(at).get(name)
            if found is None:
                return None
            at = found
        return at

    def texts(self, address: int, name: str) -> list[str] | None:
        """Return an attribute of text as a list, None where there is none of this name."""
        for message in self._messages(address):
            if message.kind == 0x15:
                self._refuse([message])
            if message.kind == _ATTRIBUTE:
                found = self._attribute(message, name)
                if found is not None:
                    return found
        return None

    def _attribute(self, message: Message, name: str) -> list[str] | None:
        data, at = message.data, message.at
        if len(data) < 9:
            raise damaged(at, "an attribute cut short")
        version, flags, *sizes = struct.unpack_from("<BBHHH", data)
        if version not in (1, 2, 3) or (version > 1 and flags):
            raise damaged(at, f"an attribute of version {version}")
        start, parts = (9 if version == 3 else 8), []
        for size in sizes:
            parts.append(data[start : start + size])
            start += size + (-size % 8 if version == 1 else 0)
        if parts[0].rstrip(b"\0") != name.encode():
            return None
        shape, kind, rest = shape_of(parts[2], at), parts[1], data[start:]
        count = prod(shape)
        if count == 0:
            return []
        size = int.from_bytes(kind[4:8], "little")
        if len(kind) < 8 or count > _MOST_ENTRIES or size * count > len(rest):
            raise damaged(at, f"the attribute {name!r} is longer than its message")
        cells = [rest[i * size : (i + 1) * size] for i in range(count)]
        if kind[0] & 15 == 3:
            return [c.rstrip(b"\0 ").decode("utf-8", "replace") for c in cells]
        if kind[0] & 15 == 9 and kind[1] & 15 == 1 and size == 16:
            if sum(int.from_bytes(c[:4], "little") for c in cells) > LONGEST_TEXT:
                raise damaged(at, f"the attribute {name!r} is longer than any model's")
            return [self._long_text(c, at) for c in cells]
        raise damaged(at, f"the attribute {name!r} is not text")

    def _long_text(self, cell: bytes, at: int) -> str:
        """Return a text of variable length, from a global heap."""
        length, address, wanted = struct.unpack("<IQI", cell)
        if length == 0:
            return ""
        head = self._read(address, 16)
        end = address + self._u64(head, 8)
        if head[:4] != b"GCOL" or end > self._size:
            raise damaged(at, "a text that is not where it should be")
        place = address + 16
        while place + 16 <= end:
            index, _, size = struct.unpack("<HHxxxxQ", self._read(place, 16))
            if index == wanted:
                if length > size:
                    raise damaged(place, "a text cut short")
                return self._read(place + 16, length).rstrip(b"\0").decode("utf-8", "replace")
            if index == 0:
                break
            place += 16 + size + -size % 8
        raise damaged(at, "a text that is not where it should be")

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
        held: dict[int, Message] = {m.kind: m for m in reversed(messages)}
        if not {_SPACE, _DATATYPE, _LAYOUT} <= held.keys():
            raise damaged(address, "is not an array")
        shape = shape_of(held[_SPACE].data, held[_SPACE].at)
        dtype = dtype_of(held[_DATATYPE].data)
        size = prod(shape) * dtype.itemsize
        layout = held[_LAYOUT]
        if size > self._size:
            raise damaged(layout.at, f"an array of shape {shape} is larger than the file")
        self._array_bytes += size  # layers may share weights, which takes room for each of them
        if self._array_bytes > self._size + _SHARED_BYTES:
            raise damaged(layout.at, "layers take more weights than the file has")
        values = np.frombuffer(self._stored(layout, size), dtype)
        return values.astype(dtype.newbyteorder("="), copy=False).reshape(shape)

    def _stored(self, layout: Message, size: int) -> Any:
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
        raise damaged(layout.at, "an array in pieces, or of another size than its shape says")
