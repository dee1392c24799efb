"""Functions of TensorFlow between layers, which Keras 2 keeps as layers, in the words of Keras 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlayer.convert._advice import advice

if TYPE_CHECKING:
    from fastlayer.convert._keras.calls import Call
    from fastlayer.convert._keras.given import Given

_NAMES = {
    "__operators__.add": "Add",
    "__operators__.getitem": "GetItem",
    "cast": "Cast",
    "clip_by_value": "Clip",
    "compat.v1.squeeze": "Squeeze",
    "concat": "Concatenate",
    "expand_dims": "ExpandDims",
    "identity": "Copy",
    "math.abs": "Absolute",
    "math.divide": "TrueDivide",
    "math.pow": "Power",
    "math.reduce_mean": "Mean",
    "math.reduce_sum": "Sum",
    "math.reduce_variance": "Var",
    "math.truediv": "TrueDivide",
    "nn.swish": "Silu",
    "reshape": "Reshape",
    "squeeze": "Squeeze",
    "stop_gradient": "StopGradient",
}
# Those that are called alike but for capitals.
_ALIKE = {
    "math": (
        "add subtract multiply maximum minimum negative square sqrt rsqrt reciprocal exp log log1p erf "
        "sin cos tanh sigmoid softplus softsign log_sigmoid"
    ),
    "nn": (
        "relu relu6 leaky_relu elu selu gelu silu softmax log_softmax tanh sigmoid softplus softsign"
    ),
}
_FUNCTIONS = _NAMES | {
    f"{module}.{name}": "".join(word.capitalize() for word in name.split("_"))
    for module, names in _ALIKE.items()
    for name in names.split()
}
_OPTIONS = {"clip_value_min": "x_min", "clip_value_max": "x_max", "shape": "newshape"}


def as_operation(given: Given, call: Call) -> tuple[Given, Call]:
    """Return a function of TensorFlow as the operation of Keras 3 that it is.

    Raises
    ------
    ConversionError
        There is none.
    """
    function = given.config.get("function")
    kind = _FUNCTIONS.get(function) if isinstance(function, str) else None
    if kind is None:
        raise given.refusal(f"is {function!r:.60} of TensorFlow; {advice('')}")
    config = {_OPTIONS.get(name, name): value for name, value in call.options.items()}
    spec = {**given.spec, "module": "keras.src.ops"}
    return given._replace(kind=kind, config=config, spec=spec), call._replace(options={})
