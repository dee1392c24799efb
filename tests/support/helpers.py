"""What the tests share: wide references, derived bounds, the exact sum, array layouts."""

from __future__ import annotations

import math
import os
from itertools import pairwise

import numpy as np
import pytest

import fastlayer as fl

BLOCK = 256  # the block length of the sum, part of the numerical contract
FLOATS = [np.float32, np.float64]
SIZES = [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 256, 257, 784]
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"  # the long runs, instead of CI's
ISA_NAMES = ("scalar", "avx2", "avx512", "neon")

# ----------------------------------------------------------------------------- bits and ULPs


def bits(a):
    a = np.asarray(a)
    a = a.astype(a.dtype.newbyteorder("="), order="C")
    return a.view(f"u{a.dtype.itemsize}")


def assert_same_bits(actual, expected):
    """Equal shape, dtype and bits, signed zeros included; every NaN counts as the same NaN."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    differ = (bits(actual) != bits(expected)) & ~(np.isnan(actual) & np.isnan(expected))
    if differ.any():
        at = tuple(int(i) for i in np.argwhere(differ)[0]) if differ.ndim else ()
        raise AssertionError(
            f"{int(differ.sum())} of {differ.size} elements differ, first at {at}: "
            f"{actual[at]!r} is not {expected[at]!r}"
        )


def wide_type(dtype):
    """float64 checks float32; extended precision checks float64."""
    return np.float64 if np.dtype(dtype) == np.float32 else np.longdouble


def ulp(reference, dtype):
    """The spacing of `dtype` at each reference value, subnormal range included."""
    info = np.finfo(dtype)
    exponent = np.where(reference == 0, info.minexp, np.frexp(reference)[1] - 1)
    exponent = np.clip(exponent, info.minexp, info.maxexp - 1) - info.nmant
    return np.ldexp(np.ones((), wide_type(dtype)), exponent)


def ulp_error(actual, reference):
    """|actual - reference| in units of the last place of `actual`; inf stands for 2^emax.

    A NaN is right where it should be one, and nowhere else.
    """
    dtype = actual.dtype
    wide = wide_type(dtype)
    top = np.ldexp(wide(1), np.finfo(dtype).maxexp)
    reference = np.clip(np.asarray(reference, wide), -top, top)
    nan = np.isnan(reference)
    reference = np.where(nan, 0, reference)
    error = np.abs(np.clip(actual.astype(wide), -top, top) - reference) / ulp(reference, dtype)
    return np.where(nan, np.where(np.isnan(actual), 0, np.inf), error)


# ----------------------------------------------------------------------------- dense layers


def ref_linear(x, weight, bias=None):
    """x @ weight.T + bias in the wide type of the arrays' dtype."""
    wide = wide_type(np.result_type(x, weight))
    y = np.matmul(np.asarray(x, wide), np.asarray(weight, wide).T)
    return y if bias is None else y + np.asarray(bias, wide)


