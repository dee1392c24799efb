"""Networks written by hand, in the four conventions of the tutorials and some habits beside them."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

import fastlayer as fl

EPS = {np.dtype(np.float32): 2.0**-23, np.dtype(np.float64): 2.0**-52}

# ------------------------------------------------------- rows of neurons, rows of samples (C1)


def relu(z):
    return np.maximum(0, z)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


class RowLayer:
    """act(X @ W.T + b) with the activation in an attribute."""

    def __init__(self, rng, k, n, activation=relu):
        self.W = rng.standard_normal((n, k)) / np.sqrt(k)
        self.b = rng.standard_normal(n)
        self.activation = activation

    def forward(self, X):
        Z = X @ self.W.T + self.b
        return Z if self.activation is None else self.activation(Z)


class InlineLayer(RowLayer):
    """The activation is written into the forward pass."""

    def forward(self, X):
        return np.tanh(X @ self.W.T + self.b)


class RowNetwork:
    def __init__(self, layers):
        self.layers = layers

    def __call__(self, X):
        for layer in self.layers:
            X = layer.forward(X)
        return X


# ----------------------------------------------------------------------- single vectors (C2)


class VectorLayer(RowLayer):
    def forward(self, x):
        return self.activation(self.W @ x + self.b)


# ------------------------------------------------- columns of neurons, rows of samples (C3)


class DenseLayer:
    def __init__(self, input_size, output_size):
        rng = np.random.default_rng(input_size * 37 + output_size)
        self.weights = rng.standard_normal((input_size, output_size)) * np.sqrt(2.0 / input_size)
        self.bias = np.zeros((1, output_size))
        self.inputs = None

    def forward(self, inputs):
        self.inputs = inputs
        return inputs @ self.weights + self.bias


class ReLU:
    def forward(self, inputs):
        self.inputs = inputs
        return np.maximum(0, inputs)


class Softmax:
    def forward(self, inputs):
        exps = np.exp(inputs - np.max(inputs, axis=1, keepdims=True))
        return exps / np.sum(exps, axis=1, keepdims=True)


class SimpleNN:
    def __init__(self, input_size, hidden_size, output_size):
        self.layer1 = DenseLayer(input_size, hidden_size)
        self.activation1 = ReLU()
        self.layer2 = DenseLayer(hidden_size, hidden_size)
        self.activation2 = ReLU()
        self.layer3 = DenseLayer(hidden_size, output_size)
        self.softmax = Softmax()

    def forward(self, X):
        out = self.activation1.forward(self.layer1.forward(X))
        out = self.activation2.forward(self.layer2.forward(out))
        return self.softmax.forward(self.layer3.forward(out))


# ---------------------------------------------- rows of neurons, columns of samples (C4)


def leaky_relu(x, leaky_param=0.1):
    return np.maximum(x, x * leaky_param)


class ColumnLayer:
    def __init__(self, ins, outs, act_function=leaky_relu):
        rng = np.random.default_rng(ins * 31 + outs)
        self.ins, self.outs, self.act_function = ins, outs, act_function
        self._W = rng.normal(0, 1 / np.sqrt(ins), (outs, ins))
        self._b = rng.normal(0, 1, (outs, 1))

    def forward_pass(self, x):
        z = np.dot(self._W, x) + self._b
        f = getattr(self.act_function, "f", self.act_function)
        return f(z)


class LeakyReLU:
    def __init__(self, leaky_param=0.1):
        self.alpha = leaky_param

    def f(self, x):
        return np.maximum(x, x * self.alpha)

    def df(self, x):
        return np.maximum(x > 0, self.alpha)


class Callable(LeakyReLU):
    def __call__(self, x):
        return self.f(x)


class Remembering(LeakyReLU):
    def f(self, x):
        self.x = x
        return super().f(x)


class SquaredError:
    def loss(self, values, expected):
        return np.mean((values - expected) ** 2)

    def dloss(self, values, expected):
        return 2 * (values - expected) / values.size


class NeuralNetwork:
    """Columns, trained in place."""

    def __init__(self, layers, loss_function=None, learning_rate=0.05):
        self._layers = layers
        self._loss_function = loss_function or SquaredError()
        self.lr = learning_rate

    def forward_pass(self, x):
        for layer in self._layers:
            x = layer.forward_pass(x)
        return x

    def train(self, x, t):
        xs = [x]
        for layer in self._layers:
            xs.append(layer.forward_pass(xs[-1]))
        dx = self._loss_function.dloss(xs.pop(), t)
        for layer, a in zip(self._layers[::-1], xs[::-1], strict=True):
            y = np.dot(layer._W, a) + layer._b
            db = layer.act_function.df(y) * dx
            dx = np.dot(layer._W.T, db)
            layer._W -= self.lr * np.dot(db, a.T)
            layer._b -= self.lr * db


# ------------------------------------------------------------------------------ other habits


class ListsOfColumns:
    """Weights and biases in lists, the activation in the forward pass alone; columns."""

    def __init__(self, sizes):
        rng = np.random.default_rng(8)
        self.biases = [rng.standard_normal((n, 1)) for n in sizes[1:]]
        self.weights = [rng.standard_normal((n, k)) for k, n in pairwise(sizes)]

    def feedforward(self, a):
        for b, w in zip(self.biases, self.weights, strict=True):
            a = sigmoid(np.dot(w, a) + b)
        return a


class Numbered:
    def __init__(self, k=4, h=6, n=3):
        rng = np.random.default_rng(9)
        self.W1, self.b1 = rng.standard_normal((k, h)), rng.standard_normal(h)
        self.W2, self.b2 = rng.standard_normal((h, n)), rng.standard_normal(n)

    def forward(self, X):
        self.z1 = X @ self.W1 + self.b1
        self.a1 = np.tanh(self.z1)
        z = self.a1 @ self.W2 + self.b2
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)


class InADict(Numbered):
    def __init__(self):
        super().__init__()
        self.params = {k: vars(self).pop(k) for k in ("W1", "b1", "W2", "b2")}

    def forward(self, X):
        p = self.params
        return relu(X @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]


class SharedReLU:
    """Layers and one activation object in attributes, used more than once."""

    def __init__(self):
        rng = np.random.default_rng(4)
        self.one, self.two = RowLayer(rng, 4, 5, None), RowLayer(rng, 5, 5, None)
        self.three = RowLayer(rng, 5, 2, None)
        self.act = ReLU()

    def forward(self, X):
        X = self.act.forward(self.one.forward(X))
        X = self.act.forward(self.two.forward(X))
        return self.three.forward(X)


class Slotted:
    __slots__ = ("W", "activation", "b")

    def __init__(self):
        self.W, self.b, self.activation = np.eye(3)[:2] * 2.0, np.ones(2), sigmoid

    def __call__(self, X):
        return self.activation(X @ self.W.T + self.b)


class NoBias:
    def __init__(self):
        self.weights = np.random.default_rng(3).standard_normal((4, 3))

    def forward(self, X):
        return relu(X @ self.weights)


class Told(RowLayer):
    """A layer that can't be run alone: its forward wants to be told more."""

    def forward(self, X, training):
        assert not training
        return super().forward(X)


