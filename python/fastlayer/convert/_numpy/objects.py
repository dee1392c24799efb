"""What is in a hand-written network: its arrays and functions, found by the names of tutorials.

Nothing is taken for granted that is found here: `accelerate` proves what it makes of it.
"""

from __future__ import annotations

import re
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert._numpy.watched import (
    ACTIVATIONS,
    BIASES,
    Watched,
    attributes,
    is_function,
    place_of,
)
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.convert._numpy.watched import Place

    Function = Callable[..., Any]

_WEIGHTS = ("_W", "W", "weights", "weight", "_weights", "_weight", "kernel", "w", "_w")
_NUMBERED = re.compile(r"_*(W|w|weights?|b|bias(?:es)?)_*(\d+)")
_LISTS = ("layers", "_layers", "modules", "_modules", "stages")
_FORWARD = ("forward_pass", "forward", "feedforward", "feed_forward", "propagate", "__call__")
# Of whole networks; those that may end in labels are last.
_WHOLE = (
    *(*_FORWARD, "forward_propagation", "forward_prop", "forward_propagate", "feedForward"),
    *("_forward", "query", "think", "activate", "compute", "infer", "inference", "run"),
    *("predict_proba", "predict"),
)
_APPLY = ("f", "forward", "activate", "forward_pass", "__call__")


class Stage(NamedTuple):
    """A layer with weights, or a function between layers."""

    name: str
    function: Function | None  # the activation of a layer, where it has one
    weight: Place | None = None
    bias: Place | None = None
    forward: Function | None = None  # all of a layer, where it can be run alone


class Found(Watched):
    """The stages of a network in order, and what must stay the same for that to hold.

    Raises
    ------
    ConversionError
        A part that is not understood, or nothing with weights.
    """

    def __init__(self, obj: Any) -> None:
        super().__init__()
        self.stages: list[Stage] = []
        name = type(obj).__name__
        try:
            self._visit(obj, name)
        except RecursionError:
            raise ConversionError(name, "its layers are inside each other") from None
        if not self.dense:
            raise ConversionError(
                name,
                "found no dense layer in it: a 2-D array that its forward pass multiplies by, or a "
                f"list of layers called {', '.join(_LISTS[:2])}; for arrays in variables see "
                "fl.linear, fl.dense_forward and fl.Layer.from_arrays",
            )

    @property
    def dense(self) -> list[Stage]:
        """The stages that have weights."""
        return [stage for stage in self.stages if stage.weight is not None]

    def _visit(self, obj: Any, name: str) -> None:
        if isinstance(obj, list | tuple):
            self._lengths.append((obj, len(obj)))
            for i in range(len(obj)):
                item = self._link(obj, i)
                self._visit(item, f"layer {i} ({title(item)})")
        elif not is_function(obj) and (self._arrays(obj, name) or self._container(obj, name)):
            self._watch(obj, float)
        elif (function := self._function(obj)) is not None:
            self.stages.append(Stage(name, function))
        else:
            raise ConversionError(
                name,
                f"it has neither weights called {', '.join(_WEIGHTS[:4])} nor a method "
                f"{', '.join(_APPLY[:4])}",
            )

    def _function(self, value: Any) -> Function | None:
        """Return the function that an activation is: itself, or a method of an object."""
        function = function_of(value)
        if function is not None and function is not value:
            self._watch(value, float, int)
        return function

    def _arrays(self, obj: Any, name: str) -> bool:
        """Find the arrays of a layer, or of several layers in lists, in a dict or numbered."""
        named = attributes(obj)
        for key in _WEIGHTS:
            value = named.get(key)
            if _is_matrix(value):
                bias = next((b for b in BIASES if named.get(b) is not None), None)
                place = None if bias is None else place_of(obj, bias)
                function, forward = self._activation(obj, named), _method(obj, *_FORWARD)
                self.stages.append(Stage(name, function, place_of(obj, key), place, forward))
                return True
            if isinstance(value, list | tuple) and value and all(map(_is_matrix, value)):
                self._lists(obj, name, named, key)
                return True
            if isinstance(value, np.ndarray) and value.ndim > 0:
                raise ConversionError(
                    name, f"its {key} has shape {value.shape}; a dense layer's has two dimensions"
                )
        if self._numbered(obj, named, name):
            return True
        for key, value in named.items():
            if isinstance(value, dict) and self._numbered(value, value, name):
                self._link(obj, key)
                return True
        return False

    def _lists(self, obj: Any, name: str, named: dict[str, Any], key: str) -> None:
        weights = self._link(obj, key)
        self._lengths.append((weights, len(weights)))
        bias = next((b for b in BIASES if isinstance(named.get(b), list | tuple)), None)
        biases = None if bias is None else self._link(obj, bias)
        if biases is not None and len(biases) != len(weights):
            raise ConversionError(name, f"{len(weights)} {key} and {len(biases)} {bias}")
        functions = named.get("activations")
        alone = isinstance(functions, list | tuple) and len(functions) == len(weights)
        if alone:
            functions = self._link(obj, "activations")
        for i in range(len(weights)):
            function = self._function(self._link(functions, i)) if alone else None
            place = None if biases is None else place_of(biases, i)
            self.stages.append(Stage(f"{name}.{key}[{i}]", function, place_of(weights, i), place))

    def _numbered(self, owner: Any, items: dict[Any, Any], name: str) -> bool:
        places: dict[str, dict[int, Place]] = {"w": {}, "b": {}}
        for key, value in items.items():
            known = _NUMBERED.fullmatch(key) if isinstance(key, str) else None
            if known is not None and isinstance(value, np.ndarray):
                places[known[1][0].lower()][int(known[2])] = place_of(owner, key)
        for i, weight in sorted(places["w"].items()):
            bias = places["b"].get(i)
            self.stages.append(Stage(f"{name}.{weight.args[1]}", None, weight, bias))
        return bool(places["w"])

    def _activation(self, obj: Any, named: dict[str, Any]) -> Function | None:
        for key in ACTIVATIONS:
            function = self._function(named.get(key))
            if function is not None:
                self._link(obj, key)
                return function
        return None

    def _container(self, obj: Any, name: str) -> bool:
        """Find the layers of a network: in a list, or as attributes in the order of their making."""
        named = attributes(obj)
        inside = [k for k in _LISTS if isinstance(named.get(k), list | tuple) and named[k]]
        inside += [k for k, v in named.items() if _holds_layers(v)]
        if inside:
            inside = inside[:1]
        elif any(_is_layer(v) and _is_dense(v) for v in named.values()):
            inside = [k for k, v in named.items() if _is_layer(v)]
        for key in inside:
            self._visit(self._link(obj, key), f"{key} ({title(named[key])})")
        return bool(inside)


