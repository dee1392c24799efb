"""Weights of an ONNX model in files beside it: only regular files inside its own folder."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from fastlayer.errors import Damaged

if TYPE_CHECKING:
    from io import FileIO


class External:
    """Reads stretches of the files in a folder; None is a model without a folder."""

    def __init__(self, folder: str | None) -> None:
        self._folder = None if folder is None else os.path.realpath(folder)
        self._read: dict[tuple[str, int, int], bytearray] = {}
        self._left: dict[str, int] = {}

    @property
    def nbytes(self) -> int:
        """Bytes read so far."""
        return sum(map(len, self._read.values()))

    def read(self, key: str, entries: dict[str, str], size: int) -> bytearray:
        """Return the `size` bytes that a tensor's entries point to.

        Raises
        ------
        Damaged
            They point out of the folder or the file, or nowhere.
        """
        location = entries.get("location", "")
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", str(size)))
        except ValueError:
            raise Damaged(key, "its offset or length in the external file is no number") from None
        if length != size or offset < 0:
            raise Damaged(
                key, f"has {length} bytes at {offset} of {location!r}, and its shape takes {size}"
            )
        path = self._inside(key, location)
        place = path, offset, length
        if place not in self._read:
            self._read[place] = self._fetch(key, path, location, offset, length)
        return self._read[place]

    def _inside(self, key: str, location: str) -> str:
        if self._folder is None:
            raise Damaged(
                key,
                f"is in the file {location!r}, and a model in memory has no folder; call "
                "onnx.load_external_data_for_model first, or give the path of the model",
            )
        path = os.path.normpath(os.path.join(self._folder, location))
        # No symbolic link on the way, none out of the folder, no name with a trick in it.
        if (
            not location
            or "\0" in location
            or path == self._folder
            or os.path.commonpath([self._folder, path]) != self._folder
        ):
            raise Damaged(key, f"points to {location!r}, out of the folder of the model")
        if os.path.realpath(path) != path:
            raise Damaged(
                key,
                f"is in {location!r}, which is or goes through a symbolic link; put the file "
                "itself beside the model",
            )
        return path

    def _fetch(self, key: str, path: str, location: str, offset: int, length: int) -> bytearray:
        flags = os.O_RDONLY
        for name in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):
            flags |= getattr(os, name, 0)
        try:
            number = os.open(path, flags)
        except OSError as error:
            raise Damaged(key, f"is in {location!r}: {error.strerror or error}") from error
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(number)
            raise Damaged(
                key, f"is in {location!r}, which is not a regular file with one name; copy it"
            )
        with open(number, "rb", buffering=0) as file:
            if offset + length > status.st_size:
                raise Damaged(
                    key,
                    f"is at bytes {offset} to {offset + length} of {location!r}, which has "
                    f"{status.st_size}",
                )
            left = self._left.setdefault(path, status.st_size)
            if length > left:
                raise Damaged(key, f"overlaps other tensors in {location!r}")
            self._left[path] = left - length
            return _exactly(file, offset, length, key)


def _exactly(file: FileIO, offset: int, length: int, key: str) -> bytearray:
    file.seek(offset)
    data = bytearray(length)
    view, at = memoryview(data), 0
    while at < length:
        step = file.readinto(view[at:])
        if not step:
            raise Damaged(key, "its external file became shorter while it was read")
        at += step
    return data
