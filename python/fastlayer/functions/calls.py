"""How an activation function is called with what the core declines as it is, and its parameters."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import _core
from fastlayer.arrays import as_real, evaluate, is_weak, normalize_axis, promote

if TYPE_CHECKING:
    from fastlayer.arrays import Array

_NOT_REAL = (str, bytes, complex, np.complexfloating)


def number(name: str, value: object) -> float:
    """Return a parameter of an activation as a float, refusing what is not a real number."""
    if type(value) is float and not isnan(value):
        return value
    try:
        if isinstance(value, _NOT_REAL):
            raise TypeError
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {value!r}") from None
    if isnan(result):
        raise ValueError(f"{name} must be a number, got nan")
    return result


def finish(name: str, p0: float, p1: float, x: Any, out: Array | None) -> Array:
    """Complete an elementwise call whose arguments the core has declined as they are."""
    a = as_real(x)

    def run(a: Array, target: Array | None) -> Array | None:
        return _core.activation(name, a, p0, p1, target)

    return evaluate(run, a, promote(a.dtype), a.shape, out)


def rowwise(name: str, x: Any, axis: int, out: Array | None) -> Array:
    """Softmax and log-softmax along any axis."""
    if axis == -1:
        y = _core.activation(name, x, 0.0, 0.0, out)
        if y is not None:
            return y
    a = as_real(x)
    if a.ndim == 0:
        raise ValueError(f"{name} needs an axis to sum over, and x is a scalar")
    axis = normalize_axis(axis, a.ndim)

    def run(a: Array, target: Array | None) -> Array | None:
        y = np.empty(a.shape, a.dtype) if target is None else target
        rows, moved = np.moveaxis(a, axis, -1), np.moveaxis(y, axis, -1)
        return None if _core.activation(name, rows, 0.0, 0.0, moved) is None else y

    return evaluate(run, a, promote(a.dtype), a.shape, out)


def apply_prelu(x: Any, weight: Any, out: Array | None, *, weak: bool = False) -> Array:
    """PReLU with a slope for all (a number, or one element) or one for each feature.

    With `weak` the slope takes the dtype of `x`, as a Python number does.
    """
    y = _core.prelu(x, weight, out)
    if y is not None:
        return y
    weak = weak or is_weak(weight)
    a, slope = as_real(x), as_real(weight, "weight")
    dtypes = promote(a.dtype) if weak else promote(a.dtype, slope.dtype)
    check_slope(slope)
    if slope.size == 1:
        # One slope for every element is leaky_relu, whatever the shape of x.
        p0 = float(slope.reshape(())[()])

        def run(a: Array, target: Array | None) -> Array | None:
            return _core.activation("leaky_relu", a, p0, 0.0, target)

        return evaluate(run, a, dtypes, a.shape, out)
    if a.ndim == 0 or a.shape[-1] != slope.size:
        raise ValueError(
            f"prelu: weight of shape {slope.shape} holds {slope.size} slopes, "
            f"but x of shape {a.shape} has other features along its last axis"
        )
    with np.errstate(all="ignore"):
        vector = np.ascontiguousarray(slope, dtype=dtypes[0])
    return evaluate(lambda a, target: _core.prelu(a, vector, target), a, dtypes, a.shape, out)


def check_slope(slope: Array) -> None:
    """Refuse PReLU weights that are neither a number nor a vector."""
    if slope.ndim > 1:
        raise ValueError(
            f"prelu: weight must be a number, (1,) or (n,) along the last axis, "
            f"got shape {slope.shape}"
        )
