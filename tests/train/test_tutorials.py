"""Training loops of the tutorials: the same weights with our functions, a `Trainer` and `fit`.

In float64, to rounding: a run of some thousand steps, each of them off by some 1e-16.
"""

import numpy as np
import pytest

import fastlayer as fl

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
SLOPE = 0.1


def leaky(z):
    return np.maximum(z, SLOPE * z)


def leaky_slope(z):
    return np.maximum(z > 0, SLOPE)


def logistic(z):
    return 1 / (1 + np.exp(-z))


class Column:
    """A layer on columns (n, 1): weights are changed in place, the sum is computed again to train."""

    def __init__(self, rng, ins, outs, f=leaky, df=leaky_slope):
        self.W = rng.normal(scale=1 / np.sqrt(ins), size=(outs, ins))
        self.b = rng.normal(scale=0.1, size=(outs, 1))
        self.f, self.df = f, df

    def forward(self, x):
        return self.f(np.dot(self.W, x) + self.b)


class Columns:
    """Layers in a row and the slope of a loss: one column at a time, plain gradient descent."""

    def __init__(self, layers, slope, rate):
        self.layers, self.slope, self.rate = layers, slope, rate

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def train(self, x, t):
        inputs = [x]
        for layer in self.layers:
            inputs.append(layer.forward(inputs[-1]))
        d = self.slope(inputs.pop(), t)
        for layer, x_in in zip(reversed(self.layers), reversed(inputs), strict=True):
            db = layer.df(np.dot(layer.W, x_in) + layer.b) * d
            d = np.dot(layer.W.T, db)
            layer.W -= self.rate * np.dot(db, x_in.T)
            layer.b -= self.rate * db


def mse_slope(v, t):
    return 2 * (v - t) / v.size


def cross_entropy_slope(v, t):
    p = np.exp(v - v.max())
    p /= p.sum()
    p[int(t), 0] -= 1
    return p


NAMES = {leaky: fl.Activation("leaky_relu", negative_slope=SLOPE), logistic: "sigmoid", None: None}


def ours(columns):
    """The same layers as a network; arrays are copied."""
    return fl.Network([fl.Layer.from_arrays(c.W, c.b, NAMES[c.f]) for c in columns.layers])


def train_by_functions(columns, slope, rate, x, t):
    """The tutorial's loop with our functions in the place of NumPy's, on columns."""
    layers = [(c.W.copy(), c.b.copy(), NAMES[c.f]) for c in columns.layers]
    for column, target in zip(x, t, strict=True):
        a, kept = column[:, None], []
        for W, b, act in layers:
            a_in = a
            a, z = fl.dense_forward(a_in, W, b, act)
            kept.append((a_in, z))
        d = slope(a, target)
        for (W, b, act), (a_in, z) in zip(reversed(layers), reversed(kept), strict=True):
            d, dW, db = fl.dense_backward(fl.activation_backward(d, z, act), a_in, W)
            W -= rate * dW
            b -= rate * db.reshape(b.shape)
    return [array for W, b, _ in layers for array in (W, b[:, 0])]


def arrays_of(net):
    return [a for layer in net.layers for a in (layer.weight, layer.bias)]


def compare(columns, loss, slope, rate, x, t, targets):
    """Train the same layers in four ways on samples in order; `targets` are those of `Loss`."""
    start = ours(columns)
    by_functions = train_by_functions(columns, slope, rate, x, t)
    single, epoch = ours(columns), ours(columns)
    trainer = fl.Trainer(single, loss, fl.SGD(lr=rate))
    for row, target in zip(x, targets, strict=True):
        trainer.step(row, target)
    whole = fl.Trainer(epoch, loss, fl.SGD(lr=rate))
    whole.steps(x, targets, 1)
    stream = ours(columns)
    stream.fit(
        lambda: ((x[i], targets[i]) for i in range(len(x))),
        loss=loss,
        epochs=1,
        optimizer=fl.SGD(lr=rate),
    )
    for row, target in zip(x, t, strict=True):
        columns.train(row[:, None], target)
    theirs = [a for c in columns.layers for a in (c.W, c.b[:, 0])]
    for a, b in zip(arrays_of(start), theirs, strict=True):  # there was something to learn
        assert np.abs(a - b).max() > 100 * (CLOSE["rtol"] * np.abs(b).max() + CLOSE["atol"])
    for found in (
        by_functions,
        arrays_of(trainer.network),
        arrays_of(whole.network),
        arrays_of(stream),
    ):
        for a, b in zip(found, theirs, strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)
    return whole.network


