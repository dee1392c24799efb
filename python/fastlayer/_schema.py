"""A network as plain data and back: a JSON document about the layers, and arrays by name.

What a file holds, whatever its format. Reading trusts nothing: every field is checked, and no name
in a document chooses what code runs beyond the parts listed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlayer._arrays import float_dtype
from fastlayer._chain import Flatten, Part, title
from fastlayer._norms import BatchNorm, LayerNorm, RMSNorm, _Norm
from fastlayer.activations import Activation
from fastlayer.layer import Layer
from fastlayer.modules import Residual
from fastlayer.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer._arrays import Array, DType

    # The array of this name, which must have this shape and dtype.
    Reader = Callable[[str, tuple[int, ...], DType], Array]

VERSION = 1
# A document is a tree of networks and residuals; deeper than any real one means a hostile file.
_DEEPEST = 64

_NORMS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "LayerNorm": (LayerNorm, ("weight", "bias")),
    "RMSNorm": (RMSNorm, ("weight",)),
    "BatchNorm": (BatchNorm, ("weight", "bias", "running_mean", "running_var")),
}


class SchemaError(ValueError):
    """A document or array that is not what a network needs; `key` names the place."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key


def to_plain(net: Network) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the document and the arrays of a network.

    Raises
    ------
    ValueError
        An activation or layer that is a Python function.
    """
    arrays: dict[str, Array] = {}
    layers = [_describe(part, f"{i}", arrays) for i, part in enumerate(net.layers)]
    document = {"format": "fastlayer", "version": VERSION, "dtype": net.dtype.name}
    return {**document, "layers": layers}, arrays


def _describe(part: Part, key: str, arrays: dict[str, Array]) -> dict[str, Any]:
    if isinstance(part, Layer):
        arrays[f"{key}.weight"] = part.weight
        bias = part.bias
        if bias is not None:
            arrays[f"{key}.bias"] = bias
        return {
            "type": "Layer",
            "in_features": part.in_features,
            "out_features": part.out_features,
            "bias": bias is not None,
            "activation": _describe(part.activation, f"{key}.activation", arrays),
        }
    if isinstance(part, Activation):
        plain = part.parameters
        slopes = plain.pop("weight", None)
        if slopes is not None:
            arrays[f"{key}.slopes"] = slopes
            plain["weight"] = {"shape": list(slopes.shape), "dtype": slopes.dtype.name}
        return {"type": "Activation", "name": part.name, "parameters": plain}
    if isinstance(part, Flatten):
        return {"type": "Flatten"}
    if isinstance(part, _Norm):
        given = {name: a for name, a in part._arrays.items() if a is not None}
        for name, a in given.items():
            arrays[f"{key}.{name}"] = a
        return {
            "type": type(part).__name__,
            "features": part.in_features,
            "eps": part.eps,
            "arrays": sorted(given),
        }
    if isinstance(part, Network | Residual):
        inner = [_describe(p, f"{key}.{i}", arrays) for i, p in enumerate(part.layers)]
        return {"type": type(part).__name__, "layers": inner}
    raise ValueError(
        f"layer {key}: {title(part)} is a Python function, and a file can't hold code; use one of "
        "fastlayer's activations, or save the layers around it"
    )


def from_plain(document: Any, read: Reader) -> Network:
    """Make a network from a document, fetching its arrays with `read`.

    Raises
    ------
    SchemaError
        Anything that is missing, of the wrong kind or inconsistent.
    """
    if not isinstance(document, dict) or document.get("format") != "fastlayer":
        raise SchemaError("format", "not a network that fastlayer saved")
    version = document.get("version")
    if version != VERSION:
        raise SchemaError(
            "version", f"{version!r} is unknown; this version of fastlayer reads {VERSION}"
        )
    try:
        dtype = float_dtype(_field(document, "dtype", str, "dtype"))
    except TypeError as error:
        raise SchemaError("dtype", str(error)) from None
    parts = _parts(document, "layers", dtype, read, 0)
    try:
        return Network._of(parts, dtype)
    except ValueError as error:
        raise SchemaError("layers", str(error)) from None


def _parts(spec: Any, key: str, dtype: DType, read: Reader, depth: int) -> tuple[Part, ...]:
    if depth > _DEEPEST:
        raise SchemaError(key, f"nested more than {_DEEPEST} deep")
    prefix = "" if key == "layers" else f"{key}."
    layers = _field(spec, "layers", list, key)
    return tuple(
        _build(layer, f"{prefix}{i}", dtype, read, depth) for i, layer in enumerate(layers)
    )


def _build(spec: Any, key: str, dtype: DType, read: Reader, depth: int) -> Part:
    kind = _field(spec, "type", str, key)
    try:
        if kind == "Layer":
            n, k = (_field(spec, name, int, key) for name in ("out_features", "in_features"))
            weight = read(f"{key}.weight", (n, k), dtype)
            bias = read(f"{key}.bias", (n,), dtype) if _field(spec, "bias", bool, key) else None
            chosen = _field(spec, "activation", dict, key)
            activation = _activation(chosen, f"{key}.activation", read)
            return Layer.from_arrays(weight, bias, activation, dtype=dtype)
        if kind == "Activation":
            return _activation(spec, key, read)
        if kind == "Flatten":
            return Flatten()
        if kind in _NORMS:
            norm, names = _NORMS[kind]
            n = _field(spec, "features", int, key)
            eps = _field(spec, "eps", float, key)
            listed = _field(spec, "arrays", list, key)
            given = {name: read(f"{key}.{name}", (n,), dtype) for name in names if name in listed}
            part: Part = norm(n, eps=eps, dtype=dtype, **given)
            return part
        if kind == "Network":
            return Network._of(_parts(spec, key, dtype, read, depth + 1), dtype)
        if kind == "Residual":
            return Residual(*_parts(spec, key, dtype, read, depth + 1))
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, SchemaError):
            raise
        raise SchemaError(key, str(error)) from None
    raise SchemaError(key, f"unknown layer type {kind!r}")


def _activation(spec: dict[str, Any], key: str, read: Reader) -> Activation:
    name = _field(spec, "name", str, key)
    parameters = dict(_field(spec, "parameters", dict, key))
    if name == "prelu":
        described = _field(parameters, "weight", dict, key)
        shape = tuple(_field(described, "shape", list, key))
        if len(shape) > 1 or not all(isinstance(d, int) and d >= 0 for d in shape):
            raise SchemaError(key, f"impossible shape {shape} of prelu slopes")
        kind = float_dtype(_field(described, "dtype", str, key))
        parameters["weight"] = read(f"{key}.slopes", shape, kind)
    return Activation(name, **parameters)


def _field(spec: Any, name: str, kind: type[Any], key: str) -> Any:
    if not isinstance(spec, dict) or name not in spec:
        raise SchemaError(key, f"the field {name!r} is missing")
    value = spec[name]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 0)):
        raise SchemaError(key, f"the field {name!r} holds {value!r:.40}, expected {kind.__name__}")
    return value
