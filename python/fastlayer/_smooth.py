"""Smooth relatives of relu: elu, celu, selu, gelu, silu, mish, softplus.

Each function asks the core first and leaves conversions and errors to `_apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlayer._apply import finish, number
from fastlayer._core import activation as _core_activation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastlayer._arrays import Array


def elu(x: ArrayLike, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """Exponential linear unit: ``x if x > 0 else alpha * (exp(x) - 1)`` (Clevert et al., 2015).

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    alpha : float
        Minus the limit at minus infinity.
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
    >>> fl.elu([-1e-20, 0.0, 2.0])
    array([-1.e-20,  0.e+00,  2.e+00])
    """
    p0 = number("alpha", alpha)
    y = _core_activation("elu", x, p0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "elu", p0, 0.0, x, out)


def celu(x: ArrayLike, alpha: float = 1.0, *, out: Array | None = None) -> Array:
    """Continuously differentiable elu: ``max(x, 0) + min(alpha * (exp(x/alpha) - 1), 0)``.

    Barron, 2017.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    alpha : float
        Minus the limit at minus infinity; not zero.
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
        `alpha` is zero; `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.celu([0.0, 3.0], alpha=0.5)
    array([0., 3.])
    """
    p0 = number("alpha", alpha)
    check_nonzero(p0)
    y = _core_activation("celu", x, p0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "celu", p0, 0.0, x, out)


def check_nonzero(alpha: float) -> None:
    """Refuse a celu that divides by zero."""
    if alpha == 0:
        raise ValueError("celu: alpha must not be zero")


def selu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Scaled elu: ``s * (x if x > 0 else a * (exp(x) - 1))`` (Klambauer et al., 2017).

    ``s = 1.0507009873554805``, ``a = 1.6732632423543772``.

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
    >>> fl.selu([1.0])
    array([1.05070099])
    """
    y = _core_activation("selu", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "selu", 0.0, 0.0, x, out)


def gelu(x: ArrayLike, approximate: str = "none", *, out: Array | None = None) -> Array:
    """Gaussian error linear unit: ``x * Phi(x)`` (Hendrycks & Gimpel, 2016).

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    approximate : {"none", "tanh"}
        "none" is the exact form with the error function; "tanh" is the approximation of the
        paper, ``x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x**3)))``, JAX's default.
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
        `approximate` is neither; `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.gelu([-1.0, 0.0, 1.0]).round(4)
    array([-0.1587,  0.    ,  0.8413])
    >>> fl.gelu([1.0], approximate="tanh").round(4)
    array([0.8412])
    """
    core = gelu_kernel(approximate)
    y = _core_activation(core, x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, core, 0.0, 0.0, x, out)


def gelu_kernel(approximate: object) -> str:
    """Return the core's name for a form of gelu."""
    if approximate == "none":
        return "gelu"
    if approximate == "tanh":
        return "gelu_tanh"
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


def silu(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Sigmoid linear unit: ``x / (1 + exp(-x))`` (Elfwing et al., 2017).

    Also known as swish (Ramachandran et al., 2017); ``fl.swish`` is this function.

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
    >>> fl.silu([0.0, 1.0]).round(4)
    array([0.    , 0.7311])
    """
    y = _core_activation("silu", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "silu", 0.0, 0.0, x, out)


def mish(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Mish: ``x * tanh(log(1 + exp(x)))`` (Misra, 2019).

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
    >>> fl.mish([0.0, 1.0]).round(4)
    array([0.    , 0.8651])
    """
    y = _core_activation("mish", x, 0.0, 0.0, out)
    return y if y is not None and y.ndim else finish(y, "mish", 0.0, 0.0, x, out)


def softplus(
    x: ArrayLike, beta: float = 1.0, threshold: float = 20.0, *, out: Array | None = None
) -> Array:
    """Soft rectifier: ``log(1 + exp(beta * x)) / beta`` (Dugas et al., 2001).

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    beta : float
        Sharpness, positive.
    threshold : float
        Where ``beta * x`` is above it the result is `x`, as in PyTorch.
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
        `beta` is not positive; `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.softplus([0.0, 100.0]).round(4)
    array([  0.6931, 100.    ])
    """
    p0, p1 = number("beta", beta), number("threshold", threshold)
    check_positive(p0)
    y = _core_activation("softplus", x, p0, p1, out)
    return y if y is not None and y.ndim else finish(y, "softplus", p0, p1, x, out)


def check_positive(beta: float) -> None:
    """Refuse a softplus that is not one."""
    if not beta > 0:
        raise ValueError(f"softplus: beta must be positive, got {beta}")


swish = silu
