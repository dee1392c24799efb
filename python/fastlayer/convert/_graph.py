"""The points of a computation graph, each as the steps that lead there; joins of branches.

The one way from a source to a network. A point knows the one point before it, so all of them are a
tree, and points that are joined have branches that begin where their ways part. A point also knows
what it is as a formula of earlier points: where a formula is an activation or a norm that somebody
wrote by hand, the point is that.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert import _recognise, _views
from fastlayer.convert._affine import Affine
from fastlayer.convert._assemble import (
    IDENTITY,
    Assembly,
    Constant,
    Cut,
    Dense,
    Flat,
    Join,
    Mix,
    OneRow,
    width_after,
)
from fastlayer.convert._fold import alike, fold
from fastlayer.convert._prove import ANY_WIDTH, prove
from fastlayer.convert._recognise import FORMULAS, X, clip, power
from fastlayer.errors import ConversionError
from fastlayer.network.ends import Ends
from fastlayer.network.network import ONE_ROW, Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._recognise import Poly

__all__ = [
    "Cut", "Dense", "Draft", "Flat", "Join", "Mix", "OneRow", "Point", "add", "arithmetic", "constant", "join",
]  # fmt: skip

# Branches in branches are not run deeper, and what several of them share is computed in each: not
# in more steps than that.
_DEEPEST, _MOST_STEPS = 64, 1 << 14
# Features that joins may make, and copies of those of which nothing tells how many there are.
_MOST_FEATURES, _MOST_COPIES = 1 << 18, 1 << 10
# Steps that the search for all branches of a network may look at.
_LONGEST_WALK = 1 << 20


class Formula(NamedTuple):
    """What nothing computes by itself; the error says so where nothing known comes of it."""

    error: ConversionError


class _Start:
    """What all points from one input share."""

    def __init__(self, eps: float, features: int | None) -> None:
        self.eps = eps  # of the constants; 0 where they are exact
        self.features = features
        self.walked = 0
        self.copies = 1  # of features that nothing tells the number of
        self.resolved = 0


class Point:
    """A value in the graph: a step (one of these classes, an `Affine`, a part) after another point.

    The input has neither. `eps` is the machine epsilon of the source's constants, and `features`
    how many the rows have, where that is known. A `loose` one may become part of something better.
    """

    __slots__ = ("depth", "features", "loose", "parent", "start", "step", "views")
    depth: int
    features: int | None

    def __init__(
        self,
        parent: Point | None = None,
        step: Any = None,
        eps: float = 0.0,
        features: int | None = None,
    ) -> None:
        self.parent = parent
        self.step = step
        self.loose = False
        self.depth = 0 if parent is None else parent.depth + 1
        self.features = features if parent is None else width_after([step], parent.features)
        self.start: _Start = _Start(eps, features) if parent is None else parent.start
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
            error = self.step.error
            if self.start.resolved > _views.MOST_RESOLVED:
                why = "comes after so many formulas that no more are looked at; use activations"
                error = ConversionError(error.place, why)
            raise error
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
    otherwise: Callable[[], Point | None] = lambda: None,
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
    otherwise : callable, optional
        The same, where nothing comes of the conditions in the polynomial either.

    Returns
    -------
    Point

    Raises
    ------
    ConversionError
        The operands have no point in common.
    """
    start, views = points[0].start, _views.made(points, make)
    found = _views.recognised(views, start.eps)
    loose = any(p.loose for p in points)
    if loose:
        both = [f for f in (found, _views.resolved(views, start)) if f is not None]
        found = min(both, key=lambda f: f.length, default=None)
    point = direct() if found is None else None
    if point is None and found is None and not loose:
        found = _views.resolved(views, start)
        loose = found is not None
    if found is not None:
        point = root = list(views)[found.at]
        if not found.steps:  # the formula is that earlier point itself
            return point
        for step in found.steps:
            point = Point(point, step)
        views[root] = _recognise.composed(found.steps, start.eps) or views[root]
    elif point is None:
        point, loose = otherwise(), True
    if point is None:
        if not views:
            raise error
        point = Point(points[0], Formula(error))
    point.loose = loose
    point.views = {**views, **point.views}
    return point


