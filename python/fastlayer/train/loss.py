"""`Loss`: what training makes small, its value and its gradient."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer import _core
from fastlayer.arrays import FLOAT64, as_real, cast, declined, promote
from fastlayer.functions.calls import number
from fastlayer.train import sums

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType
    from fastlayer.names import ActivationName, LossName

    Bounds: TypeAlias = tuple[float, float]
    LossLike: TypeAlias = "LossName | NamedLoss | Callable[[Array, Any], tuple[float, Array]]"


_LARGEST = float(np.finfo(np.float64).max)


def _apply(name: str, z: Array) -> Array:
    # Softplus without a threshold: log(1 + e^z) everywhere.
    y = _core.activation(name, z, 1.0, math.inf, None)
    if y is None:
        raise declined()
    return y


class _Terms(NamedTuple):
    """The loss of each row in float64; and the gradient of each element by the row's own loss.

    The latter lacks ``factor / divisor``, which goes into the row's share of the mean.
    """

    losses: Array
    slope: Array
    factor: float
    divisor: int


# Each of these takes the network's output and the targets, both (m, n) of one dtype, and the
# parameter, and between which bounds a cross entropy counts. docs/numerics.md has the formulas.


def _mse(y: Array, t: Array, _: float, __: Bounds) -> _Terms:
    d = y - t
    n = y.shape[1]
    return _Terms(sums.row_dots(d, d) / n, d, 2.0, n)


def _mae(y: Array, t: Array, _: float, __: Bounds) -> _Terms:
    d = y - t
    n = y.shape[1]
    return _Terms(sums.row_sums(np.abs(d)) / n, np.sign(d), 1.0, n)


def _huber(y: Array, t: Array, delta: float, _: Bounds) -> _Terms:
    d = y - t
    n = y.shape[1]
    bound = y.dtype.type(delta)
    wide, limit = np.abs(cast(d, FLOAT64)), float(bound)
    terms = np.where(wide < limit, 0.5 * wide * wide, limit * (wide - 0.5 * limit))
    return _Terms(sums.row_sums(terms) / n, np.clip(d, -bound, bound), 1.0, n)


def _cross_entropy(z: Array, t: Array, smoothing: float, bounds: Bounds) -> _Terms:
    n = z.shape[1]
    if smoothing:
        t = cast((1.0 - smoothing) * cast(t, FLOAT64) + smoothing / n, z.dtype)
    logarithms = np.where(t == 0, z.dtype.type(0), _apply("log_softmax", z))
    whole = cast(sums.row_sums(t), z.dtype)
    slope = _apply("softmax", z) * whole[:, None] - t
    return _Terms(np.clip(-sums.row_dots(t, logarithms), *bounds), slope, 1.0, 1)


def _binary(z: Array, t: Array, _: float, bounds: Bounds) -> _Terms:
    n = z.shape[1]
    wide = cast(t, FLOAT64)
    off, on = (cast(_apply("softplus", a), FLOAT64) for a in (z, -z))
    terms = np.clip(wide * on + (1.0 - wide) * off, *bounds)
    # sigmoid(z) - 1 would lose what is left of 1.
    slope = np.where(t == 1, -_apply("sigmoid", -z), _apply("sigmoid", z) - t)
    return _Terms(sums.row_sums(terms) / n, slope, 1.0, n)


def _poisson(z: Array, t: Array, _: float, __: Bounds) -> _Terms:
    n = z.shape[1]
    rate = _apply("exp", z)
    terms = cast(rate, FLOAT64) - cast(t, FLOAT64) * cast(z, FLOAT64)
    return _Terms(sums.row_sums(terms) / n, rate - t, 1.0, n)


class _Kind(NamedTuple):
    """A line of the table: a loss, its parameter, and the activations that it looks behind."""

    terms: Callable[[Array, Array, float, Bounds], _Terms]
    parameter: str | None = None
    default: float = 0.0
    behind: tuple[ActivationName, ...] = ()
    classes: bool = False  # targets may be class numbers
    least: float = -math.inf  # of the targets
    most: float = math.inf


_KINDS = {
    "mse": _Kind(_mse),
    "mae": _Kind(_mae),
    "huber": _Kind(_huber, "delta", 1.0),
    "cross_entropy": _Kind(
        _cross_entropy, "label_smoothing", 0.0, ("softmax", "log_softmax"), classes=True, least=0.0
    ),
    "binary_cross_entropy": _Kind(_binary, behind=("sigmoid",), least=0.0, most=1.0),
    "poisson": _Kind(_poisson, behind=("exp",), least=0.0),
}


class NamedLoss:
    """A `Loss`, apart from its call.

    Beside a class with a call, pyright would take the parameters of a lambda for those of that call.
    """

    __slots__ = ()


class Loss(NamedLoss):
    """A loss function: the mean over the samples, and its gradient; immutable and picklable.

    Parameters
    ----------
    name : str
        ``"mse"``, the mean of the squares over all elements; ``"mae"``, that of the absolute values;
        ``"huber"`` (Huber, 1964), squares up to `delta` and a line beyond; ``"cross_entropy"``, of the
        softmax of `y`; ``"binary_cross_entropy"``, of the sigmoid of `y`; ``"poisson"``,
        ``exp(y) - t * y``.
    **parameters
        ``delta`` of huber, 1 by default; ``label_smoothing`` of cross entropy, 0 by default
        (Szegedy et al., 2016).

    Raises
    ------
    ValueError
        An unknown name, or a parameter out of its range.
    TypeError
        A parameter that the loss doesn't have.

    Notes
    -----
    Cross entropies and the Poisson loss take the sum *before* a final softmax, sigmoid or exp, so that
    the logarithm of a rounded probability is never taken. `Trainer` and `Network.fit` look behind
    such a layer by themselves.

    Examples
    --------
    >>> import fastlayer as fl
    >>> mse = fl.Loss("mse")
    >>> mse([[1.0, 2.0]], [[0.0, 0.0]])
    2.5
    >>> mse.gradient([[1.0, 2.0]], [[0.0, 0.0]])
    array([[1., 2.]])
    >>> fl.Loss("cross_entropy").gradient([[0.0, 0.0]], [1])
    array([[ 0.5, -0.5]])
    """

    __slots__ = ("_kind", "_name", "_value")
    _name: LossName
    _kind: _Kind
    _value: float
    # How often the value and its gradient count; and a penalty that a trainer adds: this much of
    # half the squares of all weights, not the biases, over the weight of the batch.
    _scales: tuple[float, float] = (1.0, 1.0)
    _penalty: float = 0.0
    # Between which a cross entropy of a sample counts, or the binary one of an output.
    _bounds: Bounds = (-math.inf, math.inf)

    def __init__(self, name: LossName, **parameters: float) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, got {name!r}")
        if name not in _KINDS:
            raise ValueError(f"unknown loss {name!r}; known: {', '.join(_KINDS)}")
        kind = _KINDS[name]
        for key in parameters:
            if key != kind.parameter:
                known = kind.parameter or "no parameters"
                raise TypeError(f"loss {name!r} has no parameter {key!r}; it takes {known}")
        value = kind.default
        for key, given in parameters.items():
            value = number(key, given)
        if kind.parameter == "delta" and not 0 < value < math.inf:
            raise ValueError(f"delta must be positive, got {value}")
        if kind.parameter == "label_smoothing" and not 0 <= value <= 1:
            raise ValueError(f"label_smoothing must be from 0 to 1, got {value}")
        put = object.__setattr__
        put(self, "_name", name)
        put(self, "_kind", kind)
        put(self, "_value", value)

    @property
    def name(self) -> LossName:
        """Name of the loss."""
        return self._name

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters by name, defaults included."""
        return {self._kind.parameter: self._value} if self._kind.parameter else {}

    def __call__(self, y: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean loss of some samples.

        Parameters
        ----------
        y : array_like
            Shape (m, n), or (n,) for one sample: what the network gives; before the softmax,
            sigmoid or exp, where the loss has one of its own.
        t : array_like
            The targets, of the same shape; (m,) where n is 1. For ``"cross_entropy"`` class
            numbers (m,), or a row of probabilities for each sample.
        sample_weight : array_like, optional
            Shape (m,): how much each sample counts; the mean is ``sum(w * l) / sum(w)``.

        Returns
        -------
        float
            The mean.

        Raises
        ------
        ValueError
            Shapes that don't fit; NaN among the targets, class numbers that are none, targets out
            of the range of the loss; weights that are negative or all 0.
        TypeError
            Arrays that are no numbers; class numbers that are no integers.

        Examples
        --------
        >>> import fastlayer as fl
        >>> round(fl.Loss("cross_entropy")([[0.0, 0.0], [0.0, 9.0]], [1, 1]), 4)
        0.3466
        """
        return self._evaluate(y, t, sample_weight)[0]

    def gradient(self, y: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> Array:
        """Return the gradient of the mean loss by `y`.

        Parameters
        ----------
        y : array_like
            Shape (m, n), or (n,) for one sample, as for a call.
        t : array_like
            The targets, as for a call.
        sample_weight : array_like, optional
            Shape (m,): how much each sample counts.

        Returns
        -------
        ndarray
            The shape of `y`, and its dtype where that is float32 or float64.

        Raises
        ------
        ValueError, TypeError
            As for a call.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Loss("mae").gradient([[3.0], [5.0]], [4.0, 4.0])
        array([[-0.5],
               [ 0.5]])
        """
        return self._evaluate(y, t, sample_weight)[1]

    def _evaluate(self, y_: Any, t: Any, sample_weight: Any) -> tuple[float, Array]:
        y = as_real(y_, "y")
        y = cast(y, promote(y.dtype)[0])
        if y.ndim not in (1, 2):
            raise ValueError(f"y must be (m, n), or (n,) for one sample; got shape {y.shape}")
        rows = y if y.ndim == 2 else y[None]
        targets = self._targets(t, rows.shape, rows.dtype, one=y.ndim == 1)
        weights = check_weights(sample_weight, rows.shape[0])
        value, dy = self._of(rows, targets, weights)
        return value, dy.reshape(y.shape)

    def _is_ready(self, t: Any, dtype: DType) -> bool:
        """Whether the core may look at targets as they are: it knows their shape and class numbers."""
        if type(t) is not np.ndarray:
            return False
        if self._kind.classes and t.ndim == 1:
            return bool(t.dtype == np.int64)
        if t.ndim != 2 or t.dtype != dtype or not t.size:
            return False
        low, high = float(t.min()), float(t.max())  # NaN is in no range
        return max(self._kind.least, -_LARGEST) <= low and high <= min(self._kind.most, _LARGEST)

    def _targets(self, t_: Any, shape: tuple[int, int], dtype: DType, one: bool = False) -> Array:
        """Return targets as an array (m, n) of the dtype, class numbers as rows of 0 and 1."""
        t = as_real(t_, "t")
        m, n = shape
        if m == 0:
            raise ValueError("the batch is empty")
        if one:
            t = t[None] if t.ndim < 2 else t
        if self._kind.classes and t.shape in ((m,), (m, 1)) and n > 1:
            return _one_hot(t.reshape(m), n, dtype)
        if n == 1 and t.shape == (m,):
            t = t[:, None]
        if t.shape != shape:
            classes = f", or class numbers ({m},)" if self._kind.classes else ""
            raise ValueError(
                f"t has shape {t.shape}, but {self._name} of y with shape {shape} takes "
                f"{shape}{classes}"
            )
        low, high = self._kind.least, self._kind.most
        with np.errstate(all="ignore"):
            targets = cast(t, dtype)
            # Neither NaN nor what is infinite in the dtype of the network.
            bad = ~((t >= low) & (t <= high) & np.isfinite(targets))
        if bad.any():
            i = tuple(int(d) for d in np.argwhere(bad)[0])
            at_least = f"numbers from {low:g} on"
            bounded = f"from {low:g} to {high:g}" if high < math.inf else at_least
            wanted = bounded if low > -math.inf else f"finite numbers of {dtype}"
            raise ValueError(f"t{list(i)} is {t[i]}; targets of {self._name} are {wanted}")
        return targets

    def _of(self, y: Array, t: Array, weights: Array | None) -> tuple[float, Array]:
        """Return the mean and its gradient for arrays that have been checked."""
        whole = float(y.shape[0]) if weights is None else sums.total(weights)
        value, dy = self._part(y, t, weights, whole)
        return self._scales[0] * (value / whole), dy

    def _part(self, y: Array, t: Array, weights: Array | None, whole: float) -> tuple[float, Array]:
        """Return the sum over some samples of a batch, and their part of the gradient of its mean.

        `whole` is the number of samples in the batch, or the sum of their weights.
        """
        with np.errstate(all="ignore"):
            losses, gradient, factor, divisor = self._kind.terms(y, t, self._value, self._bounds)
            slope = self._scales[1]
            if weights is None:
                value, share = sums.total(losses), np.full((y.shape[0], 1), slope / whole)
            else:
                value, share = sums.dot(weights, losses), (slope * weights / whole)[:, None]
            return value, gradient * cast(factor * share / divisor, y.dtype)

    def __repr__(self) -> str:
        chosen = ""
        if self._kind.parameter and self._value != self._kind.default:
            chosen = f", {self._kind.parameter}={self._value}"
        return f"Loss({self._name!r}{chosen})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and (self._name, self._value) == (other._name, other._value)

    def __hash__(self) -> int:
        return hash((self._name, self._value))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Loss can't be changed; make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Loss can't be changed; make another one")

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Loss, self._name, **self.parameters), ()


def _one_hot(numbers: Array, n: int, dtype: DType) -> Array:
    """Return class numbers as rows with a 1."""
    if numbers.dtype.kind not in "biu":
        whole = numbers.dtype.kind == "f" and np.array_equal(numbers, np.floor(numbers))
        hint = "; pass t.astype(int)" if whole else ""
        raise TypeError(f"class numbers are integers, got dtype {numbers.dtype}{hint}")
    bad = (numbers < 0) | (numbers >= n)
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            f"t[{i}] is {numbers[i]}, but there are {n} outputs: class numbers go from 0 to {n - 1}"
        )
    rows = np.zeros((numbers.size, n), dtype)
    rows[np.arange(numbers.size), numbers.astype(np.intp)] = 1
    return rows


def check_weights(given: Any, m: int) -> Array | None:
    """Return sample weights as float64 (m,), None where there are none."""
    if given is None:
        return None
    weights = cast(as_real(given, "sample_weight"), FLOAT64)
    if weights.shape != (m,):
        raise ValueError(f"sample_weight must have shape ({m},), got {weights.shape}")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("sample_weight must hold finite numbers that are not negative")
    if m and not weights.any():
        raise ValueError("sample_weight is 0 for every sample of the batch")
    return weights


def as_loss(loss: LossLike | None) -> Loss | Callable[..., Any] | None:
    """Return a loss given by name, as an object or as a callable."""
    if loss is None or isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        return Loss(loss)
    if not callable(loss):
        raise TypeError(
            "loss must be a name, an fl.Loss or a callable (y, t) -> (value, dy), got "
            f"{type(loss).__name__}"
        )
    return loss
