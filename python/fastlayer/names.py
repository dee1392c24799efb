"""The names that arguments take, as types: a misspelt one is found before anything runs.

Where names are kept or handed on, they need the type too: ``hidden: ActivationName = "relu"``.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = [
    "ActivationName",
    "InitializerName",
    "Layout",
    "LossName",
    "OptimizerName",
    "ScheduleName",
]

# Without prelu, which needs its slopes and so an `Activation`.
ActivationName: TypeAlias = Literal[
    "identity",
    "linear",
    "relu",
    "leaky_relu",
    "relu6",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "elu",
    "celu",
    "selu",
    "gelu",
    "silu",
    "swish",
    "mish",
    "softplus",
    "sigmoid",
    "logistic",
    "log_sigmoid",
    "tanh",
    "softsign",
    "exp",
    "sin",
    "cos",
    "sqrt",
    "threshold",
    "hardshrink",
    "softshrink",
    "softmax",
    "log_softmax",
]
InitializerName: TypeAlias = Literal[
    "he_normal", "xavier_uniform", "lecun_normal", "normal", "zeros"
]
Layout: TypeAlias = Literal["out_in", "in_out"]
LossName: TypeAlias = Literal[
    "mse", "mae", "huber", "cross_entropy", "binary_cross_entropy", "poisson"
]
OptimizerName: TypeAlias = Literal["adam", "adamw"]
ScheduleName: TypeAlias = Literal["constant", "step", "cosine", "one_cycle"]
