"""A network in the usual lines of NumPy, as something to race against."""

from __future__ import annotations

import operator
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array

    Forward = Callable[[Array], Array]


class NotPlain(ValueError):
    """A part for which NumPy has no usual line."""


def numpy_forward(part: Any) -> Forward:
    """Return a function of rows that computes what `part` does, with its weights, in NumPy.

    Raises
    ------
    NotPlain
        The message names what NumPy lacks.
    """
    kinds = (kind.__name__ for kind in type(part).__mro__)
    write = next((_PARTS[kind] for kind in kinds if kind in _PARTS), None)
    return part if write is None else write(part)


def _chain(part: Any) -> Forward:
    return _in_a_row([numpy_forward(p) for p in part.layers])


def _in_a_row(steps: list[Forward]) -> Forward:
    def forward(x: Array) -> Array:
        for step in steps:
            x = step(x)
        return x

    return forward


def _residual(part: Any) -> Forward:
    inner = _chain(part)
    return lambda x: inner(x) + x


def _branches(part: Any) -> list[Forward]:
    return [_in_a_row([numpy_forward(p) for p in branch]) for branch in part.branches]


def _joined(join: Callable[[Any, Any], Any], branches: list[Forward], x: Array) -> Any:
    return reduce(join, [f(x) for f in branches])


def _concat(part: Any) -> Forward:
    branches = _branches(part)
    return lambda x: np.concatenate([f(x) for f in branches], axis=-1)


def _layer(part: Any) -> Forward:
    weight, bias, activation = part.weight, part.bias, numpy_forward(part.activation)
    if bias is None:
        return lambda x: activation(x @ weight.T)
    return lambda x: activation(x @ weight.T + bias)


def _given(part: Any, name: str, default: int) -> Any:
    a = getattr(part, name)
    return part.dtype.type(default) if a is None else a


def _batch_norm(part: Any) -> Forward:
    weight, bias = _given(part, "weight", 1), _given(part, "bias", 0)
    mean = _given(part, "running_mean", 0)
    root = np.sqrt(_given(part, "running_var", 1) + part.dtype.type(part.eps))
    return lambda x: (x - mean) / root * weight + bias


def _layer_norm(part: Any) -> Forward:
    weight, bias = _given(part, "weight", 1), _given(part, "bias", 0)
    eps = part.dtype.type(part.eps)

    def layer_norm(x: Array) -> Any:
        d = x - x.mean(axis=-1, keepdims=True)
        return d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + eps) * weight + bias

    return layer_norm


def _rms_norm(part: Any) -> Forward:
    weight, eps = _given(part, "weight", 1), part.dtype.type(part.eps)
    return lambda x: x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def _activation(part: Any) -> Forward:
    parameters = part.parameters
    if parameters.get("approximate") == "none":
        raise NotPlain(f"NumPy has no erf, which {part.name} needs")
    if part.name not in _LINES:
        raise NotPlain(f"there is no usual line of NumPy for {part.name}")
    return partial(_LINES[part.name], **parameters)


_PARTS: dict[str, Callable[[Any], Forward]] = {
    "Network": _chain,
    "Residual": _residual,
    "Concat": _concat,
    "Add": lambda part: partial(_joined, operator.add, _branches(part)),
    "Multiply": lambda part: partial(_joined, operator.mul, _branches(part)),
    "Slice": lambda part: lambda x: x[..., part.begin : part.end],
    "Layer": _layer,
    "BatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "Flatten": lambda part: lambda x: x.reshape(len(x), -1),
    "Activation": _activation,
}


def _softmax(x: Array, axis: int) -> Any:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _log_softmax(x: Array, axis: int) -> Any:
    d = x - x.max(axis=axis, keepdims=True)
    return d - np.log(np.exp(d).sum(axis=axis, keepdims=True))


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _sqrt(x: Array) -> Array:
    with np.errstate(invalid="ignore"):  # of numbers below zero
        root: Array = np.sqrt(x)
    return root


_LINES: dict[str, Callable[..., Any]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x, negative_slope: np.where(x > 0, x, negative_slope * x),
    "prelu": lambda x, weight: np.where(x > 0, x, weight.astype(x.dtype) * x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hardtanh": lambda x, min_val, max_val: np.clip(x, min_val, max_val),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "elu": _elu,
    "celu": lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    "selu": lambda x: 1.0507009873554805 * _elu(x, 1.6732632423543772),
    # 0.798 is sqrt(2/pi).
    "gelu": lambda x, approximate: (
        0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))
    ),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "softplus": lambda x, beta, threshold: np.where(
        x * beta > threshold, x, np.logaddexp(0, x * beta) / beta
    ),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "tanh": np.tanh,
    "softsign": lambda x: x / (1 + abs(x)),
    "exp": np.exp,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": _sqrt,
    "threshold": lambda x, threshold, value: np.where(x > threshold, x, value),
    "hardshrink": lambda x, lambd: np.where(abs(x) > lambd, x, 0),
    "softshrink": lambda x, lambd: x - np.clip(x, -lambd, lambd),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}
