"""Activations and norms that were written by hand, or taken apart: a little algebra finds them.

What elementwise operations make of `x` is kept as a polynomial over `x` and over functions of such
polynomials, multiplied out, so that it doesn't matter in which order somebody wrote the factors.
A polynomial that is in the table, its numbers equal to rounding, is that activation.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from fastlayer.convert._affine import Affine
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Row: TypeAlias = tuple["Poly", Callable[[float], "Recognised"]]


class Atom(NamedTuple):
    """`x`, or a function of a polynomial; `form` is its text without numbers."""

    form: str
    name: str
    numbers: tuple[float, ...] = ()
    inside: Poly = ()


class Term(NamedTuple):
    """A number times atoms."""

    atoms: tuple[Atom, ...]
    factor: float


class Normalize(NamedTuple):
    """A norm of rows without weights, "layer_norm" or "rms_norm"; an affine behind it has those."""

    name: str
    eps: float
    in_features: int | None = None


Poly: TypeAlias = tuple[Term, ...]
Recognised: TypeAlias = "list[Affine | Activation | Normalize]"

X: Poly = (Term((Atom("x", "x"),), 1.0),)
# Twice what the longest entry of the table needs: (x - mean(x))^2 and what leads up to it.
_MOST_TERMS = 8
_LONGEST_FORM = 400
# Activations that others are made of; the first of them clip.
_BOUNDS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
_FUNCTIONS = {"exp", "sigmoid", "softplus", "tanh"}
# Constants of a graph have been rounded, folded and multiplied: a few roundings each.
_ROUNDINGS = 8


def form(p: Poly) -> str:
    """Return the text of a polynomial without its numbers."""
    return "+".join("*".join(a.form for a in t.atoms) or "1" for t in p)


def number(value: float) -> Poly:
    """Return a constant."""
    return (Term((), value),) if value else ()


def add(p: Poly, q: Poly, sign: float = 1.0) -> Poly:
    """Return ``p + sign * q``."""
    return _collect([*p, *(Term(t.atoms, sign * t.factor) for t in q)])


def times(p: Poly, q: Poly) -> Poly:
    """Return ``p * q``."""
    return _collect([Term(s.atoms + t.atoms, s.factor * t.factor) for s in p for t in q])


def power(p: Poly, exponent: float) -> Poly:
    """Return ``p ** exponent``."""
    if exponent in (1.0, 2.0, 3.0):
        result = p
        for _ in range(int(exponent) - 1):
            result = times(result, p)
        return result
    if len(p) == 1 and p[0].factor == 1.0 and len(p[0].atoms) == 1:
        atom = p[0].atoms[0]
        if atom.name == "power" and exponent == -1.0:
            return power(atom.inside, -atom.numbers[0])
    return apply("power", p, exponent)


def apply(name: str, p: Poly, *numbers: float) -> Poly:
    """Return the function `name` of a polynomial."""
    return (Term((Atom(f"{name}({form(p)})", name, numbers, p),), 1.0),)


def polynomial(step: Any, p: Poly, eps: float) -> Poly | None:
    """Return what a step of a network makes of a polynomial, None where that is no function here."""
    if isinstance(step, Affine) and step.in_features is None:
        return add(times(number(float(step.scale)), p), number(float(step.shift)))
    if not isinstance(step, Activation):
        return None
    given = step.parameters
    if step.name in _BOUNDS or step.name == "hardtanh":
        low, high = _BOUNDS.get(step.name) or (given["min_val"], given["max_val"])
        return apply("clip", p, low, high)
    if step.name == "hardsigmoid":
        return apply("clip", add(times(number(1 / 6), p), number(0.5)), 0.0, 1.0)
    # Beyond a threshold softplus is its input, which differs from log(1 + exp(x)) by exp(-x).
    exact = step.name != "softplus" or (given["beta"] == 1 and math.exp(-given["threshold"]) <= eps)
    return apply(step.name, p) if step.name in _FUNCTIONS and exact else None


def variance(p: Poly) -> Poly:
    """Return the mean square of what is left of each row without its mean."""
    centred = add(p, apply("mean", p), -1)
    return apply("mean", times(centred, centred))


# What activations and norms are made of beside activations, in the words of ONNX and of PyTorch.
FORMULAS: dict[str, Callable[[Poly], Poly]] = {
    "abs": lambda p: apply("abs", p),
    "erf": lambda p: apply("erf", p),
    "log": lambda p: apply("log", p),
    "log1p": lambda p: apply("log", add(number(1.0), p)),
    "mean": lambda p: apply("mean", p),
    "neg": lambda p: times(number(-1.0), p),
    "reciprocal": lambda p: power(p, -1.0),
    "rsqrt": lambda p: power(p, -0.5),
    "sqrt": lambda p: power(p, 0.5),
    "square": lambda p: power(p, 2.0),
    "var": variance,
}


def quotient(p: Poly, q: Poly) -> Poly:
    """Return ``p / q``."""
    return times(p, power(q, -1.0))


def clip(low: float, high: float) -> Activation:
    """Return what clips to a range."""
    name = next((name for name, bounds in _BOUNDS.items() if bounds == (low, high)), None)
    return Activation(name) if name else Activation("hardtanh", min_val=low, max_val=high)


def small(p: Poly) -> bool:
    """Whether anything in the table could still come of it; and what bounds the work."""
    finite = all(math.isfinite(t.factor) for t in p)
    return 0 < len(p) <= _MOST_TERMS and finite and len(form(p)) <= _LONGEST_FORM


def _collect(terms: list[Term]) -> Poly:
    sums: dict[tuple[Atom, ...], float] = {}
    for term, factor in terms:
        atoms = tuple(sorted(term, key=lambda a: a.form))
        sums[atoms] = sums.get(atoms, 0.0) + factor
    kept = [Term(atoms, factor) for atoms, factor in sums.items() if factor != 0]
    return tuple(sorted(kept, key=lambda t: (len(t.atoms), "*".join(a.form for a in t.atoms))))


def _numbers(p: Poly) -> Iterator[float]:
    """Yield what `form` leaves out."""
    for term in p:
        yield term.factor
        for atom in term.atoms:
            yield from atom.numbers
            yield from _numbers(atom.inside)


def recognise(p: Poly, eps: float) -> Recognised | None:
    """Return what computes a polynomial of `x`, None where there is nothing that does.

    `eps` is the machine epsilon of the constants.
    """
    if all(len(t.atoms) == 0 or t.atoms == X[0].atoms for t in p):
        factors = {len(t.atoms): t.factor for t in p}
        if 1 not in factors:
            return None  # a constant
        if factors == {1: 1.0}:
            return []
        return [Affine.of(factors[1], factors.get(0, 0.0))]
    for pattern, make in _TABLE.get(form(p), ()):
        pairs = list(zip(_numbers(p), _numbers(pattern), strict=True))
        free = {a for a, b in pairs if math.isnan(b)}  # in the pattern, for any number
        close = all(math.isnan(b) or abs(a - b) <= _ROUNDINGS * eps * abs(b) for a, b in pairs)
        if close and len(free) < 2 and all(map(math.isfinite, free)):
            return make(*free or (0.0,))
    return None


def _table() -> dict[str, list[Row]]:
    one, any_number = number(1.0), math.nan
    minus_x = times(number(-1.0), X)
    c = math.sqrt(2 / math.pi)
    cubic = add(times(number(c), X), times(number(0.044715 * c), power(X, 3)))
    half_x = times(number(0.5), X)
    softplus = apply("log", add(one, apply("exp", X)))
    falling = add(one, apply("exp", minus_x))
    logistic = power(falling, -1)
    mean = apply("mean", X)
    centred = add(X, mean, -1)
    difference = add(apply("mean", times(X, X)), times(mean, mean), -1)

    def inverse_root(variance: Poly) -> Poly:
        return apply("power", add(variance, (Term((), any_number),)), -0.5)

    def plain(name: str, **parameters: float | str) -> Callable[[float], Recognised]:
        return lambda _: [Activation(name, **parameters)]

    def norm(name: str) -> Callable[[float], Recognised]:
        return lambda eps: [Normalize(name, eps)]

    def swish(alpha: float) -> Recognised:
        inner: Recognised = [Activation("silu")]
        return inner if alpha == 1 else [Affine.of(alpha), *inner, Affine.of(1 / alpha)]

    gelu, gelu_tanh = plain("gelu"), plain("gelu", approximate="tanh")
    rows: list[Row] = [
        (add(half_x, times(half_x, apply("erf", times(number(math.sqrt(0.5)), X)))), gelu),
        (add(half_x, times(half_x, apply("tanh", cubic))), gelu_tanh),
        (times(X, apply("sigmoid", times(number(2.0), cubic))), gelu_tanh),
        (times(X, apply("sigmoid", ((Term(X[0].atoms, any_number)),))), swish),
        (times(X, logistic), plain("silu")),
        (times(X, apply("tanh", apply("softplus", X))), plain("mish")),
        (times(X, apply("tanh", softplus)), plain("mish")),
        (softplus, plain("softplus", threshold=math.inf)),
        (apply("log", apply("sigmoid", X)), plain("log_sigmoid")),
        (apply("log", logistic), plain("log_sigmoid")),
        (times(number(-1.0), apply("softplus", minus_x)), plain("log_sigmoid")),
        (times(number(-1.0), apply("log", falling)), plain("log_sigmoid")),
        (logistic, plain("sigmoid")),
        (times(X, power(add(one, apply("abs", X)), -1)), plain("softsign")),
        *(
            (times(number(1 / high), times(front, apply("clip", inner, 0.0, high))), plain(name))
            for name, front in (("hardswish", X), ("hardsigmoid", one))
            for high, inner in (
                (6.0, add(X, number(3.0))),
                (1.0, add(times(number(1 / 6), X), number(0.5))),
            )
        ),
        *((times(centred, inverse_root(v)), norm("layer_norm")) for v in (variance(X), difference)),
        (times(X, inverse_root(apply("mean", times(X, X)))), norm("rms_norm")),
    ]
    table: dict[str, list[Row]] = {}
    for pattern, make in rows:
        table.setdefault(form(pattern), []).append((pattern, make))
    return table


_TABLE = _table()
