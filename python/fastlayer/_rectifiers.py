"""Activations made of straight pieces: relu, its relatives and the clipped lines.

Each function asks the core first and leaves conversions and errors to `_apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlayer._apply import finish, number
from fastlayer._apply import prelu as _prelu
from fastlayer._core import activation as _core_activation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastlayer._arrays import Array


def identity(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Return a copy of `x` as floating-point numbers: ``x``.

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
    >>> fl.identity([1, 2])
    array([1., 2.])
    """
    y = _core_activation("identity", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "identity", 0.0, 0.0, x, out)


def relu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Rectified linear unit: ``max(x, 0)`` (Nair & Hinton, 2010).

    NaN stays NaN and -0.0 stays -0.0, as with ``np.maximum(0, x)``.

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
    >>> fl.relu([-1.0, 0.0, 2.0])
    array([0., 0., 2.])
    """
    y = _core_activation("relu", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "relu", 0.0, 0.0, x, out)


def leaky_relu(x: ArrayLike, negative_slope: float = 0.01, *, out: Array | None = None) -> Array:
    """Leaky rectifier: ``x if x > 0 else negative_slope * x`` (Maas et al., 2013).

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    negative_slope : float
        Slope left of zero. The default is PyTorch's and ONNX's; Keras' layer uses 0.3, its
        function 0.2, and the tutorials that fastlayer grew from 0.1.
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
    >>> fl.leaky_relu([-1.0, 2.0], negative_slope=0.1)
    array([-0.1,  2. ])
    """
    p0 = number("negative_slope", negative_slope)
    y = _core_activation("leaky_relu", x, p0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "leaky_relu", p0, 0.0, x, out)


def prelu(x: ArrayLike, weight: ArrayLike, *, out: Array | None = None) -> Array:
    """Parametric rectifier: ``x if x > 0 else weight * x`` (He et al., 2015).

    Parameters
    ----------
    x : array_like
        Shape (..., n), any real dtype; integers and bools become float64.
    weight : array_like
        The learned slopes: one number for all, or shape (n,), one for each feature of the last
        axis. The dtype takes part in NumPy's promotion unless it is a Python number.
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
        `weight` is neither one number nor one for each feature; `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.prelu([[-1.0, -1.0], [3.0, -2.0]], [0.5, 0.25])
    array([[-0.5 , -0.25],
           [ 3.  , -0.5 ]])
    """
    return _prelu(x, weight, out)


def relu6(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Rectifier that stops at six: ``min(max(x, 0), 6)`` (Krizhevsky, 2010).

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
    >>> fl.relu6([-1.0, 3.0, 9.0])
    array([0., 3., 6.])
    """
    y = _core_activation("hardtanh", x, 0.0, 6.0, out)
    return y if y is not None and y.ndim else finish(y, "hardtanh", 0.0, 6.0, x, out)


def hardtanh(
    x: ArrayLike, min_val: float = -1.0, max_val: float = 1.0, *, out: Array | None = None
) -> Array:
    """Clipped line: ``min(max(x, min_val), max_val)`` (Collobert, 2004). NaN stays NaN.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    min_val, max_val : float
        The limits, ``min_val <= max_val``.
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
        `min_val` is greater than `max_val`; `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.hardtanh([-3.0, 0.5, 3.0])
    array([-1. ,  0.5,  1. ])
    """
    p0, p1 = number("min_val", min_val), number("max_val", max_val)
    check_range(p0, p1)
    y = _core_activation("hardtanh", x, p0, p1, out)
    return y if y is not None and y.ndim else finish(y, "hardtanh", p0, p1, x, out)


def check_range(min_val: float, max_val: float) -> None:
    """Refuse an empty range."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val={min_val} is greater than max_val={max_val}")


def hardsigmoid(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Straight-line sigmoid: ``min(max(x/6 + 1/2, 0), 1)`` (Howard et al., 2019).

    This is PyTorch's and Keras 3's; ONNX's default and Keras 2's is ``0.2 x + 1/2``.

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
    >>> fl.hardsigmoid([-4.0, 0.0, 1.5])
    array([0.  , 0.5 , 0.75])
    """
    y = _core_activation("hardsigmoid", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "hardsigmoid", 0.0, 0.0, x, out)


def hardswish(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Straight-line silu: ``x * min(max(x/6 + 1/2, 0), 1)`` (Howard et al., 2019).

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
    >>> fl.hardswish([0.0, 1.5, 4.0])
    array([0.   , 1.125, 4.   ])
    """
    y = _core_activation("hardswish", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "hardswish", 0.0, 0.0, x, out)
