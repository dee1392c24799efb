"""`python -m fastlayer predict MODEL IN -o OUT`: from file to file, in little memory.

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

from fastlayer.cli.results import CsvResults, NpyResults, ParquetResults
from fastlayer.cli.rows import CsvRows, NpyRows, ParquetRows, arrow_parquet
from fastlayer.files.load import load
from fastlayer.files.reading import reading
from fastlayer.files.save import write_atomically, wrong_place
from fastlayer.frames import titles_of
from fastlayer.network.batches import check_features
from fastlayer.report.progress import reporting

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

    from fastlayer.arrays import Array
    from fastlayer.cli.rows import Rows
    from fastlayer.network.network import Network

# Bytes of a batch, input or result: little beside any memory, and thousands of usual rows.
_BATCH = 16 << 20
_FORMATS: dict[str, type[NpyResults | CsvResults | ParquetResults]] = {
    ".npy": NpyResults,
    ".csv": CsvResults,
    ".parquet": ParquetResults,
}
_KNOWN = ", ".join(_FORMATS)


def run(args: Namespace) -> None:
    """Write the network's answers to the rows of one file to another."""
    target = os.path.realpath(args.output)  # through a link, as any program writes
    _check_output(args.output, target, (args.model, args.input))
    net = _selected(load(args.model), args)
    with reading(args.input) as file:
        rows = _rows(file, args)
        _check(net, rows, args.input)
        with _signals() as check:
            write_atomically(target, lambda out: _stream(net, rows, out, args, check))
        check()


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _rows(file: BinaryIO, args: Namespace) -> Rows:
    suffix = _suffix(args.input)
    if args.header is not None and suffix != ".csv":
        raise ValueError(f"{args.input}: --header and --no-header are for .csv files")
    if suffix == ".csv":
        return CsvRows(file, args.input, args.header)
    return ParquetRows(file, args.input) if suffix == ".parquet" else NpyRows(file, args.input)


def _check(net: Network, rows: Rows, name: str) -> None:
    """Raise the error of a wrong number of features before anything is computed."""
    if isinstance(rows, NpyRows):
        check_features(net, rows.shape, rows.dtype)
    elif net.in_features not in (None, *rows.row):
        raise ValueError(
            f"{name}: has {rows.row[0]} columns, and the network takes {net.in_features} features"
        )


def _selected(net: Network, args: Namespace) -> Network:
    """Return the network that gives one array: the only output, or the one that is asked for."""
    names = net.output_names
    if args.select is None and len(names) <= 1:
        args.select = names[0] if names else None
        return net._plain
    if args.select not in names:
        there = (
            f"the outputs {', '.join(names)}; write one with --select" if names else "one output"
        )
        raise ValueError(f"{args.model}: it has {there}")
    return net._only(args.select)


def _check_output(name: str, target: str, inputs: tuple[str, ...]) -> None:
    """Refuse at once what would fail, or do harm, when all is computed."""
    suffix = _suffix(name)
    if suffix not in _FORMATS:
        raise ValueError(f"{name}: the output is one of {_KNOWN}, which its name must end in")
    if suffix == ".parquet":
        arrow_parquet()
    if wrong := wrong_place(target):
        raise ValueError(f"{name}: {wrong}")
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(f"{name}: is there, and is not a file")
    for source in inputs:
        if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
            raise ValueError(f"{name}: is the input {source} itself; name another output")


def _stream(
    net: Network, rows: Rows, out: BinaryIO, args: Namespace, check: Callable[[], None]
) -> None:
    row_bytes = max(1, prod(rows.row) * rows.dtype.itemsize)
    row_bytes = max(row_bytes, (net.out_features or 0) * net.dtype.itemsize)
    room: Array | None = None
    results = None
    with reporting(not rows.single, rows.total) as report:
        for x in rows.batches(args.batch_size or max(1, _BATCH // row_bytes)):
            y = net(x, out=None if room is None else room[: len(x)])
            room = y if room is None else room
            result = np.argmax(y, axis=-1).astype(np.int64) if args.argmax else y
            if results is None:
                names = ["argmax"] if args.argmax else [args.select] if args.select else []
                titles = titles_of(names, [1 if args.argmax else y.shape[-1]])
                results = _FORMATS[_suffix(args.output)](out, args.output, titles, rows.single)
            results.add(result)
            report(len(x))
            check()
    assert results is not None  # at least one batch comes
    results.close()


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
