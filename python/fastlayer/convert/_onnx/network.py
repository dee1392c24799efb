"""From a graph to a network: the operations in order, then the steps back from the output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert import _graph
from fastlayer.convert._affine import Affine
from fastlayer.convert._onnx.constants import constant
from fastlayer.convert._onnx.constants import fold as fold_constants
from fastlayer.convert._onnx.dense import DENSE
from fastlayer.convert._onnx.elementwise import ELEMENTWISE
from fastlayer.convert._onnx.graph import Graph
from fastlayer.convert._onnx.shapes import SHAPES, shape_of
from fastlayer.convert._onnx.values import (
    Branch,
    Dense,
    Normalize,
    Taken,
    Value,
    describe,
    running,
    wide,
)
from fastlayer.errors import ConversionError, Damaged
from fastlayer.functions.activation import Activation
from fastlayer.network.network import Network
from fastlayer.network.norms import LayerNorm, RMSNorm
from fastlayer.network.part import Flatten

if TYPE_CHECKING:
    from fastlayer.arrays import DType
    from fastlayer.convert._onnx.file import Model, Node, Source
    from fastlayer.convert._onnx.graph import Given
    from fastlayer.convert._onnx.values import Data

_OPERATIONS = {**ELEMENTWISE, **DENSE, **SHAPES}
_DENSE_ONLY = "fastlayer runs dense networks: rows through Gemm, MatMul, norms and activations"
_ADVICE = {
    "ArgMax": "cut it off with onnx.utils.extract_model, and take net(x).argmax(axis=-1)",
    "ArrayFeatureExtractor": "use fl.from_sklearn for a model of scikit-learn",
    "Concat": "the parts of a network follow one another; only residual sums branch",
    "DequantizeLinear": "export the model before it is quantised",
    "Split": "the parts of a network follow one another; only residual sums branch",
    "ZipMap": "use fl.from_sklearn, or export with the option zipmap=False and cut off the labels",
}
# A layer's weights are copied for the kernels. Layers may share weights in the file, within reason.
_MOST_COPIES = 4
_SPARE = 32 << 20
# Features of an input that no weight vouches for.
_MOST_FEATURES = 1 << 20


def to_network(model: Model, source: Source) -> Network:
    """Convert a model that was read from `source`.

    Raises
    ------
    ConversionError
        Something that a network can't do.
    Damaged
        Something that no ONNX model says.
    """
    if len(model.outputs) != 1:
        names = ", ".join(repr(v.name) for v in model.outputs[:8]) or "none"
        raise ConversionError(
            "graph",
            f"it has {len(model.outputs)} outputs ({names}), and a network has one; cut the model "
            "with onnx.utils.extract_model",
        )
    graph = Graph(model, len(source.data))
    result = _run(graph, model)
    nbytes = len(source.data) + source.external.nbytes
    data = _finished(result)
    dtype = graph.dtype or np.dtype(np.float32)
    steps = _steps_to(data)
    copied = _weights(steps) * dtype.itemsize
    if copied > _MOST_COPIES * nbytes + _SPARE:
        raise Damaged("graph", f"asks for {copied} bytes of weights, and the file has {nbytes}")
    try:
        parts = _parts(steps, dtype)
    except ValueError as error:
        raise ConversionError("graph", f"its layers make no network: {error}") from error
    net = Network(parts or [Activation("identity")])
    return net if net.dtype == dtype else net.astype(dtype)


def _run(graph: Graph, model: Model) -> Value:
    known: dict[str, Given] = {"": None}
    for value in model.inputs:
        if value.name not in model.tensors:
            known[value.name] = graph.input
    nodes, wanted = _needed(model)
    made = set(known)

    def get(node: Node, name: str) -> Given:
        if name not in known:
            if name not in model.tensors:
                raise node.damaged(f"uses {name!r} before anything makes it")
            known[name] = model.tensors[name].array()
        return known[name]

    for node in nodes:
        result = _one(graph, node, [get(node, name) for name in node.inputs])
        extra = [name for name in node.outputs[1:] if name in wanted]
        if extra:
            raise node.refuse(f"its output {extra[0]!r} is used; only the first one is computed")
        if node.outputs[0] in made or node.outputs[0] in model.tensors:
            raise node.damaged(f"makes {node.outputs[0]!r}, which is there already")
        made.add(node.outputs[0])
        known[node.outputs[0]] = result
    name = model.outputs[0].name
    result = known.get(name)
    if not isinstance(result, Value):
        raise Damaged("graph", f"its output {name!r} does not come from its input")
    return result


def _needed(model: Model) -> tuple[list[Node], set[str]]:
    """Return the nodes that the output depends on, in order, and all names that they use."""
    wanted = {model.outputs[0].name}
    nodes = []
    for node in reversed(model.nodes):
        if any(name and name in wanted for name in node.outputs):
            nodes.append(node)
            wanted.update(node.inputs)
    wanted.discard("")
    return nodes[::-1], wanted


def _one(graph: Graph, node: Node, given: list[Given]) -> Given:
    if node.domain not in ("", "ai.onnx"):
        raise node.refuse(
            "it is not one of ONNX's own operators; export the model without custom or fused ones "
            "(functions: onnx.inliner.inline_local_functions)"
        )
    if node.op == "Constant":
        return constant(node)
    first = given[0] if given else None
    if node.op == "Shape" and isinstance(first, Value):
        return shape_of(graph, node, first)
    if not any(isinstance(g, Value) for g in given):
        arrays = [g for g in given if not isinstance(g, Value)]
        return fold_constants(node, arrays, graph.opset, graph.room)
    if node.op not in _OPERATIONS:
        raise node.refuse(_ADVICE.get(node.op, _DENSE_ONLY))
    if first is None or (not isinstance(first, Value) and node.op not in _EITHER):
        raise node.damaged("has a constant where its input should be")
    if len(given) < _INPUTS.get(node.op, 1):
        raise node.damaged(f"has {len(given)} inputs, too few")
    return _OPERATIONS[node.op](graph, node, given)


# Operations in which a constant may come first.
_EITHER = {"Add", "Div", "Gemm", "MatMul", "Max", "Min", "Mul", "Pow", "Sub", "Sum"}
# How many inputs an operation has at least, where that is not one.
_INPUTS = {
    **dict.fromkeys(("Add", "Div", "Gemm", "MatMul", "Mul", "Pow", "PRelu", "Reshape", "Sub"), 2),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), 2),
    "BatchNormalization": 5,
}


def _finished(value: Value) -> Data:
    """Return the data of the output, whose rows must be what the network gives."""
    assert value.node is None or value.data is not None
    node = value.node
    if node is None:
        return value.data
    data = running(value, node)
    sample = value.sample
    if sample != data.held and len(wide(sample)) <= 1 and not value.columns:
        data = data.flattened()
    if value.columns or (wide(sample) != wide(data.held) and len(wide(sample)) > 1):
        raise node.refuse(
            f"it gives {describe(value.shape)}, and a network gives rows; cut it off with "
            "onnx.utils.extract_model, and reshape the result"
        )
    return data


def _steps_to(data: Data) -> tuple[Taken, ...]:
    steps = []
    while data.source is not None and data.step is not None:
        steps.append(Taken(data.source.held[-1], data.step))
        data = data.source
    return tuple(steps[::-1])


def _weights(steps: tuple[Taken, ...]) -> int:
    """Return the number of weights in the matrix products of some steps."""
    total = 0
    for _, step in steps:
        if isinstance(step, Dense):
            total += step.weight.size
        elif isinstance(step, Branch):
            total += _weights(step.steps)
    return total


def _parts(steps: tuple[Taken, ...], dtype: DType) -> list[Any]:
    """Return the parts of a network that takes these steps."""
    return _graph._assemble(_plain(steps, dtype), dtype, None, "graph")


def _plain(steps: tuple[Taken, ...], dtype: DType) -> list[Any]:
    parts: list[Any] = []
    for features, step in _merged(steps):
        if isinstance(step, Dense):
            parts.append(_graph.Dense(step.weight))
        elif isinstance(step, Normalize):
            parts.append(_norm(step, dtype))
        elif isinstance(step, Branch):
            parts.append(_graph.Sum(tuple(_plain(step.steps, dtype))))
        elif isinstance(step, Affine) and 0 < features <= _MOST_FEATURES:
            parts.append(Affine(*(np.broadcast_to(v, (features,)) for v in step)))
        else:
            parts.append(_graph.Flat("graph") if isinstance(step, Flatten) else step)
    return parts


def _merged(steps: tuple[Taken, ...]) -> list[Taken]:
    """Return the steps with affine ones worked into each other and into a norm before them."""
    result: list[Taken] = []
    for features, step in steps:
        last = result[-1].step if result else None
        behind = len(result) > 1 and isinstance(result[-2].step, Dense)  # that is the layer's
        if isinstance(step, Affine) and isinstance(last, Affine) and not (behind and last.shifts):
            both = last.then(step)
            if both is not None:
                result[-1] = Taken(result[-1].features, both)
                continue
        result.append(Taken(features, step))
    merged: list[Taken] = []
    for features, step in result:
        last = merged[-1].step if merged else None
        if isinstance(step, Affine) and isinstance(last, Normalize) and last.weight is None:
            n = (last.features,)
            weight, bias = (np.broadcast_to(v, n) for v in step)
            if last.name == "layer_norm" or not bias.any():
                given = bias if bias.any() else None
                merged[-1] = Taken(features, last._replace(weight=weight, bias=given))
                continue
        merged.append(Taken(features, step))
    return merged


def _norm(step: Normalize, dtype: DType) -> LayerNorm | RMSNorm:
    if step.name == "layer_norm":
        return LayerNorm(step.features, step.eps, step.weight, step.bias, dtype)
    return RMSNorm(step.features, step.eps, step.weight, dtype)
