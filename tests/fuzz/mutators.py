"""Changes to model files that leave their containers whole, so that what lies inside is reached.

A byte changed at random in an archive is a wrong checksum, and one in a header another length; no reader
looks any further. Here a file is taken apart, one piece of it is changed, and lengths and checksums are
written anew. Now and then bytes are changed as they are, so that the containers are tried as well.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import Any

from model_files import members, places, replaced, with_header, zipped

# What NumPy's and Python's own readers say of damaged files.
_DAMAGE = (ValueError, IndexError, KeyError, OverflowError, struct.error, zlib.error, Warning)
Raw = Callable[[bytes], bytes]  # changes bytes that have no structure
Mutate = Callable[[bytes, Random, Raw], bytes]

NUMBERS = [
    *(0, 1, -1, 2, 3, 4, 7, 8, 64, 255, 256, 65536, 1 << 20, 2**31 - 1, 2**31, 2**32, 2**53, 2**63),
    *(-(2**63), 2**64, 10**30, 0.0, -0.0, 0.5, 1e-3, 1e-320, 1e38, 1e39, 1e308),
    *(float("inf"), float("-inf"), float("nan")),
]
TEXTS = ["", "x", "relu", "Infinity"]
VALUES = [*NUMBERS, *TEXTS, None, True, False, [], {}, [0], [[]], [1, 2], {"": 0}]


def plain(data: bytes, rng: Random, raw: Raw) -> bytes:
    """Bytes that have no structure."""
    return raw(data)


def at_random(data: bytes, rng: Random) -> bytes:
    """What libFuzzer does with bytes, for where it is not there."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randint(0, len(changed))
        size = rng.choice((1, 1, 2, 4, 8, 16))
        start = rng.randint(0, len(changed))
        pieces = (
            bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))]),
            rng.randbytes(size),
            bytes(changed[start : start + size]),
            b"",
        )
        changed[at : at + rng.choice((0, 1, size))] = rng.choice(pieces)
    return bytes(changed)


# ----------------------------------------------------------------------------- JSON


def document(data: bytes, rng: Random, raw: Raw) -> bytes:
    """JSON, and JSON in texts of it."""
    if rng.random() < 0.1:
        return raw(data)
    try:
        value = json.loads(data)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            value = _changed(value, rng, raw)
        return json.dumps(value).encode()
    except (ValueError, RecursionError):  # none, or too deep
        return raw(data)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _changed(value: Any, rng: Random, raw: Raw) -> Any:
    found = list(places(value))
    path = rng.choice(found)
    old = _at(value, path)
    if isinstance(old, str) and old[:1] == "{":
        return replaced(value, path, document(old.encode(), rng, raw).decode("utf-8", "replace"))
    if isinstance(old, dict | list) and old and rng.random() < 0.7:
        return replaced(value, path, _reordered(old, rng))
    kind = rng.randrange(4)
    if kind == 0:
        new = _at(value, rng.choice(found))
    elif kind == 1 and isinstance(old, int | float):
        new = old + rng.choice((1, -1, 10)) if rng.random() < 0.5 else -old
    elif kind == 1 and isinstance(old, str):
        new = raw(old.encode("utf-8", "replace")).decode("utf-8", "replace")
    else:
        new = rng.choice(VALUES)
    return replaced(value, path, new)


def _reordered(old: Any, rng: Random) -> Any:
    """A list or object without one of its items, with one twice, with two exchanged or renamed."""
    items = list(old.items() if isinstance(old, dict) else enumerate(old))
    at, other = rng.randrange(len(items)), rng.randrange(len(items))
    kind = rng.randrange(4)
    if kind == 0:
        del items[at]
    elif kind == 1:
        items.insert(at, items[other])
    elif kind == 2:
        items[at], items[other] = items[other], items[at]
    else:
        items[at] = (items[other][0], items[at][1])
    if isinstance(old, dict):
        return dict(items)
    return [value for _, value in items]


# ----------------------------------------------------------------------------- pickles


def operations(data: bytes) -> list[bytes]:
    """The operations of a pickle, as far as it is one."""
    starts = []
    with suppress(*_DAMAGE):
        for _, _, at in pickletools.genops(data):
            starts.append(at)
    return [data[a:b] for a, b in pairwise([*starts, len(data)])]


