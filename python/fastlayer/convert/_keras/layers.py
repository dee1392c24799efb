"""The layers of Keras, given as their configurations, as steps of a network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._activations import KERAS, KERAS_2_PARAMETERS
from fastlayer.convert._advice import advice
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Dense, Flat, OneRow
from fastlayer.convert._keras.given import arrays, is_custom, policy, snake_case
from fastlayer.errors import ConversionError, Damaged
from fastlayer.functions.activation import Activation
from fastlayer.network.norms import BatchNorm, LayerNorm, RMSNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.convert._keras.given import Given, Rules

EPSILON = 1e-7  # keras.config.epsilon(), what Normalization divides by at least
# Nothing of them is left in inference.
NOTHING = {
    *("InputLayer", "Identity", "Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
    *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ActivityRegularization"),
}


def steps(given: Given, rules: Rules) -> list[Any]:
    """Return the steps of one layer.

    Raises
    ------
    ConversionError
        A layer that has no exact counterpart.
    Damaged
        A configuration that makes no sense.
    """
    kind = given.kind
    if kind in NOTHING:
        return []
    if kind in _MAKERS:
        return _MAKERS[kind](given, rules)
    if kind in KERAS:
        return _named(kind, given, rules)
    # A function of keras.ops, called between layers; what has this is a layer of the user's.
    operation = snake_case(kind)
    if operation != kind and operation in KERAS and "trainable" not in given.config:
        return _named(operation, given, rules)
    raise ConversionError(given.where.place, advice(kind))


def activation(spec: Any, given: Given, rules: Rules) -> list[Any]:
    """Return the steps of an activation: a name, or the configuration of a layer."""
    place = given.where.place
    if spec is None:
        return []
    if isinstance(spec, str):
        if spec not in KERAS or spec != spec.lower():
            raise ConversionError(
                place, f"has the activation {spec!r:.60}, which fastlayer does not have"
            )
        return _named(spec, given._replace(config={}), rules)
    if not isinstance(spec, dict) or not isinstance(spec.get("class_name"), str):
        raise Damaged(place, f"activation is {spec!r:.40}")
    kind, config = spec["class_name"], spec.get("config")
    if kind == "function" or is_custom(spec):
        raise ConversionError(
            place,
            f"has an activation of its own, {config if kind == 'function' else kind!r:.60}; code in "
            "a model is never run: convert the layers up to it, and call it between them",
        )
    if not isinstance(config, dict) or (kind not in KERAS and kind != "ReLU"):
        raise ConversionError(place, f"has the activation {kind!r:.60}; {advice(kind)}")
    return steps(given._replace(kind=kind, config=config), rules)


def _named(name: str, given: Given, rules: Rules) -> list[Any]:
    if name == "linear":
        return []
    if name == "hard_sigmoid" and rules.version < 3:
        return [Affine.of(0.2, 0.5), Activation("hardtanh", min_val=0.0, max_val=1.0)]
    before: list[Any] = []

    def read(theirs: str, default: Any) -> Any:
        if theirs == "axis":
            before.extend(last_axis(given, default))
            return -1
        if theirs == "approximate":
            return "tanh" if given.get(theirs, default, bool) else "none"
        if theirs == "threshold":
            return rules.threshold
        old = KERAS_2_PARAMETERS.get(theirs, theirs)
        return given.get(theirs, given.get(old, default, float), float)

    made = KERAS[name].make(read)
    return [*before, made]


def last_axis(given: Given, default: int) -> list[Any]:
    """Check that a layer works along the last axis; return what has to hold for that."""
    axis = given.config.get("axis", default)
    if isinstance(axis, list | tuple) and len(axis) == 1:
        axis = axis[0]
    if type(axis) is int:
        if axis == -1 or (given.rank is not None and axis == given.rank - 1):
            return []
        if axis == 1 and given.rank is None:
            return [OneRow(given.where.place)]
    raise ConversionError(
        given.where.place, f"works along axis {axis!r:.40}; in a network that is the last, axis=-1"
    )


def _vectors(given: Given, names: tuple[str, ...], rules: Rules) -> dict[str, Array]:
    found = dict(zip(names, arrays(given, names, rules), strict=True))
    shapes = {a.shape for a in found.values()}
    if len(shapes) > 1 or any(len(s) != 1 or s[0] < 1 for s in shapes):
        raise Damaged(given.where.place, f"has weights of shapes {sorted(shapes)}")
    return found


def _dense(given: Given, rules: Rules) -> list[Any]:
    if given.config.get("lora_rank") is not None and not rules.merged:
        raise ConversionError(
            given.where.place, "has LoRA weights beside its kernel; save the model as .keras"
        )
    units = given.get("units", None, int)
    biased = given.get("use_bias", True, bool)
    kernel, *rest = arrays(given, ("kernel", "bias") if biased else ("kernel",), rules)
    place = given.where.place
    if kernel.ndim != 2 or 0 in kernel.shape or units not in (None, kernel.shape[1]):
        raise Damaged(place, f"kernel has shape {kernel.shape}, for {units} units")
    if rest and rest[0].shape != kernel.shape[1:]:
        raise Damaged(place, f"bias has shape {rest[0].shape}, kernel {kernel.shape}")
    after = activation(given.config.get("activation"), given, rules)
    return [Dense(kernel.T, rest[0] if rest else None), *after]


def _batch_norm(given: Given, rules: Rules) -> list[Any]:
    if given.config.get("renorm"):
        raise ConversionError(
            given.where.place, "uses batch renormalisation, which fastlayer lacks"
        )
    before = last_axis(given, -1)
    named = {"weight": ("scale", "gamma"), "bias": ("center", "beta")}
    ours = {k: theirs for k, (flag, theirs) in named.items() if given.get(flag, True, bool)}
    ours |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
    found = _vectors(given, tuple(ours.values()), rules)
    norm = BatchNorm(
        found["moving_mean"].size,
        eps=given.get("epsilon", 1e-3, float),
        **{k: found[theirs] for k, theirs in ours.items()},
    )
    return [*before, norm]


def _layer_norm(given: Given, rules: Rules) -> list[Any]:
    if given.config.get("rms_scaling"):
        raise ConversionError(
            given.where.place,
            "has rms_scaling=True, which divides by the standard deviation without centring; "
            "fastlayer has RMSNormalization",
        )
    before = last_axis(given, -1)
    named = {"weight": ("scale", "gamma"), "bias": ("center", "beta")}
    ours = {k: theirs for k, (flag, theirs) in named.items() if given.get(flag, True, bool)}
    found = _vectors(given, tuple(ours.values()), rules)
    dtype, n = policy(given) or "float32", given.shape[-1] if given.shape else None
    if found:
        first = next(iter(found.values()))
        dtype, n = first.dtype.name, first.size
    if n is None:
        raise ConversionError(given.where.place, "does not tell how many features it normalises")
    given_arrays = {k: found[theirs] for k, theirs in ours.items()}
    norm = LayerNorm(n, eps=given.get("epsilon", 1e-3, float), dtype=dtype, **given_arrays)
    return [*before, norm]


def _rms_norm(given: Given, rules: Rules) -> list[Any]:
    before = last_axis(given, -1)
    scale = _vectors(given, ("scale",), rules)["scale"]
    return [*before, RMSNorm(scale.size, given.get("epsilon", 1e-6, float), scale)]


def _normalization(given: Given, rules: Rules) -> list[Any]:
    mean, variance = given.config.get("mean"), given.config.get("variance")
    before = [] if given.config.get("axis", -1) in (None, [], ()) else last_axis(given, -1)
    if mean is None or variance is None:
        mean, variance = arrays(given, ("mean", "variance"), rules)
    dtype = policy(given) or "float32"
    m, v = (
        _numbers(a, given, name).astype(dtype)
        for a, name in ((mean, "mean"), (variance, "variance"))
    )
    if m.size != v.size:
        raise Damaged(given.where.place, f"mean has shape {m.shape}, variance {v.shape}")
    m, v = m.astype(np.float64), v.astype(np.float64)
    with np.errstate(all="ignore"):
        deviation = np.maximum(np.sqrt(v), EPSILON)
        if given.get("invert", False, bool):
            return [*before, Affine.of(deviation, m)]
        return [*before, Affine.of(1 / deviation, -m / deviation)]


def _rescaling(given: Given, rules: Rules) -> list[Any]:
    scale = _numbers(given.config.get("scale", 1.0), given, "scale")
    return [Affine.of(scale, _numbers(given.config.get("offset", 0.0), given, "offset"))]


def _numbers(value: Any, given: Given, name: str) -> Array:
    """Return a number, or one for each feature."""
    if isinstance(value, dict):  # an array in a .keras file
        inner = value.get("config")
        value = inner.get("value") if isinstance(inner, dict) else None
    try:
        a = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        a = None
    if a is None or np.isnan(a).any():
        raise Damaged(given.where.place, f"{name} is {value!r:.40}")
    if a.size == 0 or (a.size > 1 and a.shape[-1] != a.size):
        raise ConversionError(
            given.where.place,
            f"has a {name} of shape {a.shape}; fastlayer takes one for each feature",
        )
    return a.reshape(-1) if a.size > 1 else a.reshape(())


def _relu(given: Given, rules: Rules) -> list[Any]:
    old = given.get("alpha", 0.0, float)
    slope = given.get("negative_slope", old, float) or 0.0
    top = given.get("max_value", None, float, type(None))
    at = given.get("threshold", 0.0, float) or 0.0
    if at != 0 or slope < 0 or (top is not None and top < 0):
        raise ConversionError(
            given.where.place,
            f"has threshold {at}, negative_slope {slope} and max_value {top}; fastlayer has "
            "threshold 0",
        )
    if slope:
        cut = [] if top is None else [Activation("hardtanh", min_val=-math.inf, max_val=top)]
        return [Activation("leaky_relu", negative_slope=slope), *cut]
    if top is None:
        return [Activation("relu")]
    return [Activation("hardtanh", min_val=0.0, max_val=top)]


def _prelu(given: Given, rules: Rules) -> list[Any]:
    (alpha,) = arrays(given, ("alpha",), rules)
    if alpha.size != 1 and alpha.ndim != 1:
        raise ConversionError(
            given.where.place, f"has slopes of shape {alpha.shape}; flatten first"
        )
    if alpha.size == 0:
        raise Damaged(given.where.place, "has no slopes")
    return [Activation("prelu", weight=alpha)]


def _flatten(given: Given, rules: Rules) -> list[Any]:
    if given.config.get("data_format") == "channels_first" and (given.rank or 3) > 2:
        raise ConversionError(
            given.where.place,
            "has data_format='channels_first', which moves axes; use channels_last",
        )
    return [Flat(given.where.place)]


def _reshape(given: Given, rules: Rules) -> list[Any]:
    target = given.get("target_shape", None, list, tuple)
    if target is None or len(target) != 1 or type(target[0]) is not int or target[0] < -1:
        raise ConversionError(
            given.where.place, f"reshapes samples to {target!r:.40}; in a network they are rows"
        )
    return [Flat(given.where.place, target[0] if target[0] > 0 else None)]


_MAKERS: dict[str, Callable[[Given, Rules], list[Any]]] = {
    "Dense": _dense,
    "Activation": lambda g, rules: activation(g.config.get("activation"), g, rules),
    "ReLU": _relu,
    "PReLU": _prelu,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "Flatten": _flatten,
    "Reshape": _reshape,
}
