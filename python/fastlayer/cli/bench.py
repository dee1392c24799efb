"""`python -m fastlayer bench [MODEL]`: a network against the same lines in NumPy, at several batches."""

from __future__ import annotations

import os
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.cli.plain import NotPlain, numpy_forward
from fastlayer.cli.timing import ROUNDS, machine, race
from fastlayer.convert._prove import prove
from fastlayer.files.load import load
from fastlayer.files.save import write_atomically, wrong_place
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network
from fastlayer.report.tables import Table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
# Where no model is given: digits of 8 by 8 pixels, and MNIST's of 28 by 28.
_WIDTHS = ((64, 100, 10), (784, 512, 512, 10))
_PICTURES = (".svg", ".png", ".pdf")


class Timing(NamedTuple):
    """Median seconds a call on `batch` rows; those of NumPy None where it can't compute it."""

    name: str
    batch: int
    ours: float
    theirs: float | None
    steady: bool


def run(args: Namespace) -> None:
    """Print the table, and write the picture that was asked for."""
    figure = _figure(args.picture) if args.picture else None  # refused before anything is timed
    if args.model:
        named = {os.path.basename(args.model): load(args.model)}
    else:
        named = {"-".join(map(str, widths)): _network(*widths) for widths in _WIDTHS}
    notes: list[str] = []
    timings = []
    for name, net in named.items():
        racers = [net, *_reference(name, net, notes)]
        timings += [_time(name, net, racers, batch) for batch in dict.fromkeys(args.batch)]
    print(_table(timings, notes).text())
    if figure is not None:
        _draw(figure, args.picture, timings)


def _network(*widths: int) -> Network:
    last = len(widths) - 2
    sizes = enumerate(pairwise(widths))
    return Network([Layer(k, n, "softmax" if i == last else "relu", rng=i) for i, (k, n) in sizes])


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
    lines = machine(*notes, steady=all(t.steady for t in timings))
    lines.append(f"Time of a call: the median of up to {ROUNDS} turns, warm, on the same arrays.")
    header = ["Network", "Batch", "fastlayer", "NumPy", "Ratio"]
    return Table(header, rows, 1, notes=("", *lines))


def _figure(path: str) -> Any:
    """Return Matplotlib's class, where it can write a picture of this name."""
    if os.path.splitext(path)[1].lower() not in _PICTURES:
        raise ValueError(f"{path}: a picture's name ends in {', '.join(_PICTURES)}")
    if wrong := wrong_place(path):
        raise ValueError(f"{path}: {wrong}")
    try:
        return import_module("matplotlib.figure").Figure
    except ImportError:
        raise ImportError("--picture needs Matplotlib: pip install matplotlib") from None


def _draw(figure: Any, path: str, timings: list[Timing]) -> None:
    """Draw the time of a row by batch, a panel for each network."""
    names = list(dict.fromkeys(t.name for t in timings))
    drawn = figure(figsize=(4.8 * len(names), 4.2), layout="constrained")
    for axes, name in zip(drawn.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        found = sorted((t for t in timings if t.name == name), key=lambda t: t.batch)
        for label, marker in (("NumPy", "s"), ("fastlayer", "o")):
            seconds = [(t.batch, t.ours if marker == "o" else t.theirs) for t in found]
            points = [(m, 1e6 * s / m) for m, s in seconds if s is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker=marker, label=label)
        steady = all(t.steady for t in found)
        axes.set_title(name if steady else f"{name} (measured on a busy machine)")
        axes.set(xscale="log", yscale="log", ylabel="microseconds a row")
        axes.set_xlabel("rows a call (batch)")
        axes.set_xticks([t.batch for t in found], [f"{t.batch:,}" for t in found])
        axes.minorticks_off()
        axes.grid(color="0.9")
        axes.legend()
    suffix = os.path.splitext(path)[1].lower()[1:]
    write_atomically(path, lambda file: drawn.savefig(file, format=suffix, dpi=150))
