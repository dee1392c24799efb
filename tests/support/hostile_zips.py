"""Hostile zip archives, made of the members of a sound file: no reader of archives takes them."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

from model_files import directory, patched, zipped


def sparse(head: bytes, size: int) -> Any:
    """A file of zeros behind `head`, which takes no room on the disk."""

    def write(path: Any) -> None:
        with open(path, "wb") as file:
            file.write(head)
            file.truncate(size)

    return write


def _renamed(name: str, data: bytes) -> bytes:
    """An archive whose last member has another name of the same length, here and there."""
    last = directory(data)[-1]
    size = struct.unpack_from("<H", data, last + 28)[0]
    new = name.ljust(size, "x").encode()
    assert len(new) == size
    old = data[last + 46 : last + 46 + size]
    return data.replace(old, new)


def _entries(data: bytes, *changes: tuple[int, int, str, int]) -> bytes:
    """Change numbers in the directory: (entry, offset in it, code, value)."""
    for entry, offset, code, value in changes:
        data = patched(data, directory(data)[entry] + offset, code, value)
    return data


def _overlapping(data: bytes) -> bytes:
    """Entries that all lead to the first member, as in a bomb without compression."""
    at = directory(data)
    first = data[at[0] : at[1]]
    end = data.rindex(b"PK\x05\x06")
    body, tail = data[: at[0]], data[end:]
    text = first * len(at)
    return body + text + patched(tail, 12, "<L", len(text))


def _quoted(data: bytes) -> bytes:
    """A member that claims what follows it, the headers of others included."""
    at = directory(data)
    size = struct.unpack_from("<L", data, at[0] + 24)[0] + 300
    return _entries(data, (0, 20, "<L", size), (0, 24, "<L", size))


def _crowded(good: dict[str, bytes]) -> bytes:
    """A directory of many megabytes."""
    return zipped({**good, **{f"{i}{'x' * 200}": b"" for i in range(12_000)}})


def zips(good: dict[str, bytes]) -> dict[str, Any]:
    """Archives made of the members of a sound file."""
    whole = zipped(good)
    linked = io.BytesIO()
    with zipfile.ZipFile(linked, "w") as archive:
        for name, data in good.items():
            archive.writestr(name, data)
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    odd = zipped({**good, "harmless/name": b"x"})
    first = next(iter(good)).encode()
    largest = max(range(len(good)), key=lambda i: len(list(good.values())[i]))
    return {
        "compressed": lambda: zipped(good, zipfile.ZIP_DEFLATED),
        "bomb": lambda: zipped({**good, "z": bytes(50 << 20)}, zipfile.ZIP_DEFLATED),
        "lzma": lambda: zipped({**good, "z": bytes(1 << 20)}, zipfile.ZIP_LZMA),
        "parent folder": lambda: _renamed("../../x", odd),
        "folder above": lambda: _renamed("a/../../b", odd),
        "backslashes": lambda: _renamed("..\\..\\x", odd),
        "absolute": lambda: _renamed("/etc/x", odd),
        "drive": lambda: _renamed("C:/x", odd),
        "folder": lambda: zipped({**good, "folder/": b""}),
        "symlink": linked.getvalue,
        "same name twice": lambda: _twice(good),
        "encrypted": lambda: _entries(whole, (largest, 8, "<H", 1)),
        "overlapping": lambda: _overlapping(whole),
        "quoted": lambda: _quoted(whole),
        "sizes differ": lambda: _entries(whole, (0, 24, "<L", 1)),
        "huge member": lambda: _entries(whole, (0, 20, "<L", 2**31), (0, 24, "<L", 2**31)),
        "zip64 sizes": lambda: _entries(whole, (0, 20, "<L", 2**32 - 1), (0, 24, "<L", 2**32 - 1)),
        "offset beyond": lambda: _entries(whole, (0, 42, "<L", 2**31)),
        "offset in a member": lambda: _entries(whole, (1, 42, "<L", 60)),
        "method": lambda: _entries(whole, (0, 10, "<H", 93)),
        "version needed": lambda: _entries(whole, (0, 6, "<H", 255)),
        "prefix": lambda: b"#!/bin/sh\n" + whole,
        "other name in front": lambda: whole.replace(first, b"?" * len(first), 1),
        "checksum": lambda: _entries(whole, (largest, 16, "<L", 1)),
        "crowded directory": lambda: _crowded(good),
        "directory size": lambda: patched(whole, len(whole) - 10, "<L", 2**32 - 2),
        "directory offset": lambda: patched(whole, len(whole) - 6, "<L", 2**32 - 2),
        "wrong magic": lambda: b"KP" + whole[2:],
        "100 MB of nothing": lambda: sparse(whole, 100 << 20),
        "100 GB of nothing": lambda: sparse(whole[:200], 100 << 30),
    }  # fmt: skip


def _twice(good: dict[str, bytes]) -> bytes:
    name = list(good)[-1]
    return _renamed(name, zipped({**good, "x" * len(name): b"other"}))
