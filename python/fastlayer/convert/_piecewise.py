"""Polynomials with conditions in them, as one polynomial on each interval of `x`.

Where, Relu, Abs, Min and Max make the same functions in many ways; between the knots all of those
are alike.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert._polynomials import (
    X,
    add,
    apply,
    has_vectors,
    is_number,
    key,
    negated,
    number,
    power,
    times,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.convert._polynomials import Atom, Number, Poly

_MOST_KNOTS = 12
_SAME = 1e-14
# What is known of constants too, and what is a mean, a sum or the like of each row.
_VALUES: dict[str, Callable[[Any], Any]] = {"exp": np.exp, "log": np.log, "tanh": np.tanh}
_OF_ROWS = {"max", "mean", "sum"}


class Piecewise(NamedTuple):
    """The polynomial of each interval, from one knot on to before the next.

    A knot that belongs to the interval on its left is the next larger float64. `exact` is whether
    none was rounded.
    """

    knots: tuple[Number, ...]
    pieces: tuple[Poly, ...]
    exact: bool = True


class _Unknown(Exception):
    """Nothing that is known is like it."""


def expand(p: Poly) -> Piecewise | None:
    """Return what a polynomial is on each interval, None where that is not known."""
    try:
        with np.errstate(all="ignore"):
            return _without_points(_sum(p))
    except _Unknown:
        return None


def line(p: Poly) -> tuple[Number, Number] | None:
    """Return slope and offset of a polynomial, None where it isn't linear."""
    slope: Number = 0.0
    offset: Number = 0.0
    for t in p:
        if not t.atoms:
            offset = t.factor
        elif t.atoms == X[0].atoms:
            slope = t.factor
        else:
            return None
    return slope, offset


def _sum(p: Poly) -> Piecewise:
    total = Piecewise((), ((),))
    for t in p:
        product = Piecewise((), (number(t.factor),))
        for atom in t.atoms:
            product = _each(times, product, _function(atom))
        total = _each(add, total, product)
    return total


def _expanded(atom: Atom) -> Piecewise:
    """Return an atom without conditions in it."""
    if atom.name == "x":
        return Piecewise((), (X,))
    p = _sum(atom.inside)
    if atom.name in _CONDITIONS:
        return _CONDITIONS[atom.name](p, *atom.numbers)
    if atom.name in _OF_ROWS:
        if p.knots or not p.pieces[0]:
            raise _Unknown
        return Piecewise((), (apply(atom.name, p.pieces[0]),))
    make = _SPELLINGS.get(atom.name) or (lambda q: _applied(atom.name, q, *atom.numbers))
    return _each(make, p)


# A formula is looked at again with each operation that it grows by.
_function = lru_cache(maxsize=64)(_expanded)


def _applied(name: str, p: Poly, *given: float) -> Poly:
    """Return a function of a polynomial in the one way that it is written in here."""
    if all(not t.atoms for t in p):
        return _of_constant(name, p[0].factor if p else 0.0, *given)
    if name == "power":
        return power(p, *given)
    if name == "log" and len(p) == 1 and len(p[0].atoms) == 1 and is_number(p[0].factor, 1.0):
        atom = p[0].atoms[0]
        if atom.name == "power" and atom.numbers == (-1.0,):
            return times(number(-1.0), apply("log", atom.inside))
    return apply(name, p, *given)


def _of_constant(name: str, c: Number, *given: float) -> Poly:
    if name not in _VALUES and name != "power":
        raise _Unknown
    value = np.power(c, given[0]) if name == "power" else _VALUES[name](c)
    if not np.isfinite(value).all():
        raise _Unknown
    return number(value)


def _logistic(p: Poly) -> Poly:
    return power(add(number(1.0), _applied("exp", times(number(-1.0), p))), -1.0)


def _softplus(p: Poly) -> Poly:
    return _applied("log", add(number(1.0), _applied("exp", p)))


# Functions that are written with others here.
_SPELLINGS: dict[str, Callable[[Poly], Poly]] = {"sigmoid": _logistic, "softplus": _softplus}


def _above(p: Piecewise, strict: bool | None = None) -> Piecewise:
    """Return 1 where a polynomial is above 0, 0 elsewhere; at 0 what is simpler, or 0 if `strict`."""
    knots: list[Any] = []
    pieces: list[Poly] = []
    exact = p.exact
    lows, highs = (-math.inf, *p.knots), (*p.knots, math.inf)
    for q, low, high in zip(p.pieces, lows, highs, strict=True):
        found = line(q)
        exact = exact and found is not None and bool(np.isin(np.abs(found[0]), (0.0, 1.0)).all())
        a, b = (np.asarray(v, np.float64) for v in found or _exponential(q))
        at = np.where(a == 0, 0.0, -b / a) + 0.0
        if strict:
            at = np.where(a > 0, np.nextafter(at, math.inf), at)
        always = b > 0 if strict else b >= 0
        knots += [low, np.minimum(np.maximum(at, low), high)]
        pieces += [_mask(np.where(a == 0, always, a < 0)), _mask(np.where(a == 0, always, a > 0))]
    return _simple(knots[1:], pieces, exact)


def _mask(value: Array) -> Poly:
    return number(_plain(value.astype(np.float64)))