class Telling(RowNetwork):
    def __call__(self, X):
        for layer in self.layers:
            X = layer.forward(X, False)
        return X


def wave(z):
    return np.sin(z) * z


def undefined(z):
    with np.errstate(invalid="ignore"):
        return np.arccosh(z)


rng0 = np.random.default_rng(0)
ROWS, COLUMNS, VECTOR = "rows", "columns", "vector"
NETWORKS = {
    "C1 layer": (lambda: RowLayer(rng0, 4, 3), 4, ROWS),
    "C1 square layer": (lambda: RowLayer(rng0, 4, 4), 4, ROWS),
    "C1 list": (lambda: [RowLayer(rng0, 4, 8), RowLayer(rng0, 8, 2, sigmoid)], 4, ROWS),
    "C1 inline": (lambda: [InlineLayer(rng0, 4, 8), InlineLayer(rng0, 8, 8)], 4, ROWS),
    "C1 network": (lambda: RowNetwork([RowLayer(rng0, 4, 4), RowLayer(rng0, 4, 4)]), 4, ROWS),
    "C1 lists in a list": (
        lambda: [[RowLayer(rng0, 4, 5), np.tanh], [RowLayer(rng0, 5, 2, sigmoid)]],
        4,
        ROWS,
    ),
    "C1 mostly NaN": (lambda: RowLayer(rng0, 4, 3, undefined), 4, ROWS),
    "C1 told more": (lambda: Telling([Told(rng0, 4, 4), Told(rng0, 4, 2, wave)]), 4, ROWS),
    "C1 functions in a list": (lambda: [RowLayer(rng0, 4, 6, None), np.tanh, wave], 4, ROWS),
    "C2 layer": (lambda: VectorLayer(rng0, 4, 3), 4, VECTOR),
    "C2 square network": (lambda: RowNetwork([VectorLayer(rng0, 4, 4, wave)] * 2), 4, VECTOR),
    "C3 layer": (lambda: DenseLayer(4, 3), 4, ROWS),
    "C3 network": (lambda: SimpleNN(3, 8, 3), 3, ROWS),
    "C3 square network": (lambda: SimpleNN(3, 3, 3), 3, ROWS),
    "C3 list": (lambda: [DenseLayer(4, 5), ReLU(), DenseLayer(5, 2), Softmax()], 4, ROWS),
    "C4 layer": (lambda: ColumnLayer(4, 2), 4, COLUMNS),
    "C4 list": (lambda: [ColumnLayer(2, 4), ColumnLayer(4, 4), ColumnLayer(4, 1)], 2, COLUMNS),
    "C4 network": (
        lambda: NeuralNetwork([ColumnLayer(4, 6, LeakyReLU()), ColumnLayer(6, 3, LeakyReLU(0.3))]),
        4,
        COLUMNS,
    ),
    "C4 remembering activation": (lambda: ColumnLayer(4, 5, Remembering()), 4, COLUMNS),
    "C4 any function": (lambda: ColumnLayer(4, 5, wave), 4, COLUMNS),
    "lists": (lambda: ListsOfColumns([4, 6, 3]), 4, COLUMNS),
    "numbered": (Numbered, 4, ROWS),
    "dict": (InADict, 4, ROWS),
    "shared activation": (SharedReLU, 4, ROWS),
    "slots": (Slotted, 3, ROWS),
    "no bias": (NoBias, 4, ROWS),
}


