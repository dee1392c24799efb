"""Keras models as networks: `from_keras`, for live ones, and `load_keras`, for .keras and .h5 files.

Keras itself is never imported here.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO, overload

import numpy as np

from fastlayer.convert._keras.calls import unique
from fastlayer.convert._keras.config import from_config, names_of
from fastlayer.convert._keras.given import Source, as_dict
from fastlayer.convert._keras.stored import OLD_FOLDER, Place, Slots, by_names, has_weights
from fastlayer.errors import ConversionError, Damaged, ModelFileError
from fastlayer.files.hdf5 import MAGIC, Hdf5
from fastlayer.files.model_file import ModelFile
from fastlayer.files.reading import LARGEST_JSON, parse_json, read_bytes, reading, require, size_of
from fastlayer.files.zip import members

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from typing import IO

    from fastlayer.arrays import Array
    from fastlayer.convert._graph import Draft
    from fastlayer.convert._keras.given import Given
    from fastlayer.files.zip import Member
    from fastlayer.network.network import Made, Names, Network, Several

    Config = str | PathLike[str] | IO[Any] | dict[str, Any]

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


@overload
def from_keras(model: Any, *, outputs: None = ..., verify: bool = ...) -> Made: ...
@overload
def from_keras(model: Any, *, outputs: str, verify: bool = ...) -> Network: ...
@overload
def from_keras(model: Any, *, outputs: Names, verify: bool = ...) -> Network[Several]: ...
def from_keras(
    model: Any, *, outputs: str | Names | None = None, verify: bool = True
) -> Network[Any]:
    """Make a network from a Keras model.

    The network does what the model does in inference: dropout and noise are left out and batch
    normalisations use their moving statistics. Weights are copied; call this again after more
    training.

    Parameters
    ----------
    model : keras.Sequential or keras.Model
        Sequential or functional; models may be inside each other. Layers: Dense, EinsumDense
        over the last axis, Activation, ReLU, LeakyReLU, PReLU, ELU, Softmax,
        BatchNormalization, LayerNormalization, RMSNormalization, Normalization, Rescaling,
        Flatten, Reshape to rows, Dropout and its relatives, SpectralNormalization and
        TimeDistributed around them, Add, Subtract, Multiply, Average and Concatenate; between
        them operators and functions of `keras.ops` for arithmetic, activations, slices and
        splits of features. All of them compute in float32 or all in float64, and so does the
        network. It takes several inputs in the order of ``model.inputs``, and gives several
        outputs as a tuple: those of a dictionary in the order of its keys, with their names.
    outputs : str or list of str, optional
        Which outputs the network has, where the model has several: keys of its dictionary, or
        names of the layers that they come from. Inputs that they don't need are left out.
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

    Two inputs and two outputs:

    >>> state, action = keras.Input((4,)), keras.Input((2,))
    >>> h = keras.layers.Dense(8, "tanh")(keras.layers.Concatenate()([state, action]))
    >>> heads = {"mean": keras.layers.Dense(2)(h), "value": keras.layers.Dense(1)(h)}
    >>> net = fl.from_keras(keras.Model([state, action], heads))
    >>> mean, value = net([0.1, 0.2, 0.3, 0.4], [0.5, 0.6])
    >>> net.output_names, mean.shape, value.shape
    (('mean', 'value'), (2,), (1,))
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
        why = " ".join(str(error).split())
        raise ConversionError(
            name,
            f"has no configuration ({why:.200}); layers of one's own can't be converted, and what "
            "operations take has to be plain numbers",
        ) from error
    try:
        draft = from_config({"class_name": _kind(model), "config": config}, source, name, outputs)
    except Damaged as error:
        raise ConversionError(error.key, error.why) from error
    if not verify:
        return draft.network()
    # Keras 3 computes products of float64 in float32, but for the TensorFlow backend.
    kept = getattr(keras.backend, "result_type", lambda *dtypes: dtypes[0])
    computes = np.dtype(kept(draft.dtype.name, draft.dtype.name))
    return draft.proved(lambda x: _run(keras, model, draft, outputs, x), computes)


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
        layer = layer.get_layer(step.name) if step.folder else layer.layer
    return [_numpy(keras, getattr(layer, name)) for name in names]


