"""ONNX operations that change the shape and not the numbers."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from fastlayer.convert._onnx.file import DTYPES
from fastlayer.convert._onnx.graph import BATCH, UNKNOWN, Value, describe, size, wide

if TYPE_CHECKING:
    from fastlayer.arrays import Array
    from fastlayer.convert._onnx.file import Node
    from fastlayer.convert._onnx.graph import Given, Graph, Operation


def relabelled(graph: Graph, node: Node, value: Value, shape: tuple[int, ...]) -> Value:
    """Return the value in another shape, its rows still in one piece each."""
    sample = tuple(d for d in shape if d != BATCH)
    if value.point.runs and BATCH in shape and len(wide(sample)) <= 1 and sample != value.held:
        value = graph.flattened(value, node)
    return value._replace(shape=shape)


def _mixed(node: Node, value: Value, wanted: tuple[int, ...]) -> Exception:
    return node.refuse(
        f"it makes {describe(wanted)} of {describe(value.shape)}, which mixes the rows of a batch "
        "or depends on their number; export the model with the batch as the first axis"
    )


def _reshape(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    target = rest[0]
    if not isinstance(target, np.ndarray) or target.dtype.kind != "i" or target.size > 32:
        raise node.refuse("its shape is computed from the input; export the model with a fixed one")
    wanted = [int(v) for v in target.ravel()]
    if not node.integer("allowzero", 0):
        if any(v == 0 and i >= value.rank for i, v in enumerate(wanted)):
            raise node.damaged(f"keeps a dimension that {describe(value.shape)} doesn't have")
        wanted = [value.shape[i] if v == 0 else v for i, v in enumerate(wanted)]
    wanted = [UNKNOWN if v == -1 else v for v in wanted]
    if any(v < 0 and v not in (BATCH, UNKNOWN) for v in wanted) or wanted.count(UNKNOWN) > 1:
        raise node.damaged(f"asks for the shape {describe(tuple(wanted))}")
    return relabelled(graph, node, value, _resolved(graph, node, value, wanted))


def _resolved(graph: Graph, node: Node, value: Value, dims: list[int]) -> tuple[int, ...]:
    """Return the shape of a Reshape, with the rows and the dimension left open put in."""
    open_at = dims.index(UNKNOWN) if UNKNOWN in dims else None
    known = prod(d for d in dims if d not in (BATCH, UNKNOWN))
    total = size(value.sample)
    if value.columns:
        raise _mixed(node, value, tuple(dims))
    if BATCH in value.shape and BATCH not in dims:
        if open_at is not None and (known == total or (total == UNKNOWN and open_at == 0)):
            dims[open_at], open_at = BATCH, None
        elif dims and dims[0] == graph.frozen:
            known //= dims[0] or 1
            dims[0] = BATCH
        elif graph.frozen != 1:
            raise _mixed(node, value, tuple(dims))
    if open_at is not None and total != UNKNOWN and known and total % known == 0:
        dims[open_at] = total // known
        known = total
    shape = tuple(dims)
    first = BATCH not in wide(shape)[1:] and dims.count(BATCH) <= 1
    if not first or (UNKNOWN not in (total, *dims) and known != total):
        raise _mixed(node, value, shape)
    return shape


def _flatten(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    axis = node.integer("axis", 1)
    if not -value.rank <= axis <= value.rank:
        raise node.damaged(f"flattens from axis {axis} of {describe(value.shape)}")
    axis += value.rank if axis < 0 else 0
    left, right = value.shape[:axis], value.shape[axis:]
    if graph.frozen == 1 and BATCH in right:
        right = tuple(d for d in right if d != BATCH)
    if value.columns or BATCH in right or (BATCH in left and wide(left) != (BATCH,)):
        raise _mixed(node, value, (UNKNOWN, UNKNOWN))
    rows = BATCH if BATCH in left else size(left)
    return relabelled(graph, node, value, (rows, size(right)))


def _squeeze(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    unit = {1, BATCH} if graph.frozen == 1 else {1}
    axes = graph.axes(node, value, rest, 13)
    if axes is None:
        axes = [i for i, d in enumerate(value.shape) if d in unit]
    gone = [value.shape[i] for i in axes]
    shape = tuple(d for i, d in enumerate(value.shape) if i not in axes)
    if not set(gone) <= unit:
        raise node.refuse(
            f"it takes dimensions {describe(tuple(gone))} away, which are not 1 for every input"
        )
    return relabelled(graph, node, value, shape)


def _unsqueeze(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    axes, dims = graph.axes(node, value, rest, 13, grown=True) or [], iter(value.shape)
    shape = tuple(1 if i in axes else next(dims) for i in range(value.rank + len(axes)))
    return relabelled(graph, node, value, shape)


def _transpose(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    perm = node.integers("perm")
    perm = list(range(value.rank))[::-1] if perm is None else perm
    if sorted(perm) != list(range(value.rank)):
        raise node.damaged(f"permutes {value.rank} dimensions by {perm[:8]}")
    shape = tuple(value.shape[i] for i in perm)
    moved = [i for i in perm if value.shape[i] != 1]
    # Samples may become columns and rows again; other orders would need the numbers moved.
    if moved == sorted(moved) or (len(moved) == 2 and BATCH in shape):
        return value._replace(shape=shape)
    raise node.refuse(
        f"it reorders the features, {describe(value.shape)} to {describe(shape)}; permute the "
        "columns of the next layer's weights instead"
    )


def _cast(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    return graph.cast(node, value, DTYPES.get(node.integer("to", 0)))


def _dropout(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    mode = rest[1] if len(rest) > 1 and graph.opset >= 12 else None
    training = graph.opset < 7 and not node.integer("is_test", 0)
    if training or (mode is not None and (isinstance(mode, Value) or mode.any())):
        raise node.refuse("it is in training mode, and random; export the model for inference")
    return value


def _shape(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Array:
    # The number of rows is `BATCH` there.
    start, end = node.integer("start", 0), node.integer("end", value.rank)
    return np.array(value.shape[start:end], np.int64)


SHAPES: dict[str, Operation] = {
    "Cast": _cast,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Identity": lambda graph, node, value, rest: value,
    "Reshape": _reshape,
    "Shape": _shape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
