"""What each framework calls an activation, and the defaults that it fills in.

One table a framework, from its name to ours. A parameter is given as the framework's name, our
name and the framework's default; a converter reads the value from the model and falls back to that
default, never to ours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable


class Parameter(NamedTuple):
    """`theirs` in the framework is `ours` here."""

    theirs: str
    ours: str
    default: Any


class Entry(NamedTuple):
    """One activation of a framework."""

    name: str
    parameters: tuple[Parameter, ...] = ()

    def make(self, get: Callable[[str, Any], Any]) -> Activation:
        """Make ours; `get(name, default)` looks a parameter up in the framework's object."""
        return Activation(self.name, **{p.ours: get(p.theirs, p.default) for p in self.parameters})


_SLOPE = Parameter("negative_slope", "negative_slope", 0.01)
_ALPHA = Parameter("alpha", "alpha", 1.0)
_DIM = Parameter("dim", "axis", None)

# One name for a module of torch.nn, its function and its method: in lower case, without
# underscores. The order of the parameters is that of the function's arguments.
TORCH: dict[str, Entry] = {
    "relu": Entry("relu"),
    "leakyrelu": Entry("leaky_relu", (_SLOPE,)),
    "relu6": Entry("relu6"),
    "hardtanh": Entry(
        "hardtanh", (Parameter("min_val", "min_val", -1.0), Parameter("max_val", "max_val", 1.0))
    ),
    "elu": Entry("elu", (_ALPHA,)),
    "celu": Entry("celu", (_ALPHA,)),
    "selu": Entry("selu"),
    "gelu": Entry("gelu", (Parameter("approximate", "approximate", "none"),)),
    "silu": Entry("silu"),
    "mish": Entry("mish"),
    "sigmoid": Entry("sigmoid"),
    "logsigmoid": Entry("log_sigmoid"),
    "hardsigmoid": Entry("hardsigmoid"),
    "hardswish": Entry("hardswish"),
    "tanh": Entry("tanh"),
    "softplus": Entry(
        "softplus", (Parameter("beta", "beta", 1.0), Parameter("threshold", "threshold", 20.0))
    ),
    "softsign": Entry("softsign"),
    "exp": Entry("exp"),
    "softmax": Entry("softmax", (_DIM,)),
    "logsoftmax": Entry("log_softmax", (_DIM,)),
}


_AXIS = Parameter("axis", "axis", -1)
# log(1 + exp(x)), which beyond 40 is x to the last bit of a float64.
_KERAS_SOFTPLUS = Entry("softplus", (Parameter("threshold", "threshold", 40.0),))

# Functions have the names that a Dense layer gives them, layers those of their classes.
KERAS: dict[str, Entry] = {
    "linear": Entry("identity"),
    "relu": Entry("relu"),
    "leaky_relu": Entry("leaky_relu", (Parameter("negative_slope", "negative_slope", 0.2),)),
    "relu6": Entry("relu6"),
    "elu": Entry("elu", (_ALPHA,)),
    "celu": Entry("celu", (_ALPHA,)),
    "selu": Entry("selu"),
    "gelu": Entry("gelu", (Parameter("approximate", "approximate", False),)),
    "silu": Entry("silu"),
    "swish": Entry("silu"),
    "mish": Entry("mish"),
    "sigmoid": Entry("sigmoid"),
    "log_sigmoid": Entry("log_sigmoid"),
    "hard_sigmoid": Entry("hardsigmoid"),
    "hard_silu": Entry("hardswish"),
    "hard_swish": Entry("hardswish"),
    "tanh": Entry("tanh"),
    "hard_tanh": Entry("hardtanh"),
    "softplus": _KERAS_SOFTPLUS,
    "softsign": Entry("softsign"),
    "exponential": Entry("exp"),
    "exp": Entry("exp"),
    "softmax": Entry("softmax", (_AXIS,)),
    "log_softmax": Entry("log_softmax", (_AXIS,)),
    "LeakyReLU": Entry("leaky_relu", (Parameter("negative_slope", "negative_slope", 0.3),)),
    "ELU": Entry("elu", (_ALPHA,)),
    "Softmax": Entry("softmax", (_AXIS,)),
}
# What Keras 2 called a parameter that has another name in Keras 3.
KERAS_2_PARAMETERS = {"negative_slope": "alpha"}


# scikit-learn's MLPs; "exp" is the output of a regressor with loss="poisson".
SKLEARN: dict[str, Entry] = {
    "identity": Entry("identity"),
    "logistic": Entry("sigmoid"),
    "tanh": Entry("tanh"),
    "relu": Entry("relu"),
    "softmax": Entry("softmax"),
    "exp": Entry("exp"),
}


_NO_THRESHOLD = Parameter("threshold", "threshold", math.inf)

# Operators of ONNX that stand for an activation whatever their attributes; those that are
# something else by some attributes (HardSigmoid, Selu, Clip, ...) are in `_onnx.elementwise`.
ONNX: dict[str, Entry] = {
    "Celu": Entry("celu", (_ALPHA,)),
    "Elu": Entry("elu", (_ALPHA,)),
    "Exp": Entry("exp"),
    "Gelu": Entry("gelu", (Parameter("approximate", "approximate", "none"),)),
    "HardSwish": Entry("hardswish"),
    "LeakyRelu": Entry("leaky_relu", (Parameter("alpha", "negative_slope", 0.01),)),
    "LogSoftmax": Entry("log_softmax"),
    "Mish": Entry("mish"),
    "Relu": Entry("relu"),
    "Sigmoid": Entry("sigmoid"),
    "Softmax": Entry("softmax"),
    "Softplus": Entry("softplus", (_NO_THRESHOLD,)),
    "Softsign": Entry("softsign"),
    "Tanh": Entry("tanh"),
}
