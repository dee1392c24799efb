"""What the points of a graph are as formulas of earlier points, and the best that comes of those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from fastlayer.convert import _recognise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer.convert._recognise import Poly

    class _Point(Protocol):
        """A point with its formulas."""

        depth: int
        start: Any
        views: Any


P = TypeVar("P", bound="_Point")
# Earlier points that a formula is known of: an activation that was taken apart leaves fewer.
_MOST_VIEWS = 6
# Polynomials of one graph whose conditions are looked at.
MOST_RESOLVED = 1 << 11


class Found(NamedTuple):
    """Steps from one of the points of some views."""

    length: int  # of the whole way from the input
    at: int  # which one
    steps: list[Any]


def made(points: Sequence[P], make: Callable[..., Poly]) -> dict[P, Poly]:
    """Return what an operation on some points is as a formula of the points before all of them."""
    views: dict[P, Poly] = {}
    for root in list(points[0].views)[-_MOST_VIEWS:]:
        if all(root in p.views for p in points):
            with np.errstate(all="ignore"):
                poly = make(*(p.views[root] for p in points))
            if _recognise.small(poly):
                views[root] = poly
                points[0].start.kept += _recognise.nbytes(poly)
    return views


def recognised(views: dict[P, Poly], eps: float) -> Found | None:
    """Return what is known as it stands, from the first point that it is known from."""
    for at, (point, poly) in enumerate(views.items()):
        steps = _recognise.recognise(poly, eps)
        if steps is not None:
            return Found(point.depth + len(steps), at, steps)
    return None


def resolved(views: dict[P, Poly], start: Any) -> Found | None:
    """Return the shortest way to what is known once the conditions in polynomials are resolved.

    `start` counts them.
    """
    best: Found | None = None
    for at, (point, poly) in enumerate(views.items()):
        start.resolved += 1
        if start.resolved > MOST_RESOLVED:
            return None
        steps = _recognise.resolve(poly, start.eps)
        if steps is not None and (best is None or point.depth + len(steps) <= best.length):
            best = Found(point.depth + len(steps), at, steps)
    return best
