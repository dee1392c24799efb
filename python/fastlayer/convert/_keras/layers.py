"""The layers of Keras, given as their configurations, as steps of a network: one table."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._activations import KERAS, KERAS_2_PARAMETERS
from fastlayer.convert._advice import advice
from fastlayer.convert._affine import CANCELS, Affine
from fastlayer.convert._graph import Dense, Flat, Join
from fastlayer.convert._keras.given import is_custom, snake_case, unwrapped
from fastlayer.convert._recognise import clip
from fastlayer.errors import Damaged
from fastlayer.functions.activation import Activation
from fastlayer.network.norms import BatchNorm, LayerNorm, RMSNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.convert._keras.given import Given

EPSILON = 1e-7  # keras.config.epsilon(), what Normalization divides by at least
# Nothing of them is left in inference.
_NOTHING = {
    *("InputLayer", "Identity", "Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
    *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ActivityRegularization"),
}
# Options that make something else of a layer.
_ELSE = {
    "renorm": "uses batch renormalisation, which fastlayer lacks",
    "rms_scaling": "has rms_scaling=True, which divides by the standard deviation without "
    "centring; fastlayer has RMSNormalization",
}


def steps(given: Given) -> list[Any]:
    """Return the steps of one layer.

    Raises
    ------
    ConversionError
        A layer that has no exact counterpart.
    Damaged
        A configuration that makes no sense.
    """
    kind = given.kind
    if kind in _NOTHING:
        return []
    for option, why in _ELSE.items():
        if given.config.get(option):
            raise given.refusal(why)
    if kind in _LAYERS:
        return _LAYERS[kind](given)
    # A function of keras.ops, called between layers; what has this is a layer of the user's.
    name = kind if kind in KERAS or "trainable" in given.config else snake_case(kind)
    if name in KERAS or name in _COMPOSED:
        return _activation(name, given)
    raise given.refusal(advice(kind))


def _activation(name: str, given: Given) -> list[Any]:
    """Return the steps of an activation in the table, as a layer of its own."""
    if name == "linear":
        return []
    if name == "hard_sigmoid" and given.source.version < 3:
        return [Affine.of(0.2, 0.5), Activation("hardtanh", min_val=0.0, max_val=1.0)]
    if name in _COMPOSED:
        return _COMPOSED[name](given)
    before: list[Any] = []

    def read(theirs: str, default: Any) -> Any:
        if theirs == "axis":
            before.extend(given.last_axis(default))
            return -1
        if theirs == "approximate":
            return "tanh" if given.get(theirs, default, bool) else "none"
        if theirs == "threshold" and name == "softplus":
            return given.source.threshold
        old = KERAS_2_PARAMETERS.get(theirs, theirs)
        return given.get(theirs, given.get(old, default, float), float)

    made = KERAS[name].make(read)
    return [*before, made]


def _tanh_shrink(given: Given) -> list[Any]:
    return [Join.of("add", [[Activation("tanh"), Affine.of(-1.0)], []])]


def _squareplus(given: Given) -> list[Any]:
    b = given.get("b", 4.0, float)
    root = [Join.of("multiply", [[], []]), Affine.of(1.0, b), Activation("sqrt")]
    return [Join.of("add", [root, []]), Affine.of(0.5)]


def _of_layer(given: Given) -> list[Any]:
    """Return the steps of a layer's ``activation``: a name, or the configuration of a layer."""
    spec = given.config.get("activation")
    if spec is None:
        return []
    if isinstance(spec, str):
        if spec not in (*KERAS, *_COMPOSED) or spec != spec.lower():
            raise given.refusal(f"has the activation {spec!r:.60}, which fastlayer does not have")
        return _activation(spec, given._replace(config={}))
    if not isinstance(spec, dict) or not isinstance(spec.get("class_name"), str):
        raise Damaged(given.place, f"activation is {spec!r:.40}")
    kind, config = spec["class_name"], spec.get("config")
    if kind == "function" or is_custom(spec):
        raise given.refusal(
            f"has an activation of its own, {config if kind == 'function' else kind!r:.60}; code in "
            "a model is never run: convert the layers up to it, and call it between them"
        )
    if not isinstance(config, dict) or (kind not in KERAS and kind != "ReLU"):
        raise given.refusal(f"has the activation {kind!r:.60}; {advice(kind)}")
    return steps(given._replace(kind=kind, config=config))