def original(obj):
    if isinstance(obj, list):

        def through(x):
            for item in obj:
                if isinstance(item, list):
                    x = original(item)(x)
                    continue
                name = next((n for n in ("forward_pass", "forward") if hasattr(item, n)), None)
                x = item(x) if name is None else getattr(item, name)(x)
            return x

        return through
    names = ("forward_pass", "forward", "feedforward", "__call__")
    return getattr(obj, next(n for n in names if hasattr(obj, n)))


def inputs(k, form, m=7, dtype=np.float64):
    shape = {ROWS: (m, k), COLUMNS: (k, m), VECTOR: (k,)}[form]
    x = np.random.default_rng(1).standard_normal(shape) * 2
    return x.astype(dtype)


def assert_alike(ours, theirs):
    """Three layers of up to 8 terms of size 10 and well-conditioned activations."""
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, atol=1000 * EPS[ours.dtype])


@pytest.fixture(params=NETWORKS)
def case(request):
    make, k, form = NETWORKS[request.param]
    return make(), k, form


def test_gives_what_the_original_gives(case):
    obj, k, form = case
    fast = fl.accelerate(obj)
    for m in (7, 1, k):
        x = inputs(k, form, m)
        assert_alike(fast(x), original(obj)(x))
    assert fast.verification.bound_share <= 1
    assert fast.original is obj
    assert repr(fast) == f"Accelerated({type(obj).__name__}, samples={form})"


