"""`python -m fastlayer predict MODEL IN.npy -o OUT.npy`: from file to file, in little memory."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fastlayer.cli import npy
from fastlayer.files.load import load
from fastlayer.files.reading import reading
from fastlayer.files.save import write_atomically
from fastlayer.run.batches import Report, check_features

if TYPE_CHECKING:
    from argparse import Namespace
    from types import FrameType

    from typing_extensions import Self

    from fastlayer.arrays import Array
    from fastlayer.network.network import Network

# Bytes of a batch, input or result: little beside any memory, and thousands of usual rows.
_BATCH = 16 << 20


def run(args: Namespace) -> int:
    """Write the network's answers to the rows of one file to another; the exit status."""
    target = os.path.realpath(args.output)  # through a link, as any program writes
    _check_output(args.output, target, (args.model, args.input))
    net = load(args.model)
    with reading(args.input) as file:
        rows = npy.Rows(file, args.input)
        check_features(net, rows.shape, rows.dtype)
        with _Signals() as signals:
            write_atomically(target, lambda out: _stream(net, rows, out, args, signals))
        signals.check()
    return 0


def _check_output(name: str, target: str, inputs: tuple[str, ...]) -> None:
    """Refuse at once what would fail, or do harm, when all is computed."""
    if not name.lower().endswith(".npy"):
        raise ValueError(f"{name}: the output is a .npy file, so its name must end in .npy")
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise ValueError(f"{name}: there is no folder {folder}")
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(f"{name}: is there, and is not a file")
    for source in inputs:
        if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
            raise ValueError(f"{name}: is the input {source} itself; name another output")


def _stream(
    net: Network, rows: npy.Rows, out: BinaryIO, args: Namespace, signals: _Signals
) -> None:
    def answer(x: Array, room: Array | None = None) -> tuple[Array, Array]:
        y = net(x, out=room)
        return y, np.argmax(y, axis=-1).astype(np.int64) if args.argmax else y

    if len(rows.shape) == 1:
        result = np.asarray(answer(rows.whole())[1])
        npy.start(out, result.shape, result.dtype)
        npy.append(out, result)
        return
    row_bytes = max(1, rows.row_bytes, (net.out_features or 0) * net.dtype.itemsize)
    size = args.batch_size or max(1, _BATCH // row_bytes)
    room: Array | None = None
    with Report(True, len(rows)) as report:
        for x in rows.batches(size):
            y, result = answer(x, None if room is None else room[: len(x)])
            if room is None:
                room = y
                npy.start(out, (len(rows), *result.shape[1:]), result.dtype)
            npy.append(out, result)
            report(len(x))
            signals.check()


class _Signals:
    """Inside, what ends the process does so after a batch, so that the unfinished file is removed.

    An exception from a signal handler may come between any two steps, those of the removal too. A
    second signal does not wait.
    """

    _names = ("SIGINT", "SIGTERM", "SIGHUP")

    def __init__(self) -> None:
        self._came = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for name in self._names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            self.check()
        self._came = number

    def check(self) -> None:
        """Raise what the signal stands for, if there was one."""
        if self._came == signal.SIGINT:
            raise KeyboardInterrupt
        if self._came:
            raise SystemExit(128 + self._came)  # what a shell says of a process that it ended
