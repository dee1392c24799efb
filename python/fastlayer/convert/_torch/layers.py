"""The modules of ``torch.nn`` as steps of a network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.convert._activations import TORCH
from fastlayer.convert._advice import advice
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Dense, Flat, Join, OneRow
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation
from fastlayer.network.norms import BatchNorm, LayerNorm, RMSNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._activations import Entry

# Nothing of them is left in inference.
NOTHING = {
    "Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout",
    "FeatureAlphaDropout",
}  # fmt: skip


def key(name: str) -> str:
    """Return the name under which the table has a module, a function or a method."""
    return name.replace("_", "").lower()


def array(tensor: Any, place: str) -> Array:
    """Return the values of a tensor, of float32 or float64.

    Raises
    ------
    ConversionError
        Another dtype, or a tensor without values.
    """
    if tensor.is_meta or str(tensor.layout) != "torch.strided":
        raise ConversionError(place, "its weights have no values, or are sparse; load them first")
    check_dtype(tensor, place)
    values: Array = tensor.detach().cpu().numpy()
    return values


def optional(tensor: Any, place: str) -> Array | None:
    """Return the values of a tensor where there is one."""
    return None if tensor is None else array(tensor, place)


def check_dtype(tensor: Any, place: str) -> None:
    """Refuse what is neither float32 nor float64."""
    dtype = str(tensor.dtype)
    if dtype not in ("torch.float32", "torch.float64"):
        raise ConversionError(
            place, f"holds {dtype}; fastlayer computes in float32 or float64: call .float() first"
        )


def known_class(module: Any) -> str | None:
    """Return the class of ``torch.nn`` whose forward this module runs, None if it is its own."""
    if "forward" in vars(module):
        return None
    classes: tuple[Any, ...] = type(module).__mro__
    forward = classes[0].forward
    for cls in classes:
        if cls.__module__.startswith("torch.nn.modules") and cls.forward is forward:
            name: str = cls.__name__
            return name if name in NOTHING or parameters(name) is not None else None
    return None


def steps(module: Any, place: str, dtype: DType) -> list[Any]:
    """Return the steps of one module in a network of this dtype.

    Raises
    ------
    ConversionError
        A module that has no exact counterpart.
    """
    name = known_class(module)
    if name is None:
        quantised = ".quantized" in type(module).__module__
        raise ConversionError(place, advice("Quantized" if quantised else type(module).__name__))
    if name in NOTHING:
        return []
    return called(name, lambda theirs, default: getattr(module, theirs, default), place, dtype)


def parameters(name: str) -> list[str] | None:
    """Return what a module or function of this name takes beside its input, None for unknown ones.

    They are the module's attributes, and the function's arguments in their order.
    """
    return list(_LAYERS[key(name)].parameters) if key(name) in _LAYERS else None


def called(name: str, get: Callable[[str, Any], Any], place: str, dtype: DType) -> list[Any]:
    """Return the steps of a module or function, whose parameters `get` looks up."""
    layer = _LAYERS[key(name)]
    given = {theirs: get(theirs, default) for theirs, default in layer.parameters.items()}
    return layer.make(place, dtype, **given)


def _activation(entry: Entry, place: str, dtype: DType, **given: Any) -> list[Any]:
    dim = given.get("dim", -1)
    if dim not in (None, 1, -1):
        raise ConversionError(
            place, f"works along dim={dim}; in a network that is the features', dim=-1"
        )
    try:
        made = entry.make(lambda theirs, _: -1 if theirs == "dim" else given[theirs])
    except (TypeError, ValueError) as error:
        raise ConversionError(place, str(error)) from error
    return [made] if dim == -1 else [OneRow(place), made]


def _flatten(place: str, dtype: DType, start_dim: object, end_dim: object) -> list[Any]:
    if start_dim != 1 or end_dim != -1:
        raise ConversionError(
            place,
            f"flattens axes {start_dim} to {end_dim}; a network keeps the samples apart: "
            "start_dim=1, end_dim=-1",
        )
    return [Flat(place)]


def _layer_norm(place: str, dtype: DType, **given: Any) -> list[Any]:
    w, b = (optional(given[name], place) for name in ("weight", "bias"))
    n = _one_axis(given["normalized_shape"], place)
    return [LayerNorm(n, given["eps"], w, b, dtype)]


def _rms_norm(place: str, dtype: DType, normalized_shape: Any, weight: Any, eps: Any) -> list[Any]:
    n = _one_axis(normalized_shape, place)
    return [RMSNorm(n, eps, optional(weight, place), dtype)]


def _rrelu(place: str, dtype: DType, lower: float, upper: float, training: bool) -> list[Any]:
    if training:
        raise ConversionError(place, "is in training mode, and random")
    return [Activation("leaky_relu", negative_slope=(lower + upper) / 2)]


def _prelu(place: str, dtype: DType, weight: Any) -> list[Any]:
    slopes = array(weight, place)
    before = [OneRow(place)] if slopes.size > 1 else []
    return [*before, Activation("prelu", weight=slopes)]


def _threshold(place: str, dtype: DType, threshold: float, value: float) -> list[Any]:
    if threshold == 0 == value:
        return [Activation("relu")]
    return _activation(TORCH["threshold"], place, dtype, threshold=threshold, value=value)


def _one_axis(shape: Any, place: str) -> int:
    if isinstance(shape, int):
        return shape
    if len(shape) != 1:
        raise ConversionError(
            place, f"normalises over {len(shape)} axes, {tuple(shape)}; fastlayer over the last"
        )
    return int(shape[0])


def _batch_norm(
    place: str, dtype: DType, num_features: int, eps: float, running_mean: Any, **arrays: Any
) -> list[Any]:
    if running_mean is None:
        raise ConversionError(
            place,
            "has track_running_stats=False, so a row's result depends on its batch; fastlayer "
            "needs the running mean and variance",
        )
    given = {name: optional(t, place) for name, t in arrays.items()}
    mean = array(running_mean, place)
    return [OneRow(place), BatchNorm(num_features, eps, running_mean=mean, dtype=dtype, **given)]


def _batch_norm_function(
    place: str, dtype: DType, training: bool, momentum: object, running_mean: Any, **given: Any
) -> list[Any]:
    if training:
        raise ConversionError(place, "is in training mode, and a row's result depends on its batch")
    n = 0 if running_mean is None else len(running_mean)
    return _batch_norm(place, dtype, n, running_mean=running_mean, **given)


def _softmin(place: str, dtype: DType, dim: int | None) -> list[Any]:
    return [Affine.of(-1.0), *_activation(TORCH["softmax"], place, dtype, dim=dim)]


class _Layer(NamedTuple):
    """How a module or function is made, from its parameters and their defaults."""

    make: Callable[..., list[Any]]
    parameters: dict[str, Any]


_BATCH_NORM = _Layer(
    _batch_norm,
    dict.fromkeys(("num_features", "eps", "running_mean", "running_var", "weight", "bias")),
)
_LAYERS: dict[str, _Layer] = {
    **{
        name: _Layer(partial(_activation, entry), {p.theirs: p.default for p in entry.parameters})
        for name, entry in TORCH.items()
    },
    "linear": _Layer(
        lambda at, dtype, weight, bias: [Dense(array(weight, at), optional(bias, at))],
        {"weight": None, "bias": None},
    ),
    "batchnorm": _Layer(
        _batch_norm_function,
        {
            **dict.fromkeys(("running_mean", "running_var", "weight", "bias")),
            "training": False,
            "momentum": 0.1,
            "eps": 1e-5,
        },
    ),
    "batchnorm1d": _BATCH_NORM,
    "syncbatchnorm": _BATCH_NORM,
    "layernorm": _Layer(
        _layer_norm, {"normalized_shape": None, "weight": None, "bias": None, "eps": 1e-5}
    ),
    "rmsnorm": _Layer(_rms_norm, {"normalized_shape": None, "weight": None, "eps": None}),
    "flatten": _Layer(_flatten, {"start_dim": 0, "end_dim": -1}),
    "prelu": _Layer(_prelu, {"weight": None}),
    "rrelu": _Layer(_rrelu, {"lower": 1 / 8, "upper": 1 / 3, "training": False}),
    "softmin": _Layer(_softmin, {"dim": None}),
    "tanhshrink": _Layer(
        lambda at, dtype: [Join.of("add", [[Activation("tanh"), Affine.of(-1.0)], []])], {}
    ),
    "threshold": _Layer(_threshold, {"threshold": None, "value": None}),
}
