"""What was found in a hand-written network: where its arrays are, and its stages in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Slot(NamedTuple):
    """A place that is read again at every call: an attribute, an item of a list or a dict."""

    owner: Any
    key: Any

    def read(self) -> Any:
        """Return what is there now."""
        container, key = self.place()
        return container[key]

    def place(self) -> tuple[Any, Any]:
        """Return a container and its key, which is what an attribute is in the end."""
        if isinstance(self.owner, list | tuple | dict):
            return self.owner, self.key
        own = getattr(self.owner, "__dict__", None)
        return (_Slots(self.owner) if own is None or self.key not in own else own), self.key


class _Slots:
    """The attributes of an object without a dict of them."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self.owner, key)
        except AttributeError as error:
            raise KeyError(key) from error


class Dense(NamedTuple):
    """A weight, a bias, and what is known of the activation behind them."""

    name: str
    weight: Slot
    bias: Slot | None
    function: Callable[..., Any] | None  # its activation, where it has one
    forward: Callable[..., Any] | None  # all of the layer, where it can be run alone


class Function(NamedTuple):
    """A step without weights."""

    name: str
    function: Callable[..., Any]
    owner: Any


class Found:
    """The stages of a network in order, and what must stay the same for that to hold."""

    def __init__(self) -> None:
        self.stages: list[Dense | Function] = []
        self.objects: list[Any] = []
        # Containers are lists, tuples, and the dicts that attributes live in: fast to look up.
        self._links: list[tuple[Any, Any, Any]] = []
        self._lengths: list[tuple[Any, int]] = []

    def link(self, owner: Any, key: Any) -> Any:
        """Return what is in a place, and remember that it was that."""
        slot = Slot(owner, key)
        self._links.append((*slot.place(), slot.read()))
        return self._links[-1][2]

    def length(self, container: Any) -> None:
        """Remember how many items a list has."""
        self._lengths.append((container, len(container)))

    def moved(self) -> bool:
        """Whether a list, layer, activation or parameter of one was replaced since."""
        try:
            for container, key, value in self._links:
                if container[key] is not value:
                    return True
            for container, n in self._lengths:
                if len(container) != n:
                    return True
        except LookupError:
            return True
        return False

    @property
    def dense(self) -> list[Dense]:
        """The stages that have weights."""
        return [stage for stage in self.stages if isinstance(stage, Dense)]
