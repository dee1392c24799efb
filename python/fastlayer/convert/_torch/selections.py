"""What a forward does with several arrays, element by element: conditions, selections and bounds.

And what it makes of each row: largest values, sums and means, of which norms and softmax are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert import _recognise
from fastlayer.convert._graph import Dense, Mix, Point, elementwise
from fastlayer.convert._recognise import CONDITIONS, FORMULAS, PAIRS, clip
from fastlayer.convert._torch import layers
from fastlayer.convert._torch.axes import ROWS, VECTOR
from fastlayer.convert._torch.branches import row_axis
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer.arrays import Array
    from fastlayer.convert._recognise import Poly
    from fastlayer.convert._torch.call import Branch, Call, Reads

_COMPARISONS = {
    **dict.fromkeys(("gt", "greater"), "greater"),
    **dict.fromkeys(("ge", "greater_equal"), "greaterorequal"),
    **dict.fromkeys(("lt", "less"), "less"),
    **dict.fromkeys(("le", "less_equal"), "lessorequal"),
}
_LOGIC = {
    **dict.fromkeys(("logical_and", "bitwise_and", "and"), "and"),
    **dict.fromkeys(("logical_or", "bitwise_or", "or"), "or"),
    **dict.fromkeys(("logical_not", "bitwise_not", "invert"), "not"),
}
_TOGETHER = (
    "combines arrays that come from the input in a way that no activation does; fastlayer adds, "
    "multiplies and joins arrays, and nothing else"
)
_LARGER = ("maximum", "max", "fmax")


def constant(value: Any, place: str) -> Array:
    """Return a constant beside a row: a number, or one for each feature.

    Raises
    ------
    ConversionError
        Something else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return np.asarray(value, np.float64)
    if not hasattr(value, "detach"):
        raise ConversionError(place, f"combines its input with {value!r:.60}")
    layers.check_dtype(value, place)
    a: Array = value.detach().cpu().numpy().astype(np.float64)
    if a.size != 1 and a.shape[-1:] != (a.size,):
        raise ConversionError(
            place, f"has a constant of shape {a.shape}; fastlayer takes one number for each feature"
        )
    return a.reshape(()) if a.size == 1 else a.reshape(-1)


def _several(call: Call, given: Sequence[Any], make: Callable[..., Poly]) -> Point:
    """Return what an operation makes of arrays and constants, of which `make` gets polynomials."""
    points = [v for v in given if isinstance(v, Point)]
    if not points:
        raise call.refuse()
    # PyTorch rounds a number to the dtype of the array beside it, and so a threshold.
    numbers = [
        None
        if isinstance(v, Point)
        else _recognise.number(constant(v, call.place).astype(call.dtype).astype(np.float64))
        for v in given
    ]

    def all_of_them(*polys: Poly) -> Poly:
        ours = iter(polys)
        return make(*(next(ours) if n is None else n for n in numbers))

    why = _TOGETHER if len(points) > 1 else ""
    return elementwise(points, all_of_them, call.refuse(why))


def _operands(call: Call, x: Any, *names: str) -> list[Any]:
    """Return the operands of a call by place or name, where it has no other arguments."""
    if len(call.args) > len(names) or set(call.kwargs) - set(names):
        raise call.refuse("has arguments beside its operands")
    return [x, *(call.value(i, name, None) for i, name in enumerate(names))]


def _compare(reader: Reads, call: Call, x: Any) -> Point:
    make = CONDITIONS[_COMPARISONS[call.name]]
    return _several(call, _operands(call, x, "other"), make)


def _combine(reader: Reads, call: Call, x: Any) -> Point:
    name = _LOGIC[call.name]
    names = () if name == "not" else ("other",)
    return _several(call, _operands(call, x, *names), CONDITIONS[name])


def _where(reader: Reads, call: Call, x: Any) -> Point:
    if "condition" in call.kwargs:
        given = [call.kwargs["condition"], x, call.value(0, "other", None)]
    elif call.node.op == "call_method":
        given = [call.value(0, "condition", None), x, call.value(1, "other", None)]
    else:
        other = {"self", "input"} & set(call.kwargs)
        given = [x, call.value(0, next(iter(other), "input"), None), call.value(1, "other", None)]
    return _several(call, given, CONDITIONS["where"])


def _masked_fill(reader: Reads, call: Call, x: Any) -> Point:
    x, mask, value = _operands(call, x, "mask", "value")
    return _several(call, [mask, value, x], CONDITIONS["where"])