def sum_bound(k, magnitude, dtype):
    """Error bound of the sum in numerics.md; `magnitude` is |bias| + sum |x||w|.

    An element sees min(k, 256) fma roundings and then ceil(k/256) additions; + 2 is the contract's
    allowance, and eps = 2u covers the second-order terms. Each fma may underflow by half the
    smallest subnormal.
    """
    info = np.finfo(dtype)
    roundings = min(k, BLOCK) + -(-k // BLOCK) + 2
    return roundings * info.eps * magnitude + k * wide_type(dtype)(info.smallest_subnormal)


def linear_bound(x, weight, bias=None, dtype=None):
    dtype = dtype or np.result_type(x, weight)
    wide = wide_type(dtype)
    magnitude = np.matmul(np.abs(np.asarray(x, wide)), np.abs(np.asarray(weight, wide)).T)
    if bias is not None:
        magnitude = magnitude + np.abs(np.asarray(bias, wide))
    return sum_bound(np.shape(x)[-1], magnitude, dtype)


def assert_within(actual, exact, bound):
    assert actual.shape == exact.shape
    error = np.abs(np.asarray(actual, exact.dtype) - exact)
    assert (error <= bound).all(), f"largest error / bound: {np.max(error / bound)}"


# ----------------------------------------------------------------------------- activations
# Each reference takes the wide type and is accurate relative to the result, tails included.


def _log1p_exp(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _sigmoid(x):
    t = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, t) / (1 + t)


def _mish(x):
    n = np.exp(np.minimum(x, 50))  # tanh(softplus(x)) = n(n+2) / (n(n+2) + 2) with n = e^x
    return x * (n * (n + 2) / (n * (n + 2) + 2))


def _elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _celu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def _selu(x):
    scale = x.dtype.type("1.0507009873554804934193349852946")
    alpha = x.dtype.type("1.6732632423543772848170429916717")
    return np.where(x > 0, scale * x, scale * alpha * np.expm1(np.minimum(x, 0)))


def _softplus(x, beta=1.0, threshold=20.0):
    return np.where(beta * x > threshold, x, _log1p_exp(beta * x) / beta)


def _mp_map(function, x):
    import mpmath

    out = np.empty(x.shape, np.longdouble)
    with mpmath.workprec(160):
        for i, v in enumerate(x):
            mantissa, exponent = mpmath.frexp(function(mpmath, mpmath.mpf(float(v))))
            high = float(mantissa)
            low = float(mantissa - high)
            exponent = min(max(int(exponent), -20_000), 20_000)  # 0 or inf beyond
            out[i] = np.ldexp(np.longdouble(high) + np.longdouble(low), exponent)
    return out


def _gelu(x, approximate="none"):
    if x.dtype == np.longdouble:  # the argument of exp and erfc needs more than extended precision

        def exact(mp, v):
            if abs(v) > 60:
                return v if v > 0 else mp.mpf(0)  # off by e^-1800
            if approximate == "tanh":
                u = mp.sqrt(2 / mp.pi) * (v + mp.mpf("0.044715") * v**3)
                return v / (1 + mp.exp(-2 * u))
            return v * mp.erfc(-v / mp.sqrt(2)) / 2

        return _mp_map(exact, x)
    if approximate == "tanh":
        return x * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return x / 2 * np.vectorize(math.erfc, otypes=[float])(-x / math.sqrt(2))


def _softmax(x, axis=-1):
    t = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    return t / np.sum(t, axis=axis, keepdims=True)


def _log_softmax(x, axis=-1):
    d = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    rest = np.exp(d)
    at = np.expand_dims(np.argmax(d, axis=axis), axis)
    np.put_along_axis(
        rest, at, 0, axis
    )  # log(1 + rest) keeps its digits where the row has one peak
    return d - np.log1p(np.sum(rest, axis=axis, keepdims=True))


REFERENCES = {
    "identity": lambda x: x,
    "relu": lambda x: np.where(x < 0, 0, x),
    "leaky_relu": lambda x, negative_slope=0.01: np.where(x > 0, x, negative_slope * x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hardtanh": lambda x, min_val=-1.0, max_val=1.0: np.clip(x, min_val, max_val),
    "elu": _elu,
    "celu": _celu,
    "selu": _selu,
    "gelu": _gelu,
    "silu": lambda x: x * _sigmoid(x),
    "mish": _mish,
    "sigmoid": _sigmoid,
    "log_sigmoid": lambda x: -_log1p_exp(-x),
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * (np.clip(x + 3, 0, 6) / 6),
    "tanh": np.tanh,
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exp": np.exp,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": np.sqrt,
    "threshold": lambda x, threshold=0.0, value=0.0: np.where(x > threshold, x, value),
    "hardshrink": lambda x, lambd=0.5: np.where(np.abs(x) > lambd, x, 0),
    "softshrink": lambda x, lambd=0.5: np.sign(x) * np.maximum(np.abs(x) - lambd, 0),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}
ELEMENTWISE = [name for name in REFERENCES if "softmax" not in name]

# Limits in ULP of numerics.md, (float32, float64). A selection is exact; one product is one rounding,
# and so are roots, differences, and the three rational functions, computed in pairs: 1/2, and 0.01 for what the
# reference itself may be off by.
ULP_LIMITS = {
    "exp": (1, 1),
    "sin": (1, 1),
    "cos": (1, 1),
    "tanh": (1, 2),
    "sigmoid": (1.5, 2),
    "silu": (2, 2.5),
    "softplus": (2, 2.5),
    "elu": (2, 2.5),
    "selu": (2, 2.5),
    "celu": (2, 2.5),
    "log_sigmoid": (2, 2.5),
    "gelu": (3, 4),
    "mish": (3, 4),
    "identity": (0, 0),
    "relu": (0, 0),
    "relu6": (0, 0),
    "hardtanh": (0, 0),
    "threshold": (0, 0),
    "hardshrink": (0, 0),
    "leaky_relu": (0.5, 0.5),
    "sqrt": (0.51, 0.51),
    "softshrink": (0.51, 0.51),
    "softsign": (0.51, 0.51),
    "hardsigmoid": (0.51, 0.51),
    "hardswish": (0.51, 0.51),
}

# sup |f'|, from the derivative of each definition, rounded up; infinite at the jumps of two.
LIPSCHITZ = {
    **dict.fromkeys(ELEMENTWISE, 1.0),
    "selu": 1.7581,
    "gelu": 1.13,
    "silu": 1.1,
    "mish": 1.09,
    "sigmoid": 0.25,
    "hardsigmoid": 1 / 6,
    "hardswish": 1.5,
    **dict.fromkeys(("sqrt", "threshold", "hardshrink"), math.inf),
}


def reference(name, x, dtype, *, functions=REFERENCES, **parameters):
    """The exact activation; its parameters are numbers of `dtype`, as in the computation."""
    if name == "leaky_relu":
        parameters = {"negative_slope": 0.01, **parameters}
    parameters = {
        key: v if isinstance(v, str | int) else wide_type(dtype)(np.dtype(dtype).type(v))
        for key, v in parameters.items()
    }
    with np.errstate(all="ignore"):
        y = functions[name](np.asarray(x, wide_type(dtype)), **parameters)
        return np.asarray(y, wide_type(dtype))


# Derivatives, accurate relative to the result but for the rounding of the wide type next to a zero.


def _sigmoid_slope(x):
    e = np.exp(-np.abs(x))
    return e / ((1 + e) * (1 + e))


def _silu_slope(x):
    a = np.abs(x)
    e = np.exp(-a)
    n = np.where(x < 0, e * (1 + e - a), 1 + e * (1 + a))
    return n / ((1 + e) * (1 + e))


def _mish_slope(x):
    """mish is x n / (n + 2) with n = e^x (e^x + 2); numerator and denominator by E = e^-|x|."""
    a = np.abs(x)
    e = np.exp(-a)
    below = e * (4 * (1 - a) + e * (6 - 4 * a + e * (4 + e))) / (2 + 2 * e + e * e) ** 2
    above = (1 + e * (4 + e * (6 + 4 * a + 4 * e * (1 + a)))) / (1 + 2 * e + 2 * e * e) ** 2
    return np.where(x < 0, below, above)


def _gelu_slope(x, approximate="none"):
    if x.dtype == np.longdouble:

        def exact(mp, v):
            if abs(v) > 60:
                return mp.mpf(v > 0)  # off by e^-1800
            if approximate == "none":
                return mp.erfc(-v / mp.sqrt(2)) / 2 + v * mp.npdf(v)
            root, cubic = mp.sqrt(2 / mp.pi), mp.mpf("0.044715")
            u = 2 * root * (v + cubic * v**3)
            s, rest = 1 / (1 + mp.exp(-u)), 1 / (1 + mp.exp(u))
            return s * (1 + v * rest * 2 * root * (1 + 3 * cubic * v**2))

        return _mp_map(exact, x)
    x = np.clip(x, -60, 60)
    if approximate == "tanh":
        root = 2 * math.sqrt(2 / math.pi)
        s = _sigmoid(root * (x + 0.044715 * x**3))
        other = _sigmoid(-root * (x + 0.044715 * x**3))
        return s * (1 + x * other * root * (1 + 3 * 0.044715 * x**2))
    tail = np.vectorize(math.erfc, otypes=[float])(-x / math.sqrt(2)) / 2
    return tail + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _exp_of_quotient(x, y):
    """e^(x / y), for which the quotient needs more than extended precision."""
    if x.dtype == np.longdouble and y not in (1, 2):
        return _mp_map(lambda mp, v: mp.exp(v / float(y)), x)
    return np.exp(x / y)


def _sigmoid_of_product(x, y):
    if x.dtype == np.longdouble and y not in (1, 2):
        return _mp_map(lambda mp, v: 1 / (1 + mp.exp(-v * float(y))), x)
    return _sigmoid(x * y)


def _selu_slope(x):
    scale = x.dtype.type("1.0507009873554804934193349852946")
    alpha = x.dtype.type("1.6732632423543772848170429916717")
    return np.where(x > 0, scale, scale * alpha * np.exp(np.minimum(x, 0)))


DERIVATIVES = {
    "identity": np.ones_like,
    "relu": lambda x: x > 0,
    "leaky_relu": lambda x, negative_slope=0.01: np.where(x > 0, 1, negative_slope),
    "relu6": lambda x: (x > 0) & (x < 6),
    "hardtanh": lambda x, min_val=-1.0, max_val=1.0: (x > min_val) & (x < max_val),
    "elu": lambda x, alpha=1.0: np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0))),
    "celu": lambda x, alpha=1.0: np.where(x > 0, 1, _exp_of_quotient(np.minimum(x, 0), alpha)),
    "selu": _selu_slope,
    "gelu": _gelu_slope,
    "silu": _silu_slope,
    "mish": _mish_slope,
    "sigmoid": _sigmoid_slope,
    "log_sigmoid": lambda x: _sigmoid(-x),
    "hardsigmoid": lambda x: np.where(np.abs(x) < 3, x.dtype.type(1) / 6, 0),
    "hardswish": lambda x: np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6)),
    "tanh": lambda x: 4 * _sigmoid_slope(2 * x),
    "softplus": lambda x, beta=1.0, threshold=20.0: np.where(
        beta * x > threshold, 1, _sigmoid_of_product(x, beta)
    ),
    "softsign": lambda x: 1 / (1 + np.abs(x)) / (1 + np.abs(x)),
    "exp": np.exp,
    "sin": np.cos,
    "cos": lambda x: -np.sin(x),
    "sqrt": lambda x: 1 / (2 * np.sqrt(x)),
    "threshold": lambda x, threshold=0.0, value=0.0: x > threshold,
    "hardshrink": lambda x, lambd=0.5: np.abs(x) > lambd,
    "softshrink": lambda x, lambd=0.5: np.abs(x) > lambd,
}

