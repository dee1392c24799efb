"""The functions and methods of PyTorch that a forward may call, as steps of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert import _graph
from fastlayer.convert._activations import TORCH
from fastlayer.convert._advice import advice
from fastlayer.convert._graph import Dense, Flat, Point, elementwise
from fastlayer.convert._recognise import FORMULAS, clip
from fastlayer.convert._torch import layers
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType

ROWS = object()  # the number of samples, where a forward asks for it
# Operations on two arrays, of which one may be a constant.
_SHORT = {
    **{name: name for name in ("add", "sub", "rsub", "mul", "div", "pow", "maximum", "minimum")},
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "truediv": "div",
}
_DROPOUTS = ("dropout", "alpha_dropout", "feature_alpha_dropout")


def is_activation(name: str) -> bool:
    """Whether the table has a function or method of this name."""
    return layers.key(name) in TORCH


def is_arithmetic(name: str) -> bool:
    """Whether this is an operation on two operands."""
    return name in _SHORT


def apply(call: Call, x: Point) -> Point:
    """Return the point that a call leads to from `x`.

    Raises
    ------
    ConversionError
        A function that has no exact counterpart.
    """
    if call.name in _FUNCTIONS:
        return x.then(_FUNCTIONS[call.name](call))
    names = layers.parameters(call.name)
    if names is not None:
        return x.then(layers.called(call.name, call.getter(names), call.place, call.dtype))
    if call.name not in FORMULAS:
        raise call.refusal()
    if call.name in ("mean", "var"):
        _check_rows(call)
    elif call.args or call.kwargs:
        raise ConversionError(call.place, "has arguments beside its input")
    return elementwise([x], FORMULAS[call.name], call.refusal())


class Call:
    """One call of a function or method; `args` come after the input."""

    def __init__(
        self, place: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: DType
    ) -> None:
        self.place, self.name, self.args, self.kwargs, self.dtype = place, name, args, kwargs, dtype

    def value(self, at: int, name: str, default: Any) -> Any:
        """Return an argument by place or name."""
        return self.args[at] if at < len(self.args) else self.kwargs.get(name, default)

    def refusal(self) -> ConversionError:
        """Return the error for a call that has no counterpart."""
        return ConversionError(self.place, advice(self.name))

    def getter(self, names: list[str]) -> Callable[[str, Any], Any]:
        """Return what looks up arguments that have these names, where there are no others."""
        extra = [v for v in self.args[len(names) :] if not isinstance(v, int | type(None))]
        unknown = [
            name
            for name, v in self.kwargs.items()
            if name not in (*names, "inplace", "_stacklevel") and v is not None
        ]
        if extra or unknown:
            raise ConversionError(self.place, f"has arguments that change it: {extra or unknown}")
        return lambda name, default: self.value(names.index(name), name, default)


def _constant(value: Any, place: str) -> Array:
    """Return a constant beside a row: a number, or one for each feature."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return np.asarray(value, np.float64)
    if not hasattr(value, "detach"):
        raise ConversionError(place, f"combines its input with {value!r:.60}")
    layers.check_dtype(value, place)
    a: Array = value.detach().cpu().numpy().astype(np.float64)
    if a.size != 1 and a.shape[-1] != a.size:
        raise ConversionError(
            place, f"has a constant of shape {a.shape}; fastlayer takes one number for each feature"
        )
    return a


def arithmetic(call: Call, x: Any) -> Point:
    """Return the point of an operation on two operands; see `_graph.arithmetic`."""
    name = _SHORT[call.name]
    y = call.value(0, "other", None)
    if set(call.kwargs) - {"other"} or len(call.args) > 1:
        raise ConversionError(call.place, "has arguments beside the two operands")
    if name == "rsub":
        x, y, name = y, x, "sub"
    error = call.refusal()
    if isinstance(x, Point) and isinstance(y, Point):
        error = ConversionError(
            call.place,
            "combines two arrays that both come from the input; fastlayer adds them, as Residual, "
            "and nothing else",
        )
    elif isinstance(x, Point):
        y = _constant(y, call.place)
    elif isinstance(y, Point):
        x = _constant(x, call.place)
        if name == "div":
            error = ConversionError(call.place, "divides a constant by its input")
    else:
        raise error
    return _graph.arithmetic(name, x, y, call.place, error)


def _check_rows(call: Call) -> None:
    """Refuse a mean or a variance of anything but each row."""
    names = ("dim", "keepdim") if call.name == "mean" else ("dim", "unbiased", "keepdim")
    given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
    whole = given.pop("dim", None) in (-1, [-1], (-1,)) and given.pop("keepdim", False)
    unbiased = given.pop("unbiased", given.pop("correction", call.name != "mean"))
    if not whole or unbiased or given:
        raise ConversionError(
            call.place,
            "is not that of each row; only a norm over the features is known, with dim=-1, "
            "keepdim=True, and for a variance unbiased=False",
        )


def _reshape(call: Call) -> list[Any]:
    shape = call.value(0, "shape", None)
    shape = tuple(shape) if isinstance(shape, tuple | list) else call.args
    if len(shape) == 2 and (shape[0] is ROWS or shape[0] == -1):
        n = shape[1]
        if isinstance(n, int) and (n > 0 or (n == -1 and shape[0] is ROWS)):
            return [Flat(call.place, n if n > 0 else None)]
    raise ConversionError(
        call.place,
        f"reshapes to {tuple('rows' if d is ROWS else d for d in shape)!r}; a network keeps one row "
        "a sample: x.flatten(1), or x.view(x.size(0), -1)",
    )


def _dropout(call: Call) -> list[Any]:
    # The functions default to training, unlike the modules.
    if call.value(1, "training", call.name == "dropout"):
        raise ConversionError(
            call.place,
            "drops at random in eval mode too; write F.dropout(x, p, self.training), or nn.Dropout",
        )
    return []


def _clamp(call: Call) -> list[Any]:
    low, high = {
        "clamp_min": (call.value(0, "min", None), None),
        "clamp_max": (None, call.value(0, "max", None)),
    }.get(call.name, (call.value(0, "min", None), call.value(1, "max", None)))
    bounds = [-np.inf if low is None else low, np.inf if high is None else high]
    if not all(isinstance(v, int | float) for v in bounds):
        raise ConversionError(
            call.place, "clamps to arrays; fastlayer's hardtanh takes two numbers"
        )
    return [clip(*bounds)]


def _product(call: Call) -> list[Any]:
    weight = call.value(0, "other", call.kwargs.get("mat2"))
    if not hasattr(weight, "detach") or weight.ndim != 2:
        raise call.refusal()
    return [Dense(layers.array(weight, call.place).T)]


def _to(call: Call) -> list[Any]:
    wanted = {"float": "float32", "double": "float64"}.get(call.name)
    given = [wanted] if wanted else [*call.args, *call.kwargs.values()]
    if any(str(v).removeprefix("torch.") != call.dtype.name for v in given):
        raise ConversionError(call.place, f"changes the dtype; a network computes in {call.dtype}")
    return []


_FUNCTIONS: dict[str, Callable[[Call], list[Any]]] = {
    **dict.fromkeys(("contiguous", "clone", "detach"), lambda call: []),
    **dict.fromkeys(_DROPOUTS, _dropout),
    **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), _clamp),
    **dict.fromkeys(("view", "reshape"), _reshape),
    **dict.fromkeys(("float", "double", "to"), _to),
    **dict.fromkeys(("matmul", "mm"), _product),
}