def test_integers_and_lists(case):
    obj, k, form = case
    fast = fl.accelerate(obj)
    x = np.arange(inputs(k, form).size).reshape(inputs(k, form).shape) % 5
    for given in (x, x.astype(np.uint8), x.astype(np.float32)):
        assert_alike(fast(given), original(obj)(given))
    assert_alike(fast(x.tolist()), original(obj)(x))


def weights_of(fast):
    return [dense.weight() for dense in fast._live.found.dense]


def test_weights_changed_in_place_count_at_the_next_call(case):
    obj, k, form = case
    fast = fl.accelerate(obj)
    x = inputs(k, form)
    for weight in weights_of(fast):
        before = fast(x)
        weight *= 0.5
        weight[0, 0] += 1
        assert_alike(fast(x), original(obj)(x))
        weight[-1, -1] = np.nextafter(weight[-1, -1], 9)  # the smallest change there is
        exact = fl.accelerate(obj)
        np.testing.assert_array_equal(fast(x), exact(x))
        assert not np.array_equal(fast(x), before)


def test_the_object_is_left_as_it_was(case):
    obj, _, _ = case

    def state(o, seen):
        if id(o) in seen:
            return None
        seen.add(id(o))
        if isinstance(o, list | dict):
            items = o.items() if isinstance(o, dict) else enumerate(o)
            return {k: state(v, seen) for k, v in items}
        if hasattr(o, "__slots__"):
            return {k: state(getattr(o, k), seen) for k in o.__slots__}
        if hasattr(o, "__dict__") and not hasattr(o, "__name__"):
            return {k: state(v, seen) for k, v in vars(o).items()}
        return o

    before = state(obj, set())
    copied = copy.deepcopy(before)
    fl.accelerate(obj)
    np.testing.assert_equal(state(obj, set()), before)
    np.testing.assert_equal(before, copied)


def test_network_is_a_copy_for_rows(case):
    obj, k, form = case
    fast = fl.accelerate(obj)
    net = fast.network
    x = inputs(k, form)
    before = net(x, axis=0) if form == COLUMNS else net(x)
    np.testing.assert_array_equal(before, fast(x))
    for weight in weights_of(fast):
        weight *= 2
    np.testing.assert_array_equal(net(x, axis=0) if form == COLUMNS else net(x), before)


@pytest.mark.parametrize("name", ["C1 list", "C3 network", "C4 network", "numbered"])
def test_float32(name):
    make, k, form = NETWORKS[name]
    obj = make()
    for dense in fl.accelerate(obj)._live.found.dense:
        for place in (dense.weight, dense.bias):
            setattr(*place.args, place().astype(np.float32))
    fast = fl.accelerate(obj)
    for dtype in (np.float32, np.float64, np.int64, np.uint8):
        x = inputs(k, form, dtype=np.float64).clip(0).astype(dtype)
        theirs = original(obj)(x)
        assert fast(x).dtype == theirs.dtype == (np.float64 if dtype in (np.float64, np.int64)
                                                 else np.float32)  # fmt: skip
        np.testing.assert_allclose(fast(x), theirs, atol=1000 * 2.0**-23)


