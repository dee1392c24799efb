"""The algebra of what elementwise operations make of `x`.

A polynomial over `x` and over functions of such polynomials, multiplied out, so that it doesn't
matter in which order somebody wrote the factors. Numbers are float64, or vectors of them with one
for each feature.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlayer.arrays import Array

Number: TypeAlias = "float | Array"


class Atom(NamedTuple):
    """`x`, or a function of a polynomial.

    `form` is its text without numbers, `key` tells it from all others.
    """

    form: str
    key: bytes
    name: str
    numbers: tuple[float, ...] = ()
    inside: Poly = ()
    vectors: bool = False  # whether a number inside is another one for each feature

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Atom) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Term(NamedTuple):
    """A number times atoms."""

    atoms: tuple[Atom, ...]
    factor: Number


Poly: TypeAlias = tuple[Term, ...]

X: Poly = (Term((Atom("x", b"x", "x"),), 1.0),)
# Somewhat more than the longest formulas that are known need: (x - mean(x))^2 and what leads up to
# it, Mish of a softplus with a threshold.
_MOST_TERMS = 12
_LONGEST_FORM = 400
_MOST_FEATURES = 1 << 13


def form(p: Poly) -> str:
    """Return the text of a polynomial without its numbers."""
    return "+".join("*".join([a.form for a in t.atoms]) or "1" for t in p)


def key(p: Poly) -> bytes:
    """Return what tells a polynomial from all others."""
    return b"+".join([b"*".join([_bytes(t.factor), *(a.key for a in t.atoms)]) for t in p])


def _bytes(value: Number) -> bytes:
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()


def numbers(p: Poly) -> Iterator[Number]:
    """Yield what `form` leaves out."""
    for term in p:
        yield term.factor
        for atom in term.atoms:
            yield from atom.numbers
            yield from numbers(atom.inside)


def has_vectors(p: Poly) -> bool:
    """Whether a number in it is another one for each feature."""
    return any(isinstance(t.factor, np.ndarray) or any(a.vectors for a in t.atoms) for t in p)


def nbytes(p: Poly) -> int:
    """Return about how many bytes a polynomial takes in memory."""
    vectors = sum(t.factor.nbytes for t in p if isinstance(t.factor, np.ndarray))
    return vectors + sum(100 + 2 * len(a.key) for t in p for a in t.atoms)


def small(p: Poly) -> bool:
    """Whether anything that is known could still come of it; and what bounds the work."""
    if len(p) > _MOST_TERMS or len(form(p)) > _LONGEST_FORM:
        return False
    return all(
        np.isfinite(v).all() and v.size <= _MOST_FEATURES
        if isinstance(v, np.ndarray)
        else math.isfinite(v)
        for v in (t.factor for t in p)
    )


def number(value: Any) -> Poly:
    """Return a constant: a number, or a vector."""
    if isinstance(value, np.ndarray) and value.ndim:
        return (Term((), value),)
    return (Term((), float(value)),) if value else ()


def add(p: Poly, q: Poly, sign: float = 1.0) -> Poly:
    """Return ``p + sign * q``."""
    return _collect([*p, *(Term(t.atoms, sign * t.factor) for t in q)])


def times(p: Poly, q: Poly) -> Poly:
    """Return ``p * q``."""
    return _collect([Term(s.atoms + t.atoms, s.factor * t.factor) for s in p for t in q])


def power(p: Poly, exponent: float) -> Poly:
    """Return ``p ** exponent``."""
    if exponent in (1.0, 2.0, 3.0):
        return reduce(times, [p] * int(exponent))
    if len(p) == 1 and len(p[0].atoms) == 1 and is_number(p[0].factor, 1.0):
        atom = p[0].atoms[0]
        if atom.name == "power" and exponent == -1.0:
            return power(atom.inside, -atom.numbers[0])
    return apply("power", p, exponent)


def apply(name: str, p: Poly, *given: float) -> Poly:
    """Return the function `name` of a polynomial."""
    text = b"".join([name.encode(), b"(", key(p), b")", repr(given).encode() if given else b""])
    atom = Atom(f"{name}({form(p)})", text, name, given, p, has_vectors(p))
    return (Term((atom,), 1.0),)


def is_number(value: Number, wanted: float) -> bool:
    """Whether it is this number, and no vector."""
    return not isinstance(value, np.ndarray) and value == wanted


def quotient(p: Poly, q: Poly) -> Poly:
    """Return ``p / q``."""
    return times(p, power(q, -1.0))


def clipped(p: Poly, low: float, high: float) -> Poly:
    """Return a polynomial between two bounds."""
    return apply("clip", p, low, high)


def maximum(p: Poly, q: Poly) -> Poly:
    """Return the larger one."""
    return where(greater(p, q), p, q)


def minimum(p: Poly, q: Poly) -> Poly:
    """Return the smaller one."""
    return where(greater(p, q), q, p)


def greater(p: Poly, q: Poly) -> Poly:
    """Return 1 where ``p > q``, 0 elsewhere."""
    return apply("step", add(p, q, -1))


def negated(p: Poly) -> Poly:
    """Return 1 for 0, and 0 for 1."""
    other = {"step": "unstep", "unstep": "step"}
    if len(p) == 1 and len(p[0].atoms) == 1 and is_number(p[0].factor, 1.0):
        atom = p[0].atoms[0]
        if atom.name in other:  # a product with one of both leaves numbers as they are
            return apply(other[atom.name], atom.inside)
    return add(number(1.0), p, -1)


def either(p: Poly, q: Poly) -> Poly:
    """Return 1 where one of two is 1, which are 0 or 1."""
    return add(add(p, q), times(p, q), -1)


def where(condition: Poly, p: Poly, q: Poly) -> Poly:
    """Return `p` where a condition is 1, and `q` where it is 0."""
    return add(times(condition, p), times(negated(condition), q))


# In the words of ONNX.
CONDITIONS: dict[str, Callable[..., Poly]] = {
    "greater": greater,
    "greaterorequal": lambda p, q: negated(greater(q, p)),
    "less": lambda p, q: greater(q, p),
    "lessorequal": lambda p, q: negated(greater(p, q)),
    "and": times,
    "or": either,
    "not": negated,
    "where": where,
}


def _collect(terms: list[Term]) -> Poly:
    if len(terms) == 1 and len(terms[0].atoms) < 2:
        return () if is_number(terms[0].factor, 0.0) else (terms[0],)
    sums: dict[bytes, Term] = {}
    for term, factor in terms:
        atoms = term if len(term) < 2 else tuple(sorted(term, key=lambda a: (a.form, a.key)))
        name = b"*".join([a.key for a in atoms])
        before = sums.get(name)
        sums[name] = Term(atoms, factor if before is None else before.factor + factor)
    kept = [(name, t) for name, t in sums.items() if not is_number(t.factor, 0.0)]
    if len(kept) > 1:
        kept.sort(key=lambda nt: (len(nt[1].atoms), "*".join([a.form for a in nt[1].atoms]), nt[0]))
    return tuple([t for _, t in kept])
