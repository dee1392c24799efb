"""How far two right implementations of a network may be apart: a bound on rounding, per element.

The bound is carried forward beside the values, part by part, in float64. ``u`` is half the
machine epsilon of the dtype. A sum of k terms makes about k roundings, each ``u`` times the
partial sum that is rounded. Signs of roundings are as good as independent (Higham & Mary, "A new
approach to probabilistic rounding error analysis", 2019): their sum stays below
``SPREAD * sqrt(k) * u`` times the largest partial sum with probability
``1 - 2 exp(-SPREAD**2 / 2)``, and errors of the inputs go through the weights as
``sqrt(sum(w**2 * e**2))``. Worst-case bounds, k in the place of ``sqrt(k)`` and ``sum(|w| e)``,
grow so fast with depth that after three wide layers they would let anything pass.

Partial sums are looked at in a few places, in the order of the features; ``norm(w * x)`` stands
for what happens between those. An activation that is computed as its definition reads goes through
numbers of size ``1 + |f(z)|``, each rounded `STEPS` times at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer import _core
from fastlayer.run.ops import (
    AffineOp,
    CallOp,
    DenseOp,
    FlattenOp,
    JoinOp,
    OneRowOp,
    RowsOp,
    SliceOp,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer.arrays import Array, DType
    from fastlayer.network.network import Network
    from fastlayer.run.ops import Op

SPREAD = 8.0  # deviations: 1 - 2e-14 for each element
STEPS = 8.0
PLACES = 8  # where partial sums are looked at
CHUNK = 1 << 17  # weights in float64 at a time: 1 MB, which stays in the caches between its uses

# Kernels that choose among numbers and round at most one product or difference.
_SELECTIONS = {
    *("identity", "relu", "hardtanh", "leaky_relu", "prelu"),
    *("threshold", "hardshrink", "softshrink"),
}


class State(NamedTuple):
    """Values, the bound of their error, and what the next sum has to know."""

    value: Array
    error: Array
    size: Array | None  # of what a folded affine adds up to the values, where it is larger
    terms: int  # of the sum that an affine would be folded into


class Rounding(NamedTuple):
    """The dtype's numbers; both implementations err, hence the 2."""

    unit: float
    tiny: float
    top: float

    @classmethod
    def of(cls, dtype: DType) -> Rounding:
        """Return those of float32 or float64."""
        info = np.finfo(dtype)
        return cls(2 * SPREAD * float(info.eps) / 2, float(info.tiny), float(info.max) / 16)


def rounding_bound(net: Network, x: Array, top: float | None = None) -> Array:
    """Bound the difference between two implementations of `net` at the rows `x`.

    Parameters
    ----------
    net : Network
    x : ndarray
        Shape (m, k).
    top : float, optional
        What counts as an overflow, where that is not what the dtype has no numbers for.

    Returns
    -------
    ndarray
        float64, of the shape of ``net(x)``; inf where an intermediate result may overflow.
    """
    rounding = Rounding.of(net.dtype)
    rounding = rounding if top is None else rounding._replace(top=top)
    start = State(x.astype(np.float64), np.zeros(x.shape), None, 0)
    with np.errstate(all="ignore"):
        end = _ops(net._lower(net.dtype), start, rounding)
    return np.where(np.isfinite(end.error), end.error, np.inf)


def _ops(ops: Sequence[Op], s: State, r: Rounding) -> State:
    for op in ops:
        s = _BOUNDS[type(op)](op, s, r)
        # Beyond the dtype's range the order of a sum decides between inf and NaN.
        over = (np.abs(s.value) + s.error > r.top).any(axis=-1, keepdims=True)
        s = s._replace(error=np.where(over, np.inf, s.error))
    return s


def _join(op: JoinOp, s: State, r: Rounding) -> State:
    branches = [_ops(ops, s._replace(size=None, terms=0), r) for ops in op.branches]
    if op.join == "concat":
        value, error = (
            np.concatenate(v, axis=-1) for v in zip(*(b[:2] for b in branches), strict=True)
        )
        return State(value, error, None, 0)
    value, error = branches[0].value, branches[0].error
    for b in branches[1:]:
        if op.join == "add":
            value, error = value + b.value, error + b.error
        else:
            error = np.abs(value) * b.error + np.abs(b.value) * error + error * b.error
            value = value * b.value
        error = error + r.unit * np.abs(value) + r.tiny * (op.join == "multiply")
    return State(value, error, None, 0)


def _slice(op: SliceOp, s: State, r: Rounding) -> State:
    at = slice(op.begin, op.end)
    size = None if s.size is None else s.size[..., at]
    return s._replace(value=s.value[..., at], error=s.error[..., at], size=size)


