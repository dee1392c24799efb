"""The backward pass of a dense layer as functions: linear_backward, dense_backward, activation_backward.

The sums are those of `matmul`, with the batch as their index where weights are concerned, so that a
gradient has the same bits whatever the threads, the layout or the instruction set.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from fastlayer import _core
from fastlayer.arrays import (
    as_real,
    as_result,
    cast,
    check_out,
    evaluate,
    may_share,
    normalize_axis,
    promoted,
)
from fastlayer.functions.activation import Activation, resolve
from fastlayer.functions.products import matmul

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from fastlayer.arrays import Array, DType, F
    from fastlayer.functions.activation import ActivationLike

    Pair: TypeAlias = tuple[Callable[[Array], Any], Callable[[Array], Any]]
    Targets: TypeAlias = tuple[Array | None, Array | None, Array | None]

_ROWWISE = ("softmax", "log_softmax")


@overload
def activation_backward(
    da: NDArray[F] | float,
    z: NDArray[F],
    activation: ActivationLike | Pair,
    *,
    out: Array | None = ...,
) -> NDArray[F]: ...
@overload
def activation_backward(
    da: ArrayLike,
    z: ArrayLike,
    activation: ActivationLike | Pair,
    *,
    out: Array | None = ...,
) -> Array: ...
def activation_backward(
    da: ArrayLike,
    z: ArrayLike,
    activation: ActivationLike | Pair,
    *,
    out: Array | None = None,
) -> Array:
    """Backward pass of an activation: ``da * f'(z)``, given the gradient of its result.

    Of softmax and log-softmax it is the product with their Jacobian: ``p * (da - sum(da * p))`` and
    ``da - p * sum(da)`` with ``p = softmax(z)``. ``da=1.0`` gives the derivative itself. At a kink
    the derivative is PyTorch's: that of relu is 0 at 0.

    Parameters
    ----------
    da : array_like
        Gradient of the loss by ``activation(z)``; broadcasts with `z`. A Python number takes the
        dtype of `z`.
    z : array_like
        What the activation was applied to. Any shape, any real dtype; integers become float64.
    activation : str, Activation, function, or pair of callables
        See `Activation`; or ``(f, df)``, two functions of arrays of which the second is called.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May be `da` or `z`.

    Returns
    -------
    ndarray or scalar
        The shape that `da` and `z` broadcast to.

    Raises
    ------
    TypeError
        A callable whose derivative nobody knows; complex, masked or non-numeric arrays; `out` of
        another dtype.
    ValueError
        Shapes that don't broadcast; `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.activation_backward([10.0, 10.0], [-1.0, 2.0], "relu")
    array([ 0., 10.])
    >>> fl.activation_backward(1.0, [0.0, 1.0], fl.tanh).round(4)
    array([1.  , 0.42])
    """
    act = derivable(activation)
    if isinstance(act, Activation) and act._fused is not None:
        dz = _core.activation_backward(act._fused[0], da, z, *act._fused[1:], out)
        if dz is not None:
            return dz
    given, inner = as_real(da, "da"), as_real(z, "z")
    try:
        shape = np.broadcast_shapes(given.shape, inner.shape)
    except ValueError:
        raise ValueError(
            f"activation_backward: da of shape {given.shape} does not broadcast against z of "
            f"shape {inner.shape}"
        ) from None
    dtypes = promoted((given, da), (inner, z))
    inner = np.broadcast_to(cast(inner, dtypes[0]), shape)

    def run(given: Array, target: Array | None) -> Array | None:
        return _backward(act, np.broadcast_to(given, shape), inner, target)

    return evaluate(run, given, dtypes, shape, out)


def derivable(activation: ActivationLike | Pair) -> Activation | Pair:
    """Resolve an activation of which a derivative is wanted.

    Raises
    ------
    TypeError
        A callable alone.
    """
    if isinstance(activation, tuple):
        given: tuple[Any, ...] = activation
        if len(given) != 2 or not all(map(callable, given)):
            raise TypeError(f"a pair of an activation holds two callables (f, df), got {given!r}")
        return activation
    act = resolve(activation)
    if isinstance(act, Activation):
        return act
    name = getattr(act, "__name__", type(act).__name__)
    raise TypeError(
        f"nobody knows the derivative of {name}; pass a pair of functions ({name}, its derivative)"
    )


def _backward(act: Activation | Pair, da: Array, z: Array, out: Array | None) -> Array | None:
    """`activation_backward` of arrays of one shape and dtype, float32 or float64."""
    if not isinstance(act, Activation):
        slope = cast(as_real(act[1](z), "the result of the derivative"), z.dtype)
        if slope.ndim > 0 and slope.shape != z.shape:
            raise ValueError(
                f"the derivative gave shape {slope.shape} for z of shape {z.shape}; it must work "
                "element by element"
            )
        with np.errstate(all="ignore"):
            return np.asarray(np.multiply(da, slope, out=out))
    if act.name in _ROWWISE and z.ndim == 0:
        raise ValueError(f"{act.name} needs an axis, but z has no dimensions")
    if act._fused is not None:
        name, p0, p1 = act._fused
        return _core.activation_backward(name, da, z, p0, p1, out)
    if act.name in _ROWWISE:
        axis = normalize_axis(act.parameters["axis"], z.ndim)
        dz = np.empty(z.shape, z.dtype) if out is None else out
        rows = (np.moveaxis(a, axis, -1) for a in (da, z, dz))
        at_da, at_z, at_dz = rows
        done = _core.activation_backward(act.name, at_da, at_z, 0.0, 0.0, at_dz)
        return None if done is None else dz
    slopes = cast(act.parameters["weight"], z.dtype)
    if z.shape[-1:] != slopes.shape:
        raise ValueError(f"prelu has {slopes.size} slopes, and z has shape {z.shape}")
    return prelu_backward(da, z, slopes, out)


def prelu_backward(da: Array, z: Array, slopes: Array, out: Array | None = None) -> Array:
    """``da * f'(z)`` of a prelu with a slope for each feature."""
    with np.errstate(all="ignore"):
        slope = np.where(z > 0, z.dtype.type(1), slopes)
        slope = np.where(np.isnan(z), z, slope)
        return np.asarray(np.multiply(da, slope, out=out))


