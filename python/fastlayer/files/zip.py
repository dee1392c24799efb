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
from typing import Any, BinaryIO, NamedTuple

from fastlayer.errors import Damaged
from fastlayer.files.model_file import Section
from fastlayer.files.reading import read_bytes, require, size_of

MAGIC = b"PK\x03\x04"
_KEY = "archive"
# Twenty thousand members; an entry of 46 bytes takes ten times as much in memory.
_LARGEST_DIRECTORY = 1 << 20
_LONGEST_NAME = 1024  # names of folders are put in front of others
_LOCAL = struct.Struct("<4s5HLLLHH")
# What zipfile raises for damaged directories; an OSError is a seek to an impossible place, or in
# `_Bounded.failure`.
_DAMAGE = (zipfile.BadZipFile, ValueError, OSError, OverflowError, RuntimeError, struct.error)
_UTF8 = 0x800
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # in three ways: the bytes, with strong keys, the directory
_PATCH = 0x20  # of another file


class Member(NamedTuple):
    """A member of an open archive, which lies there as it is."""

    file: BinaryIO
    name: str
    start: int
    size: int
    checksum: int

    def opened(self) -> BinaryIO:
        """Check its checksum, and return it as a file of its own."""
        section = Section(self.file, self.start, self.size)
        checksum = 0
        while piece := section.read(1 << 20):
            checksum = zlib.crc32(piece, checksum)
        require(checksum == self.checksum, self.name, "is damaged: its checksum is wrong")
        return section.as_file()

    def head(self, size: int) -> bytes:
        """Read the first bytes, without the checksum."""
        return read_bytes(self.file, self.start, min(size, self.size), self.name)

    def read(self) -> bytes:
        """Read it all and check its checksum."""
        data = self.head(self.size)
        require(zlib.crc32(data) == self.checksum, self.name, "is damaged: its checksum is wrong")
        return data


class _Bounded:
    """A file of which `zipfile` reads no more at a time than a directory may have."""

    failure: OSError | None = None  # of the disk, which `zipfile` takes for no archive

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(_LARGEST_DIRECTORY + 1 if size < 0 else min(size, 1 << 21))
        except OSError as error:
            self.failure = error
            raise
        too_long = f"its directory has more than {_LARGEST_DIRECTORY} bytes"
        require(len(data) <= _LARGEST_DIRECTORY, _KEY, too_long)
        return data


def members(file: BinaryIO, unread: str | None = None) -> dict[str, Member]:
    """Return the members of an archive by name, in the order in which they lie in the file.

    What lies in a folder of the name `unread` may be compressed and is left out.
    """
    file.seek(0)
    require(file.read(4) == MAGIC, _KEY, "is not a zip archive")
    bounded: Any = _Bounded(file)
    try:
        directory = zipfile.ZipFile(bounded)
    except Damaged:
        raise
    except _DAMAGE as error:
        if bounded.failure is not None:
            raise bounded.failure from None
        raise Damaged(_KEY, str(error) or type(error).__name__) from error
    end, size = 0, size_of(file)
    found: dict[str, Member] = {}
    for info in sorted(directory.infolist(), key=lambda i: i.header_offset):
        name, at = info.filename, info.header_offset
        aside = unread in name.split("/")[:-1]
        _check(info, aside)
        require(name not in found, name, "is there twice")
        inside = end <= at <= size - _LOCAL.size
        require(inside, name, "overlaps another member, or lies outside of the file")
        start = _start(file, info)
        end = start + info.compress_size
        inside = end <= min(size, directory.start_dir)
        require(inside, name, "claims more bytes than the file has")
        found[name] = Member(file, name, start, info.file_size, info.CRC)
    return {name: m for name, m in found.items() if unread not in name.split("/")[:-1]}


def _start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin: behind its own header."""
    file.seek(info.header_offset)
    magic, _, flags, *_, name_size, extra_size = _LOCAL.unpack(file.read(_LOCAL.size))
    name = info.orig_filename.encode("utf-8" if flags & _UTF8 else "cp437", "replace")
    same = magic == MAGIC and file.read(name_size) == name
    require(same, info.filename, "its header differs from the directory")
    return info.header_offset + _LOCAL.size + int(name_size + extra_size)


def _check(info: zipfile.ZipInfo, aside: bool) -> None:
    name = info.filename
    short = len(name) <= _LONGEST_NAME
    require(short, _KEY, f"has a member with a name of {len(name)} characters")
    parts = name.replace("\\", "/").split("/")
    leads = not parts[0] or not parts[-1] or ".." in parts or re.match("[A-Za-z]:", name)
    require(not leads, name, "is no name for a member: a path that leads elsewhere, or a folder")
    require(not stat.S_ISLNK(info.external_attr >> 16), name, "is a symbolic link")
    require(not info.flag_bits & _ENCRYPTED, name, "is encrypted")
    require(not info.flag_bits & _PATCH, name, "is a patch of another file")
    if aside:
        return
    stored = info.compress_type == zipfile.ZIP_STORED
    require(stored, name, "is compressed; only stored members are read")
    same = info.compress_size == info.file_size
    require(same, name, "is stored, but its two sizes differ")
