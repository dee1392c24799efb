"""`python -m fastlayer predict MODEL IN.npy -o OUT.npy`: from file to file, in little memory.

The files are read and written rather than mapped. A mapped file that is cut short, or a disk that
gets full, kills the process without a word; here both are errors like any other.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.lib import format as npy

from fastlayer.arrays import as_real
from fastlayer.errors import Damaged
from fastlayer.files.load import load
from fastlayer.files.reading import naming, reading, size_of
from fastlayer.files.save import write_atomically, wrong_place
from fastlayer.network.batches import check_features
from fastlayer.report.progress import reporting

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator
    from io import FileIO

    from fastlayer.arrays import Array, DType
    from fastlayer.network.network import Network

# Bytes of a batch, input or result: little beside any memory, and thousands of usual rows.
_BATCH = 16 << 20
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def run(args: Namespace) -> None:
    """Write the network's answers to the rows of one file to another."""
    target = os.path.realpath(args.output)  # through a link, as any program writes
    _check_output(args.output, target, (args.model, args.input))
    net = _selected(load(args.model), args)
    with reading(args.input) as file:
        rows = _Rows(file, args.input)
        check_features(net, rows.shape, rows.dtype)
        with _signals() as check:
            write_atomically(target, lambda out: _stream(net, rows, out, args, check))
        check()


def _selected(net: Network, args: Namespace) -> Network:
    """Return the network that gives one array: the only output, or the one that is asked for."""
    names = net.output_names
    if args.select is None and len(names) <= 1:
        return net._plain
    if args.select not in names:
        there = (
            f"the outputs {', '.join(names)}; write one with --select" if names else "one output"
        )
        raise ValueError(f"{args.model}: it has {there}")
    return net._only(args.select)


def _check_output(name: str, target: str, inputs: tuple[str, ...]) -> None:
    """Refuse at once what would fail, or do harm, when all is computed."""
    if not name.lower().endswith(".npy"):
        raise ValueError(f"{name}: the output is a .npy file, so its name must end in .npy")
    if wrong := wrong_place(target):
        raise ValueError(f"{name}: {wrong}")
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(f"{name}: is there, and is not a file")
    for source in inputs:
        if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
            raise ValueError(f"{name}: is the input {source} itself; name another output")


def _stream(
    net: Network, rows: _Rows, out: BinaryIO, args: Namespace, check: Callable[[], None]
) -> None:
    row_bytes = prod(rows.row) * rows.dtype.itemsize
    row_bytes = max(1, row_bytes, (net.out_features or 0) * net.dtype.itemsize)
    room: Array | None = None
    with reporting(not rows.single, len(rows)) as report:
        for x in rows.batches(args.batch_size or max(1, _BATCH // row_bytes)):
            y = net(x, out=None if room is None else room[: len(x)])
            result = np.argmax(y, axis=-1).astype(np.int64) if args.argmax else y
            if room is None:
                room = y
                shape = result.shape if rows.single else (len(rows), *result.shape[1:])
                kind = npy.dtype_to_descr(result.dtype)
                header = {"descr": kind, "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(out, header)
            out.write(np.ascontiguousarray(result).reshape(-1).view(np.uint8).data)
            report(len(x))
            check()


class _Rows:
    """The array in an open .npy file; an array of one dimension is a single row.

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
        self.row = self.shape if self.single else self.shape[1:]  # shape of one row
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

    def __len__(self) -> int:
        return 1 if self.single else self.shape[0]

    def batches(self, size: int) -> Iterator[Array]:
        """Yield the rows, `size` at a time, in memory that the next batch uses again.

        Where there are no rows, one empty batch still tells the shape.
        """
        m, k = len(self), prod(self.row)
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


@contextmanager
def _signals() -> Iterator[Callable[[], None]]:
    """Inside, what ends the process does so at a check, so that the unfinished file is removed.

    An exception from a signal handler may come between any two steps, those of the removal too. A
    second signal does not wait.
    """
    came: list[int] = []

    def check() -> None:
        if came:
            # For the others, what a shell says of a process that one ended.
            raise KeyboardInterrupt if came[0] == signal.SIGINT else SystemExit(128 + came[0])

    def note(number: int, frame: object) -> None:
        check()
        came.append(number)

    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    heeded = [n for n in numbers if n is not None and signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
