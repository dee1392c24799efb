"""Hand-written networks that `accelerate` follows through their operations, whatever the names."""

from __future__ import annotations

import pickle
import threading
from itertools import product

import numpy as np
import pytest

import fastlayer as fl

K, H, N = 5, 8, 3


def relu(z):
    return np.maximum(0, z)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z, axis=1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


class Plain:
    def __init__(self):
        rng = np.random.default_rng(0)
        self.first, self.shift = rng.standard_normal((K, H)), rng.standard_normal(H)
        self.second, self.end = rng.standard_normal((H, N)), rng.standard_normal(N)

    def forward(self, x):
        return softmax(sigmoid(x @ self.first + self.shift) @ self.second + self.end)


# ------------------------------------------------------------------------------ normalised input


class Standardised(Plain):
    def __init__(self):
        super().__init__()
        self.mu, self.sigma = np.linspace(-1, 2, K), np.linspace(0.5, 2, K)

    def forward(self, x):
        return super().forward((x - self.mu) / self.sigma)


class MinMax(Plain):
    def __init__(self):
        super().__init__()
        self.X_min, self.X_max = np.linspace(-1, 0, K), np.linspace(1, 3, K)

    def forward(self, x):
        return super().forward((x - self.X_min) / (self.X_max - self.X_min + 1e-8))


class Variance(Plain):
    def __init__(self):
        super().__init__()
        self.feature_means_, self.var = np.linspace(-1, 2, K), np.linspace(1, 3, K)

    def forward(self, x):
        return super().forward((x - self.feature_means_) / np.sqrt(self.var + 1e-5))


class ScaledAndMoved(Plain):
    def __init__(self):
        super().__init__()
        self.stats = {"scale": np.linspace(1, 2, K), "shift": 0.25}

    def forward(self, x):
        return super().forward(x * self.stats["scale"] + self.stats["shift"])


class Pixels(Plain):
    def forward(self, x):
        return super().forward(x / 255.0 * 2 - 1)


MEANS = np.linspace(-1, 1, K)


class GlobalAndClass(Plain):
    deviations = np.linspace(0.5, 1.5, K)

    def forward(self, x):
        return super().forward((x - MEANS) / self.deviations)


class ListOfMeans(Plain):
    def __init__(self):
        super().__init__()
        self.means = [0.1, 0.2, 0.3, 0.4, 0.5]

    def forward(self, x):
        return super().forward(x - self.means)


# --------------------------------------------------------------------------- wherever the weights


class Spelled:
    def __init__(self):
        rng = np.random.default_rng(1)
        self.weights_hidden_output = rng.standard_normal((H, N))
        self.weights_input_hidden = rng.standard_normal((K, H))
        self.bias_output, self.bias_hidden = np.zeros((1, N)), np.zeros((1, H))

    def forward(self, x):
        hidden = sigmoid(np.dot(x, self.weights_input_hidden) + self.bias_hidden)
        return sigmoid(np.dot(hidden, self.weights_hidden_output) + self.bias_output)


class AllSquare:
    """The order of the attributes is not that of the layers, and one weight is turned."""

    def __init__(self):
        rng = np.random.default_rng(2)
        self.wo, self.wi, self.wm = (rng.standard_normal((K, K)) for _ in range(3))
        self.one, self.two = np.zeros(K), np.zeros(K)

    def forward(self, x):
        return np.tanh(np.tanh(x @ self.wi + self.two) @ self.wm.T + self.one) @ self.wo


class Pairs:
    def __init__(self):
        rng = np.random.default_rng(3)
        shapes = (K, H), (H, H), (H, N)
        self.params = [(rng.standard_normal(s), rng.standard_normal(s[1])) for s in shapes]

    def forward(self, x):
        for i, (w, b) in enumerate(self.params):
            x = x @ w + b
            if i < len(self.params) - 1:
                x = relu(x)
        return x


class Dicts:
    """Columns."""

    def __init__(self):
        rng = np.random.default_rng(4)
        self.layers = [
            {"W": rng.standard_normal((H, K)), "b": np.zeros((H, 1)), "activation": "relu"},
            {"W": rng.standard_normal((N, H)), "b": np.zeros((N, 1)), "activation": "softmax"},
        ]

    def forward(self, a):
        for layer in self.layers:
            z = layer["W"] @ a + layer["b"]
            a = relu(z) if layer["activation"] == "relu" else softmax(z, 0)
        return a


