"""A network in the usual lines of NumPy, as something to race against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.functions.activation import Activation
from fastlayer.network.chain import Chain, Residual
from fastlayer.network.layer import Layer
from fastlayer.network.norms import BatchNorm, LayerNorm, RMSNorm
from fastlayer.network.part import Flatten
from fastlayer.run.steps import flatten

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.network.part import Part

    Module = Callable[[Array], Array]


class NotPlain(ValueError):
    """A part for which NumPy has no usual line."""


def numpy_forward(part: Part) -> Module:
    """Return a function of rows that computes what `part` does, with its weights, in NumPy.

    Raises
    ------
    NotPlain
        The message names what NumPy lacks.
    """
    if isinstance(part, Chain):
        steps = [numpy_forward(p) for p in part.layers]
        return _residual(steps) if isinstance(part, Residual) else _chain(steps)
    if isinstance(part, Layer):
        return _dense(part.weight, part.bias, numpy_forward(part.activation))
    if isinstance(part, BatchNorm | LayerNorm | RMSNorm):
        return _norm(part)
    if isinstance(part, Flatten):
        return flatten
    return _activation(part) if isinstance(part, Activation) else part


def _chain(steps: list[Module]) -> Module:
    def forward(x: Array) -> Array:
        for step in steps:
            x = step(x)
        return x

    return forward


def _residual(steps: list[Module]) -> Module:
    inner = _chain(steps)
    return lambda x: inner(x) + x


def _dense(weight: Array, bias: Array | None, activation: Module) -> Module:
    if bias is None:
        return lambda x: activation(x @ weight.T)
    return lambda x: activation(x @ weight.T + bias)


def _norm(part: BatchNorm | LayerNorm | RMSNorm) -> Module:
    n, dtype, eps = part.in_features, part.dtype, part.dtype.type(part.eps)

    def given(name: str, default: int) -> Array:
        a: Array | None = getattr(part, name, None)
        return np.full(n, default, dtype) if a is None else a

    weight, bias = given("weight", 1), given("bias", 0)
    if isinstance(part, BatchNorm):
        mean, root = given("running_mean", 0), np.sqrt(given("running_var", 1) + eps)
        return lambda x: (x - mean) / root * weight + bias
    if isinstance(part, RMSNorm):
        return lambda x: x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight

    def layer_norm(x: Array) -> Array:
        d = x - x.mean(axis=-1, keepdims=True)
        y: Array = d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + eps) * weight + bias
        return y

    return layer_norm


def _softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    y: Array = e / e.sum(axis=axis, keepdims=True)
    return y


def _log_softmax(x: Array, axis: int) -> Array:
    d = x - x.max(axis=axis, keepdims=True)
    y: Array = d - np.log(np.exp(d).sum(axis=axis, keepdims=True))
    return y


def _gelu(x: Array, approximate: str) -> Array:
    y: Array = 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))  # sqrt(2/pi)
    return y


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _celu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def _softplus(x: Array, beta: float, threshold: float) -> Array:
    y: Array = np.logaddexp(0, x * beta) / beta
    return np.where(x * beta > threshold, x, y)


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
    "celu": _celu,
    "selu": lambda x: 1.0507009873554805 * _elu(x, 1.6732632423543772),
    "gelu": _gelu,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "softplus": _softplus,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "tanh": np.tanh,
    "softsign": lambda x: x / (1 + abs(x)),
    "exp": np.exp,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}


def _activation(activation: Activation) -> Module:
    parameters = activation.parameters
    if activation.name == "gelu" and parameters["approximate"] == "none":
        raise NotPlain(f"NumPy has no erf, which {activation._title()} needs")
    line = _LINES[activation.name]
    return lambda x: line(x, **parameters)