def join(kind: str, points: Sequence[Point], place: str, deep: int = 0) -> Point:
    """Return points beside each other ("concat"), their sum ("add") or product ("multiply").

    Raises
    ------
    ConversionError
        One is a formula of which nothing known came; branches too deep in each other, or too many
        features.
    """
    if len(points) == 1:
        return points[0].running()
    if deep >= _DEEPEST:
        raise ConversionError(place, f"has branches more than {_DEEPEST} deep in each other")
    points = _beside_others([p.running() for p in points])
    top = _parting(points)
    if top.start.walked + sum(p.depth - top.depth for p in points) > _LONGEST_WALK:
        raise ConversionError(place, "joins branches of too many layers")
    together = _together(points, top) if kind == "concat" else None
    if together is not None:
        order, widths = together
        joined = join(kind, [points[i] for i in order], place, deep + 1)
        ends = dict(zip(order, accumulate(widths[i] for i in order), strict=True))
        cuts = [Point(joined, Cut(ends[i] - n, ends[i])) for i, n in enumerate(widths)]
        return join(kind, cuts, place, deep + 1)
    branches = [p.since(top) or () for p in points]
    if kind == "concat":
        branches, point = _concatenated(points, branches, top, place, deep)
        if point is not None:
            return point
    elif branches == [(), ()] and kind == "add":
        return Point(top, Affine.of(2.0))
    if kind == "add" and len(branches) == 2 and not branches[0]:
        branches.reverse()  # a residual has its input at the end
    step = Join.of(kind, branches)
    if step.total > _MOST_STEPS:
        raise ConversionError(place, "joins branches of too many layers")
    if step.depth > _DEEPEST:
        raise ConversionError(place, f"has branches more than {_DEEPEST} deep in each other")
    result = Point(top, step)
    if kind == "concat":
        _bound(result, len(branches), place)
    return result


def _bound(result: Point, branches: int, place: str) -> None:
    """Refuse joins of joins, which ask for far more features than a file holds."""
    start = result.start
    if result.features is None:
        start.copies *= branches
    known = start.features is None or start.features <= _MOST_FEATURES
    if (known and (result.features or 0) > _MOST_FEATURES) or start.copies > _MOST_COPIES:
        raise ConversionError(
            place,
            f"makes more than {_MOST_FEATURES} features of fewer by joining them again and again",
        )


def constant(start: Point, values: Array) -> Point:
    """Return a point that has the same numbers in each row, whatever the input."""
    return Point(start, Constant(values))


def _beside_others(points: Sequence[Point]) -> Sequence[Point]:
    """Return the same points, with constants where the ways to the others part, and not before."""
    moving = [p for p in points if not isinstance(p.step, Constant)]
    if not moving or len(moving) == len(points):
        return points
    top = _parting(moving)
    return [Point(top, p.step) if isinstance(p.step, Constant) else p for p in points]


def _together(points: Sequence[Point], top: Point) -> tuple[list[int], list[int]] | None:
    """Return an order in which what has steps in common stands together, and all features.

    None where it stands so already, or the features are not known.
    """
    keys = [_first(p, top) for p in points]
    runs = [key for i, key in enumerate(keys) if i == 0 or key is not keys[i - 1]]
    widths = [p.features for p in points if p.features is not None]
    if len(set(runs)) == len(runs) or len(widths) < len(points):
        return None
    places = {key: at for at, key in reversed([*enumerate(keys)])}
    return sorted(range(len(points)), key=lambda i: places[keys[i]]), widths


def _first(point: Point, top: Point) -> Point:
    """Return the first point after `top` on the way to a point, or `top` itself."""
    while point is not top and point.parent is not top:
        assert point.parent is not None
        point = point.parent
    return point


def _parting(points: Iterable[Point]) -> Point:
    """Return the last point that lies on the way to all of these."""
    top, *others = points
    for other in others:
        walked = top.depth + other.depth
        while top is not other:
            if top.depth >= other.depth:
                assert top.parent is not None  # all come from one input
                top = top.parent
            else:
                assert other.parent is not None
                other = other.parent
        top.start.walked += walked - 2 * top.depth
    return top


def _concatenated(
    points: Sequence[Point], branches: list[tuple[Any, ...]], top: Point, place: str, deep: int
) -> tuple[list[tuple[Any, ...]], Point | None]:
    """Return branches of which none computes what the one before it does; or one point for all."""
    cuts = [steps[0] for steps in branches if len(steps) == 1 and isinstance(steps[0], Cut)]
    if len(cuts) == len(branches) and all(a.end == b.begin for a, b in pairwise(cuts)):
        whole = Cut(cuts[0].begin, cuts[-1].end)
        return branches, top if whole == Cut(0, top.features or 0) else Point(top, whole)
    result: list[tuple[Any, ...]] = []
    at = 0
    while at < len(points):
        end, shared = at + 1, points[at]
        # Neighbours that have steps in common have them once.
        while end < len(points) and (both := _parting([shared, points[end]])) is not top:
            end, shared = end + 1, both
        together = join("concat", points[at:end], place, deep + 1) if end > at + 1 else points[at]
        result.append(together.since(top) or ())
        at = end
    return result, None


def add(a: Point, b: Point, place: str, sign: float = 1.0) -> Point:
    """Return ``a + sign * b``: part of a formula, a residual connection, or a sum of branches."""
    error = ConversionError(place, "is no sum of arrays")
    runs = a.runs and b.runs
    residual = runs and a is not b and _parting([a, b]) in (a, b)

    def made() -> Point | None:
        return _sum(a, b, sign, place) if runs else None

    ways = (made, _nothing) if residual else (_nothing, made)
    return elementwise([a, b], lambda p, q: _recognise.add(p, q, sign), error, *ways)


def _nothing() -> None:
    return None


def _sum(a: Point, b: Point, sign: float, place: str) -> Point:
    if sign == 1:
        return join("add", [a, b], place)
    if _parting([a, b]) is b and a is not b:
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