class InPlace:
    def __init__(self):
        rng = np.random.default_rng(5)
        self.coefs_ = [rng.standard_normal((K, H)), rng.standard_normal((H, 1))]
        self.intercepts_ = [rng.standard_normal(H), rng.standard_normal(1)]

    def predict(self, x):
        a = np.asarray(x, dtype=float)
        for i, (w, b) in enumerate(zip(self.coefs_, self.intercepts_, strict=True)):
            a = a.dot(w)
            a += b
            if i == 0:
                a[a < 0] *= 0.1
        return a.ravel()


class Objects:
    """Layers in an array."""

    def __init__(self):
        self.layers = np.array([OneLayer(K, H), OneLayer(H, N)], dtype=object)

    def forward(self, x):
        for layer in self.layers:
            x = layer.apply(x)
        return x


class OneLayer:
    def __init__(self, k, n):
        self.matrix, self.mean = np.random.default_rng(k).standard_normal((n, k)), np.float32(0.5)

    def apply(self, x):
        return np.tanh(np.dot(x - self.mean, self.matrix.T))


class OtherDtypes(Spelled):
    """Statistics that were computed from single precision, and a count."""

    def __init__(self):
        super().__init__()
        self.mean, self.most = np.linspace(-1, 1, K, dtype=np.float32), np.arange(1, K + 1)

    def forward(self, x):
        return super().forward((x - self.mean) / self.most)


class Flat:
    """All weights in one array, as optimisers want them."""

    def __init__(self):
        self.sizes = (K, H, N)
        self.theta = np.random.default_rng(6).standard_normal(K * H + H + H * N)

    def forward(self, x):
        w, b, v = np.split(self.theta, [K * H, K * H + H])
        return np.tanh(x @ w.reshape(K, H) + b) @ v.reshape(H, N)


class Theta:
    """A bias unit: the first column of the weights."""

    def __init__(self):
        rng = np.random.default_rng(7)
        self.theta1, self.theta2 = rng.standard_normal((H, K + 1)), rng.standard_normal((N, H + 1))

    def predict(self, x):
        ones = np.ones((x.shape[0], 1))
        hidden = sigmoid(np.hstack([ones, x]) @ self.theta1.T)
        return sigmoid(np.hstack([ones, hidden]) @ self.theta2.T)


class ThetaOtherwise(Theta):
    def predict(self, x):
        hidden = sigmoid(np.c_[np.ones(len(x)), x] @ self.theta1.T)
        return sigmoid(np.insert(hidden, 0, 1, axis=1) @ self.theta2.T)


class ThetaAtTheEnd(Theta):
    def predict(self, x):
        wide = np.ones((x.shape[0], x.shape[1] + 1))
        wide[:, :-1] = x
        hidden = sigmoid(wide @ self.theta1.T)
        return np.concatenate((hidden, np.ones((len(hidden), 1))), axis=1) @ self.theta2.T


class Query:
    """A vector that becomes a column."""

    def __init__(self):
        rng = np.random.default_rng(8)
        self.w_ih, self.w_ho = rng.standard_normal((H, K)), rng.standard_normal((N, H))
        self.activation_function = lambda z: 1 / (1 + np.exp(-z))

    def query(self, inputs):
        column = np.array(inputs, ndmin=2).T
        hidden = self.activation_function(np.dot(self.w_ih, column))
        return self.activation_function(np.dot(self.w_ho, hidden))


class Masked(Plain):
    def __init__(self):
        super().__init__()
        self.mask = (np.random.default_rng(9).random((K, H)) > 0.4) * 1.0

    def forward(self, x):
        return relu(x @ (self.first * self.mask) + self.shift) @ self.second


class Around(Plain):
    """The activation reads variables around it."""

    def __init__(self):
        super().__init__()
        slopes = np.linspace(0.1, 0.5, H)
        self.act = lambda z: np.maximum(z, np.sqrt(slopes) * z) + self.shift

    def forward(self, x):
        return self.act(x @ self.first) @ self.second


class Turned:
    """Rows in and out, columns inside."""

    def __init__(self):
        rng = np.random.default_rng(10)
        self.a, self.s = rng.standard_normal((H, K)), rng.standard_normal((H, 1))
        self.o = rng.standard_normal((N, H))

    def forward(self, x):
        return softmax(self.o @ relu(self.a @ x.T + self.s), 0).T


# ------------------------------------------------------------------------------------ what is last


