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
    """``x * scale + shift`` in float64, each (n,), or () for any number of features.

    Where it is known to be ``(x - centre) * scale``, `centre` says so: the digits that features far
    from zero have in common are lost in the shift.
    """

    scale: Array
    shift: Array
    centre: Array | None = None

    @classmethod
    def of(cls, scale: ArrayLike = 1.0, shift: ArrayLike = 0.0) -> Affine:
        """Make one from numbers or vectors of any real dtype; a single element is a number."""
        a, b = _vector(scale), _vector(shift)
        return cls(a, b, -b if (a == 1).all() else None)

    @classmethod
    def centred(cls, centre: ArrayLike, scale: ArrayLike) -> Affine:
        """Make ``(x - centre) * scale``."""
        c, a = _vector(centre), _vector(scale)
        return cls(a, -c * a, c)

    @property
    def in_features(self) -> int | None:
        """Number of features, None for numbers, which go with any."""
        numbers = self.scale.ndim == self.shift.ndim == 0
        return None if numbers else max(self.scale.size, self.shift.size)

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
            centre = None if other.shift.any() else self.centre
            both = Affine(self.scale * other.scale, moved + other.shift, centre)
        room = np.isfinite(both.scale).all() and np.isfinite(both.shift).all()
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
        a, b = (np.broadcast_to(v, (features,)) for v in (self.scale, self.shift))

        def norm(scale: Array, shift: Array | None) -> BatchNorm:
            return BatchNorm(features, 0.0, scale, shift, dtype=dtype)

        if not in_front or not np.abs(b).max() > CANCELS or not a.all():
            return [norm(a, b)]
        before = b / a if self.centre is None else np.broadcast_to(-self.centre, (features,))
        # The activation does nothing but keep the network from folding its neighbours.
        apart = [norm(np.ones(features), before), Activation("identity")]
        return apart if self.shifts else [*apart, norm(a, None)]


def _vector(value: ArrayLike) -> Array:
    v: Array = np.asarray(value, np.float64)
    return v.reshape(()) if v.size == 1 else v.reshape(-1)
