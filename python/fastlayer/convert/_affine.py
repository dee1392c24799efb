"""``x * scale + shift`` for each feature: scalers, rescaling and constants beside dense layers.

A converter puts an `Affine` where its source has one; `_graph` makes parts of a network of it, and
the network, when it is compiled, folds those into the dense layers beside them, in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.functions.activation import Activation
from fastlayer.network.norms import BatchNorm

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType

# Where a shift is larger, the sum cancels: years as (x - 2010) / 5 lose a factor of 400 in accuracy
# when 400 w goes into the bias. Results of size 1 are what scalers are for; four bits are let go.
CANCELS = 16.0


class Affine(NamedTuple):
    """``x * scale + shift`` in float64, each (n,), or () for any number of features."""

    scale: Array
    shift: Array

    @classmethod
    def of(cls, scale: ArrayLike = 1.0, shift: ArrayLike = 0.0) -> Affine:
        """Make one from numbers or vectors of any real dtype; a single element is a number."""
        a, b = (np.asarray(v, np.float64) for v in (scale, shift))
        a, b = (v.reshape(()) if v.size == 1 else v.reshape(-1) for v in (a, b))
        return cls(a, b)

    @property
    def in_features(self) -> int | None:
        """Number of features, None for numbers, which go with any."""
        return None if self.scale.ndim == self.shift.ndim == 0 else max(map(np.size, self))

    @property
    def shifts(self) -> bool:
        """Whether it is a bias: all scales are exactly 1."""
        return bool((self.scale == 1).all())

    def then(self, other: Affine) -> Affine | None:
        """Return the affine that does this one, then `other`.

        None where float64 has no room for it, or where the shifts cancel: then the one after the
        other rounds more, and whoever compares results has to see that.
        """
        with np.errstate(all="ignore"):
            moved = self.shift * other.scale
            both = Affine(self.scale * other.scale, moved + other.shift)
        room = all(np.isfinite(v).all() for v in both)
        return both if room and (np.abs(moved) <= CANCELS * np.abs(both.shift)).all() else None

    def parts(self, features: int, dtype: DType, in_front: bool = False) -> list[Any]:
        """Return the parts of a network that compute this, rounded to its dtype.

        Parameters
        ----------
        features : int
            How many there are.
        dtype : dtype
            That of the network.
        in_front : bool
            A dense layer follows, and takes this in. A shift so large that it would cancel in the
            layer's sums becomes a subtraction of its own.

        Returns
        -------
        list
            BatchNorms, which are folded into their neighbours.
        """
        a, b = (np.broadcast_to(v, (features,)) for v in self)

        def norm(scale: Array, shift: Array | None) -> BatchNorm:
            return BatchNorm(features, 0.0, scale, shift, dtype=dtype)

        if not in_front or not np.abs(b).max() > CANCELS or not a.all():
            return [norm(a, b)]
        # The activation does nothing but keep the network from folding its neighbours.
        apart = [norm(np.ones(features), b / a), Activation("identity")]
        return apart if self.shifts else [*apart, norm(a, None)]
