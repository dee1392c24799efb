"""A network as plain data: a JSON document about the layers, and arrays by name.

What a file holds, whatever its format; docs/model_files.md describes it. The way back is in
`_plan`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fastlayer.functions.activation import Activation
from fastlayer.network.chain import Flatten, Part, title
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network
from fastlayer.network.norms import BatchNorm, LayerNorm, RMSNorm, _Norm
from fastlayer.network.residual import Residual

if TYPE_CHECKING:
    from fastlayer.arrays import Array

DOCUMENT = "fastlayer"  # the name of the document in every format
VERSION = 1
# JSON has no infinities, but `hardtanh` may be open on one side.
INFINITIES = {"Infinity": float("inf"), "-Infinity": float("-inf")}

NORMS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "LayerNorm": (LayerNorm, ("weight", "bias")),
    "RMSNorm": (RMSNorm, ("weight",)),
    "BatchNorm": (BatchNorm, ("weight", "bias", "running_mean", "running_var")),
}


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
        parameters = {name: _number(value) for name, value in plain.items()}
        return {"type": "Activation", "name": part.name, "parameters": parameters}
    if isinstance(part, Flatten):
        return {"type": "Flatten"}
    if isinstance(part, _Norm):
        given = {name: a for name, a in part._arrays.items() if a is not None}
        for name, a in given.items():
            arrays[f"{key}.{name}"] = a
        return {
            "type": type(part).__name__,
            "features": part.in_features,
            "eps": _number(part.eps),
            "arrays": sorted(given),
        }
    if isinstance(part, Network | Residual):
        inner = [_describe(p, f"{key}.{i}", arrays) for i, p in enumerate(part.layers)]
        return {"type": type(part).__name__, "layers": inner}
    raise ValueError(
        f"layer {key}: {title(part)} is a Python function, and a file can't hold code; use one of "
        "fastlayer's activations, or save the layers around it"
    )


def _number(value: Any) -> Any:
    return next((name for name, infinity in INFINITIES.items() if value == infinity), value)


def encode(document: dict[str, Any]) -> bytes:
    """Return the document as a file holds it."""
    return json.dumps(document, allow_nan=False).encode()
