"""Hand-written activation functions: which of fastlayer's computes the same.

A function is compared on numbers of all sizes. One that none of fastlayer's matches stays a Python
function, which is slower and never wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlayer.arrays import Array

# A definition written with NumPy rounds numbers of size 1 + |f| about this often.
ROUNDINGS = 16
ROWS, FEATURES = 67, 9  # of the probe, which mixes sizes in both directions
HAND_WRITTEN = (
    *("relu", "sigmoid", "tanh", "identity", "softmax", "exp", "log_softmax", "gelu", "silu"),
    *("selu", "relu6", "hardtanh", "softsign", "mish", "hardsigmoid", "hardswish", "log_sigmoid"),
)


def probe() -> Array:
    """Return numbers of all sizes, (rows, features); the last rows are too large for exp."""
    sizes = np.logspace(-8, 4, 100)
    values = np.concatenate([np.linspace(-12, 12, 401), sizes, -sizes, [0.0, -30.0]])
    rng = np.random.default_rng(5)
    large = np.abs(values) > 30
    mixed = np.concatenate([rng.permutation(values[~large]), rng.permutation(values[large])])
    return np.resize(mixed, (ROWS, FEATURES))


def recognise(function: Callable[[Array], Any], form: str) -> Activation | None:
    """Return the activation that computes the same as `function`, or None.

    Parameters
    ----------
    function : callable
        Array to array, as the user wrote it.
    form : {"rows", "columns", "vector"}
        What the samples are in the array that it gets.
    """
    z = probe()
    y = apply(function, z, form)
    return None if y is None else match(z, y, 0.0)


def apply(function: Callable[[Array], Any], z: Array, form: str) -> Array | None:
    """Return `function` of the rows of `z`; None where it fails or changes their number."""
    with np.errstate(all="ignore"):
        try:
            if form == "vector":
                y = np.stack([function(row.copy()) for row in z])
            else:
                y = np.asarray(function(z.T.copy() if form == "columns" else z.copy()))
        except Exception:  # noqa: BLE001  # whatever a function of the user's raises
            return None
    y = y.T if form == "columns" else y
    return y if y.ndim == 2 and len(y) == len(z) and y.dtype.kind == "f" else None


def match(z: Array, y: Array, error: Array | float) -> Activation | None:
    """Return the activation that makes `y` of `z`, which is known up to `error`, or None."""
    if y.shape != z.shape or np.isfinite(y).mean() < 0.5:
        return None
    for candidate in candidates(z, y):
        if same(candidate, z, y, error):
            return candidate
    return None


def same(candidate: Activation, z: Array, y: Array, error: Array | float) -> bool:
    """Whether `y` is the activation of `z` but for rounding, where `y` is finite."""
    # Slopes are at most about 1; where a formula overflows there is nothing to compare with.
    with np.errstate(all="ignore"):
        rounding = ROUNDINGS * float(np.finfo(y.dtype).eps) * (1 + np.abs(y))
        close = np.abs(candidate(z) - y) <= rounding + 2 * error
    return bool((close | ~np.isfinite(y)).all())


def candidates(z: Array, y: Array) -> Iterator[Activation]:
    """Yield the activations that `y` may be of `z`, slopes read off both."""
    for name in HAND_WRITTEN[:4]:
        yield Activation(name)
    at = np.unravel_index(np.argmin(np.where(np.isfinite(y), z, np.inf)), z.shape)
    low, value = float(z[at]), float(y[at])
    if low < 0 and value < 0:
        # Ten digits first: 0.1 rather than what is left of it after a division.
        for slope in (float(f"{value / low:.10g}"), value / low):
            yield Activation("leaky_relu", negative_slope=slope)
        alpha = value / np.expm1(low)
        for scale in (float(f"{alpha:.10g}"), alpha):
            yield Activation("elu", alpha=scale)
            yield Activation("celu", alpha=scale)
    # Written by hand, softplus has no threshold; above 40 the difference is below rounding.
    yield Activation("softplus", threshold=40.0)
    yield Activation("softplus")
    for name in HAND_WRITTEN[4:]:
        yield Activation(name)
    yield Activation("gelu", approximate="tanh")


def guesses() -> Iterator[Activation]:
    """Yield activations for hidden layers of which only the end result is known."""
    for name in ("relu", "sigmoid", "tanh"):
        yield Activation(name)
    for slope in (0.01, 0.1, 0.2, 0.3):
        yield Activation("leaky_relu", negative_slope=slope)
    yield Activation("elu")
    yield Activation("softplus", threshold=40.0)
    for name in ("identity", "gelu", "silu", "selu", "softsign", "softmax", "mish", "relu6"):
        yield Activation(name)
    yield Activation("gelu", approximate="tanh")
