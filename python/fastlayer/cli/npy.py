"""Arrays in .npy files, a few rows at a time: `Rows` reads them, `start` begins a file of them.

They are read and written rather than mapped. A mapped file that is cut short, or a disk that gets
full, kills the process without a word; here both are errors like any other.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.lib import format as npy

from fastlayer.arrays import as_real
from fastlayer.errors import Damaged
from fastlayer.files.reading import size_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

    from fastlayer.arrays import Array, DType

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Rows:
    """The array in an open .npy file; an array of one dimension is a single row.

    Raises
    ------
    Damaged
        Not a .npy file, cut short, or one of Python objects.
    TypeError
        A dtype that is not real.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        try:
            version = npy.read_magic(file)
            if version not in _HEADERS:  # the third is for fields with names beyond Latin-1
                raise ValueError(f"version {version[0]}.{version[1]}")
            self.shape, self._fortran, dtype = _HEADERS[version](file)
        except Exception as error:  # whatever the parser makes of a header that is not one
            raise Damaged("header", f"is not that of a .npy file of numbers ({error})") from error
        self.dtype: DType = dtype
        if dtype.hasobject:
            raise Damaged(
                "header", "announces pickled Python objects, which are not read; save numbers"
            )
        as_real(np.empty(0, dtype), name)
        self._start = file.tell()
        size = prod(self.shape) * dtype.itemsize
        if min(self.shape, default=0) < 0 or self._start + size > size_of(file):
            raise Damaged(
                "data",
                f"is cut short: shape {self.shape} and dtype {dtype} take {size} bytes, and "
                f"{size_of(file) - self._start} are there",
            )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def batches(self, size: int) -> Iterator[Array]:
        """Yield the rows, `size` at a time, in memory that the next batch uses again.

        Where there are no rows, one empty batch still tells the shape.
        """
        size = min(size, max(1, len(self)))
        m, row = len(self), self.shape[1:]
        # In Fortran order each feature has its rows side by side: a strip of the file.
        strips = prod(row) if self._fortran else 1
        room = np.empty((strips, size * (prod(row) // max(1, strips))), self.dtype)
        for low in range(0, max(1, m), size):
            n = min(size, m - low)
            count = n * (prod(row) // max(1, strips))
            for i in range(strips if count else 0):
                self._read(i * m + low if self._fortran else low * prod(row), room[i, :count])
            if self._fortran:
                yield room[:, :n].reshape(*row[::-1], n).T
            else:
                yield room[0, :count].reshape(n, *row)

    def whole(self) -> Array:
        """Return all of an array of one dimension."""
        a = np.empty(self.shape, self.dtype)
        self._read(0, a)
        return a

    def _read(self, at: int, room: Array) -> None:
        # Past the buffer of the file, which would read a whole one for each short strip.
        raw: FileIO = self._file.raw  # type: ignore[attr-defined]
        raw.seek(self._start + at * self.dtype.itemsize)
        rest = room.view(np.uint8).data
        while rest:
            count = raw.readinto(rest)  # systems have a limit, such as 2 GiB at a time
            if not count:
                raise Damaged("data", "is cut short: the file became smaller while it was read")
            rest = rest[count:]


def start(file: BinaryIO, shape: tuple[int, ...], dtype: DType) -> None:
    """Write the header of an array in C order, whose data is to follow."""
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)


def append(file: BinaryIO, a: Array) -> None:
    """Write the elements of an array in C order."""
    file.write(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