def _pair(reader: Reads, call: Call, x: Any) -> Any:
    """Return the larger or smaller of two arrays, or a sum of exponentials; or that of each row."""
    if call.name in ("max", "min") and not (call.args and isinstance(call.args[0], Point)):
        of_rows = "dim" in call.kwargs or (call.args and not hasattr(call.args[0], "detach"))
        if of_rows or not (call.args or call.kwargs):
            return _largest(reader, call, x)
    a, b = _operands(call, x, "other")
    name = "maximum" if call.name in _LARGER else "minimum"
    if call.name == "logaddexp":
        return _several(call, [a, b], PAIRS["logaddexp"])
    point, other = (a, b) if isinstance(a, Point) else (b, a)
    if isinstance(point, Point) and not isinstance(other, Point):
        c = constant(other, call.place)
        if c.ndim == 0 and not np.isnan(c):
            return point.then(
                [clip(float(c), np.inf) if name == "maximum" else clip(-np.inf, float(c))]
            )
    return _several(call, [a, b], PAIRS[name])


def _clamp(reader: Reads, call: Call, x: Any) -> Point:
    names = {"clamp_max": ("max",), "clamp_min": ("min",)}.get(call.name, ("min", "max"))
    given = dict(zip(names, _operands(call, x, *names)[1:], strict=True))
    ends = {k: v for k, v in given.items() if v is not None}
    numbers = {k: constant(v, call.place) for k, v in ends.items() if not isinstance(v, Point)}
    if isinstance(x, Point) and all(k in numbers and numbers[k].ndim == 0 for k in ends):
        high = float(numbers.get("max", np.inf))
        clipped: Point = x.then([clip(min(float(numbers.get("min", -np.inf)), high), high)])
        return clipped

    def make(p: Poly, *bounds: Poly) -> Poly:
        for name, bound in zip(ends, bounds, strict=True):
            p = PAIRS["maximum" if name == "min" else "minimum"](p, bound)
        return p

    return _several(call, [x, *ends.values()], make)


def _largest(reader: Reads, call: Call, x: Any) -> Any:
    if call.name == "min":
        raise call.refuse()
    # Where PyTorch gives the places too, they are something that nobody may ask for.
    found = _of_rows(reader, call, x)
    return found if call.name == "amax" else (found, None)


def _of_rows(reader: Reads, call: Call, x: Any) -> Point:
    """Return a mean, a sum, a largest value or a variance of each row."""
    if not isinstance(x, Point):
        raise call.refuse()
    varies = call.name == "var"
    names = ("dim", "unbiased", "keepdim") if varies else ("dim", "keepdim")
    given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
    dim = given.pop("dim", given.pop("axis", None))
    dim = dim[0] if isinstance(dim, list | tuple) and len(dim) == 1 else dim
    whole = dim in (-1, 1) and not isinstance(dim, bool)
    keeps = given.pop("keepdim", False)
    unbiased = given.pop("unbiased", given.pop("correction", varies))
    if not whole or unbiased or given:
        raise call.refuse(
            "is not that of each row; only what norms and softmax do over the features is known, "
            "with dim=-1, and for a variance unbiased=False"
        )
    row_axis(reader, call, x, dim)
    reader.form = ROWS if keeps else VECTOR
    make = FORMULAS["max" if call.name == "amax" else call.name]
    mix = {"mean": Mix("mean"), "sum": Mix("sum")}.get(call.name) if x.runs else None
    return elementwise([x], make, call.refuse(), lambda: Point(x, mix) if mix else None)


def _addmm(reader: Reads, call: Call, x: Any) -> Point:
    """Return ``beta * x + alpha * (a @ b)``, of which `x` and `b` are constants."""
    a, b = call.value(0, "mat1", None), call.value(1, "mat2", None)
    alpha, beta = (call.kwargs.get(name, 1) for name in ("alpha", "beta"))
    if not isinstance(a, Point) or not hasattr(b, "detach") or b.ndim != 2:
        raise call.refuse("does not multiply an array that comes from its input by a weight")
    weight = layers.array(b, call.place).T
    bias = np.broadcast_to(constant(x, call.place), len(weight)) * beta
    result: Point = reader.then(a, [Dense(weight * weight.dtype.type(alpha), bias)])
    return result


def _same(reader: Reads, call: Call, x: Any) -> Any:
    """Return the number that an array like the input is full of, as a tensor of the network's dtype."""
    value = {"zeros_like": 0.0, "ones_like": 1.0}.get(call.name)
    if value is None:
        value = call.value(0, "fill_value", None)
    dtype = getattr(reader.torch, call.dtype.name)
    return reader.torch.tensor(float(constant(value, call.place)), dtype=dtype)


SELECTIONS: dict[str, Branch] = {
    **dict.fromkeys(_COMPARISONS, _compare),
    **dict.fromkeys(_LOGIC, _combine),
    **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), _clamp),
    **dict.fromkeys((*_LARGER, "minimum", "min", "fmin", "logaddexp"), _pair),
    **dict.fromkeys(("logsumexp", "mean", "sum", "var"), _of_rows),
    **dict.fromkeys(("full_like", "ones_like", "zeros_like"), _same),
    "addmm": _addmm,
    "amax": _largest,
    "masked_fill": _masked_fill,
    "where": _where,
}
