"""Places in an object, and what was there when they were looked at."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from operator import getitem
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    Place = partial[Any]  # called, it gives what is there: an attribute, an item of a list or dict

BIASES = ("_b", "b", "biases", "bias", "_biases", "_bias")
ACTIVATIONS = (
    *("act_function", "activation", "activation_function", "activation_fn", "activation_func"),
    *("act", "act_fn", "act_func", "_activation", "activations"),
)

# Words in the names of numbers that training changes all the time, and no forward pass reads.
_TRAINING = ("lr", "learn", "loss", "cost", "err", "moment", "decay", "reg", "acc", "time")
_COUNTERS = ("epoch", "iter", "step", "count", "seed")  # of whole ones


class Watched:
    """Places in an object, and what must stay the same for what was found there to hold."""

    def __init__(self) -> None:
        self._objects: list[Any] = []
        self._links: list[tuple[Place, Any]] = []
        self._lengths: list[tuple[Any, int]] = []
        self._passed: list[tuple[Any, str]] = []  # numbers of the training

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
        values = [v for _, then in before for v in then.values()]
        lists = [(v, list(v)) for v in values if isinstance(v, list)]
        dicts = [(v, dict(v)) for v in values if isinstance(v, dict)]
        try:
            yield
        finally:
            for now, then in before:
                for key in now.keys() - then.keys():
                    del now[key]
                now.update(then)
            for kept, items in lists:
                kept[:] = items
            for named, entries in dicts:
                named.clear()
                named.update(entries)

    def _link(self, owner: Any, key: Any) -> Any:
        """Return what is in a place, and remember that it was that."""
        read = place_of(owner, key)
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
        for name, value in attributes(obj).items():
            absent = isinstance(value, str | None) and name in (*ACTIVATIONS, *BIASES)
            number = type(value) in numbers
            words = (*_TRAINING, *_COUNTERS) if type(value) is int else _TRAINING
            training = number and any(word in name for word in words)
            if type(value) is bool or absent or (number and not training):
                self._link(obj, name)
            elif training:
                self._passed.append((obj, name))


def place_of(owner: Any, key: Any) -> Place:
    items = isinstance(owner, list | tuple | dict | np.ndarray)
    return partial(getitem if items else getattr, owner, key)


def attributes(obj: Any) -> dict[str, Any]:
    """Return the attributes of an object, in the order in which they were made."""
    slots = getattr(type(obj), "__slots__", ())
    named = [slots] if isinstance(slots, str) else slots
    own = {name: getattr(obj, name) for name in named if hasattr(obj, name)}
    return {**own, **getattr(obj, "__dict__", {})}


def is_function(obj: Any) -> bool:
    return callable(obj) and hasattr(obj, "__name__") and not isinstance(obj, type)
