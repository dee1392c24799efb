"""A race: callables take turns on the same input, and medians are what counts."""

from __future__ import annotations

import os
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import __version__
from fastlayer.config import show_config
from fastlayer.threads import get_num_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Forward = Callable[[Any], Any]

ROUNDS = 7
_TURN_SECONDS = 0.02  # one turn of one racer, after it has settled
_UNSTEADY = 1.5  # the median of the turns over the best of them
# OpenBLAS's threads spin for some 50 ms after a call that used them, in everybody's way. It took
# 0.1 s on 2 cores of Zen 4 until that was over. Single rows do not start them.
_SETTLE_ROW = 0.01
_SETTLE_BATCH = 0.15
_SLOWS_NUMPY = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def race(racers: Sequence[Forward], x: Any) -> tuple[list[float], bool]:
    """Median seconds per call of each racer on x, taking turns, and whether they were steady.

    On a busy machine turns differ, or take so long that there are fewer of them.
    """
    settle = _SETTLE_ROW if len(x) == 1 else _SETTLE_BATCH
    guesses = [_turn(forward, x, settle, 3) for forward in racers]
    calls = [max(1, int(_TURN_SECONDS / guess)) for guess in guesses]
    late = time.perf_counter() + 1.5 * ROUNDS * len(racers) * (settle + _TURN_SECONDS)
    rounds: list[list[float]] = []
    while len(rounds) < ROUNDS and (not rounds or time.perf_counter() < late):
        times = [_turn(forward, x, settle, n) for forward, n in zip(racers, calls, strict=True)]
        rounds.append(times)
    turns = list(zip(*rounds, strict=True))
    steady = len(rounds) == ROUNDS and all(median(t) < _UNSTEADY * min(t) for t in turns)
    return [median(t) for t in turns], steady


def _turn(forward: Forward, x: Any, settle: float, calls: int) -> float:
    """Seconds per call, with no clock on the first `settle` seconds."""
    settled = time.perf_counter() + settle
    while time.perf_counter() < settled:
        forward(x)
    start = time.perf_counter()
    for _ in range(calls):
        forward(x)
    return (time.perf_counter() - start) / calls


def machine(*notes: str, steady: bool) -> list[str]:
    """Lines about what was timed: versions, instruction set, threads, what makes times doubtful."""
    isa = show_config(mode="dicts")["isa"]["active"]
    threads = get_num_threads()
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    lines = [
        f"fastlayer {__version__}: {isa}, {threads} thread{'s' if threads > 1 else ''}.",
        f"NumPy {np.__version__}: {blas.get('name')} {blas.get('version')}.",
    ]
    slowed = [name for name in _SLOWS_NUMPY if name in os.environ]
    if slowed:
        lines.append(f"Note: this environment slows NumPy down: {', '.join(slowed)}.")
    lines += notes
    if not steady:
        lines.append("Note: the machine is busy, so these times say little; try again later.")
    return lines
