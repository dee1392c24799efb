"""The steps that a compiled network takes: programs of the core, and what Python does in between.

A step takes an array and returns the next one, or None where its program has been overtaken by an
update of some layer and the network must be compiled again.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastlayer import _core
from fastlayer.arrays import as_real, cast, declined
from fastlayer.errors import ShapeMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType


class ProgramStep:
    """A stretch of operations that the core runs."""

    def __init__(self, program: _core.Program) -> None:
        self.program = program
        self.run = program.run
        self.in_features = program.in_features
        self.out_features = program.out_features

    def __call__(self, x: Array, target: Array | None = None) -> Array | None:
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ShapeMismatch(self.in_features, x.shape)
        y = self.run(x, target)
        if y is not None or _core.epoch() != self.program.epoch:
            return y
        if target is not None:  # of a kind that the core doesn't write to, e.g. misaligned
            y = self.run(x)
            if y is not None:
                target[...] = y
                return target
        if _core.epoch() != self.program.epoch:
            return None
        raise declined()


class FlattenStep:
    """Everything but the first axis becomes features, in C order."""

    def __call__(self, x: Array) -> Array | None:
        return flatten(x)


def flatten(x: Array) -> Array:
    """Return `x` as (m, features); arrays of one or two dimensions are that already."""
    return x.reshape(x.shape[0], prod(x.shape[1:])) if x.ndim > 2 else x


class CallStep:
    """A function of the user's, or an activation before the number of features is known."""

    def __init__(self, function: Callable[..., Any], dtype: DType, keeps_shape: bool) -> None:
        self.function = function
        self.dtype = dtype
        self.keeps_shape = keeps_shape

    def __call__(self, x: Array) -> Array | None:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        y = as_real(self.function(cast(x, self.dtype)), f"the result of {name}")
        if self.keeps_shape and y.shape != x.shape:
            raise ValueError(
                f"activation {name} returned shape {y.shape} for an array of shape {x.shape}; "
                "an activation keeps the shape"
            )
        return cast(y, self.dtype)


class ResidualStep:
    """The input of some steps, added to their output."""

    def __init__(self, steps: list[Step], dtype: DType) -> None:
        self.steps = steps
        self.dtype = dtype

    def __call__(self, x: Array) -> Array | None:
        x = cast(x, self.dtype)
        # A function of the user's might write into what it is given.
        y: Array | None = x.copy() if isinstance(self.steps[0], CallStep) else x
        for step in self.steps:
            if y is None:
                return None
            y = step(y)
        if y is None:
            return None
        if y.shape != x.shape:
            raise ValueError(
                f"Residual: the layers give shape {y.shape} for an input of shape {x.shape}, "
                "and a sum needs both alike"
            )
        with np.errstate(all="ignore"):
            total: Array = y + x
        return total


Step: TypeAlias = ProgramStep | FlattenStep | CallStep | ResidualStep
