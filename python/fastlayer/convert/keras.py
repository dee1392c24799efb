"""Keras models as networks: `from_keras`, for live ones, and `load_keras`, for .keras and .h5 files.

Keras itself is never imported here.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from fastlayer.convert._keras.config import from_config
from fastlayer.convert._keras.layers import Source
from fastlayer.errors import ConversionError, Damaged
from fastlayer.files.hdf5 import MAGIC, Hdf5
from fastlayer.files.reading import (
    LARGEST_JSON,
    parse_json,
    read_bytes,
    reading,
    require,
    size_of,
)
from fastlayer.files.zip import members

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from fastlayer.arrays import Array
    from fastlayer.convert._keras.layers import Given
    from fastlayer.files.zip import Member
    from fastlayer.network.network import Network

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# Keras 2.12 and 2.13 kept the layers of .keras files here.
_OLD_FOLDER = "_layer_checkpoint_dependencies"


def from_keras(model: Any, *, verify: bool = True) -> Network:
    """Make a network from a Keras model.

    The network does what the model does in inference: dropout and noise are left out and batch
    normalisations use their moving statistics. Weights are copied; call this again after more
    training.

    Parameters
    ----------
    model : keras.Sequential or keras.Model
        Sequential, or functional with one input, one output and residual sums; models may be
        inside each other. Layers: Dense, Activation, ReLU, LeakyReLU, PReLU, ELU, Softmax,
        BatchNormalization, LayerNormalization, RMSNormalization, Normalization, Rescaling,
        Flatten, Dropout and its relatives. All of them compute in float32 or all in float64,
        and so does the network.
    verify : bool
        Run both on random and edge inputs, and refuse where they differ by more than rounding.
        Keras 3 rounds the products of a float64 model to float32, except with the TensorFlow
        backend; the network does not, so the proof of one is to float32's rounding.

    Returns
    -------
    Network
        Its `verification` tells how far the two were apart.

    Raises
    ------
    ConversionError
        A layer without an exact counterpart; the message names it.
    TypeError
        Not a Keras model.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import keras
    >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "relu")]
    >>> fl.from_keras(keras.Sequential(layers))
    Network([
        Layer(4, 3, activation='relu', dtype=float32),
    ])
    """
    keras = _keras_of(model)
    if keras is None:
        hint = "; files go to fl.load" if isinstance(model, str | os.PathLike) else ""
        raise TypeError(f"from_keras takes a Keras model, got {type(model).__name__}{hint}")
    name = f"keras {type(model).__name__} {model.name!r}"
    if not model.built:
        raise ConversionError(name, "has no weights yet; call it on some rows first")
    version = int(keras.__version__.split(".")[0])
    backend = keras.backend.backend()
    # torch's softplus is its input above 20; elsewhere it is the definition, see the table.
    source = Source(partial(_weights, keras, model), version, 20.0 if backend == "torch" else 40.0)
    try:
        config = model.get_config()
    except Exception as error:  # of a custom layer or model
        raise ConversionError(
            name, f"has no configuration ({error}); layers of one's own can't be converted"
        ) from error
    try:
        draft = from_config({"class_name": _kind(model), "config": config}, source, name)
    except Damaged as error:
        raise ConversionError(error.key, error.why) from error
    if not verify:
        return draft.network()
    # Keras 3 computes products of float64 in float32, but for the TensorFlow backend.
    kept = getattr(keras.backend, "result_type", lambda *dtypes: dtypes[0])
    computes = np.dtype(kept(draft.dtype.name, draft.dtype.name))
    return draft.proved(lambda x: _run(keras, model, x), computes)


def _keras_of(model: object) -> Any:
    """Return the Keras that made a model, None for anything else."""
    known = (sys.modules.get("keras"), sys.modules.get("tf_keras"))
    return next((k for k in known if isinstance(model, getattr(k, "Model", ()))), None)


def _kind(model: Any) -> str:
    """Return the kind of model; a class of the user's is what it inherits from, if that runs it."""
    own: Any = type(model)
    for cls in own.__mro__:
        known = cls.__module__.split(".")[0] in ("keras", "tf_keras")
        if known and cls.__name__ in ("Sequential", "Functional") and own.call is cls.call:
            return str(cls.__name__)
    return str(own.__name__)


