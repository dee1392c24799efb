"""Points that are joined: their branches begin where the ways to them part."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from fastlayer.convert._affine import Affine
from fastlayer.convert._assemble import Constant, Cut, Join
from fastlayer.convert._points import Point
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastlayer.arrays import Array

# Branches in branches are not run deeper, and what several of them share is computed in each: not
# in more steps than that.
_DEEPEST, _MOST_STEPS = 64, 1 << 14
# Features that joins may make, and copies of those of which nothing tells how many there are.
_MOST_FEATURES, _MOST_COPIES = 1 << 18, 1 << 10
# Steps that the search for all branches of a network may look at.
_LONGEST_WALK = 1 << 20


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
    top = parting(points)
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
    top = parting(moving)
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


def parting(points: Iterable[Point]) -> Point:
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
        while end < len(points) and (both := parting([shared, points[end]])) is not top:
            end, shared = end + 1, both
        together = join("concat", points[at:end], place, deep + 1) if end > at + 1 else points[at]
        result.append(together.since(top) or ())
        at = end
    return result, None