# Limits in ULP of numerics.md, (float32, float64), of derivatives. Less than 1/4 from a zero of the
# derivative that is no kink, the limit is in eps.
SLOPE_LIMITS = {
    **dict.fromkeys(("identity", "relu", "leaky_relu", "relu6", "hardtanh"), (0, 0)),
    **dict.fromkeys(("threshold", "hardshrink", "softshrink"), (0, 0)),
    **dict.fromkeys(("hardsigmoid", "hardswish"), (0.51, 0.51)),
    **dict.fromkeys(("exp", "sin", "cos", "elu", "celu", "selu"), (1, 1)),
    **dict.fromkeys(("tanh", "sigmoid", "softplus", "log_sigmoid", "softsign"), (1, 1)),
    "sqrt": (1.5, 1.5),  # 1/2 of the quotient, and up to 1 from 1/2 of the root
    "silu": (1.5, 1.5),
    "gelu": (2.5, 2.5),
    "mish": (2.5, 2.5),
}
SLOPE_ZEROS = {  # the place, and the limit in eps
    "silu": (-1.278, 0.0625),
    "gelu": (-0.752, 0.25),
    "mish": (-1.192, 0.125),
}


def slope_limit(name, x, exact, dtype):
    """What the limits allow the derivative to be off by, in ULP of `exact`."""
    limit = SLOPE_LIMITS[name][np.dtype(dtype) == np.float64]
    if name in SLOPE_ZEROS:
        place, at_zero = SLOPE_ZEROS[name]
        at_zero = at_zero * np.finfo(dtype).eps / ulp(exact, dtype)
        limit = np.where(np.abs(x - place) < 0.25, at_zero, limit)
    return limit


