"""ONNX operations on each element: arithmetic, activations, and what those are made of."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from fastlayer.convert import _graph, _recognise
from fastlayer.convert._activations import ONNX
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Mix, Point
from fastlayer.convert._onnx.dims import describe, wide
from fastlayer.convert._onnx.evaluator import aligned
from fastlayer.convert._onnx.graph import NOTHING, Value, common_shape
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.convert._onnx.file import Node
    from fastlayer.convert._onnx.graph import Given, Graph, Operation
    from fastlayer.convert._recognise import Poly


# What operators of any number of operands are called in `_graph.arithmetic`.
_NAMES = {"Max": "maximum", "Mean": "add", "Min": "minimum", "Sum": "add"}
_EXPONENTS = "its exponent must be one constant number"
# SELU's constants as ONNX has them, rounded to float32.
_SELU = (np.float32(1.6732632423543772), np.float32(1.0507009873554805))


def _several(graph: Graph, node: Node, given: list[Given], make: Callable[..., Poly]) -> Value:
    """Return what an operation makes of some operands, of which some are constants.

    `make` gets a polynomial for each of them.
    """
    values = [v for v in given if isinstance(v, Value)]
    constants = [v for v in given if not isinstance(v, Value)]
    if any(c is None for c in constants):
        raise node.damaged("leaves out one of its inputs")
    graph.floats(node, *(c for c in constants if c.dtype != bool))
    if len({v.held for v in values}) > 1 and all(v.point.runs for v in values):
        values = [graph.flattened(v, node) for v in values]
    whole = values[0]
    for other in values[1:]:
        whole = whole._replace(shape=common_shape(node, whole, other))
    features = None
    if constants:
        whole, constants = graph.beside(node, whole, constants)
        features = next((c.size for c in constants if c.ndim), None)
    places = [isinstance(v, Value) for v in given]
    plain = [c.flat[0] if c.ndim and (c == c.flat[0]).all() else c for c in constants]

    def all_of_them(*polys: Poly) -> Poly:
        ours, numbers = iter(polys), iter(plain)
        return make(*(next(ours) if p else _recognise.number(next(numbers)) for p in places))

    error = node.refuse(NOTHING)
    point = _graph.elementwise([v.point for v in values], all_of_them, error)
    return whole.at(point, features)


def _of_several(graph: Graph, node: Node, first: Given, rest: list[Given]) -> Value:
    result = _several(graph, node, [first, *rest], _recognise.CONDITIONS[node.op.lower()])
    if node.op != "Where":
        graph.conditions.add(result.point)
    return result


def binary(graph: Graph, node: Node, op: str, a: Given, b: Given) -> Value:
    """Return an operation on two operands, one of which may be a constant."""
    if a is None or b is None:
        raise node.damaged("leaves out one of its two inputs")
    if isinstance(a, Value) and isinstance(b, np.ndarray):
        b = aligned(node, a.rank, b, graph.opset)
    graph.floats(node, *(v for v in (a, b) if isinstance(v, np.ndarray)))
    number = isinstance(b, np.ndarray) and b.size == 1
    error = node.refuse(NOTHING if number or op != "pow" else _EXPONENTS)
    if isinstance(a, Value) and isinstance(b, Value):
        shape = common_shape(node, a, b)
        if a.point.runs and b.point.runs and a.held[:-1] != b.held[:-1]:
            a, b = graph.flattened(a, node), graph.flattened(b, node)
        point = _graph.arithmetic(op, a.point, b.point, node.place, error)
        # One feature is spread over those of the other.
        wider = a if a.shape[-1:] == shape[-1:] else b
        both: Value = wider.at(point)._replace(shape=shape)
        return both
    first = isinstance(a, Value)
    value, (c,) = graph.beside(node, *((a, [b]) if first else (b, [a])))
    x, y = (value.point, c) if first else (c, value.point)
    point = _graph.arithmetic(op, x, y, node.place, error)
    return value.at(point, c.size if c.ndim else None)


def _arithmetic(graph: Graph, node: Node, first: Given, rest: list[Given]) -> Value:
    given = [first, *rest]
    op = _NAMES.get(node.op, node.op.lower())
    if node.op in _NAMES:  # of any number of operands, in any order
        given = sorted(given, key=lambda g: not isinstance(g, Value))
    result = given[0]
    for other in given[1:]:
        result = binary(graph, node, op, result, other)
    value: Value = result
    return value.then([Affine.of(1 / len(given))]) if node.op == "Mean" else value


def _formula(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    make = _recognise.FORMULAS[node.op.lower()]
    runs = node.op == "Sqrt" and value.point.runs
    alone = (lambda: Point(value.point, Activation("sqrt"))) if runs else (lambda: None)
    return graph.elementwise(node, [value], make, value.shape, alone)


_MIXES = {"ReduceMean": Mix("mean"), "ReduceSum": Mix("sum")}


def _of_rows(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    axes = graph.axes(node, value, rest, 13 if node.op == "ReduceSum" else 18)
    held = value.held
    leading = tuple(d for d in value.sample[:-1] if d != 1)
    whole = value.rank and value.shape[-1] == held[-1] and leading == wide(held[:-1])
    if axes != [value.rank - 1] or not whole:
        raise node.refuse(
            f"it reduces axes {axes} of {describe(value.shape)}; only what norms and softmax do "
            "over the features, the last axis, is known"
        )
    kept = (1,) if node.integer("keepdims", 1) else ()
    make = _recognise.FORMULAS[node.op.lower().removeprefix("reduce")]
    mix = _MIXES.get(node.op) if value.point.runs else None
    direct = (lambda: Point(value.point, mix)) if mix else (lambda: None)
    result = graph.elementwise(node, [value], make, (*value.shape[:-1], *kept), direct)
    return result._replace(held=(*held[:-1], 1)) if result.point.runs else result


def _activation(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    def get(name: str, default: object) -> object:
        if isinstance(default, float) and math.isfinite(default):
            return node.number(name, default)
        return node.attributes.get(name, default)

    try:
        activation = ONNX[node.op].make(get)
    except (TypeError, ValueError) as error:
        raise node.damaged(str(error)) from error
    graph.floats(node)
    return value.then([activation])


def _clip(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    if graph.opset < 11:
        low, high = node.number("min", -math.inf), node.number("max", math.inf)
    else:
        bounds = zip_longest(rest[:2], (-math.inf, math.inf))
        low, high = (d if b is None else _bound(graph, node, b) for b, d in bounds)
    if not low <= high:
        raise node.refuse(f"it clips to the range from {low} to {high}, in which there is nothing")
    if math.inf == high == -low:
        return value
    graph.floats(node)
    return value.then([_recognise.clip(low, high)])


def _bound(graph: Graph, node: Node, given: Given) -> float:
    if isinstance(given, Value) or given.size != 1:
        raise node.refuse("its bounds must be constant numbers")
    graph.floats(node, given)
    return float(given.ravel()[0])


def _hard_sigmoid(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    graph.floats(node)
    return value.then([Affine.of(alpha, beta), _recognise.clip(0.0, 1.0)])


def _selu(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    alpha, gamma = node.number("alpha", float(_SELU[0])), node.number("gamma", float(_SELU[1]))
    if graph.floats(node) == np.float32 and (np.float32(alpha), np.float32(gamma)) == _SELU:
        return value.then([Activation("selu")])
    return value.then([Activation("elu", alpha=alpha), Affine.of(gamma)])


def _shrink(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    bias, lambd = node.number("bias", 0.0), node.number("lambd", 0.5)
    if bias != 0 and not bias == lambd > 0:
        raise node.refuse(
            f"it has bias {bias} and lambd {lambd}; known are bias 0, which is hardshrink, and bias "
            "equal to lambd, which is softshrink"
        )
    graph.floats(node)
    return value.then([Activation("softshrink" if bias else "hardshrink", lambd=lambd)])


def _swish(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    alpha = node.number("alpha", 1.0)

    def swish(p: Poly) -> Poly:
        return _recognise.times(
            p, _recognise.apply("sigmoid", _recognise.times(_recognise.number(alpha), p))
        )

    return graph.elementwise(node, [value], swish, value.shape)


def _prelu(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Value:
    slope = rest[0]
    if not isinstance(slope, np.ndarray):
        raise node.refuse("its slopes must be constants")
    graph.floats(node, slope)
    if graph.opset < 7 and value.rank > 2 and slope.ndim == 1:
        slope = slope.reshape(slope.shape + (1,) * (value.rank - 2))
    if slope.size == 0 or slope.ndim > value.rank:
        raise node.damaged(f"has slopes of shape {slope.shape} for {describe(value.shape)}")
    if slope.size == 1:
        return value.then([Activation("prelu", weight=slope.reshape(1))])
    value, (slopes,) = graph.vectors(node, value, [slope])
    return value.then([Activation("prelu", weight=slopes)], slopes.size)


ELEMENTWISE: dict[str, Operation] = {
    **dict.fromkeys(("Abs", "Erf", "Log", "Neg", "Reciprocal", "Sign", "Sqrt"), _formula),
    **dict.fromkeys(
        ("And", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or", "Where"),
        _of_several,
    ),
    **dict.fromkeys(ONNX, _activation),
    "Clip": _clip,
    **dict.fromkeys(("Add", "Div", "Mul", "Pow", "Sub", *_NAMES), _arithmetic),
    "HardSigmoid": _hard_sigmoid,
    "PRelu": _prelu,
    **dict.fromkeys(("ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceSum"), _of_rows),
    "Selu": _selu,
    "Shrink": _shrink,
    "Swish": _swish,
}
