"""What Keras computes between layers, and the layers that join arrays, as points of the graph."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert import _graph, _recognise
from fastlayer.convert._advice import advice
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Cut, Dense, Mix, Point, elementwise
from fastlayer.convert._keras.calls import Call
from fastlayer.convert._keras.layers import contraction
from fastlayer.convert._keras.shapes import SHAPES, Flow, alike, product, reshaped
from fastlayer.convert._recognise import CONDITIONS, FORMULAS
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.convert._keras.given import Given
    from fastlayer.convert._recognise import Poly

# Operations on two arrays, of which one may be a constant, in the words of `_graph`.
_ARITHMETIC = {
    "Add": "add",
    "Subtract": "sub",
    "Multiply": "mul",
    "Divide": "div",
    "TrueDivide": "div",
    "Power": "pow",
    "Maximum": "maximum",
    "Minimum": "minimum",
}
_FORMULAS = {
    "Absolute": "abs",
    "Negative": "neg",
    **{
        name.capitalize(): name
        for name in ("abs", "erf", "expm1", "log", "log1p", "reciprocal", "rsqrt", "sign", "sqrt")
    },
}
_OF_ROWS = {name.capitalize(): name for name in ("logsumexp", "max", "mean", "sum", "var")}
_CONDITIONS = {
    "Greater": "greater",
    "GreaterEqual": "greaterorequal",
    "Less": "less",
    "LessEqual": "lessorequal",
    "LogicalAnd": "and",
    "LogicalNot": "not",
    "LogicalOr": "or",
    "Where": "where",
}
_MOST_SPLITS = 1000
_COPIES = ("ConvertToTensor", "Copy", "StopGradient")


def operation(given: Given, call: Call) -> list[Flow] | None:
    """Return what an operation or a joining layer makes of its operands, None for other layers.

    Raises
    ------
    ConversionError
        It has no exact counterpart.
    """
    kind = given.kind
    if kind in _ARITHMETIC:
        return [_arithmetic(given, call)]
    if kind in _CONDITIONS:
        return [_conditional(given, call)]
    if kind == "Concatenate" or (kind == "Average" and not given.operation):
        flows = call.args[0] if len(call.args) == 1 else call.args
        if not isinstance(flows, list) or not all(isinstance(f, Flow) for f in flows) or not flows:
            raise given.refusal("joins something else than arrays of the model")
        return [_concatenated(given, flows) if kind == "Concatenate" else _average(given, flows)]
    flow = call.args[0] if call.args else None
    make = _OPERATIONS.get(kind)
    if make is None or not isinstance(flow, Flow) or not _is_operation(given):
        return None
    if kind not in _OF_ARGUMENTS and len(call.args) != 1:
        raise given.refusal("is called with more than its input")
    made = make(given._replace(shape=flow.shape), call, flow)
    return [made] if isinstance(made, Flow) else made


def was_always_read(given: Given, call: Call) -> bool:
    """Whether it is a sum, or combines an array with a plain number."""
    number = any(isinstance(arg, float) for arg in call.args)
    return given.kind in ("Add", "Subtract") or (
        number and given.kind in ("Multiply", "Divide", "TrueDivide")
    )


def _is_operation(given: Given) -> bool:
    """Whether it is a function that was called; .h5 files don't say where a class comes from."""
    if given.kind == "Reshape":  # the layer as well, but where it makes rows
        target = given.config.get("target_shape")
        return not isinstance(target, list | tuple) or len(target) != 1
    told = "module" in given.spec or "trainable" in given.config
    return given.operation or not told


def _arithmetic(given: Given, call: Call) -> Flow:
    args = call.args[0] if len(call.args) == 1 else call.args
    operands = list(args) if isinstance(args, list) else [args]
    flows = [o for o in operands if isinstance(o, Flow)]
    if not flows or (len(flows) < len(operands) and len(operands) != 2):
        raise given.refusal("combines its input with numbers in a way that is not known")
    result: Flow = operands[0]
    for other in operands[1:]:
        result = _pair(given, call, result, other)
    return result