def _weights(keras: Any, layer: Any, given: Given, names: Sequence[str]) -> list[Array]:
    """Return weights of a layer; `layer` is the model that its path starts in."""
    for step in given.path:
        layer = layer.get_layer(step.name)
    return [_numpy(keras, getattr(layer, name)) for name in names]


def _numpy(keras: Any, value: Any) -> Array:
    ops = getattr(keras, "ops", None)
    a: Array = value.numpy() if ops is None else ops.convert_to_numpy(value)
    return np.asarray(a)


def _run(keras: Any, model: Any, x: Array) -> Array:
    """Run a model on rows, whatever the shape of its samples."""
    shape = [d or 1 for d in model.input_shape[1:]]
    # A model that works on the last of several axes takes more than a row for one sample.
    rows = -(-x.size // prod(shape))
    samples = np.resize(x, (rows, *shape))
    result = model(samples, training=False)
    # A dictionary or list of one output.
    result = next(iter(result.values())) if isinstance(result, dict) else result
    y = _numpy(keras, result[0] if isinstance(result, list | tuple) else result)
    return y.reshape(-1, y.shape[-1])[: len(x)]


def load_keras(path: str | PathLike[str]) -> Network:
    """Read the network in a .keras or .h5 file, as JSON and arrays.

    Keras is not needed, and nothing in a file is instantiated or executed: layers outside the
    tables of `_keras.layers`, Lambda among them, are refused.

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
    require(CONFIG in archive, CONFIG, "is missing; this is not a model that Keras saved")
    why = "is missing; fastlayer reads the weights that Keras saves as HDF5"
    require(WEIGHTS in archive, WEIGHTS, why)
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


class _Place(NamedTuple):
    """Where a model or layer is in a file: its group, and how the groups below it are named.

    On Windows, Keras 2.12 to 3.0 wrote no groups in each other, but names with backslashes.
    """

    group: int | None  # None where only others below have names
    base: int  # the group that has them all
    prefix: str = ""

    def below(self, stored: Hdf5, folder: str) -> dict[str, _Place]:
        """Return the places in a folder, by name."""
        start = f"{self.prefix}{folder}\\"
        flat: dict[str, _Place] = {}
        for name, at in stored.entries(self.base).items():
            if name.startswith(start):
                own, *more = name.removeprefix(start).split("\\")
                group = flat[own].group if own in flat else None
                flat[own] = _Place(group if more else at, self.base, f"{start}{own}\\")
        inner = None if flat else stored.find(self.group, folder)
        if inner is None:
            return flat
        return {name: _Place(at, at) for name, at in stored.entries(inner).items()}


def _by_slots(stored: Hdf5, given: Given, names: Sequence[str]) -> list[Array]:
    at: _Place | None = _Place(stored.root, stored.root)
    for step in given.path:
        at = None if at is None else _slot(stored, at, step.slot)
    group = None if at is None else stored.find(at.group, "vars")
    if group is None:
        raise Damaged(given.place, "has no weights in the file")
    return [_array(stored, group, f"{i}", given) for i in range(len(names))]


def _slot(stored: Hdf5, model: _Place, slot: str) -> _Place | None:
    """Return the place of a layer, named after its class: "dense", "dense_1", ..."""
    old = model.below(stored, _OLD_FOLDER)
    if not old:
        return model.below(stored, "layers").get(slot)
    # Old files count some layers twice: the numbers may have gaps, and their order is right.
    kind, number = _numbered(slot)
    alike = [name for name in old if _numbered(name)[0] == kind]
    alike.sort(key=lambda name: _numbered(name)[1])
    return old[alike[number]] if number < len(alike) else None


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
