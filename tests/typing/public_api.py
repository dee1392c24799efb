"""What type checkers make of a user's code; mypy reads it, nobody runs it.

A `type: ignore` that is not needed is an error in strict mode, so each one shows a mistake that is
found.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import fastlayer as fl
from fastlayer.report.profile import Profile
from fastlayer.report.summary import Summary

Array = NDArray[Any]

x = np.ones((3, 4), np.float32)
layer = fl.Layer(4, 8, "relu", rng=0)
net = fl.Network([layer, fl.Residual([fl.LayerNorm(8)]), fl.Layer(8, 2, fl.softmax, rng=1)])

# Arrays of any dtype in, arrays out, which go wherever an array of one dtype is wanted.
assert_type(fl.linear(x, layer.weight, layer.bias, "relu"), Array)
assert_type(fl.matmul(x, [[1.0]] * 4), Array)
assert_type(fl.gelu([1, 2, 3]), Array)
assert_type(fl.activation_backward(1.0, x, "tanh"), Array)
assert_type(fl.activation_backward(x, x, (np.square, lambda z: 2 * z)), Array)
assert_type(fl.linear_backward(x, x, layer.weight), tuple[Array, Array, Array])
assert_type(fl.dense_backward(x, x, x, out=(None, x, None)), tuple[Array, Array, Array])
assert_type(layer(x), Array)
assert_type(net(x, out=np.empty((3, 2), np.float32)), Array)
assert_type(net.predict((row for row in x), batch_size=2), Array)
single: NDArray[np.float32] = net(x)

# The result's shape follows the arguments.
assert_type(layer.forward(x), Array)
assert_type(layer.forward(x, return_preactivation=True), tuple[Array, Array])
assert_type(net[1:], fl.Network)
assert_type(net.activations(x), list[tuple[Array, Array]])
assert_type(fl.show_config(), None)
assert_type(fl.show_config(mode="dicts"), dict[str, Any])
assert_type(fl.show_config(mode="dicts", measure=True), dict[str, Any])
assert_type(net.summary(), Summary)
assert_type(net.profile(x), Profile)

# Everything that makes a network gives one, and it stays one.
assert_type(fl.load("model.npz"), fl.Network)
assert_type(fl.load(io.BytesIO(), format="npz"), fl.Network)
assert_type(fl.from_state_dict("model.pt", activation="relu"), fl.Network)
assert_type(fl.load("ppo.zip", network="actor"), fl.Network)
assert_type(net.astype(np.float64), fl.Network)
assert_type(fl.get_num_threads(), int)
with fl.num_threads(1):
    assert_type(net.dtype, np.dtype[Any])

# Mistakes.
fl.Layer("4", 8)  # type: ignore[arg-type]
fl.relu(x, out=[0.0])  # type: ignore[arg-type]
net.predict(x, batch=2)  # type: ignore[call-overload]
fl.show_config(mode="json")  # type: ignore[call-overload]
fl.set_num_threads("2")  # type: ignore[arg-type]
