"""Zip archives, read strictly: stored members only, nothing hidden, nothing shared.

`zipfile` parses the directory. Checked here is what it would let pass: where the bytes of a member
lie, that they are as many as its two sizes say, and no name, kind or number of members that a model
has no use for.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

from fastlayer.errors import Damaged
from fastlayer.files.reading import read_bytes, size_of

if TYPE_CHECKING:
    from typing import BinaryIO

MAGIC = b"PK\x03\x04"
_KEY = "archive"
# Twenty thousand members; an entry of 46 bytes takes ten times as much in memory.
_LARGEST_DIRECTORY = 1 << 20
_LOCAL = struct.Struct("<4s5HLLLHH")
# What zipfile raises for damaged directories; an OSError is a seek to an impossible place.
_DAMAGE = (zipfile.BadZipFile, ValueError, OSError, OverflowError, RuntimeError, struct.error)
_ENCRYPTED, _UTF8 = 0x1, 0x800


class _Bounded:
    """A file of which `zipfile` reads no more at a time than a directory may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(_LARGEST_DIRECTORY + 1 if size < 0 else min(size, 1 << 21))
        if len(data) > _LARGEST_DIRECTORY:
            raise Damaged(_KEY, f"its directory has more than {_LARGEST_DIRECTORY} bytes")
        return data


class Archive:
    """The members of an open archive by name."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        if file.read(4) != MAGIC:
            raise Damaged(_KEY, "is not a zip archive")
        self._file = file
        bounded: Any = _Bounded(file)
        try:
            directory = zipfile.ZipFile(bounded)
        except Damaged:
            raise
        except _DAMAGE as error:
            raise Damaged(_KEY, str(error) or type(error).__name__) from error
        end, size = 0, size_of(file)
        self._members: dict[str, tuple[int, int, int]] = {}  # start of the bytes, size, checksum
        for info in sorted(directory.infolist(), key=lambda i: i.header_offset):
            name = info.filename
            _check(info)
            if name in self._members:
                raise Damaged(name, "is there twice")
            if not end <= info.header_offset <= size - _LOCAL.size:
                raise Damaged(name, "overlaps another member, or lies outside of the file")
            start = self._start(info)
            end = start + info.file_size
            if end > min(size, directory.start_dir):
                raise Damaged(name, "claims more bytes than the file has")
            self._members[name] = start, info.file_size, info.CRC

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Return where the bytes of a member begin: behind its own header."""
        file = self._file
        file.seek(info.header_offset)
        magic, _, flags, *_, name_size, extra_size = _LOCAL.unpack(file.read(_LOCAL.size))
        name = file.read(name_size)
        codec = "utf-8" if flags & _UTF8 else "cp437"
        if magic != MAGIC or name != info.orig_filename.encode(codec, "replace"):
            raise Damaged(info.filename, "its header differs from the directory")
        return info.header_offset + _LOCAL.size + int(name_size + extra_size)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def names(self) -> list[str]:
        """Return the names of the members, in the order in which they lie in the file."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Return the number of bytes of a member."""
        return self._members[name][1]

    def head(self, name: str, size: int) -> bytes:
        """Read the first bytes of a member, without its checksum."""
        start, whole, _ = self._members[name]
        return read_bytes(self._file, start, min(size, whole), name)

    def read(self, name: str) -> bytes:
        """Read a member and check its checksum."""
        start, size, checksum = self._members[name]
        data = read_bytes(self._file, start, size, name)
        if zlib.crc32(data) != checksum:
            raise Damaged(name, "is damaged: its checksum is wrong")
        return data


def _check(info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or not parts[-1] or ".." in parts or re.match("[A-Za-z]:", name):
        raise Damaged(name, "is no name for a member: a path that leads elsewhere, or a folder")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise Damaged(name, "is a symbolic link")
    if info.flag_bits & _ENCRYPTED:
        raise Damaged(name, "is encrypted")
    if info.compress_type != zipfile.ZIP_STORED:
        raise Damaged(name, "is compressed; only stored members are read")
    if info.compress_size != info.file_size:
        raise Damaged(name, "is stored, but its two sizes differ")