# --- 003


def test_s3_5_gradients_of_one_sample(rng):
    """Those of weights are outer products, those of biases sums, those of inputs products."""
    inputs, W, b = rng.normal(size=5), rng.normal(size=(3, 5)), rng.normal(size=3)
    dL_da = rng.normal(size=3)
    a, z = fl.dense_forward(inputs, W, b, fl.relu)
    np.testing.assert_allclose(a, np.maximum(0, W @ inputs + b), rtol=1e-14)
    dL_dz = fl.activation_backward(dL_da, z, fl.relu)
    np.testing.assert_array_equal(dL_dz, dL_da * (z > 0))
    dx, dW, db = fl.dense_backward(dL_dz, inputs, W)
    np.testing.assert_allclose(dW, np.outer(dL_dz, inputs), rtol=1e-15)
    np.testing.assert_array_equal(db, dL_dz)
    np.testing.assert_allclose(dx, W.T @ dL_dz, rtol=1e-14, atol=1e-15)


def test_s3_5_training_one_sample_at_a_time(rng):
    """Two layers of vectors, not of columns."""
    x, t = rng.normal(size=(300, 4)), rng.normal(size=(300, 2))
    W1, b1, W2, b2 = (rng.normal(size=s) / 2 for s in [(6, 4), 6, (2, 6), 2])
    net = fl.Network([fl.Layer.from_arrays(W1, b1, "relu"), fl.Layer.from_arrays(W2, b2)])
    functions = [a.copy() for a in (W1, b1, W2, b2)]
    for row, target in zip(x, t, strict=True):
        hidden = W1 @ row + b1
        act = np.maximum(0, hidden)
        dz2 = 2 * (W2 @ act + b2 - target) / 2
        dz1 = (W2.T @ dz2) * (hidden > 0)
        for array, d in [(W1, np.outer(dz1, row)), (b1, dz1), (W2, np.outer(dz2, act)), (b2, dz2)]:
            array -= 0.05 * d
        V1, c1, V2, c2 = functions
        a1, z1 = fl.dense_forward(row, V1, c1, fl.relu)
        a2, _ = fl.dense_forward(a1, V2, c2, fl.identity)
        d, dV2, dc2 = fl.dense_backward(fl.Loss("mse").gradient(a2, target), a1, V2)
        _, dV1, dc1 = fl.dense_backward(fl.activation_backward(d, z1, fl.relu), row, V1)
        for array, d in [(V1, dV1), (c1, dc1), (V2, dV2), (c2, dc2)]:
            array -= 0.05 * d
    trainer = fl.Trainer(net, "mse", fl.SGD(lr=0.05))
    trainer.steps(x, t, 1)
    for found in (functions, arrays_of(trainer.network)):
        for a, b in zip(found, (W1, b1, W2, b2), strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)


