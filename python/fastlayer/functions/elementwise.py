"""The activations as functions on arrays.

Each asks the core first, with the array as it is; what the core declines is converted, or refused
with the reason, by `finish`, `rowwise` and `apply_prelu`. float16, float32 and float64 stay what they
are, which the first overload of each says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from fastlayer import _core
from fastlayer.functions.calls import apply_prelu, finish, number, rowwise

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fastlayer.arrays import Array, F


@overload
def identity(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def identity(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("identity", x, 0.0, 0.0, out)
    return finish("identity", 0.0, 0.0, x, out) if y is None else y


@overload
def relu(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def relu(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("relu", x, 0.0, 0.0, out)
    return finish("relu", 0.0, 0.0, x, out) if y is None else y


@overload
def leaky_relu(
    x: NDArray[F], negative_slope: float = ..., *, out: Array | None = ...
) -> NDArray[F]: ...
@overload
def leaky_relu(x: ArrayLike, negative_slope: float = ..., *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("leaky_relu", x, p0, 0.0, out)
    return finish("leaky_relu", p0, 0.0, x, out) if y is None else y


@overload
def prelu(x: NDArray[F], weight: NDArray[F] | float, *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def prelu(x: ArrayLike, weight: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    return apply_prelu(x, weight, out)


@overload
def relu6(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def relu6(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("hardtanh", x, 0.0, 6.0, out)
    return finish("hardtanh", 0.0, 6.0, x, out) if y is None else y


@overload
def hardtanh(
    x: NDArray[F], min_val: float = ..., max_val: float = ..., *, out: Array | None = ...
) -> NDArray[F]: ...
@overload
def hardtanh(
    x: ArrayLike, min_val: float = ..., max_val: float = ..., *, out: Array | None = ...
) -> Array: ...
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
    y = _core.activation("hardtanh", x, p0, p1, out)
    return finish("hardtanh", p0, p1, x, out) if y is None else y


def check_range(min_val: float, max_val: float) -> None:
    """Refuse an empty range."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val={min_val} is greater than max_val={max_val}")


