"""Samples that are trained on a batch at a time: arrays, memory-mapped ones and streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import as_real, cast
from fastlayer.train.loss import Loss, check_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlayer.arrays import Array, DType


class Samples:
    """All samples with their targets and weights, checked before the first step.

    The network they are for gives `n` outputs and computes in `dtype`.
    """

    _for_core: tuple[Array, Array, Array | None] | None = None

    def __init__(
        self, x: Any, t: Any, sample_weight: Any, loss: object, n: int | None, dtype: DType
    ) -> None:
        # A tuple is several inputs.
        several = isinstance(x, tuple)
        self.inputs = [rows_of(a) for a in x] if several else [rows_of(x)]
        self.several = several
        self.number = self.inputs[0].shape[0] if self.inputs[0].ndim else 0
        if any(a.ndim < 2 or a.shape[0] != self.number for a in self.inputs):
            shapes = ", ".join(str(a.shape) for a in self.inputs)
            raise ValueError(f"x must be rows of samples (N, k), got {shapes}")
        if self.number == 0:
            raise ValueError("there are no samples")
        if isinstance(loss, Loss):
            assert n is not None  # a network with weights knows
            self.targets = _checked(loss, t, self.number, n, dtype)
        else:
            self.targets = t if isinstance(t, np.ndarray) else np.asarray(t)
            if self.targets.ndim == 0 or self.targets.shape[0] != self.number:
                raise ValueError(
                    f"t has shape {self.targets.shape}, and there are {self.number} samples"
                )
        # Of class numbers there is one for each sample.
        self.classes = isinstance(loss, Loss) and loss._kind.classes and self.targets.ndim == 1
        self._shape, self._dtype = (self.number, n or 1), dtype
        self.weights = check_weights(sample_weight, self.number)
        if self.weights is not None and not isinstance(loss, Loss):
            raise ValueError("a loss of one's own has to see to the weights of samples itself")

    def order(self, order: Any) -> Array:
        """Return indices that have been checked; all of them for None."""
        if order is None:
            return np.arange(self.number)
        chosen = np.asarray(order)
        if chosen.shape == (0,):
            return chosen.astype(np.intp)
        if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
            raise TypeError("order must be a vector of integers")
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.number):
            raise ValueError(f"order holds indices beyond 0 to {self.number - 1}")
        return chosen

    def check_batches(self, order: Array, size: int) -> None:
        """Refuse a batch in which no sample counts."""
        if self.weights is None or not order.size:
            return
        begins = np.arange(0, order.size, size)
        idle = np.flatnonzero(np.maximum.reduceat(self.weights[order], begins) == 0)
        if idle.size:
            raise ValueError(f"sample_weight is 0 for every sample of batch {idle[0]}")

    def inputs_at(self, at: Array) -> Any:
        """Return some of the samples, a tuple of several inputs."""
        rows = [a[at] for a in self.inputs]
        return tuple(rows) if self.several else rows[0]

    def for_core(self) -> tuple[Array, Array, Array | None] | None:
        """Return rows, targets and weights as the core takes them; None where it can't."""
        if self.several or not isinstance(self.inputs[0], np.ndarray):
            return None
        if self._for_core is None:
            rows = self.inputs[0].reshape(self.number, -1)
            if self.classes:
                targets = cast(self.targets, np.dtype(np.int64))
            else:
                targets = cast(self.targets.reshape(self._shape), self._dtype)
            self._for_core = rows, targets, self.weights
        return self._for_core

    def batches(self, order: Array, size: int) -> Iterator[tuple[Any, Array, Array | None]]:
        """Yield samples, targets and weights, `size` at a time."""
        for begin in range(0, order.size, size):
            at = order[begin : begin + size]
            weights = None if self.weights is None else self.weights[at]
            yield self.inputs_at(at), self.targets[at], weights


def rows_of(x: Any) -> Any:
    """Return samples as an array; a Dask array as it is, of which only batches are computed."""
    return x if hasattr(x, "dask") else as_real(x)


def _checked(loss: Loss, t: Any, number: int, n: int, dtype: DType) -> Array:
    """Return targets of the right shape; class numbers stay what they are."""
    given = as_real(t, "t")
    if loss._kind.classes and given.shape in ((number,), (number, 1)) and n > 1:
        given = given.reshape(number)
        if given.dtype.kind in "biu" and given.size:
            low, high = int(given.min()), int(given.max())
            if low >= 0 and high < n:
                return given
    loss._targets(given, (number, n), dtype)
    return given
