"""Results of a network, written a batch at a time to .npy, .csv and .parquet files."""

from __future__ import annotations

import csv
import io
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy

from fastlayer.cli.rows import arrow_parquet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array


class Results(Protocol):
    """Takes results one after the other, and at least one; the file is whole when it is closed."""

    def add(self, y: Array) -> None: ...

    def close(self) -> None: ...


class NpyResults:
    """An array; of a single row where that is what there is."""

    def __init__(self, file: BinaryIO, name: str, titles: Sequence[str], single: bool) -> None:
        self._file, self._single = file, single
        self._header: dict[str, Any] = {}
        self._rows = 0

    def add(self, y: Array) -> None:
        if not self._header:
            kind = npy.dtype_to_descr(y.dtype)
            self._header = {"descr": kind, "fortran_order": False, "shape": y.shape}
            npy.write_array_header_1_0(self._file, self._header)
        self._rows += 0 if self._single else len(y)
        self._file.write(np.ascontiguousarray(y).reshape(-1).view(np.uint8).data)

    def close(self) -> None:
        """Write how many rows there were into the header, which has room for any number."""
        if not self._single:
            self._header["shape"] = (self._rows, *self._header["shape"][1:])
            self._file.seek(0)
            npy.write_array_header_1_0(self._file, self._header)


class _Table:
    """Rows of two dimensions."""

    def __init__(self, file: BinaryIO, name: str, titles: Sequence[str], single: bool) -> None:
        self._file, self._name, self._titles, self._single = file, name, titles, single

    def _rows(self, y: Array) -> Array:
        rows = y[None] if self._single else y
        rows = rows[:, None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or rows.shape[1] != len(self._titles):
            raise ValueError(
                f"{self._name}: a table can't hold results of shape {y.shape}; write .npy"
            )
        return rows


class CsvResults(_Table):
    """Lines of numbers behind one of names, each number with the digits that tell it apart."""

    _begun = False

    def add(self, y: Array) -> None:
        text = io.StringIO()
        if not self._begun:
            csv.writer(text, lineterminator="\n").writerow(self._titles)
            self._begun = True
        text.writelines(f"{','.join(row)}\n" for row in self._rows(y).astype(str).tolist())
        self._file.write(text.getvalue().encode())

    def close(self) -> None: ...


class ParquetResults(_Table):
    """A table, which pyarrow writes."""

    def __init__(self, file: BinaryIO, name: str, titles: Sequence[str], single: bool) -> None:
        super().__init__(file, name, titles, single)
        self._parquet, self._arrow = arrow_parquet(), import_module("pyarrow")
        self._writer: Any = None

    def add(self, y: Array) -> None:
        arrays = [self._arrow.array(column) for column in self._rows(y).T]
        table = self._arrow.Table.from_arrays(arrays, list(self._titles))
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()