def _dense(op: DenseOp, s: State, r: Rounding) -> State:
    weight, bias = op.weights.weight(), op.weights.bias()
    n, k = weight.shape
    value, error = np.empty((len(s.value), n)), np.empty((len(s.value), n))
    step = max(1, CHUNK // max(k, 1))
    unit = r.unit * np.sqrt(k + 2)
    squares = unit * (s.value if s.size is None else s.size)
    np.square(squares, out=squares)
    squares += s.error**2
    for low in range(0, n, step):
        at = slice(low, low + step)
        b = np.zeros(1) if bias is None else bias[at].astype(np.float64)
        w = weight[at].astype(np.float64)
        value[:, at], largest = _sum(w, b, s)
        spread = squares @ np.multiply(w, w, out=w).T
        error[:, at] = np.sqrt(spread) + unit * largest + k * r.tiny
    return _activation(*op.fused, State(value, error, None, k), r)


def _sum(w: Array, b: Array, s: State) -> tuple[Array, Array]:
    """Return sums, and the largest of the partial sums."""
    k = w.shape[1]
    total = b + np.zeros((len(s.value), len(w)))
    largest = np.abs(total)
    for low in range(0, k, max(1, -(-k // PLACES))):
        at = slice(low, low + max(1, -(-k // PLACES)))
        total = total + s.value[:, at] @ w[:, at].T
        largest = np.maximum(largest, np.abs(total))
    if s.size is not None:
        largest = largest + s.size @ np.abs(w).T
    return total, largest


def _affine(op: AffineOp, s: State, r: Rounding) -> State:
    # The size is that before the sums: a source may add what the shift is made of to the values
    # one after the other, and folded into a layer all of it gets into the layer's sums.
    size = np.abs(s.value * op.scale) + op.summands
    error = np.abs(op.scale) * s.error + r.unit * np.sqrt(s.terms + 4) * size
    return State(s.value * op.scale + op.shift, error + r.tiny, size, 0)


def _layer_norm(
    weight: Array | None, bias: Array | None, eps: float, s: State, r: Rounding
) -> State:
    normalized = _norm(s.value.mean(axis=-1, keepdims=True), weight, eps, s, r)
    if bias is None:
        return normalized
    error = normalized.error + r.unit * np.abs(bias)
    return State(normalized.value + bias, error, None, 0)


def _rms_norm(weight: Array | None, eps: float, s: State, r: Rounding) -> State:
    return _norm(np.zeros(1), weight, eps, s, r)


def _norm(centre: Array, weight: Array | None, eps: float, s: State, r: Rounding) -> State:
    w = 1.0 if weight is None else weight.astype(np.float64)
    x, n = s.value, s.value.shape[-1]
    root = 1 / np.sqrt(((x - centre) ** 2).mean(axis=-1, keepdims=True) + eps)
    y = (x - centre) * root
    inherited = (s.error**2).mean(axis=-1, keepdims=True)
    mean = np.abs(x).mean(axis=-1, keepdims=True)
    square = (x * x).mean(axis=-1, keepdims=True) * root**2  # the variance as E(x^2) - E(x)^2
    own = root * (2 * np.abs(x) + np.sqrt(n) * mean) + np.abs(y) * (4 + np.sqrt(n) * square)
    error = np.sqrt(s.error**2 + inherited + y * y * inherited) * root + r.unit * own
    return State(y * w, error * np.abs(w) + r.tiny, None, 0)


def _prelu(slopes: Array, s: State, r: Rounding) -> State:
    wide = slopes.astype(np.float64)
    return _moved("prelu", lambda z: np.where(z > 0, z, wide * z), s, r)


def _activation(name: str, p0: float, p1: float, s: State, r: Rounding) -> State:
    if name == "identity":
        return s._replace(size=None)

    def f(z: Array) -> Array:
        y = _core.activation(name, z, p0, p1, None)
        assert y is not None  # float64 rows
        return y

    return _moved(name, f, s, r)


def _moved(name: str, f: Callable[[Array], Array], s: State, r: Rounding) -> State:
    """Move the arguments of an activation by their errors, and add its own."""
    z, e = s.value, s.error
    y = f(z)
    if name in ("softmax", "log_softmax"):
        spread = 2 * e.max(axis=-1, keepdims=True, initial=0.0)
        if name == "softmax":
            moved = np.minimum(y * np.expm1(spread), 1.0)
        else:
            moved = spread + r.unit * np.abs(z).max(axis=-1, keepdims=True, initial=0.0)
    elif name in ("sin", "cos"):
        # Where e is large, z + e may be anywhere. A sum over such features sees them as deviations.
        moved = np.where(e < 2, e, 2 * SPREAD)
    else:
        moved = np.maximum(np.abs(f(z + e) - y), np.abs(f(z - e) - y))
    own = np.abs(y) if name in _SELECTIONS else STEPS * (1 + np.abs(y))
    return State(y, np.where(np.isfinite(e), moved, np.inf) + r.unit * own + r.tiny, None, 0)


def _call(op: CallOp, s: State, r: Rounding) -> State:
    """Move all arguments of a user's function up, down and apart; it may mix the features."""
    f, z, e = op.function, s.value, np.where(np.isfinite(s.error), s.error, 0.0)
    y = np.asarray(f(z.copy()), np.float64)
    apart = np.where(np.arange(z.shape[-1]) % 2, e, -e)
    moved = np.zeros(y.shape)
    for d in (e, -e, apart, -apart):
        moved = np.maximum(moved, np.abs(np.asarray(f(z + d), np.float64) - y))
    error = 2 * moved + r.unit * STEPS * (1 + np.abs(y)) + r.tiny
    lost = ~np.isfinite(s.error).all(axis=-1, keepdims=True)
    return State(y, np.where(lost, np.inf, error), None, 0)


_ROWS: dict[str, Callable[..., State]] = {
    "activation": _activation,
    "prelu": _prelu,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
}
_BOUNDS: dict[type[Op], Callable[[Any, State, Rounding], State]] = {
    DenseOp: _dense,
    RowsOp: lambda op, s, r: _ROWS[op.method](*op.args, s, r),
    AffineOp: _affine,
    JoinOp: _join,
    SliceOp: _slice,
    FlattenOp: lambda op, s, r: s,
    OneRowOp: lambda op, s, r: s,
    CallOp: _call,
}