def _exponential(p: Poly) -> tuple[Number, Number]:
    """Return a line that has the sign of an exponential function of a line, and a number."""
    constant = p[0].factor if p and not p[0].atoms else 0.0
    rest = p[1:] if p and not p[0].atoms else p
    if len(rest) != 1 or len(rest[0].atoms) != 1 or has_vectors(p):
        raise _Unknown
    atom = rest[0].atoms[0]
    inside = line(atom.inside) if atom.name == "exp" else None
    if inside is None:
        raise _Unknown
    level = -constant / rest[0].factor
    sign = math.copysign(1.0, rest[0].factor)
    if level <= 0:
        return 0.0, sign
    return sign * inside[0], sign * (inside[1] - math.log(level))


def _select(condition: Piecewise, p: Piecewise, q: Piecewise) -> Piecewise:
    def chosen(m: Poly, a: Poly, b: Poly) -> Poly:
        return add(b, times(m, add(a, b, -1))) if has_vectors(m) else (a if m else b)

    return _each(chosen, condition, p, q)


def _clip(p: Piecewise, low: float, high: float) -> Piecewise:
    for bound, sign in ((low, 1.0), (high, -1.0)):
        if math.isfinite(bound):
            limit = Piecewise((), (number(bound),))
            beyond = _each(lambda a, b, s=sign: times(number(s), add(a, b, -1)), p, limit)
            p = _select(_above(beyond), p, limit)
    return p


def _abs(p: Piecewise) -> Piecewise:
    return _select(_above(p), p, _each(lambda q: times(number(-1.0), q), p))


def _value(p: Poly, x: float) -> float:
    """Return what a polynomial is at a number; NaN where it takes more to know."""
    total = 0.0
    for t in p:
        product: Any = t.factor
        for a in t.atoms:
            if a.name == "x":
                product = product * x
            elif a.name == "power":
                product = product * np.power(_value(a.inside, x), a.numbers[0])
            else:
                make = _VALUES.get(a.name)
                product = product * (make(_value(a.inside, x)) if make else math.nan)
        total = total + product
    return total


def _without_points(f: Piecewise) -> Piecewise:
    """Return a function without intervals of one number, where a neighbour has its value there."""
    knots, pieces = list(f.knots), list(f.pieces)
    i = 1
    while i < len(knots):
        low, high = knots[i - 1], knots[i]
        if not isinstance(low, np.ndarray) and not isinstance(high, np.ndarray):
            left, here, right = (_value(p, low) for p in pieces[i - 1 : i + 2])
            if high <= math.nextafter(low, math.inf):
                # Constants of float64 were rounded here; others are far coarser.
                least = _SAME * np.maximum(1.0, np.abs(here))
                if np.all(np.abs(left - here) <= least):
                    del knots[i - 1], pieces[i]
                    continue
                if np.all(np.abs(right - here) <= least):
                    del knots[i], pieces[i]
                    continue
        i += 1
    return Piecewise(tuple(knots), tuple(pieces), f.exact)


_CONDITIONS: dict[str, Callable[..., Piecewise]] = {
    "abs": _abs,
    "clip": _clip,
    "step": lambda p: _above(p, True),
    "unstep": lambda p: _each(negated, _above(p, True)),
}


def _each(make: Callable[..., Poly], *given: Piecewise) -> Piecewise:
    """Return what an operation makes of some functions, on each interval of all their knots."""
    exact = all(p.exact for p in given)
    if not any(p.knots for p in given):
        return Piecewise((), (make(*[p.pieces[0] for p in given]),), exact)
    every = [k for p in given for k in p.knots]
    if any(isinstance(k, np.ndarray) for k in every):
        knots = tuple(np.sort(np.stack(np.broadcast_arrays(*every)), axis=0))
        lows = [np.full(knots[0].shape, -math.inf), *knots]
        columns = [[_between(p, low) for p in given] for low in lows]
    else:
        knots = tuple(sorted(set(every)))
        columns = [
            [p.pieces[bisect_right(p.knots, low)] for p in given] for low in (-math.inf, *knots)
        ]
    return _simple(knots, [make(*column) for column in columns], exact)


def _between(p: Piecewise, low: Array) -> Poly:
    """Return the polynomial that each feature has from `low` on."""
    if not p.knots:
        return p.pieces[0]
    at = np.zeros(low.shape, int)
    for knot in p.knots:
        at += knot <= low
    first = at.flat[0]
    if (at == first).all():
        return p.pieces[first]
    return reduce(add, [times(number((at == i) * 1.0), p.pieces[i]) for i in np.unique(at)])


def _simple(knots: Any, pieces: list[Poly], exact: bool) -> Piecewise:
    """Return a function without intervals that are empty, or like the ones before them."""
    kept: list[Number] = []
    left: list[Poly] = []
    low: Any = -math.inf
    for piece, high in zip(pieces, (*knots, math.inf), strict=True):
        if np.all(low >= high):
            continue
        if not left or key(left[-1]) != key(piece):
            kept.append(_plain(low))
            left.append(piece)
        low = high
    if len(kept) > _MOST_KNOTS:
        raise _Unknown
    return Piecewise(tuple(kept[1:]), tuple(left), exact)


def _plain(value: Any) -> Number:
    """Return a number where a vector is the same one for all features."""
    if not isinstance(value, np.ndarray):
        return float(value)
    flat: Array = value.reshape(-1)
    return float(flat[0]) if (flat == flat[0]).all() else flat
