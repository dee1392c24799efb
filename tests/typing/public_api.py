"""What type checkers make of a user's code; mypy and pyright read it, nobody runs it.

A `type: ignore` that is not needed is an error to both, so each one shows a mistake that both find.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import fastlayer as fl
from fastlayer.names import ActivationName

Array = NDArray[Any]
Single = NDArray[np.float32]

x = np.ones((3, 4), np.float32)
w = np.ones((8, 4), np.float32)
layer = fl.Layer(4, 8, "relu", rng=0)
net = fl.Network([layer, fl.Residual([fl.LayerNorm(8)]), fl.Layer(8, 2, fl.softmax, rng=1)])

# float32 in, float32 out; where dtypes meet, or are not known, an array of any.
assert_type(fl.linear(x, w, None, "relu"), Single)
assert_type(fl.linear(x, w, 0.5, fl.Activation("elu", alpha=0.5)), Single)
assert_type(fl.linear(x, w, np.ones(8, np.int64)), Array)
assert_type(fl.linear(x, w, activation=lambda z: z.clip(0, 1)), Array)
assert_type(fl.linear([[1.0]], [[1.0]]), Array)
assert_type(fl.matmul(x, w.T), Single)
assert_type(fl.matmul(x, [[1.0]] * 4), Array)
assert_type(fl.bias_add(x, 1.0), Single)
assert_type(fl.gelu(x), Single)
assert_type(fl.gelu(x.astype(np.float64), "tanh"), NDArray[np.float64])
assert_type(fl.softmax(x.astype(np.float16), axis=0), NDArray[np.float16])
assert_type(fl.gelu([1, 2, 3]), Array)
assert_type(fl.gelu(x.astype(np.uint8)), Array)
assert_type(fl.dense_forward(x, x, 0.0, "tanh"), tuple[Single, Single])
assert_type(fl.dense_forward(x, x, 0.0, np.tanh), tuple[Any, Array])
assert_type(fl.activation_backward(1.0, x, "tanh"), Single)
assert_type(fl.activation_backward(x, x, (np.square, lambda z: 2 * z)), Single)
assert_type(fl.linear_backward(x, x, w), tuple[Single, Single, Single])
assert_type(fl.linear_backward(x, x, [[1.0] * 4] * 8), tuple[Array, Array, Array])
assert_type(fl.dense_backward(x, x, x, out=(None, x, None)), tuple[Single, Single, Single])
assert_type(layer(x), Array)
assert_type(net(x, out=np.empty((3, 2), np.float32)), Array)
assert_type(net.predict((row for row in x), batch_size=2), Array)
assert_type(net.predict(x, as_frame=True), Any)
single: Single = net(x)

# A layer's own; and what a network shows of its parts, which is a layer mostly.
assert_type(layer.weight, Array)
assert_type(layer.bias, Array | Any)
products = x @ layer.weight.T + layer.bias
assert_type(layer.in_features, int)
layer.weight, layer.bias, layer.activation = [[1.0]], None, "tanh"
assert_type(net[0], fl.Layer | Any)
assert_type(net[0].weight, Array | Any)
assert_type([part.weight for part in net], list[Array | Any])
assert_type(net.layers, tuple[fl.Layer | Any, ...])
empty = np.zeros((1, net.in_features))

# One array, or several: as far as it can be known.
heads = fl.Network([layer, fl.Concat([layer, [layer, "tanh"]])], outputs={"policy": 8, "value": 8})
assert_type(heads(x), tuple[Array, ...])
assert_type(heads.predict(x), tuple[Array, ...])
assert_type(fl.load("model.onnx", outputs="value")(x), Array)
assert_type(fl.load("model.onnx", outputs=["policy", "value"])(x), tuple[Array, ...])
assert_type(fl.load("model.onnx")(x), Array | Any)
assert_type(fl.from_onnx("model.onnx", outputs="value"), fl.Network)
policy, value = fl.from_torch(object())(x)

# The result follows the arguments.
assert_type(layer.forward(x), Array)
assert_type(layer.forward(x, return_preactivation=True), tuple[Array, Array])
assert_type(net[1:], fl.Network)
assert_type(net.activations(x), list[tuple[Array, Array]])
assert_type(fl.show_config(), None)
assert_type(fl.show_config(mode="dicts"), dict[str, Any])
assert_type(fl.show_config(mode="dicts", measure=True), dict[str, Any])
assert_type(net.summary(), fl.Summary)
assert_type(net.profile(x), fl.Profile)
assert_type(net.verification, fl.Proof | None)
assert_type(fl.Trainer(layer, "mse", fl.SGD(lr=0.1)).network, fl.Layer)
assert_type(fl.Trainer(net, "mse", "adam").network, fl.Network)
assert_type(net.fit(x, x, callback=lambda net, history: history.epochs > 3).loss[-1], float)
assert_type(net.gradients(x, x, "mse", wrt_input=True).input, Array | Any)

# Everything that makes a network gives one, and it stays one.
assert_type(fl.from_state_dict("model.pt", activation="relu"), fl.Network)
assert_type(net.astype(np.float64), fl.Network)
assert_type(net.copy(), fl.Network)
assert_type(fl.get_num_threads(), int)
with fl.num_threads(1):
    assert_type(net.dtype, np.dtype[Any])


def stored(net: fl.Network) -> None:
    net.save("model.npz")


stored(fl.load("model.npz"))
stored(fl.load(io.BytesIO(), format="npz"))


# Estimators of scikit-learn, which has no types, look like these.
class LinearRegression:
    coef_: Array


class LogisticRegression:
    classes_: Array


class Pipeline:
    steps: list[tuple[str, Any]]
    classes_: Array


assert_type(fl.from_sklearn(LinearRegression()), fl.Regressor)
assert_type(fl.from_sklearn(LogisticRegression()), fl.Classifier)
assert_type(fl.from_sklearn(LogisticRegression()).predict_proba(x), Array)
assert_type(fl.from_sklearn(Pipeline()), fl.Classifier | Any)

# A function of the user's knows what it is given.
fl.Layer(3, 4, lambda z: z * 2, init=lambda rng, shape: rng.normal(size=shape))
fl.Network([layer, lambda h: h.clip(0, 1), (np.sin, np.cos)])
net.fit(x, x, lambda y, t: (float((y - t).mean()), y - t), schedule=lambda done: 1 - done)
net.fit(x, x, progress=lambda done, whole: print(done, whole))

# Names that are kept need their type.
for name in ("relu", "tanh"):
    hidden: ActivationName = "relu" if name == "relu" else "tanh"
    fl.Layer(3, 4, hidden)

# Mistakes: names.
fl.Layer(3, 4, "rellu")  # type: ignore[arg-type]
fl.Layer(3, 4, "prelu")  # type: ignore[arg-type]  # which needs its slopes
fl.Layer(3, 4, init="he")  # type: ignore[arg-type]
fl.Layer.from_arrays(w, layout="in-out")  # type: ignore[arg-type]
fl.Layer.from_arrays(w, activation="rellu")  # type: ignore[arg-type]
layer.activation = "rellu"  # type: ignore[assignment]
layer.update(activation="rellu")  # type: ignore[arg-type]
fl.Activation("rellu")  # type: ignore[arg-type]
fl.Loss("msee")  # type: ignore[arg-type]
fl.Schedule("cosinus")  # type: ignore[arg-type]
fl.Network([layer, "rellu"])  # type: ignore[list-item]
fl.Residual("rellu")  # type: ignore[arg-type]
fl.linear(x, w, None, "rellu")  # type: ignore[call-overload]
fl.activation_backward(x, x, "rellu")  # type: ignore[call-overload]
fl.gelu(x, "tan")  # type: ignore[call-overload]
fl.from_state_dict("model.pt", activation="rellu")  # type: ignore[arg-type]
fl.from_state_dict("model.pt", activation="relu", layout="in-out")  # type: ignore[arg-type]
net.fit(x, x, "msee")  # type: ignore[arg-type]
net.fit(x, x, optimizer="sgd")  # type: ignore[arg-type]  # which needs its learning rate
net.fit(x, x, schedule="cosinus")  # type: ignore[arg-type]
net.fit(x, x, class_weight="balance")  # type: ignore[arg-type]
fl.Trainer(net, "msee", "adam")  # type: ignore[arg-type]
fl.show_config(mode="json")  # type: ignore[call-overload]
fl.relux(x)  # type: ignore[attr-defined]
net.predictt(x)  # type: ignore[attr-defined]
net[0].weights.sum()  # type: ignore[union-attr]

# Mistakes: kinds of arguments, and what comes of them.
fl.Layer("4", 8)  # type: ignore[arg-type]
fl.Layer(4, 8, rng="abc")  # type: ignore[arg-type]
fl.relu(x, out=[0.0])  # type: ignore[call-overload]
net.predict(x, batch=2)  # type: ignore[call-overload]
fl.set_num_threads("2")  # type: ignore[arg-type]
fl.Network(layer, layer)  # type: ignore[call-overload]
fl.load("model.onnx", outputs=3)  # type: ignore[call-overload]
positive = fl.relu(x)
double: NDArray[np.float64] = positive  # type: ignore[assignment]
fl.from_sklearn(LinearRegression()).predict_proba(x)  # type: ignore[attr-defined]
