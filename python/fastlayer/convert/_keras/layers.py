"""The layers of Keras, given as their configurations, as steps of a network: one table.

A configuration is plain data, and in a file not to be trusted: `Given` checks what is read of it.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert._activations import KERAS, KERAS_2_PARAMETERS
from fastlayer.convert._advice import advice
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Dense, Flat, OneRow
from fastlayer.convert._recognise import clip
from fastlayer.errors import ConversionError, Damaged
from fastlayer.files.reading import require
from fastlayer.functions.activation import Activation
from fastlayer.network.norms import BatchNorm, LayerNorm, RMSNorm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer.arrays import Array

    Path = tuple["Names", ...]
    Shape = tuple[int | None, ...] | None

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


class Names(NamedTuple):
    """What a layer is called in its model, and where .keras files keep its weights."""

    name: str
    slot: str


class Source(NamedTuple):
    """Where the weights of a model are, and what decides for all its layers."""

    weights: Callable[[Given, Sequence[str]], list[Array]]  # those of these names
    version: int  # of Keras, 2 or 3
    threshold: float = 40.0  # above which the backend's softplus is its input
    merged: bool = True  # LoRA weights are part of the kernels


class Given(NamedTuple):
    """A layer: where it is, and objects of JSON, which are not to be trusted."""

    place: str
    path: Path  # from the outermost model inwards
    kind: str  # the name of its class
    config: dict[str, Any]
    spec: dict[str, Any]  # with its class and its calls
    source: Source
    shape: Shape = None  # of its input, the samples included

    def refusal(self, why: str) -> ConversionError:
        """Return the error of a layer without an exact counterpart."""
        return ConversionError(self.place, why)

    def require(self, met: bool, why: str) -> None:
        """Refuse what no Keras writes."""
        require(met, self.place, why)

    def get(self, key: str, default: Any, *kinds: type[Any]) -> Any:
        """Return an entry of the configuration, of one of these types where it is there."""
        value = self.config.get(key, default)
        if value is default:
            return value
        if float in kinds and type(value) is int:
            try:
                value = float(value)
            except OverflowError:
                value = math.inf
        wrong = isinstance(value, bool) and bool not in kinds
        if wrong or not isinstance(value, kinds) or (type(value) is float and math.isnan(value)):
            raise Damaged(self.place, f"{key} is {value!r:.40}")
        return value

    def dtype(self) -> str | None:
        """Return the dtype in which it computes, None where its configuration has none.

        Raises
        ------
        ConversionError
            Neither float32 nor float64.
        """
        value: str | None = unwrapped(self.config.get("dtype"), "name")
        if value in (None, "float32", "float64"):
            return value
        raise self.refusal(
            f"computes in {value!r:.40}; fastlayer in float32 or float64: make the model with one of "
            "these as its dtype policy, and give it the weights"
        )

    def arrays(self, names: Sequence[str]) -> list[Array]:
        """Return its weights of these names; all have the dtype in which it computes."""
        found = self.source.weights(self, names)
        wanted = self.dtype()
        for name, a in zip(names, found, strict=True):
            if a.dtype.name not in ("float32", "float64"):
                raise self.refusal(f"has a {name} of {a.dtype}; fastlayer takes float32 or float64")
            if wanted not in (None, a.dtype.name):
                raise Damaged(self.place, f"{name} is {a.dtype}, its layer {wanted}")
        return found

    def last_axis(self, default: int = -1) -> list[OneRow]:
        """Check that it works along the last axis; return what has to hold for that."""
        axis = self.config.get("axis", default)
        if isinstance(axis, list | tuple) and len(axis) == 1:
            axis = axis[0]
        if type(axis) is int:
            if axis == -1 or (self.shape is not None and axis == len(self.shape) - 1):
                return []
            if axis == 1 and self.shape is None:
                return [OneRow(self.place)]
        raise self.refusal(f"works along axis {axis!r:.40}; in a network that is the last, axis=-1")


def as_dict(value: Any, key: str) -> dict[str, Any]:
    """Return a value that has to be an object of JSON."""
    if not isinstance(value, dict):
        raise Damaged(key, f"expected an object, found {value!r:.40}")
    return value


def unwrapped(value: Any, key: str) -> Any:
    """Return the entry of the configuration where a value is an object of Keras's own."""
    if not isinstance(value, dict):
        return value
    inner = value.get("config")
    return inner.get(key) if isinstance(inner, dict) else None


