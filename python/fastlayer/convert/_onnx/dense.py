"""ONNX operations with weights: products and norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastlayer.convert._activations import ONNX
from fastlayer.convert._affine import Affine
from fastlayer.convert._einsum import dense_einsum
from fastlayer.convert._graph import Dense
from fastlayer.convert._onnx.dims import BATCH, UNKNOWN, describe, size
from fastlayer.convert._onnx.elementwise import binary
from fastlayer.convert._onnx.graph import Value
from fastlayer.convert._recognise import Normalize
from fastlayer.functions.activation import named

if TYPE_CHECKING:
    from fastlayer.arrays import Array
    from fastlayer.convert._onnx.file import Node
    from fastlayer.convert._onnx.graph import Given, Graph, Operation

_NORMS = {"LayerNormalization": "layer_norm", "RMSNormalization": "rms_norm"}


def _dense(graph: Graph, node: Node, value: Value, weight: Array) -> Value:
    """Return the product with a weight (n, k) along the last axis."""
    graph.floats(node, weight)
    n, k = weight.shape
    if not n or not k:
        raise node.refuse(f"its weights have shape {weight.shape}; a layer has at least one neuron")
    if not value.rank or value.shape[-1] not in (k, UNKNOWN, BATCH):
        raise node.damaged(f"multiplies {describe(value.shape)} by weights for {k} features")
    value = graph.with_features(value, value.rank - 1, node)
    return value.then([Dense(weight)], n)._replace(shape=(*value.shape[:-1], n))


def _turned(value: Value) -> Value:
    return value._replace(shape=value.shape[::-1])


def _one_constant(node: Node, a: Given, b: Given) -> bool:
    """Whether the first factor is the weight; exactly one of both must be."""
    if isinstance(a, Value) == isinstance(b, Value) or a is None or b is None:
        raise node.refuse(
            "it multiplies two arrays that both depend on the input, as attention does; fastlayer "
            "runs dense networks"
        )
    return not isinstance(a, Value)


def _matmul(graph: Graph, node: Node, a: Given, rest: list[Given]) -> Value:
    b = rest[0]
    if _one_constant(node, a, b):
        return _from_left(graph, node, b, a)
    lead = b.shape[:-2]
    if b.ndim == 0 or any(d != 1 for d in lead):
        raise node.refuse(f"its weights have shape {b.shape}, which is one product for each batch")
    if b.ndim == 1:
        result = _dense(graph, node, a, b.reshape(1, -1))
        return result._replace(shape=result.shape[:-1])
    if a.rank == 1 and lead:
        raise node.refuse(f"it spreads a single sample over weights of shape {b.shape}")
    result = _dense(graph, node, a, b.reshape(b.shape[-2:]).T)
    return result._replace(shape=(1,) * (b.ndim - max(a.rank, 2)) + result.shape)


def _einsum(graph: Graph, node: Node, a: Given, rest: list[Given]) -> Value:
    """Return a sum over the features alone: ``...k,kn->...n`` in any letters and either order."""
    equation = str(node.attributes.get("equation", ""))
    if len(rest) != 1:
        raise node.refuse(f"{equation!r} is no dense layer, which has rows and one weight")
    first = _one_constant(node, a, rest[0])
    weight, value = (a, rest[0]) if first else (rest[0], a)
    how = dense_einsum(equation, first, weight.ndim, value.rank)
    if how is None:
        raise node.refuse(
            f"{equation!r} with a weight of shape {weight.shape} is no dense layer, which sums over "
            "the features of its rows alone, as in '...k,kn->...n'"
        )
    neurons = weight.reshape(1, -1) if weight.ndim == 1 else weight
    value = _turned(value) if how.from_columns else value
    result = _dense(
        graph, node, value, neurons.T if weight.ndim == 2 and how.weight_in_out else neurons
    )
    if weight.ndim == 1:
        return result._replace(shape=result.shape[:-1])
    return _turned(result) if how.to_columns else result


def _from_left(graph: Graph, node: Node, value: Value, weight: Array) -> Value:
    """Return the product with a weight in front: samples are columns, or there is one, 1-D."""
    if weight.ndim == 1:
        weight = weight.reshape(1, -1)
        result = _from_left(graph, node, value, weight)
        return result._replace(shape=result.shape[1:] if value.rank == 2 else result.shape[:-1])
    if weight.ndim != 2 or value.rank not in (1, 2):
        raise node.refuse(f"it multiplies weights of shape {weight.shape} from the left")
    if BATCH in value.shape and not value.columns:
        raise node.refuse(
            f"its weights multiply {describe(value.shape)} from the left, so that samples are "
            "columns; transpose the input in the model, or build the network with "
            "fl.Layer.from_arrays and call it with axis=0"
        )
    return _turned(_dense(graph, node, _turned(value), weight))


def _gemm(graph: Graph, node: Node, a: Given, rest: list[Given]) -> Value:
    b, c = rest[0], rest[1] if len(rest) > 1 else None
    turn_a, turn_b = node.integer("transA", 0), node.integer("transB", 0)
    left = _one_constant(node, a, b)
    weight, value = (a, b) if left else (b, a)
    if weight.ndim != 2 or value.rank != 2:
        raise node.damaged(
            f"multiplies shapes {describe(value.shape)} and {weight.shape}; Gemm takes two "
            "dimensions"
        )
    value = _turned(value) if (turn_b if left else turn_a) else value
    weight = weight.T if (turn_a if left else not turn_b) else weight
    result = (_from_left if left else _dense)(graph, node, value, weight)
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    if alpha != 1:
        result = result.then([Affine.of(alpha)])
    if isinstance(c, Value):
        return binary(graph, node, "add", result, c if beta == 1 else c.then([Affine.of(beta)]))
    if c is None or beta == 0:
        return result
    graph.floats(node, c)
    if c.ndim > 2:
        raise node.damaged(f"adds a constant of shape {c.shape} to {describe(result.shape)}")
    result, (shift,) = graph.beside(node, result, [c.astype(np.float64) * beta])
    return result.then([Affine.of(1.0, shift)], shift.size if shift.ndim else None)


def _vectors(graph: Graph, node: Node, given: list[Given], count: int) -> list[Array]:
    arrays = [g for g in given if isinstance(g, np.ndarray)]
    if len(arrays) != count:
        raise node.refuse("its parameters must be constants")
    graph.floats(node, *arrays)
    return arrays


def _batch_norm(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    if node.integer("training_mode", 0) or (graph.opset < 7 and not node.integer("is_test", 0)):
        raise node.refuse("it is in training mode; export the model for inference")
    if graph.opset < 9 and not node.integer("spatial", 1) and value.rank > 2:
        raise node.refuse(
            "it has statistics for each position; only those for each channel are done"
        )
    arrays = _vectors(graph, node, rest[:4], 4)
    sizes = {a.shape for a in arrays}
    if value.rank < 2 or len(sizes) != 1 or arrays[0].ndim != 1:
        raise node.damaged(f"has parameters of shapes {sizes} beside {describe(value.shape)}")
    weight, bias, mean, var = (a.astype(np.float64) for a in arrays)
    var = var + node.number("epsilon", 1e-5)
    if (var <= 0).any():
        raise node.damaged("has a variance that is not positive")
    scale = weight / np.sqrt(var)
    shape = (-1,) + (1,) * (value.rank - 2)
    constants = [c.reshape(shape) for c in (scale, -mean * scale, bias)]
    value, (scale, centre, bias) = graph.beside(node, value, constants)
    # Where the two sums cancel, whoever compares results has to know both.
    steps = [Affine.of(scale, centre), Affine.of(1.0, bias)]
    return value.then(steps, scale.size if scale.ndim else None)


def _row_norm(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    start = _axis(node, value, -1)
    if rest[0] is None:
        raise node.damaged("leaves out its scale, which it must have")
    constants = _vectors(graph, node, rest, sum(g is not None for g in rest))
    shape = value.shape[start:]
    if UNKNOWN in shape:
        shape = constants[0].shape if constants else shape
    n = size(shape)
    try:
        graph.take(node, 8 * n * len(constants))
        rows = [np.broadcast_to(c, shape).ravel() for c in constants]
    except ValueError:
        shapes = [c.shape for c in constants]
        raise node.damaged(f"has weights of shapes {shapes} for {describe(shape)}") from None
    if n < 1:
        raise node.refuse("the shape of its input is not known; declare it in the model")
    value = graph.with_features(value, start, node)
    eps = node.number("epsilon", 1e-5)
    if not eps >= 0:
        raise node.damaged(f"has epsilon {eps}")
    steps = [Normalize(_NORMS[node.op], eps, n), *([Affine.of(*rows)] if rows else [])]
    return value.then(steps, n)._replace(shape=(*value.shape[:start], *shape))


def _lp_norm(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    """Return rows over their length; those of zeros stay so."""
    start = _axis(node, value, -1)
    if node.integer("p", 2) != 2 or value.shape[start + 1 :]:
        raise node.refuse("known is the length of each row: p = 2, along the last axis")
    dtype = graph.floats(node)
    value = graph.with_features(value, start, node)
    n = value.shape[-1]
    if n < 1:
        raise node.refuse("the shape of its input is not known; declare it in the model")
    # So small that it counts where all squares are zero, and nowhere else.
    least = float(np.finfo(dtype).smallest_subnormal)
    return value.then([Normalize("rms_norm", least, n), Affine.of(n**-0.5)], n)


def _softmax(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    graph.floats(node)
    # Before opset 13 all axes from this one on are taken together.
    start = _axis(node, value, 1 if graph.opset < 13 else -1)
    if graph.opset >= 13 and any(d != 1 for d in value.shape[start + 1 :]):
        raise node.refuse(
            f"it runs along axis {start} of {describe(value.shape)}; in fastlayer it runs over "
            "the features, the last axis"
        )
    return graph.with_features(value, start, node).then([named(ONNX[node.op].name)])


def _axis(node: Node, value: Value, default: int) -> int:
    axis = node.integer("axis", default)
    if not -value.rank <= axis < value.rank:
        raise node.damaged(f"works on axis {axis} of {describe(value.shape)}")
    return axis % value.rank


DENSE: dict[str, Operation] = {
    "BatchNormalization": _batch_norm,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "LayerNormalization": _row_norm,
    "LogSoftmax": _softmax,
    "LpNormalization": _lp_norm,
    "MatMul": _matmul,
    "RMSNormalization": _row_norm,
    "Softmax": _softmax,
}
