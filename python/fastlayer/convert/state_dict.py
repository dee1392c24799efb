"""Networks from weights by name: `from_state_dict`, for mappings and files of PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._advice import advice
from fastlayer.convert._agents import find, networks
from fastlayer.convert._order import check_one_network, listed, ordered
from fastlayer.errors import ConversionError, ModelFileError
from fastlayer.files.model_file import ModelFile
from fastlayer.files.reading import Script, Stored, Unread
from fastlayer.functions.activation import resolve_rowwise
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from os import PathLike
    from typing import IO

    from fastlayer.arrays import Array, DType
    from fastlayer.functions.activation import ActivationLike
    from fastlayer.names import Layout

_FILES = {
    ".safetensors": "fastlayer.files.safetensors",
    ".zip": "fastlayer.files.sb3",
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt", ".tar", ".jit", ".ptl"), "fastlayer.files.pt"),
}
# Bytes by which tensors that share storage may exceed their file.
_SPARE = 32 << 20
_SINGLE = ("float32", "float16", "bfloat16")  # what float32 has all numbers of
# How the names of arrays start in layers that are not dense.
_KINDS = (
    ("weight_ih", "recurrent layer (LSTM, GRU or RNN)"),
    ("in_proj_", "layer of attention (Attention)"),
)
_DENSE = "fl.from_torch(module) converts the live module, or build the network with fl.Network"


def from_state_dict(
    state_dict: Mapping[str, Any] | str | PathLike[str] | IO[bytes],
    *,
    activation: ActivationLike | Sequence[ActivationLike],
    output_activation: ActivationLike = None,
    layout: Layout = "out_in",
    layers: Sequence[str] | None = None,
    prefix: str | None = None,
    key: str | None = None,
    network: str | None = None,
    format: str | None = None,
) -> Network:
    """Make a network of dense layers from weights by name, as in a state dict of PyTorch.

    A state dict holds weights and nothing else: what lies between the layers is for you to say.
    Where it holds more than one network, or tensors of other layers, `prefix` or `layers` chooses.

    Parameters
    ----------
    state_dict : mapping, path or open binary file
        Arrays or tensors under the names "<layer>.weight" (n, k) and, where there is one,
        "<layer>.bias" (n,); all float64, or float32, float16 and bfloat16, which become float32.
        Or a file: .safetensors (needs the safetensors package); .pt, .pth, .bin, .ckpt, .tar, .jit
        and .ptl as `torch.save` and `torch.jit.save` write them; .zip of stable-baselines3. They
        are read without PyTorch and without running anything in them. An open file, such as an
        ``io.BytesIO``, is read from its position to its end, and left open.
    activation : str, Activation, function, callable or None, or a sequence of these
        What follows each layer but the last; a sequence has one for each of those.
    output_activation : str, Activation, function, callable or None
        What follows the last layer.
    layout : {"out_in", "in_out"}
        Whether weights are (n, k), as in PyTorch, or (k, n).
    layers : sequence of str, optional
        The names of the network's layers from first to last; what else there is doesn't count. By
        default all, in the order of the mapping; where that is merely alphabetical, as in
        .safetensors, in the order of the numbers in the names, or the only one in which the sizes
        fit.
    prefix : str, optional
        Only what is named "<prefix>.<layer>.weight" counts, such as "actor". `layers` are then
        names behind it.
    key : str, optional
        The entry of a checkpoint that holds the state dict, such as "model_state_dict".
    network : str, optional
        A network of an agent of stable-baselines3 or skrl by its name, in place of `prefix` and
        `layers`: "actor", "critic", "critic.qf0", "q_net", "policy", "value". What is in front of
        it (a scaler of the observations) and behind it (`output_activation`) is not in its weights.
    format : str, optional
        The format of a file whose name does not tell it: "pt", "safetensors", "zip".

    Returns
    -------
    Network
        In the dtype of the weights, which are copied.

    Raises
    ------
    ConversionError
        Entries other than those of dense layers, names of more than one network, or an order that
        can't be told.
    ModelFileError
        A file that is damaged, or of another format than its suffix says.
    ValueError
        An unknown suffix or activation, another number of activations than of layers, or ``network``
        beside `prefix` or `layers`.
    TypeError
        Neither a mapping nor a path nor an open binary file.

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
    if network is not None and (prefix is not None or layers is not None):
        raise ValueError("network= names the layers; give it without prefix= and layers=")
    file = _file(state_dict, format)
    place, content = _source(state_dict, file)
    with content as found:
        if isinstance(found, Script):
            place = f"{place} (TorchScript)"
        found = _entry(found, key, place)
        if network is not None:
            found, layers = find(found, network, place)
        entries = _entries(_chosen(found, prefix, layers, place), place)
        if file is not None:
            _check_size(entries, file)
        groups: dict[str, dict[str, Stored]] = {}
        for name, entry in entries.items():
            layer, _, field = name.rpartition(".")
            groups.setdefault(layer, {})[field] = entry
        for layer, group in groups.items():
            _check_dense(f"{place}: layer {layer!r}", group)
        if layers is None:
            shapes = {name: {f: e.shape for f, e in g.items()} for name, g in groups.items()}
            check_one_network(shapes, entries, place)
        sizes = {name: _sizes(f"{place}: layer {name!r}", g, layout) for name, g in groups.items()}
        names = ordered(list(entries), sizes, layers, place)
        dtype = _dtype(entries, place)
        chosen = _activations(activation, output_activation, len(names))
        # All arrays before the first layer: a file that is damaged further on costs no packing.
        read = [{field: entry.read() for field, entry in groups[name].items()} for name in names]
    return Network(
        Layer.from_arrays(**read.pop(0), activation=act, layout=layout, dtype=dtype)
        for act in chosen
    )