def snake_case(name: str) -> str:
    """Return the name that Keras derives from that of a class."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def is_custom(spec: dict[str, Any]) -> bool:
    """Whether a class comes from outside Keras."""
    module = spec.get("module")
    outside = isinstance(module, str) and module.split(".")[0] not in ("keras", "keras_core")
    names = (spec.get("registered_name"), spec.get("class_name"))
    return outside or any(isinstance(name, str) and ">" in name for name in names)


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
    if name in KERAS:
        return _activation(name, given)
    raise given.refusal(advice(kind))


def _activation(name: str, given: Given) -> list[Any]:
    """Return the steps of an activation in the table, as a layer of its own."""
    if name == "linear":
        return []
    if name == "hard_sigmoid" and given.source.version < 3:
        return [Affine.of(0.2, 0.5), Activation("hardtanh", min_val=0.0, max_val=1.0)]
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


def _of_layer(given: Given) -> list[Any]:
    """Return the steps of a layer's ``activation``: a name, or the configuration of a layer."""
    spec = given.config.get("activation")
    if spec is None:
        return []
    if isinstance(spec, str):
        if spec not in KERAS or spec != spec.lower():
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


def _dense(given: Given) -> list[Any]:
    if given.config.get("lora_rank") is not None and not given.source.merged:
        raise given.refusal("has LoRA weights beside its kernel; save the model as .keras")
    units = given.get("units", None, int)
    biased = given.get("use_bias", True, bool)
    kernel, *rest = given.arrays(("kernel", "bias") if biased else ("kernel",))
    fits = kernel.ndim == 2 and 0 not in kernel.shape and units in (None, kernel.shape[1])
    given.require(fits, f"kernel has shape {kernel.shape}, for {units} units")
    for bias in rest:
        fits = bias.shape == kernel.shape[1:]
        given.require(fits, f"bias has shape {bias.shape}, kernel {kernel.shape}")
    return [Dense(kernel.T, *rest), *_of_layer(given)]


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
        return [*before, Affine.of(1 / deviation, -m / deviation)]


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
    if alpha.size != 1 and alpha.ndim != 1:
        raise given.refusal(f"has slopes of shape {alpha.shape}; flatten first")
    given.require(alpha.size > 0, "has no slopes")
    return [Activation("prelu", weight=alpha)]


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
    low, high = (given.get(name, None, int, float) for name in ("x_min", "x_max"))
    if low is None or high is None or not low <= high:
        raise given.refusal(f"clips to the range from {low!r:.40} to {high!r:.40}")
    return [clip(float(low), float(high))]


# Our names of a norm's weights: Keras' name, and the option of the layer that takes it away.
_SCALED = {"weight": ("gamma", "scale"), "bias": ("beta", "center")}
_MOVING = {"running_mean": ("moving_mean", ""), "running_var": ("moving_variance", "")}
_LAYERS: dict[str, Callable[[Given], list[Any]]] = {
    "Activation": _of_layer,
    "BatchNormalization": partial(_norm, BatchNorm, 1e-3, _SCALED | _MOVING),
    "Clip": _clip,
    "Dense": _dense,
    "Flatten": _flatten,
    "LayerNormalization": partial(_norm, LayerNorm, 1e-3, _SCALED),
    "Normalization": _normalization,
    "PReLU": _prelu,
    "RMSNormalization": partial(_norm, RMSNorm, 1e-6, {"weight": ("scale", "")}),
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
}