def _dense(given: Given, turned: bool = False, biased: bool | None = None) -> list[Any]:
    """Return a dense layer; `turned` says that its kernel is (n, k)."""
    if given.config.get("lora_rank") is not None and not given.source.merged:
        raise given.refusal("has LoRA weights beside its kernel; save the model as .keras")
    units = given.get("units", None, int)
    if biased is None:
        biased = given.get("use_bias", True, bool)
    kernel, *rest = given.arrays(("kernel", "bias") if biased else ("kernel",))
    fits = kernel.ndim == 2 and 0 not in kernel.shape and units in (None, kernel.shape[1])
    given.require(fits, f"kernel has shape {kernel.shape}, for {units} units")
    weight = kernel if turned else kernel.T
    for bias in rest:
        fits = bias.shape == weight.shape[:1]
        given.require(fits, f"bias has shape {bias.shape}, kernel {kernel.shape}")
    return [Dense(weight, *rest), *_of_layer(given)]


def contraction(given: Given, equation: Any) -> tuple[bool, str]:
    """Read the equation of a product with a matrix over the last axis.

    Returns
    -------
    tuple
        Whether the matrix is (n, k), as ours, and the letter of the features that come out.

    Raises
    ------
    ConversionError
        It is something else.
    """
    text = equation.replace(" ", "") if isinstance(equation, str) else ""
    known = re.fullmatch(r"(\.{3}\w*|\w+)(\w),(\w)(\w)->\1(\w)", text, re.ASCII)
    if known is not None and {known[3], known[4]} == {known[2], known[5]}:
        letters = known[1].replace("...", "") + known[2] + known[5]
        if len(set(letters)) == len(letters):
            return known[3] == known[5], known[5]
    raise given.refusal(
        f"has the equation {equation!r:.60}; fastlayer takes products with a matrix over the last "
        "axis, such as '...x,xy->...y'"
    )


def _einsum_dense(given: Given) -> list[Any]:
    turned, features = contraction(given, given.config.get("equation"))
    axes = given.get("bias_axes", None, str, type(None))
    if axes not in (None, "", features):
        raise given.refusal(
            f"has a bias along the axes {axes!r:.40}; fastlayer takes the last axis"
        )
    return _dense(given, turned, bool(axes))


def _norm(part: Any, eps: float, weights: dict[str, tuple[str, str]], given: Given) -> list[Any]:
    """Return a norm that is a part of ours; `weights` as in `_SCALED`."""
    before = given.last_axis()
    names = {
        ours: theirs
        for ours, (theirs, option) in weights.items()
        if not option or given.get(option, True, bool)
    }
    arrays = given.arrays(list(names.values()))
    shapes = {a.shape for a in arrays}
    vectors = len(shapes) <= 1 and all(len(s) == 1 and s[0] for s in shapes)
    given.require(vectors, f"has weights of shapes {sorted(shapes)}")
    n = arrays[0].size if arrays else given.shape[-1] if given.shape else None
    if n is None:
        raise given.refusal("does not tell how many features it normalises")
    eps = given.get("epsilon", eps, float)
    dtype = None if arrays else given.dtype()
    return [*before, part(n, eps=eps, dtype=dtype, **dict(zip(names, arrays, strict=True)))]


def _normalization(given: Given) -> list[Any]:
    mean, variance = given.config.get("mean"), given.config.get("variance")
    before = [] if given.config.get("axis", -1) in (None, [], ()) else given.last_axis()
    if mean is None or variance is None:
        mean, variance = given.arrays(("mean", "variance"))
    dtype = given.dtype() or "float32"
    m, v = _numbers(given, "mean", mean, dtype), _numbers(given, "variance", variance, dtype)
    given.require(m.size == v.size, f"mean has shape {m.shape}, variance {v.shape}")
    with np.errstate(all="ignore"):
        deviation = np.maximum(np.sqrt(v), EPSILON)
        if given.get("invert", False, bool):
            return [*before, Affine.of(deviation, m)]
        scale, shift = 1 / deviation, -m / deviation
    rows = m.size > 1 or (given.shape is not None and len(given.shape) == 2)
    if rows and (np.abs(shift) > CANCELS).any() and np.isfinite(shift).all():
        # The activation keeps the difference apart: of features far from zero nothing else is left.
        return [*before, Affine.of(1.0, -m), Activation("identity"), Affine.of(scale)]
    return [*before, Affine.of(scale, shift)]


