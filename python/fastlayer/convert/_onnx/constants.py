"""Operations on constants and on shapes, done once while a model is read."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._onnx.file import DTYPES, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.convert._onnx.file import Node

# Dimensions that aren't numbers yet; no arithmetic is done on them. They fit 32 bits, in which
# some exporters compute shapes.
BATCH = -(1 << 30)
UNKNOWN = BATCH - 1


def constant(node: Node) -> Array:
    """Return the value of a Constant node."""
    for name, value in node.attributes.items():
        if name == "value" and isinstance(value, Tensor):
            return value.array()
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    raise node.refuse("it is a constant of a kind that no dense layer has; export dense numbers")


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


def fold(node: Node, given: list[Array | None], opset: int, room: Room) -> Array:
    """Return the result of an operation on constants.

    Raises
    ------
    ConversionError
        An operation that isn't known.
    Damaged
        Shapes that don't fit each other.
    """
    if node.op not in _FOLDS:
        raise node.refuse(
            "it computes on constants, and only simple operations are done while loading; simplify "
            "the model first, e.g. with onnxsim or onnxruntime's offline optimisation"
        )
    arrays = [a for a in given if a is not None]
    if not arrays:
        raise node.damaged("has no inputs")
    if any(g is None for g in given[: len(arrays)]):
        raise node.refuse("it leaves out an input before another one; give it its default")
    if node.op not in _MOVES and any(a.dtype.kind == "i" and (a <= BATCH).any() for a in arrays):
        raise node.refuse(
            "it computes with the number of rows, which the network must not know; export the "
            "model with a fixed batch size"
        )
    try:
        room.take(node, 8 * _size(node, arrays))
        result: Array = _FOLDS[node.op](node, arrays, opset)
        return result
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise node.damaged(f"is given constants that don't fit: {error}") from error


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


def axes_of(node: Node, arrays: list[Array], opset: int, since: int) -> list[int] | None:
    """Return axes, which moved from an attribute to the second input at some opset."""
    if opset < since:
        return node.integers("axes")
    return [int(v) for v in arrays[1].ravel()] if len(arrays) > 1 else None


def normal_axes(axes: list[int], rank: int) -> list[int]:
    """Return axes counted from the front."""
    if any(not -rank <= a < rank for a in axes):
        raise ValueError(f"axes {axes} of {rank} dimensions")
    return [a % rank for a in axes]


def squeezed(shape: tuple[int, ...], axes: list[int] | None) -> tuple[int, ...]:
    """Return a shape without some axes of length 1, by default all."""
    if axes is None:
        return tuple(d for d in shape if d != 1)
    gone = normal_axes(axes, len(shape))
    return tuple(d for i, d in enumerate(shape) if i not in gone)


def unsqueezed(shape: tuple[int, ...], axes: list[int]) -> tuple[int, ...]:
    """Return a shape with axes of length 1 put in."""
    rank = len(shape) + len(axes)
    new, rest = normal_axes(axes, rank), iter(shape)
    if len(set(new)) != len(new) or rank > 32:
        raise ValueError(f"axes {axes} of {rank} dimensions")
    return tuple(1 if i in new else next(rest) for i in range(rank))


def _squeeze(node: Node, a: list[Array], opset: int) -> Array:
    return a[0].reshape(squeezed(a[0].shape, axes_of(node, a, opset, 13)))


def _unsqueeze(node: Node, a: list[Array], opset: int) -> Array:
    return a[0].reshape(unsqueezed(a[0].shape, axes_of(node, a, opset, 13) or []))


def _reshape(node: Node, a: list[Array], opset: int) -> Array:
    wanted = [int(v) for v in a[1].ravel()]
    if not node.integer("allowzero", 0):
        wanted = [a[0].shape[i] if v == 0 else v for i, v in enumerate(wanted)]
    return a[0].reshape(wanted)


def _flatten(node: Node, a: list[Array], opset: int) -> Array:
    axis = node.integer("axis", 1)
    axis += a[0].ndim if axis < 0 else 0
    return a[0].reshape(prod(a[0].shape[:axis]), prod(a[0].shape[axis:]))


def _gather(node: Node, a: list[Array], opset: int) -> Array:
    return np.take(a[0], a[1], axis=node.integer("axis", 0))


def _slice(node: Node, a: list[Array], opset: int) -> Array:
    if opset < 10:
        lists = [node.integers(name) or [] for name in ("starts", "ends", "axes")]
    else:
        lists = [[int(v) for v in array.ravel()] for array in a[1:]]
    starts, ends, axes, steps = (*lists, [], [])[:4]
    axes = axes or list(range(len(starts)))
    index = [slice(None)] * a[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        index[axis] = slice(start, end if end > -(1 << 60) else None, step)
    return a[0][tuple(index)]


def _cast(node: Node, a: list[Array], opset: int) -> Array:
    kind = DTYPES.get(node.integer("to", 0))
    if kind is None:
        raise ValueError("a type that NumPy doesn't have")
    if a[0].dtype.kind == "i" and (a[0] <= BATCH).any():  # a shape
        if np.dtype(kind).kind != "i":
            raise ValueError("the number of rows as a number")
        return a[0]
    return a[0].astype(kind)


def _spread_value(node: Node, a: list[Array], opset: int) -> Array:
    value = node.attributes.get("value")
    fill = value.array().ravel()[0] if isinstance(value, Tensor) else np.float32(0)
    return np.full(_integers(a[0]), fill, fill.dtype)


def _expand(node: Node, a: list[Array], opset: int) -> Array:
    return np.broadcast_to(a[0], np.broadcast_shapes(a[0].shape, _integers(a[1])))


def _divide(node: Node, a: list[Array], opset: int) -> Array:
    if a[0].dtype.kind in "iu":
        return np.trunc(a[0] / a[1]).astype(a[0].dtype)
    return np.asarray(a[0] / a[1])


def _arithmetic(function: Any) -> Callable[[Node, list[Array], int], Array]:
    def compute(node: Node, a: list[Array], opset: int) -> Array:
        b = [a[0], aligned(node, a[0].ndim, a[1], opset)] if len(a) == 2 else a
        if len({v.dtype for v in b}) > 1 and node.op != "Pow":
            raise ValueError("they have different types")
        return np.asarray(function(*b), a[0].dtype)

    return compute


def aligned(node: Node, rank: int, b: Array, opset: int) -> Array:
    """Return the second operand as opset 6 broadcasts it: from `axis` on."""
    axis = node.attributes.get("axis")
    if opset > 6 or not isinstance(axis, int):
        return b
    trailing = rank - axis % max(rank, 1) - b.ndim
    return b.reshape(b.shape + (1,) * max(trailing, 0))


_MOVES: dict[str, Callable[[Node, list[Array], int], Array]] = {
    "Identity": lambda node, a, opset: a[0],
    "Cast": _cast,
    "Concat": lambda node, a, opset: np.concatenate(a, axis=node.integer("axis", 1)),
    "Flatten": _flatten,
    "Gather": _gather,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": lambda node, a, opset: np.transpose(a[0], node.integers("perm")),
    "Unsqueeze": _unsqueeze,
}
_SPREADS: dict[str, Callable[[Node, list[Array], int], Array]] = {
    "Add": _arithmetic(np.add),
    "Div": _divide,
    "Mul": _arithmetic(np.multiply),
    "Pow": _arithmetic(np.power),
    "Sub": _arithmetic(np.subtract),
}
_FOLDS = {
    **_MOVES,
    **_SPREADS,
    "ConstantOfShape": _spread_value,
    "Expand": _expand,
    "Exp": _arithmetic(np.exp),
    "Neg": _arithmetic(np.negative),
    "Reciprocal": lambda node, a, opset: np.asarray(1 / a[0], a[0].dtype),
    "ReduceProd": lambda node, a, opset: np.prod(
        a[0], keepdims=bool(node.integer("keepdims", 1)), dtype=a[0].dtype
    ),
    "Shape": lambda node, a, opset: np.array(a[0].shape, np.int64),
    "Size": lambda node, a, opset: np.array(a[0].size, np.int64),
    "Sqrt": _arithmetic(np.sqrt),
}
