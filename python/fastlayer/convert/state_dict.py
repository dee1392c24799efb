"""Networks from weights by name: `from_state_dict`, for mappings and files of PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._order import ordered
from fastlayer.errors import ConversionError, ModelFileError
from fastlayer.files.reading import Stored
from fastlayer.functions.activation import resolve_rowwise
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from os import PathLike

    from fastlayer.arrays import Array
    from fastlayer.functions.activation import ActivationLike

_FILES = {
    ".safetensors": "fastlayer.files.safetensors",
    ".pt": "fastlayer.files.pt",
    ".pth": "fastlayer.files.pt",
    ".bin": "fastlayer.files.pt",
}
# Bytes by which tensors that share storage may exceed their file.
_SPARE = 32 << 20
_DENSE = "fl.from_torch(module) converts the live module, or build the network with fl.Network"


def from_state_dict(
    state_dict: Mapping[str, Any] | str | PathLike[str],
    *,
    activation: ActivationLike | Sequence[ActivationLike],
    output_activation: ActivationLike = None,
    layout: str = "out_in",
    layers: Sequence[str] | None = None,
    key: str | None = None,
) -> Network:
    """Make a network of dense layers from weights by name, as in a state dict of PyTorch.

    A state dict holds weights and nothing else: what lies between the layers is for you to say.

    Parameters
    ----------
    state_dict : mapping or path
        Arrays or tensors under the names "<layer>.weight" (n, k) and, where there is one,
        "<layer>.bias" (n,); all float32 or all float64. Or a file: .safetensors (needs the
        safetensors package), or .pt, .pth, .bin as `torch.save` writes them, which are read
        without PyTorch and without running anything in them.
    activation : str, Activation, function, callable or None, or a sequence of these
        What follows each layer but the last; a sequence has one for each of those.
    output_activation : str, Activation, function, callable or None
        What follows the last layer.
    layout : {"out_in", "in_out"}
        Whether weights are (n, k), as in PyTorch, or (k, n).
    layers : sequence of str, optional
        The names of all layers from first to last. By default the order of the mapping; where
        that is merely alphabetical, as in .safetensors, the order of the numbers in the names, or
        the only one in which the sizes fit.
    key : str, optional
        The entry of a checkpoint that holds the state dict, such as "model_state_dict".

    Returns
    -------
    Network
        In the dtype of the weights, which are copied.

    Raises
    ------
    ConversionError
        Entries other than those of dense layers, or an order that can't be told.
    ModelFileError
        A file that is damaged, or of another format than its suffix says.
    ValueError
        An unknown suffix or activation, or another number of activations than of layers.
    TypeError
        Neither a mapping nor a path.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import numpy as np
    >>> weights = {"0.weight": np.ones((3, 2)), "0.bias": np.zeros(3), "2.weight": np.ones((1, 3))}
    >>> net = fl.from_state_dict(weights, activation="relu")
    >>> net
    Network([
        Layer(2, 3, activation='relu', dtype=float64),
        Layer(3, 1, bias=False, dtype=float64),
    ])
    >>> net([1.0, 2.0])
    array([9.])
    """
    if layout not in ("out_in", "in_out"):
        raise ValueError(
            f"layout must be 'out_in' for (n, k) or 'in_out' for (k, n), got {layout!r}"
        )
    place, content = _source(state_dict)
    with content as found:
        entries = _entries(found, key, place)
        if isinstance(state_dict, str | os.PathLike):
            _check_size(entries, place)
        groups = _dense(entries, place)
        sizes = {name: _sizes(name, group, layout, place) for name, group in groups.items()}
        names = ordered(list(entries), sizes, layers, place)
        dtype = _dtype(groups, place)
        chosen = _activations(activation, output_activation, len(names))
        # All arrays before the first layer: a file that is damaged further on costs no packing.
        arrays = {name: {k: s.read() for k, s in groups[name].items()} for name in names}
    made = []
    for name, act in zip(names, chosen, strict=True):
        group = arrays.pop(name)
        made.append(
            Layer.from_arrays(group["weight"], group.get("bias"), act, layout=layout, dtype=dtype)
        )
    return Network(made)


def _source(state_dict: Any) -> tuple[str, AbstractContextManager[Any]]:
    """Return what to call the source in errors, and its content."""
    if isinstance(state_dict, Mapping):
        return "state dict", nullcontext(state_dict)
    if not isinstance(state_dict, str | os.PathLike):
        hint = ""
        if hasattr(state_dict, "state_dict"):
            hint = "; fl.from_torch converts a module, or pass its .state_dict()"
        raise TypeError(
            f"expected a mapping from names to arrays or a path, got "
            f"{type(state_dict).__name__}{hint}"
        )
    path = os.fspath(state_dict)
    if not isinstance(path, str):
        raise TypeError(f"path must be a string or a path of strings, got {path!r}")
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _FILES:
        raise ValueError(
            f"{path}: unknown suffix {suffix!r}; state dicts are read from {', '.join(_FILES)}. "
            "fl.load reads whole models"
        )
    return path, import_module(_FILES[suffix]).stored(path)


def _entries(content: Any, key: str | None, place: str) -> dict[str, Stored]:
    """Return the tensors by name, those of the entry `key` where that is given."""
    if key is not None:
        if not isinstance(content, Mapping) or key not in content:
            raise ConversionError(place, f"has no entry {key!r}; it has {_listed(content)}")
        content = content[key]
    if not isinstance(content, Mapping):
        raise ConversionError(place, f"holds a {type(content).__name__}, not a state dict")
    entries = {}
    for name, value in content.items():
        if getattr(value, "is_meta", False):
            raise ConversionError(f"{place}: {name!r}", "has no values; load the weights first")
        entry = _as_stored(value)
        if entry is None or not isinstance(name, str):
            inner = [n for n, v in content.items() if _is_state_dict(v)]
            hint = f"; perhaps key={inner[0]!r} is the state dict" if inner else ""
            kind = type(value).__name__
            raise ConversionError(
                place, f"{name!r:.60} holds {kind}, not a tensor; it has {_listed(content)}{hint}"
            )
        entries[name] = entry
    if not entries:
        raise ConversionError(place, "holds no tensors")
    return entries


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and any(_as_stored(v) for v in value.values())


def _listed(content: Any) -> str:
    names = [f"{name!r:.60}" for name in content][:8] if isinstance(content, Mapping) else []
    return ", ".join(names) or "none"


def _as_stored(value: Any) -> Stored | None:
    if isinstance(value, Stored):
        return value
    if hasattr(value, "detach"):  # a tensor of PyTorch, on whatever device
        dtype = str(value.dtype).removeprefix("torch.")
        return Stored(dtype, tuple(value.shape), lambda: np.asarray(value.detach().cpu()))
    if isinstance(value, Mapping | str | bytes | int | float | list | tuple | None):
        return None
    array: Array = np.asarray(value)
    return Stored(array.dtype.name, array.shape, lambda: array)


def _dense(entries: dict[str, Stored], place: str) -> dict[str, dict[str, Stored]]:
    """Return weight and bias of each layer; anything else is refused."""
    groups: dict[str, dict[str, Stored]] = {}
    for name, entry in entries.items():
        layer, _, field = name.rpartition(".")
        groups.setdefault(layer, {})[field] = entry
    for layer, group in groups.items():
        where = f"{place}: layer {layer!r}"
        fields = ", ".join(f"{field} {entry.shape}" for field, entry in group.items())
        if "running_mean" in group or "running_var" in group:
            raise ConversionError(
                where,
                f"is a batch normalisation ({fields}), and a state dict holds neither its eps nor "
                f"what lies around it; {_DENSE}",
            )
        weight, bias = group.get("weight"), group.get("bias")
        if weight is None or set(group) - {"weight", "bias"} or len(weight.shape) != 2:
            raise ConversionError(
                where,
                f"({fields}) is not a dense layer, which has a weight of two dimensions and "
                f"perhaps a bias, and nothing else; {_DENSE}",
            )
        if bias is not None and len(bias.shape) != 1:
            raise ConversionError(where, f"({fields}) has a bias that is not a vector")
    return groups


def _sizes(name: str, group: dict[str, Stored], layout: str, place: str) -> tuple[int, int]:
    """Return inputs and outputs of a layer."""
    shape = group["weight"].shape
    n, k = shape if layout == "out_in" else shape[::-1]
    bias = group.get("bias")
    if not n * k or (bias is not None and bias.shape != (n,)):
        b = "no bias" if bias is None else f"bias {bias.shape}"
        raise ConversionError(
            f"{place}: layer {name!r}", f"weight {shape} and {b} do not fit with layout={layout!r}"
        )
    return k, n


def _dtype(groups: dict[str, dict[str, Stored]], place: str) -> Any:
    found: dict[str, str] = {}
    for layer, group in groups.items():
        for field, entry in group.items():
            found.setdefault(entry.dtype, f"{layer}.{field}".removeprefix("."))
    others = [dtype for dtype in found if dtype not in ("float32", "float64")]
    if others:
        raise ConversionError(
            f"{place}: {found[others[0]]!r}",
            f"is {others[0]}; convert it to float32 first, e.g. with module.float()",
        )
    if len(found) > 1:
        raise ConversionError(
            place,
            f"{found['float32']!r} is float32 and {found['float64']!r} is float64; convert them to "
            "one dtype first",
        )
    return np.dtype(next(iter(found)))


def _check_size(entries: dict[str, Stored], path: str) -> None:
    """Refuse a small file with many large tensors that are views of one storage."""
    total = sum(prod(e.shape) * (8 if e.dtype == "float64" else 4) for e in entries.values())
    size = os.path.getsize(path)
    if total > size + _SPARE:
        raise ModelFileError(
            path, "data.pkl", f"{len(entries)} tensors share storage: {total} bytes from {size}"
        )


def _activations(activation: Any, output: ActivationLike, count: int) -> list[ActivationLike]:
    several = isinstance(activation, Sequence) and not isinstance(activation, str)
    hidden = list(activation) if several else [activation] * (count - 1)
    if len(hidden) != count - 1:
        raise ValueError(
            f"{len(hidden)} activations for {count} layers: give {count - 1}, one for each layer "
            "but the last, whose own is output_activation"
        )
    return [resolve_rowwise(a) for a in (*hidden, output)]