def title(obj: Any) -> str:
    """Return the name of a function or class, else that of an object's class."""
    return getattr(obj, "__name__", type(obj).__name__)


def name_of(obj: Any) -> str:
    """Return the name of a network's class, with that of a method."""
    return obj.__qualname__ if isinstance(obj, MethodType) else type(obj).__name__


def _is_matrix(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 2


def _is_layer(value: Any) -> bool:
    named = isinstance(value, type) or is_function(value)
    return not named and _method(value, *_APPLY) is not None


def _is_dense(value: Any) -> bool:
    named = attributes(value).items()
    return any((k in _WEIGHTS and _is_matrix(v)) or _holds_layers(v) for k, v in named)


def _holds_layers(value: Any) -> bool:
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(_is_layer(v) or is_function(v) for v in value) and any(map(_is_dense, value))


def _method(obj: Any, *names: str) -> Function | None:
    # Calling a class makes an object.
    own = (getattr(obj, n, None) for n in names if n != "__call__" or not isinstance(obj, type))
    return next(filter(callable, own), None)


def function_of(value: Any) -> Function | None:
    """Return the function that an activation is: itself, or a method of an object."""
    return value if is_function(value) else _method(value, *_APPLY)


def original_of(obj: Any) -> tuple[Function, str]:
    """Return the forward pass of an object as it is, and its name."""
    if isinstance(obj, list | tuple):
        return lambda x: _through(obj, x), "calling one layer after the other"
    if isinstance(obj, MethodType):
        return obj, obj.__name__
    name = next((name for name in _WHOLE if _method(obj, name)), None)
    if name is None:
        raise ConversionError(
            type(obj).__name__,
            f"it has no method {', '.join(_FORWARD[:4])}, and can't be called; give the method "
            "that runs it, such as fl.accelerate(network.my_method)",
        )
    return lambda *args, **kwargs: getattr(obj, name)(*args, **kwargs), name


def _through(items: Any, x: Any) -> Any:
    for item in items:
        if isinstance(item, list | tuple):
            x = _through(item, x)
        else:
            x = (_method(item, *_FORWARD, *_APPLY) or item)(x)
    return x
