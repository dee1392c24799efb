"""The picture of `python -m fastlayer bench`, by Matplotlib."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastlayer.files.save import write_atomically

if TYPE_CHECKING:
    from fastlayer.cli.bench import Timing

_FORMATS = (".svg", ".png", ".pdf")


def check(path: str) -> None:
    """Refuse before anything is timed what could not be written after it."""
    if os.path.splitext(path)[1].lower() not in _FORMATS:
        raise ValueError(f"{path}: a picture's name ends in {', '.join(_FORMATS)}")
    _matplotlib("figure")


def write(path: str, timings: list[Timing]) -> None:
    """Draw the time of a row by batch, a panel for each network."""
    names = list(dict.fromkeys(t.name for t in timings))
    size = (4.8 * len(names), 4.2)
    figure = _matplotlib("figure").Figure(figsize=size, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        found = sorted((t for t in timings if t.name == name), key=lambda t: t.batch)
        _panel(axes, name, found)
    suffix = os.path.splitext(path)[1].lower()[1:]
    write_atomically(path, lambda file: figure.savefig(file, format=suffix, dpi=150))


def _panel(axes: Any, name: str, timings: list[Timing]) -> None:
    for label, marker, seconds in (
        ("NumPy", "s", [t.theirs for t in timings]),
        ("fastlayer", "o", [t.ours for t in timings]),
    ):
        points = [
            (t.batch, 1e6 * s / t.batch)
            for t, s in zip(timings, seconds, strict=True)
            if s is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker=marker, label=label)
    steady = all(t.steady for t in timings)
    axes.set_title(name if steady else f"{name} (measured on a busy machine)")
    axes.set(xscale="log", yscale="log", ylabel="microseconds a row")
    axes.set_xlabel("rows a call (batch)")
    batches = [t.batch for t in timings]
    axes.set_xticks(batches, [f"{b:,}" for b in batches])
    axes.minorticks_off()
    axes.grid(color="0.9")
    axes.legend()


def _matplotlib(module: str) -> Any:
    try:
        return import_module(f"matplotlib.{module}")
    except ImportError:
        raise ImportError("--picture needs Matplotlib: pip install matplotlib") from None
