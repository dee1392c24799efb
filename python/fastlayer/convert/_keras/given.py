"""What is known of a layer of Keras before anything is made of it: its configuration, checked."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.errors import ConversionError, Damaged

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array

    # The weights of a layer with these names, in Keras' order.
    Fetch = Callable[["Where", tuple[str, ...]], list[Array]]


class Where(NamedTuple):
    """A layer: its names from the outermost model inwards, and those that .keras files use."""

    place: str
    names: tuple[str, ...]
    slots: tuple[str, ...]


class Given(NamedTuple):
    """A layer as its configuration tells it."""

    where: Where
    kind: str
    config: dict[str, Any]
    shape: tuple[int | None, ...] | None  # of its input, the samples included

    @property
    def rank(self) -> int | None:
        """Number of axes of its input."""
        return None if self.shape is None else len(self.shape)

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
            raise Damaged(self.where.place, f"{key} is {value!r:.40}")
        return value


class Rules(NamedTuple):
    """What the source decides for all its layers."""

    fetch: Fetch
    version: int  # of Keras, 2 or 3
    threshold: float  # above which the backend's softplus is its input
    merged: bool  # LoRA weights are part of the kernels that `fetch` returns


def snake_case(name: str) -> str:
    """Return the name that Keras derives from that of a class."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def policy(given: Given) -> str | None:
    """Return the dtype in which a layer computes, None where its configuration has none.

    Raises
    ------
    ConversionError
        Neither float32 nor float64.
    """
    value = given.config.get("dtype")
    if isinstance(value, dict):
        inner = value.get("config")
        value = inner.get("name") if isinstance(inner, dict) else None
    if value is None:
        return None
    if value not in ("float32", "float64"):
        raise ConversionError(
            given.where.place,
            f"computes in {value!r:.40}; fastlayer in float32 or float64: make the model with one of "
            "these as its dtype policy, and give it the weights",
        )
    return str(value)


def is_custom(spec: dict[str, Any]) -> bool:
    """Whether a class comes from outside Keras."""
    module = spec.get("module")
    registered = spec.get("registered_name")
    outside = isinstance(module, str) and module.split(".")[0] not in ("keras", "keras_core")
    names = (registered, spec.get("class_name"))
    return outside or any(isinstance(name, str) and ">" in name for name in names)


def as_dict(value: Any, key: str) -> dict[str, Any]:
    """Return a value that has to be an object of JSON."""
    if not isinstance(value, dict):
        raise Damaged(key, f"expected an object, found {value!r:.40}")
    return value


def arrays(given: Given, names: tuple[str, ...], rules: Rules) -> list[Array]:
    """Return the weights of a layer; all are float32 or all float64, as its policy says."""
    found = rules.fetch(given.where, names)
    wanted = policy(given)
    for name, a in zip(names, found, strict=True):
        if a.dtype.name not in ("float32", "float64"):
            raise ConversionError(
                given.where.place, f"has a {name} of {a.dtype}; fastlayer takes float32 or float64"
            )
        if wanted is not None and a.dtype.name != wanted:
            raise Damaged(given.where.place, f"{name} is {a.dtype}, its layer {wanted}")
    return found