def _rescaling(given: Given) -> list[Any]:
    scale = _numbers(given, "scale", given.config.get("scale", 1.0))
    return [Affine.of(scale, _numbers(given, "offset", given.config.get("offset", 0.0)))]


def _numbers(given: Given, name: str, value: Any, dtype: str = "float64") -> Array:
    """Return a number, or one for each feature, rounded to `dtype`, as float64."""
    value = unwrapped(value, "value")  # an array in a .keras file
    try:
        a = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        a = np.array(math.nan)
    if np.isnan(a).any():
        raise Damaged(given.place, f"{name} is {value!r:.40}")
    if a.size == 0 or (a.size > 1 and a.shape[-1] != a.size):
        raise given.refusal(
            f"has a {name} of shape {a.shape}; fastlayer takes one for each feature"
        )
    return a.reshape(-1 if a.size > 1 else ()).astype(dtype).astype(np.float64)


def _relu(given: Given) -> list[Any]:
    old = given.get("alpha", 0.0, float)
    slope = given.get("negative_slope", old, float) or 0.0
    top = given.get("max_value", None, float, type(None))
    at = given.get("threshold", 0.0, float) or 0.0
    if at != 0 or slope < 0 or (top is not None and top < 0):
        raise given.refusal(
            f"has threshold {at}, negative_slope {slope} and max_value {top}; fastlayer has "
            "threshold 0"
        )
    made = [Activation("leaky_relu", negative_slope=slope)] if slope else []
    if top is not None:
        made.append(Activation("hardtanh", min_val=-math.inf if slope else 0.0, max_val=top))
    return made or [Activation("relu")]


def _prelu(given: Given) -> list[Any]:
    (alpha,) = given.arrays(("alpha",))
    given.require(alpha.size > 0, "has no slopes")
    if alpha.size != 1 and alpha.size != alpha.shape[-1]:  # others are the same for all tokens
        raise given.refusal(f"has slopes of shape {alpha.shape}; flatten first")
    return [Activation("prelu", weight=alpha.reshape(-1))]


def _flatten(given: Given) -> list[Any]:
    moves = given.config.get("data_format") == "channels_first"
    if moves and (given.shape is None or len(given.shape) > 2):
        raise given.refusal("has data_format='channels_first', which moves axes; use channels_last")
    return [Flat(given.place)]


def _reshape(given: Given) -> list[Any]:
    target = given.get("target_shape", None, list, tuple)
    if target is None or len(target) != 1 or type(target[0]) is not int or target[0] < -1:
        raise given.refusal(f"reshapes samples to {target!r:.40}; in a network they are rows")
    return [Flat(given.place, target[0] if target[0] > 0 else None)]


def _clip(given: Given) -> list[Any]:
    bounds = []
    for name, default in (("x_min", -math.inf), ("x_max", math.inf)):
        value = given.config.get(name)
        bounds.append(np.asarray(default) if value is None else _numbers(given, name, value))
    low, high = bounds
    if low.ndim or high.ndim or not low <= high:
        raise given.refusal(f"clips to the range from {low} to {high}; fastlayer takes two numbers")
    return [clip(float(low), float(high))]


def _masking(given: Given) -> list[Any]:
    # Rows of zeros become zeros, and the layers here do nothing else with masks.
    value = given.config.get("mask_value", 0.0)
    if value != 0:
        raise given.refusal(f"makes zeros of rows of {value!r:.40}; do so before the call")
    return []


# Activations of which there is no single part.
_COMPOSED = {"squareplus": _squareplus, "tanh_shrink": _tanh_shrink}
# Our names of a norm's weights: Keras' name, and the option of the layer that takes it away.
_SCALED = {"weight": ("gamma", "scale"), "bias": ("beta", "center")}
_MOVING = {"running_mean": ("moving_mean", ""), "running_var": ("moving_variance", "")}
_LAYERS: dict[str, Callable[[Given], list[Any]]] = {
    "Activation": _of_layer,
    "BatchNormalization": partial(_norm, BatchNorm, 1e-3, _SCALED | _MOVING),
    "Clip": _clip,
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "Flatten": _flatten,
    "LayerNormalization": partial(_norm, LayerNorm, 1e-3, _SCALED),
    "Masking": _masking,
    "Normalization": _normalization,
    "PReLU": _prelu,
    "RMSNormalization": partial(_norm, RMSNorm, 1e-6, {"weight": ("scale", "")}),
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
}
