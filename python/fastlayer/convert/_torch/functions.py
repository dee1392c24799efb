"""Functions and methods that a forward may call on one array, or on two: `_FUNCTIONS` says what they are.

Those on several arrays are in `selections` and `branches`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert import _graph
from fastlayer.convert._affine import Affine
from fastlayer.convert._einsum import dense_einsum
from fastlayer.convert._graph import Dense, Flat, Mix, OneRow, Point, elementwise, join
from fastlayer.convert._recognise import FORMULAS
from fastlayer.convert._torch import layers
from fastlayer.convert._torch.axes import COUNT, ROWS, VECTOR, Shape
from fastlayer.convert._torch.selections import constant as row
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer.convert._torch.call import Call, Form, Reads

# Operations on two arrays, of which one may be a constant.
SHORT = {
    **{name: name for name in ("add", "sub", "rsub", "mul", "div", "pow")},
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "truediv": "div",
}
_ALIASES = {"absolute": "abs", "negative": "neg", "sgn": "sign"}
# What does nothing to numbers; `_to` is for what may.
_NOTHING = ("contiguous", "clone", "cpu", "cuda", "detach", "pin_memory", "requires_grad")
_OTHER_AXES = (
    "takes an array that has another axis than rows have, or one less; only what does the same to "
    "each element is known of those, and what works along the last axis where that is the features'"
)
# What does the same to each element, beside activations.
_EACH = {*FORMULAS, *_ALIASES, "getattr"} - {"logsumexp", "max", "mean", "sum", "var"}
_DROPOUTS = ("dropout", "alpha_dropout", "feature_alpha_dropout")


def check_form(call: Call) -> None:
    """Refuse what works along axes, where there are others than those of rows."""
    each = (*_NOTHING, *_DROPOUTS, *SHORT, "float", "double", "to", "type", "type_as", "stack")
    table = layers.parameters(call.name) is not None or call.name in ("matmul", "mm")
    if call.name not in each and not table and call.name not in _EACH:
        raise call.refuse(_OTHER_AXES)


def check_steps(steps: Sequence[Any], form: Form, source: str) -> None:
    """Refuse steps that work along axes which an array of another form doesn't have."""
    along = {"softmax", "log_softmax"}
    for step in steps:
        name = getattr(step, "name", None)
        alone = isinstance(step, Activation) and name not in along and name != "prelu"
        if isinstance(step, OneRow) or not (alone or form[-1] == "n"):
            place = getattr(step, "place", f"{source}, {name or 'a dense layer'}")
            raise ConversionError(place, _OTHER_AXES)


def apply(reader: Reads, call: Call, x: Point) -> Point:
    """Return the point that a call leads to from `x`.

    Raises
    ------
    ConversionError
        A function that has no exact counterpart.
    """
    if call.name in _FUNCTIONS:
        return reader.then(x, _FUNCTIONS[call.name](call))
    names = layers.parameters(call.name)
    if names is not None:
        return reader.then(x, layers.called(call.name, call.getter(names), call.place, call.dtype))
    make = FORMULAS.get(_ALIASES.get(call.name, call.name))
    if make is None:
        raise call.refuse()
    if call.args or call.kwargs:
        raise call.refuse("has arguments beside its input")

    def alone() -> Point | None:
        if call.name == "square" and x.runs:
            return join("multiply", [x, x], call.place)
        return Point(x, Activation("sqrt")) if call.name == "sqrt" and x.runs else None

    return elementwise([x], make, call.refuse(), otherwise=alone)


def einsum(reader: Reads, call: Call, equation: Any) -> Point:
    """Return rows times a weight."""
    given = call.args[0] if len(call.args) == 1 else call.args
    point = next((v for v in given if isinstance(v, Point)), None)
    weight = next((v for v in given if hasattr(v, "detach")), None)
    how = None
    if point is not None and weight is not None and len(given) == 2:
        how = dense_einsum(str(equation), given[0] is weight, weight.ndim, 2)
    if point is None or how is None or how.from_columns or how.to_columns:
        raise call.refuse(
            f"{equation!r:.60} is no dense layer, which sums over the features of its rows alone, as in "
            "'...k,kn->...n'"
        )
    reader.of_rows = reader.of_rows or "..." not in equation
    w = layers.array(weight, call.place)
    neurons = w.reshape(1, -1) if w.ndim == 1 else w.T if how.weight_in_out else w
    result = reader.then(point, [Dense(neurons)])
    reader.form = VECTOR if w.ndim == 1 else ROWS
    return result