class Labels(Plain):
    forward = None

    def predict(self, x):
        return np.argmax(Plain.forward(self, x), axis=1)


class Names(Labels):
    def __init__(self):
        super().__init__()
        self.classes_ = np.array(["ant", "bee", "cow"])

    def predict(self, x):
        return self.classes_[super().predict(x)]


class Threshold:
    def __init__(self):
        self.weights, self.bias = np.random.default_rng(11).standard_normal(K), 0.25

    def predict(self, x):
        return (sigmoid(np.dot(x, self.weights) + self.bias) >= 0.5).astype(int)


class OneNumber(Threshold):
    def forward(self, x):
        return sigmoid(x @ self.weights + self.bias)


class Rounded(Plain):
    def forward(self, x):
        return np.rint(super().forward(x) * 9).astype(int)


class Units(Plain):
    """Targets are scaled back."""

    def __init__(self):
        super().__init__()
        self.y_mean, self.y_std = np.linspace(10, 20, N), np.linspace(1, 4, N)

    def forward(self, x):
        return np.tanh(x @ self.first + self.shift) @ self.second * self.y_std + self.y_mean


# ------------------------------------------------------------------------- objects and branches


class Inner:
    def __init__(self):
        self.net = Standardised()

    def forward(self, x):
        return self.net.forward(x)


class Scaler:
    def __init__(self):
        self.mean, self.scale = np.linspace(-1, 2, K), np.linspace(0.5, 2, K)

    def transform(self, x):
        return (x - self.mean) / self.scale


class Pipeline:
    def __init__(self):
        self.scaler, self.encoder, self.decoder = Scaler(), Plain(), Plain()
        self.decoder.first = np.random.default_rng(12).standard_normal((N, H))

    def __call__(self, x):
        return self.decoder.forward(self.encoder.forward(self.scaler.transform(x)))


class Residual:
    def __init__(self):
        rng = np.random.default_rng(13)
        self.up, self.down = rng.standard_normal((K, H)), rng.standard_normal((H, K))
        self.out = rng.standard_normal((K, N))

    def forward(self, x):
        for _ in range(2):
            x = x + relu(x @ self.up) @ self.down
        return (x - np.tanh(x @ self.up) @ self.down) @ self.out


class Joined:
    def __init__(self):
        rng = np.random.default_rng(14)
        self.p, self.q = rng.standard_normal((K, H)), rng.standard_normal((K + H, N))

    def forward(self, x):
        return np.concatenate([x, np.tanh(x @ self.p)], axis=1) @ self.q


class Duelling:
    def __init__(self):
        rng = np.random.default_rng(15)
        self.h, self.v, self.a = (rng.standard_normal(s) for s in ((K, H), (H, 1), (H, N)))

    def forward(self, x):
        h = relu(x @ self.h)
        advantage = h @ self.a
        return h @ self.v + advantage - advantage.mean(axis=1, keepdims=True)


class Normed(Plain):
    """A norm, and an activation of one's own."""

    def forward(self, x):
        h = x @ self.first
        h = (h - h.mean(axis=-1, keepdims=True)) / np.sqrt(h.var(axis=-1, keepdims=True) + 1e-5)
        return (np.sin(h) * h + self.shift) @ self.second


class OtherProducts(Plain):
    """Columns are chosen, and the batch is counted."""

    def __init__(self):
        super().__init__()
        self.inner, self.columns = self.first.T[:, :3].copy(), [0, 2, 3]

    def forward(self, x):
        h = np.tanh(np.inner(x[:, self.columns], self.inner) + np.tile(self.shift, (len(x), 1)))
        return np.einsum("ij,jk->ik", h, self.second) + self.end


class OneHot(Plain):
    def forward(self, x):
        scores = super().forward(x)
        result = np.zeros_like(scores)
        result[np.arange(len(scores)), scores.argmax(axis=1)] = 1
        return result


class Summed(Plain):
    def forward(self, x):
        x = np.log1p(np.abs(x)) - 0.5
        return np.tanh(x @ self.first - self.shift).sum(axis=1)


class Gates(Plain):
    """A mean and a width, each with a function of its own that reads one array."""

    def __init__(self):
        super().__init__()
        self.gate, self.least = np.random.default_rng(17).standard_normal((K, H)), np.array(0.25)

    def bend(self, z):
        return np.sin(z) * self.least + z

    def forward(self, x):
        h = self.bend(np.tanh(x @ self.first) * sigmoid(x @ self.gate))
        y = self.bend(h @ self.second)
        return np.hstack([np.tanh(y[:, :1]), np.exp(-y[:, 1:])])


