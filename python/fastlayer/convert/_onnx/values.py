"""What depends on the input of a model, in the shape that ONNX sees.

Reshaping changes that shape and leaves the array that the network holds as it is, until an
operation needs the features along the last axis.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from fastlayer.convert._onnx.constants import BATCH, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastlayer.convert._graph import Point


class Value(NamedTuple):
    """A point of the network, in the shape that ONNX sees, where `BATCH` stands for the rows."""

    shape: tuple[int, ...]
    point: Point
    held: tuple[int, ...]  # the shape of a sample as the network holds it

    @property
    def rank(self) -> int:
        """Number of dimensions that ONNX sees."""
        return len(self.shape)

    @property
    def sample(self) -> tuple[int, ...]:
        """The shape of one sample that ONNX sees."""
        return tuple(d for d in self.shape if d != BATCH)

    @property
    def columns(self) -> bool:
        """Whether samples are columns."""
        return BATCH in wide(self.shape)[1:]

    def then(self, steps: Iterable[object], features: int | None = None) -> Value:
        """Return what some steps make of it, with another number of features where it is given."""
        return self.at(self.point.then(steps), features)

    def at(self, point: Point, features: int | None = None) -> Value:
        """Return it at another point."""
        held = self.held if features is None else (*self.held[:-1], features)
        return self._replace(point=point, held=held)


def wide(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its dimensions of length 1."""
    return tuple(d for d in shape if d != 1)


def size(shape: tuple[int, ...]) -> int:
    """Return the number of elements, `UNKNOWN` where it is."""
    return UNKNOWN if UNKNOWN in shape else prod(shape)


def known(n: int) -> int | None:
    """Return a number of features, None where it is `UNKNOWN`."""
    return None if n == UNKNOWN else n


def describe(shape: tuple[int, ...]) -> str:
    """Return a shape for messages."""
    names = {BATCH: "batch", UNKNOWN: "?"}
    comma = "," if len(shape) == 1 else ""
    return f"({', '.join(names.get(d, str(d)) for d in shape)}{comma})"