@overload
def linear_backward(
    dz: NDArray[F],
    x: NDArray[F],
    weight: NDArray[F],
    *,
    out: Targets | None = ...,
) -> tuple[NDArray[F], NDArray[F], NDArray[F]]: ...
@overload
def linear_backward(
    dz: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    out: Targets | None = ...,
) -> tuple[Array, Array, Array]: ...
def linear_backward(
    dz: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    out: Targets | None = None,
) -> tuple[Array, Array, Array]:
    """Backward pass of ``z = x @ weight.T + bias``, given the gradient of `z`.

    The mirror of `linear`: ``dx = dz @ weight``, ``dW = dz.T @ x`` and ``db = dz.sum(axis=0)``,
    summed over all samples in the order of `matmul`, blocks of 256 samples one after the other.

    Parameters
    ----------
    dz : array_like
        Shape (..., n), or (...) beside a single neuron.
    x : array_like
        Shape (..., k), rows are samples; or (k,), one sample.
    weight : array_like
        Shape (n, k), or (k,), a single neuron.
    out : tuple of ndarray or None, optional
        Where `dx`, `dW` and `db` go, None for a new array; their shapes and the result's dtype. They
        may overlap the inputs, but not each other.

    Returns
    -------
    dx : ndarray
        Shape (..., k), the gradient of the loss by `x`.
    dW : ndarray
        The shape of `weight`.
    db : ndarray or scalar
        Shape (n,); a scalar beside a single neuron.

    Raises
    ------
    ValueError
        Shapes that don't fit each other; arrays in `out` that share memory.
    TypeError
        Complex, masked or non-numeric arrays; `out` of another dtype.

    Examples
    --------
    >>> import fastlayer as fl
    >>> x, weight = [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    >>> dx, dW, db = fl.linear_backward([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], x, weight)
    >>> dx
    array([[1., 0.],
           [1., 1.]])
    >>> dW
    array([[1., 2.],
           [0., 0.],
           [3., 4.]])
    >>> db
    array([1., 0., 1.])
    """
    d, rows, w = as_real(dz, "dz"), as_real(x), as_real(weight, "weight")
    if w.ndim not in (1, 2) or rows.ndim == 0 or rows.shape[-1] != w.shape[-1]:
        raise ValueError(
            f"linear_backward: weight of shape {w.shape} does not fit x of shape {rows.shape}; "
            "weight is (n, k), one row for each neuron, and x is (..., k)"
        )
    if d.shape != rows.shape[:-1] + w.shape[:-1]:
        raise ValueError(
            f"linear_backward: dz has shape {d.shape}, but the sum of x of shape {rows.shape} "
            f"with weight of shape {w.shape} has shape {rows.shape[:-1] + w.shape[:-1]}"
        )
    dtypes = promoted((d, dz), (rows, x), (w, weight))
    d, rows, w = (cast(a, dtypes[0]) for a in (d, rows, w))
    n, k = (1, *w.shape)[-2:]
    m = math.prod(rows.shape[:-1])
    to = _targets(out, "linear_backward")
    shapes = rows.shape, w.shape, w.shape[:-1]
    return _gradients(d.reshape(m, n), rows.reshape(m, k), w.reshape(n, k), shapes, dtypes, to)


