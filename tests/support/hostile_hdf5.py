"""HDF5 whose parts are shared, repeated or endless: what the HDF5 library never writes."""

from __future__ import annotations

import json
import struct

NOWHERE = (1 << 64) - 1
_FLOAT32 = bytes([0x11, 0x20, 31, 0]) + struct.pack("<IHHBBBBI", 4, 0, 32, 23, 8, 0, 23, 127)
_IN_A_LEAF = 60_000
EMPTY = (0, b"")  # a message that says nothing


class Writer:
    """Puts structures one behind the other; each call returns an address."""

    def __init__(self) -> None:
        self.data = bytearray(96)  # of the superblock

    def put(self, piece: bytes) -> int:
        self.data += bytes(-len(self.data) % 8)
        at = len(self.data)
        self.data += piece
        return at

    def header(self, *messages: tuple[int, bytes]) -> int:
        body = b"".join(struct.pack("<HHB3x", kind, len(m), 0) + m for kind, m in messages)
        many = min(len(messages), 0xFFFF)
        return self.put(struct.pack("<BxHII4x", 1, many, 1, len(body)) + body)

    def heap(self, names: bytes) -> int:
        return self.put(struct.pack("<4s4xQQQ", b"HEAP", len(names), NOWHERE, self.put(names)))

    def tree(self, entries: list[tuple[int, int]]) -> int:
        """The names of a group, by their places in its heap, and the addresses of its objects."""
        leaves = []
        for start in range(0, len(entries), _IN_A_LEAF):
            some = entries[start : start + _IN_A_LEAF]
            rows = b"".join(struct.pack("<QQ24x", *entry) for entry in some)
            leaves.append(self.put(b"SNOD\1\0" + struct.pack("<H", len(some)) + rows))
        rows = b"".join(struct.pack("<QQ", 0, leaf) for leaf in leaves)
        return self.put(b"TREE\0\0" + struct.pack("<HQQ", len(leaves), NOWHERE, NOWHERE) + rows)

    def group(self, items: dict[str, int], *more: tuple[int, bytes]) -> int:
        names, entries = bytearray(8), []
        for name, address in items.items():
            entries.append((len(names), address))
            names += name.encode() + b"\0"
        return self.header(symbols(self.tree(entries), self.heap(bytes(names))), *more)

    def ones(self, *shape: int) -> int:
        size = 4 * shape[0] * shape[-1] ** (len(shape) - 1)
        place = struct.pack("<BBQQ", 3, 1, self.put(struct.pack("<f", 1) * (size // 4)), size)
        return self.header((1, _space(shape)), (3, _FLOAT32), (8, place))

    def done(self, root: int) -> bytes:
        head = struct.pack("<8s5xBB5x", b"\x89HDF\r\n\x1a\n", 8, 8).ljust(24, b"\0")
        head += struct.pack("<QQQQQQ", 0, NOWHERE, len(self.data), NOWHERE, 0, root)
        self.data[: len(head)] = head
        return bytes(self.data)


def symbols(tree: int, heap: int) -> tuple[int, bytes]:
    """The message that makes a group of an object."""
    return 0x11, struct.pack("<QQ", tree, heap)


def _space(shape: tuple[int, ...]) -> bytes:
    return struct.pack("<BB6x", 1, len(shape)) + b"".join(struct.pack("<Q", n) for n in shape)


def _attribute(name: str, kind: bytes, shape: tuple[int, ...], value: bytes) -> tuple[int, bytes]:
    called, space = name.encode() + b"\0", _space(shape)
    sizes = struct.pack("<BBHHHB", 3, 0, len(called), len(kind), len(space), 0)
    return 0x0C, sizes + called + kind + space + value


def texts(name: str, values: list[str]) -> tuple[int, bytes]:
    """An attribute that is a list of texts."""
    size = max(map(len, values))
    kind = b"\x13\0\0\0" + struct.pack("<I", size)
    value = b"".join(v.encode().ljust(size, b"\0") for v in values)
    return _attribute(name, kind, (len(values),), value)


def h5(writer: Writer, config: object, weights: int) -> bytes:
    """A file of Keras 2 whose configuration is a text of variable length."""
    text = json.dumps(config).encode()
    heap = struct.pack("<HH4xQ", 1, 1, len(text)) + text + bytes(-len(text) % 8)
    at = writer.put(struct.pack("<4sB3xQ", b"GCOL", 1, 16 + len(heap)) + heap)
    kind = struct.pack("<BB2xI8x", 0x19, 1, 16)
    place = struct.pack("<IQI", len(text), at, 1)
    told = _attribute("model_config", kind, (), place)
    return writer.done(writer.group({"model_weights": weights}, told))
