"""The NumPy lines of a dense layer as functions: linear, matmul, dot, dense_forward, bias_add.

Each asks the core first with the arrays as they are. Sums that need another shape, another dtype
or an error message go through `_products`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import _core, _products
from fastlayer.activations import IDENTITY, Activation, resolve

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastlayer._arrays import Array
    from fastlayer.activations import ActivationLike, Fused


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
    return _products.linear(x, weight, bias, activation, out)


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
    if y is None and out is None:
        y = _products.with_vector(a, b)
    return y if y is not None else _products.matmul(a, b, out, "matmul")


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
    y = _products.with_vector(a, b) if out is None else None
    if y is None and type(b) is np.ndarray and b.ndim == 2:
        y = _core.matmul(a, b, out)
    return y if y is not None else _products.dot(a, b, out)


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
    return y if y is not None else _products.bias_add(z, bias, out)


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
    return _products.dense_forward(inputs, weights, biases, activation)
