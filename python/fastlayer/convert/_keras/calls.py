"""How the layers of a functional Keras model are connected: what each call of a layer was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlayer.convert._affine import Affine
from fastlayer.convert._keras.given import as_dict
from fastlayer.errors import ConversionError, Damaged

if TYPE_CHECKING:
    from fastlayer.convert._keras.given import Given

    Key = tuple[str, int]  # a layer's name, and the number of a call of it

_CONSTANTS = {"Add", "Subtract", "Multiply", "Divide", "TrueDivide"}


def only(value: Any, key: str) -> Key:
    """Return the one input or output of a model: ["name", 0, 0], or that in a list."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        if len(value) != 1:
            raise ConversionError(key, f"has {len(value)} inputs or outputs; a network has one")
        value = value[0]
    return _key(value, key)


def _key(value: Any, place: str) -> Key:
    if (
        not isinstance(value, list | tuple)
        or len(value) < 3
        or not isinstance(value[0], str)
        or type(value[1]) is not int
        or value[2] != 0
    ):
        raise Damaged(place, f"is connected to {value!r:.40}")
    return value[0], value[1]


def inputs(spec: dict[str, Any], node: int, place: str) -> tuple[list[Key], list[float | None]]:
    """Return what a layer is called with, in order: None in the second list is a tensor."""
    nodes = spec.get("inbound_nodes")
    if not isinstance(nodes, list) or not 0 <= node < len(nodes):
        raise Damaged(place, f"has no call number {node}")
    call = nodes[node]
    if isinstance(call, dict):  # Keras 3
        arguments, options = call.get("args"), call.get("kwargs")
        items = _flat(arguments)
    elif isinstance(call, list):  # Keras 2: [name, node, tensor, options] for each tensor
        entries = [call] if call and isinstance(call[0], str) else call
        items = [
            {"class_name": "__keras_tensor__", "config": {"keras_history": e}} for e in entries
        ]
        last = entries[-1] if entries else None
        options = last[3] if isinstance(last, list) and len(last) > 3 else {}
    else:
        raise Damaged(place, f"is called with {call!r:.40}")
    if not isinstance(options, dict):
        raise Damaged(place, f"is called with {options!r:.40}")
    if options.get("training"):
        raise ConversionError(
            place, "is called with training=True, which makes its result random; leave that out"
        )
    tensors: list[Key] = []
    numbers: list[float | None] = []
    for item in items:
        if isinstance(item, dict) and item.get("class_name") == "__keras_tensor__":
            tensors.append(_key(as_dict(item.get("config"), place).get("keras_history"), place))
            numbers.append(None)
        elif isinstance(item, int | float) and not isinstance(item, bool):
            numbers.append(float(item) if abs(item) < 1e300 else float("inf"))
        else:
            raise ConversionError(
                place, f"is called with {item!r:.60}, which is not an array or number"
            )
    return tensors, numbers


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [x for v in value for x in (v if isinstance(v, list | tuple) else [v])]
    return [value]


def with_number(given: Given, numbers: list[float | None]) -> Affine:
    """Return the step that combines an array with a number, as ``x * 2`` does.

    Raises
    ------
    ConversionError
        Another operation than a sum, difference, product or quotient.
    """
    place, kind = given.where.place, given.kind
    if kind not in _CONSTANTS or len(numbers) != 2 or numbers.count(None) != 1:
        raise ConversionError(place, "combines its input with numbers in a way that is not known")
    first = numbers[0] is not None
    c = next(n for n in numbers if n is not None)
    if kind in ("Divide", "TrueDivide") and (first or c == 0):
        raise ConversionError(place, "divides a number by its input, or its input by zero")
    if kind == "Add":
        return Affine.of(1.0, c)
    if kind == "Subtract":
        return Affine.of(-1.0, c) if first else Affine.of(1.0, -c)
    return Affine.of(c if kind == "Multiply" else 1 / c)
