"""All arrays in an object, for `accelerate` to see what is done with them."""

from __future__ import annotations

import sys
from contextlib import suppress
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._numpy.watched import Watched, attributes, is_function, place_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastlayer.arrays import Array
    from fastlayer.convert._numpy.watched import Place

# An object with more in it is a data set; and longer lists of numbers are no settings.
_MOST_OBJECTS, _DEEPEST, MOST_SETTINGS = 10_000, 32, 64


class Arrays(Watched):
    """All arrays in an object, whatever they are called.

    Attributes
    ----------
    values : list of ndarray
        As they are now, each once.
    places : list of Place
        Where each is.
    own : int
        How many of them are the object's; the rest are global names of its module.
    numbers : list of int
        Whole numbers in it.
    functions : list of callable
        Functions in it that read variables around them.
    of_classes : list of (object, str, ndarray)
        Arrays that objects have of their classes.
    """

    def __init__(self, obj: Any) -> None:
        super().__init__()
        self.values: list[Array] = []
        self.places: list[Place] = []
        self.numbers: list[int] = []
        self.functions: list[FunctionType] = []
        self.of_classes: list[tuple[Any, str, Array]] = []
        self._ways: list[list[tuple[Any, Any]]] = []
        self._shapes: list[tuple[Place, Array]] = []
        self._seen: dict[int, Any] = {}
        self._walk(obj, [])
        self.own = len(self.values)
        for module in {type(o).__module__ for o in self._objects}:
            names = vars(sys.modules[module]) if module in sys.modules else {}
            for name, value in list(names.items()):
                if isinstance(value, np.ndarray):
                    self._walk(value, [(names, name)])

    def _walk(self, value: Any, way: list[tuple[Any, Any]]) -> None:
        if type(value) is int:
            self.numbers.append(value)
        if id(value) in self._seen or len(self._seen) > _MOST_OBJECTS or len(way) > _DEEPEST:
            return
        self._seen[id(value)] = value
        if isinstance(value, np.ndarray) and value.dtype != object:
            self.values.append(value)
            self.places.append(place_of(*way[-1]))
            self._ways.append(way)
        elif isinstance(value, dict | list | tuple) or (
            isinstance(value, np.ndarray) and value.ndim == 1
        ):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            plain = len(value) <= MOST_SETTINGS
            for key, item in list(items):
                if plain and isinstance(item, str | bool | int | float | np.generic | None):
                    self._follow([*way, (value, key)])
                self._walk(item, [*way, (value, key)])
        elif isinstance(value, MethodType):
            self._walk(value.__self__, [*way, (value, "__self__")])
        elif is_function(value):
            self._follow(way)
            if getattr(value, "__closure__", None):
                self.functions.append(value)
                for cell in value.__closure__:
                    with suppress(ValueError):  # an empty one
                        self._walk(cell.cell_contents, [*way, (cell, "cell_contents")])
        elif not isinstance(value, type | ModuleType):
            self._walk_object(value, way)

    def _walk_object(self, obj: Any, way: list[tuple[Any, Any]]) -> None:
        named = attributes(obj)
        if named or hasattr(obj, "__dict__"):
            self._follow(way)
            self._watch(obj, float, int, str, np.float64, np.float32)
        for cls in type(obj).__mro__[:-1]:
            for key, value in vars(cls).items():
                if key in named or key.startswith("__"):
                    continue
                if isinstance(value, np.ndarray):
                    self.of_classes.append((obj, key, value))
                    self._walk(value, [*way, (obj, key)])
                elif isinstance(value, int | float):
                    self._link(obj, key)
        for key in named:
            self._walk(named[key], [*way, (obj, key)])

    def _follow(self, way: list[tuple[Any, Any]]) -> None:
        for owner, key in way:
            self._link(owner, key)

    def use(self, indices: Iterable[int], numbers: set[Any]) -> None:
        """See that a change of the shape of these arrays is noticed, and of where they are kept.

        `numbers` are those that the forward pass calculates with: one of the training may be one.
        """
        for i in indices:
            self._follow(self._ways[i][:-1])
            self._shapes.append((self.places[i], self.values[i]))
        for owner, name in self._passed:
            if getattr(owner, name) in numbers:
                self._link(owner, name)
        self._links = list({(id(r.args[0]), r.args[1]): (r, v) for r, v in self._links}.values())

    def moved(self) -> bool:
        """Whether anything was replaced since that the forward pass depends on."""
        try:
            now = [(place(), then) for place, then in self._shapes]
        except (AttributeError, LookupError):
            return True
        if any(a.shape != then.shape or a.dtype != then.dtype for a, then in now):
            return True
        return super().moved()
