"""`Network.verify`: how far a network is from another implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import as_real
from fastlayer.report.tables import Shown, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType


class Verification(Shown):
    """How far a network is from another implementation; see `Network.verify`.

    Attributes
    ----------
    max_abs, max_rel, max_ulp : float
        Largest error: absolute, relative to the reference, and in units of the last place of
        the network's dtype. An element that is NaN or infinite on one side only counts as inf;
        where both agree it counts as 0.
    argmax_agreement : float
        Share of rows whose largest element is at the same place.
    samples : int
        Number of rows.
    dtype : dtype
        That of the network.
    """

    __module__ = "fastlayer"  # where pickles find it
    samples: int
    max_abs: float
    max_rel: float
    max_ulp: float
    argmax_agreement: float

    def __init__(self, net: Any, reference: Callable[[Any], Any], x: Any) -> None:
        theirs = reference(*x) if net._each(x) is x else reference(x)
        if net.output_names:
            theirs = _beside(theirs, net.output_names)
        rows = net._plain(*net._each(x))
        self._compare(rows, as_real(theirs, "the reference's result"), net.dtype)

    def _compare(self, ours: Array, theirs: Array, dtype: DType) -> None:
        if ours.shape != theirs.shape:
            raise ValueError(
                f"the reference gives shape {theirs.shape} where the network gives {ours.shape}"
            )
        self.dtype = dtype
        self.samples = count_samples(ours)
        a, b = ours.astype(np.float64), theirs.astype(np.float64)
        with np.errstate(all="ignore"):
            alike = (a == b) | (np.isnan(a) & np.isnan(b))
            error = np.where(alike, 0.0, np.abs(a - b))
            error[~alike & ~np.isfinite(error)] = np.inf
            size = np.abs(b)
            relative = np.where(alike, 0.0, error / size)
            limits = np.finfo(self.dtype)
            rounded = np.clip(size, limits.tiny, limits.max).astype(self.dtype)
            ulps = np.where(alike, 0.0, error / np.spacing(rounded).astype(np.float64))
        for e in (relative, ulps):
            e[np.isnan(e)] = np.inf  # NaN or infinite in the reference only
        self.max_abs, self.max_rel, self.max_ulp = (
            float(e.max(initial=0.0)) for e in (error, relative, ulps)
        )
        same = np.argmax(a, axis=-1) == np.argmax(b, axis=-1) if a.size else np.ones(1, bool)
        self.argmax_agreement = float(np.mean(same))

    def _rows(self) -> list[list[str]]:
        return [
            ["Largest absolute error", f"{self.max_abs:.3g}"],
            ["Largest relative error", f"{self.max_rel:.3g}"],
            [f"Largest error in ULP of {self.dtype}", f"{self.max_ulp:.3g}"],
            ["Rows with the same argmax", f"{self.argmax_agreement:.2%}"],
        ]

    def _table(self) -> Table:
        return Table([f"{self.samples} samples", ""], self._rows(), 1)


class Proof(Verification):
    """Comparison of a converted network with its source, which it passed.

    Attributes
    ----------
    bound_share : float
        Largest error as a share of what rounding may explain; at most 1.
    """

    __module__ = "fastlayer"  # where pickles find it
    bound_share: float

    def __init__(self, ours: Array, theirs: Array, bound: Array, dtype: DType) -> None:
        self._compare(ours, theirs, dtype)
        with np.errstate(all="ignore"):
            share = np.abs(ours.astype(np.float64) - theirs) / bound
        alike = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs)) | np.isinf(bound)
        share = np.where(alike, 0.0, share)
        share[np.isnan(share)] = np.inf
        self._shares = share
        self.bound_share = float(share.max(initial=0.0))

    def _rows(self) -> list[list[str]]:
        share = f"{self.bound_share:.2g}"
        return [*super()._rows(), ["Largest error, share of the rounding bound", share]]


def _beside(results: Any, names: tuple[str, ...]) -> Any:
    """Return several results as one array of rows."""
    given = list(results.values()) if isinstance(results, dict) else results
    if not isinstance(given, list | tuple) or len(given) != len(names):
        raise ValueError(f"the reference has to give {len(names)} arrays: {', '.join(names)}")
    if isinstance(results, dict) and results.keys() >= set(names):
        given = [results[name] for name in names]
    return np.concatenate([np.asarray(y) for y in given], axis=-1)


def count_samples(y: Array) -> int:
    """Return the number of rows of a result."""
    return int(np.prod(y.shape[:-1]))
