"""Hand-written NumPy networks: the arrays and functions in them, found by the names of tutorials.

Nothing is taken for granted that is found here: `accelerate` proves what it makes of it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._numpy.stages import Dense, Found, Function, Slot
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WEIGHTS = ("_W", "W", "weights", "weight", "_weights", "_weight", "kernel", "w", "_w")
BIASES = ("_b", "b", "biases", "bias", "_biases", "_bias")
LISTS = ("layers", "_layers", "modules", "_modules", "stages")
ACTIVATIONS = (
    *("act_function", "activation", "activation_function", "activation_fn", "activation_func"),
    *("act", "act_fn", "act_func", "_activation", "activations"),
)
FORWARD = ("forward_pass", "forward", "feedforward", "feed_forward", "propagate", "__call__")
APPLY = ("f", "forward", "activate", "forward_pass", "__call__")

# Words in the names of numbers that training changes all the time, and no forward pass reads.
_TRAINING = ("lr", "learn", "loss", "cost", "err", "moment", "decay", "reg", "acc", "time")

_NUMBERED = re.compile(r"_*(W|w|weights?|b|bias(?:es)?)_*(\d+)")


def method_of(obj: Any, names: tuple[str, ...]) -> str | None:
    """Return the first of `names` that is a method of `obj`."""
    for name in names:
        if name == "__call__" and isinstance(obj, type):
            continue
        if callable(getattr(obj, name, None)):
            return name
    return None


def find(obj: Any) -> Found:
    """Look through an object, or a list of layers.

    Raises
    ------
    ConversionError
        A part that is not understood, or nothing with weights.
    """
    found = Found()
    try:
        _visit(obj, type(obj).__name__, found)
    except RecursionError:
        raise ConversionError(type(obj).__name__, "its layers are inside each other") from None
    if not found.dense:
        raise ConversionError(
            type(obj).__name__,
            f"found no dense layer in it: a 2-D array called {', '.join(WEIGHTS)}, W1, W2, ..., "
            f"or a list of layers called {', '.join(LISTS[:2])}; for arrays in variables see "
            "fl.linear, fl.dense_forward and fl.Layer.from_arrays",
        )
    return found


def _visit(obj: Any, name: str, found: Found) -> None:
    found.objects.append(obj)
    if isinstance(obj, list | tuple):
        found.length(obj)
        for i in range(len(obj)):
            item = found.link(obj, i)
            _visit(item, f"layer {i} ({_title(item)})", found)
        return
    if _is_function(obj):
        found.stages.append(Function(name, obj, None))
        return
    if _arrays(obj, name, found) or _container(obj, name, found):
        _link_settings(obj, found, float)
        return
    apply = method_of(obj, APPLY)
    if apply is None:
        raise ConversionError(
            name,
            f"it has neither weights called {', '.join(WEIGHTS[:4])} nor a method "
            f"{', '.join(APPLY[:4])}",
        )
    _link_settings(obj, found, float, int)
    found.stages.append(Function(name, getattr(obj, apply), obj))


def _title(obj: Any) -> str:
    return getattr(obj, "__name__", type(obj).__name__)


def _is_function(obj: Any) -> bool:
    return callable(obj) and hasattr(obj, "__name__") and not isinstance(obj, type)


def attributes(obj: Any) -> dict[str, Any]:
    """Return the attributes of an object, in the order in which they were made."""
    slots = getattr(type(obj), "__slots__", ())
    named = [slots] if isinstance(slots, str) else slots
    own = {name: getattr(obj, name) for name in named if hasattr(obj, name)}
    return {**own, **getattr(obj, "__dict__", {})}


def _link_settings(obj: Any, found: Found, *numbers: type[Any]) -> None:
    """See that a change of what a forward pass may depend on is noticed.

    That is a flag, an activation or bias that is not there or is a name, `numbers` of these types,
    which may be slopes, and an attribute that is new and so may hide one of the class.
    """
    if hasattr(obj, "__dict__"):
        found.length(vars(obj))
    for name, value in attributes(obj).items():
        setting = type(value) is bool
        if name in ACTIVATIONS or name in BIASES:
            setting = setting or isinstance(value, str | None)
        if type(value) in numbers:
            setting = not any(word in name for word in _TRAINING)
        if setting:
            found.link(obj, name)


def _arrays(obj: Any, name: str, found: Found) -> bool:
    """Find the arrays of a layer, or of several layers in lists, in a dict or numbered."""
    named = attributes(obj)
    for key in WEIGHTS:
        value = named.get(key)
        if isinstance(value, np.ndarray) and value.ndim == 2:
            bias = next((b for b in BIASES if named.get(b) is not None), None)
            slot = None if bias is None else Slot(obj, bias)
            function = _activation(obj, named, found)
            own = method_of(obj, FORWARD)
            forward = None if own is None else getattr(obj, own)
            found.stages.append(Dense(name, Slot(obj, key), slot, function, forward))
            return True
        if isinstance(value, list | tuple) and value and all(map(_is_matrix, value)):
            _lists(obj, name, named, key, found)
            return True
        if isinstance(value, np.ndarray) and value.ndim > 0:
            raise ConversionError(
                name, f"its {key} has shape {value.shape}; a dense layer's has two dimensions"
            )
    if _numbered(obj, named, name, found):
        return True
    for key, value in named.items():
        if isinstance(value, dict) and _numbered(value, value, name, found):
            found.link(obj, key)
            return True
    return False


def _is_matrix(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 2


def _lists(obj: Any, name: str, named: dict[str, Any], key: str, found: Found) -> None:
    weights = found.link(obj, key)
    found.length(weights)
    bias = next((b for b in BIASES if isinstance(named.get(b), list | tuple)), None)
    biases = None if bias is None else found.link(obj, bias)
    if biases is not None and len(biases) != len(weights):
        raise ConversionError(name, f"{len(weights)} {key} and {len(biases)} {bias}")
    functions = named.get("activations")
    alone = isinstance(functions, list | tuple) and len(functions) == len(weights)
    if alone:
        functions = found.link(obj, "activations")
    for i in range(len(weights)):
        slot = None if biases is None else Slot(biases, i)
        function = function_of(found.link(functions, i)) if alone else None
        found.stages.append(Dense(f"{name}.{key}[{i}]", Slot(weights, i), slot, function, None))


def _numbered(owner: Any, items: dict[Any, Any], name: str, found: Found) -> bool:
    weights: dict[int, str] = {}
    biases: dict[int, str] = {}
    for key, value in items.items():
        known = _NUMBERED.fullmatch(key) if isinstance(key, str) else None
        if known is not None and isinstance(value, np.ndarray):
            which = weights if known[1][0] in "Ww" else biases
            which[int(known[2])] = key
    for i in sorted(weights):
        slot = Slot(owner, biases[i]) if i in biases else None
        found.stages.append(
            Dense(f"{name}.{weights[i]}", Slot(owner, weights[i]), slot, None, None)
        )
    return bool(weights)


def _activation(obj: Any, named: dict[str, Any], found: Found) -> Callable[..., Any] | None:
    for key in ACTIVATIONS:
        value = named.get(key)
        if value is not None and (function := function_of(value)) is not None:
            found.link(obj, key)
            if not _is_function(value):
                found.objects.append(value)
                _link_settings(value, found, float, int)
            return function
    return None


def function_of(value: Any) -> Callable[..., Any] | None:
    """Return the function that an activation is: itself, or a method of an object."""
    if isinstance(value, str):
        return None  # what it stands for is written in the user's code
    if _is_function(value):
        function: Callable[..., Any] = value
        return function
    name = method_of(value, APPLY)
    return None if name is None else getattr(value, name)


def _container(obj: Any, name: str, found: Found) -> bool:
    """Find the layers of a network: in a list, or as attributes in the order of their making."""
    named = attributes(obj)
    lists = [k for k in LISTS if isinstance(named.get(k), list | tuple) and named[k]]
    lists += [k for k, v in named.items() if k not in LISTS and _holds_layers(v)]
    if lists:
        _visit(found.link(obj, lists[0]), name, found)
        return True
    layers = [k for k, v in named.items() if _is_layer(v)]
    if not any(_is_dense(named[k]) for k in layers):
        return False
    for key in layers:
        _visit(found.link(obj, key), f"{key} ({_title(named[key])})", found)
    return True


def _is_layer(value: Any) -> bool:
    plain = isinstance(value, np.ndarray | np.generic | list | tuple | dict | type | str)
    return not plain and not _is_function(value) and method_of(value, APPLY) is not None


def _is_dense(value: Any) -> bool:
    named = attributes(value)
    return any(_is_matrix(named.get(k)) for k in WEIGHTS) or any(map(_holds_layers, named.values()))


def _holds_layers(value: Any) -> bool:
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(_is_layer(v) or _is_function(v) for v in value) and any(map(_is_dense, value))


@contextmanager
def undisturbed(objects: list[Any]) -> Iterator[None]:
    """Give objects back the attributes that they had: running a layer may cache its input."""
    before = [(o, dict(vars(o))) for o in objects if hasattr(o, "__dict__")]
    lists = [(v, list(v)) for _, d in before for v in d.values() if isinstance(v, list)]
    try:
        yield
    finally:
        for obj, attributes_before in before:
            for key in [k for k in vars(obj) if k not in attributes_before]:
                delattr(obj, key)
            for key, value in attributes_before.items():
                if vars(obj).get(key) is not value:
                    setattr(obj, key, value)
        for value, items in lists:
            if len(value) != len(items):
                value[:] = items
