"""Networks from the files of Keras: .keras and .h5, read as JSON and arrays.

Keras is not needed and nothing in a file is instantiated or executed: layers outside the tables of
`_keras.layers`, Lambda among them, are refused.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from fastlayer.convert._keras.config import from_config
from fastlayer.convert._keras.given import Source
from fastlayer.errors import ConversionError, Damaged
from fastlayer.files.hdf5 import MAGIC, Hdf5
from fastlayer.files.reading import LARGEST_JSON, parse_json, read_bytes, reading, require, size_of
from fastlayer.files.zip import members

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from typing import BinaryIO

    from fastlayer.arrays import Array
    from fastlayer.convert._keras.given import Given
    from fastlayer.files.zip import Member
    from fastlayer.network.network import Network

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# Keras 2.12 and 2.13 kept the layers of .keras files here.
_OLD_FOLDER = "_layer_checkpoint_dependencies"


def load_keras(path: str | PathLike[str]) -> Network:
    """Read the network in a .keras or .h5 file.

    Parameters
    ----------
    path : path
        A whole model: its configuration and weights, as ``model.save`` writes them, with
        Keras 3 or 2.

    Returns
    -------
    Network

    Raises
    ------
    ModelFileError
        The file is damaged, or has weights alone.
    ConversionError
        A layer without an exact counterpart; see `from_keras`.
    OSError
        The file can't be read.
    """
    name = os.fspath(path)
    with reading(name) as file:
        try:
            read = _read_h5 if file.read(len(MAGIC)) == MAGIC else _read_archive
            config, source = read(file)
            return from_config(config, source, os.path.basename(name)).network()
        except ConversionError as error:
            raise ConversionError(f"{name}: {error.place}", error.why) from error.__cause__


def _version(text: Any) -> int:
    """Return the major version of Keras; files that do not say are older than that."""
    major = text.split(".")[0] if isinstance(text, str) else ""
    return int(major) if major in ("1", "2", "3", "4") else 2


def _read_archive(file: BinaryIO) -> tuple[Any, Source]:
    archive = members(file)
    for member in (CONFIG, WEIGHTS):
        if member not in archive:
            why = "is missing; this is not a model that Keras saved"
            if CONFIG in archive:
                why = "is missing; fastlayer reads the weights that Keras saves as HDF5"
            raise Damaged(member, why)
    config = _json(archive, CONFIG)
    metadata = _json(archive, METADATA) if METADATA in archive else None
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    content = memoryview(archive[WEIGHTS].read())
    stored = Hdf5(lambda at, size: content[at : at + size], len(content))
    return config, Source(partial(_by_slots, stored), _version(version))


def _json(archive: dict[str, Member], key: str) -> Any:
    size = archive[key].size
    require(size <= LARGEST_JSON, key, f"has {size} bytes, more than any model's")
    return parse_json(archive[key].read(), key)


def _by_slots(stored: Hdf5, given: Given, names: Sequence[str]) -> list[Array]:
    at: int | None = stored.root
    for step in given.path:
        at = None if at is None else _slot(stored, at, step.slot)
    group = None if at is None else stored.find(at, "vars")
    if group is None:
        raise given.damage("has no weights in the file")
    return [_array(stored, group, f"{i}", given) for i in range(len(names))]


def _slot(stored: Hdf5, model: int, slot: str) -> int | None:
    """Return the group of a layer, named after its class: "dense", "dense_1", ..."""
    old = stored.find(model, _OLD_FOLDER)
    if old is None:
        return stored.find(model, f"layers/{slot}")
    # Old files count some layers twice: the numbers may have gaps, and their order is right.
    kind, number = _numbered(slot)
    alike = [name for name in stored.entries(old) if _numbered(name)[0] == kind]
    alike.sort(key=lambda name: _numbered(name)[1])
    return stored.find(old, alike[number]) if number < len(alike) else None


def _numbered(slot: str) -> tuple[str, int]:
    kind, _, number = slot.rpartition("_")
    return (kind, int(number)) if number.isdecimal() and len(number) < 9 else (slot, 0)


def _array(stored: Hdf5, group: int, path: str, given: Given) -> Array:
    found = stored.find(group, path)
    if found is None:
        raise given.damage(f"its weight {path!r:.60} is missing")
    try:
        return stored.array(found)
    except TypeError as error:
        raise given.refusal(f"its weight {path!r:.60} holds {error}") from error


def _read_h5(file: BinaryIO) -> tuple[Any, Source]:
    stored = Hdf5(lambda at, size: read_bytes(file, at, size, "HDF5 data"), size_of(file))
    text = stored.texts(stored.root, "model_config")
    if not text:
        why = "is missing; this is not a model that Keras saved"
        if stored.texts(stored.root, "layer_names") or "layers" in stored.entries(stored.root):
            why = (
                "is missing: the file has weights alone, without the layers they belong to; save "
                "the whole model with model.save('model.keras'), or make the layers with "
                "fl.Layer.from_arrays"
            )
        raise Damaged("model_config", why)
    config = parse_json(text[0].encode(), "model_config")
    version = _version(next(iter(stored.texts(stored.root, "keras_version") or []), None))
    return config, Source(partial(_by_names, stored), version, merged=False)


def _by_names(stored: Hdf5, given: Given, names: Sequence[str]) -> list[Array]:
    group = stored.find(stored.root, f"model_weights/{given.path[0].name}")
    if group is None:
        raise given.damage("has no weights in the file")
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
    if not parts:
        raise given.damage("has no list of weights")
    return [name for part in parts for name in part]


def _weight(held: list[str], given: Given, name: str) -> str:
    """Return which of the weights is meant: "dense/kernel:0", or longer with names of scopes."""
    found = [h for h in held if h.split("/")[-1].split(":")[0] == name]
    if len(given.path) > 1 or len(found) > 1:
        found = [h for h in found if given.path[-1].name in h.split("/")[:-1]]
    if len(found) != 1:
        raise given.damage(f"has {len(found)} weights {name!r} in the file")
    return found[0]
