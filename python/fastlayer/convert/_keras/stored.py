"""The weights in a file of Keras, where they have numbers in a tree of folders, or names in lists."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple, cast

from fastlayer.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array
    from fastlayer.convert._keras.given import Given, Names
    from fastlayer.files.hdf5 import Hdf5

# Keras 2.12 and 2.13 kept the layers of .keras files here.
OLD_FOLDER = "_layer_checkpoint_dependencies"


class Place(NamedTuple):
    """Where a model or layer is in a file: its group, and how the groups below it are named.

    On Windows, Keras 2.12 to 3.0 wrote no groups in each other, but names with backslashes.
    """

    group: int | None  # None where only others below have names
    base: int  # the group that has them all
    prefix: str = ""

    def below(self, stored: Hdf5, folder: str) -> dict[str, Place]:
        """Return the places in a folder, by name."""
        start = f"{self.prefix}{folder}\\" if folder else self.prefix
        flat: dict[str, Place] = {}
        for name, at in _listed(stored, self.base).items():
            if name.startswith(start):
                own, *more = name.removeprefix(start).split("\\")
                group = flat[own].group if own in flat else None
                flat[own] = Place(group if more else at, self.base, f"{start}{own}\\")
        inner = None if flat else stored.find(self.group, folder) if folder else self.group
        if inner is None:
            return flat
        return {name: Place(at, at) for name, at in _listed(stored, inner).items()}


def _listed(stored: Hdf5, group: int) -> dict[str, int]:
    """Return the entries of a group, of each of which something is made."""
    entries = stored.entries(group)
    stored.charge(128 * len(entries), group)
    return entries


class Slots:
    """The layers of a file by their classes: "dense", "dense_1", ...

    What is below a model is listed once for all of its layers.
    """

    def __init__(self, stored: Hdf5) -> None:
        self._stored = stored
        self._below = cache(lambda place, folder: place.below(stored, folder))
        self._alike = cache(self._by_class)

    def weights(self, given: Given, names: Sequence[str]) -> list[Array]:
        """Return the weights of a layer, which have numbers for names."""
        at: Place | None = Place(self._stored.root, self._stored.root)
        for step in given.path:
            at = None if at is None else self._slot(at, step)
        group = None if at is None else self._stored.find(at.group, "vars")
        if group is None:
            raise Damaged(given.place, "has no weights in the file")
        return [_array(self._stored, group, f"{i}", given) for i in range(len(names))]

    def _slot(self, model: Place, names: Names) -> Place | None:
        """Return the place of a layer."""
        old: dict[str, Place] = self._below(model, OLD_FOLDER) if names.folder else {}
        if not old:
            return cast("Place | None", self._below(model, names.folder).get(names.slot))
        # Old files count some layers twice: the numbers may have gaps, and their order is right.
        kind, number = _numbered(names.slot)
        alike = self._alike(model).get(kind, [])
        return old[alike[number]] if number < len(alike) else None

    def _by_class(self, model: Place) -> dict[str, list[str]]:
        """Return the names in an old folder, sorted by their numbers, of each class."""
        found: dict[str, list[str]] = {}
        for name in sorted(self._below(model, OLD_FOLDER), key=lambda name: _numbered(name)[1]):
            found.setdefault(_numbered(name)[0], []).append(name)
        return found


def _numbered(slot: str) -> tuple[str, int]:
    kind, _, number = slot.rpartition("_")
    return (kind, int(number)) if number.isdecimal() and len(number) < 9 else (slot, 0)


def _array(stored: Hdf5, group: int, path: str, given: Given) -> Array:
    found = stored.find(group, path)
    if found is None:
        raise Damaged(given.place, f"its weight {path!r:.60} is missing")
    try:
        return stored.array(found)
    except TypeError as error:
        raise given.refusal(f"its weight {path!r:.60} holds {error}") from error


def has_weights(stored: Hdf5, place: Place) -> bool:
    own = stored.find(place.group, "vars")
    return own is not None and bool(stored.entries(own))


def by_names(stored: Hdf5, root: str, given: Given, names: Sequence[str]) -> list[Array]:
    group = stored.find(stored.root, f"{root}{given.path[0].name}")
    if group is None:
        raise Damaged(given.place, "has no weights in the file")
    held = _weight_names(stored, group, given)
    return [_array(stored, group, _weight(held, given, name), given) for name in names]


def _weight_names(stored: Hdf5, group: int, given: Given) -> list[str]:
    """Return the names of a group's weights, which long lists keep in several attributes."""
    names = stored.texts(group, "weight_names")
    if names is not None:
        return names
    parts: list[list[str]] = []
    while (more := stored.texts(group, f"weight_names{len(parts)}")) is not None:
        parts.append(more)
    given.require(bool(parts), "has no list of weights")
    return [name for part in parts for name in part]


def _weight(held: list[str], given: Given, name: str) -> str:
    """Return which of the weights is meant: "dense/kernel:0", or longer with names of scopes."""
    found = [h for h in held if h.split("/")[-1].split(":")[0] == name]
    if len(given.path) > 1 or len(found) > 1:
        found = [h for h in found if given.path[-1].name in h.split("/")[:-1]]
    given.require(len(found) == 1, f"has {len(found)} weights {name!r} in the file")
    return found[0]
