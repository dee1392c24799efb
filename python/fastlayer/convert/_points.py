"""The points of a computation graph, each as the steps that lead there.

A point knows the one point before it, so all of them are a tree. It also knows what it is as a
formula of earlier points: where a formula is an activation or a norm that somebody wrote by hand,
the point is that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.convert import _recognise, _views
from fastlayer.convert._assemble import width_after
from fastlayer.convert._recognise import X
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastlayer.convert._recognise import Poly


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
        self.kept = 0  # bytes of formulas


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
