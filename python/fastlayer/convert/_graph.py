"""The one way from a source to a network: arithmetic on points, and the draft of a network.

Points are in `_points`, and what joins them in `_joins`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert import _recognise
from fastlayer.convert._affine import Affine
from fastlayer.convert._assemble import IDENTITY, Assembly, Cut, Dense, Flat, Join, Mix, OneRow
from fastlayer.convert._fold import alike, fold
from fastlayer.convert._joins import constant, join, parting
from fastlayer.convert._points import Point, elementwise
from fastlayer.convert._prove import ANY_WIDTH, prove
from fastlayer.convert._recognise import FORMULAS, clip, power
from fastlayer.errors import ConversionError
from fastlayer.network.ends import Ends
from fastlayer.network.network import ONE_ROW, Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType

__all__ = [
    "Cut", "Dense", "Draft", "Flat", "Join", "Mix", "OneRow", "Point", "add", "arithmetic",
    "constant", "cuts", "elementwise", "join",
]  # fmt: skip


def add(a: Point, b: Point, place: str, sign: float = 1.0) -> Point:
    """Return ``a + sign * b``: part of a formula, a residual connection, or a sum of branches."""
    error = ConversionError(place, "is no sum of arrays")
    runs = a.runs and b.runs
    residual = runs and a is not b and parting([a, b]) in (a, b)

    def made() -> Point | None:
        return _sum(a, b, sign, place) if runs else None

    ways = (made, _nothing) if residual else (_nothing, made)
    return elementwise([a, b], lambda p, q: _recognise.add(p, q, sign), error, *ways)


def _nothing() -> None:
    return None


def _sum(a: Point, b: Point, sign: float, place: str) -> Point:
    if sign == 1:
        return join("add", [a, b], place)
    if parting([a, b]) is b and a is not b:
        # With a computed from b, a - b is -(b - a).
        turned = join("add", [Point(a, Affine.of(sign)), b], place)
        return Point(turned, Affine.of(sign))
    return join("add", [a, Point(b, Affine.of(sign))], place)


# Formulas of two; see `arithmetic`.
_PAIRS = {
    "add": _recognise.add,
    "div": _recognise.quotient,
    "mul": _recognise.times,
    "sub": lambda p, q: _recognise.add(p, q, -1.0),
    **_recognise.PAIRS,
}


def arithmetic(op: str, x: Any, y: Any, place: str, error: ConversionError) -> Point:
    """Return an operation on two points, or a point and a constant.

    Parameters
    ----------
    op : str
        add, sub, mul, div, pow, maximum or minimum.
    x, y : Point or ndarray
        A constant is a float64 number, or has one for each feature.
    place : str
        Where it is, for messages.
    error : ConversionError
        Raised where nothing known comes of it.

    Returns
    -------
    Point

    Raises
    ------
    ConversionError
        A combination of which nothing known comes.
    """
    if isinstance(x, Point) and isinstance(y, Point):
        if op in ("add", "sub") and x.runs and y.runs:
            return add(x, y, place, 1.0 if op == "add" else -1.0)
        if op not in _PAIRS:
            raise error
        product = op == "mul" and x.runs and y.runs
        joined = (lambda: join("multiply", [x, y], place)) if product else _nothing
        return elementwise([x, y], _PAIRS[op], error, otherwise=joined)
    point, c = (x, y) if isinstance(x, Point) else (y, x)
    if op in ("pow", "maximum", "minimum"):
        if np.isnan(c).any() or (op == "pow" and (c.size != 1 or point is not x)):
            raise error
        if c.size != 1:
            return elementwise([point], lambda p: _PAIRS[op](p, _recognise.number(c)), error)
        e = float(c.ravel()[0])
        if op == "pow":
            square = e == 2 and point.runs
            joined = (lambda: join("multiply", [point, point], place)) if square else _nothing
            return elementwise([point], lambda p: power(p, e), error, otherwise=joined)
        return point.then([clip(e, np.inf) if op == "maximum" else clip(-np.inf, e)])
    if op == "div" and point is not x:
        return elementwise([point], FORMULAS["reciprocal"], error).then([Affine.of(c)])
    with np.errstate(all="ignore"):
        scale = {"mul": c, "div": 1 / c}.get(op, 1.0 if op == "add" or point is x else -1.0)
    shift = {"add": c, "sub": -c if point is x else c}.get(op, 0.0)
    return point.then([Affine.of(scale, shift)])


class Draft(NamedTuple):
    """A network that is to be made: the steps from the input to `point`."""

    point: Point
    dtype: DType
    source: str  # what it is made from, for messages
    features: int | None = None  # of the input, where the source tells
    traits: tuple[str, ...] = ()  # of the network
    ends: tuple[Ends, Ends] = (Ends(), Ends())  # its inputs and outputs

    @property
    def steps(self) -> tuple[Any, ...]:
        """The steps from the input to `point`."""
        return (self.point.running().since(None) or ())[1:]  # the input has no step

    def network(self, folds: bool = True) -> Network:
        """Make the network, with sums that are linear in one layer where it `folds` them.

        Raises
        ------
        ConversionError
            Steps that do not fit each other.
        """
        try:
            assembly = Assembly(self.dtype, self.features, self.source)
            steps = fold(self.steps) if folds else self.steps
            parts = tuple(assembly.run(steps) or [IDENTITY])
            traits = [ONE_ROW] if assembly.one_row is not None else []
            net = Network._of(parts, self.dtype, [*traits, *self.traits], self.ends)
            if self.features and net.in_features is None and any(map(cuts, steps)):
                # The network is told how many there are: its parts look at some of them only.
                net._end(Ends(("x",), (self.features,)), self.ends[1])
            return net
        except ConversionError:
            raise
        except (TypeError, ValueError) as error:
            raise ConversionError(self.source, str(error)) from error

    def proved(
        self,
        reference: Callable[[Array], Array],
        computes: DType | None = None,
        **how: Any,
    ) -> Network:
        """Make the network, and see that it does what its source does on rows of all kinds.

        `computes` is the dtype that the source computes in, where that is not its weights'. `how`
        goes to `prove`: more rows as `inputs`, the source in float64 as `wide`.
        """
        made = self.network()
        same = made if computes in (None, self.dtype) else made.astype(computes)
        if not _takes_rows(made):
            raise ConversionError(
                self.source,
                "works on the last of several axes before it flattens them, so there are no "
                "rows to try it with; convert with verify=False, and compare on your own data "
                "with net.verify",
            )
        made._verification = prove(
            same._plain,
            reference,
            source=self.source,
            features=self.features or ANY_WIDTH,
            unfolded=self.unfolded(same.dtype),
            **how,
        )
        return made

    def unfolded(self, dtype: DType) -> Network | None:
        """Return the network with sums as its source has them, None where it is that itself."""
        if alike(fold(self.steps), self.steps):
            return None
        return self.network(folds=False).astype(dtype)._plain


def cuts(step: Any) -> bool:
    """Whether a step takes some of the features."""
    inner = [s for branch in step.branches for s in branch] if isinstance(step, Join) else ()
    return isinstance(step, Cut) or any(map(cuts, inner))


def _takes_rows(net: Network) -> bool:
    """Whether a network takes single rows, and not samples of several axes alone."""
    if net.in_features is None:
        return True
    try:
        net(np.zeros((1, net.in_features), net.dtype))
    except ValueError:
        return False
    return True
