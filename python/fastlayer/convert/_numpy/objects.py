"""What is in a hand-written network: its arrays and functions, found by the names of tutorials.

Nothing is taken for granted that is found here: `accelerate` proves what it makes of it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import partial
from operator import getitem
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Function = Callable[..., Any]
    Place = partial[Any]  # called, it gives what is there: an attribute, an item of a list or dict

_WEIGHTS = ("_W", "W", "weights", "weight", "_weights", "_weight", "kernel", "w", "_w")
_BIASES = ("_b", "b", "biases", "bias", "_biases", "_bias")
_NUMBERED = re.compile(r"_*(W|w|weights?|b|bias(?:es)?)_*(\d+)")
_LISTS = ("layers", "_layers", "modules", "_modules", "stages")
_ACTIVATIONS = (
    *("act_function", "activation", "activation_function", "activation_fn", "activation_func"),
    *("act", "act_fn", "act_func", "_activation", "activations"),
)
_FORWARD = ("forward_pass", "forward", "feedforward", "feed_forward", "propagate", "__call__")
_WHOLE = (*_FORWARD, "predict_proba", "predict")
_APPLY = ("f", "forward", "activate", "forward_pass", "__call__")

# Words in the names of numbers that training changes all the time, and no forward pass reads.
_TRAINING = ("lr", "learn", "loss", "cost", "err", "moment", "decay", "reg", "acc", "time")


class Stage(NamedTuple):
    """A layer with weights, or a function between layers."""

    name: str
    function: Function | None  # the activation of a layer, where it has one
    weight: Place | None = None
    bias: Place | None = None
    forward: Function | None = None  # all of a layer, where it can be run alone


class Found:
    """The stages of a network in order, and what must stay the same for that to hold.

    Raises
    ------
    ConversionError
        A part that is not understood, or nothing with weights.
    """

    def __init__(self, obj: Any) -> None:
        self.stages: list[Stage] = []
        self._objects: list[Any] = []
        self._links: list[tuple[Place, Any]] = []
        self._lengths: list[tuple[Any, int]] = []
        name = type(obj).__name__
        try:
            self._visit(obj, name)
        except RecursionError:
            raise ConversionError(name, "its layers are inside each other") from None
        if not self.dense:
            raise ConversionError(
                name,
                f"found no dense layer in it: a 2-D array called {', '.join(_WEIGHTS)}, W1, W2, "
                f"..., or a list of layers called {', '.join(_LISTS[:2])}; for arrays in variables "
                "see fl.linear, fl.dense_forward and fl.Layer.from_arrays",
            )

    @property
    def dense(self) -> list[Stage]:
        """The stages that have weights."""
        return [stage for stage in self.stages if stage.weight is not None]

    def moved(self) -> bool:
        """Whether a list, layer, activation or parameter of one was replaced since."""
        try:
            for read, value in self._links:
                if read() is not value:
                    return True
        except (AttributeError, LookupError):
            return True
        return any(len(container) != n for container, n in self._lengths)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Give objects back the attributes that they had: running a layer may cache its input."""
        attributes = [getattr(obj, "__dict__", None) for obj in self._objects]
        before = [(now, dict(now)) for now in attributes if isinstance(now, dict)]
        lists = [(v, list(v)) for _, then in before for v in then.values() if isinstance(v, list)]
        try:
            yield
        finally:
            for now, then in before:
                for key in now.keys() - then.keys():
                    del now[key]
                now.update(then)
            for value, items in lists:
                value[:] = items

    def _link(self, owner: Any, key: Any) -> Any:
        """Return what is in a place, and remember that it was that."""
        read = _place(owner, key)
        self._links.append((read, read()))
        return self._links[-1][1]

    def _watch(self, obj: Any, *numbers: type[Any]) -> None:
        """See that a change of what a forward pass may depend on is noticed.

        That is a flag, an activation or bias that is not there or is a name, `numbers` of these
        types, which may be slopes, and an attribute that is new and so may hide one of the class.
        """
        self._objects.append(obj)
        if hasattr(obj, "__dict__"):
            self._lengths.append((vars(obj), len(vars(obj))))
        for name, value in _attributes(obj).items():
            absent = isinstance(value, str | None) and name in (*_ACTIVATIONS, *_BIASES)
            number = type(value) in numbers and not any(word in name for word in _TRAINING)
            if type(value) is bool or absent or number:
                self._link(obj, name)

    def _visit(self, obj: Any, name: str) -> None:
        if isinstance(obj, list | tuple):
            self._lengths.append((obj, len(obj)))
            for i in range(len(obj)):
                item = self._link(obj, i)
                self._visit(item, f"layer {i} ({title(item)})")
        elif not _is_function(obj) and (self._arrays(obj, name) or self._container(obj, name)):
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
        named = _attributes(obj)
        for key in _WEIGHTS:
            value = named.get(key)
            if _is_matrix(value):
                bias = next((b for b in _BIASES if named.get(b) is not None), None)
                place = None if bias is None else _place(obj, bias)
                function, forward = self._activation(obj, named), _method(obj, *_FORWARD)
                self.stages.append(Stage(name, function, _place(obj, key), place, forward))
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
        bias = next((b for b in _BIASES if isinstance(named.get(b), list | tuple)), None)
        biases = None if bias is None else self._link(obj, bias)
        if biases is not None and len(biases) != len(weights):
            raise ConversionError(name, f"{len(weights)} {key} and {len(biases)} {bias}")
        functions = named.get("activations")
        alone = isinstance(functions, list | tuple) and len(functions) == len(weights)
        if alone:
            functions = self._link(obj, "activations")
        for i in range(len(weights)):
            function = self._function(self._link(functions, i)) if alone else None
            place = None if biases is None else _place(biases, i)
            self.stages.append(Stage(f"{name}.{key}[{i}]", function, _place(weights, i), place))

    def _numbered(self, owner: Any, items: dict[Any, Any], name: str) -> bool:
        places: dict[str, dict[int, Place]] = {"w": {}, "b": {}}
        for key, value in items.items():
            known = _NUMBERED.fullmatch(key) if isinstance(key, str) else None
            if known is not None and isinstance(value, np.ndarray):
                places[known[1][0].lower()][int(known[2])] = _place(owner, key)
        for i, weight in sorted(places["w"].items()):
            bias = places["b"].get(i)
            self.stages.append(Stage(f"{name}.{weight.args[1]}", None, weight, bias))
        return bool(places["w"])

    def _activation(self, obj: Any, named: dict[str, Any]) -> Function | None:
        for key in _ACTIVATIONS:
            function = self._function(named.get(key))
            if function is not None:
                self._link(obj, key)
                return function
        return None

    def _container(self, obj: Any, name: str) -> bool:
        """Find the layers of a network: in a list, or as attributes in the order of their making."""
        named = _attributes(obj)
        inside = [k for k in _LISTS if isinstance(named.get(k), list | tuple) and named[k]]
        inside += [k for k, v in named.items() if _holds_layers(v)]
        if inside:
            inside = inside[:1]
        elif any(_is_layer(v) and _is_dense(v) for v in named.values()):
            inside = [k for k, v in named.items() if _is_layer(v)]
        for key in inside:
            self._visit(self._link(obj, key), f"{key} ({title(named[key])})")
        return bool(inside)