# ------------------------------------------------------------------------------ what is fused


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (relu, fl.Activation("relu")),
        (lambda z: z * (z > 0), fl.Activation("relu")),
        (leaky_relu, fl.Activation("leaky_relu", negative_slope=0.1)),
        (LeakyReLU(0.25).f, fl.Activation("leaky_relu", negative_slope=0.25)),
        (sigmoid, fl.Activation("sigmoid")),
        (lambda z: 1 / (1 + np.exp(-np.clip(z, -500, 500))), fl.Activation("sigmoid")),
        (np.tanh, fl.Activation("tanh")),
        (lambda z: np.where(z > 0, z, 1.5 * np.expm1(np.minimum(z, 0))),
         fl.Activation("elu", alpha=1.5)),
        (lambda z: np.log(1 + np.exp(z)), fl.Activation("softplus", threshold=40.0)),
        (lambda z: z / (1 + np.exp(-z)), fl.Activation("silu")),
        (lambda z: 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
         fl.Activation("gelu", approximate="tanh")),
        (Softmax().forward, fl.Activation("softmax")),
        (lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), fl.Activation("softmax")),
        (lambda z: np.exp(z) / np.exp(z).sum(axis=0, keepdims=True), None),
        (lambda z: np.exp(z) / np.exp(z).sum(), None),
        (wave, None),
        (lambda z: (z > 0) * 1.0, None),
        (lambda z: np.maximum(z, 2 * z), None),
        (lambda z: 1.7159 * np.tanh(2 / 3 * z), None),
        (lambda z: np.maximum(0, z) + 1e-6, None),
    ],
)  # fmt: skip
def test_activations_are_recognised_by_what_they_return(function, expected):
    from fastlayer.convert._numpy.recognise import recognise

    assert recognise(function, "rows", "f") == (expected or function)


def test_softmax_of_columns():
    def softmax(z):
        e = np.exp(z - z.max(axis=0))
        return e / e.sum(axis=0)

    layer = ColumnLayer(5, 3, softmax)
    fast = fl.accelerate(layer)
    assert fast.network[0].activation == fl.Activation("softmax")
    x = inputs(5, COLUMNS)
    assert_alike(fast(x), layer.forward_pass(x))


# --------------------------------------------------------------------------------- training


def test_training_with_the_fast_forward_pass_in_between():
    net = NeuralNetwork([ColumnLayer(2, 3, LeakyReLU()), ColumnLayer(3, 2, LeakyReLU())])
    fast = fl.accelerate(net)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(200):
        x = rng.uniform(-1, 1, (2, 1))
        t = np.array([[float(x[0, 0] > 0)], [float(x[1, 0] > 0)]])
        losses.append(net._loss_function.loss(fast(x), t))
        net.train(x, t)
        assert_alike(fast.forward_pass(x), net.forward_pass(x))
    assert np.mean(losses[-50:]) < np.mean(losses[:50])


def test_a_replaced_layer_function_or_slope_is_noticed():
    net = NeuralNetwork([ColumnLayer(2, 3, LeakyReLU()), ColumnLayer(3, 2, LeakyReLU())])
    fast, x = fl.accelerate(net), inputs(2, COLUMNS)
    changes = [
        lambda: setattr(net._layers[0].act_function, "alpha", 0.5),
        lambda: setattr(net._layers[1], "act_function", sigmoid),
        lambda: net._layers.append(ColumnLayer(2, 7, wave)),
        lambda: net._layers.__setitem__(0, ColumnLayer(2, 3, relu)),
        lambda: setattr(net, "_layers", [ColumnLayer(2, 4)]),
        lambda: setattr(net._layers[0], "_W", net._layers[0]._W + 1),
        lambda: setattr(net._layers[0], "_b", np.zeros((4, 1))),
        lambda: setattr(net._layers[0], "_W", np.asfortranarray(net._layers[0]._W[::-1])),
    ]
    for change in changes:
        before = fast(x)
        change()
        assert_alike(fast(x), net.forward_pass(x))
        assert fast(x).shape != before.shape or not np.allclose(fast(x), before)


class Switched(RowLayer):
    """What it does depends on settings that are no arrays."""

    training = False

    def __init__(self, rng, k, n):
        super().__init__(rng, k, n, None)
        self.b, self.activation, self.slope = None, None, 0.1

    def forward(self, X):
        Z = X @ self.W.T
        Z = Z if self.b is None else Z + self.b
        if self.activation == "leaky":
            return np.maximum(Z, self.slope * Z)
        Z = Z if self.activation is None else self.activation(Z)
        return Z * 0.5 if self.training else Z


