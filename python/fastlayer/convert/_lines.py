"""Piecewise linear functions as activations: rectifiers, clips and what shrinks or selects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._affine import Affine
from fastlayer.functions.activation import Activation, named
from fastlayer.network.branches import Concat, Slice

if TYPE_CHECKING:
    from fastlayer.convert._polynomials import Number

# Activations that clip.
BOUNDS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
# Constants of a graph have been rounded, folded and multiplied: a few roundings each.
ROUNDINGS = 8
# Features with bounds of their own: each run of equal ones is a branch.
_MOST_BRANCHES = 256


def clip(low: float, high: float) -> Activation:
    """Return what clips to a range."""
    name = next((name for name, bounds in BOUNDS.items() if bounds == (low, high)), None)
    return named(name) if name else Activation("hardtanh", min_val=low, max_val=high)


def at(knot: Number) -> Any:
    """Return the number that a knot stands for, where it is the one after that."""
    here, before = np.asarray(knot, np.float64), np.nextafter(knot, -math.inf)
    is_short = [v.astype(np.float32).astype(np.float64) == v for v in (here, before)]
    near = np.where(is_short[1] & ~is_short[0], before, here)
    return np.where(np.abs(here) < np.finfo(float).tiny, 0.0, near)


class Lines:
    """Knots, and the slope and offset of each interval: a number, or one for each feature."""

    def __init__(
        self, knots: tuple[Number, ...], lines: list[tuple[Number, Number]], exact: bool, eps: float
    ) -> None:
        self.knots, self.lines, self.exact, self.eps = list(knots), lines, exact, eps
        self._join()

    def _join(self) -> None:
        """Leave out the knots that rounding made, and points that lie on a neighbour's line."""
        i = 0
        while i < len(self.knots):
            alike = self._close(self.lines[i][0], self.lines[i + 1][0]) and self._meet(
                i, i + 1, self.knots[i]
            )
            after = self.knots[i + 1] if i + 1 < len(self.knots) else math.inf
            reach = self.knots[i] + ROUNDINGS * self.eps * np.abs(self.knots[i])
            point = np.all(after <= np.maximum(reach, np.nextafter(self.knots[i], math.inf)))
            if alike or (point and self._meet(i, i + 1, self.knots[i])):
                del self.knots[i], self.lines[i + 1]
            elif point and self._meet(i + 1, i + 2, after):
                del self.knots[i + 1], self.lines[i + 1]
            else:
                i += 1

    def _close(self, a: Number, b: Number, size: Number = 0.0) -> bool:
        largest = np.maximum(np.maximum(np.abs(a), np.abs(b)), size)
        return bool(np.all(np.abs(np.subtract(a, b)) <= ROUNDINGS * self.eps * largest))

    def _meet(self, i: int, j: int, knot: Number) -> bool:
        """Whether two lines have the same value at a knot, but for rounding."""
        (a, b), (c, d), t = self.lines[i], self.lines[j], at(knot)
        size = np.maximum(np.abs(a * t) + np.abs(b), np.abs(c * t) + np.abs(d))
        return self._close(a * t + b, c * t + d, size)

    def _slopes(self, *wanted: float) -> bool:
        """Whether the slopes are these, but for rounding."""
        largest = self._largest()
        return len(wanted) == len(self.lines) and all(
            self._close(a, w, largest if w == 0 else 0.0)
            for (a, _), w in zip(self.lines, wanted, strict=True)
        )

    def _largest(self) -> float:
        return float(max(np.abs(a).max() for a, _ in self.lines))

    def steps(self) -> list[Any] | None:
        """Return the steps of a network that compute this, None where there are none."""
        count = len(self.knots)
        if count == 0:
            return [Affine.of(*self.lines[0])]
        if not all(self._meet(i, i + 1, k) for i, k in enumerate(self.knots)):
            return self._jumps() if self.exact else None
        if count == 1:
            return self._rectifier()
        return self._shrinks() or self._bounded() if count == 2 else None

    def _rectifier(self) -> list[Any] | None:
        (left, low), (right, b) = self.lines
        knot = at(self.knots[0])
        value = right * knot + b
        if self._slopes(0, 1) and self._close(value, knot):
            return _clips(low, math.inf)
        if self._slopes(1, 0) and self._close(value, knot):
            return _clips(-math.inf, b)
        if self._close(right, 1.0):
            right = 1.0
        if np.all(np.asarray(right) != 0) and not self._close(right, 0.0, np.abs(left)):
            shift, slope = Affine.of(1.0, -knot), left / right
        elif self._slopes(-1, 0):
            shift, slope, right = Affine.of(-1.0, knot), 0.0, 1.0
        elif np.all(np.asarray(left) != 0) and np.all(np.asarray(right) == 0):
            shift, slope, right = Affine.of(-1.0, knot), 0.0, -left
        else:
            return None
        if self._close(slope, 0.0, 1.0):
            act = Activation("relu")
        elif np.ndim(slope) and np.size(slope) > 1:
            act = Activation("prelu", weight=slope)
        else:
            act = Activation("leaky_relu", negative_slope=float(slope))
        before = [] if _nothing(shift) else [shift]
        after = Affine.of(right, 0.0 if self._close(value, 0.0, np.abs(right * knot)) else value)
        return [*before, act, *([] if _nothing(after) else [after])]

    def _bounded(self) -> list[Any] | None:
        """Return a line between two bounds."""
        (first, low), (a, b), (last, high) = self.lines
        if not all(self._close(slope, 0.0, self._largest()) for slope in (first, last)):
            return None
        knots = [at(k) for k in self.knots]
        if self._close(a, 1.0) and self._close(knots[0], low) and self._close(knots[1], high):
            return _clips(low, high)
        wanted = ((a, 1 / 6), (knots[0], -3.0), (knots[1], 3.0), (high, 1.0))
        if all(self._close(v, w) for v, w in wanted) and self._close(low, 0.0, 1.0):
            return [Activation("hardsigmoid")]
        clips = _clips(np.minimum(low, high), np.maximum(low, high))
        return clips and [Affine.of(a, b), *clips]

    def _shrinks(self) -> list[Any] | None:
        low, high = map(at, self.knots)
        middle = self.lines[1][1]
        if not self._slopes(1, 0, 1) or not self._close(low, -high) or np.ndim(high) > 0:
            return None
        if not self._close(middle, 0.0, np.abs(high)):
            return None
        return known("softshrink", lambd=float(high))

    def _jumps(self) -> list[Any] | None:
        """Return what selects by a threshold; there too it has the value that the source has."""
        numbers = [*self.knots, *(v for pair in self.lines for v in pair)]
        if any(np.ndim(v) and np.size(v) > 1 for v in numbers):
            return None
        lines = [(float(a), float(b)) for a, b in self.lines]
        edges = [self._edge(float(k)) for k in self.knots]
        if len(lines) == 2 and lines[1] == (1.0, 0.0) and lines[0][0] == 0:
            return known("threshold", threshold=edges[0][0], value=lines[0][1])
        if lines == [(1.0, 0.0), (0.0, 0.0), (1.0, 0.0)] and edges[0][0] == -edges[1][1]:
            return known("hardshrink", lambd=edges[1][0])
        return None

    def _edge(self, knot: float) -> tuple[float, float]:
        """Return the last number of the network's dtype before a knot, and the first one after."""
        dtype = np.float32 if self.eps > np.finfo(float).eps else np.float64
        after = dtype(knot)
        if float(after) < knot:
            after = np.nextafter(after, dtype(math.inf))
        return float(np.nextafter(after, dtype(-math.inf))), float(after)


def known(name: str, **parameters: float) -> list[Any] | None:
    """Return an activation, None where there is none of this name."""
    try:
        return [named(name, **parameters)]
    except ValueError:
        return None


def _nothing(step: Affine) -> bool:
    return step.in_features is None and step.shifts and not step.shift.any()


def _clips(low: Number, high: Number) -> list[Any] | None:
    """Return what clips to a range, or each feature to its own."""
    a, b = np.broadcast_arrays(low, high)
    if a.size == 1:
        return [clip(float(a.ravel()[0]), float(b.ravel()[0]))]
    ends = [i for i in range(1, a.size) if a[i] != a[i - 1] or b[i] != b[i - 1]]
    if not ends:
        return [clip(float(a[0]), float(b[0]))]
    if len(ends) >= _MOST_BRANCHES or not (a <= b).all():
        return None
    runs = zip([0, *ends], [*ends, a.size], strict=True)
    return [Concat([[Slice(i, j), *_one(float(a[i]), float(b[i]))] for i, j in runs])]


def _one(low: float, high: float) -> list[Any]:
    return [] if math.inf == high == -low else [clip(low, high)]