def _numpy(keras: Any, value: Any) -> Array:
    ops = getattr(keras, "ops", None)
    a: Array = value.numpy() if ops is None else ops.convert_to_numpy(value)
    return np.asarray(a)


def _run(
    keras: Any, model: Any, draft: Draft, outputs: str | Sequence[str] | None, x: Array
) -> Array:
    """Run a model on rows of all its inputs; what it gives is beside each other as well."""
    names, widths = draft.ends[0].names, draft.ends[0].widths
    form = getattr(model, "input", None)  # a Sequential has inputs alone
    by_name = form if isinstance(form, dict) else _named(model, "input")
    if names:
        parts = dict(zip(names, np.split(x, np.cumsum(widths)[:-1], axis=1), strict=True))
        arrays = {  # what the outputs don't need may be anything
            name: parts.get(name, np.zeros((len(x), *tensor.shape[1:]), x.dtype))
            for name, tensor in by_name.items()
        }
    else:
        ((name, tensor),) = by_name.items()
        shape = [d or 1 for d in tensor.shape[1:]]
        # A model that works on the last of several axes takes more than a row for one sample.
        arrays = {name: np.resize(x, (-(-x.size // prod(shape)), *shape))}
    given: Any = arrays if isinstance(form, dict) else [*arrays.values()]
    if not isinstance(form, dict | list | tuple):
        (given,) = given
    result = model(given, training=False)
    if not isinstance(result, dict):
        result = _named(model, "output", result)
    chosen = [outputs] if isinstance(outputs, str) else outputs or draft.ends[1].names or [*result]
    ends = [result[name] for name in chosen]
    ends = [_numpy(keras, y[0] if isinstance(y, list | tuple) else y) for y in ends]
    rows = [y.reshape(-1, y.shape[-1] if y.ndim > 1 else 1) for y in ends]
    return np.concatenate(rows, axis=1)[: len(x)]


def _named(model: Any, end: str, values: Any = None) -> dict[str, Any]:
    """Return the inputs or outputs of a model that has them in a list."""
    tensors = getattr(model, f"{end}s")
    values = tensors if values is None else values
    values = values if isinstance(values, list | tuple) else [values]
    names = [tensor._keras_history[0].name for tensor in tensors]  # those of their layers
    return dict(zip(unique(names), values, strict=True))


def load_keras(
    path: str | PathLike[str] | ModelFile,
    config: Config | None = None,
    outputs: str | Sequence[str] | None = None,
) -> Network[Any]:
    """Read the network in a .keras or .h5 file, as JSON and arrays.

    Keras is not needed, and nothing in a file is instantiated or executed: layers outside the
    tables of `_keras.layers`, Lambda among them, are refused.

    Parameters
    ----------
    path : path
        A whole model: its configuration and weights, as ``model.save`` writes them, with
        Keras 3 or 2. Or weights alone, as ``model.save_weights`` writes them as HDF5.
    config : path, str, file or dict, optional
        Beside weights alone: what ``model.to_json()`` returned, as a file, a text, or parsed.
    outputs : str or list of str, optional
        Which outputs the network has, as in `from_keras`.

    Returns
    -------
    Network

    Raises
    ------
    ModelFileError
        The file is damaged, or has weights alone and there is no `config`.
    ConversionError
        A layer without an exact counterpart; see `from_keras`.
    ValueError
        `config` beside a file that has its own.
    OSError
        The file can't be read.
    """
    opened = path if isinstance(path, ModelFile) else ModelFile(path)
    given = None if config is None else _configuration(config)
    with reading(opened) as file:
        try:
            begin = file.read(len(MAGIC))
            zipped = begin[:2] == b"PK" or (begin != MAGIC and opened.suffix == ".keras")
            spec, source = (_read_archive if zipped else _read_h5)(file, given)
            return from_config(spec, source, os.path.basename(opened.name), outputs).network()
        except ConversionError as error:
            raise ConversionError(f"{opened}: {error.place}", error.why) from error.__cause__


def _version(text: Any) -> int:
    """Return the major version of Keras; files that do not say are older than that."""
    major = text.split(".")[0] if isinstance(text, str) else ""
    return int(major) if major in ("1", "2", "3", "4") else 2


def _configuration(config: Config) -> dict[str, Any]:
    """Return what ``model.to_json()`` returned, or ``model.get_config()``, as an object of JSON."""
    if isinstance(config, dict):
        return config
    key = "config"
    try:
        if isinstance(config, str) and config.lstrip().startswith("{"):
            spec = parse_json(config, key)
        elif isinstance(config, str | os.PathLike):
            key = os.fspath(config)
            with reading(key) as file:
                spec = parse_json(file.read(LARGEST_JSON + 1), "file")
        else:
            spec = parse_json(config.read(LARGEST_JSON + 1), key)
        return as_dict(spec, key)
    except Damaged as error:
        raise ModelFileError(key, error.key, error.why) from error


def _whole(config: object) -> None:
    if config is not None:
        raise ValueError("the file has a configuration of its own; load it without config=")


def _read_archive(file: BinaryIO, given: dict[str, Any] | None) -> tuple[Any, Source]:
    _whole(given)
    archive = members(file)
    require(CONFIG in archive, CONFIG, "is missing; this is not a model that Keras saved")
    why = "is missing; fastlayer reads the weights that Keras saves as HDF5"
    require(WEIGHTS in archive, WEIGHTS, why)
    config = _json(archive, CONFIG)
    metadata = _json(archive, METADATA) if METADATA in archive else None
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    content = memoryview(archive[WEIGHTS].read())
    stored = Hdf5(lambda at, size: content[at : at + size], len(content))
    return config, Source(Slots(stored).weights, _version(version))


def _json(archive: dict[str, Member], key: str) -> Any:
    size = archive[key].size
    require(size <= LARGEST_JSON, key, f"has {size} bytes, more than any model's")
    return parse_json(archive[key].read(), key)


def _read_h5(file: BinaryIO, given: dict[str, Any] | None) -> tuple[Any, Source]:
    stored = Hdf5(lambda at, size: read_bytes(file, at, size, "HDF5 data"), size_of(file))
    text = stored.texts(stored.root, "model_config")
    told = next(iter(stored.texts(stored.root, "keras_version") or []), None)
    if text:
        _whole(given)
        config = parse_json(text[0].encode(), "model_config")
        where = partial(by_names, stored, "model_weights/")
        return config, Source(where, _version(told), merged=False)
    return _read_weights(stored, told, given)


def _read_weights(stored: Hdf5, told: Any, given: dict[str, Any] | None) -> tuple[Any, Source]:
    """Return the configuration beside a file of weights alone, and where they are."""
    listed = stored.texts(stored.root, "layer_names")
    root = Place(stored.root, stored.root)
    slots = {**root.below(stored, "layers"), **root.below(stored, OLD_FOLDER)}
    if listed is None and not slots:
        raise Damaged("model_config", "is missing; this is not a model that Keras saved")
    if given is None:
        raise Damaged(
            "model_config",
            "is missing: the file has weights alone, without the layers they belong to; give the "
            "text that model.to_json() returns, or a file with it, as fl.load(path, config=...), or "
            "save the whole model with model.save('model.keras')",
        )
    if "class_name" not in given:  # of model.get_config()
        kind = "Functional" if "input_layers" in given else "Sequential"
        given = {"class_name": kind, "config": given}
    old = bool(root.below(stored, OLD_FOLDER))
    told = given.get("keras_version", told) or ("2" if old else _version_of(given))
    version = _version(told)
    if listed is None:
        held = {name for name, at in slots.items() if has_weights(stored, at)}
        source = Source(Slots(stored).weights, version)
    else:
        groups = {name: stored.find(stored.root, name) for name in listed}
        held = {
            n for n, at in groups.items() if at is not None and stored.texts(at, "weight_names")
        }
        source = Source(partial(by_names, stored, ""), version, merged=False)
    known = {n.name if listed else n.slot for n in names_of(given, source)}
    if not old and (others := sorted(held - known)):
        raise ConversionError(
            f"weights of {others[0]!r:.60}",
            "are in the file, and config has no such layer: it belongs to another model",
        )
    return given, source


def _version_of(given: dict[str, Any]) -> str:
    """Return the version of Keras that wrote a configuration: 3 writes none, but where classes are."""
    layers = as_dict(given.get("config"), "config").get("layers")
    specs = [s for s in layers if isinstance(s, dict)] if isinstance(layers, list) else []
    shaped = any(
        "batch_input_shape" in s["config"] for s in specs if isinstance(s.get("config"), dict)
    )
    return "3" if not shaped and any("module" in s for s in (given, *specs)) else "2"
