"""Activations and norms that were written by hand, or taken apart: a little algebra finds them.

What elementwise operations make of `x` is kept as a polynomial (`_polynomials`). One that is in the
table, its numbers equal to rounding, is that activation. Where an operation is nothing by itself,
the conditions in its polynomial are resolved as well (`_piecewise`): then it is in the table, or
linear between knots (`_lines`), or one function on both sides of a knot.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._affine import Affine
from fastlayer.convert._formulas import Normalize, Recognised, formulas, spellings, units, variance
from fastlayer.convert._lines import BOUNDS, ROUNDINGS, Lines, at, clip
from fastlayer.convert._piecewise import Piecewise, expand, line
from fastlayer.convert._polynomials import (
    CONDITIONS,
    Poly,
    Term,
    X,
    add,
    apply,
    clipped,
    form,
    greater,
    has_vectors,
    maximum,
    minimum,
    nbytes,
    number,
    numbers,
    power,
    quotient,
    small,
    times,
    where,
)
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fastlayer.convert._formulas import Row


__all__ = [
    "CONDITIONS",
    "FORMULAS",
    "PAIRS",
    "Normalize",
    "Poly",
    "X",
    "add",
    "apply",
    "clip",
    "composed",
    "greater",
    "nbytes",
    "number",
    "polynomial",
    "power",
    "quotient",
    "recognise",
    "resolve",
    "small",
    "times",
    "where",
]

# SELU's alpha and scale.
_SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)
# Activations that others are made of.
_FUNCTIONS = {"exp", "sigmoid", "softplus", "tanh"}


def polynomial(step: Any, p: Poly, eps: float) -> Poly | None:
    """Return what a step of a network makes of a polynomial, None where that is no function here."""
    if isinstance(step, Affine):
        scale, shift = (number(v if v.ndim else float(v)) for v in (step.scale, step.shift))
        return add(times(scale, p), shift)
    if not isinstance(step, Activation):
        return None
    given = step.parameters
    if step.name in BOUNDS or step.name == "hardtanh":
        low, high = BOUNDS.get(step.name) or (given["min_val"], given["max_val"])
        return clipped(p, low, high)
    if step.name == "hardsigmoid":
        return clipped(add(times(number(1 / 6), p), number(0.5)), 0.0, 1.0)
    if step.name in ("leaky_relu", "prelu"):
        slope = given["negative_slope"] if step.name == "leaky_relu" else given["weight"]
        below = clipped(times(number(-1.0), p), 0.0, math.inf)
        slopes = number(float(slope) if np.size(slope) == 1 else np.asarray(slope, np.float64))
        return add(clipped(p, 0.0, math.inf), times(slopes, below), -1)
    if step.name == "softmax" and given["axis"] == -1:
        e = apply("exp", add(p, apply("max", p), -1))
        return quotient(e, apply("sum", e))
    if step.name == "softplus":
        return _softplus(p, given["beta"], given["threshold"], eps)
    return apply(step.name, p) if step.name in _FUNCTIONS else None


def composed(steps: Iterable[Any], eps: float) -> Poly | None:
    """Return the polynomial of some steps as it is simplest, None where one of them has none."""
    p: Poly | None = X
    for step in steps:
        p = p and polynomial(step, p, eps)
    return p


def _softplus(p: Poly, beta: float, threshold: float, eps: float) -> Poly:
    # Beyond the threshold it is its input, which differs from log(1 + exp(x)) by exp(-x).
    if beta == 1 and math.exp(-threshold) <= eps:
        return apply("softplus", p)
    x = times(number(beta), p)
    smooth = times(number(1 / beta), FORMULAS["log1p"](apply("exp", x)))
    return where(greater(x, number(threshold)), p, smooth)


# What activations and norms are made of beside activations, in the words of ONNX and of PyTorch.
FORMULAS: dict[str, Callable[[Poly], Poly]] = {
    "abs": lambda p: apply("abs", p),
    "erf": lambda p: apply("erf", p),
    "expm1": lambda p: add(apply("exp", p), number(1.0), -1),
    "log": lambda p: apply("log", p),
    "log1p": lambda p: apply("log", add(number(1.0), p)),
    "logsumexp": lambda p: apply("log", apply("sum", apply("exp", p))),
    "max": lambda p: apply("max", p),
    "mean": lambda p: apply("mean", p),
    "neg": lambda p: times(number(-1.0), p),
    "reciprocal": lambda p: power(p, -1.0),
    "rsqrt": lambda p: power(p, -0.5),
    "sign": lambda p: add(greater(p, ()), greater((), p), -1),
    "sqrt": lambda p: power(p, 0.5),
    "square": lambda p: power(p, 2.0),
    "sum": lambda p: apply("sum", p),
    "var": variance,
}
PAIRS: dict[str, Callable[[Poly, Poly], Poly]] = {
    "logaddexp": lambda p, q: apply("log", add(apply("exp", p), apply("exp", q))),
    "maximum": maximum,
    "minimum": minimum,
}


def recognise(p: Poly, eps: float) -> Recognised | None:
    """Return what computes a polynomial of `x`, None where there is nothing that does.

    `eps` is the machine epsilon of the constants.
    """
    if all(len(t.atoms) == 0 or t.atoms == X[0].atoms for t in p):
        factors = {len(t.atoms): t.factor for t in p}
        if has_vectors(p):
            return None  # those that follow each other are merged later, by `Affine.then`
        if 1 not in factors:
            return None  # a constant
        if factors == {1: 1.0}:
            return []
        return [Affine.of(factors[1], factors.get(0, 0.0))]
    rows = _TABLE.get(form(p), ())
    for pattern, make in rows if rows and not has_vectors(p) else ():
        steps = _matched(p, pattern, make, eps)
        if steps is not None:
            return steps
    return None


def _matched(
    p: Poly, pattern: Poly, make: Callable[[float], Recognised], eps: float
) -> Recognised | None:
    pairs: list[tuple[Any, Any]] = list(zip(numbers(p), numbers(pattern), strict=True))
    free = {a for a, b in pairs if math.isnan(b)}  # in the pattern, for any number
    close = all(math.isnan(b) or abs(a - b) <= ROUNDINGS * eps * abs(b) for a, b in pairs)
    if close and len(free) < 2 and all(map(math.isfinite, free)):
        return make(*free or (0.0,))
    return None


def resolve(p: Poly, eps: float) -> Recognised | None:
    """Return what computes a polynomial, the conditions in it resolved; see `recognise`."""
    if not p:
        return None  # 0, which is for what comes of it
    for scale, rest in _scaled(p):
        steps = recognise(rest, eps) or _resolved(rest, eps)
        if steps is not None:
            return [*steps, Affine.of(scale)]
    return _resolved(p, eps)


def _scaled(p: Poly) -> Iterator[tuple[Any, Poly]]:
    """Yield the vector that is a factor of a polynomial, of either sign, and what is left."""
    vector: Any = p[0].factor
    if np.ndim(vector) == 0 or not np.all(vector):
        return
    ratios = [np.broadcast_to(t.factor / vector, np.shape(vector)) for t in p]
    if all((r == r[0]).all() for r in ratios):
        for sign in (1.0, -1.0):
            rest = tuple(Term(t.atoms, sign * float(r[0])) for t, r in zip(p, ratios, strict=True))
            if not has_vectors(rest):
                yield sign * vector, rest


def _resolved(p: Poly, eps: float) -> Recognised | None:
    f = expand(p)
    if f is None:
        return None
    lines = [pair for pair in map(line, f.pieces) if pair is not None]
    if len(lines) == len(f.pieces):
        return Lines(f.knots, lines, f.exact, eps).steps()
    if any(has_vectors(piece) for piece in f.pieces):
        return None
    found = _row(f, eps) or _family(f, eps)
    if found is None and f.knots:
        each = [_row(Piecewise((), (piece,)), eps) for piece in f.pieces]
        one = each[0] is not None and len(each[0]) == 1 and all(steps == each[0] for steps in each)
        return each[0] if one else None
    return found


def _row(f: Piecewise, eps: float) -> Recognised | None:
    for pattern, make in _RESOLVED.get(_form(f), ()):
        knots: Iterable[tuple[Any, Any]] = zip(map(at, f.knots), pattern.knots, strict=True)
        near = all(abs(a - b) <= ROUNDINGS * eps * abs(b) for a, b in knots)
        steps = _matched(_together(f), _together(pattern), make, eps)
        if near and steps is not None:
            return steps
    return None


def _form(f: Piecewise) -> str:
    return "|".join(map(form, f.pieces))


def _together(f: Piecewise) -> Poly:
    return tuple(term for piece in f.pieces for term in piece)


def _family(f: Piecewise, eps: float) -> Recognised | None:
    """Return the exponential units, and what has a threshold; their numbers may be any."""
    text = _form(f)
    if text not in ("1+exp(x)|x", "log(1+exp(x))|x", "tanh(log(1+exp(x)))*x|tanh(x)*x"):
        return None
    v: list[Any] = list(numbers(_together(f)))
    knot = float(at(f.knots[0]))

    def near(a: float, b: float) -> bool:
        return abs(a - b) <= ROUNDINGS * eps * max(abs(a), abs(b))

    if text.startswith("tanh"):  # Mish, whose two sides are the same from some number on
        same = all(near(a, 1.0) for a in v) and 4 * math.exp(-3 * knot) <= eps
        return [Activation("mish")] if same else None
    if text.startswith("log"):
        factor, one, exponent, inside, slope = v
        # Where the step at the threshold shows, it has to be at the same number here.
        # With a beta it is their product that is compared, there as here.
        beta, threshold = (1.0, knot) if near(inside, 1.0) else (inside, knot * inside)
        short = float(np.float32(threshold))
        threshold = short if near(short, threshold) and beta != 1 else threshold
        sure = f.exact and f.knots[0] > knot if beta == 1 else not f.exact
        if (
            not (sure or math.exp(-threshold) <= eps)
            or not near(one, 1.0)
            or not near(exponent, 1.0)
            or not beta > 0
        ):
            return None
        back = [] if near(slope, 1.0) else [Affine.of(slope)]
        plain = Activation("softplus", threshold=threshold, **({} if beta == 1 else {"beta": beta}))
        return [plain, *back] if near(slope, factor * beta) else None
    constant, factor, inside, slope = v
    if knot != 0 or not near(constant, -factor) or not slope * inside > 0:
        return None
    alpha, back = factor * inside / slope, slope / inside
    if near(slope, 1.0) and not near(inside, 1.0):
        if near(alpha, 1.0):
            return [Activation("celu", alpha=1 / inside)]
    elif near(inside, 1.0) and near(alpha, _SELU[0]) and near(back, _SELU[1]):
        return [Activation("selu")]
    steps: list[Any] = [Activation("elu", alpha=1.0 if near(alpha, 1.0) else alpha)]
    if not near(inside, 1.0):
        steps.insert(0, Affine.of(inside))
    return steps if near(back, 1.0) else [*steps, Affine.of(back)]


def _tables() -> tuple[dict[str, list[Row]], dict[str, list[tuple[Piecewise, Any]]]]:
    whole: dict[str, list[Row]] = {}
    resolved: dict[str, list[tuple[Piecewise, Any]]] = {}
    rows = formulas()
    for pattern, make in [*rows, *units()]:
        whole.setdefault(form(pattern), []).append((pattern, make))
    definite = [row for row in rows if not any(map(math.isnan, numbers(row[0])))]
    for pattern, make in [*definite, *spellings()]:
        f = expand(pattern)
        assert f is not None
        resolved.setdefault(_form(f), []).append((f, make))
    return whole, resolved


_TABLE, _RESOLVED = _tables()
