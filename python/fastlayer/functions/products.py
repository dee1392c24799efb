"""The NumPy lines of a dense layer as functions: linear, matmul, dot, dense_forward, bias_add.

Each asks the core first, with the arrays as they are. What needs another shape, another dtype or an
error message goes on in the slow half under it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from fastlayer import _core
from fastlayer.arrays import as_real, as_result, cast, check_out, evaluate, promote, promoted, put
from fastlayer.functions.activation import Activation, resolve
from fastlayer.run.ops import IDENTITY

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastlayer.arrays import Array, DType, F
    from fastlayer.functions.activation import ActivationLike
    from fastlayer.names import ActivationName
    from fastlayer.run.ops import Fused

    # Those that are known to leave the dtype alone.
    Known: TypeAlias = ActivationName | Activation | None

_ROWWISE = ("softmax", "log_softmax")


@overload
def linear(
    x: NDArray[F],
    weight: NDArray[F],
    bias: NDArray[F] | float | None = ...,
    activation: Known = ...,
    *,
    out: Array | None = ...,
) -> NDArray[F]: ...
@overload
def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = ...,
    activation: ActivationLike = ...,
    *,
    out: Array | None = ...,
) -> Array: ...
def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    activation: ActivationLike = None,
    *,
    out: Array | None = None,
) -> Array:
    """Dense layer on arrays as they are: ``activation(x @ weight.T + bias)``.

    The arrays are read afresh at every call. The result has the same bits as a `Layer` that
    holds the same arrays.

    Parameters
    ----------
    x : array_like
        Shape (..., k), rows are samples; or (k,), one sample. Any real dtype, any strides.
    weight : array_like
        Shape (n, k), one row for each neuron; or (k,), a single neuron, which drops the last
        axis of the result. Pass ``W.T`` for weights kept as (k, n); that makes no copy.
    bias : array_like, optional
        Anything that broadcasts to the result, mostly (n,). A Python number takes the dtype of
        the arrays.
    activation : str, Activation, function or callable, optional
        See `Activation`. A callable that isn't fastlayer's runs after the sum.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May overlap the inputs.

    Returns
    -------
    ndarray or scalar
        Shape (..., n). The dtype is that of NumPy's promotion; integers alone give float64.

    Raises
    ------
    ValueError
        Shapes that don't fit each other; the message holds both.
    TypeError
        Complex, masked or non-numeric arrays; `out` of another dtype.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.linear([[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, -1.0], [0.0, 0.5]], [0.0, 0.0, 1.0])
    array([[ 3., -1.,  2.],
           [ 7., -1.,  3.]])
    >>> fl.linear([1.0, 2.0], [[1.0, 1.0], [1.0, -1.0]], activation="relu")
    array([3., 0.])
    """
    if activation is None:
        fused: Fused | None = IDENTITY
    else:
        act = resolve(activation)
        fused = act._fused if type(act) is Activation else None
    if fused is not None:
        y = _core.linear(x, weight, bias, *fused, out, False)
        if y is not None:
            return y
    return _linear(x, weight, bias, activation, out)


def _linear(
    x_: Any, weight_: Any, bias_: Any, activation: ActivationLike, out: Array | None
) -> Array:
    act = resolve(activation)
    x, w = as_real(x_), as_real(weight_, "weight")
    _check_linear(x, w)
    b = None if bias_ is None else as_real(bias_, "bias")
    shape = x.shape[:-1] + w.shape[:-1]
    if b is not None and not _fits(b.shape, shape):
        raise ValueError(
            f"linear: bias of shape {b.shape} does not broadcast to the result of shape {shape}"
        )
    compute, result = promoted((x, x_), (w, weight_), (b, bias_))
    fused = act._fused if isinstance(act, Activation) else None
    # The softmax of a single neuron runs over the samples: over the result as the caller sees it.
    if fused is not None and not (w.ndim == 1 and fused[0] in _ROWWISE):
        return _affine(x, w, b, fused, (compute, result), out)
    z = _affine(x, w, b, IDENTITY, (compute, compute), None)
    if isinstance(act, Activation):
        y = cast(act(z), result)
    else:
        y = act(cast(z, result))
        if out is None:
            return y  # type: ignore[no-any-return]  # the caller's own function
        y = as_real(y, "the result of activation")
    if out is None:
        return y
    put(check_out(out, y.shape, result), y)
    return out


def _check_linear(x: Array, w: Array) -> None:
    if w.ndim not in (1, 2):
        raise ValueError(
            f"linear: weight must be (n, k), one row for each neuron, or (k,); got shape {w.shape}"
        )
    k = w.shape[-1]
    if x.ndim == 0:
        raise ValueError(
            f"linear: x is a scalar, but weight of shape {w.shape} takes x of shape (..., {k})"
        )
    if x.shape[-1] != k:
        hint = "; for weights kept as (inputs, outputs) pass weight.T"
        raise ValueError(
            f"linear: x of shape {x.shape} does not fit weight of shape {w.shape}, which takes "
            f"(..., {k}){hint if x.shape[-1] == w.shape[0] else ''}"
        )


def _affine(
    x: Array, w: Array, b: Array | None, fused: Fused, dtypes: tuple[DType, DType], out: object
) -> Array:
    """``fused(x @ w.T + b)`` for arrays whose shapes have been checked."""
    shape = x.shape[:-1] + w.shape[:-1]
    w = cast(w, dtypes[0])
    b = None if b is None else cast(b, dtypes[0])
    single = w.ndim == 1  # a single neuron is a layer with one output, seen without its last axis
    if single:
        w = w[None, :]
        b = None if b is None else b[..., None]

    def run(x: Array, target: Array | None) -> Array | None:
        y = target[..., None] if target is not None and single else target
        done = _sum(x, w, b, fused, y)
        return None if done is None else done.reshape(shape)

    return evaluate(run, x, dtypes, shape, out)


def _sum(x: Array, w: Array, b: Array | None, fused: Fused, y: Array | None) -> Array | None:
    """Write the sums into `y` and return it, or a new array; None where `y` can't be written to."""
    if b is None or all(d == 1 for d in b.shape[:-1]):
        vector = None if b is None else b.reshape(-1)
        if vector is not None and vector.size != w.shape[0]:
            vector = vector.repeat(w.shape[0])
        return _core.linear(x, w, vector, *fused, y, False)
    # A bias that differs between rows: the sums start from it.
    if y is None:
        y = np.empty(x.shape[:-1] + w.shape[:1], x.dtype)
    elif np.may_share_memory(y, x) or np.may_share_memory(y, w):
        return None
    y[...] = b
    if fused[0] not in _ROWWISE:
        return _core.linear(x, w, None, *fused, y, True)
    if _core.linear(x, w, None, *IDENTITY, y, True) is None:
        return None
    return _core.activation(fused[0], y, 0.0, 0.0, y)


