"""Rows of numbers in .npy, .csv and .parquet files, a batch at a time.

The files are read rather than mapped: a mapped file that is cut short kills the process without a word.
"""

from __future__ import annotations

import csv
from importlib import import_module
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy

from fastlayer.arrays import FLOAT64, as_real
from fastlayer.errors import Damaged
from fastlayer.files.reading import naming, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

    from fastlayer.arrays import Array, DType

    Line = tuple[int, str]

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LONGEST_LINE = 16 << 20
_MARK = "\ufeff"  # some programs put it in front of a file of UTF-8


class Rows(Protocol):
    """Rows in an open file; what is one row alone is `single`."""

    row: tuple[int, ...]  # shape of one row
    dtype: DType
    single: bool
    total: int | None  # rows, where that is known beforehand

    def batches(self, size: int) -> Iterator[Array]:
        """Yield the rows, `size` at a time; where there are none, one empty batch."""
        raise NotImplementedError


class NpyRows:
    """The array in a .npy file; an array of one dimension is a single row.

    Raises
    ------
    Damaged
        Not a .npy file, cut short, or one of Python objects.
    TypeError
        A dtype that is not real.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        try:
            version = npy.read_magic(file)
            if version not in _HEADERS:  # the third is for fields with names beyond Latin-1
                raise ValueError(f"version {version[0]}.{version[1]}")
            self.shape, self._fortran, dtype = _HEADERS[version](file)
        except Exception as error:  # whatever the parser makes of a header that is not one
            raise Damaged("header", f"is not that of a .npy file of numbers ({error})") from error
        self.dtype: DType = dtype
        self.single = len(self.shape) == 1
        self.row: tuple[int, ...] = self.shape if self.single else self.shape[1:]
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
        self.total: int | None = 1 if self.single else self.shape[0] if self.shape else 0

    def batches(self, size: int) -> Iterator[Array]:
        """Yield the rows in memory that the next batch uses again."""
        m, k = self.total or 0, prod(self.row)
        size = min(size, max(1, m))
        # In Fortran order each feature has its rows side by side: a strip of the file.
        strips, width = (k, 1) if self._fortran else (1, k)
        room = np.empty((strips, size * width), self.dtype)
        for low in range(0, max(1, m), size):
            n = min(size, m - low)
            part = room[:, : n * width]
            with naming(self._name):  # or it would be called the file that is being written
                for i, strip in enumerate(part if part.size else ()):
                    self._read((i * m + low) * width, strip)
            rows = (
                part.reshape(*self.row[::-1], n).T if self._fortran else part.reshape(n, *self.row)
            )
            yield rows[0] if self.single else rows

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


class CsvRows:
    """Lines of numbers with commas between them, perhaps behind a line of names.

    Without `header`, a first line of texts alone is one of names, and nothing else is guessed.

    Raises
    ------
    Damaged
        A cell that is no number, lines of different lengths, a first line that may be either.
    """

    dtype: DType = FLOAT64
    single = False
    total: int | None = None

    def __init__(self, file: BinaryIO, name: str, header: bool | None = None) -> None:
        self._file, self._name = file, name
        self._lines = self._numbered()
        first = next(self._lines, None)
        if first is None:
            raise Damaged("line 1", "is empty, as is the file")
        number, line = first
        cells = _cells(line)
        self.row: tuple[int, ...] = (len(cells),)
        texts = [not _is_number(cell) for cell in cells]
        if header is None and cells == [f"{i}" for i in range(len(cells))]:
            raise Damaged(
                f"line {number}",
                "has the numbers from 0 on, which may be names of columns or a row; say which with "
                "--header or --no-header",
            )
        if header is None and not all(texts) and any(texts):
            at = texts.index(True)
            raise Damaged(
                f"line {number}, column {at + 1}",
                f"{cells[at]!r:.60} is no number, and others in the line are; say --header where "
                "they are names",
            )
        self._first = [] if (all(texts) if header is None else header) else [first]

    def _numbered(self) -> Iterator[Line]:
        """Yield the lines that are not empty, and their numbers."""
        number = 0
        while line := self._file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise Damaged(f"line {number}", f"has more than {_LONGEST_LINE} bytes")
            try:
                text = line.decode("utf-8").removeprefix(_MARK if number == 1 else "")
            except UnicodeDecodeError as error:
                raise Damaged(f"line {number}", f"is not UTF-8 text: {error.reason}") from error
            if text.strip():
                yield number, text

    def batches(self, size: int) -> Iterator[Array]:
        """Yield the rows as float64."""
        many = False
        while True:
            with naming(self._name):
                lines = [*self._first, *islice(self._lines, size - len(self._first))]
            self._first = []
            if lines:
                yield self._parsed(lines)
            elif not many:
                yield np.empty((0, *self.row))
            if len(lines) < size:
                return
            many = True

    def _parsed(self, lines: list[Line]) -> Array:
        why = "can't be read as numbers"
        try:
            a: Array = np.loadtxt(
                [line for _, line in lines], delimiter=",", ndmin=2, comments=None, quotechar='"'
            )
            if a.shape == (len(lines), *self.row):
                return a
        except ValueError as error:
            why = str(error)
        for number, line in lines:  # which one it is, plainly
            cells = _cells(line)
            if len(cells) != self.row[0]:
                raise Damaged(
                    f"line {number}", f"has {len(cells)} columns, and those before {self.row[0]}"
                )
            for i, cell in enumerate(cells):
                if not _is_number(cell):
                    missing = "is empty; write nan where a number is missing"
                    text = f"{cell!r:.60} is no number" if cell.strip() else missing
                    raise Damaged(f"line {number}, column {i + 1}", text)
        raise Damaged(f"lines {lines[0][0]} to {lines[-1][0]}", why)


def _cells(line: str) -> list[str]:
    return next(csv.reader([line]), [])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # which Python takes, and nobody else


def arrow_parquet() -> Any:
    """Return `pyarrow.parquet`.

    Raises
    ------
    ImportError
        It is not there.
    """
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(
            ".parquet files are read and written by pyarrow: pip install pyarrow"
        ) from error


class ParquetRows:
    """The columns of a .parquet file, which pyarrow reads.

    Raises
    ------
    Damaged
        pyarrow refuses the file.
    ImportError
        There is no pyarrow.
    """

    single = False

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._name, parquet = name, arrow_parquet()
        self._errors = import_module("pyarrow").ArrowException, OSError, ValueError
        try:
            self._file = parquet.ParquetFile(file)
        except self._errors as error:
            raise Damaged("parquet", _short(error)) from error
        self.total: int | None = self._file.metadata.num_rows
        self.row: tuple[int, ...] = (len(self._file.schema_arrow),)
        self.dtype: DType = FLOAT64

    def batches(self, size: int) -> Iterator[Array]:
        """Yield the rows in the type that their columns have in common."""
        batches = self._file.iter_batches(batch_size=size)
        yielded = False
        while True:
            try:
                batch = next(batches, None)
            except self._errors as error:
                raise Damaged("parquet", _short(error)) from error
            if batch is None:
                break
            yielded = True
            yield as_real(batch, self._name)
        if not yielded:
            yield as_real(self._file.schema_arrow.empty_table(), self._name)


def _short(error: Exception) -> str:
    return f"pyarrow says: {' '.join(str(error).split()):.200}"