class OneVector:
    """The last layer has one neuron, and no axis for it."""

    def __init__(self):
        rng = np.random.default_rng(18)
        self.W1, self.W2 = rng.standard_normal((K, H)), rng.standard_normal(H)

    def forward(self, x):
        return np.tanh(x @ self.W1) @ self.W2


class TwoActivations:
    def __init__(self):
        self.W = [np.random.default_rng(i).standard_normal((K, K)) for i in range(3)]

    def forward(self, x):
        return np.tanh(relu(x @ self.W[0]) @ self.W[1]) @ self.W[2]


FORMS = {
    "rows": (
        *(Standardised, MinMax, Variance, ScaledAndMoved, Pixels, GlobalAndClass, ListOfMeans),
        *(
            Spelled,
            OneVector,
            AllSquare,
            Pairs,
            InPlace,
            Flat,
            Objects,
            OtherDtypes,
            Theta,
            ThetaOtherwise,
            ThetaAtTheEnd,
            Masked,
        ),
        *(Around, Turned, Labels, Names, Threshold, OneNumber, Rounded, Units, Inner, Pipeline),
        *(Residual, Joined, Duelling, Normed, TwoActivations, Query),
        *(OtherProducts, OneHot, Summed, Gates),
    ),
    "columns": (Dicts,),
}
# They count rows, or take means along axis 1.
NO_VECTORS = {
    *(Standardised, MinMax, Variance, ScaledAndMoved, Pixels, GlobalAndClass, ListOfMeans, Theta),
    *(ThetaOtherwise, ThetaAtTheEnd, Turned, Labels, Names, Rounded, Inner, Pipeline, Joined),
    *(Duelling, Spelled, OtherDtypes, OtherProducts, OneHot, Summed, Gates),
}
CASES = [(form, cls) for form, classes in FORMS.items() for cls in classes]


def method_of(obj):
    names = ("forward", "query", "__call__", "predict")
    return getattr(obj, next(n for n in names if getattr(obj, n, None)))


def inputs(form, m=7, seed=1):
    shape = {"rows": (m, K), "columns": (K, m), "vector": (K,)}[form]
    return np.random.default_rng(seed).standard_normal(shape)


def assert_alike(ours, theirs):
    """Three layers of up to 13 terms of size 10, and sums of two."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    if theirs.dtype.kind == "f":
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)
    else:
        np.testing.assert_array_equal(ours, theirs)


def arrays_of(value):
    """All floating-point arrays in an object."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [value] if value.dtype.kind == "f" else []
    if isinstance(value, list | tuple | np.ndarray):
        return [a for item in value for a in arrays_of(item)]
    if isinstance(value, dict):
        return arrays_of(list(value.values()))
    around = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    found = arrays_of([a for a in around if isinstance(a, np.ndarray)])
    named = getattr(value, "__dict__", {})
    return found if isinstance(value, type) else [*found, *arrays_of(list(named.values()))]


@pytest.fixture(params=CASES, ids=lambda case: case[1].__name__)
def case(request):
    form, cls = request.param
    return cls(), form


def test_gives_what_the_original_gives(case):
    obj, form = case
    fast = fl.accelerate(obj)
    for m in (7, 1, K, 300):
        x = inputs(form, m)
        assert_alike(fast(x), method_of(obj)(x))
    assert fast.verification.bound_share <= 1
    x = inputs("vector")
    if form != "columns" and type(obj) not in NO_VECTORS:
        assert_alike(fast(x), method_of(obj)(x))
        assert fast._live(x) is not None
    assert fast._live(inputs(form)) is not None  # it does not hand everything to the original


def test_every_array_is_read_at_each_call(case):
    obj, form = case
    fast, x = fl.accelerate(obj), inputs(form)
    for array in arrays_of(obj):
        array *= 1.25
        assert_alike(fast(x), method_of(obj)(x))
        array += 0.125
        assert_alike(fast(x), method_of(obj)(x))