def arithmetic(reader: Reads, call: Call, x: Any) -> Point:
    """Return the point of an operation on two operands; see `_graph.arithmetic`."""
    name = SHORT[call.name]
    y, alpha = call.value(0, "other", None), call.kwargs.get("alpha", 1)
    if set(call.kwargs) - {"other", "alpha"} or len(call.args) > 1:
        raise call.refuse("has arguments beside the two operands")
    if alpha != 1 and name == "rsub":
        raise call.refuse("has arguments beside the two operands")
    if alpha != 1:
        y = y.then([Affine.of(alpha)]) if isinstance(y, Point) else y * alpha
    if name == "rsub":
        x, y, name = y, x, "sub"
    error = call.refuse()
    if isinstance(x, Point) and isinstance(y, Point):
        error = call.refuse(
            "combines two arrays that both come from the input; fastlayer adds, multiplies and joins "
            "them, and nothing else"
        )
    elif isinstance(x, Point):
        y = row(y, call.place)
    elif isinstance(y, Point):
        x = row(x, call.place)
        if name == "div":
            error = call.refuse("divides a constant by its input")
    else:
        raise error
    n = max(v.size if isinstance(v, np.ndarray) else 1 for v in (x, y))
    if n > 1 and reader.form[-1] != "n":
        raise call.refuse(_OTHER_AXES)
    if n > 1:  # one feature beside several numbers
        x, y = (
            v.then([Mix("spread", n)]) if isinstance(v, Point) and v.features == 1 else v
            for v in (x, y)
        )
    return _graph.arithmetic(name, x, y, call.place, error)


def _reshape(call: Call) -> list[Any]:
    shape = call.value(0, "shape", None)
    shape = shape.axes(call, slice(None)) if isinstance(shape, Shape) else shape
    shape = tuple(shape) if isinstance(shape, tuple | list) else call.args
    if len(shape) == 2 and (shape[0] is COUNT or shape[0] == -1):
        n = shape[1]
        if isinstance(n, int) and (n > 0 or (n == -1 and shape[0] is COUNT)):
            return [Flat(call.place, n if n > 0 else None)]
    raise ConversionError(
        call.place,
        f"reshapes to {tuple('rows' if d is COUNT else d for d in shape)!r}; a network keeps one row "
        "a sample: x.flatten(1), or x.view(x.size(0), -1)",
    )


def _dropout(call: Call) -> list[Any]:
    # The functions default to training, unlike the modules.
    if call.value(1, "training", call.name == "dropout"):
        raise call.refuse(
            "drops at random in eval mode too; write F.dropout(x, p, self.training), or nn.Dropout"
        )
    return []


def _product(call: Call) -> list[Any]:
    weight = call.value(0, "other", call.kwargs.get("mat2"))
    if not hasattr(weight, "detach") or weight.ndim != 2:
        raise call.refuse()
    return [Dense(layers.array(weight, call.place).T)]


def _to(call: Call) -> list[Any]:
    """Nothing, where the dtype stays: a device, a layout and how to copy don't matter."""
    wanted = {"float": "float32", "double": "float64"}.get(call.name)
    given = [wanted] if wanted else [*call.args, *call.kwargs.values()]
    kinds = {str(getattr(v, "dtype", v)).removeprefix("torch.") for v in given}
    others = {
        k for k in kinds if k.startswith(("float", "int", "uint", "bool", "complex", "bfloat"))
    }
    if call.name == "type" and not others:
        raise call.refuse("is given a type that is no dtype of PyTorch")
    if others - {call.dtype.name}:
        raise call.refuse(f"changes the dtype; a network computes in {call.dtype}")
    return []


_FUNCTIONS: dict[str, Callable[[Call], list[Any]]] = {
    **dict.fromkeys(_NOTHING, lambda call: []),
    **dict.fromkeys(_DROPOUTS, _dropout),
    **dict.fromkeys(("view", "reshape"), _reshape),
    **dict.fromkeys(("float", "double", "to", "type", "type_as"), _to),
    **dict.fromkeys(("matmul", "mm"), _product),
}