def _pair(given: Given, call: Call, a: Any, b: Any) -> Flow:
    """Return an operation on two operands, at least one of which is an array of the model."""
    op = _ARITHMETIC[given.kind]
    error = given.refusal(
        "joins two arrays of the model of which nothing known comes: end the model before it, with "
        "both as its outputs, and compute this step with NumPy"
    )
    if isinstance(a, Flow) and isinstance(b, Flow):
        wide = a if a.width != 1 else b
        if not alike(a, b):
            raise given.refusal(f"joins arrays of shapes {a.shape} and {b.shape}")
        return wide.after(_graph.arithmetic(op, a.point, b.point, given.place, error))
    flow, c = (a, b) if isinstance(a, Flow) else (b, a)
    c = _vector(given, call, flow, c)
    x, y = (flow.point, c) if flow is a else (c, flow.point)
    if op == "div" and flow is a and not np.all(c):
        raise given.refusal("divides its input by zero")
    if not np.isfinite(c).all():
        raise given.refusal("has a constant that is not finite")
    error = given.refusal(
        "divides a number by its input, of which nothing known comes"
        if op == "div"
        else "combines its input with a constant in a way that is not known"
    )
    point = _graph.arithmetic(op, x, y, given.place, error)
    return flow.after(point, c.size if c.ndim else None)


def _concatenated(given: Given, flows: list[Flow]) -> Flow:
    first = flows[0]
    rank = len(first.shape or ())
    axis = given.config.get("axis", -1)
    if axis != -1 and axis != rank - 1:
        raise given.refusal(
            f"works along axis {axis!r:.40}; in a network that is the last, axis=-1"
        )
    narrow = [f if f.shape is None else f.after(f.point, 1) for f in flows]
    if not all(alike(narrow[0], f) for f in narrow[1:]):
        raise given.refusal(f"joins arrays of shapes {', '.join(str(f.shape) for f in flows)}")
    widths = [f.width for f in flows]
    point = _graph.join("concat", [f.point for f in flows], given.place)
    if None in widths:
        return Flow(point, None, None)
    return first.after(point, sum(n or 0 for n in widths))


def _average(given: Given, flows: list[Flow]) -> Flow:
    total = flows[0]
    for other in flows[1:]:
        total = _pair(given._replace(kind="Add"), Call([], {}), total, other)
    return total.after(total.point.then([Affine.of(1 / len(flows))]))


def _vector(given: Given, call: Call, flow: Flow, value: Any) -> Array:
    """Return a constant beside an array: a number, or one for each feature."""
    if isinstance(value, float):
        return np.asarray(value)
    if not isinstance(value, np.ndarray):
        raise given.refusal(f"is called with {value!r:.60}, which is not an array or number")
    rank = 2 if flow.shape is None else len(flow.shape)
    one = value.size == 1
    fits = value.ndim <= rank and (one or value.shape[-1] == value.size > 0)
    if not fits or not (one or flow.width in (None, value.size)):
        raise given.refusal(
            f"has a constant of shape {value.shape} beside an array of shape {flow.shape}; fastlayer "
            "takes a number, or one for each feature"
        )
    return value.astype(call.dtype).astype(np.float64).reshape(-1 if value.size > 1 else ())


def _formula(given: Given, call: Call, flow: Flow) -> Flow:
    name, point = _FORMULAS[given.kind], flow.point
    root = name == "sqrt" and point.runs
    made = elementwise(
        [point],
        FORMULAS[name],
        given.refusal(advice(given.kind)),
        lambda: Point(point, Activation("sqrt")) if root else None,
    )
    return flow.after(made)


def _square(given: Given, call: Call, flow: Flow) -> Flow:
    error = given.refusal(advice(given.kind))
    two = np.asarray(2.0)
    return flow.after(_graph.arithmetic("pow", flow.point, two, given.place, error))


def _of_row(given: Given, call: Call, flow: Flow) -> Flow:
    axis = given.config.get("axis")
    axes = axis if isinstance(axis, list | tuple) else [axis]
    last = {-1, len(flow.shape) - 1} if flow.shape else {-1}
    if len(axes) != 1 or axes[0] not in last or given.config.get("keepdims") is not True:
        raise given.refusal(
            f"is over axis {axis!r:.40}; in a network that is the features', axis=-1, and stays, "
            "keepdims=True"
        )
    name, point = _OF_ROWS[given.kind], flow.point
    mix = {"mean": Mix("mean"), "sum": Mix("sum")}.get(name) if point.runs else None
    error = given.refusal(advice(given.kind))
    direct = (lambda: Point(point, mix)) if mix else (lambda: None)
    return flow.after(elementwise([point], FORMULAS[name], error, direct), 1)


