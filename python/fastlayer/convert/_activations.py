"""What each framework calls an activation, and the defaults that it fills in.

One table a framework, from its name to ours. A parameter is given as the framework's name, our
name and the framework's default; a converter reads the value from the model and falls back to that
default, never to ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.activations import Activation

if TYPE_CHECKING:
    from collections.abc import Callable


class Parameter(NamedTuple):
    """`theirs` in the framework is `ours` here."""

    theirs: str
    ours: str
    default: Any


class Entry(NamedTuple):
    """One activation of a framework."""

    name: str
    parameters: tuple[Parameter, ...] = ()

    def make(self, get: Callable[[str, Any], Any]) -> Activation:
        """Make ours; `get(name, default)` looks a parameter up in the framework's object."""
        return Activation(self.name, **{p.ours: get(p.theirs, p.default) for p in self.parameters})
