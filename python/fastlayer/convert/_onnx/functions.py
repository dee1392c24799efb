"""ONNX activations, and the operations that clip, which are activations of a network too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fastlayer.convert._activations import ONNX
from fastlayer.convert._onnx import terms
from fastlayer.convert._onnx.values import Value, describe, running
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.convert._onnx.file import Node
    from fastlayer.convert._onnx.graph import Given, Graph
    from fastlayer.convert._onnx.terms import Poly

    Operation = Callable[[Graph, Node, list[Given]], Value]

# Functions that activations are made of, by the name that `terms` has for them.
_ATOMS = {
    "Abs": "abs",
    "Erf": "erf",
    "Exp": "exp",
    "Log": "log",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Tanh": "tanh",
}
# SELU's constants as ONNX has them, rounded to float32.
_SELU = (np.float32(1.6732632423543772), np.float32(1.0507009873554805))


def _activation(graph: Graph, node: Node, given: list[Given]) -> Value:
    value = given[0]
    assert isinstance(value, Value)

    def get(name: str, default: object) -> object:
        if isinstance(default, float) and math.isfinite(default):
            return node.number(name, default)
        return node.attributes.get(name, default)

    try:
        activation = ONNX[node.op].make(get)
    except (TypeError, ValueError) as error:
        raise node.damaged(str(error)) from error
    return _known(graph, node, value, activation, _ATOMS.get(node.op))


def _known(
    graph: Graph, node: Node, value: Value, activation: Activation, atom: str | None
) -> Value:
    graph.floats(node)
    if atom is None:
        data = running(value, node).then(activation)
        return value._replace(data=data, node=node)
    return graph.elementwise(
        node,
        [value],
        lambda p: terms.apply(atom, p),
        direct=lambda: value.data.then(activation) if value.data.runs else None,
    )


def _bounded(graph: Graph, node: Node, value: Value, low: float, high: float) -> Value:
    """Return the value clipped to a range."""
    if not low <= high:
        raise node.refuse(f"it clips to the range from {low} to {high}, in which there is nothing")
    if math.inf == high == -low:
        return value._replace(node=node)
    if (low, high) == (0.0, math.inf):
        activation = Activation("relu")
    elif (low, high) == (0.0, 6.0):
        activation = Activation("relu6")
    else:
        activation = Activation("hardtanh", min_val=low, max_val=high)
    return graph.elementwise(
        node,
        [value],
        lambda p: terms.apply("clip", p, low, high),
        direct=lambda: value.data.then(activation) if value.data.runs else None,
    )


def _clip(graph: Graph, node: Node, given: list[Given]) -> Value:
    value = given[0]
    assert isinstance(value, Value)
    if graph.opset < 11:
        low, high = node.number("min", -math.inf), node.number("max", math.inf)
    else:
        bounds = [_bound(graph, node, g) for g in given[1:3]]
        low, high = (
            d if b is None else b
            for b, d in zip((*bounds, None, None), (-math.inf, math.inf), strict=False)
        )
    return _bounded(graph, node, value, low, high)


def _bound(graph: Graph, node: Node, given: Given) -> float | None:
    if given is None:
        return None
    if isinstance(given, Value) or given.size != 1:
        raise node.refuse("its bounds must be constant numbers")
    graph.floats(node, given)
    return float(given.ravel()[0])


def _extreme(low: bool) -> Operation:
    def operation(graph: Graph, node: Node, given: list[Given]) -> Value:
        values = [g for g in given if isinstance(g, Value)]
        bounds = [
            b
            for g in given
            if isinstance(g, np.ndarray)
            if (b := _bound(graph, node, g)) is not None
        ]
        if len(values) != 1 or not bounds:
            raise node.refuse("it compares arrays; only comparing with a constant number is known")
        if low:
            return _bounded(graph, node, values[0], max(bounds), math.inf)
        return _bounded(graph, node, values[0], -math.inf, min(bounds))

    return operation


def _hard_sigmoid(graph: Graph, node: Node, given: list[Given]) -> Value:
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    value = given[0]
    assert isinstance(value, Value)
    line = graph.affine(node, value, np.float64(alpha), np.float64(beta))
    return _bounded(graph, node, line, 0.0, 1.0)


def _selu(graph: Graph, node: Node, given: list[Given]) -> Value:
    value = given[0]
    assert isinstance(value, Value)
    alpha, gamma = node.number("alpha", float(_SELU[0])), node.number("gamma", float(_SELU[1]))
    if graph.floats(node) == np.float32 and (np.float32(alpha), np.float32(gamma)) == _SELU:
        return _known(graph, node, value, Activation("selu"), None)
    elu = _known(graph, node, value, Activation("elu", alpha=alpha), None)
    return graph.affine(node, elu, np.float64(gamma))


def _swish(graph: Graph, node: Node, given: list[Given]) -> Value:
    alpha = node.number("alpha", 1.0)

    value = given[0]
    assert isinstance(value, Value)

    def swish(p: Poly) -> Poly:
        return terms.times(p, terms.apply("sigmoid", terms.times(terms.number(alpha), p)))

    return graph.elementwise(node, [value], swish)


def _prelu(graph: Graph, node: Node, given: list[Given]) -> Value:
    value, slope = given[:2]
    if not isinstance(value, Value) or not isinstance(slope, np.ndarray):
        raise node.refuse("its slopes must be constants")
    graph.floats(node, slope)
    if graph.opset < 7 and value.rank > 2 and slope.ndim == 1:
        slope = slope.reshape(slope.shape + (1,) * (value.rank - 2))
    if slope.size == 0 or slope.ndim > value.rank:
        raise node.damaged(f"has slopes of shape {slope.shape} for {describe(value.shape)}")
    if slope.size == 1:
        return _known(graph, node, value, Activation("prelu", weight=slope), None)
    value, (slopes,) = graph.vectors(node, value, [slope])
    assert slopes is not None
    data = value.data.then(Activation("prelu", weight=slopes), (*value.data.held[:-1], slopes.size))
    return Value(value.shape, data, node)


FUNCTIONS: dict[str, Operation] = {
    **dict.fromkeys(ONNX, _activation),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Max": _extreme(low=True),
    "Min": _extreme(low=False),
    "PRelu": _prelu,
    "Selu": _selu,
    "Swish": _swish,
}