@overload
def dense_backward(
    dz: NDArray[F],
    inputs: NDArray[F],
    weights: NDArray[F],
    *,
    out: Targets | None = ...,
) -> tuple[NDArray[F], NDArray[F], NDArray[F]]: ...
@overload
def dense_backward(
    dz: ArrayLike,
    inputs: ArrayLike,
    weights: ArrayLike,
    *,
    out: Targets | None = ...,
) -> tuple[Array, Array, Array]: ...
def dense_backward(
    dz: ArrayLike,
    inputs: ArrayLike,
    weights: ArrayLike,
    *,
    out: Targets | None = None,
) -> tuple[Array, Array, Array]:
    """Backward pass of ``z = np.dot(weights, inputs) + biases``, given the gradient of `z`.

    The mirror of `dense_forward`: stands for ``weights.T @ dz``, ``np.outer(dz, inputs)`` or
    ``dz @ inputs.T``, and the sum of `dz` over the samples.

    Parameters
    ----------
    dz : array_like
        Shape (k,), or (k, m) where **columns** are samples; without the first axis beside a single
        neuron.
    inputs : array_like
        Shape (n,), or (n, m).
    weights : array_like
        Shape (k, n), one row for each neuron; or (n,), a single neuron.
    out : tuple of ndarray or None, optional
        Where the three results go, None for a new array; their shapes and the result's dtype. They
        may overlap the inputs, but not each other.

    Returns
    -------
    dx : ndarray
        The shape of `inputs`.
    dW : ndarray
        The shape of `weights`.
    db : ndarray or scalar
        The shape that biases have there: (k,) beside one sample, (k, 1) beside columns; a scalar
        beside a single neuron.

    Raises
    ------
    ValueError
        Shapes that don't fit each other; arrays in `out` that share memory.
    TypeError
        Complex, masked or non-numeric arrays; `out` of another dtype.

    Examples
    --------
    >>> import fastlayer as fl
    >>> dx, dW, db = fl.dense_backward([1.0, -1.0], [2.0, 3.0], [[1.0, 0.0], [0.0, 1.0]])
    >>> dx
    array([ 1., -1.])
    >>> dW
    array([[ 2.,  3.],
           [-2., -3.]])
    >>> db
    array([ 1., -1.])
    """
    d, x, w = as_real(dz, "dz"), as_real(inputs, "inputs"), as_real(weights, "weights")
    if w.ndim not in (1, 2) or x.ndim not in (1, 2) or x.shape[0] != w.shape[-1]:
        raise ValueError(
            f"dense_backward: weights of shape {w.shape} do not fit inputs of shape {x.shape}; "
            "weights are (k, n), one row for each neuron, inputs (n,) or (n, m), columns being "
            "samples"
        )
    if d.shape != w.shape[:-1] + x.shape[1:]:
        raise ValueError(
            f"dense_backward: dz has shape {d.shape}, but the sum of inputs of shape {x.shape} "
            f"with weights of shape {w.shape} has shape {w.shape[:-1] + x.shape[1:]}"
        )
    dtypes = promoted((d, dz), (x, inputs), (w, weights))
    d, x, w = (cast(a, dtypes[0]) for a in (d, x, w))
    columns = x.ndim == 2
    rows = x.T if columns else x[None]
    samples = d[:, None] if w.ndim == 1 and columns else d.T if columns else d.reshape(1, -1)
    bias = () if w.ndim == 1 else (w.shape[0], 1) if columns else (w.shape[0],)
    to = _targets(out, "dense_backward")
    matrix = w[None] if w.ndim == 1 else w
    return _gradients(samples, rows, matrix, (x.shape, w.shape, bias), dtypes, to, columns)


def _targets(out: Targets | None, who: str) -> Targets:
    if out is None:
        return (None, None, None)
    given: object = out
    if not isinstance(given, tuple) or len(given) != 3:
        raise TypeError(f"{who}: out must be a tuple (dx, dW, db), each an array or None")
    return out


def _gradients(
    dz: Array,
    rows: Array,
    weight: Array,
    shapes: tuple[tuple[int, ...], ...],
    dtypes: tuple[DType, DType],
    out: Targets,
    columns: bool = False,
) -> tuple[Array, Array, Array]:
    """``dz @ weight``, ``dz.T @ rows`` and the sum of dz, of matrices in the dtype to compute in.

    Where `columns`, the first is delivered as its transpose. All three are computed before any is
    delivered, for `out` may overlap what they are computed from.
    """
    given = [
        (name, check_out(target, shape, dtypes[1]))
        for name, shape, target in zip(("dx", "dW", "db"), shapes, out, strict=True)
        if target is not None
    ]
    for (one, a), (other, b) in combinations(given, 2):
        if may_share(a, b):  # what is delivered last would be in both
            raise ValueError(f"out: {one} and {other} share memory, and each needs its own")
    dx = matmul(dz, weight)
    found = dx.T if columns else dx, matmul(dz.T, rows), sum_of_rows(dz)

    def deliver(y: Array, shape: tuple[int, ...], target: Array | None) -> Array:
        y = y.reshape(shape)
        if target is None:
            return as_result(cast(np.ascontiguousarray(y).reshape(shape), dtypes[1]))
        return evaluate(lambda a, to: _copy(a, to), y, (dtypes[1], dtypes[1]), shape, target)

    dx, dw, db = (deliver(*of) for of in zip(found, shapes, out, strict=True))
    return dx, dw, db


def _copy(y: Array, target: Array | None) -> Array:
    if target is None:
        return y
    target[...] = y
    return target


def sum_of_rows(dz: Array) -> Array:
    """Sum the rows of a matrix as `matmul` would with ones: blocks of 256 rows."""
    return matmul(dz.T, np.ones(dz.shape[0], dz.dtype))
