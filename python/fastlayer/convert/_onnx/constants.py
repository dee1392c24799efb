"""Operations on constants and on shapes, done once while a model is read, by `onnx.reference`."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from fastlayer.convert._onnx.evaluator import evaluator
from fastlayer.convert._onnx.file import DTYPES
from fastlayer.errors import ConversionError, Damaged

if TYPE_CHECKING:
    from fastlayer.arrays import Array
    from fastlayer.convert._onnx.file import Model, Node

# Dimensions that aren't numbers yet; no arithmetic is done on them. They fit 32 bits, in which
# some exporters compute shapes.
BATCH = -(1 << 30)
UNKNOWN = BATCH - 1

# What moves numbers about, so that the number of rows may be among them.
_MOVES = {
    "Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
# What computes each element of its result from those of its inputs, as NumPy broadcasts them.
_SPREADS = {
    "Abs", "Add", "And", "Ceil", "Div", "Equal", "Exp", "Floor", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal",
    "Sign", "Sqrt", "Sub", "Sum", "Where",
}  # fmt: skip
_OTHERS = {
    "Constant", "ConstantOfShape", "Expand", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "Shape", "Size",
}  # fmt: skip
_KNOWN = _MOVES | _SPREADS | _OTHERS


class Room:
    """Bytes that the results of such operations may take altogether."""

    def __init__(self, nbytes: int) -> None:
        self._left = nbytes

    def take(self, node: Node, nbytes: int) -> None:
        """Take some before they are used.

        Raises
        ------
        Damaged
            There aren't as many left.
        """
        self._left -= nbytes
        if self._left < 0:
            raise node.damaged("makes far more numbers out of the file than are in it")


def fold(node: Node, given: list[Array | None], model: Model, room: Room) -> Array:
    """Return the result of an operation on constants.

    Raises
    ------
    ConversionError
        An operation that isn't known.
    Damaged
        Shapes that don't fit each other.
    """
    if node.op not in _KNOWN:
        raise node.refuse(
            "it computes on constants, and only simple operations are done while loading; simplify "
            "the model first, e.g. with onnxsim or onnxruntime's offline optimisation"
        )
    arrays = [a for a in given if a is not None]
    if node.op == "Constant":
        return _constant(node, model)
    if not arrays:
        raise node.damaged("has no inputs")
    if any(g is None for g in given[: len(arrays)]):
        raise node.refuse("it leaves out an input before another one; give it its default")
    if any(a.dtype.kind == "i" and (a <= BATCH).any() for a in arrays) and (
        node.op not in _MOVES or (node.op == "Cast" and node.integer("to", 0) not in (6, 7))
    ):
        raise node.refuse(
            "it computes with the number of rows, which the network must not know; export the "
            "model with a fixed batch size"
        )
    try:
        if node.op == "Cast" and node.integer("to", 0) not in DTYPES:
            raise ValueError("a type that NumPy doesn't have")
        room.take(node, 8 * _size(node, arrays))
        feeds = dict(zip(node.inputs, given, strict=True))
        return evaluator([node], model.opset)(feeds)
    except (ConversionError, Damaged):
        raise
    except Exception as error:  # whatever the evaluator makes of what a file says
        raise node.damaged(f"is given constants that don't fit: {error}") from error


def _constant(node: Node, model: Model) -> Array:
    for name, value in node.attributes.items():
        if name == "value" and hasattr(value, "data_type"):
            return model.array(value)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    raise node.refuse("it is a constant of a kind that no dense layer has; export dense numbers")


def _size(node: Node, a: list[Array]) -> int:
    """Return how many elements the result takes that its inputs don't."""
    if node.op in _SPREADS:
        return prod(np.broadcast_shapes(*(v.shape for v in a)))
    if node.op == "Expand":
        return prod(np.broadcast_shapes(a[0].shape, _integers(a[1])))
    if node.op == "ConstantOfShape":
        return prod(_integers(a[0]))
    if node.op == "Concat":
        return sum(v.size for v in a)
    if node.op == "Gather":
        rows: int = a[0].shape[node.integer("axis", 0)]
        return a[0].size // max(rows, 1) * a[1].size
    return 0 if node.op in _MOVES and node.op != "Cast" else a[0].size


def _integers(a: Array) -> tuple[int, ...]:
    values = tuple(int(v) for v in a.ravel())
    if any(v < 0 for v in values):
        raise ValueError(f"shape {values}")
    return values
