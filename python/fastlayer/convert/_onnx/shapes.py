"""ONNX operations that change the shape and not the numbers."""

from __future__ import annotations

from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from fastlayer.convert._graph import Cut, Mix, Point, constant, join
from fastlayer.convert._onnx.dims import BATCH, UNKNOWN, describe, size, wide
from fastlayer.convert._onnx.file import DTYPES
from fastlayer.convert._onnx.graph import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array
    from fastlayer.convert._onnx.file import Node
    from fastlayer.convert._onnx.graph import Given, Graph, Operation


# Pieces of the features that a node may take, each of which is an operation of its own.
_MOST_CUTS = 256
_MOST_SPREAD = 1 << 18
_ALL = (1 << 31) - 1  # an end of a range that stands for all


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


def _expand(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    """Return one feature as several alike; the rows stay as they are."""
    target = rest[0]
    if not isinstance(target, np.ndarray) or target.dtype.kind != "i":
        raise node.refuse("its shape is computed from the input; export the model with a fixed one")
    rank = max(value.rank, target.size)
    wanted = [1] * (rank - target.size) + [int(v) for v in target.ravel()]
    shape = (1,) * (rank - value.rank) + value.shape
    grows = [
        w not in (1, d, graph.frozen if d == BATCH else 1)
        for d, w in zip(shape, wanted, strict=True)
    ]
    n = wanted[-1]
    if any(grows[:-1]) or (grows[-1] and not (shape[-1] == 1 < n <= _MOST_SPREAD)):
        raise node.refuse(
            f"it spreads {describe(value.shape)} to {describe(tuple(wanted))}; known is one feature, "
            "the last axis, as several"
        )
    value = value._replace(shape=shape)
    if not grows[-1]:
        return value
    graph.take(node, 8 * n)
    value = graph.with_features(value, rank - 1, node)
    return value.then([Mix("spread", n)], n)._replace(shape=(*shape[:-1], n))


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


def along(graph: Graph, node: Node, value: Value, axis: int) -> tuple[Value, int, int]:
    """Return a value whose features are all that lies along an axis, which, and how many."""
    if not -value.rank <= axis < value.rank:
        raise node.damaged(f"works on axis {axis} of {describe(value.shape)}")
    axis %= value.rank
    if value.shape[axis] == BATCH or wide(value.shape[axis + 1 :]):
        raise node.refuse(
            f"it works along axis {axis} of {describe(value.shape)}; fastlayer joins and cuts "
            "features, the last axis"
        )
    value = graph.with_features(value, axis, node)
    n = value.shape[axis]
    return value, axis, n if n != UNKNOWN or value.point.features is None else value.point.features


def _selected(value: Value, node: Node, axis: int, features: Sequence[int]) -> Value:
    """Return some features in some order."""
    runs: list[list[int]] = []
    for i in features:
        if runs and runs[-1][1] == i:
            runs[-1][1] += 1
        else:
            runs.append([i, i + 1])
    if not runs or len(runs) > _MOST_CUTS:
        raise node.refuse(
            f"it takes {len(runs)} pieces out of its input; 1 to {_MOST_CUTS} are known"
        )
    cuts = [Point(value.point.running(), Cut(*ends)) for ends in runs]
    n = len(features)
    shape = (*value.shape[:axis], n, *value.shape[axis + 1 :])
    return value.at(join("concat", cuts, node.place), n)._replace(shape=shape)


def _concat(graph: Graph, node: Node, first: Given, rest: list[Given]) -> Value:
    given = [first, *rest]
    rank = next(g for g in given if isinstance(g, Value)).rank
    axis = node.integer("axis", -1)
    points, total = [], 0
    result: Value | None = None
    for g in given:
        if isinstance(g, Value):
            value, at, n = along(graph, node, g, axis)
            points.append(value.point)
            if result is not None and result.shape[:at] != value.shape[:at]:
                raise node.damaged(f"joins {describe(result.shape)} and {describe(value.shape)}")
            result = result or value
        elif g is None or g.ndim != rank or g.size != g.shape[axis % rank]:
            raise node.refuse("it joins its input and a constant that is not one row")
        else:
            n = g.size
            graph.floats(node, g)
            points.append(constant(graph.root, g.ravel()))
        total = UNKNOWN if UNKNOWN in (total, n) else total + n
    assert result is not None
    shape = (*result.shape[:at], total, *result.shape[at + 1 :])
    return result.at(join("concat", points, node.place), total)._replace(shape=shape)


def _check_known(node: Node, n: int) -> None:
    if n == UNKNOWN:
        raise node.refuse(
            "the number of features of its input is not known; declare it in the model"
        )


def _split(graph: Graph, node: Node, value: Value, rest: list[Given]) -> list[Value]:
    value, axis, n = along(graph, node, value, node.integer("axis", 0))
    listed = rest[0] if rest else node.integers("split")
    if isinstance(listed, Value):
        raise node.refuse("its sizes are computed from the input")
    _check_known(node, n)
    sizes = None if listed is None else [int(v) for v in np.ravel(listed)]
    if sizes is None:
        each = -(-n // len(node.outputs))
        sizes = [min(each, n - i * each) for i in range(len(node.outputs))]
    if sum(sizes) != n or min(sizes) < 1 or len(sizes) != len(node.outputs):
        raise node.damaged(f"splits {n} features into {sizes[:8]}")
    ends = [*accumulate(sizes)]
    return [
        _selected(value, node, axis, range(end - size, end))
        for end, size in zip(ends, sizes, strict=True)
    ]


def _slice(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    if graph.opset < 10:
        starts, ends, axes = (node.integers(name) for name in ("starts", "ends", "axes"))
        steps = None
    else:
        if any(isinstance(g, Value) for g in rest):
            raise node.refuse("its range is computed from the input")
        listed = [None if g is None else [int(v) for v in g.ravel()] for g in rest]
        starts, ends, axes, steps = (*listed, None, None, None, None)[:4]
    if not starts or ends is None:
        raise node.damaged("has no range")
    axes = [*range(len(starts))] if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.damaged("has ranges of different lengths")
    for begin, end, at, step in zip(starts, ends, axes, steps, strict=True):
        rows = value.shape[at : at + 1 or None] == (BATCH,)
        if rows and begin == 0 and step == 1 and (end >= _ALL or end == BATCH):
            continue
        value, axis, n = along(graph, node, value, at)
        if n == UNKNOWN and 0 <= begin < end < _ALL and step == 1:
            value = _selected(value, node, axis, range(begin, end))
        else:
            _check_known(node, n)
            value = _selected(value, node, axis, range(n)[begin:end:step])
    return value


def _gather(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    indices = rest[0]
    if not isinstance(indices, np.ndarray) or indices.dtype.kind != "i" or indices.ndim > 1:
        raise node.refuse("its indices must be a constant list")
    value, axis, n = along(graph, node, value, node.integer("axis", 0))
    _check_known(node, n)
    if (indices < -n).any() or (indices >= n).any():
        raise node.damaged(f"takes features that are not there, of {n}")
    value = _selected(value, node, axis, [int(i) % n for i in indices.ravel()])
    if indices.ndim == 0:
        value = value._replace(shape=(*value.shape[:axis], *value.shape[axis + 1 :]))
    return value


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
    "Concat": _concat,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": lambda graph, node, value, rest: value,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
