"""What transformers do to the columns of a table, and the steps of `_graph` that it comes to.

A selection of features and everything that scales them one by one, ColumnTransformers of such too,
is one selection in front and one scaling behind it, which the next dense layer takes in. The selection
is a part of the network that copies columns, not zeros in a dense layer: 0 times infinity is NaN,
and a column that scikit-learn does not look at may hold anything.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Dense, Draft, Point
from fastlayer.network.branches import Concat, Slice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array, DType

# Branches that a Concat may have.
_MOST = 1000


class Pick(NamedTuple):
    """The features of these numbers, in this order."""

    columns: Array


class Join(NamedTuple):
    """Steps that all take the same features, their results side by side."""

    branches: list[list[Any]]


class Fill(NamedTuple):
    """NaN in a feature becomes its value; None where that takes more than a value."""

    values: Array | None
    place: str


def computes(steps: Sequence[Any]) -> bool:
    """Whether integers become floats in these steps: everything but selections does that."""
    return any(
        any(map(computes, s.branches)) if isinstance(s, Join) else not isinstance(s, Pick)
        for s in steps
    )


def plain(steps: Sequence[Any], width: int) -> tuple[Array, list[Affine], list[Any]]:
    """Return the columns that the first steps select, how they scale them, and the steps after those."""
    columns = np.arange(width)
    scalings: list[Affine] = []
    for i, step in enumerate(steps):
        if isinstance(step, Pick):
            scalings = [_some(a, step.columns) for a in scalings]
            columns = columns[step.columns]
        elif isinstance(step, Affine):
            scalings.append(step)
        elif isinstance(step, Join):
            branches = [plain(b, len(columns)) for b in step.branches]
            if any(rest for _, _, rest in branches):
                return columns, scalings, list(steps[i:])
            at = np.concatenate([b[0] for b in branches])
            scalings = [_some(a, at) for a in scalings]
            columns = columns[at]
            sizes = [len(b[0]) for b in branches]
            for row in zip_longest(*(b[1] for b in branches), fillvalue=Affine.of()):
                scalings.append(_beside(row, sizes))
        elif not isinstance(step, Fill):
            return columns, scalings, list(steps[i:])
    return columns, scalings, []


def _some(a: Affine, columns: Array) -> Affine:
    """Return the scaling of some of the features."""
    some = (v if v is None or v.ndim == 0 else v[columns] for v in a)
    return Affine(*some)  # type: ignore[arg-type]  # the first two are arrays


def _beside(scalings: Sequence[Affine], sizes: Sequence[int]) -> Affine:
    """Return the scaling of features that lie beside each other."""

    def joined(vectors: list[Array]) -> Array:
        return np.concatenate([np.broadcast_to(v, n) for v, n in zip(vectors, sizes, strict=True)])

    with np.errstate(all="ignore"):
        centres = [-a.shift / a.scale if a.centre is None else a.centre for a in scalings]
    scale, shift, centre = (
        joined(v) for v in ([a.scale for a in scalings], [a.shift for a in scalings], centres)
    )
    return Affine(scale, shift, centre if np.isfinite(centre).all() else None)


def lowered(steps: Sequence[Any], width: int, dtype: DType, place: str) -> tuple[list[Any], int]:
    """Return steps of `_graph` that do the same, and how many features come out; 0 is possible."""
    found: list[Any] = []
    while True:
        columns, scalings, rest = plain(steps, width)
        if not np.array_equal(columns, np.arange(width)) and len(columns):
            found.append(_selection(columns))
        found += scalings
        width = len(columns)
        if not rest or not width:
            return found, width
        step, *steps = rest
        if isinstance(step, Join):
            branches = [lowered(b, width, dtype, place) for b in step.branches]
            if not any(n for _, n in branches):
                return found, 0
            step = Concat([_parts(b, width, dtype, place) for b, n in branches if n])
            width = sum(n for _, n in branches)
        elif isinstance(step, Dense):
            width = len(step.weight)
        found.append(step)


def _parts(steps: list[Any], width: int, dtype: DType, place: str) -> list[Any]:
    return list(Draft(Point().then(steps), dtype, place, width).network()) if steps else []


def _selection(columns: Array) -> Concat:
    """Return the part that gives these columns: stretches of neighbours, side by side."""
    ends = [*(np.flatnonzero(np.diff(columns) != 1) + 1), len(columns)]
    parts: list[Any] = [
        Slice(columns[a], columns[b - 1] + 1) for a, b in zip([0, *ends], ends, strict=False)
    ]
    while len(parts) > _MOST:
        parts = [Concat(parts[i : i + _MOST]) for i in range(0, len(parts), _MOST)]
    return Concat(parts)


def likely(steps: Sequence[Any], width: int, rng: np.random.Generator) -> Array:
    """Return rows where the training data lay: normal ones, scaled back."""
    columns, scalings, rest = plain(steps, width)
    x: Array = rng.standard_normal((64, len(columns)))
    for branch in rest[0].branches if rest and isinstance(rest[0], Join) else []:
        used = plain(branch, len(columns))[0]
        x[:, used] = likely(branch, len(columns), rng)[:, used]
    for step in reversed(scalings):
        with np.errstate(all="ignore"):
            back = (x - step.shift) / step.scale
            x = back if step.centre is None else x / step.scale + step.centre
    rows = rng.standard_normal((64, width))
    rows[:, columns] = x
    return np.where(np.isfinite(rows), rows, 0.0)


class Filled:
    """What imputers make of NaN in each feature of a row, as far as that is a value.

    Attributes
    ----------
    values : ndarray
        The values; NaN where NaN stays.
    lost : list of str
        Places of imputers that do something else with NaN than that.
    """

    def __init__(self, steps: Sequence[Any], width: int) -> None:
        self.values = np.full(width, np.nan)
        self.lost: list[str] = []
        self._seen = np.zeros(width, bool)
        self._places: list[str] = []
        self._walk(steps, (np.arange(width), self.values.copy(), np.zeros(width, bool)), True)

    def _walk(self, steps: Sequence[Any], at: Any, last: bool = False) -> Any:
        """Follow columns, the values that fill them, and whether something was done to NaN in them.

        Returns None behind a projection; `last` says that nothing comes after the steps.
        """
        for step in steps:
            if isinstance(step, Pick):
                at = at and tuple(v[step.columns] for v in at)
            elif isinstance(step, Fill):
                self._places.append(step.place)
                at = self._fill(step, at)
            elif isinstance(step, Join):
                ends = [self._walk(b, at) for b in step.branches]
                if all(end is not None for end in ends):
                    at = tuple(map(np.concatenate, zip(*ends, strict=True)))
                else:
                    for end in ends:
                        self._settle(end)
                    at = None
            elif isinstance(step, Dense):
                self._settle(at)
                at = None
            elif at is not None:
                at = *at[:2], np.ones_like(at[2])
        return self._settle(at) if last else at

    def _fill(self, step: Fill, at: Any) -> Any:
        if at is None:
            self.lost.append(step.place)
            return None
        columns, values, done = at
        missing = np.isnan(values)
        if (missing & (done | (step.values is None))).any():
            self.lost.append(step.place)
        if step.values is None:
            return columns, values, done | missing
        return columns, np.where(missing & ~done, step.values, values), done

    def _settle(self, at: Any) -> None:
        for column, value in zip(*at[:2], strict=True) if at is not None else ():
            known = self.values[column]
            if self._seen[column] and not np.array_equal(known, value, equal_nan=True):
                self.lost += self._places[-1:]  # filled in two ways
                value = np.nan
            self.values[column], self._seen[column] = value, True
