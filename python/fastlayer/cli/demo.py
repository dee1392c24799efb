"""`python -m fastlayer demo`: a trained network reads handwritten digits, and NumPy races it.

The network and its test images are in data/digits.npz; bench/train_digits.py made them.
"""

from __future__ import annotations

import importlib.resources
import math
import sys
from typing import TYPE_CHECKING

import numpy as np

from fastlayer.cli.plain import numpy_forward
from fastlayer.cli.timing import ROUNDS, machine, race
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from fastlayer.arrays import Array
    from fastlayer.names import ActivationName

_PER_ROW = 4  # pictures beside each other: 4 * 16 columns and 3 gaps of 4
_PICTURES = 8
_CELL = 16  # a pixel is two characters wide, about as wide as high
_GAP = 4
_BLOCKS = " \u2591\u2592\u2593\u2588"  # paper to ink
_ASCII = " .+%@"


def run(_: object) -> None:
    """Print what the network reads, how well, and how fast."""
    path = importlib.resources.files("fastlayer") / "data" / "digits.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        digits = dict(data)
    images, labels = digits["images"], digits["labels"]  # (m, 8, 8), 0 to 16
    pixels = images.reshape(len(images), -1)
    activations: tuple[ActivationName, ...] = ("relu", "relu", "softmax")
    layers = [
        Layer.from_arrays(digits[f"weight{i}"], digits[f"bias{i}"], activation)
        for i, activation in enumerate(activations)
    ]
    net = Network(layers)
    answers = net(pixels)  # uint8 goes in as it is
    right, total = int((answers.argmax(axis=-1) == labels).sum()), len(labels)
    sizes = "-".join(map(str, (net.in_features, *(layer.out_features for layer in layers))))
    lines = [
        f"A {sizes} network reads handwritten digits that it was not trained on.",
        "",
        _gallery(images, labels, answers),
        "",
        f"Accuracy: {right} of {total} test images read right, {100 * right / total:.1f} %.",
        "",
    ]
    print("\n".join(lines), flush=True)
    print("\n".join(_timings(net, pixels.astype(np.float32))))


def _gallery(images: Array, labels: Array, answers: Array) -> str:
    """A few images as pictures, with what was read, how surely, and whether it is right."""
    read = answers.argmax(axis=-1)
    # The first test images, with the first one that is read wrong among them.
    wrong = np.flatnonzero(read != labels)
    last = wrong[0] if len(wrong) and wrong[0] >= _PICTURES else _PICTURES - 1
    shades = _shades(sys.stdout.encoding)
    levels = (images.astype(int) * (len(shades) - 1) + 8) // 16
    cells = []
    for i in (*range(_PICTURES - 1), last):
        sure = math.floor(1000 * answers[i, read[i]]) / 10  # never rounded up to 100 %
        verdict = "" if read[i] == labels[i] else f"wrong: it is {labels[i]}"
        picture = ["".join(shades[level] * 2 for level in row) for row in levels[i]]
        cells.append([*picture, "", f"reads {read[i]}, {sure} %", verdict])
    lines = []
    for start in range(0, len(cells), _PER_ROW):
        for line in zip(*cells[start : start + _PER_ROW], strict=True):
            lines.append((" " * _GAP).join(f"{part:<{_CELL}}" for part in line).rstrip())
    return "\n".join(lines).rstrip()


def _shades(encoding: str | None) -> str:
    """Block characters where the terminal can show them."""
    try:
        _BLOCKS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _BLOCKS


def _timings(net: Network, x: Array) -> list[str]:
    reference = numpy_forward(net)
    difference = float(np.abs(net(x) - reference(x)).max())
    if not difference < 1e-5:
        raise RuntimeError(f"fastlayer and NumPy disagree by {difference:.1e}; nothing was timed")
    row, row_steady = race([net, reference], x[:1])
    batch, batch_steady = race([net, reference], x)
    # Threads that wait for a core that somebody else has can make a batch dearer than its images.
    dear = any(b > len(x) * r for r, b in zip(row, batch, strict=True))
    steady = row_steady and batch_steady and not dear
    lines = [f"{'Time per image':<24}{'fastlayer':>12}{'NumPy':>12}{'ratio':>10}"]
    for (ours, theirs), m, name in ((row, 1, "one image"), (batch, len(x), f"{len(x)} images")):
        ratio = f"{theirs / ours:.1f}x" if steady else "busy"
        times = "".join(f"{1e6 * seconds / m:>9.3f} us" for seconds in (ours, theirs))
        lines.append(f"  {f'{name} a call':<22}{times}{ratio:>10}")
    return [
        *lines,
        "",
        *machine(steady=steady),
        f"Each is the median of up to {ROUNDS} turns, warm, on the same float32 arrays;",
        f"the answers differ by at most {difference:.0e}, which is rounding.",
    ]
