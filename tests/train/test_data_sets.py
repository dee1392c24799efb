"""What training reaches on real data. The bits are the same everywhere, and so are these shares."""

import os
from itertools import pairwise

import numpy as np
import pytest

import fastlayer as fl


def split(rng, number, share):
    order = rng.permutation(number)
    return order[: int(share * number)], order[int(share * number) :]


def classifier(*sizes):
    inner = [
        fl.Layer(k, n, "relu", init="he_normal", rng=i)
        for i, (k, n) in enumerate(pairwise(sizes[:-1]))
    ]
    return fl.Network([*inner, fl.Layer(sizes[-2], sizes[-1], "softmax", rng=9)])


def test_digits(rng):
    datasets = pytest.importorskip("sklearn.datasets")
    x, t = datasets.load_digits(return_X_y=True)
    at, held = split(rng, len(x), 0.8)
    net = classifier(64, 64, 10)
    net.fit(x[at] / 16, t[at], epochs=40, rng=0, optimizer=fl.Adam(lr=0.003), schedule="cosine")
    right = np.mean(net(x[held] / 16).argmax(axis=1) == t[held])
    assert right >= 0.97, right


def test_diabetes_as_well_as_scikit_learn(rng):
    """The same layers, optimiser, rate, batches and epochs: R^2 on what was held back, over splits."""
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.neural_network import MLPRegressor

    x, t = datasets.load_diabetes(return_X_y=True)
    x = x / x.std(axis=0)
    found = []
    for seed in range(10):
        at, held = split(rng, len(x), 0.8)
        centre, scale = t[at].mean(), t[at].std()
        y = (t - centre) / scale
        peer = MLPRegressor(
            hidden_layer_sizes=(16,), alpha=0, batch_size=32, max_iter=60, n_iter_no_change=60, random_state=seed,
            learning_rate_init=0.002,
        )  # fmt: skip
        with pytest.warns(UserWarning, match="Maximum iterations"):
            peer.fit(x[at], y[at])
        net = fl.Network(
            [
                fl.Layer(10, 16, "relu", init="xavier_uniform", dtype=float, rng=seed),
                fl.Layer(16, 1, init="xavier_uniform", dtype=float, rng=seed + 100),
            ]
        )
        net.fit(x[at], y[at], epochs=60, batch_size=32, optimizer=fl.Adam(lr=0.002), rng=seed)
        errors = [np.mean((p - y[held]) ** 2) for p in (net(x[held])[:, 0], peer.predict(x[held]))]
        found.append(1 - np.array(errors) / y[held].var())
    mine, theirs = np.transpose(found)
    # Initial weights and orders are drawn differently: two standard errors of the mean.
    difference = mine - theirs
    assert difference.mean() >= -2 * difference.std(ddof=1) / np.sqrt(len(found)), found
    assert mine.mean() > 0.3


@pytest.mark.long
def test_mnist():
    path = os.environ.get("FASTLAYER_MNIST")
    if path is None:
        pytest.skip(
            "FASTLAYER_MNIST names no file: mnist.npz with x_train, y_train, x_test, y_test"
        )
    with np.load(path, allow_pickle=False) as file:
        x, t, held, wanted = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    net = classifier(784, 128, 10)
    scale = np.float32(1 / 255)
    x, held = (a.reshape(-1, 784) * scale for a in (x, held))
    history = net.fit(
        x, t, epochs=10, batch_size=64, rng=0, schedule="cosine", validation=(held, wanted)
    )
    right = np.mean(net(held).argmax(axis=1) == wanted)
    print(f"right {right:.4f}, loss {history.loss[-1]:.4f}")
    assert right == history.val_accuracy[-1]
    assert right >= 0.975, right