class ListsOfRows(RowLayer):
    """Lists of arrays with a list of activations."""

    def __init__(self, rng):
        self.weights = [rng.standard_normal((4, 4)) for _ in range(2)]
        self.biases = [rng.standard_normal(4) for _ in range(2)]
        self.activations = [relu, np.tanh]

    def forward(self, X):
        for w, b, f in zip(self.weights, self.biases, self.activations, strict=True):
            X = f(X @ w.T + b)
        return X


def test_a_setting_that_changes_is_noticed():
    layer, x = Switched(rng0, 4, 3), inputs(4, ROWS)
    net = RowNetwork([layer])
    fast = fl.accelerate(net)
    for name, value in [
        ("b", np.ones(3)),
        ("activation", np.tanh),
        ("activation", "leaky"),
        ("slope", 0.7),
        ("activation", None),
        ("b", None),
    ]:
        before = fast(x)
        setattr(layer, name, value)
        assert_alike(fast(x), net(x))
        assert not np.allclose(fast(x), before)
    layer.training = True
    assert_alike(fast(x), net(x))


@pytest.mark.parametrize("name", ["C3 network", "C4 remembering activation", "numbered"])
def test_what_an_object_remembers_is_found_out_about_once(name):
    make, k, form = NETWORKS[name]
    obj, x = make(), inputs(k, form)
    fast = fl.accelerate(obj)
    original(obj)(x)
    fast(x)
    live = fast._live
    for _ in range(3):
        original(obj)(x)
        fast(x)
        assert fast._live is live


class SlopeOfTheNetwork(SharedReLU):
    """The activation is in the forward pass of the network, its slope beside the learning rate."""

    def __init__(self):
        super().__init__()
        del self.act
        self.slope, self.lr = 0.1, 0.05

    def forward(self, X):
        for layer in (self.one, self.two):
            Z = layer.forward(X)
            X = np.maximum(Z, self.slope * Z)
        return self.three.forward(X)


def test_a_slope_of_the_network_is_noticed_and_its_learning_rate_is_not():
    net, x = SlopeOfTheNetwork(), inputs(4, ROWS)
    fast = fl.accelerate(net)
    assert_alike(fast(x), net.forward(x))
    live = fast._live
    net.lr = 0.01
    fast(x)
    assert fast._live is live
    net.slope = 0.3
    assert_alike(fast(x), net.forward(x))


def test_an_activation_of_a_list_that_changes_is_noticed():
    net, x = ListsOfRows(rng0), inputs(4, ROWS)
    fast = fl.accelerate(net)
    net.activations[0] = sigmoid
    assert_alike(fast(x), net.forward(x))
    net.activations = [np.tanh, relu]
    assert_alike(fast(x), net.forward(x))
    slope = Callable()
    net.activations = [slope, np.tanh]
    assert_alike(fast(x), net.forward(x))
    slope.alpha = 0.5
    assert_alike(fast(x), net.forward(x))


def test_arrays_of_another_dtype_give_what_numpy_gives():
    layers = [RowLayer(rng0, 4, 3), RowLayer(rng0, 3, 2)]
    fast, x = fl.accelerate(layers), inputs(4, ROWS, dtype=np.float32)
    for layer, dtype in ((layers[0], np.float32), (layers[1], np.float32), (layers[0], int)):
        layer.W, layer.b = (layer.W * 4).astype(dtype), layer.b.astype(dtype)
        theirs = original(layers)(x)
        assert fast(x).dtype == theirs.dtype
        np.testing.assert_allclose(fast(x), theirs, atol=1000 * 2.0**-23)
    assert layers[0].W.dtype == int


