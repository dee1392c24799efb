"""Bounded and exponential activations: sigmoid, tanh, softsign, exp, softmax and their logarithms.

Each function asks the core first and leaves conversions and errors to `_apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlayer._apply import finish, rowwise
from fastlayer._core import activation as _core_activation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastlayer._arrays import Array


def sigmoid(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Logistic function: ``1 / (1 + exp(-x))`` (Verhulst, 1845), without overflow for any `x`.

    ``fl.logistic`` is this function.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May be `x` itself.

    Returns
    -------
    ndarray or scalar
        The shape of `x`, a NumPy scalar where `x` is one.

    Raises
    ------
    TypeError
        `x` is complex, masked or not numeric; `out` has another dtype.
    ValueError
        `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.sigmoid([-1000.0, 0.0, 1000.0])
    array([0. , 0.5, 1. ])
    """
    y = _core_activation("sigmoid", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "sigmoid", 0.0, 0.0, x, out)


def log_sigmoid(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Logarithm of the sigmoid: ``-log(1 + exp(-x))``, without overflow for any `x`.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May be `x` itself.

    Returns
    -------
    ndarray or scalar
        The shape of `x`, a NumPy scalar where `x` is one.

    Raises
    ------
    TypeError
        `x` is complex, masked or not numeric; `out` has another dtype.
    ValueError
        `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.log_sigmoid([-1000.0, 0.0]).round(4)
    array([-1.000e+03, -6.931e-01])
    """
    y = _core_activation("log_sigmoid", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "log_sigmoid", 0.0, 0.0, x, out)


def tanh(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Hyperbolic tangent: ``(exp(x) - exp(-x)) / (exp(x) + exp(-x))``.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May be `x` itself.

    Returns
    -------
    ndarray or scalar
        The shape of `x`, a NumPy scalar where `x` is one.

    Raises
    ------
    TypeError
        `x` is complex, masked or not numeric; `out` has another dtype.
    ValueError
        `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.tanh([0.0, 100.0])
    array([0., 1.])
    """
    y = _core_activation("tanh", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "tanh", 0.0, 0.0, x, out)


def softsign(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Softsign: ``x / (1 + |x|)`` (Bergstra et al., 2009); +-1 at the infinities.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May be `x` itself.

    Returns
    -------
    ndarray or scalar
        The shape of `x`, a NumPy scalar where `x` is one.

    Raises
    ------
    TypeError
        `x` is complex, masked or not numeric; `out` has another dtype.
    ValueError
        `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.softsign([-1.0, 3.0])
    array([-0.5 ,  0.75])
    """
    y = _core_activation("softsign", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "softsign", 0.0, 0.0, x, out)


def exp(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Exponential: ``exp(x)``, the output of Poisson regressors.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May be `x` itself.

    Returns
    -------
    ndarray or scalar
        The shape of `x`, a NumPy scalar where `x` is one.

    Raises
    ------
    TypeError
        `x` is complex, masked or not numeric; `out` has another dtype.
    ValueError
        `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.exp([0.0, 1.0]).round(4)
    array([1.    , 2.7183])
    """
    y = _core_activation("exp", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "exp", 0.0, 0.0, x, out)


def softmax(x: ArrayLike, axis: int = -1, *, out: Array | None = None) -> Array:
    """Normalised exponentials: ``exp(x) / sum(exp(x))`` along `axis` (Bridle, 1990).

    The largest element is subtracted first, so nothing overflows. A row that holds -inf is fine; one
    that holds +inf, or nothing but -inf, gives NaN, as the formula does.

    Parameters
    ----------
    x : array_like
        At least one dimension, any real dtype; integers and bools become float64.
    axis : int
        The axis that the classes lie along: -1 for rows as samples, 0 for columns as samples.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May be `x` itself.

    Returns
    -------
    ndarray
        The shape of `x`.

    Raises
    ------
    TypeError
        `x` is complex, masked or not numeric; `out` has another dtype.
    ValueError
        `x` is a scalar, or has no such axis; `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.softmax([[0.0, 0.0], [1000.0, 0.0]])
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    return rowwise("softmax", x, axis, out)


def log_softmax(x: ArrayLike, axis: int = -1, *, out: Array | None = None) -> Array:
    """Logarithm of the softmax: ``x - log(sum(exp(x)))`` along `axis`, without overflow.

    Parameters
    ----------
    x : array_like
        At least one dimension, any real dtype; integers and bools become float64.
    axis : int
        The axis that the classes lie along: -1 for rows as samples, 0 for columns as samples.
    out : ndarray, optional
        Where the result goes; the result's shape and dtype. May be `x` itself.

    Returns
    -------
    ndarray
        The shape of `x`.

    Raises
    ------
    TypeError
        `x` is complex, masked or not numeric; `out` has another dtype.
    ValueError
        `x` is a scalar, or has no such axis; `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.log_softmax([0.0, 1000.0])
    array([-1000.,     0.])
    """
    return rowwise("log_softmax", x, axis, out)


logistic = sigmoid
