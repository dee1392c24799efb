"""`python -m fastlayer demo`: a trained network reads handwritten digits, and NumPy races it.

The network and its test images are in data/digits.npz; bench/train_digits.py made them.
"""

from __future__ import annotations

import importlib.resources
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fastlayer import Layer, Network, __version__, get_num_threads, show_config

Floats = NDArray[np.float32]
Forward = Callable[[Floats], Floats]

_PER_ROW = 4  # pictures beside each other: 4 * 16 columns and 3 gaps of 4
_PICTURES = 8
_CELL = 16  # a pixel is two characters wide, about as wide as high
_GAP = 4
_BLOCKS = " \u2591\u2592\u2593\u2588"  # paper to ink
_ASCII = " .+%@"
_ROUNDS = 7
_TURN_SECONDS = 0.02  # one turn of one racer, after it has settled
_UNSTEADY = 1.5  # the median of the turns over the best of them
# OpenBLAS's threads spin for some 50 ms after a call that used them, in everybody's way. It took
# 0.1 s on 2 cores of Zen 4 until that was over. Single rows do not start them.
_SETTLE_ROW = 0.01
_SETTLE_BATCH = 0.15
_SLOWS_NUMPY = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


@dataclass(frozen=True)
class Digits:
    """What ships in data/digits.npz."""

    weights: list[Floats]  # (n, k) each
    biases: list[Floats]
    images: NDArray[np.uint8]  # (m, 8, 8), 0 to 16
    labels: NDArray[np.uint8]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The images as rows, (m, 64)."""
        return self.images.reshape(len(self.images), -1)


def load() -> Digits:
    path = importlib.resources.files("fastlayer") / "data" / "digits.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        layers = range(sum(name.startswith("weight") for name in data.files))
        return Digits(
            [data[f"weight{i}"] for i in layers],
            [data[f"bias{i}"] for i in layers],
            data["images"],
            data["labels"],
        )


def build(digits: Digits) -> Network:
    last = len(digits.weights) - 1
    return Network(
        [
            Layer.from_arrays(weight, bias, "relu" if i < last else "softmax")
            for i, (weight, bias) in enumerate(zip(digits.weights, digits.biases, strict=True))
        ]
    )


def numpy_forward(digits: Digits) -> Forward:
    """The same network in the usual NumPy lines."""
    w0, w1, w2 = digits.weights
    b0, b1, b2 = digits.biases

    def forward(x: Floats) -> Floats:
        h = np.maximum(x @ w0.T + b0, 0)
        h = np.maximum(h @ w1.T + b1, 0)
        z = h @ w2.T + b2
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        y: Floats = e / e.sum(axis=-1, keepdims=True)
        return y

    return forward


def _shades(encoding: str | None) -> str:
    """Block characters where the terminal can show them."""
    try:
        _BLOCKS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _BLOCKS


def _picture(image: NDArray[np.uint8], shades: str) -> list[str]:
    levels = (image.astype(int) * (len(shades) - 1) + 8) // 16
    return ["".join(shades[level] * 2 for level in row) for row in levels]


def _chosen(read: NDArray[np.intp], labels: NDArray[np.uint8]) -> list[int]:
    """The first test images, with the first one that is read wrong among them."""
    wrong = np.flatnonzero(read != labels)
    first = wrong[0] if len(wrong) and wrong[0] >= _PICTURES else _PICTURES - 1
    return [*range(_PICTURES - 1), int(first)]


def gallery(digits: Digits, answers: Floats, shades: str) -> str:
    """A few images as pictures, with what was read, how surely, and whether it is right."""
    read = answers.argmax(axis=-1)
    cells = []
    for i in _chosen(read, digits.labels):
        sure = math.floor(1000 * answers[i, read[i]]) / 10  # never rounded up to 100 %
        verdict = "" if read[i] == digits.labels[i] else f"wrong: it is {digits.labels[i]}"
        cells.append(
            [*_picture(digits.images[i], shades), "", f"reads {read[i]}, {sure} %", verdict]
        )
    lines = []
    for start in range(0, len(cells), _PER_ROW):
        for line in zip(*cells[start : start + _PER_ROW], strict=True):
            lines.append((" " * _GAP).join(f"{part:<{_CELL}}" for part in line).rstrip())
    return "\n".join(lines).rstrip()


def _turn(forward: Forward, x: Floats, settle: float, calls: int) -> float:
    """Seconds per call, with no clock on the first `settle` seconds."""
    settled = time.perf_counter() + settle
    while time.perf_counter() < settled:
        forward(x)
    start = time.perf_counter()
    for _ in range(calls):
        forward(x)
    return (time.perf_counter() - start) / calls


def race(racers: Sequence[Forward], x: Floats) -> tuple[list[float], bool]:
    """Median seconds per call of each racer on x, taking turns, and whether they were steady.

    On a busy machine turns differ, or take so long that there are fewer of them.
    """
    settle = _SETTLE_ROW if len(x) == 1 else _SETTLE_BATCH
    guesses = [_turn(forward, x, settle, 10) for forward in racers]
    calls = [max(1, int(_TURN_SECONDS / guess)) for guess in guesses]
    late = time.perf_counter() + 1.5 * _ROUNDS * len(racers) * (settle + _TURN_SECONDS)
    rounds: list[list[float]] = []
    while len(rounds) < _ROUNDS and (not rounds or time.perf_counter() < late):
        times = [_turn(forward, x, settle, n) for forward, n in zip(racers, calls, strict=True)]
        rounds.append(times)
    turns = list(zip(*rounds, strict=True))
    steady = len(rounds) == _ROUNDS and all(median(t) < _UNSTEADY * min(t) for t in turns)
    return [median(t) for t in turns], steady


def _timings(net: Network, digits: Digits) -> list[str]:
    x = digits.pixels.astype(np.float32)
    reference = numpy_forward(digits)
    difference = float(np.abs(net(x) - reference(x)).max())
    if not difference < 1e-5:
        raise RuntimeError(f"fastlayer and NumPy disagree by {difference:.1e}; nothing was timed")
    row, row_steady = race([net, reference], x[:1])
    batch, batch_steady = race([net, reference], x)
    # Threads that wait for a core that somebody else has can make a batch dearer than its images.
    dear = any(b > len(x) * r for r, b in zip(row, batch, strict=True))
    busy = dear or not (row_steady and batch_steady)
    lines = [f"{'Time per image':<24}{'fastlayer':>12}{'NumPy':>12}{'ratio':>10}"]
    for seconds, m, name in (
        (row, 1, "one image a call"),
        (batch, len(x), f"{len(x)} images a call"),
    ):
        ours, theirs = (1e6 * t / m for t in seconds)
        ratio = "busy" if busy else f"{theirs / ours:.1f}x"
        lines.append(f"  {name:<22}{ours:>9.3f} us{theirs:>9.3f} us{ratio:>10}")
    lines += ["", *_machine()]
    if busy:
        lines.append("Note: the machine is busy, so these times say little; try again later.")
    return [
        *lines,
        f"Each is the median of up to {_ROUNDS} turns, warm, on the same float32 arrays;",
        f"the answers differ by at most {difference:.0e}, which is rounding.",
    ]


def _machine() -> list[str]:
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
    return lines


def run() -> int:
    """Print the demo; the exit status."""
    digits = load()
    net = build(digits)
    answers = net(digits.pixels)  # uint8 goes in as it is
    right = int((answers.argmax(axis=-1) == digits.labels).sum())
    total = len(digits.labels)
    sizes = "-".join(str(n) for n in (digits.pixels.shape[1], *map(len, digits.biases)))
    lines = [
        f"A {sizes} network reads handwritten digits that it was not trained on.",
        "",
        gallery(digits, answers, _shades(sys.stdout.encoding)),
        "",
        f"Accuracy: {right} of {total} test images read right, {100 * right / total:.1f} %.",
        "",
    ]
    print("\n".join(lines), flush=True)
    print("\n".join(_timings(net, digits)))
    return 0