def _file(state_dict: Any, format: str | None) -> ModelFile | None:
    """Return the file that holds the state dict, None for a mapping."""
    if isinstance(state_dict, ModelFile):
        return state_dict
    if isinstance(state_dict, Mapping):
        if format is not None:
            raise ValueError("format= is for files; this is a mapping")
        return None
    if not isinstance(state_dict, str | os.PathLike) and not hasattr(state_dict, "read"):
        module = hasattr(state_dict, "state_dict")
        hint = "; fl.from_torch converts a module, or pass its .state_dict()" if module else ""
        raise TypeError(
            f"expected a mapping from names to arrays, a path or an open binary file, got "
            f"{type(state_dict).__name__}{hint}"
        )
    return ModelFile(state_dict, format)


def _source(state_dict: Any, file: ModelFile | None) -> tuple[str, AbstractContextManager[Any]]:
    """Return what to call the source in errors, and its content."""
    if file is None:
        return "state dict", nullcontext(state_dict)
    if file.suffix not in _FILES:
        raise file.unknown(
            f"state dicts are read from {', '.join(_FILES)}", "; fl.load reads whole models"
        )
    return file.name, import_module(_FILES[file.suffix]).stored(file)


def _entry(content: Any, key: str | None, place: str) -> Mapping[Any, Any]:
    """Return the state dict in a checkpoint."""
    if key is not None:
        if not isinstance(content, Mapping) or key not in content:
            raise ConversionError(place, f"has no entry {key!r}; it has {listed(content)}")
        content = content[key]
    if isinstance(content, Unread):
        raise ConversionError(
            place,
            f"holds an object of {content.name!r:.60}, such as a whole module, which was not made. "
            "To read the weights of a module here, load it in PyTorch and save them alone: "
            "torch.save(module.state_dict(), path)",
        )
    if not isinstance(content, Mapping):
        raise ConversionError(place, f"holds a {type(content).__name__}, not a state dict")
    found: Mapping[Any, Any] = content
    return found


def _chosen(
    content: Mapping[Any, Any], prefix: str | None, layers: Sequence[str] | None, place: str
) -> Mapping[Any, Any]:
    """Return the entries that are asked for; what else there is is not looked at."""
    if prefix is not None:
        start = prefix.removesuffix(".") + "."
        below = {
            name.removeprefix(start): value
            for name, value in content.items()
            if isinstance(name, str) and name.startswith(start)
        }
        if not below:
            raise ConversionError(place, f"has nothing below {prefix!r}; it has {listed(content)}")
        content = below
    if layers is None:
        return content
    names = [name for name in content if isinstance(name, str)]
    there = dict.fromkeys(name.rpartition(".")[0] for name in names)
    missing = [name for name in layers if name not in there]
    if missing:
        raise ConversionError(
            place, f"layers={list(layers)}: there is no {missing[0]!r}; it has {listed(there)}"
        )
    wanted = set(layers)
    return {name: content[name] for name in names if name.rpartition(".")[0] in wanted}


