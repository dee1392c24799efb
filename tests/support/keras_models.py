"""Live models of Keras, and how near to them a network has to be."""

import os

import numpy as np
import pytest

from fastlayer.convert._rounding import rounding_bound

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")


def randomized(model):
    """Give every weight a value of its own; variances stay positive."""
    rng = np.random.default_rng(11)
    for v in model.weights:
        spread = v.shape[0] ** -0.5 if len(v.shape) == 2 else 0.5
        value = spread * rng.standard_normal(v.shape)
        if "variance" in v.path:
            value = rng.uniform(0.5, 2.0, v.shape)
        elif v.path.endswith(("gamma", "scale")):
            value = 1 + value
        if "count" not in v.path:
            v.assign(value)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return model


def run(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def assert_agree(net, model, x):
    """Equal to rounding: the bound is derived for each element, see `_rounding`.

    Keras 3 computes the products of float64 models in float32, but for TensorFlow's backend. So
    the bound is that of the network in float32, which a float64 network has to keep as well.
    """
    ours, theirs = net(x), run(model, x)
    assert ours.dtype == net.dtype == x.dtype
    assert ours.shape == theirs.shape
    computed = net.astype(keras.backend.result_type(x.dtype.name, x.dtype.name))
    rows = x.reshape(-1, net.in_features)
    bound = rounding_bound(computed, rows).reshape(ours.shape)
    assert (np.abs(ours - theirs) <= bound).all()
