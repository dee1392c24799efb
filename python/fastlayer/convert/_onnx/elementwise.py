"""ONNX operations on each element: arithmetic, and the functions that activations are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastlayer.convert._affine import Affine
from fastlayer.convert._onnx import terms
from fastlayer.convert._onnx.constants import UNKNOWN, aligned, axes_of
from fastlayer.convert._onnx.functions import FUNCTIONS
from fastlayer.convert._onnx.graph import common_shape
from fastlayer.convert._onnx.values import Value, describe, wide

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.convert._onnx.file import Node
    from fastlayer.convert._onnx.graph import Given, Graph
    from fastlayer.convert._onnx.terms import Poly
    from fastlayer.convert._onnx.values import Data

    Operation = Callable[[Graph, Node, list[Given]], Value]


def _pair(graph: Graph, node: Node, given: list[Given]) -> tuple[Given, Given]:
    a, b = given[:2]
    if a is None or b is None:
        raise node.damaged("leaves out one of its two inputs")
    if isinstance(a, Value) and isinstance(b, np.ndarray):
        b = aligned(node, a.rank, b, graph.opset)
    graph.floats(node, *(v for v in (a, b) if isinstance(v, np.ndarray)))
    return a, b


def _common(node: Node, a: Value, b: Value) -> tuple[Value, Value, tuple[int, ...]]:
    """Return both as arrays of one shape, and that shape as ONNX sees it."""
    shape = common_shape(node, a, b)
    if a.data.held != b.data.held and a.data.runs and b.data.runs:
        a, b = (v._replace(data=v.data.flattened()) for v in (a, b))
    return a, b, shape


def add(graph: Graph, node: Node, a: Value, b: Value, sign: float = 1.0) -> Value:
    """Return ``a + sign * b``: part of an activation, or a residual connection."""
    a, b, shape = _common(node, a, b)

    def residual() -> Data | None:
        if a.shape != b.shape and UNKNOWN not in shape:
            return None
        whole = graph.branch(node, a, b, sign)
        if whole is not None or not (a.data.runs and b.data.runs):
            return whole
        # a is computed from b: a - b is -(b - a).
        whole = graph.branch(node, b, a, sign)
        return whole if whole is None or sign == 1 else whole.then(Affine.of(sign))

    return graph.elementwise(
        node, [a, b], lambda p, q: terms.add(p, q, sign), shape=shape, direct=residual
    )


def _sum(sign: float) -> Operation:
    def operation(graph: Graph, node: Node, given: list[Given]) -> Value:
        a, b = _pair(graph, node, given)
        if isinstance(a, Value) and isinstance(b, Value):
            return add(graph, node, a, b, sign)
        if isinstance(a, Value):
            assert isinstance(b, np.ndarray)
            return graph.affine(node, a, None, sign * b.astype(np.float64))
        assert isinstance(b, Value)
        assert isinstance(a, np.ndarray)
        return graph.affine(node, b, np.float64(sign), a)

    return operation


def _sum_of_many(graph: Graph, node: Node, given: list[Given]) -> Value:
    total = given[0]
    for other in given[1:]:
        total = _sum(1.0)(graph, node, [total, other])
    if not isinstance(total, Value):
        raise node.refuse("its first two inputs are constants; add those up in the model")
    return total


def _mul(graph: Graph, node: Node, given: list[Given]) -> Value:
    a, b = _pair(graph, node, given)
    if isinstance(a, Value) and isinstance(b, Value):
        a, b, shape = _common(node, a, b)
        return graph.elementwise(node, [a, b], terms.times, shape=shape)
    value, factor = (a, b) if isinstance(a, Value) else (b, a)
    assert isinstance(value, Value)
    assert isinstance(factor, np.ndarray)
    return graph.affine(node, value, factor)


def _div(graph: Graph, node: Node, given: list[Given]) -> Value:
    a, b = _pair(graph, node, given)
    if isinstance(a, Value) and isinstance(b, np.ndarray):
        return graph.affine(node, a, 1 / b.astype(np.float64))
    assert isinstance(b, Value)
    inverse = graph.elementwise(node, [b], lambda p: terms.power(p, -1.0))
    return _mul(graph, node, [a, inverse])


def _pow(graph: Graph, node: Node, given: list[Given]) -> Value:
    value, exponent = given[:2]
    if not isinstance(value, Value) or not isinstance(exponent, np.ndarray) or exponent.size != 1:
        raise node.refuse("its exponent must be one constant number")
    e = float(exponent.ravel()[0])
    return graph.elementwise(node, [value], lambda p: terms.power(p, e))


def _simple(make: Callable[[Poly], Poly]) -> Operation:
    def operation(graph: Graph, node: Node, given: list[Given]) -> Value:
        value = given[0]
        assert isinstance(value, Value)
        return graph.elementwise(node, [value], make)

    return operation


def _mean(graph: Graph, node: Node, given: list[Given]) -> Value:
    value = given[0]
    assert isinstance(value, Value)
    arrays = [g for g in given if isinstance(g, np.ndarray)]
    axes = axes_of(node, [np.empty(0), *arrays], graph.opset, 18)
    held = value.data.held
    leading = tuple(d for d in value.sample[:-1] if d != 1)
    whole = value.rank and value.shape[-1] == held[-1] and leading == wide(held[:-1])
    if axes not in ([-1], [value.rank - 1]) or not node.integer("keepdims", 1) or not whole:
        raise node.refuse(
            f"it averages over axes {axes} of {describe(value.shape)}; only a norm over the "
            "features, the last axis, is known, with keepdims=1"
        )
    shape = (*value.shape[:-1], 1)
    return graph.elementwise(node, [value], lambda p: terms.apply("mean", p), shape=shape)


ELEMENTWISE: dict[str, Operation] = {
    **FUNCTIONS,
    "Abs": _simple(lambda p: terms.apply("abs", p)),
    "Add": _sum(1.0),
    "Div": _div,
    "Erf": _simple(lambda p: terms.apply("erf", p)),
    "Log": _simple(lambda p: terms.apply("log", p)),
    "Mul": _mul,
    "Neg": _simple(lambda p: terms.times(terms.number(-1.0), p)),
    "Pow": _pow,
    "Reciprocal": _simple(lambda p: terms.power(p, -1.0)),
    "ReduceMean": _mean,
    "Sqrt": _simple(lambda p: terms.power(p, 0.5)),
    "Sub": _sum(-1.0),
    "Sum": _sum_of_many,
}
