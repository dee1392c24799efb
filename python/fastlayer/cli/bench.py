"""`python -m fastlayer bench [MODEL]`: a network against the same lines in NumPy, at several batches."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.cli.plain import NotPlain, numpy_forward
from fastlayer.cli.timing import ROUNDS, machine, race
from fastlayer.convert._prove import prove
from fastlayer.files.load import load
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network
from fastlayer.report.tables import Table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

# Where no model is given: digits of 8 by 8 pixels, and MNIST's of 28 by 28.
_WIDTHS = ((64, 100, 10), (784, 512, 512, 10))


class Timing(NamedTuple):
    """Median seconds a call on `batch` rows; those of NumPy None where it can't compute it."""

    name: str
    batch: int
    ours: float
    theirs: float | None
    steady: bool


def run(args: Namespace) -> int:
    """Print the table, and write the picture that was asked for; the exit status."""
    if args.picture:
        from fastlayer.cli import picture

        picture.check(args.picture)
    if args.model:
        named = {os.path.basename(args.model): load(args.model)}
    else:
        named = {"-".join(map(str, widths)): _network(widths) for widths in _WIDTHS}
    notes: list[str] = []
    timings = []
    for name, net in named.items():
        racers = [net, *_reference(name, net, notes)]
        timings += [_time(name, net, racers, batch) for batch in dict.fromkeys(args.batch)]
    print(_table(timings, notes).text())
    if args.picture:
        picture.write(args.picture, timings)
    return 0


def _network(widths: tuple[int, ...]) -> Network:
    last = len(widths) - 2
    return Network(
        [
            Layer(k, n, "relu" if i < last else "softmax", rng=i)
            for i, (k, n) in enumerate(pairwise(widths))
        ]
    )


def _reference(name: str, net: Network, notes: list[str]) -> list[Callable[[Any], Any]]:
    """Return NumPy's racer, or none and a note; an error where the answers disagree."""
    if net.in_features is None:
        raise ValueError(f"{name}: takes any number of features; bench needs a layer in front")
    try:
        reference = numpy_forward(net)
    except NotPlain as missing:
        notes.append(f"Note: {name} runs alone: {missing}.")
        return []
    prove(net, reference, source=f"{name} in NumPy")  # nobody times a wrong answer
    return [reference]


def _time(name: str, net: Network, racers: list[Any], batch: int) -> Timing:
    x = np.random.default_rng(0).standard_normal((batch, net.in_features or 0)).astype(net.dtype)
    with np.errstate(all="ignore"):  # 1 / (1 + exp(-x)) may overflow, and is right then
        times, steady = race(racers, x)
    return Timing(name, batch, times[0], times[1] if len(times) > 1 else None, steady)


def _table(timings: list[Timing], notes: list[str]) -> Table:
    rows = []
    for t in timings:
        theirs = "" if t.theirs is None else f"{1e6 * t.theirs:,.1f} us"
        ratio = "" if t.theirs is None else f"{t.theirs / t.ours:.2f}x" if t.steady else "busy"
        rows.append([t.name, f"{t.batch:,}", f"{1e6 * t.ours:,.1f} us", theirs, ratio])
    lines = [*machine(), *notes]
    if not all(t.steady for t in timings):
        lines.append("Note: the machine is busy, so these times say little; try again later.")
    lines.append(f"Time of a call: the median of up to {ROUNDS} turns, warm, on the same arrays.")
    header = ["Network", "Batch", "fastlayer", "NumPy", "Ratio"]
    return Table(header, rows, 1, notes=("", *lines))
