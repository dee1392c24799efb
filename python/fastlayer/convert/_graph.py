"""The points of a computation graph, each as the steps that lead there; sums become residuals.

The one way from a source to a network. A point knows the point before it, so a sum is a residual
where one of its two points lies on the way to the other. A point also knows what it is as a formula
of earlier points: where a formula is an activation or a norm that somebody wrote by hand, the point
is that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert import _recognise
from fastlayer.convert._affine import Affine
from fastlayer.convert._assemble import IDENTITY, Assembly, Dense, Flat, OneRow, Sum
from fastlayer.convert._prove import prove
from fastlayer.convert._recognise import FORMULAS, X, clip, power
from fastlayer.errors import ConversionError
from fastlayer.network.network import ONE_ROW, Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._recognise import Poly

__all__ = ["Dense", "Draft", "Flat", "OneRow", "Point", "Sum", "add", "arithmetic"]

# A network of residuals in residuals is not run deeper.
_DEEPEST = 64
# Earlier points that a formula is known of: an activation that was taken apart leaves fewer.
_MOST_VIEWS = 6
# Steps that the search for all residual connections of a network may look at.
_LONGEST_WALK = 1 << 20


class Formula(NamedTuple):
    """What nothing computes by itself; the error says so where nothing known comes of it."""

    error: ConversionError


class _Start:
    """What all points from one input share."""

    def __init__(self, eps: float) -> None:
        self.eps = eps  # of the constants; 0 where they are exact
        self.walked = 0


class Point:
    """A value in the graph: a step (one of these classes, an `Affine`, a part) after another point.

    The input has neither. `eps` is the machine epsilon of the source's constants.
    """

    __slots__ = ("parent", "start", "step", "views")

    def __init__(self, parent: Point | None = None, step: Any = None, eps: float = 0.0) -> None:
        self.parent = parent
        self.step = step
        self.start: _Start = _Start(eps) if parent is None else parent.start
        self.views: dict[Point, Poly] = {} if isinstance(step, Formula) else {self: X}

    @property
    def runs(self) -> bool:
        """Whether steps lead here; a formula waits for the operations around it."""
        return not isinstance(self.step, Formula)

    def running(self) -> Point:
        """Return this point.

        Raises
        ------
        ConversionError
            It is a formula of which nothing known came.
        """
        if isinstance(self.step, Formula):
            raise self.step.error
        return self

    def then(self, steps: Iterable[Any]) -> Point:
        """Return the point that some steps lead to from here; see `running`."""
        point = self
        for step in steps:
            point = point._after(step)
        return point

    def _after(self, step: Any) -> Point:
        eps = self.start.eps
        if _recognise.polynomial(step, X, eps) is None:
            return Point(self.running(), step)
        # Of a formula more of the same comes; of a point, at least the step.
        error = self.step.error if isinstance(self.step, Formula) else ConversionError("", "")
        return elementwise(
            [self],
            lambda p: _recognise.polynomial(step, p, eps),
            error,
            lambda: Point(self, step) if self.runs else None,
        )

    def since(self, other: Point | None) -> tuple[Any, ...] | None:
        """Return the steps from `other` to here, None where it does not lie on the way."""
        steps = []
        point: Point | None = self
        while point is not None and point is not other:
            steps.append(point.step)
            point = point.parent
        self.start.walked += len(steps)
        return None if point is not other else tuple(reversed(steps))


def elementwise(
    points: list[Point],
    make: Callable[..., Any],
    error: ConversionError,
    direct: Callable[[], Point | None] = lambda: None,
) -> Point:
    """Return what an operation on each element, or a mean of each row, makes of some points.

    Parameters
    ----------
    points : list of Point
        The operands.
    make : callable
        Returns the polynomial for polynomials of the operands, all over one earlier point.
    error : ConversionError
        Raised where nothing known comes of it.
    direct : callable, optional
        Returns what the operation is by itself, where it is something.

    Returns
    -------
    Point

    Raises
    ------
    ConversionError
        The operands have no point in common.
    """
    first = points[0]
    views: dict[Point, Poly] = {}
    for root in list(first.views)[-_MOST_VIEWS:]:
        if all(root in p.views for p in points):
            poly = make(*(p.views[root] for p in points))
            if _recognise.small(poly):
                views[root] = poly
    for root, poly in views.items():
        steps = _recognise.recognise(poly, first.start.eps)
        if steps is None:
            continue
        point = root
        for step in steps:
            point = Point(point, step)
        if point is root:  # the formula is that earlier point itself
            return point
        break
    else:
        made = direct()
        if made is None and not views:
            raise error
        point = made or Point(first, Formula(error))
    point.views = {**views, **point.views}
    return point


def add(a: Point, b: Point, place: str, sign: float = 1.0) -> Point:
    """Return ``a + sign * b``: part of a formula, or a residual connection.

    Raises
    ------
    ConversionError
        Neither lies on the way to the other.
    """
    error = ConversionError(
        place,
        "adds two branches that both have layers, and fastlayer's Residual adds the input of a "
        "branch to its output; convert the branches as networks of their own, and add their "
        "results with NumPy",
    )
    return elementwise(
        [a, b], lambda p, q: _recognise.add(p, q, sign), error, lambda: _residual(a, b, sign, place)
    )


def _residual(a: Point, b: Point, sign: float, place: str) -> Point | None:
    # With a computed from b, a - b is -(b - a).
    for far, near, outside in ((a, b, sign), (b, a, 1.0)):
        steps = far.since(near) if far.runs and near.runs else None
        if far.start.walked > _LONGEST_WALK:
            raise ConversionError(place, "has residual connections around too many layers")
        if steps is None:
            continue
        if sign != 1:
            steps = (*steps, Affine.of(sign))
        depth = 1 + max((s.depth for s in steps if isinstance(s, Sum)), default=0)
        if depth > _DEEPEST:
            raise ConversionError(place, f"has residuals more than {_DEEPEST} deep in each other")
        whole = Point(near, Sum(steps, depth) if steps else Affine.of(2.0))
        return whole if outside == 1 else Point(whole, Affine.of(outside))
    return None


# Formulas of two; see `arithmetic`.
_PAIRS = {
    "add": _recognise.add,
    "div": _recognise.quotient,
    "mul": _recognise.times,
    "sub": lambda p, q: _recognise.add(p, q, -1.0),
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
        Two points that no residual joins, or a combination of which nothing known comes.
    """
    if isinstance(x, Point) and isinstance(y, Point):
        if op in ("add", "sub") and x.runs and y.runs:
            return add(x, y, place, 1.0 if op == "add" else -1.0)
        if op not in _PAIRS:
            raise error
        return elementwise([x, y], _PAIRS[op], error)
    point, c = (x, y) if isinstance(x, Point) else (y, x)
    if op in ("pow", "maximum", "minimum"):
        if c.size != 1 or np.isnan(c).any() or (op == "pow" and point is not x):
            raise error
        e = float(c.ravel()[0])
        if op == "pow":
            return elementwise([point], lambda p: power(p, e), error)
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

    @property
    def steps(self) -> tuple[Any, ...]:
        """The steps from the input to `point`."""
        return (self.point.running().since(None) or ())[1:]  # the input has no step

    def network(self) -> Network:
        """Make the network.

        Raises
        ------
        ConversionError
            Steps that do not fit each other.
        """
        try:
            assembly = Assembly(self.dtype, self.features, self.source)
            parts = tuple(assembly.run(self.steps) or [IDENTITY])
            traits = [ONE_ROW] if assembly.one_row is not None else []
            return Network._of(parts, self.dtype, [*traits, *self.traits])
        except ConversionError:
            raise
        except (TypeError, ValueError) as error:
            raise ConversionError(self.source, str(error)) from error

    def proved(
        self,
        reference: Callable[[Array], Array],
        computes: DType | None = None,
        inputs: ArrayLike | None = None,
    ) -> Network:
        """Make the network, and see that it does what its source does on rows of all kinds.

        `computes` is the dtype that the source computes in, where that is not its weights'. `inputs`
        are more rows.
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
        made._verification = prove(same, reference, source=self.source, inputs=inputs)
        return made


def _takes_rows(net: Network) -> bool:
    """Whether a network takes single rows, and not samples of several axes alone."""
    if net.in_features is None:
        return True
    try:
        net(np.zeros((1, net.in_features), net.dtype))
    except ValueError:
        return False
    return True
