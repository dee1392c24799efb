"""A layer of Keras as its configuration tells it, and what is checked of that."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.convert._graph import OneRow
from fastlayer.errors import ConversionError, Damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer.arrays import Array

    Path = tuple["Names", ...]
    Shape = tuple[int | None, ...] | None


class Names(NamedTuple):
    """What a layer is called in its model, and where .keras files keep its weights."""

    name: str
    slot: str


class Source(NamedTuple):
    """Where the weights of a model are, and what decides for all its layers."""

    weights: Callable[[Given, Sequence[str]], list[Array]]  # those of these names
    version: int  # of Keras, 2 or 3
    threshold: float = 40.0  # above which the backend's softplus is its input
    merged: bool = True  # LoRA weights are part of the kernels


class Given(NamedTuple):
    """A layer: where it is, and an object of JSON, which is not to be trusted."""

    place: str
    path: Path  # from the outermost model inwards
    spec: dict[str, Any]
    source: Source
    shape: Shape = None  # of its input, the samples included

    @property
    def kind(self) -> str:
        """The name of its class."""
        return str(self.spec["class_name"])

    @property
    def config(self) -> dict[str, Any]:
        """Its own configuration."""
        config = self.spec.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def rank(self) -> int | None:
        """Number of axes of its input."""
        return None if self.shape is None else len(self.shape)

    def refusal(self, why: str) -> ConversionError:
        """Return the error of a layer without an exact counterpart."""
        return ConversionError(self.place, why)

    def damage(self, why: str) -> Damaged:
        """Return the error of a layer that no Keras writes."""
        return Damaged(self.place, why)

    def get(self, key: str, default: Any, *kinds: type[Any]) -> Any:
        """Return an entry of the configuration, of one of these types where it is there."""
        value = self.config.get(key, default)
        if value is default:
            return value
        if float in kinds and type(value) is int:
            try:
                value = float(value)
            except OverflowError:
                value = math.inf
        wrong = isinstance(value, bool) and bool not in kinds
        if wrong or not isinstance(value, kinds) or (type(value) is float and math.isnan(value)):
            raise self.damage(f"{key} is {value!r:.40}")
        return value

    def dtype(self) -> str | None:
        """Return the dtype in which it computes, None where its configuration has none.

        Raises
        ------
        ConversionError
            Neither float32 nor float64.
        """
        value: str | None = unwrapped(self.config.get("dtype"), "name")
        if value in (None, "float32", "float64"):
            return value
        raise self.refusal(
            f"computes in {value!r:.40}; fastlayer in float32 or float64: make the model with one of "
            "these as its dtype policy, and give it the weights"
        )

    def arrays(self, names: Sequence[str]) -> list[Array]:
        """Return its weights of these names; all have the dtype in which it computes."""
        found = self.source.weights(self, names)
        wanted = self.dtype()
        for name, a in zip(names, found, strict=True):
            if a.dtype.name not in ("float32", "float64"):
                raise self.refusal(f"has a {name} of {a.dtype}; fastlayer takes float32 or float64")
            if wanted is not None and a.dtype.name != wanted:
                raise self.damage(f"{name} is {a.dtype}, its layer {wanted}")
        return found

    def last_axis(self, default: int = -1) -> list[OneRow]:
        """Check that it works along the last axis; return what has to hold for that."""
        axis = self.config.get("axis", default)
        if isinstance(axis, list | tuple) and len(axis) == 1:
            axis = axis[0]
        if type(axis) is int:
            if axis == -1 or (self.rank is not None and axis == self.rank - 1):
                return []
            if axis == 1 and self.rank is None:
                return [OneRow(self.place)]
        raise self.refusal(f"works along axis {axis!r:.40}; in a network that is the last, axis=-1")


def as_dict(value: Any, key: str) -> dict[str, Any]:
    """Return a value that has to be an object of JSON."""
    if not isinstance(value, dict):
        raise Damaged(key, f"expected an object, found {value!r:.40}")
    return value


def unwrapped(value: Any, key: str) -> Any:
    """Return the entry of the configuration where a value is an object of Keras's own."""
    if not isinstance(value, dict):
        return value
    inner = value.get("config")
    return inner.get(key) if isinstance(inner, dict) else None


def snake_case(name: str) -> str:
    """Return the name that Keras derives from that of a class."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def is_custom(spec: dict[str, Any]) -> bool:
    """Whether a class comes from outside Keras."""
    module = spec.get("module")
    outside = isinstance(module, str) and module.split(".")[0] not in ("keras", "keras_core")
    names = (spec.get("registered_name"), spec.get("class_name"))
    return outside or any(isinstance(name, str) and ">" in name for name in names)