def _place(owner: Any, key: Any) -> Place:
    return partial(getitem if isinstance(owner, list | tuple | dict) else getattr, owner, key)


def _attributes(obj: Any) -> dict[str, Any]:
    """Return the attributes of an object, in the order in which they were made."""
    slots = getattr(type(obj), "__slots__", ())
    named = [slots] if isinstance(slots, str) else slots
    own = {name: getattr(obj, name) for name in named if hasattr(obj, name)}
    return {**own, **getattr(obj, "__dict__", {})}


def title(obj: Any) -> str:
    """Return the name of a function or class, else that of an object's class."""
    return getattr(obj, "__name__", type(obj).__name__)


def _is_function(obj: Any) -> bool:
    return callable(obj) and hasattr(obj, "__name__") and not isinstance(obj, type)


def _is_matrix(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 2


def _is_layer(value: Any) -> bool:
    named = isinstance(value, type) or _is_function(value)
    return not named and _method(value, *_APPLY) is not None


def _is_dense(value: Any) -> bool:
    named = _attributes(value).items()
    return any((k in _WEIGHTS and _is_matrix(v)) or _holds_layers(v) for k, v in named)


def _holds_layers(value: Any) -> bool:
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(_is_layer(v) or _is_function(v) for v in value) and any(map(_is_dense, value))


def _method(obj: Any, *names: str) -> Function | None:
    # Calling a class makes an object.
    own = (getattr(obj, n, None) for n in names if n != "__call__" or not isinstance(obj, type))
    return next(filter(callable, own), None)


def function_of(value: Any) -> Function | None:
    """Return the function that an activation is: itself, or a method of an object."""
    return value if _is_function(value) else _method(value, *_APPLY)


def original_of(obj: Any) -> tuple[Function, str]:
    """Return the forward pass of an object as it is, and its name."""
    if isinstance(obj, list | tuple):
        return lambda x: _through(obj, x), "calling one layer after the other"
    name = next((name for name in _WHOLE if _method(obj, name)), None)
    if name is None:
        raise ConversionError(
            type(obj).__name__, f"it has no method {', '.join(_FORWARD[:4])}, and can't be called"
        )
    return lambda *args, **kwargs: getattr(obj, name)(*args, **kwargs), name


def _through(items: Any, x: Any) -> Any:
    for item in items:
        if isinstance(item, list | tuple):
            x = _through(item, x)
        else:
            x = (_method(item, *_FORWARD, *_APPLY) or item)(x)
    return x
