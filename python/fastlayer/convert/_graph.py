"""The points of a computation graph, each as the steps that lead there; sums become residuals.

For converters whose source is a graph. A point knows the point before it, so a sum is a residual
where one of its two points lies on the way to the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert._affine import Affine
from fastlayer.convert._prove import prove
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation
from fastlayer.network.chain import Residual
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network
from fastlayer.network.part import Flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastlayer.arrays import Array, DType

IDENTITY = Activation("identity")
# A file's word is not taken for more features than that; layers with weights have as many as they
# have, and a network of residuals in residuals is not run deeper.
_MOST_SCALED = 1 << 18
_DEEPEST = 64


class Dense(NamedTuple):
    """A dense layer: weight (n, k), bias (n,) or None."""

    weight: Array
    bias: Array | None = None


class Flat(NamedTuple):
    """Each sample becomes one row, of `width` features where the source says so."""

    place: str
    width: int | None = None


class OneRow(NamedTuple):
    """The source names the features' axis by a number, so each sample must be one row here."""

    place: str


class Sum(NamedTuple):
    """The input of these steps is added to their output."""

    steps: tuple[Any, ...]


class Point:
    """A value in the graph: a step (one of these classes, an `Affine`, a part) after another point."""

    __slots__ = ("parent", "step")

    def __init__(self, parent: Point | None = None, step: Any = None) -> None:
        self.parent = parent
        self.step = step

    def then(self, steps: Iterable[Any]) -> Point:
        """Return the point that some steps lead to."""
        point = self
        for step in steps:
            point = Point(point, step)
        return point

    def since(self, other: Point | None) -> tuple[Any, ...] | None:
        """Return the steps from `other` to here, None where it does not lie on the way."""
        steps = []
        point: Point | None = self
        while point is not None and point is not other:
            steps.append(point.step)
            point = point.parent
        return None if point is not other else tuple(reversed(steps))


def add(a: Point, b: Point, place: str) -> Point:
    """Return the sum of two points.

    Raises
    ------
    ConversionError
        Neither lies on the way to the other.
    """
    for far, near in ((a, b), (b, a)):
        steps = far.since(near)
        if steps is not None:
            return near.then([Sum(steps) if steps else Affine.of(2.0)])
    raise ConversionError(
        place,
        "adds two branches that both have layers, and fastlayer's Residual adds the input of a "
        "branch to its output; convert the branches as networks of their own, and add their "
        "results with NumPy",
    )


class Draft(NamedTuple):
    """A network that is to be made: the steps from the input to `point`."""

    point: Point
    dtype: DType
    source: str  # what it is made from, for messages
    features: int | None = None  # of the input, where the source tells

    def network(self) -> Network:
        """Make the network.

        Raises
        ------
        ConversionError
            Steps that do not fit each other.
        """
        steps = (self.point.since(None) or ())[1:]  # the input has no step
        try:
            parts = _assemble(steps, self.dtype, self.features, self.source)
            return Network._of(tuple(parts or [IDENTITY]), self.dtype)
        except ConversionError:
            raise
        except (TypeError, ValueError) as error:
            raise ConversionError(self.source, str(error)) from error

    def proved(self, reference: Callable[[Array], Array], computes: DType | None = None) -> Network:
        """Make the network, and see that it does what its source does on rows of all kinds.

        `computes` is the dtype that the source computes in, where that is not its weights'.
        """
        made = self.network()
        same = made if computes in (None, self.dtype) else made.astype(computes)
        if made.in_features is not None:
            try:
                same(np.zeros((1, made.in_features), made.dtype))
            except ValueError as error:
                raise ConversionError(
                    self.source,
                    "works on the last of several axes before it flattens them, so there are no "
                    "rows to try it with; convert with verify=False, and compare on your own data "
                    "with net.verify",
                ) from error
        made._verification = prove(same, reference, source=self.source)
        return made


