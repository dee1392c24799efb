"""Hand-written activation functions: which of fastlayer's computes the same.

A function is compared on numbers of all sizes. One that none of fastlayer's matches stays a Python
function, which is slower and never wrong.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import is_weak
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fastlayer.arrays import Array

    Function = Callable[..., Any]

# A definition written with NumPy rounds numbers of size 1 + |f| about this often.
_ROUNDINGS = 16
_FIRST = ("relu", "sigmoid", "tanh", "identity")
_OTHERS = (
    *("softmax", "exp", "log_softmax", "gelu", "silu", "selu", "relu6", "hardtanh", "softsign"),
    *("mish", "hardsigmoid", "hardswish", "log_sigmoid"),
)
# Written by hand, softplus has no threshold; above 40 the difference is below rounding.
_SOFTPLUS = Activation("softplus", threshold=40.0)
_GELU_TANH = Activation("gelu", approximate="tanh")

# For hidden layers of which only the end result is known.
GUESSES = (
    *map(named, ("relu", "sigmoid", "tanh")),
    *(Activation("leaky_relu", negative_slope=slope) for slope in (0.01, 0.1, 0.2, 0.3)),
    *(Activation("elu"), _SOFTPLUS),
    *map(named, ("identity", "gelu", "silu", "selu", "softsign", "softmax", "mish", "relu6")),
    _GELU_TANH,
)


class Oriented:
    """A function of the user's for arrays whose last axis is the features.

    Parameters
    ----------
    function : callable
        Array to array, as the user wrote it.
    form : {"rows", "columns", "vector"}
        What the samples are in the array that it expects.
    """

    __module__ = "fastlayer"  # where pickles find it

    def __init__(self, function: Function, form: str) -> None:
        self.function = function
        self.form = form
        self.__name__: str = getattr(function, "__name__", type(function).__name__)

    def __call__(self, a: Array) -> Any:
        """Call it with `a` the way round that it expects."""
        if self.form == "columns":
            return np.asarray(self.function(a.T)).T
        if self.form == "vector" and a.ndim > 1:
            return np.stack([self.function(row) for row in a])
        return self.function(a)

    def of_copy(self, a: Array) -> Any:
        """Call it with an array that it may write to, and which it finds in C order."""
        return self(a.copy("F" if self.form == "columns" else "C"))

    def attempt(self, z: Array) -> Array | None:
        """Return what it makes of the rows of `z`; None where it fails or changes their number."""
        with np.errstate(all="ignore"):
            try:
                y = np.asarray(self.of_copy(z))
            except Exception:  # noqa: BLE001  # whatever a function of the user's raises
                return None
        return y if y.ndim == 2 and len(y) == len(z) and y.dtype.kind == "f" else None


def beside_rows(bias: Any) -> Any:
    """Return a bias that NumPy broadcasts against columns for the same samples as rows."""
    if type(bias) is np.ndarray and bias.ndim == 2:
        return bias.T
    return bias if is_weak(bias) else np.atleast_2d(bias).T


def recognise(function: Function, form: str, name: str) -> Activation | Function:
    """Return the activation that computes the same as `function`, or the function itself.

    Raises
    ------
    ConversionError
        It is no activation.
    """
    oriented, z = Oriented(function, form), _probe()
    y = oriented.attempt(z)
    if y is None or y.shape != z.shape:
        raise ConversionError(
            name,
            "it is neither a dense layer with an array called W or weights nor a function that "
            "takes an array of any size and returns one of the same shape",
        )
    return match(z, y, 0.0) or (function if form == "rows" else oriented)


def match(
    z: Array, y: Array, error: Array | float, known: Iterable[Activation] = ()
) -> Activation | None:
    """Return the activation that makes `y` of `z`, which is known up to `error`, or None.

    That is one that gives `y` but for rounding, where `y` is finite; `known` are tried first.
    """
    finite = np.isfinite(y)
    if y.shape != z.shape or finite.mean() < 0.5:
        return None
    # Slopes are at most about 1; where a formula overflows there is nothing to compare with.
    with np.errstate(all="ignore"):
        near = _ROUNDINGS * float(np.finfo(y.dtype).eps) * (1 + np.abs(y)) + 2 * error
        for candidate in chain(known, _candidates(z, y)):
            if (np.abs(candidate(z) - y) <= near)[finite].all():
                return candidate
    return None


def _probe() -> Array:
    """Return numbers of all sizes, mixed in rows and columns; the last rows are too large for exp."""
    sizes = np.logspace(-8, 4, 100)
    values = np.concatenate([np.linspace(-12, 12, 401), sizes, -sizes, [0.0, -30.0]])
    rng = np.random.default_rng(5)
    large = np.abs(values) > 30
    mixed = np.concatenate([rng.permutation(values[~large]), rng.permutation(values[large])])
    return np.resize(mixed, (67, 9))


def _candidates(z: Array, y: Array) -> Iterator[Activation]:
    """Yield the activations that `y` may be of `z`, slopes read off both."""
    yield from map(named, _FIRST)
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
    yield from (_SOFTPLUS, Activation("softplus"), *map(named, _OTHERS), _GELU_TANH)
