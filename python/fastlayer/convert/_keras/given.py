"""A layer as its configuration gives it: plain data, which in a file is not to be trusted."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.convert._graph import OneRow
from fastlayer.errors import ConversionError, Damaged
from fastlayer.files.reading import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer.arrays import Array

    Path = tuple["Names", ...]
    Shape = tuple[int | None, ...] | None

MODELS = ("Sequential", "Functional", "Model")
_OPERATIONS = ("keras.src.ops", "keras.src.activations")


class Names(NamedTuple):
    """What a layer is called in its model, and where .keras files keep its weights."""

    name: str
    slot: str
    folder: str = "layers"  # empty for the layer inside of another one


class Source(NamedTuple):
    """Where the weights of a model are, and what decides for all its layers."""

    weights: Callable[[Given, Sequence[str]], list[Array]]  # those of these names
    version: int  # of Keras, 2 or 3
    threshold: float = 40.0  # above which the backend's softplus is its input
    merged: bool = True  # LoRA weights are part of the kernels


class Given(NamedTuple):
    """A layer: where it is, and objects of JSON, which are not to be trusted."""

    place: str
    path: Path  # from the outermost model inwards
    kind: str  # the name of its class
    config: dict[str, Any]
    spec: dict[str, Any]  # with its class and its calls
    source: Source
    shape: Shape = None  # of its input, the samples included

    @property
    def operation(self) -> bool:
        """Whether it is a function of Keras that was called between layers; it has no weights."""
        module = self.spec.get("module")
        return isinstance(module, str) and module.startswith(_OPERATIONS)

    def refusal(self, why: str) -> ConversionError:
        """Return the error of a layer without an exact counterpart."""
        return ConversionError(self.place, why)

    def require(self, met: bool, why: str) -> None:
        """Refuse what no Keras writes."""
        require(met, self.place, why)

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
            raise Damaged(self.place, f"{key} is {value!r:.40}")
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
            if wanted not in (None, a.dtype.name):
                raise Damaged(self.place, f"{name} is {a.dtype}, its layer {wanted}")
        return found

    def last_axis(self, default: int = -1) -> list[OneRow]:
        """Check that it works along the last axis; return what has to hold for that."""
        axis = self.config.get("axis", default)
        if isinstance(axis, list | tuple) and len(axis) == 1:
            axis = axis[0]
        if type(axis) is int:
            if axis == -1 or (self.shape is not None and axis == len(self.shape) - 1):
                return []
            if axis == 1 and self.shape is None:
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