def activation_bound(name, z, z_bound, dtype, **parameters):
    """act(z) and the bound of what an inexact z and the rounding limit of act add to it."""
    info = np.finfo(dtype)
    exact = reference(name, z, dtype, **parameters)
    if name == "softmax":
        spread = 2 * np.max(z_bound, axis=-1, keepdims=True)  # of any z_i - z_max
        relative = np.expm1(2 * spread) + (4 + math.log2(z.shape[-1])) * info.eps
        return exact, np.abs(exact) * relative + info.smallest_subnormal
    slope = np.exp(z + z_bound) if name == "exp" else LIPSCHITZ[name]
    own = ULP_LIMITS[name][np.dtype(dtype) == np.float64] * ulp(exact, dtype)
    return exact, slope * z_bound + own


def ref_network(x, layers, dtype):
    """Exact output and its error bound.

    A layer is (weight (n, k), bias, name or None) or that with the activation's parameters.
    """
    wide = wide_type(dtype)
    y, error = np.asarray(x, wide), np.zeros(np.shape(x), wide)
    for weight, bias, name, *parameters in layers:
        weight = np.asarray(weight, wide)
        error = error @ np.abs(weight).T + linear_bound(np.abs(y) + error, weight, bias, dtype)
        y = ref_linear(y, weight, bias)
        if name is not None:
            y, error = activation_bound(name, y, error, dtype, **dict(*parameters))
    return y, error


# ----------------------------------------------------------------------------- the exact sum


