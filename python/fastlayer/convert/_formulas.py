"""The formulas of activations and norms: what they are when somebody writes them out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from fastlayer.convert._affine import Affine
from fastlayer.convert._polynomials import Term, X, add, apply, number, power, times
from fastlayer.functions.activation import Activation, named

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.convert._polynomials import Poly

    Row: TypeAlias = tuple[Poly, Callable[[float], "Recognised"]]

Recognised: TypeAlias = "list[Any]"


class Normalize(NamedTuple):
    """A norm of rows without weights, "layer_norm" or "rms_norm"; an affine behind it has those."""

    name: str
    eps: float
    in_features: int | None = None


ONE = number(1.0)
MINUS_X = times(number(-1.0), X)


def variance(p: Poly) -> Poly:
    """Return the mean square of what is left of each row without its mean."""
    centred = add(p, apply("mean", p), -1)
    return apply("mean", times(centred, centred))


def _plain(name: str, **parameters: float | str) -> Callable[[float], Recognised]:
    return lambda _: [named(name, **parameters)]


def _swish(alpha: float) -> Recognised:
    inner: Recognised = [Activation("silu")]
    return inner if alpha == 1 else [Affine.of(alpha), *inner, Affine.of(1 / alpha)]


def formulas() -> list[Row]:
    """Return polynomials, and what makes the steps that compute them.

    A number that is NaN stands for any, which `make` gets.
    """
    one, any_number, minus_x, plain, swish = ONE, math.nan, MINUS_X, _plain, _swish
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

    def norm(name: str) -> Callable[[float], Recognised]:
        return lambda eps: [Normalize(name, eps)]

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
    return rows


def _share(p: Poly, q: Poly) -> Poly:
    return times(p, power(q, -1.0))


def units() -> list[Row]:
    """Return what is positive divided by the sum of its absolute values; see `formulas`."""

    def unit(p: Poly) -> Poly:
        return _share(p, apply("sum", apply("abs", p)))

    def logistic(_: float) -> Recognised:
        return [Activation("log_sigmoid"), Activation("softmax")]

    rising = [apply("exp", p) for p in (X, add(X, apply("max", X), -1))]
    return [
        *((unit(_share(e, apply("sum", e))), _plain("softmax")) for e in rising),
        (unit(apply("sigmoid", X)), logistic),
    ]


def spellings() -> list[Row]:
    """Return other ways to write them, of polynomials without conditions as `expand` writes them."""
    rising, falling = apply("exp", X), apply("exp", MINUS_X)
    twice, minus_twice = (apply("exp", times(number(c), X)) for c in (2.0, -2.0))
    shifted = add(X, apply("max", X), -1)

    def any_logistic() -> Poly:
        return power(add(ONE, apply("exp", (Term(X[0].atoms, math.nan),))), -1.0)

    squared = add(times(rising, rising), times(number(2.0), rising))
    sums = [(apply("exp", p), p) for p in (X, shifted)]
    return [
        (times(X, any_logistic()), lambda minus: _swish(-minus)),
        (_share(rising, add(ONE, rising)), _plain("sigmoid")),
        (
            add(number(0.5), times(number(0.5), apply("tanh", times(number(0.5), X)))),
            _plain("sigmoid"),
        ),
        (add(X, apply("log", add(ONE, falling))), _plain("softplus", threshold=math.inf)),
        (add(X, apply("log", add(ONE, rising)), -1), _plain("log_sigmoid")),
        (_share(add(rising, falling, -1), add(rising, falling)), _plain("tanh")),
        (_share(add(ONE, minus_twice, -1), add(ONE, minus_twice)), _plain("tanh")),
        (_share(add(twice, ONE, -1), add(twice, ONE)), _plain("tanh")),
        (add(times(number(2.0), power(add(ONE, minus_twice), -1.0)), ONE, -1), _plain("tanh")),
        (add(ONE, times(number(2.0), power(add(ONE, twice), -1.0)), -1), _plain("tanh")),
        (times(X, _share(squared, add(squared, number(2.0)))), _plain("mish")),
        *((_share(e, apply("sum", e)), _plain("softmax")) for e, _ in sums),
        *((add(p, apply("log", apply("sum", e)), -1), _plain("log_softmax")) for e, p in sums),
        *((apply("log", _share(e, apply("sum", e))), _plain("log_softmax")) for e, _ in sums),
    ]
