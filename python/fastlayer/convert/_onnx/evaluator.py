"""Operations and models run by `onnx.reference`, which says what an ONNX model means.

Operations on constants and on shapes are run while a model is read, those on rows by the proof.
What it has no implementation of, or a wrong one, is computed here: `_OWN` says what and why.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._onnx.dims import BATCH
from fastlayer.convert._onnx.file import DTYPES, the_package
from fastlayer.errors import ConversionError, Damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from fastlayer.arrays import Array
    from fastlayer.convert._onnx.file import Model, Node
    from fastlayer.convert._onnx.graph import Graph

    Compute = Callable[..., Any]

_ERF = np.vectorize(math.erf, "d")

# What moves numbers about, so that the number of rows may be among them.
_MOVES = {
    "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
}  # fmt: skip
# What makes an array of a shape, its last input.
_SPREADS_OVER_ROWS = {"ConstantOfShape", "Expand"}
# What computes each element of its result from those of its inputs, as NumPy broadcasts them.
_SPREADS = {
    "Abs", "Add", "And", "Ceil", "Div", "Equal", "Exp", "Floor", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow",
    "Reciprocal", "Sign", "Sqrt", "Sub", "Sum", "Where",
}  # fmt: skip
_REDUCES = {
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Shape", "Size",
}  # fmt: skip
# What makes one element of each, or of each of its first input.
_MAPS = {
    "Cast", "CastLike", "Clip", "Cos", "CumSum", "DequantizeLinear", "Elu", "Erf", "HardSigmoid",
    "LeakyRelu", "LogSoftmax", "LpNormalization", "QuantizeLinear", "Relu", "Round", "Selu",
    "Sigmoid", "Sin", "Softmax", "Softplus", "Softsign", "Tanh", "Trilu",
}  # fmt: skip
# What is done with constants, and how many elements the result takes that they don't.
_SIZES: dict[str, Callable[[Node, list[Array]], int]] = {
    **dict.fromkeys(_MOVES, lambda node, a: 0),
    **dict.fromkeys(
        _SPREADS, lambda node, a: math.prod(np.broadcast_shapes(*(v.shape for v in a)))
    ),
    **dict.fromkeys((*_MAPS, *_REDUCES), lambda node, a: a[0].size),
    "Concat": lambda node, a: sum(v.size for v in a),
    # One product costs as much time as a sum of its whole length costs memory.
    "MatMul": lambda node, a: a[0].size * (a[1].shape[-1] if a[1].ndim > 1 else 1),
    "Einsum": lambda node, a: math.prod(_letters(node, a).values()),
    "Gemm": lambda node, a: a[0].size * max(a[1].shape),
    "Pad": lambda node, a: math.prod(
        max(d, 0) + abs(int(low)) + abs(int(high))
        for d, low, high in zip(a[0].shape, *np.array_split(a[1], 2), strict=True)
    ),
    "Tile": lambda node, a: a[0].size * math.prod(_integers(a[1])),
    "ConstantOfShape": lambda node, a: math.prod(_integers(a[0])),
    "Expand": lambda node, a: math.prod(np.broadcast_shapes(a[0].shape, _integers(a[1]))),
    "Gather": lambda node, a: (
        a[1].size * (a[0].size // max(a[0].shape[node.integer("axis", 0)], 1))
    ),
}


def fold(graph: Graph, node: Node, given: list[Array | None], model: Model) -> list[Array]:
    """Return the results of an operation on constants.

    Raises
    ------
    ConversionError
        An operation that isn't known.
    Damaged
        Shapes that don't fit each other.
    """
    if node.op == "Constant":
        return [_constant(node, model)]
    if node.op not in _SIZES:
        raise node.refuse(
            "it computes on constants, and only simple operations are done while loading; simplify "
            "the model first, e.g. with onnxsim or onnxruntime's offline optimisation"
        )
    arrays = [a for a in given if a is not None]
    if not arrays:
        raise node.damaged("has no inputs")
    if any(g is None for g in given[: len(arrays)]):
        raise node.refuse("it leaves out an input before another one; give it its default")
    counted = [_counts(a) for a in arrays]
    if any(counted) and not _leaves_rows(node, arrays, counted):
        raise node.refuse(
            "it computes with the number of rows, which the network must not know; export the "
            "model with a fixed batch size"
        )
    if any(counted) and node.op in _SPREADS_OVER_ROWS:
        # What is the same in each row is kept as one.
        arrays[-1] = np.where(arrays[-1] == BATCH, 1, arrays[-1])
        given = [*arrays]
    try:
        if node.op == "Cast" and node.integer("to", 0) not in DTYPES:
            raise ValueError("a type that NumPy doesn't have")
        graph.take(node, 8 * _SIZES[node.op](node, arrays))
        feeds = dict(zip(node.inputs, given, strict=True))
        return evaluator([node], graph.opset, node.results)(feeds)
    except (ConversionError, Damaged):
        raise
    except Exception as error:  # whatever the evaluator makes of what a file says
        raise node.damaged(f"is given constants that don't fit: {error}") from error


def _counts(a: Array) -> bool:
    """Whether the number of rows is among the numbers of a shape."""
    return a.dtype.kind == "i" and bool((a <= BATCH).any())


def _leaves_rows(node: Node, arrays: list[Array], counted: list[bool]) -> bool:
    """Whether an operation makes nothing of the number of rows but to hand it on."""
    if node.op == "Equal":  # with what no number of rows is
        return not all(counted) and bool((arrays[counted.index(False)] < 0).all())
    if node.op == "Where":
        return not counted[0]
    ints = node.op == "Cast" and node.integer("to", 0) in (6, 7)
    return ints or node.op in _MOVES or node.op == "Shape" or node.op in _SPREADS_OVER_ROWS


def _constant(node: Node, model: Model) -> Array:
    for name, value in node.attributes.items():
        if name == "value" and hasattr(value, "data_type"):
            return model.array(value)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name == "value_strings":
            return np.array([*(v.decode(errors="replace") for v in value), None], object)[:-1]
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    raise node.refuse("it is a constant of a kind that no dense layer has; export dense numbers")


def _letters(node: Node, arrays: list[Array]) -> dict[str, int]:
    """Return the length of each axis of an Einsum."""
    names = str(node.attributes.get("equation", "")).replace(" ", "").partition("->")[0].split(",")
    if "." in "".join(names):
        raise ValueError("'...' in an equation of constants")
    return {
        c: d
        for name, a in zip(names, arrays, strict=True)
        for c, d in zip(name, a.shape, strict=True)
    }


def _integers(a: Array) -> tuple[int, ...]:
    values = tuple(int(v) for v in a.ravel())
    if any(v < 0 for v in values):
        raise ValueError(f"shape {values}")
    return values


def evaluator(
    nodes: Sequence[Node], opset: int, outputs: Sequence[str]
) -> Callable[[dict[str, Any]], list[Array]]:
    """Return what computes the outputs of some nodes from the arrays that go in, by name."""
    last_used = {name: at for at, node in enumerate(nodes) for name in node.inputs}
    last_used.update(dict.fromkeys(outputs, len(nodes)))
    computes = [_compute(node, opset) for node in nodes]

    def run(feeds: dict[str, Any]) -> list[Array]:
        known = {"": None, **feeds}
        for at, (node, compute) in enumerate(zip(nodes, computes, strict=True)):
            result = compute(*(known[name] for name in node.inputs))
            several = result if node.op == "Split" else [result]
            known.update(zip(node.results, several, strict=True))
            for name in node.inputs:
                if name and last_used[name] == at:
                    known.pop(name, None)
        return [np.asarray(known[name]) for name in outputs]

    return run


def _compute(node: Node, opset: int) -> Compute:
    own = next((make for ops, until, make in _OWN if node.op in ops and opset < until), _reference)
    return own(node, opset)


def _reference(node: Node, opset: int, keep: Container[str] | None = None) -> Compute:
    """Return what `onnx.reference` does for a node, with all its attributes or those to `keep`."""
    onnx = the_package()
    from onnx.reference import ReferenceEvaluator

    graph = onnx.GraphProto(name="graph")
    # Without attributes that nothing here looks at: graphs among them would be prepared to run.
    given = [
        a
        for a in node.proto.attribute
        if node.attributes[a.name] is not None and (keep is None or a.name in keep)
    ]
    graph.node.add(op_type=node.op, input=node.inputs, output=node.outputs, attribute=given)
    try:
        run: Any = ReferenceEvaluator(graph, opsets={"": opset}).run
    except Exception as error:  # of many kinds
        raise node.damaged(f"can't be run: {error.__cause__ or error}") from error
    wanted = list(node.results)

    def compute(*given: Any) -> Any:
        results = run(wanted, dict(zip(node.inputs, given, strict=True)))
        return results if node.op == "Split" else results[0]

    return compute


def aligned(node: Node, rank: int, b: Array, opset: int) -> Array:
    """Return the second operand as opset 6 broadcasts it: from `axis` on."""
    axis = node.attributes.get("axis")
    if opset > 6 or not isinstance(axis, int):
        return b
    trailing = rank - axis % max(rank, 1) - b.ndim
    return b.reshape(b.shape + (1,) * max(trailing, 0))


def _arithmetic(node: Node, opset: int) -> Compute:
    compute = _reference(node, 7, keep=())
    return lambda a, b: compute(a, aligned(node, a.ndim, b, opset))


def _gelu(node: Node, opset: int) -> Compute:
    if node.attributes.get("approximate", "none") == "tanh":
        c = math.sqrt(2 / math.pi)
        return lambda x: 0.5 * x * (1 + np.tanh(c * (x + 0.044715 * x**3)))
    return lambda x: (0.5 * x * (1 + _ERF(x / math.sqrt(2)))).astype(x.dtype)


def _hard_swish(node: Node, opset: int) -> Compute:
    return lambda x: x * np.clip(x / 6 + x.dtype.type(0.5), 0, 1)


def _lp_normalization(node: Node, opset: int) -> Compute:
    compute = _reference(node, opset)

    def normalised(x: Array) -> Array:
        return np.where(x.any(axis=node.integer("axis", -1), keepdims=True), compute(x), x)

    return normalised


def _softmax(node: Node, opset: int) -> Compute:
    axis, log = node.integer("axis", 1 if opset < 13 else -1), node.op == "LogSoftmax"

    def compute(x: Array) -> Array:
        axes = tuple(range(axis % x.ndim, x.ndim)) if opset < 13 else axis
        z = x - x.max(axis=axes, keepdims=True)
        total = np.exp(z).sum(axis=axes, keepdims=True)
        return np.asarray(z - np.log(total) if log else np.exp(z) / total)

    return compute


# Operators, the opset before which they are computed here, and how.
_OWN: list[tuple[set[str], float, Callable[[Node, int], Compute]]] = [
    ({"Add", "Div", "Mul", "Pow", "Sub"}, 7, _arithmetic),  # they broadcast from an axis
    ({"Dropout"}, 7, lambda node, opset: lambda x: x),  # is there from 7 on
    ({"DequantizeLinear"}, 19, lambda node, opset: _reference(node, 19)),
    # Returns tuples in tuples, or trains.
    ({"BatchNormalization"}, 14, lambda node, opset: _reference(node, 15, keep={"epsilon"})),
    ({"LpNormalization"}, math.inf, _lp_normalization),  # divides zeros by zero
    ({"Softmax", "LogSoftmax"}, math.inf, _softmax),  # takes one axis in old opsets too, and not 0
    # Computes in float32.
    ({"Erf"}, math.inf, lambda node, opset: lambda x: _ERF(x).astype(x.dtype)),
    ({"Gelu"}, math.inf, _gelu),  # a function of which the type has to be known
    # Overflows.
    ({"Softplus"}, math.inf, lambda node, opset: lambda x: np.logaddexp(x, x.dtype.type(0))),
    ({"HardSwish"}, math.inf, _hard_swish),  # 1 / 6 is a float32 in it
]