def test_a_change_to_something_unknown_raises():
    layers = [RowLayer(rng0, 4, 3), RowLayer(rng0, 3, 2)]
    fast = fl.accelerate(layers)
    layers.append(lambda z: np.array([row[:1] for row in z.tolist()]))
    with pytest.raises(fl.ConversionError, match=r"\(5, 1\) for \(5, 4\), expected \(5, 2\)"):
        fast(inputs(4, ROWS))


# ------------------------------------------------------------------ what is not proven passes


class Labelled(np.ndarray):
    pass


def test_other_inputs_go_to_the_original():
    layer = RowLayer(rng0, 4, 3)
    fast = fl.accelerate(layer)
    stack = inputs(4, ROWS, 6).reshape(2, 3, 4)
    np.testing.assert_array_equal(fast(stack), layer.forward(stack))
    with pytest.raises(ValueError, match="matmul"):  # NumPy's own words
        fast(np.ones((5, 3)))
    labelled = np.ones((2, 4)).view(Labelled)
    assert type(fast(labelled)) is type(layer.forward(labelled)) is Labelled
    complex_x = np.ones((2, 4)) + 0j
    layer.activation = np.tanh
    np.testing.assert_array_equal(fast(complex_x), layer.forward(complex_x))


class Optional(RowLayer):
    def forward(self, X, scale=1.0):
        return super().forward(X) * scale


def test_further_arguments_go_to_the_original():
    layer, x = Optional(rng0, 4, 3), inputs(4, ROWS)
    fast = fl.accelerate(layer)
    for given in (((2.0,), {}), ((), {"scale": 2.0})):
        np.testing.assert_array_equal(fast(x, *given[0], **given[1]), layer.forward(x, 2.0))
        np.testing.assert_array_equal(fast.forward(x, *given[0], **given[1]), layer.forward(x, 2.0))
    with pytest.raises(TypeError, match="momentum"):
        fast(x, momentum=1)


def test_arrays_that_are_no_longer_real_go_to_the_original():
    layer, x = RowLayer(rng0, 4, 3, None), inputs(4, ROWS)
    fast = fl.accelerate(layer)
    layer.W = layer.W * 1j
    np.testing.assert_array_equal(fast(x), layer.forward(x))
    layer.W, layer.b = layer.W.real, np.ones((2, 1, 3))
    np.testing.assert_array_equal(fast(x), layer.forward(x))
    del layer.W
    with pytest.raises(fl.ConversionError, match="no dense layer"):
        fast(x)


def test_accelerating_twice_is_accelerating_once():
    fast = fl.accelerate(RowLayer(rng0, 4, 3))
    assert fl.accelerate(fast) is fast


def test_vectors_in_a_network_for_columns_broadcast_as_in_numpy():
    layer = ColumnLayer(4, 3)
    fast, x = fl.accelerate(layer), np.ones(4)
    assert layer.forward_pass(x).shape == (3, 3)  # (3,) + (3, 1): not what anybody wants
    np.testing.assert_array_equal(fast(x), layer.forward_pass(x))


def test_a_row_beside_rows():
    layer = RowLayer(rng0, 4, 3)
    fast, x = fl.accelerate(layer), inputs(4, ROWS)
    np.testing.assert_array_equal(fast(x[2]), fast(x)[2])
    assert fast(x[2]).shape == (3,)


