"""The shapes of arrays in Keras and in the network, and what changes the one and keeps the other."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from fastlayer.convert._graph import Dense, Flat, Point

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.convert._keras.given import Given, Shape


class Flow(NamedTuple):
    """A point of the graph, and the shape of the array there as far as it is known.

    `held` is the shape of the network's array, which axes of length one may have been put into, or
    taken from, for Keras.
    """

    point: Point
    shape: Shape
    held: Shape

    @property
    def width(self) -> int | None:
        """How many features there are."""
        return self.shape[-1] if self.shape else None

    def after(self, point: Point, width: int | None = None) -> Flow:
        """Return another point with an array of this shape, but for the number of features."""
        if width is None or self.shape is None or self.held is None:
            return self._replace(point=point)
        return Flow(point, (*self.shape[:-1], width), (*self.held[:-1], width))


def product(given: Given, flow: Flow, step: Dense) -> Flow:
    """Return what a dense layer makes of an array.

    Raises
    ------
    Damaged
        The array has another number of features.
    """
    k, n = step.in_features, len(step.weight)
    given.require(flow.width in (None, k), f"takes {k} features, and its input has {flow.width}")
    return flow.after(flow.point.then([step]), n)


def alike(a: Flow, b: Flow) -> bool:
    """Whether two arrays are of one shape, but that one may have one feature for all of the other's."""
    if a.shape is None or b.shape is None or a.held is None or b.held is None:
        return True
    ranks = len(a.shape) == len(b.shape) and len(a.held) == len(b.held)
    last = {a.shape[-1], b.shape[-1]} - {1, None}
    return ranks and len(last) < 2 and _fit(a.shape[:-1], b.shape[:-1])


def _fit(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> bool:
    return all(None in pair or pair[0] == pair[1] for pair in zip(a, b, strict=True))


def reshaped(given: Given, flow: Flow) -> Flow:
    """Return what changes the shape of the samples, and keeps one of them a row."""
    shape = flow.shape
    if shape is None:
        raise given.refusal("changes a shape that is not told")
    made = SHAPES[given.kind](given, shape)
    if made is not None and len(made) == 1 and flow.held == (*made, 1):
        return flow._replace(shape=made)  # the network keeps the axis
    if made is not None and made[:1] == shape[:1] and len(made) > 1:
        same = _wide(made) == _wide(shape) and made[-1:] == shape[-1:]
        if len(made) == 2 and (same or prod(d or 0 for d in shape[1:]) == (made[1] or 0) > 0):
            return flow if len(shape) == 2 else flattened(flow, Flat(given.place, made[1]))
        if same:
            return flow._replace(shape=made)
    raise given.refusal(
        f"makes arrays of shape {made or given.config!r:.60} of shape {shape}; in a network samples "
        "are rows, and the features stay the last axis"
    )


def flattened(flow: Flow, step: Flat) -> Flow:
    """Return the rows that samples of several axes become."""
    width = step.width
    if flow.shape is not None and flow.held is not None:
        if len(flow.held) == 2 < len(flow.shape):  # all the others are of length one
            return flow._replace(shape=flow.held)
        if width is None and None not in flow.shape[1:]:
            width = prod(d or 0 for d in flow.shape[1:])
    return Flow(flow.point.then([step]), (None, width), (None, width))


def _wide(shape: tuple[int | None, ...]) -> list[int | None]:
    return [d for d in shape[1:] if d != 1]


def _expanded(given: Given, shape: tuple[int | None, ...]) -> Shape:
    axis = given.config.get("axis")
    axes = axis if isinstance(axis, list | tuple) else [axis]
    result = list(shape)
    if len(axes) != 1 or type(axes[0]) is not int or not -len(shape) <= axes[0] <= len(shape):
        return None
    result.insert(axes[0] % (len(shape) + 1), 1)
    return tuple(result)


def _squeezed(given: Given, shape: tuple[int | None, ...]) -> Shape:
    axis = given.config.get("axis")
    if axis is None:
        return (shape[0], *_wide(shape))
    axes = axis if isinstance(axis, list | tuple) else [axis]
    if not all(type(a) is int and -len(shape) <= a < len(shape) for a in axes):
        return None
    gone = {a % len(shape) for a in axes}
    kept = tuple(d for i, d in enumerate(shape) if i not in gone)
    return kept if all(shape[i] == 1 for i in gone) else None


def _new(given: Given, shape: tuple[int | None, ...]) -> Shape:
    if "newshape" in given.config:
        target = given.get("newshape", [], list, tuple)
    else:
        target = [None, *given.get("target_shape", [], list, tuple)]
    if not target or not all(type(d) in (int, type(None)) and d != 0 for d in target):
        return None
    first, *rest = target
    whole = prod(d or 0 for d in shape[1:])
    if first in (None, shape[0]) and rest.count(-1) == 1 and None not in rest:
        rest[rest.index(-1)] = whole // -prod(rest)
    elif first not in (-1, None, shape[0]):
        return None
    return (shape[0], *rest) if None not in rest and prod(rest) == whole > 0 else None


SHAPES: dict[str, Callable[[Given, tuple[int | None, ...]], Shape]] = {
    "ExpandDims": _expanded,
    "Reshape": _new,
    "Squeeze": _squeezed,
}