def test_s3_5_training_on_whole_batches_with_fit(rng):
    """One batch is all samples, so that their order is nobody's business."""
    x, t = rng.normal(size=(200, 4)), rng.normal(size=(200, 1))
    W1, b1, W2, b2 = (rng.normal(size=s) / 2 for s in [(6, 4), 6, (1, 6), 1])
    net = fl.Network([fl.Layer.from_arrays(W1, b1, "tanh"), fl.Layer.from_arrays(W2, b2)])
    history = net.fit(x, t, epochs=200, batch_size=200, optimizer=fl.SGD(lr=0.1), rng=0)
    losses = []
    for _ in range(200):
        a = np.tanh(x @ W1.T + b1)
        d = a @ W2.T + b2 - t
        losses.append((d**2).mean())
        dz2 = 2 * d / d.size
        dz1 = (dz2 @ W2) * (1 - a**2)
        W2 -= 0.1 * dz2.T @ a
        b2 -= 0.1 * dz2.sum(axis=0)
        W1 -= 0.1 * dz1.T @ x
        b1 -= 0.1 * dz1.sum(axis=0)
    np.testing.assert_allclose(history.loss, losses, **CLOSE)
    for a, b in zip(arrays_of(net), (W1, b1, W2, b2), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


# --- 002: rows, weights (in, out), a bias row, the inputs kept


class Rows:
    def __init__(self, rng, ins, outs):
        self.weights = rng.standard_normal((ins, outs)) * np.sqrt(2 / ins)
        self.bias = np.zeros((1, outs))

    def forward(self, inputs):
        self.inputs = inputs
        return inputs @ self.weights + self.bias

    def backward(self, d, rate):
        passed = d @ self.weights.T
        self.weights -= rate * self.inputs.T @ d
        self.bias -= rate * d.sum(axis=0, keepdims=True)
        return passed


@pytest.mark.parametrize("end", ["softmax", None])
def test_s2_4_the_network_from_classes_trains(rng, end):
    """Dense, ReLU, Dense, ReLU, Dense, Softmax: the layer in front of it gets (p - t) / m."""
    x, t = rng.normal(size=(120, 3)), rng.integers(0, 3, 120)
    dense = [Rows(rng, 3, 8), Rows(rng, 8, 8), Rows(rng, 8, 3)]
    acts = ["relu", "relu", end]

    def made():
        return fl.Network(
            [
                fl.Layer.from_arrays(d.weights, d.bias, act, layout="in_out")
                for d, act in zip(dense, acts, strict=True)
            ]
        )

    by_fit, by_functions = made(), made()
    layers = [[layer.weight.copy(), layer.bias.copy()] for layer in by_functions.layers]
    history = by_fit.fit(
        x, t, "cross_entropy", epochs=100, batch_size=120, optimizer=fl.SGD(lr=0.2), rng=0
    )
    losses = []
    for _ in range(100):
        z1 = dense[0].forward(x)
        z2 = dense[1].forward(np.maximum(0, z1))
        z3 = dense[2].forward(np.maximum(0, z2))
        p = np.exp(z3 - z3.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        losses.append(-np.log(p[np.arange(120), t]).mean())
        d = (p - np.eye(3)[t]) / 120
        d = dense[2].backward(d, 0.2) * (z2 > 0)
        d = dense[1].backward(d, 0.2) * (z1 > 0)
        dense[0].backward(d, 0.2)

        (W1, b1), (W2, b2), (W3, b3) = layers
        u1 = fl.linear(x, W1, b1)
        u2 = fl.linear(fl.relu(u1), W2, b2)
        u3 = fl.linear(fl.relu(u2), W3, b3)
        d, dW3, db3 = fl.linear_backward(fl.Loss("cross_entropy").gradient(u3, t), fl.relu(u2), W3)
        d, dW2, db2 = fl.linear_backward(fl.activation_backward(d, u2, "relu"), fl.relu(u1), W2)
        _, dW1, db1 = fl.linear_backward(fl.activation_backward(d, u1, "relu"), x, W1)
        for array, d in [(W1, dW1), (b1, db1), (W2, dW2), (b2, db2), (W3, dW3), (b3, db3)]:
            array -= 0.2 * d
    np.testing.assert_allclose(history.loss, losses, **CLOSE)
    for d, layer, (W, b) in zip(dense, by_fit.layers, layers, strict=True):
        for weight, bias in [(layer.weight, layer.bias), (W, b)]:
            np.testing.assert_allclose(weight, d.weights.T, **CLOSE)
            np.testing.assert_allclose(bias, d.bias[0], **CLOSE)
    assert history.loss[-1] < history.loss[0]


# --- 004 and the articles after it


def test_n3_the_mean_square_and_its_slope(rng):
    loss = fl.Loss("mse")
    v, e = rng.normal(size=(7, 1)), rng.normal(size=(7, 1))
    for a, b in [(v, e), (v.T, e.T), (v[:, 0], e[:, 0])]:
        assert loss(a, b) == pytest.approx(np.mean((a - b) ** 2), rel=1e-14)
        np.testing.assert_allclose(loss.gradient(a, b), 2 * (a - b) / a.size, rtol=1e-14)


def test_n4_n5_a_network_of_columns_trains_as_before(rng):
    columns = Columns([Column(rng, 3, 5), Column(rng, 5, 4), Column(rng, 4, 2)], mse_slope, 0.02)
    x, t = rng.normal(size=(400, 3)), rng.normal(size=(400, 2))
    compare(columns, "mse", mse_slope, 0.02, x, t[..., None], t)
    with pytest.raises(ValueError, match="takes 9 features, but layer 0"):
        fl.Network([fl.Layer(3, 5), fl.Layer(9, 2)])  # shapes that don't fit


def test_n6_quadrants(rng):
    """2-3-2, a point at a time, rate 0.05: whether both coordinates have the same sign."""
    x = rng.uniform(-1, 1, size=(3000, 2))
    t = np.eye(2)[(x.prod(axis=1) > 0).astype(int)]
    columns = Columns([Column(rng, 2, 3), Column(rng, 3, 2)], mse_slope, 0.05)
    net = compare(columns, "mse", mse_slope, 0.05, x, t[..., None], t)
    assert net(x).shape == (3000, 2)


def test_n7_integer_pixels_unscaled(rng):
    """784-16-16-10 on pixels from 0 to 255 as they are, rate 0.001."""
    x, digit = rng.integers(0, 256, size=(40, 784)), rng.integers(0, 10, 40)
    layers = [Column(rng, 784, 16), Column(rng, 16, 16), Column(rng, 16, 10)]
    for layer in layers:  # as small as they are there
        layer.W /= np.sqrt(layer.W.shape[1]) * layer.W.shape[0]
    t = np.eye(10)[digit]
    columns = Columns(layers, mse_slope, 0.001)
    compare(columns, "mse", mse_slope, 0.001, x, t[..., None], t)


def test_n8_cross_entropy_and_its_slope(rng):
    loss = fl.Loss("cross_entropy")
    v = rng.normal(size=(10, 1))
    for t in (0, 3, 9):
        theirs = -v[t, 0] + np.log(np.exp(v).sum())
        assert loss(v[:, 0], t) == pytest.approx(theirs, rel=1e-14)
        np.testing.assert_allclose(
            loss.gradient(v[:, 0], t)[:, None], cross_entropy_slope(v, t), rtol=1e-13, atol=1e-16
        )
    assert np.isfinite(loss(1000 * v[:, 0], 0))  # where their exponential overflows


def test_n8_logistic_layers_and_cross_entropy(rng):
    def slope(z):
        return logistic(z) * (1 - logistic(z))

    layers = [Column(rng, 6, 8, logistic, slope), Column(rng, 8, 4, logistic, slope)]
    x, t = rng.normal(size=(300, 6)), rng.integers(0, 4, 300)
    columns = Columns(layers, cross_entropy_slope, 0.1)
    net = ours(columns)
    # The tutorial takes the cross entropy of sigmoids. Here it belongs behind a sum or a softmax,
    # so the sigmoids become a part of their own loss.
    own = fl.Loss("cross_entropy")
    trainer = fl.Trainer(net, lambda y, t: (own(y, t), own.gradient(y, t)), fl.SGD(lr=0.1))
    by_functions = train_by_functions(columns, cross_entropy_slope, 0.1, x, t)
    for row, target in zip(x, t, strict=True):
        trainer.step(row, [target])
        columns.train(row[:, None], target)
    theirs = [a for c in columns.layers for a in (c.W, c.b[:, 0])]
    for found in (by_functions, arrays_of(trainer.network)):
        for a, b in zip(found, theirs, strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)


def test_n9_one_small_layer_on_scaled_pixels(rng):
    """784-10 on pixels from 0 to 1."""
    x, t = rng.integers(0, 256, size=(60, 784)) / 255, rng.integers(0, 10, 60)
    columns = Columns([Column(rng, 784, 10)], cross_entropy_slope, 0.01)
    compare(columns, "cross_entropy", cross_entropy_slope, 0.01, x, t, t)


def test_n9_students_learn_what_their_teacher_says(rng):
    """Several networks predict the same rows; the teacher's answers are the targets."""
    x = rng.integers(0, 256, size=(60, 784)) / 255
    teacher = ours(
        Columns([Column(rng, 784, 16), Column(rng, 16, 16), Column(rng, 16, 10)], None, 0)
    )
    told = teacher(x).argmax(axis=1)
    before = arrays_of(teacher)
    agreed = []
    for _ in range(6):
        columns = Columns([Column(rng, 784, 10)], cross_entropy_slope, 0.01)
        untaught = np.mean(ours(columns)(x).argmax(axis=1) == told)
        student = compare(columns, "cross_entropy", cross_entropy_slope, 0.01, x, told, told)
        agreed.append((untaught, np.mean(student(x).argmax(axis=1) == told)))
    untaught, taught = np.mean(agreed, axis=0)
    assert taught > untaught
    for a, b in zip(arrays_of(teacher), before, strict=True):
        np.testing.assert_array_equal(a, b)
