"""The modules of ``torch.nn`` as steps of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlayer.convert._activations import TORCH
from fastlayer.convert._advice import advice
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Dense, Flat, OneRow, Sum
from fastlayer.convert._recognise import clip
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation
from fastlayer.network.norms import BatchNorm, LayerNorm, RMSNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType

# Nothing of them is left in inference.
NOTHING = {
    "Identity",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "AlphaDropout",
    "FeatureAlphaDropout",
}


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
            return name if name in _MAKERS or name in NOTHING or key(name) in TORCH else None
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
    if name in _MAKERS:
        return _MAKERS[name](module, place, dtype)
    return activation(name, lambda theirs, default: getattr(module, theirs, default), place)


def activation(name: str, get: Callable[[str, Any], Any], place: str) -> list[Any]:
    """Return the steps of an activation, whose parameters `get` looks up."""
    before: list[Any] = []

    def read(theirs: str, default: Any) -> Any:
        value = get(theirs, default)
        if theirs != "dim":
            return value
        if value not in (None, 1, -1):
            raise ConversionError(
                place, f"works along dim={value}; in a network that is the features', dim=-1"
            )
        if value != -1:
            before.append(OneRow(place))
        return -1

    try:
        made = TORCH[key(name)].make(read)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConversionError):
            raise
        raise ConversionError(place, str(error)) from error
    return [*before, made]


def flatten(start: object, end: object, place: str) -> list[Any]:
    """Return the step of a flatten from axis `start` to `end`."""
    if start != 1 or end != -1:
        raise ConversionError(
            place,
            f"flattens axes {start} to {end}; a network keeps the samples apart: start_dim=1, "
            "end_dim=-1",
        )
    return [Flat(place)]


def layer_norm(
    shape: Any, weight: Any, bias: Any, eps: float, place: str, dtype: DType
) -> list[Any]:
    """Return the step of a layer norm over the last axis."""
    n = _one_axis(shape, place)
    w, b = (None if t is None else array(t, place) for t in (weight, bias))
    return [LayerNorm(n, eps=eps, weight=w, bias=b, dtype=dtype)]


def rms_norm(shape: Any, weight: Any, eps: float | None, place: str, dtype: DType) -> list[Any]:
    """Return the step of an RMS norm over the last axis."""
    w = None if weight is None else array(weight, place)
    return [RMSNorm(_one_axis(shape, place), eps=eps, weight=w, dtype=dtype)]


def rrelu(lower: float, upper: float) -> list[Any]:
    """Return the step of a randomised leaky rectifier, in inference."""
    return [Activation("leaky_relu", negative_slope=(lower + upper) / 2)]


def tanhshrink() -> list[Any]:
    """Return the step of ``x - tanh(x)``."""
    return [Sum((Activation("tanh"), Affine.of(-1.0)))]


def softshrink(lambd: float) -> list[Any]:
    """Return the step of what clips away around zero: ``x - clip(x, -lambd, lambd)``."""
    return [Sum((clip(-lambd, lambd), Affine.of(-1.0)))]


def prelu(weight: Any, place: str) -> list[Any]:
    """Return the step of a rectifier with learned slopes."""
    slopes = array(weight, place)
    before = [OneRow(place)] if slopes.size > 1 else []
    return [*before, Activation("prelu", weight=slopes)]


def threshold(at: float, value: float, place: str) -> list[Any]:
    """Return the step of a threshold, where that is a rectifier."""
    if at != 0 or value != 0:
        raise ConversionError(
            place, f"fastlayer has relu, threshold 0 and value 0; got {at}, {value}"
        )
    return [Activation("relu")]


def _one_axis(shape: Any, place: str) -> int:
    if isinstance(shape, int):
        return shape
    if len(shape) != 1:
        raise ConversionError(
            place, f"normalises over {len(shape)} axes, {tuple(shape)}; fastlayer over the last"
        )
    return int(shape[0])


def _linear(m: Any, place: str, dtype: DType) -> list[Any]:
    bias = None if m.bias is None else array(m.bias, place)
    return [Dense(array(m.weight, place), bias)]


def _batch_norm(m: Any, place: str, dtype: DType) -> list[Any]:
    if m.running_mean is None:
        raise ConversionError(
            place,
            "has track_running_stats=False, so a row's result depends on its batch; fastlayer "
            "needs the running mean and variance",
        )
    given = (m.weight, m.bias, m.running_mean, m.running_var)
    w, b, mean, var = (None if t is None else array(t, place) for t in given)
    norm = BatchNorm(m.num_features, m.eps, w, b, mean, var, dtype=dtype)
    return [OneRow(place), norm]


_MAKERS: dict[str, Callable[[Any, str, DType], list[Any]]] = {
    "Linear": _linear,
    "BatchNorm1d": _batch_norm,
    "SyncBatchNorm": _batch_norm,
    "LayerNorm": lambda m, at, dtype: layer_norm(
        m.normalized_shape, m.weight, m.bias, m.eps, at, dtype
    ),
    "RMSNorm": lambda m, at, dtype: rms_norm(m.normalized_shape, m.weight, m.eps, at, dtype),
    "Flatten": lambda m, at, dtype: flatten(m.start_dim, m.end_dim, at),
    "PReLU": lambda m, at, dtype: prelu(m.weight, at),
    "RReLU": lambda m, at, dtype: rrelu(m.lower, m.upper),
    "Softshrink": lambda m, at, dtype: softshrink(m.lambd),
    "Tanhshrink": lambda m, at, dtype: tanhshrink(),
    "Threshold": lambda m, at, dtype: threshold(m.threshold, m.value, at),
    "Softmin": lambda m, at, dtype: [
        Affine.of(-1.0),
        *activation("Softmax", lambda name, default: m.dim, at),
    ],
}
