"""The forward pass of one layer with its weighted sum kept: (a, z)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastlayer.arrays import check_out, normalize_axis
from fastlayer.functions.activation import IDENTITY, Activation
from fastlayer.network.module import Module
from fastlayer.run.compile import Dense
from fastlayer.run.steps import CallStep

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType
    from fastlayer.network._layer_state import State
    from fastlayer.run.compile import Op


class _Sums(Module):
    """A layer without its activation."""

    def __init__(self, title: str, layer: Module, state: State) -> None:
        self._name = title
        self._dtype = layer.dtype
        self._state = state

    @property
    def in_features(self) -> int:
        return self._state.packed.in_features

    def _lower(self, dtype: DType) -> list[Op]:
        return [Dense(self._state.packed, IDENTITY)]

    def _title(self) -> str:
        return self._name


def forward_with_sums(
    layer: Module, title: str, state: State, x: ArrayLike, axis: int, out: Array | None
) -> tuple[Array, Array]:
    """Return (a, z); the activation applied to z gives the bits of the fused one."""
    z = _Sums(title, layer, state)(x, axis=axis)
    a = np.empty(z.shape, z.dtype) if out is None else check_out(out, z.shape, z.dtype)
    at = normalize_axis(axis, z.ndim)
    rows, target = np.moveaxis(z, at, -1), np.moveaxis(a, at, -1)
    activation = state.activation
    if isinstance(activation, Activation):
        activation(rows, out=target)
    else:
        # A copy: the function may write into what it is given.
        result = CallStep(activation, z.dtype, keeps_shape=True)(rows.copy())
        assert result is not None  # calls never go stale
        target[...] = result
    return (a if out is None else out), z