@pytest.mark.parametrize("first", ["fastlayer", "fastlayer.convert.numpy_objects"])
def test_a_pickle_names_public_places_whichever_way_it_was_imported(first):
    code = (
        "import io, pickle, numpy as np\n"
        f"from {first} import accelerate\n"
        "class Layer:\n"
        "    def __init__(self): self.W = np.eye(3)\n"
        "    def forward(self, x): return x @ self.W\n"
        "fast = accelerate(Layer())\n"
        "class Names(pickle.Unpickler):\n"
        "    def find_class(self, *names): print(*names); return super().find_class(*names)\n"
        "data = pickle.dumps(fast)\n"
        "assert type(Names(io.BytesIO(data)).load()) is type(fast)\n"
        "Names(io.BytesIO(pickle.dumps(type(fast)))).load()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    named = {line for line in done.stdout.splitlines() if line.startswith("fastlayer")}
    assert named == {"fastlayer accelerate", "fastlayer Accelerated"}


def test_pickle_and_copy():
    fast = fl.accelerate(SimpleNN(3, 8, 3))
    x = inputs(3, ROWS)
    for other in (pickle.loads(pickle.dumps(fast)), copy.deepcopy(fast)):
        np.testing.assert_array_equal(other(x), fast(x))
        other.original.layer1.weights *= 2
        assert not np.array_equal(other(x), fast(x))


# ---------------------------------------------------------------------------------- refusals


class Conv:
    def __init__(self):
        self.W = np.ones((3, 1, 5, 5))

    def forward(self, x):
        return x


class Listed:
    """Weights that are no array."""

    def __init__(self):
        self.query = [[1.0, 2.0, 3.0, 4.0]] * 4

    def forward(self, x):
        return x @ np.array(self.query)


class Noisy(RowLayer):
    def forward(self, X):
        return super().forward(X) * np.random.default_rng().uniform(0.9, 1.1, (len(X), 1))


class Pair(RowLayer):
    def forward(self, X):
        return super().forward(X), X @ self.W.T + self.b


def one_bias_short():
    net = ListsOfColumns([4, 6, 3])
    del net.biases[1]
    return net


class Mixed(Numbered):
    def __init__(self):
        super().__init__()
        self.W2 = self.W2.astype(np.float32)
        self.b2 = self.b2.astype(np.float32)


def inside_itself():
    layers = [RowLayer(rng0, 4, 4)]
    layers.append(layers)
    return layers


def integers():
    layer = RowLayer(rng0, 4, 3)
    layer.W = np.ones((3, 4), int)
    return layer


REFUSALS = {
    "convolution": (lambda: [Conv()], ["layer 0 (Conv)", "(3, 1, 5, 5)", "two dimensions"]),
    "lists of numbers": (
        lambda: [RowLayer(rng0, 4, 4), Listed()],
        ["layer 1 (Listed)", "np.array"],
    ),
    "only lists of numbers": (Listed, ["Listed", "no dense layer", "fl.linear"]),
    "noise": (lambda: Noisy(rng0, 4, 4), ["Noisy", "more than rounding"]),
    "tuple": (lambda: Pair(rng0, 4, 4), ["Pair", "tuple", "fl.dense_forward"]),
    "number in a list": (
        lambda: [RowLayer(rng0, 4, 4), 0.5],
        ["layer 1 (float)", "neither weights", "nor a method"],
    ),
    "one bias short": (one_bias_short, ["ListsOfColumns", "2 weights and 1 biases"]),
    "mixed dtypes": (Mixed, ["Mixed.W2", "float32", "one dtype"]),
    "integers": (integers, ["int64", "astype"]),
    "shapes": (lambda: [RowLayer(rng0, 4, 3), RowLayer(rng0, 5, 2)], ["(3, 4)", "(2, 5)"]),
    "function": (lambda: relu, ["relu", "hides its arrays", "fl.linear"]),
    "class": (lambda: RowLayer, ["RowLayer(...)"]),
    "network": (lambda: fl.Network([fl.Layer(4, 2)]), ["fastlayer's own"]),
    "circle": (inside_itself, ["list", "inside each other"]),
    "nothing": (list, ["no dense layer"]),
    "number": (lambda: 3.0, ["float"]),
    "array": (lambda: np.eye(3), ["ndarray"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_what_is_not_understood(name):
    make, words = REFUSALS[name]
    with pytest.raises(fl.ConversionError) as info:
        fl.accelerate(make())
    assert not [word for word in words if word not in str(info.value)], str(info.value)


def test_objects_of_frameworks_are_sent_to_their_converter():
    neural = pytest.importorskip("sklearn.neural_network")
    with pytest.raises(fl.ConversionError, match="from_sklearn"):
        fl.accelerate(neural.MLPClassifier())
