"""Judge the judge: hand it correctly rounded results from mpmath; it must find 0.5 ULP at most."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import implementations as impl
import mpmath as mp
import numpy as np
from judge import build
from run import CHUNK, double_inputs

mp.mp.prec = 1400  # exp(-745) + 1 keeps all digits
SCALE, ALPHA = (
    mp.mpf("1.0507009873554804934193349852946"),
    mp.mpf("1.6732632423543772848170429916717"),
)


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def softplus(x, beta=1, threshold=mp.inf):
    return x if beta * x > threshold else mp.log1p(mp.exp(beta * x)) / beta


def gelu_tanh_slope(x, p, q):
    root, cubic = mp.sqrt(2 / mp.pi), mp.mpf(44715) / 10**6
    u = root * (x + cubic * x**3)
    return (1 + mp.tanh(u)) / 2 + x / 2 * mp.sech(u) ** 2 * root * (1 + 3 * cubic * x**2)


FORMULAS = {  # the plain ones: with 1400 bits nothing cancels
    "relu": lambda x, p, q: max(x, 0),
    "clip": lambda x, low, high: min(max(x, low), high),
    "leaky_relu": lambda x, slope, q: x if x > 0 else slope * x,
    "exp": lambda x, p, q: mp.exp(x),
    "sin": lambda x, p, q: mp.sin(x),
    "cos": lambda x, p, q: mp.cos(x),
    "tanh": lambda x, p, q: mp.tanh(x),
    "sigmoid": lambda x, p, q: sigmoid(x),
    "silu": lambda x, p, q: x * sigmoid(x),
    "softplus": softplus,
    "log_sigmoid": lambda x, p, q: -softplus(-x),
    "celu": lambda x, alpha, q: x if x > 0 else alpha * mp.expm1(x / alpha),
    "selu": lambda x, p, q: SCALE * (x if x > 0 else ALPHA * mp.expm1(x)),
    "gelu": lambda x, p, q: x / 2 * mp.erfc(-x / mp.sqrt(2)),
    "gelu_tanh": lambda x, p, q: (
        x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf(44715) / 10**6 * x**3)))
    ),
    "mish": lambda x, p, q: x * mp.tanh(softplus(x)),
    "hardsigmoid": lambda x, p, q: min(max(x + 3, 0), 6) / 6,
    "hardswish": lambda x, p, q: x * min(max(x + 3, 0), 6) / 6,
    "softsign": lambda x, p, q: x / (1 + abs(x)),
    "relu'": lambda x, p, q: x > 0,
    "clip'": lambda x, low, high: low < x < high,
    "leaky_relu'": lambda x, slope, q: 1 if x > 0 else slope,
    "cos'": lambda x, p, q: -mp.sin(x),
    "tanh'": lambda x, p, q: mp.sech(x) ** 2,
    "sigmoid'": lambda x, p, q: sigmoid(x) * sigmoid(-x),
    "silu'": lambda x, p, q: sigmoid(x) * (1 + x * sigmoid(-x)),
    "softplus'": lambda x, beta, threshold: 1 if beta * x > threshold else sigmoid(beta * x),
    "log_sigmoid'": lambda x, p, q: sigmoid(-x),
    "celu'": lambda x, alpha, q: 1 if x > 0 else mp.exp(x / alpha),
    "selu'": lambda x, p, q: SCALE * (1 if x > 0 else ALPHA * mp.exp(x)),
    "gelu'": lambda x, p, q: mp.erfc(-x / mp.sqrt(2)) / 2 + x * mp.npdf(x),
    "gelu_tanh'": gelu_tanh_slope,
    "mish'": lambda x, p, q: mp.tanh(softplus(x)) + x * mp.sech(softplus(x)) ** 2 * sigmoid(x),
    "hardsigmoid'": lambda x, p, q: mp.mpf(1) / 6 if -3 < x < 3 else 0,
    "hardswish'": lambda x, p, q: 0 if x <= -3 else 1 if x >= 3 else (2 * x + 3) / 6,
    "softsign'": lambda x, p, q: 1 / (1 + abs(x)) ** 2,
}


def rounded(value, dtype: type):
    """The nearest number of `dtype`, subnormal ones included, ties to even."""
    if value == 0:
        return dtype(0)
    limits = np.finfo(dtype)
    lowest = limits.minexp - limits.nmant
    exponent = max(mp.frexp(value)[1] - limits.nmant - 1, lowest)
    return dtype(float(mp.ldexp(int(mp.nint(mp.ldexp(value, -exponent))), exponent)))


def points(dtype: type) -> np.ndarray:
    """Some hundred inputs with finite results."""
    rng = np.random.default_rng(5)
    if dtype == np.float64:
        x = rng.choice(np.concatenate(list(double_inputs(CHUNK))), 900)
        return x[np.abs(x) < 700]
    patterns = rng.integers(0, 1 << 32, 500, np.uint64).astype(np.uint32).view(np.float32)
    near = np.concatenate([rng.uniform(-110, 88, 300), rng.uniform(-12, 4, 300)])
    x = np.concatenate([patterns, near.astype(np.float32)])
    return x[np.abs(x) < 88]


def main() -> int:
    judge = build()
    wrong = []
    for dtype in (np.float32, np.float64) if judge.wide else (np.float32,):
        x = points(dtype)
        for function in (*impl.FUNCTIONS, *impl.DERIVATIVES):
            function = replace(function, zero=math.nan)  # ULP everywhere
            parameters = [mp.mpf(float(dtype(number))) for number in function.parameters]
            formula = FORMULAS[function.reference]
            y = [rounded(formula(mp.mpf(float(number)), *parameters), dtype) for number in x]
            verdict = judge.score(function, x, judge.refer(function, x), np.array(y, dtype))
            print(f"{function.title:18} {dtype.__name__} {verdict.worst:.7f} of {x.size}")
            if verdict.worst > 0.5 + 2.0**-14:
                wrong.append(function.title)
    print("wrong: " + ", ".join(wrong) if wrong else "the judge agrees with mpmath")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