def test_the_object_is_left_as_it_was(case):
    obj, _ = case
    before = [a.copy() for a in arrays_of(obj)]
    names = list(vars(obj))
    fl.accelerate(obj)
    assert list(vars(obj)) == names
    for a, b in zip(arrays_of(obj), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_network_is_a_copy(case):
    obj, form = case
    fast = fl.accelerate(obj)
    net, x = fast.network, inputs(form)
    rows = x.T if form == "columns" else x
    before = net(rows)
    if np.asarray(fast(x)).dtype.kind == "f":
        theirs = np.asarray(method_of(obj)(x))
        turned = form == "columns" or type(obj) is Query
        assert_alike(before.T if turned else before.reshape(theirs.shape), theirs)
    for array in arrays_of(obj):
        array *= 2
    np.testing.assert_array_equal(net(rows), before)


@pytest.mark.parametrize("cls", [Standardised, Pairs, Theta, Residual, Labels])
def test_float32(cls):
    obj = cls()
    if cls is Pairs:
        obj.params = [tuple(a.astype(np.float32) for a in pair) for pair in obj.params]
    else:
        vars(obj).update({k: v.astype(np.float32) for k, v in vars(obj).items()})
    fast = fl.accelerate(obj)
    x = inputs("rows").astype(np.float32)
    ours, theirs = fast(x), method_of(obj)(x)
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, atol=1000 * 2.0**-23)
    assert fast.network.dtype == np.float32


def test_what_else_is_given_goes_to_the_original():
    obj = Standardised()
    fast = fl.accelerate(obj)
    images = np.arange(35, dtype=np.uint8).reshape(7, 5)
    assert_alike(fast(images), obj.forward(images))
    with pytest.raises(ValueError, match="broadcast"):  # NumPy's own words
        fast(np.ones((3, K + 1)))
    with pytest.raises(ValueError, match="axis 1"):
        fast(np.ones(K))


def test_numbers_and_settings_that_change_are_noticed():
    obj = Plain()
    obj.mean, obj.stats, obj.decay, obj.names = 0.5, {"std": 2.0}, 0.25, [0.1, 0.2]
    obj.act = relu

    def forward(x):
        z = obj.act((x - obj.mean) / obj.stats["std"] @ obj.first) * obj.decay
        return z @ obj.second + obj.names[1]

    obj.forward = forward
    fast, x = fl.accelerate(obj), inputs("rows")
    changes = [
        lambda: setattr(obj, "mean", -0.5),
        lambda: obj.stats.update(std=3.0),
        lambda: setattr(obj, "stats", {"std": 4.0}),
        lambda: setattr(obj, "decay", 0.75),  # named as one of the training, and used
        lambda: obj.names.__setitem__(1, 5.0),
        lambda: setattr(obj, "act", np.tanh),
        lambda: setattr(obj, "first", obj.first[:, ::-1] * 1.5),
        lambda: vars(obj).update(first=np.ones((K, 2)), second=np.ones((2, 4))),
    ]
    for change in changes:
        before = fast(x)
        change()
        assert_alike(fast(x), obj.forward(x))
        assert fast(x).shape != before.shape or not np.allclose(fast(x), before)


def test_what_training_counts_is_not_followed_anew():
    obj, x = Standardised(), inputs("rows")
    obj.lr, obj.epoch, obj.losses = 0.1, 0, []
    fast = fl.accelerate(obj)
    live = fast._live
    obj.lr, obj.epoch = 0.05, 1
    obj.losses.append(0.5)
    obj.first -= 0.1
    assert_alike(fast(x), obj.forward(x))
    assert fast._live is live


def test_a_class_and_a_module_may_hold_statistics():
    obj, x = GlobalAndClass(), inputs("rows")
    fast = fl.accelerate(obj)
    for array in (MEANS, GlobalAndClass.deviations):
        array *= 1.5
        assert_alike(fast(x), obj.forward(x))
        array /= 1.5


class Pieces(Standardised):
    """A batch in pieces."""

    def forward(self, x):
        pieces = [super(Pieces, self).forward(x[i : i + 128]) for i in range(0, len(x), 128)]
        return np.vstack(pieces)


def test_batches_in_pieces():
    obj = Pieces()
    fast = fl.accelerate(obj)
    for m in (5, 128, 129, 300):
        x = inputs("rows", m)
        assert_alike(fast(x), obj.forward(x))


class Cached(Standardised):
    """Keeps what a backward pass needs, and has a second result."""

    def forward(self, x):
        self.cache = {"h": sigmoid((x - self.mu) @ self.first)}
        return self.cache["h"] @ self.second, self.cache

    def predict(self, x):
        return self.forward(x)[0]