@overload
def hardsigmoid(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def hardsigmoid(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("hardsigmoid", x, 0.0, 0.0, out)
    return finish("hardsigmoid", 0.0, 0.0, x, out) if y is None else y


@overload
def hardswish(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def hardswish(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("hardswish", x, 0.0, 0.0, out)
    return finish("hardswish", 0.0, 0.0, x, out) if y is None else y


@overload
def elu(x: NDArray[F], alpha: float = ..., *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def elu(x: ArrayLike, alpha: float = ..., *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("elu", x, p0, 0.0, out)
    return finish("elu", p0, 0.0, x, out) if y is None else y


@overload
def celu(x: NDArray[F], alpha: float = ..., *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def celu(x: ArrayLike, alpha: float = ..., *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("celu", x, p0, 0.0, out)
    return finish("celu", p0, 0.0, x, out) if y is None else y


def check_nonzero(alpha: float) -> None:
    """Refuse a celu that divides by zero."""
    if alpha == 0:
        raise ValueError("celu: alpha must not be zero")


@overload
def selu(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def selu(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("selu", x, 0.0, 0.0, out)
    return finish("selu", 0.0, 0.0, x, out) if y is None else y


@overload
def gelu(
    x: NDArray[F], approximate: Literal["none", "tanh"] = ..., *, out: Array | None = ...
) -> NDArray[F]: ...
@overload
def gelu(
    x: ArrayLike, approximate: Literal["none", "tanh"] = ..., *, out: Array | None = ...
) -> Array: ...
def gelu(
    x: ArrayLike, approximate: Literal["none", "tanh"] = "none", *, out: Array | None = None
) -> Array:
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
    y = _core.activation(core, x, 0.0, 0.0, out)
    return finish(core, 0.0, 0.0, x, out) if y is None else y


def gelu_kernel(approximate: object) -> str:
    """Return the core's name for a form of gelu."""
    if approximate == "none":
        return "gelu"
    if approximate == "tanh":
        return "gelu_tanh"
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


@overload
def silu(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def silu(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("silu", x, 0.0, 0.0, out)
    return finish("silu", 0.0, 0.0, x, out) if y is None else y


@overload
def mish(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def mish(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("mish", x, 0.0, 0.0, out)
    return finish("mish", 0.0, 0.0, x, out) if y is None else y


@overload
def softplus(
    x: NDArray[F], beta: float = ..., threshold: float = ..., *, out: Array | None = ...
) -> NDArray[F]: ...
@overload
def softplus(
    x: ArrayLike, beta: float = ..., threshold: float = ..., *, out: Array | None = ...
) -> Array: ...
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
    check_positive(p0, p1)
    y = _core.activation("softplus", x, p0, p1, out)
    return finish("softplus", p0, p1, x, out) if y is None else y


def check_positive(beta: float, threshold: float) -> None:
    """Refuse a softplus that is not one; any threshold will do."""
    if not beta > 0:
        raise ValueError(f"softplus: beta must be positive, got {beta}")


swish = silu


@overload
def sigmoid(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def sigmoid(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("sigmoid", x, 0.0, 0.0, out)
    return finish("sigmoid", 0.0, 0.0, x, out) if y is None else y


@overload
def log_sigmoid(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def log_sigmoid(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("log_sigmoid", x, 0.0, 0.0, out)
    return finish("log_sigmoid", 0.0, 0.0, x, out) if y is None else y


@overload
def tanh(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def tanh(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("tanh", x, 0.0, 0.0, out)
    return finish("tanh", 0.0, 0.0, x, out) if y is None else y


@overload
def softsign(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def softsign(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("softsign", x, 0.0, 0.0, out)
    return finish("softsign", 0.0, 0.0, x, out) if y is None else y


@overload
def exp(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def exp(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
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
    y = _core.activation("exp", x, 0.0, 0.0, out)
    return finish("exp", 0.0, 0.0, x, out) if y is None else y


@overload
def sin(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def sin(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
def sin(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Sine: ``sin(x)``, of positional encodings and of SIREN (Sitzmann et al., 2020).

    Within one ULP for every `x`, however large; NaN at the infinities, and -0.0 at -0.0.

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
    >>> fl.sin([0.0, 1.0, 1e22]).round(4)
    array([ 0.    ,  0.8415, -0.8522])
    """
    y = _core.activation("sin", x, 0.0, 0.0, out)
    return finish("sin", 0.0, 0.0, x, out) if y is None else y


@overload
def cos(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def cos(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
def cos(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Cosine: ``cos(x)``, of positional encodings.

    Within one ULP for every `x`, however large; NaN at the infinities.

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
    >>> fl.cos([0.0, 1.0, 1e22]).round(4)
    array([1.    , 0.5403, 0.5232])
    """
    y = _core.activation("cos", x, 0.0, 0.0, out)
    return finish("cos", 0.0, 0.0, x, out) if y is None else y


@overload
def sqrt(x: NDArray[F], *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def sqrt(x: ArrayLike, *, out: Array | None = ...) -> Array: ...
def sqrt(x: ArrayLike, *, out: Array | None = None) -> Array:
    """Square root: ``sqrt(x)``, correctly rounded; NaN below zero, and -0.0 at -0.0.

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
    >>> fl.sqrt([0.0, 2.0, 9.0]).round(4)
    array([0.    , 1.4142, 3.    ])
    """
    y = _core.activation("sqrt", x, 0.0, 0.0, out)
    return finish("sqrt", 0.0, 0.0, x, out) if y is None else y


@overload
def threshold(
    x: NDArray[F], threshold: float = ..., value: float = ..., *, out: Array | None = ...
) -> NDArray[F]: ...
@overload
def threshold(
    x: ArrayLike, threshold: float = ..., value: float = ..., *, out: Array | None = ...
) -> Array: ...
def threshold(
    x: ArrayLike, threshold: float = 0.0, value: float = 0.0, *, out: Array | None = None
) -> Array:
    """Threshold: ``x if x > threshold else value``. NaN stays NaN.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    threshold, value : float
        The limit, and what stands in the place of `x` up to it. PyTorch has no defaults.
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
    >>> fl.threshold([-1.0, 0.5, 3.0], threshold=0.5, value=-7.0)
    array([-7., -7.,  3.])
    """
    p0, p1 = number("threshold", threshold), number("value", value)
    y = _core.activation("threshold", x, p0, p1, out)
    return finish("threshold", p0, p1, x, out) if y is None else y


@overload
def hardshrink(x: NDArray[F], lambd: float = ..., *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def hardshrink(x: ArrayLike, lambd: float = ..., *, out: Array | None = ...) -> Array: ...
def hardshrink(x: ArrayLike, lambd: float = 0.5, *, out: Array | None = None) -> Array:
    """Hard shrinkage: ``x if |x| > lambd else 0`` (Donoho & Johnstone, 1994). NaN stays NaN.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    lambd : float
        Up to this magnitude the result is 0. The default is PyTorch's, ONNX's and Keras'.
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
    >>> fl.hardshrink([-1.0, 0.5, 0.75])
    array([-1.  ,  0.  ,  0.75])
    """
    p0 = number("lambd", lambd)
    y = _core.activation("hardshrink", x, p0, 0.0, out)
    return finish("hardshrink", p0, 0.0, x, out) if y is None else y


@overload
def softshrink(x: NDArray[F], lambd: float = ..., *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def softshrink(x: ArrayLike, lambd: float = ..., *, out: Array | None = ...) -> Array: ...
def softshrink(x: ArrayLike, lambd: float = 0.5, *, out: Array | None = None) -> Array:
    """Soft shrinkage, towards zero by `lambd` (Donoho & Johnstone, 1994).

    It is ``x - lambd`` above `lambd`, ``x + lambd`` below ``-lambd`` and 0 in between. NaN stays NaN.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype; integers and bools become float64.
    lambd : float
        Up to this magnitude the result is 0. The default is PyTorch's, ONNX's and Keras'.
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
        `lambd` is negative; `out` has another shape.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.softshrink([-1.0, 0.5, 0.75])
    array([-0.5 ,  0.  ,  0.25])
    """
    p0 = number("lambd", lambd)
    check_lambd(p0)
    y = _core.activation("softshrink", x, p0, 0.0, out)
    return finish("softshrink", p0, 0.0, x, out) if y is None else y


def check_lambd(lambd: float) -> None:
    """Refuse a soft shrinkage that pushes away from zero."""
    if lambd < 0:
        raise ValueError(f"softshrink: lambd must not be negative, got {lambd}")


@overload
def softmax(x: NDArray[F], axis: int = ..., *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def softmax(x: ArrayLike, axis: int = ..., *, out: Array | None = ...) -> Array: ...
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


@overload
def log_softmax(x: NDArray[F], axis: int = ..., *, out: Array | None = ...) -> NDArray[F]: ...
@overload
def log_softmax(x: ArrayLike, axis: int = ..., *, out: Array | None = ...) -> Array: ...
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