def _two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _odd_sum(a, b):
    """a + b in float64, rounded to odd: what makes a second rounding harmless."""
    s, e = _two_sum(a, b)
    even = (np.asarray(s).view(np.int64) & 1) == 0
    return np.where((e != 0) & even, np.nextafter(s, np.copysign(np.inf, e)), s)


def _two_product(a, b):
    def split(v):
        c = 134217729.0 * v  # 2^27 + 1, Veltkamp
        high = c - (c - v)
        return high, v - high

    p = a * b
    (ah, al), (bh, bl) = split(a), split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def fma(a, b, c):
    """Correctly rounded a * b + c on arrays of one dtype, away from over- and underflow."""
    if a.dtype == np.float32:  # the product is exact in float64
        return _odd_sum(a.astype(np.float64) * b, c.astype(np.float64)).astype(np.float32)
    ph, pl = _two_product(a, b)  # Boldo and Melquiond, "Emulation of a FMA", 2008
    uh, ul = _two_sum(c, pl)
    th, tl = _two_sum(ph, uh)
    return th + _odd_sum(tl, ul)


def plain_sum(x, weight, bias=None):
    """The sum as numerics.md defines it, element by element: x (m, k), weight (n, k) -> (m, n)."""
    dtype, k = x.dtype, x.shape[1]
    c = np.zeros((x.shape[0], weight.shape[0]), dtype)
    if bias is not None:
        c[...] = bias
    edges = [*range(0, k, BLOCK), k]
    for low, high in pairwise(edges):
        a = np.zeros_like(c)
        for i in range(low, high):
            a = fma(*np.broadcast_arrays(x[:, i, None], weight[None, :, i], a))
        c = c + a
    return c


# ----------------------------------------------------------------------------- layouts
# Each takes an array and returns one with the same shape that lies differently in memory. All but
# "broadcast" hold the same values; compare with np.ascontiguousarray of the layout itself.


def _sliced(a):
    big = np.zeros(tuple(2 * s + 1 for s in a.shape), a.dtype)
    view = big[tuple(slice(1, 2 * s, 2) for s in a.shape)]
    view[...] = a
    return view


def _padded_rows(a):
    big = np.zeros((*a.shape[:-1], a.shape[-1] + 3), a.dtype)
    view = big[..., 2 : 2 + a.shape[-1]]
    view[...] = a
    return view


def _reversed(a):
    flip = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[flip])[flip]


def _reversed_rows(a):
    return np.ascontiguousarray(a[::-1])[::-1]


def _transposed(a):
    return np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1)


def _read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def _misaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape) if a.size else a.copy()
    view[...] = a
    return view


LAYOUTS = {
    "c": lambda a: np.array(a, order="C"),
    "fortran": lambda a: np.array(a, order="F"),
    "transposed": _transposed,
    "sliced": _sliced,
    "padded_rows": _padded_rows,
    "reversed": _reversed,
    "reversed_rows": _reversed_rows,
    "broadcast_rows": lambda a: np.broadcast_to(a[:1], a.shape),
    "broadcast_columns": lambda a: np.broadcast_to(a[..., :1], a.shape),
    "read_only": _read_only,
    "misaligned": _misaligned,
    "big_endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "zero_size": lambda a: a[:0],
}
SAME_VALUES = [n for n in LAYOUTS if "broadcast" not in n and n != "zero_size"]
WRITABLE = ["c", "fortran", "transposed", "sliced", "padded_rows", "reversed", "reversed_rows"]


def native(a):
    return np.ascontiguousarray(a, a.dtype.newbyteorder("="))


def random_values(rng, shape, dtype):
    """Values over the whole range of an integer dtype, normal deviates of a float dtype."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        plain = dtype.newbyteorder("=")
        return rng.integers(info.min, info.max, shape, plain, endpoint=True).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def numbers(rng, shape, dtype, scale):
    """Bell-shaped, and exact in float32: only integers are drawn, which every NumPy does alike."""
    drawn = rng.randint(-(2**19), 2**19, size=(4, *np.atleast_1d(shape)))
    power = int(np.floor(np.log2(scale)))
    return np.ldexp(drawn.sum(axis=0).astype(np.float64), power - 19).astype(dtype)


# ----------------------------------------------------------------------------- configuration


def requested_isa():
    return os.environ.get("FASTLAYER_ISA") or None


def active_isa():
    return fl.show_config(mode="dicts")["isa"]["active"]


def available_isas():
    return fl.show_config(mode="dicts")["isa"]["supported"]


def few_or_many(few, many):
    """Parameters for a test that CI runs `few` times, and ``pytest -m long`` `many` times."""
    return [pytest.param(few), pytest.param(many, marks=pytest.mark.long)]
