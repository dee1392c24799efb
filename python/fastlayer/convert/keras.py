"""Networks from live Keras models: `from_keras`. Keras itself is never imported here."""

from __future__ import annotations

import sys
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._keras.config import from_config
from fastlayer.convert._keras.given import Source
from fastlayer.errors import ConversionError, Damaged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array
    from fastlayer.convert._keras.given import Given
    from fastlayer.network.network import Network


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
        hint = ""
        if isinstance(model, str) or hasattr(model, "__fspath__"):
            hint = "; files go to fl.load"
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
    for keras in (sys.modules.get("keras"), sys.modules.get("tf_keras")):
        if isinstance(model, getattr(keras, "Model", ())):
            return keras
    return None


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
    y = _numpy(keras, model(samples, training=False))
    return y.reshape(-1, y.shape[-1])[: len(x)]