@overload
def matmul(a: NDArray[F], b: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def matmul(a: ArrayLike, b: ArrayLike, *, out: Array | None = ...) -> Array: ...
def matmul(a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Array:
    """Matrix product: ``np.matmul(a, b)``, in floating point.

    Parameters
    ----------
    a : array_like
        Shape (..., m, k), or (k,).
    b : array_like
        Shape (..., k, n), or (k,). The leading axes of both broadcast.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May overlap the inputs.

    Returns
    -------
    ndarray or scalar
        Shape (..., m, n); the axis of a 1-D operand is left out. Integers become float64.

    Raises
    ------
    ValueError
        Shapes that don't fit, or an operand without dimensions.
    TypeError
        Complex, masked or non-numeric arrays; `out` of another dtype.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.matmul([[1.0, 2.0], [3.0, 4.0]], [10.0, 1.0])
    array([12., 34.])
    """
    y = _core.matmul(a, b, out)
    return y if y is not None else _matmul(a, b, out, "matmul")


def _matmul(a_: Any, b_: Any, out: Array | None, who: str) -> Array:
    a, b = as_real(a_, "a"), as_real(b_, "b")
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(
            f"{who}: a has shape {a.shape} and b has shape {b.shape}; both need at least one "
            "dimension (use numpy.multiply for scalars)"
        )
    k, rows = a.shape[-1], b.shape[-2] if b.ndim > 1 else b.shape[0]
    try:
        if k != rows:
            raise ValueError
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        why = f"{k} is not {rows}" if k != rows else "the leading axes do not broadcast"
        raise ValueError(
            f"{who}: a of shape {a.shape} and b of shape {b.shape} do not fit: {why}"
        ) from None
    dtypes = promote(a.dtype, b.dtype)
    full = cast(b, dtypes[0])
    full = full[:, None] if b.ndim == 1 else full
    shape = stack + a.shape[-2:-1] + (b.shape[-1:] if b.ndim > 1 else ())

    def run(a: Array, target: Array | None) -> Array | None:
        y = target
        if y is not None and b.ndim == 1:
            y = y[..., None]
        if y is not None and a.ndim == 1:
            y = y[..., None, :]
        done = _core.matmul(a[None, :] if a.ndim == 1 else a, full, y)
        return done if done is None else done.reshape(shape)

    return evaluate(run, a, dtypes, shape, out)


@overload
def dot(a: NDArray[F], b: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def dot(a: ArrayLike, b: ArrayLike, *, out: Array | None = ...) -> Array: ...
def dot(a: ArrayLike, b: ArrayLike, *, out: Array | None = None) -> Array:
    """Dot product: ``np.dot(a, b)`` for vectors, matrices and what `matmul` computes alike.

    Parameters
    ----------
    a : array_like
        Shape (k,) or (..., k).
    b : array_like
        Shape (k,) or (k, n).
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May overlap the inputs.

    Returns
    -------
    ndarray or scalar
        A scalar for two vectors. Integers become float64.

    Raises
    ------
    ValueError
        Shapes that don't fit; scalars (use `numpy.multiply`) and stacks of matrices on the right,
        for which ``np.dot`` and ``np.matmul`` differ (use `matmul`).
    TypeError
        Complex, masked or non-numeric arrays; `out` of another dtype.

    Examples
    --------
    >>> import fastlayer as fl
    >>> float(fl.dot([3.0, 2.0], [1.0, 4.0]))
    11.0
    """
    y = _core.dot(a, b, out)
    if y is not None:
        return y
    left, right = as_real(a, "a"), as_real(b, "b")
    if left.ndim > 1 and right.ndim > 2:
        raise ValueError(
            f"dot: a of shape {left.shape} with b of shape {right.shape} is a product for which "
            "np.dot and np.matmul differ; use matmul"
        )
    return _matmul(left, right, out, "dot")


@overload
def bias_add(z: NDArray[F], bias: NDArray[F] | float, *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def bias_add(z: ArrayLike, bias: ArrayLike, *, out: Array | None = ...) -> Array: ...
def bias_add(z: ArrayLike, bias: ArrayLike, *, out: Array | None = None) -> Array:
    """Sum with NumPy's broadcasting, in floating point: ``z + bias``.

    Parameters
    ----------
    z : array_like
        Mostly (..., n), any real dtype; integers and bools become float64.
    bias : array_like
        Anything that broadcasts against `z`, mostly (n,). A Python number takes the dtype of `z`.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May overlap the inputs.

    Returns
    -------
    ndarray or scalar
        The shape that both broadcast to.

    Raises
    ------
    ValueError
        Shapes that don't broadcast.
    TypeError
        Complex, masked or non-numeric arrays; `out` of another dtype.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.bias_add([[1.0, 2.0], [3.0, 4.0]], [10.0, 20.0])
    array([[11., 22.],
           [13., 24.]])
    """
    y = _core.bias_add(z, bias, out)
    if y is not None:
        return y
    summand, b = as_real(z, "z"), as_real(bias, "bias")
    try:
        shape = np.broadcast_shapes(summand.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"bias_add: bias of shape {b.shape} does not broadcast against z of shape "
            f"{summand.shape}"
        ) from None
    dtypes = promoted((summand, z), (b, bias))
    b = cast(b, dtypes[0])

    def run(z: Array, target: Array | None) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.add(z, b, out=target))

    return evaluate(run, summand, dtypes, shape, out)


@overload
def dense_forward(
    inputs: NDArray[F],
    weights: NDArray[F],
    biases: NDArray[F] | float,
    activation: Known,
) -> tuple[NDArray[F], NDArray[F]]: ...
@overload
def dense_forward(
    inputs: ArrayLike,
    weights: ArrayLike,
    biases: ArrayLike,
    activation: ActivationLike,
) -> tuple[Any, Array]: ...
def dense_forward(
    inputs: ArrayLike,
    weights: ArrayLike,
    biases: ArrayLike,
    activation: ActivationLike,
) -> tuple[Any, Array]:
    """Forward pass of a layer of neurons, with the weighted sum kept.

    Stands for ``z = np.dot(weights, inputs) + biases; a = activation(z)``; with the same bits as
    `linear` and `Layer` where the biases are one for each neuron.

    Parameters
    ----------
    inputs : array_like
        Shape (n,), one sample; or (n, m), where **columns** are samples.
    weights : array_like
        Shape (k, n), one row for each neuron; or (n,), a single neuron.
    biases : array_like
        Anything that broadcasts against the product: (k,) beside one sample, (k, 1) beside
        columns.
    activation : str, Activation, function or callable
        Applied to the whole of ``z``; None for none. For columns use
        ``fl.Activation("softmax", axis=0)``.

    Returns
    -------
    a : ndarray or scalar
        ``activation(z)``; what the callable returned, where it is a callable.
    z : ndarray or scalar
        The weighted sum, (k,) or (k, m).

    Raises
    ------
    ValueError
        Shapes that don't fit each other.
    TypeError
        Complex, masked or non-numeric arrays.

    Examples
    --------
    >>> import fastlayer as fl
    >>> a, z = fl.dense_forward([1.0, 2.0], [[0.5, -1.0], [1.0, 1.0]], [1.0, 0.0], fl.relu)
    >>> z
    array([-0.5,  3. ])
    >>> a
    array([0., 3.])
    """
    act = resolve(activation)
    fused = act._fused if type(act) is Activation else None
    pair = _core.dense_forward(inputs, weights, biases, *(fused or IDENTITY))
    if pair is not None:
        a, z = pair
        return (act(z) if a is None else a), z
    x, w, b = as_real(inputs, "inputs"), as_real(weights, "weights"), as_real(biases, "biases")
    if x.ndim not in (1, 2) or w.ndim not in (1, 2) or x.shape[0] != w.shape[-1]:
        raise ValueError(
            f"dense_forward: weights of shape {w.shape} do not fit inputs of shape {x.shape}; "
            "weights are (k, n), one row for each neuron, inputs (n,) or (n, m), columns being "
            "samples"
        )
    shape = w.shape[:-1] + x.shape[1:]
    if not _fits(b.shape, shape):  # larger than the product, as in NumPy's sum; or an error
        z = bias_add(_matmul(w, x, None, "dense_forward"), biases)
        return act(z), z
    dtypes = promoted((x, inputs), (w, weights), (b, biases))
    # Rows of samples are the views that the core computes on: z.T = x.T @ w.T + b.T.
    if len(shape) == 2:
        b = b.reshape((1,) * (2 - b.ndim) + b.shape).T
    z = np.empty(shape, dtypes[1])
    _affine(x.T, w, b, IDENTITY, dtypes, z.T)
    z = as_result(z)
    return act(z), z


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether `shape` broadcasts to `target` without enlarging it."""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False
