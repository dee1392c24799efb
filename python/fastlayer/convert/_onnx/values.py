"""What depends on the input of a model: how it is computed, and the shape that ONNX sees.

Going back from the output to the input, step by step, gives the network. Reshaping changes the
shape that ONNX sees and leaves the array that the network holds as it is, until an operation needs
the features along the last axis.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fastlayer.convert._affine import Affine
from fastlayer.convert._onnx.constants import BATCH, UNKNOWN
from fastlayer.convert._onnx.terms import X
from fastlayer.functions.activation import Activation
from fastlayer.network.part import Flatten

if TYPE_CHECKING:
    from fastlayer.arrays import Array
    from fastlayer.convert._onnx.file import Node
    from fastlayer.convert._onnx.terms import Poly


class Dense(NamedTuple):
    """A matrix product; the bias is an `Affine` behind it."""

    weight: Array  # (n, k)


class Normalize(NamedTuple):
    """A norm of rows, and its weights where it has some."""

    name: str
    features: int
    eps: float
    weight: Array | None = None
    bias: Array | None = None


class Branch(NamedTuple):
    """Steps whose input is added to their output."""

    steps: tuple[Taken, ...]
    depth: int


class Taken(NamedTuple):
    """A step, and the features that it gets; `UNKNOWN` where they are."""

    features: int
    step: Step


Step: TypeAlias = Dense | Affine | Activation | Normalize | Flatten | Branch


@dataclass(eq=False)
class Data:
    """An array that the network holds, or part of an activation that an exporter took apart.

    `views` says what it is in terms of earlier arrays, elementwise; a part is nothing else.
    """

    held: tuple[int, ...]  # the shape of one sample
    source: Data | None = None
    step: Step | None = None
    runs: bool = True
    views: dict[Data, Poly] = field(default_factory=dict)
    flat: Data | None = None

    def __post_init__(self) -> None:
        if self.runs:
            self.views[self] = X

    def then(self, step: Step, held: tuple[int, ...] | None = None) -> Data:
        """Return what a step makes of it."""
        return Data(self.held if held is None else held, self, step)

    def flattened(self) -> Data:
        """Return it with one axis for each sample."""
        if len(self.held) == 1:
            return self
        if self.flat is None:
            self.flat = self.then(Flatten(), (size(self.held),))
        return self.flat


class Value(NamedTuple):
    """Data in the shape that ONNX sees, in which `BATCH` stands for the rows."""

    shape: tuple[int, ...]
    data: Data
    node: Node | None

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


def wide(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its dimensions of length 1."""
    return tuple(d for d in shape if d != 1)


def size(shape: tuple[int, ...]) -> int:
    """Return the number of elements, `UNKNOWN` where it is."""
    return UNKNOWN if UNKNOWN in shape else prod(shape)


def describe(shape: tuple[int, ...]) -> str:
    """Return a shape for messages."""
    names = {BATCH: "batch", UNKNOWN: "?"}
    comma = "," if len(shape) == 1 else ""
    return f"({', '.join(names.get(d, str(d)) for d in shape)}{comma})"


def running(value: Value, node: Node) -> Data:
    """Return the data of a value that a step is to follow.

    Raises
    ------
    ConversionError
        It is part of something that nothing here computes.
    """
    if value.data.runs:
        return value.data
    raise (value.node or node).refuse(
        "fastlayer has nothing for it, alone or with the elementwise operations around it; use "
        "an activation that fl.Activation knows, or cut the model here"
    )


def with_features(value: Value, start: int, node: Node) -> Value:
    """Return the value as the network has to hold it for an operation on features.

    Those are the dimensions from `start` on, together.

    Raises
    ------
    ConversionError
        The rows of the operation are not rows of the array that the network holds.
    """
    data = running(value, node)
    if value.columns or BATCH in value.shape[start:]:
        raise node.refuse(
            f"it works along the batch of an array of shape {describe(value.shape)}; fastlayer's "
            "samples are rows: export the model with the batch as the first axis"
        )
    leading = tuple(d for d in value.shape[:start] if d != BATCH)
    if leading != data.held[:-1] and not wide(leading):
        return value._replace(data=data.flattened())
    features = size(value.shape[start:])
    same = UNKNOWN in (data.held[-1], features) or data.held[-1] == features
    if same and wide(leading) == wide(data.held[:-1]):
        return value
    raise node.refuse(
        f"it works on the last of the dimensions {describe(value.shape)}, which reshaping has made "
        f"of {describe((BATCH, *data.held))}; fastlayer can't take features apart again"
    )