def test_a_method_is_chosen_by_giving_it():
    obj, x = Cached(), inputs("rows")
    with pytest.raises(fl.ConversionError, match=r"returns a tuple.*accelerate\(network.predict\)"):
        fl.accelerate(obj)
    fast = fl.accelerate(obj.predict)
    assert not hasattr(obj, "cache")
    assert_alike(fast(x), obj.predict(x))
    assert_alike(fast.predict(x), obj.predict(x))
    obj.first *= 2
    assert_alike(fast(x), obj.predict(x))


def test_pickle():
    fast = fl.accelerate(Standardised())
    x = inputs("rows")
    other = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(other(x), fast(x))
    other.original.mu += 1
    assert not np.array_equal(other(x), fast(x))


# Any order of equally shaped weights in the attributes gives the same.
@pytest.mark.parametrize("order", list(product("abc", repeat=3)))
def test_weights_of_one_shape_are_told_apart(order):
    class Ordered:
        def __init__(self):
            rng = np.random.default_rng(16)
            self.a, self.b, self.c = (rng.standard_normal((K, K)) for _ in range(3))

        def forward(self, x):
            for name in order:
                x = np.tanh(x @ getattr(self, name))
            return x

    obj, x = Ordered(), inputs("rows")
    assert_alike(fl.accelerate(obj)(x), obj.forward(x))


# ---------------------------------------------------------------------------------- refusals


class Dropping(Standardised):
    def forward(self, x):
        h = relu(x @ self.first)
        return h * (np.random.default_rng().random(h.shape) > 0.5) @ self.second


class Parity(Standardised):
    """Does other things for an odd number of rows."""

    def forward(self, x):
        x = (x - self.mu) / self.sigma
        return np.tanh(x @ self.first) if len(x) % 2 else relu(x @ self.first)


class Sample(Standardised):
    def forward(self, x):
        return np.array([sigmoid(row @ self.first) @ self.second for row in x])


class Python(Standardised):
    def forward(self, x):
        return (x * [float(v) for v in self.mu]) @ self.first


class Mixed(Standardised):
    def forward(self, x):
        return x @ self.first @ self.second.astype(np.float32)


class TwoDtypes(Standardised):
    def __init__(self):
        super().__init__()
        self.second = self.second.astype(np.float32)


class OfNothing(Standardised):
    def forward(self, x):
        return np.tanh((x - self.mu) / self.sigma)


class OfTheBatch(Standardised):
    def forward(self, x):
        return (x @ self.first).mean(axis=0)


class Locked(Standardised):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Nameless(Standardised):
    forward = None

    def go(self, x):
        return x @ self.first


REFUSALS = {
    Dropping: ["calls multiply", "random", "in attributes"],
    Parity: ["other steps for other numbers or samples"],
    Sample: ["other steps for other numbers or samples"],
    Python: ["multiply", "arrays of the object", "attributes"],
    TwoDtypes: ["float32, float64", "one dtype"],
    OfNothing: ["none of the object's arrays"],
    OfTheBatch: ["shape (8,)", "not one row each"],
    Locked: ["copy.deepcopy", "lock", "elsewhere"],
    Nameless: ["no method forward_pass", "fl.accelerate(network.my_method)"],
}


@pytest.mark.parametrize("cls", REFUSALS)
def test_refusals_say_what_is_the_matter(cls):
    with pytest.raises(fl.ConversionError) as info:
        fl.accelerate(cls())
    assert not [word for word in REFUSALS[cls] if word not in str(info.value)], str(info.value)


def test_the_advice_for_an_unknown_method_works():
    obj, x = Nameless(), inputs("rows")
    assert_alike(fl.accelerate(obj.go)(x), obj.go(x))


class Listed(Plain):
    """Weights in a list of lists."""

    def __init__(self):
        super().__init__()
        self.second = self.second.tolist()

    def forward(self, x):
        return np.tanh(x @ self.first) @ np.array(self.second)


ADVICE = {
    Listed: ("as np.array makes them", lambda o: setattr(o, "second", np.array(o.second))),
    TwoDtypes: ("make all one dtype", lambda o: setattr(o, "second", o.second.astype(float))),
    Locked: ("lock.*keep that elsewhere", lambda o: delattr(o, "lock")),
}


@pytest.mark.parametrize("cls", ADVICE)
def test_the_advice_for_arrays_works(cls):
    obj, x = cls(), inputs("rows")
    words, mend = ADVICE[cls]
    with pytest.raises(fl.ConversionError, match=words):
        fl.accelerate(obj)
    mend(obj)
    assert_alike(fl.accelerate(obj)(x), obj.forward(x))