def _entries(content: Mapping[Any, Any], place: str) -> dict[str, Stored]:
    """Return the tensors by name."""
    entries = {}
    for name, value in content.items():
        if getattr(value, "is_meta", False):
            raise ConversionError(f"{place}: {name!r}", "has no values; load the weights first")
        entry = _as_stored(value)
        if entry is None or not isinstance(name, str):
            # Once each: a file can give one dictionary to many names.
            inner = {id(v): (n, v) for n, v in content.items() if isinstance(v, Mapping)}
            likely = next((n for n, v in inner.values() if any(map(_as_stored, v.values()))), None)
            hint = "" if likely is None else f"; perhaps key={likely!r} is the state dict"
            agent = listed(networks(content))
            hint = hint if agent == "none" else f"; network= chooses one of {agent}"
            kind = type(value).__name__
            if isinstance(value, Unread):
                kind = f"an object of {value.name!r:.60}, which was not made"
            raise ConversionError(
                place, f"{name!r:.60} holds {kind}, not a tensor; it has {listed(content)}{hint}"
            )
        entries[name] = entry
    if not entries:
        raise ConversionError(place, "holds no tensors")
    return entries


def _as_stored(value: Any) -> Stored | None:
    if isinstance(value, Stored):
        return value
    if hasattr(value, "detach"):  # a tensor of PyTorch, on whatever device
        dtype = str(value.dtype).removeprefix("torch.")
        held = value.detach().float() if dtype == "bfloat16" else value.detach()
        return Stored(dtype, tuple(value.shape), lambda: np.asarray(held.cpu()))
    if isinstance(value, Mapping | str | bytes | int | float | list | tuple | set | None | Unread):
        return None
    array: Array = np.asarray(value)
    return Stored(array.dtype.name, array.shape, lambda: array)


def _check_dense(where: str, group: dict[str, Stored]) -> None:
    """Refuse layers that are known to be of another kind."""
    fields = ", ".join(f"{field} {entry.shape}" for field, entry in group.items())
    axes = len(group["weight"].shape) if "weight" in group else 0
    kind = next((kind for start, kind in _KINDS if any(n.startswith(start) for n in group)), None)
    if "running_mean" in group or "running_var" in group or axes == 1:
        kind = "batch normalisation" if axes != 1 or len(group) > 2 else "norm, such as LayerNorm"
        raise ConversionError(
            where,
            f"is a {kind} ({fields}), and a state dict holds neither its eps nor what lies "
            f"around it; {_DENSE}",
        )
    kind = "convolution (Conv)" if axes > 2 else kind
    if kind is not None:
        raise ConversionError(
            where, f"({fields}) is a {kind}; {advice(kind)}: layers=[...] reads those alone"
        )


def _sizes(where: str, group: dict[str, Stored], layout: str) -> tuple[int, int]:
    """Return the sizes of the dense layer that arrays make; anything else is refused."""
    fields = ", ".join(f"{field} {entry.shape}" for field, entry in group.items())
    weight, bias = group.get("weight"), group.get("bias")
    if weight is None or set(group) - {"weight", "bias"} or len(weight.shape) != 2:
        raise ConversionError(
            where,
            f"({fields}) is not a dense layer, which has a weight of two dimensions and "
            f"perhaps a bias, and nothing else; {_DENSE}",
        )
    if bias is not None and len(bias.shape) != 1:
        raise ConversionError(where, f"({fields}) has a bias that is not a vector")
    n, k = weight.shape if layout == "out_in" else weight.shape[::-1]
    if not n * k or (bias is not None and bias.shape != (n,)):
        b = "no bias" if bias is None else f"bias {bias.shape}"
        raise ConversionError(
            where, f"weight {weight.shape} and {b} do not fit with layout={layout!r}"
        )
    return k, n


def _dtype(entries: dict[str, Stored], place: str) -> DType:
    for name, entry in entries.items():
        if entry.dtype not in (*_SINGLE, "float64"):
            raise ConversionError(
                f"{place}: {name!r}",
                f"is {entry.dtype}; convert it to float32 first, e.g. with module.float()",
            )
    first = {entry.dtype == "float64": name for name, entry in reversed(entries.items())}
    if len(first) > 1:
        raise ConversionError(
            place,
            f"{first[False]!r} is {entries[first[False]].dtype} and {first[True]!r} is float64; "
            "convert them to one dtype first",
        )
    return np.dtype("float64" if True in first else "float32")


def _check_size(entries: dict[str, Stored], file: ModelFile) -> None:
    """Refuse a small file with many large tensors that are views of one storage."""
    total = sum(prod(e.shape) * (8 if e.dtype == "float64" else 4) for e in entries.values())
    size = file.size()
    if total > size + _SPARE:
        raise ModelFileError(
            file.name,
            "data.pkl",
            f"{len(entries)} tensors share storage: {total} bytes from {size}",
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
