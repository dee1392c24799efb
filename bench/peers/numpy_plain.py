"""NumPy as most people write it: one expression a step, each with an array of its own."""

from __future__ import annotations

import numpy as np

try:
    from scipy.special import erf  # NumPy has none; comes with scikit-learn
except ImportError:
    erf = None


def _softmax(x):
    t = np.exp(x - x.max(axis=-1, keepdims=True))
    return t / t.sum(axis=-1, keepdims=True)


def _log_softmax(x):
    d = x - x.max(axis=-1, keepdims=True)
    return d - np.log(np.exp(d).sum(axis=-1, keepdims=True))


FORMULAS = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exp": np.exp,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "celu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "gelu": lambda x: x * 0.5 * (1 + erf(x * 0.7071067811865476)),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}


def available() -> str | None:
    return np.__version__


def prepare(case, dtype: str, threads: int):
    if erf is None and case.hidden == "gelu":
        return None
    inputs = case.inputs(dtype)
    if case.kind == "activation":
        return {"plain": (FORMULAS[case.hidden], inputs)}
    if case.kind == "matmul":
        return {"plain": (np.matmul, inputs)}
    if case.kind == "linear":
        return {"plain": (lambda x, weight, bias: x @ weight.T + bias, inputs)}
    if case.kind == "accelerate":
        from peers._files import Handwritten

        return {"plain": (Handwritten(case, dtype).forward, inputs)}
    if case.kind == "load":
        return _load(case, dtype, inputs) if case.layout == "npz" else None
    layers = [(w, b, FORMULAS[act], act) for w, b, act in case.layers(dtype)]
    if case.kind == "column":
        layers = [(w, b[:, None], f, act) for w, b, f, act in layers]

        def column(a):
            for weight, bias, function, act in layers:
                a = weight @ a + bias
                if act:
                    a = function(a)
            return a

        return {"plain": (column, inputs)}

    def forward(h, *joined):
        for i, (weight, bias, function, act) in enumerate(layers):
            h = h @ weight.T + bias
            if act:
                h = function(h)
            if i == 0 and joined:
                h = np.concatenate([h, *joined], axis=1)
        return h

    return {"plain": (forward, inputs)}


def _load(case, dtype: str, inputs):
    from peers._files import npz_file, read_npz

    path = npz_file(case, dtype)
    return {"np.load": (lambda x: read_npz(path)(x), inputs)}