def _conditional(given: Given, call: Call) -> Flow:
    """Return a condition, or what one selects."""
    flows = [a for a in call.args if isinstance(a, Flow)]
    if not flows or not all(alike(flows[0], f) for f in flows):
        raise given.refusal("combines arrays in a way that is not known")
    whole = next((f for f in flows if f.width != 1), flows[0])
    numbers: list[Any] = []
    for arg in call.args:
        c = None if isinstance(arg, Flow) else _vector(given, call, whole, arg)
        # Keras rounds a number to the dtype of the array beside it, and so a threshold.
        c = None if c is None else c.astype(call.dtype).astype(np.float64)
        numbers.append(None if c is None else _recognise.number(c if c.ndim else float(c)))
    make = CONDITIONS[_CONDITIONS[given.kind]]

    def all_of_them(*polys: Poly) -> Poly:
        ours = iter(polys)
        return make(*(next(ours) if n is None else n for n in numbers))

    error = given.refusal("selects in a way that no activation does; use activations")
    return whole.after(elementwise([f.point for f in flows], all_of_them, error))


def _cast(given: Given, call: Call, flow: Flow) -> Flow:
    wanted = given.config.get("dtype")
    # The input of a network may be of any dtype.
    if wanted != call.dtype and not (
        flow.point.parent is None and wanted in ("float32", "float64")
    ):
        raise given.refusal(f"changes the dtype to {wanted!r:.40}; a network has one")
    return flow


def _matmul(given: Given, call: Call, flow: Flow, turned: bool = False) -> Flow:
    kernel = call.args[1] if len(call.args) == 2 else None
    if not isinstance(kernel, np.ndarray) or kernel.ndim != 2 or 0 in kernel.shape:
        raise given.refusal("is a product with something else than a constant matrix")
    weight = np.ascontiguousarray(kernel if turned else kernel.T, call.dtype)
    return product(given, flow, Dense(weight))


def _einsum(given: Given, call: Call, flow: Flow) -> Flow:
    return _matmul(given, call, flow, contraction(given, given.config.get("subscripts"))[0])


def _cut(given: Given, flow: Flow, begin: int, end: int) -> Flow:
    if not 0 <= begin < end <= (flow.width or 0):
        raise given.refusal(f"takes features {begin} to {end} of {flow.width}")
    if end - begin == flow.width:
        return flow
    return flow.after(flow.point.then([Cut(begin, end)]), end - begin)


def _item(given: Given, call: Call, flow: Flow) -> Flow:
    """Return some features, ``x[:, a:b]`` or ``x[..., a:b]``."""
    index = call.args[1] if len(call.args) == 2 else None
    parts = index if isinstance(index, list) else [index]
    rank, width = len(flow.shape or ()), flow.width
    *before, last = parts
    whole = before == [...] or (
        len(parts) == rank and all(p == slice(None) or p == slice(0, None) for p in before)
    )
    if not whole or not isinstance(last, slice) or last.step not in (None, 1) or width is None:
        raise given.refusal(
            f"takes {parts!r:.60} of arrays of shape {flow.shape}; fastlayer takes features that "
            "follow each other and keeps the axes, x[:, begin:end]"
        )
    begin, end, _ = last.indices(width)
    return _cut(given, flow, begin, end)


def _split(given: Given, call: Call, flow: Flow) -> list[Flow]:
    width = _last(given, flow)
    at = given.config.get("indices_or_sections")
    if type(at) is int and 0 < at <= _MOST_SPLITS and width % at == 0:
        at = list(range(width // at, width, width // at))
    if not isinstance(at, list | tuple) or not all(type(i) is int for i in at):
        raise given.refusal(f"splits {width} features at {at!r:.40}")
    return [_cut(given, flow, a, b) for a, b in pairwise([0, *at, width])]


def _glu(given: Given, call: Call, flow: Flow) -> Flow:
    width = _last(given, flow)
    left, right = _cut(given, flow, 0, width // 2), _cut(given, flow, width // 2, width)
    gate = right.after(right.point.then([Activation("sigmoid")]))
    return _pair(given._replace(kind="Multiply"), call, left, gate)


def _last(given: Given, flow: Flow) -> int:
    """Return how many features there are, where it works along their axis."""
    width, axis = flow.width, given.config.get("axis")
    if width is None or axis not in (-1, len(flow.shape or ()) - 1):
        raise given.refusal(
            f"works along axis {axis!r:.40}; in a network that is the last, axis=-1"
        )
    return width


_OF_ARGUMENTS = {"Matmul": _matmul, "Dot": _matmul, "Einsum": _einsum, "GetItem": _item}
_OPERATIONS: dict[str, Callable[[Given, Call, Flow], Flow | list[Flow]]] = {
    **dict.fromkeys(_FORMULAS, _formula),
    **dict.fromkeys(_OF_ROWS, _of_row),
    **dict.fromkeys(SHAPES, lambda given, call, flow: reshaped(given, flow)),
    **dict.fromkeys(_COPIES, lambda given, call, flow: flow),
    **_OF_ARGUMENTS,
    "Cast": _cast,
    "Glu": _glu,
    "Split": _split,
    "Square": _square,
}
