"""The steps that a compiled network takes: programs of the core, and what Python does in between."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import as_real, as_result, cast, check_out, declined
from fastlayer.errors import ShapeMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer import _core
    from fastlayer.arrays import Array, DType


def decline(x: Any, out: Any = None, /) -> Array | None:
    """Stand in for a program where there is none yet, or not a single one."""
    return None


class Step:
    """Base of the steps: an array in, an array out."""

    run: Callable[..., Array | None] = staticmethod(decline)
    flattens = False

    def __call__(self, x: Array) -> Array:
        """Return what the next step gets."""
        raise NotImplementedError

    def last(self, y: Array, x: Array, axis: int, out: Array | None, dtype: DType) -> Array:
        """Take the last step, from `y`, and deliver the result with its features along `axis`.

        `x` is what the first step got, `axis` is negative.
        """
        y = cast(self(y), dtype)
        if axis != -1:
            y = np.moveaxis(y, -1, axis)
        if out is None:
            # The caller owns the result: it must not be the input in another guise.
            fresh = y.copy() if np.may_share_memory(x, y) else np.ascontiguousarray(y)
            return as_result(fresh.reshape(y.shape))
        check_out(out, y.shape, dtype)[...] = y
        return out

    def describe(self, samples: int) -> str:
        """Return how the core cuts a call up, nothing where Python takes the step."""
        return ""


class ProgramStep(Step):
    """A stretch of operations that the core runs."""

    def __init__(self, program: _core.Program) -> None:
        self.program = program
        self.run = program.run
        self.in_features = program.in_features
        self.out_features = program.out_features

    def __call__(self, x: Array) -> Array:
        self._check(x)
        y = self.run(x)
        if y is None:
            raise declined()
        return y

    def last(self, y: Array, x: Array, axis: int, out: Array | None, dtype: DType) -> Array:
        self._check(y)
        lead = y.shape[:-1]
        place = len(lead) + 1 + axis
        shape = (*lead[:place], self.out_features, *lead[place:])
        target = np.empty(shape, dtype) if out is None else check_out(out, shape, dtype)
        rows = np.moveaxis(target, axis, -1) if axis != -1 else target
        if self.run(y, rows) is None:  # the core doesn't write there, e.g. where it is misaligned
            rows[...] = self(y)
        return target if out is None else out

    def _check(self, x: Array) -> None:
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ShapeMismatch(self.in_features, x.shape)

    def describe(self, samples: int) -> str:
        return self.program.describe(samples)


class FlattenStep(Step):
    """Everything but the first axis becomes features, in C order."""

    flattens = True

    def __call__(self, x: Array) -> Array:
        return flatten(x)


def flatten(x: Array) -> Array:
    """Return `x` as (m, features); arrays of one or two dimensions are that already."""
    return x.reshape(x.shape[0], prod(x.shape[1:])) if x.ndim > 2 else x


class CallStep(Step):
    """A function of the user's, or an activation before the number of features is known."""

    def __init__(self, function: Callable[..., Any], dtype: DType, keeps_shape: bool) -> None:
        self.function = function
        self.dtype = dtype
        self.keeps_shape = keeps_shape

    def __call__(self, x: Array) -> Array:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        y = as_real(self.function(cast(x, self.dtype)), f"the result of {name}")
        if self.keeps_shape and y.shape != x.shape:
            raise ValueError(
                f"activation {name} returned shape {y.shape} for an array of shape {x.shape}; "
                "an activation keeps the shape"
            )
        return cast(y, self.dtype)


class ResidualStep(Step):
    """The input of some steps, added to their output."""

    def __init__(self, steps: list[Step], dtype: DType) -> None:
        self.steps = steps
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = cast(x, self.dtype)
        # A function of the user's might write into what it is given.
        y = x.copy() if isinstance(self.steps[0], CallStep) else x
        for step in self.steps:
            y = step(y)
        if y.shape != x.shape:
            raise ValueError(
                f"Residual: the layers give shape {y.shape} for an input of shape {x.shape}, "
                "and a sum needs both alike"
            )
        with np.errstate(all="ignore"):
            total: Array = y + x
        return total
