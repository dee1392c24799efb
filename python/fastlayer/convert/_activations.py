"""What each framework calls an activation, and the defaults that it fills in.

One table a framework, from its name to ours. A parameter is given as the framework's name, the
framework's default, and our name where it is another; a converter reads the value from the model
and falls back to that default, never to ours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.functions.activation import named

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.functions.activation import Activation


class Parameter(NamedTuple):
    """`theirs` in the framework is `ours` here, by default of the same name."""

    theirs: str
    default: Any
    ours: str = ""


class Entry(NamedTuple):
    """One activation of a framework."""

    name: str
    parameters: tuple[Parameter, ...] = ()

    def make(self, get: Callable[[str, Any], Any]) -> Activation:
        """Make ours; `get(name, default)` looks a parameter up in the framework's object."""
        given = {p.ours or p.theirs: get(p.theirs, p.default) for p in self.parameters}
        return named(self.name, **given)


def _same(names: str) -> dict[str, Entry]:
    """Return the entries of activations that are called alike but for capitals, without parameters."""
    return {name: Entry(name.lower()) for name in names.split()}


_ALPHA = Parameter("alpha", 1.0)
_APPROXIMATE = Parameter("approximate", "none")
_DIM = Parameter("dim", None, "axis")

# One name for a module of torch.nn, its function and its method: in lower case, without
# underscores. The order of the parameters is that of the function's arguments.
TORCH: dict[str, Entry] = {
    **_same("relu relu6 selu silu mish sigmoid hardsigmoid hardswish tanh softsign exp sin cos"),
    "leakyrelu": Entry("leaky_relu", (Parameter("negative_slope", 0.01),)),
    "hardtanh": Entry("hardtanh", (Parameter("min_val", -1.0), Parameter("max_val", 1.0))),
    "elu": Entry("elu", (_ALPHA,)),
    "celu": Entry("celu", (_ALPHA,)),
    "gelu": Entry("gelu", (_APPROXIMATE,)),
    "hardshrink": Entry("hardshrink", (Parameter("lambd", 0.5),)),
    "logsigmoid": Entry("log_sigmoid"),
    "softplus": Entry("softplus", (Parameter("beta", 1.0), Parameter("threshold", 20.0))),
    "softshrink": Entry("softshrink", (Parameter("lambd", 0.5),)),
    "threshold": Entry("threshold", (Parameter("threshold", None), Parameter("value", None))),
    "softmax": Entry("softmax", (_DIM,)),
    "logsoftmax": Entry("log_softmax", (_DIM,)),
}


_AXIS = Parameter("axis", -1)

# Functions have the names that a Dense layer gives them, layers those of their classes.
KERAS: dict[str, Entry] = {
    **_same("relu relu6 selu silu mish sigmoid log_sigmoid tanh softsign exp sin cos sqrt"),
    "linear": Entry("identity"),
    "leaky_relu": Entry("leaky_relu", (Parameter("negative_slope", 0.2),)),
    "elu": Entry("elu", (_ALPHA,)),
    "celu": Entry("celu", (_ALPHA,)),
    "gelu": Entry("gelu", (Parameter("approximate", False),)),
    "swish": Entry("silu"),
    "hard_sigmoid": Entry("hardsigmoid"),
    "hard_shrink": Entry("hardshrink", (Parameter("threshold", 0.5, "lambd"),)),
    "hard_silu": Entry("hardswish"),
    "hard_swish": Entry("hardswish"),
    "hard_tanh": Entry("hardtanh"),
    # log(1 + exp(x)), which beyond 40 is x to the last bit of a float64.
    "softplus": Entry("softplus", (Parameter("threshold", 40.0),)),
    "soft_shrink": Entry("softshrink", (Parameter("threshold", 0.5, "lambd"),)),
    # Without defaults, so never by its name alone.
    "threshold": Entry(
        "threshold", (Parameter("threshold", None), Parameter("default_value", None, "value"))
    ),
    "exponential": Entry("exp"),
    "softmax": Entry("softmax", (_AXIS,)),
    "log_softmax": Entry("log_softmax", (_AXIS,)),
    "LeakyReLU": Entry("leaky_relu", (Parameter("negative_slope", 0.3),)),
    "ELU": Entry("elu", (_ALPHA,)),
    "Softmax": Entry("softmax", (_AXIS,)),
}
# What Keras 2 called a parameter that has another name in Keras 3.
KERAS_2_PARAMETERS = {"negative_slope": "alpha"}


# scikit-learn's MLPs; "exp" is the output of a regressor with loss="poisson".
SKLEARN: dict[str, Entry] = {
    **_same("identity tanh relu softmax exp"),
    "logistic": Entry("sigmoid"),
}


# Operators of ONNX that stand for an activation whatever their attributes; those that are
# something else by some attributes (HardSigmoid, Selu, Clip, ...) are in `_onnx.elementwise`.
ONNX: dict[str, Entry] = {
    **_same("Cos Exp Mish Relu Sigmoid Sin Softmax Softsign Tanh"),
    "Celu": Entry("celu", (_ALPHA,)),
    "Elu": Entry("elu", (_ALPHA,)),
    "Gelu": Entry("gelu", (_APPROXIMATE,)),
    "HardSwish": Entry("hardswish"),
    "LeakyRelu": Entry("leaky_relu", (Parameter("alpha", 0.01, "negative_slope"),)),
    "LogSoftmax": Entry("log_softmax"),
    "Softplus": Entry("softplus", (Parameter("threshold", math.inf),)),
    "ThresholdedRelu": Entry("threshold", (Parameter("alpha", 1.0, "threshold"),)),
}