def _assemble(
    steps: Iterable[Any], dtype: DType, width: int | None, source: str, depth: int = 0
) -> list[Any]:
    """Return the parts for some steps; `width` is the number of features that come in."""
    if depth > _DEEPEST:
        raise ConversionError(source, f"has residuals more than {_DEEPEST} deep in each other")
    parts: list[Any] = []
    todo = list(steps)
    one_row: str | None = None  # the place that took it for granted
    flat = False
    while todo:
        step = todo.pop(0)
        if isinstance(step, OneRow):
            one_row = step.place
            continue
        if isinstance(step, Flat):
            after = _takes(todo)
            _check_flat(step, after, width, flat, one_row)
            if not flat:
                parts.append(Flatten())
                width, flat = (after if step.width is None else step.width), True
            continue
        if isinstance(step, Affine):
            step = _merged(step, todo)
            if todo and isinstance(todo[0], Flat) and step.features is None:
                todo[0:1] = [todo[0], step]  # numbers are the same on both sides
                continue
            n = step.features or width or _takes(todo)
            if n is None or n > _MOST_SCALED:
                raise ConversionError(
                    source, "scales its input by a number, and no layer tells how many features"
                )
            in_front = bool(todo) and isinstance(todo[0], Dense | Layer) and not _plain(parts)
            parts += step.parts(n, dtype, in_front)
            width = n
            continue
        if isinstance(step, Activation):
            if _plain(parts):
                parts[-1].activation = step
            else:
                parts.append(step)
            continue
        if isinstance(step, Dense):
            bias = step.bias
            if bias is None and todo and isinstance(todo[0], Affine) and todo[0].shifts:
                bias = np.broadcast_to(todo.pop(0).shift, len(step.weight))
            step = Layer.from_arrays(step.weight, bias, dtype=dtype)
        elif isinstance(step, Sum):
            width = _takes(step.steps) if width is None else width
            inner = _assemble(step.steps, dtype, width, source, depth + 1)
            step = Residual(inner or [IDENTITY])
        parts.append(step)
        width = step.out_features or (width if isinstance(step, Residual) else None)
    return parts


def _plain(parts: list[Any]) -> bool:
    """Whether the last part is a dense layer without an activation."""
    last = parts[-1] if parts else None
    return isinstance(last, Layer) and last.activation == IDENTITY


def _merged(step: Affine, todo: list[Any]) -> Affine:
    """Return an affine with those that follow it worked in."""
    while todo and isinstance(todo[0], Affine):
        both = step.then(todo[0])
        if both is None:
            break
        step = both
        todo.pop(0)
    return step


def _check_flat(
    step: Flat, after: int | None, width: int | None, flat: bool, one_row: str | None
) -> None:
    n = step.width
    if n is not None and after is not None and after != n:
        raise ConversionError(
            step.place, f"makes rows of {n} features, and the next layer takes {after}"
        )
    if n is not None and width is not None and (n != width if flat else n % width):
        raise ConversionError(
            step.place,
            f"makes rows of {n} features out of rows of {width}, which is not one row a sample",
        )
    if not flat and one_row is not None and (after is None or after != width):
        raise ConversionError(
            step.place,
            f"comes after {one_row}, which works along axis 1: with samples of more than one axis "
            "that is not the last; flatten first",
        )


def _takes(steps: Iterable[Any]) -> int | None:
    """Return the number of features that some steps take, None where none of them says."""
    for step in steps:
        n: int | None = None
        if isinstance(step, Dense):
            n = step.weight.shape[1]
        elif isinstance(step, Affine):
            n = step.features
        elif isinstance(step, Sum):
            n = _takes(step.steps)
        elif isinstance(step, Flat):
            return None
        elif isinstance(step, Activation):
            slopes = step.parameters.get("weight")
            n = int(slopes.size) if slopes is not None and slopes.size > 1 else None
        elif not isinstance(step, OneRow):
            n = step.in_features
        if n is not None:
            return n
    return None
