"""`python -m fastlayer demo`: a trained network reads handwritten digits, and NumPy races it.

The network and its test images are in data/digits.npz; bench/train_digits.py made them.
"""

from __future__ import annotations

import importlib.resources
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlayer import Layer, Network
from fastlayer.cli.timing import ROUNDS, machine, race

Floats = NDArray[np.float32]
Module = Callable[[Floats], Floats]

_PER_ROW = 4  # pictures beside each other: 4 * 16 columns and 3 gaps of 4
_PICTURES = 8
_CELL = 16  # a pixel is two characters wide, about as wide as high
_GAP = 4
_BLOCKS = " \u2591\u2592\u2593\u2588"  # paper to ink
_ASCII = " .+%@"


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


def numpy_forward(digits: Digits) -> Module:
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
    lines += ["", *machine()]
    if busy:
        lines.append("Note: the machine is busy, so these times say little; try again later.")
    return [
        *lines,
        f"Each is the median of up to {ROUNDS} turns, warm, on the same float32 arrays;",
        f"the answers differ by at most {difference:.0e}, which is rounding.",
    ]


def run(args: object = None) -> int:
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
