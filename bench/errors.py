"""The error of activations beside their time: what a peer may have to count as equally accurate."""

from __future__ import annotations

import math

import numpy as np

JUDGED = 1 << 18  # elements of a result
# ULP in float32 and float64; docs/accuracy.md has what fastlayer itself reaches.
LIMITS = {
    **dict.fromkeys(("relu", "leaky_relu", "relu6", "hardtanh"), (1, 1)),
    **dict.fromkeys(("hardsigmoid", "hardswish", "softsign"), (2, 2)),
    **dict.fromkeys(("exp", "sin", "cos"), (1, 1)),
    "tanh": (1, 2),
    "sigmoid": (1.5, 2),
    **dict.fromkeys(("silu", "softplus", "elu", "selu", "celu", "log_sigmoid"), (2, 2.5)),
    **dict.fromkeys(("gelu", "mish"), (3, 4)),
}


def limit(act: str, dtype: str, width: int) -> float:
    """ULP; that of a softmax grows with the rows' length."""
    if "softmax" in act:
        return 4 + math.log2(width)
    return LIMITS[act][dtype == "float64"]


def loose(row: dict, act: str, width: int) -> set[str]:
    """The peers of an activation's row that don't keep the accuracy: counted apart."""
    most = limit(act, row["dtype"], width)
    return {
        name
        for name, error in row.get("ulp", {}).items()
        if error > most and not name.startswith("fastlayer")
    }


def ulp(y: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units of the last place of y's dtype; infinite where a NaN is missed."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(y.dtype)
        error = np.abs(y.astype(exact.dtype) - exact) / np.spacing(np.abs(rounded))
        error[y == rounded] = np.fmin(error[y == rounded], 0.5)  # infinities that agree too
    return float(np.where(np.isnan(error), math.inf, error).max(initial=0.0))


def exact(act: str, x: np.ndarray, count: int = JUDGED) -> np.ndarray:
    """The first results for x (whole rows), in a wider type than x has."""
    from peers import numpy_plain

    if x.ndim > 1:
        x = x[: max(1, count // x.shape[1])]
    slope = x.dtype.type(0.01)  # a parameter has x's type, in every library
    x = x[:count].astype(np.longdouble if x.dtype == np.float64 else np.float64)
    if act == "leaky_relu":
        return np.where(x > 0, x, slope * x)
    if act == "selu":
        return np.where(x > 0, x, _SELU[1] * np.expm1(x)) * _SELU[0]
    return (_gelu if act == "gelu" else numpy_plain.FORMULAS[act])(x)


_SELU = (np.longdouble("1.0507009873554804934"), np.longdouble("1.6732632423543772848"))


def _gelu(x: np.ndarray) -> np.ndarray:
    """x / 2 erfc(-x / sqrt 2), whose tail keeps its digits; erfc at the nearest float64, and its
    slope for what that leaves. In float64 it is right to the ULP or two that erfc has.
    """
    erfc = np.vectorize(math.erfc, otypes=[float])  # SciPy's loses digits with the square of z
    z = -x / np.sqrt(x.dtype.type(2))
    near = z.astype(np.float64)
    slope = -2 / math.sqrt(math.pi) * np.exp(-near * near)
    return x / 2 * (erfc(near) + slope * (z - near))
