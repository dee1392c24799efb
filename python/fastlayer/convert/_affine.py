"""``x * scale + shift`` for each feature: scalers, rescaling and constants beside dense layers.

A converter puts an `Affine` where its source has one and gives the finished list to `fold`, which
works it into a neighbouring layer in float64, rounding once; what finds no layer becomes a part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.functions.activation import Activation
from fastlayer.functions.products import linear
from fastlayer.network.layer import Layer
from fastlayer.network.module import Module
from fastlayer.network.norms import BatchNorm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, DTypeLike

    from fastlayer.arrays import Array
    from fastlayer.network.part import Part


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

    def then(self, other: Affine) -> Affine:
        """Return the affine that does this one, then `other`."""
        return Affine(self.scale * other.scale, self.shift * other.scale + other.shift)


def affine(
    scale: ArrayLike, shift: ArrayLike, dtype: DTypeLike, features: int | None = None
) -> Part:
    """Return a part of a network that computes ``x * scale + shift``.

    Scale and shift are rounded to `dtype`; `features` is needed where both are numbers.
    """
    a, b = Affine.of(scale, shift)
    if a.ndim == b.ndim == 0 and features is None:
        if a == 1 and b == 0:
            return Activation("identity")
        raise ValueError("affine needs features= where scale and shift are numbers")
    n = features if features is not None else max(a.size, b.size)
    a, b = (np.broadcast_to(v, (n,)) for v in (a, b))
    return BatchNorm(n, eps=0.0, weight=a, bias=b, dtype=dtype)


def fold(parts: Iterable[Any], dtype: DTypeLike, features: int | None = None) -> list[Any]:
    """Return `parts` with every `Affine` in them worked into a layer.

    That is the layer before it, where that has no activation, else the layer after it, else a
    part of its own. A shift so large that it would cancel in the layer's sums stays in front of it,
    as a subtraction. `features` is the number that the first part gets, for an `Affine` of numbers
    that finds no layer; a ValueError says so where it is missing.
    """
    result: list[Any] = []
    for part in parts:
        last = result[-1] if result else None
        if isinstance(part, Affine):
            if isinstance(last, Affine):
                result[-1] = last.then(part)
            elif isinstance(last, Layer) and last.activation == Activation("identity"):
                result[-1] = _after(last, part)
            else:
                result.append(part)
        elif isinstance(last, Affine) and isinstance(part, Layer):
            result[-1:] = _in_front(last, part)
        else:
            result.append(part)
    return unfolded(result, dtype, features)


def unfolded(parts: Iterable[Any], dtype: DTypeLike, features: int | None = None) -> list[Any]:
    """Return `parts` with every `Affine` in them as a part of its own; see `fold`."""
    result: list[Any] = []
    width = features
    for part in parts:
        made = affine(part.scale, part.shift, dtype, width) if isinstance(part, Affine) else part
        result.append(made)
        if not isinstance(made, Module):
            width = width if isinstance(made, Activation | str) else None
        elif made.out_features is not None or not made._sizes.keeps:
            width = made.out_features
    return result


def fused(parts: Iterable[Any]) -> list[Any]:
    """Return `parts` with each activation in the layer before it, where that has none."""
    result: list[Any] = []
    for part in parts:
        last = result[-1] if result else None
        behind = isinstance(part, Activation) and isinstance(last, Layer)
        if last is not None and behind and last.activation == Activation("identity"):
            last.activation = part
        else:
            result.append(part)
    return result


def _in_front(a: Affine, layer: Layer) -> list[Part]:
    if not np.abs(a.shift).max() > CANCELS or not a.scale.all():
        return [_before(a, layer)]
    shift = affine(1.0, a.shift / a.scale, layer.dtype, layer.in_features)
    # The activation does nothing but keep the network from folding its neighbours.
    return [shift, Activation("identity"), _before(Affine.of(a.scale), layer)]


def _after(layer: Layer, a: Affine) -> Layer:
    w, b = _wide(layer)
    scale = np.broadcast_to(a.scale, b.shape)
    with np.errstate(all="ignore"):
        w, b = w * scale[:, None], b * scale + a.shift
    return Layer.from_arrays(w, b, layer.activation, dtype=layer.dtype)


def _before(a: Affine, layer: Layer) -> Layer:
    w, b = _wide(layer)
    k = (layer.in_features,)
    # fastlayer's product: NumPy's has other bits on another machine.
    total = linear(np.broadcast_to(a.shift, k).copy(), w, b)
    with np.errstate(all="ignore"):
        w = w * np.broadcast_to(a.scale, k)
    return Layer.from_arrays(w, total, layer.activation, dtype=layer.dtype)


def _wide(layer: Layer) -> tuple[Array, Array]:
    bias = layer.bias
    b = np.zeros(layer.out_features) if bias is None else bias.astype(np.float64)
    return layer.weight.astype(np.float64), b