_CODES = b"N\x88\x89()]}t\x85\x86\x87aesuR\x81bQ0.\x8f\x90\x91\x93\x94"
_SMALL = [b"K\0", b"K\1", b"K\xff", b"J\xff\xff\xff\xff", b"M\xff\xff", b"h\0", b"h\1", b"q\0", b"X\0\0\0\0", b"\x8a\0", b"\x8a\x08" + b"\xff" * 7 + b"\x7f"]  # fmt: skip


def pickled(data: bytes, rng: Random, raw: Raw) -> bytes:
    """One pickle, by its operations."""
    parts = operations(data)
    if len(parts) < 2 or rng.random() < 0.1:
        return raw(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(6)
        if kind == 0 and len(parts) > 1:
            del parts[at]
        elif kind == 1:
            parts.insert(at, parts[other])
        elif kind == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3:
            parts[at] = rng.choice([*_SMALL, bytes([rng.choice(_CODES)])])
        elif kind == 4:
            parts.insert(at, rng.choice([*_SMALL, bytes([rng.choice(_CODES)])]))
        else:
            parts[at] = parts[at][:1] + raw(parts[at][1:])
    return b"".join(parts)


def legacy(data: bytes, rng: Random, raw: Raw) -> bytes:
    """The five pickles of an old file of PyTorch; what lies behind them is changed as it is."""
    if rng.random() < 0.1:
        return raw(data)
    pieces = []
    while len(pieces) < 5 and (size := _until_stop(data)):
        pieces.append(data[:size])
        data = data[size:]
    at = rng.randrange(len(pieces) + 1)
    if at == len(pieces):
        data = raw(data)
    else:
        pieces[at] = pickled(pieces[at], rng, raw)
    return b"".join([*pieces, data])


def _until_stop(data: bytes) -> int:
    """The bytes of the pickle at the start, none where there is none."""
    try:
        return max(at for _, _, at in pickletools.genops(data)) + 1
    except _DAMAGE:
        return 0


# ----------------------------------------------------------------------------- containers


def safetensors(data: bytes, rng: Random, raw: Raw) -> bytes:
    """The header or the tensors, and the header's length as it then is."""
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8 or rng.random() < 0.1:
        return raw(data)
    header, rest = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.1:
        return with_header(header, raw(rest))
    return with_header(document(header, rng, raw), rest)


def npy(data: bytes, rng: Random, raw: Raw) -> bytes:
    """The header of a .npy file, with its length as it then is, or the numbers behind it."""
    size = int.from_bytes(data[8:10], "little")
    head, rest = data[10 : 10 + size], data[10 + size :]
    if rest[:1] == b"{" and rng.random() < 0.9:
        rest = document(rest, rng, raw)
        head = re.sub(rb"\(\d+,\)", b"(%d,)" % len(rest), head)
    elif rng.random() < 0.5:
        rest = raw(rest)
    else:
        numbers = list(re.finditer(rb"\d+", head))
        if numbers and rng.random() < 0.6:
            start, end = rng.choice(numbers).span()
            head = head[:start] + str(rng.choice(NUMBERS)).encode() + head[end:]
        else:
            head = raw(head)
    return data[:8] + struct.pack("<H", len(head) & 0xFFFF) + head + rest


def inside(name: str) -> Mutate:
    """What a member of an archive holds, by its name."""
    suffixes = {
        ".npy": npy, ".json": document, "data": document, ".pkl": pickled, ".h5": hdf5,
        ".pth": policy,
    }  # fmt: skip
    return next((m for end, m in suffixes.items() if name.endswith(end)), plain)


def policy(data: bytes, rng: Random, raw: Raw) -> bytes:
    """A file of PyTorch of either format."""
    return (archive if data[:2] == b"PK" else legacy)(data, rng, raw)


def archive(data: bytes, rng: Random, raw: Raw) -> bytes:
    """One member of a zip archive; all checksums are right again."""
    if rng.random() < 0.1:
        return raw(data)
    try:
        content = members(data)
    except (*_DAMAGE, zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError):
        return raw(data)
    if not content:
        return raw(data)
    names = list(content)
    # What describes something is tried more often than what holds weights.
    weights = [1 if inside(name) is plain else 8 for name in names]
    (name,) = rng.choices(names, weights)
    kind = rng.randrange(20)
    if kind == 0:
        del content[name]
    elif kind == 1:
        content[raw(name.encode()).decode("utf-8", "replace") or "x"] = content.pop(name)
    elif kind == 2:
        content[rng.choice(names)] = content[name]
    else:
        content[name] = inside(name)(content[name], rng, raw)
    try:
        return zipped(content)
    except (*_DAMAGE, zipfile.LargeZipFile):  # a name that no archive has, or twice
        return raw(data)


# ----------------------------------------------------------------------------- HDF5


def hdf5(data: bytes, rng: Random, raw: Raw) -> bytes:
    """Words of eight bytes, in which HDF5 keeps addresses and sizes, pieces of it, and texts."""
    changed = bytearray(data)
    kind = rng.randrange(8)
    if kind == 0 or len(changed) < 64:
        return raw(data)
    if kind == 1:
        text = re.search(rb'\{"(?:class_name|config)".*\}', data, re.DOTALL)
        if text is not None:
            new = document(text[0], rng, raw)
            if len(new) <= len(text[0]):  # padded, so that all addresses stay right
                changed[text.start() : text.end()] = new.ljust(len(text[0]))
                return bytes(changed)
    # Where something stands: files are full of zeros.
    there = [i for i in range(0, len(changed) - 8, 8) if any(changed[i : i + 8])]
    at = rng.choice(there or [0])
    if kind < 4:
        far = (0, 1, 8, 96, len(changed), 2**32, 2**63, 2**64 - 1)
        new = rng.choice((*far, rng.choice(there or [0])))
        changed[at : at + 8] = struct.pack("<Q", new)
    elif kind == 4:
        other = rng.choice(there or [0])
        size = rng.choice((8, 16, 24, 40, 64))
        changed[at : at + size] = changed[other : other + size]
    else:
        at += rng.randrange(8)
        changed[at] = rng.choice((changed[at] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 255))
    return bytes(changed)


# ----------------------------------------------------------------------------- protobuf

Field = tuple[int, int, Any]  # number, kind of wire, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _number(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def fields(data: bytes) -> list[Field]:
    """The fields of a message.

    Raises
    ------
    ValueError, IndexError
        It is none.
    """
    found, at = [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = data[at : at + size], at + size
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {wire}")
        if not number or at > len(data):
            raise ValueError("cut short")
        found.append((number, wire, value))
    return found


def encoded(found: list[Field]) -> bytes:
    """The message that has these fields."""
    out = io.BytesIO()
    for number, wire, value in found:
        out.write(_number(number << 3 | wire))
        if wire == 0:
            out.write(_number(value))
        else:
            out.write((_number(len(value)) if wire == 2 else b"") + value)
    return out.getvalue()


def message(data: bytes, rng: Random, raw: Raw) -> bytes:
    """A message of protobuf: one field, at any depth; lengths are right again."""
    try:
        found = fields(data)
    except (ValueError, IndexError):
        return raw(data)
    if not found or rng.random() < 0.03:
        return raw(data)
    at, other = rng.randrange(len(found)), rng.randrange(len(found))
    number, wire, value = found[at]
    if wire == 2 and len(value) > 1 and rng.random() < 0.75:
        found[at] = (number, wire, message(value, rng, raw))
        return encoded(found)
    kind = rng.randrange(7)
    if kind == 0:
        del found[at]
    elif kind == 1:
        found.insert(at, found[other])
    elif kind == 2:
        found[at], found[other] = found[other], found[at]
    elif kind == 3:
        found[at] = (rng.choice((rng.randint(1, 20), found[other][0])), wire, value)
    elif kind == 4:
        same = [f for f in found if f[1] == wire]
        found[at] = (number, wire, rng.choice(same)[2])
    elif wire == 0:
        near = (value + 1, value - 1, rng.randrange(20), *(n for n in NUMBERS if type(n) is int))
        found[at] = (number, wire, rng.choice(near))
    elif wire == 2:
        found[at] = (number, wire, raw(value))
    else:
        floats = [n for n in NUMBERS if not 1e38 < abs(n) < float("inf")]
        form = "<d" if wire == 1 else "<f"
        found[at] = (number, wire, struct.pack(form, rng.choice(floats)))
    return encoded(found)
