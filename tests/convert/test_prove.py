"""The proof of a conversion: right ones pass whatever the order of their sums, wrong ones do not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from helpers import FLOATS, assert_within, ref_network

import fastlayer as fl
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Dense, Draft, Flat, Join, Point
from fastlayer.convert._prove import probe, prove
from fastlayer.convert._rounding import rounding_bound
from fastlayer.report.verification import Proof

ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, z.dtype.type(0.01) * z),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)),
    "elu": lambda z: np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "softplus": lambda z: np.logaddexp(0, z),
    "softmax": lambda z: np.exp(z - z.max(1, keepdims=True))
    / np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True),
    "log_softmax": lambda z: z - z.max(1, keepdims=True)
    - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)),
}  # fmt: skip
WIDTHS = {"small": [3, 5, 2], "wide": [300, 64, 10], "deep": [20] * 12}


def sequential(x, w):
    """Another order of the sum than fastlayer's and NumPy's: one term after the other."""
    total = np.zeros((len(x), len(w)), x.dtype)
    for i in range(w.shape[1]):
        total += x[:, i, None] * w[:, i]
    return total


def layers(widths, dtype, activation):
    return [
        fl.Layer.from_arrays(
            np.random.default_rng(i).standard_normal((n, k)) / np.sqrt(k),
            np.random.default_rng(i + 99).standard_normal(n),
            activation,
            dtype=dtype,
        )
        for i, (k, n) in enumerate(pairwise(widths))
    ]


def forward(parts, function, product):
    def run(x):
        for layer in parts:
            x = function(product(x, layer.weight) + layer.bias)
        return x

    return run


@pytest.mark.parametrize("product", [lambda x, w: x @ w.T, sequential], ids=["numpy", "sequential"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("widths", WIDTHS)
def test_another_implementation_passes(widths, name, dtype, product):
    # written plainly, softplus has no threshold
    ours = fl.Activation(name, threshold=40) if name == "softplus" else name
    parts = layers(WIDTHS[widths], dtype, ours)
    report = prove(fl.Network(parts), forward(parts, ACTIVATIONS[name], product), source="numpy")
    assert report.bound_share < 1
    assert report.samples >= 64
    assert "share of the rounding bound" in str(report)


def test_a_large_network_is_tried_on_fewer_rows_of_each_kind():
    parts = layers([512, 512, 512], np.float32, "relu")
    report = prove(fl.Network(parts), forward(parts, ACTIVATIONS["relu"], sequential), source="")
    assert report.samples == len(probe(512, np.dtype(np.float32), 8, 0)[0]) == 16


def wrong(layer, **changes):
    """The layer with something else than what it has."""
    given = {"weight": layer.weight, "bias": layer.bias, "activation": layer.activation, **changes}
    return fl.Layer.from_arrays(*given.values(), dtype=layer.dtype)


def changed(a, size):
    b = a.copy()
    b.flat[-1] *= 1 + size
    return b


# What converters get wrong, each in the last of the layers or the first.
MISTAKES = {
    "slope": ("leaky_relu", lambda la: wrong(la, activation=fl.Activation("leaky_relu",
                                                                         negative_slope=0.011))),
    "gelu of the other kind": (
        "gelu", lambda la: wrong(la, activation=fl.Activation("gelu", approximate="tanh"))),
    "alpha": ("elu", lambda la: wrong(la, activation=fl.Activation("elu", alpha=1.01))),
    "hardsigmoid": ("hardsigmoid", lambda la: wrong(la, activation=lambda z: np.clip(
        0.2 * z + 0.5, 0, 1))),
    "no bias": ("tanh", lambda la: wrong(la, bias=None)),
    "one weight": ("relu", lambda la: wrong(la, weight=changed(la.weight, 0.01))),
    "one bias": ("relu", lambda la: wrong(la, bias=changed(la.bias, 0.01))),
    "transposed": ("relu", lambda la: wrong(la, weight=la.weight.T)),
    "permuted": ("relu", lambda la: wrong(la, weight=la.weight[:, ::-1])),
    "missing activation": ("relu", lambda la: wrong(la, activation=None)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("at", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake, at, dtype):
    name, change = MISTAKES[mistake]
    right = layers([8, 8, 8, 8], dtype, name)
    other = list(right)
    other[at] = change(other[at])
    with pytest.raises(fl.ConversionError) as info:
        prove(fl.Network(other), fl.Network(right), source="numpy Test")
    message = str(info.value)
    assert info.value.place == "numpy Test"
    assert not [
        w for w in ("Worst row", "x = [", "here and", "rounding explains") if w not in message
    ]


def norm(kind, eps, dtype):
    rng = np.random.default_rng(1)
    arrays = {"weight": rng.uniform(1, 2, 8), "bias": rng.standard_normal(8)}
    if kind is fl.RMSNorm:
        del arrays["bias"]
    if kind is fl.BatchNorm:
        arrays |= {"running_mean": rng.standard_normal(8), "running_var": rng.uniform(0.5, 2, 8)}
    return kind(8, eps=eps, dtype=dtype, **arrays)


def plain_norm(part, x):
    if isinstance(part, fl.BatchNorm):
        y = (x - part.running_mean) / np.sqrt(part.running_var + x.dtype.type(part.eps))
        return y * part.weight + part.bias
    centre = x.mean(1, keepdims=True) if isinstance(part, fl.LayerNorm) else 0
    var = ((x - centre) ** 2).mean(1, keepdims=True)
    y = (x - centre) / np.sqrt(var + x.dtype.type(part.eps)) * part.weight
    return y + part.bias if isinstance(part, fl.LayerNorm) else y


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", [fl.LayerNorm, fl.RMSNorm, fl.BatchNorm])
def test_norms_and_residuals(kind, dtype):
    part = norm(kind, 1e-5, dtype)
    first, last = layers([8, 8, 8], dtype, "tanh")

    def reference(x):
        y = np.tanh(x @ first.weight.T + first.bias)
        y = y + plain_norm(part, y)
        return np.tanh(plain_norm(part, y) @ last.weight.T + last.bias)

    def net(p):
        return fl.Network([first, fl.Residual(part), p, last])

    assert prove(net(part), reference, source="numpy").bound_share < 1
    with pytest.raises(fl.ConversionError, match="more than rounding"):
        prove(net(norm(kind, 1e-3, dtype)), reference, source="numpy")


def test_a_batch_norm_before_a_layer_may_cancel():
    rng = np.random.default_rng(2)
    part = fl.BatchNorm(6, running_mean=rng.uniform(1e3, 2e3, 6).astype(np.float32))
    layer = fl.Layer(6, 4, rng=0)

    def reference(x):
        return plain_norm_without(part, x) @ layer.weight.T

    def plain_norm_without(p, x):
        return (x - p.running_mean) / np.sqrt(np.float32(1 + p.eps))

    inputs = part.running_mean + rng.standard_normal((20, 6))
    report = prove(fl.Network([part, layer]), reference, source="numpy", inputs=inputs)
    assert report.bound_share < 1
    assert report.samples == 20 + len(probe(6, np.dtype(np.float32), 64, 0)[0])


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_bound_holds_and_stays_far_below_the_worst_case(dtype):
    parts = layers([300] * 5, dtype, "tanh")
    x = np.random.default_rng(0).standard_normal((20, 300)).astype(dtype)
    exact, worst = ref_network(x, [(la.weight, la.bias, "tanh") for la in parts], dtype)
    bound = rounding_bound(fl.Network(parts), x)
    assert_within(fl.Network(parts)(x), exact, bound)
    assert_within(forward(parts, np.tanh, sequential)(x), exact, bound)
    assert bound.max() < 1e-3 * worst.min()


def test_user_functions_and_flatten():
    layer = layers([6, 4], np.float64, lambda z: np.sin(z) / (1 + np.abs(z)))[0]
    net = fl.Network([fl.Flatten(), layer, lambda a: a[:, :2]])

    def reference(x):
        z = x @ layer.weight.T + layer.bias
        return (np.sin(z) / (1 + np.abs(z)))[:, :2]

    assert prove(net, reference, source="numpy").bound_share < 1
    images = np.random.default_rng(0).uniform(size=(5, 2, 3))
    assert prove(net, reference, source="numpy", inputs=images).samples == 5 + 72


def test_a_network_for_any_width():
    assert prove(fl.Network(["tanh"]), np.tanh, source="numpy").bound_share <= 1


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_network_of_few_features(k):
    layer = fl.Layer.from_arrays(np.ones((3, k)), np.arange(3.0))
    proof = prove(fl.Network([layer]), lambda x: x @ layer.weight.T + layer.bias, source="numpy")
    assert proof.bound_share < 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_probe_has_rows_of_all_kinds(dtype):
    x, stress = probe(5, np.dtype(dtype), 64, 0)
    assert x.dtype == dtype
    assert np.isfinite(x).all()
    rows = x.tolist()
    for row in ([0.0] * 5, [1.0] * 5, [-1.0] * 5, [1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0]):
        assert row in rows
    assert np.abs(x[stress]).max() >= 1e6
    assert np.abs(x[~stress]).max() < 10
    assert (stress.sum(), len(x)) == (17, 72)
    again, _ = probe(5, np.dtype(dtype), 64, 0)
    np.testing.assert_array_equal(again, x)
    assert len(probe(1, np.dtype(dtype), 1, 0)[0]) > 8


def test_a_formula_that_overflows_on_large_rows_passes():
    layer = layers([4, 3], np.float64, "softmax")[0]

    def naive(x):
        e = np.exp(x @ layer.weight.T + layer.bias)
        return e / e.sum(axis=1, keepdims=True)

    assert prove(fl.Network([layer]), naive, source="numpy").bound_share < 1
    with pytest.raises(fl.ConversionError, match="nan there"):
        prove(fl.Network([layer]), lambda x: naive(x) * np.nan, source="numpy")


def test_nan_in_the_weights_is_nan_in_both():
    layer = fl.Layer.from_arrays([[1.0, np.nan], [1.0, 2.0]])
    report = prove(fl.Network([layer]), lambda x: x @ layer.weight.T, source="numpy")
    assert report.max_abs < 1e-9


def test_reference_of_another_shape_and_one_that_fails():
    net = fl.Network([fl.Layer(3, 2, rng=0)])
    with pytest.raises(fl.ConversionError, match=r"\(72, 1\) for \(72, 3\).*\(72, 2\)"):
        prove(net, lambda x: net(x)[:, :1], source="numpy")

    def broken(x):
        raise RuntimeError("no such weight")

    with pytest.raises(fl.ConversionError, match=r"probe of shape \(72, 3\): no such weight") as e:
        prove(net, broken, source="numpy")
    assert isinstance(e.value.__cause__, RuntimeError)


def test_the_reference_can_not_change_the_probe():
    net = fl.Network([fl.Layer(3, 2, rng=0)])

    def writes(x):
        y = net(x)
        x[:] = 0
        return y

    assert isinstance(prove(net, writes, source="numpy"), Proof)


# ----------------------------------------------------------------------------------- affines


def network(steps, dtype, features=None):
    return Draft(Point().then(steps), np.dtype(dtype), "numpy", features).network()


def test_affine_is_a_part():
    (part,) = Affine.of([1.0, 2.0], 3.0).parts(2, np.float32)
    np.testing.assert_array_equal(part(np.float32([[1, 1]])), np.float32([[4, 5]]))
    assert network([Affine.of(2.0, 1.0)], np.float64, 3)(np.ones(3)).tolist() == [3, 3, 3]
    with pytest.raises(fl.ConversionError, match="no layer tells how many features"):
        network([Affine.of(2.0)], np.float64)


@pytest.mark.parametrize("dtype", FLOATS)
def test_affines_become_parts_beside_the_layers(dtype):
    rng = np.random.default_rng(0)
    first, last = layers([4, 5, 3], dtype, None)
    act = wrong(last, activation="relu")
    a, b = Affine.of(rng.uniform(1, 2, 4), rng.standard_normal(4)), Affine.of(2.0, -1.0)
    x = rng.standard_normal((7, 4)).astype(dtype)
    net = network([a, first, b, b, act, Affine.of(0.5)], dtype, 4)
    kinds = ["BatchNorm", "Layer", "BatchNorm", "Layer", "BatchNorm"]
    assert [type(p).__name__ for p in net.layers] == kinds
    assert str(net.summary()).count("folded into layer") == 2
    y = ((x * a.scale + a.shift) @ first.weight.T + first.bias) * 4 - 3
    y = np.maximum(y @ act.weight.T + act.bias, 0) * 0.5
    # 4 terms and 5 terms, of sizes below 100 in sum
    np.testing.assert_allclose(net(x), y, atol=1000 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_sum_behind_a_product_is_its_bias(dtype):
    w, b = np.arange(6.0).reshape(2, 3), np.array([1.0, -2.0])
    net = network([Dense(w), Affine.of(1.0, b), Affine.of(1.0, b), fl.Activation("relu")], dtype)
    layer, norm, _ = net.layers
    assert layer.bias.tolist() == norm.bias.tolist() == b.tolist()
    layer = network([Dense(w), Affine.of(1.0, 3.0), fl.Activation("relu")], dtype)[0]
    assert layer.bias.tolist() == [3, 3]
    assert layer.activation == fl.Activation("relu")


def test_affines_that_cancel_stay_apart():
    big = Affine.of(1.0, [1e6, 1.0])
    assert big.then(Affine.of(1.0, [-1e6, 1.0])) is None
    assert big.then(Affine.of(1e300)).then(Affine.of(1e300)) is None
    assert big.then(Affine.of(2.0, 1.0)).shift.tolist() == [2e6 + 1, 3]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_subtraction_that_would_cancel_is_not_folded(dtype):
    layer = layers([4, 3], dtype, "tanh")[0]
    mean, scale = np.float32([2010, -3000, 0, 1e6]), np.array([0.2, 0.5, 1, 2])
    net = network([Affine.of(scale, -mean * scale), layer], dtype)
    kinds = ["BatchNorm", "Activation", "BatchNorm", "Layer"]
    assert [type(p).__name__ for p in net.layers] == kinds
    x = (mean + np.random.default_rng(0).integers(-5, 6, (50, 4))).astype(dtype)
    y = np.tanh((x.astype(float) - mean) * scale @ layer.weight.T.astype(float) + layer.bias)
    # differences are exact, and four terms of size 10 follow
    np.testing.assert_allclose(net(x), y, rtol=0, atol=100 * np.finfo(dtype).eps)
    assert (np.abs(net(x) - y) <= rounding_bound(net, x)).all()
    kinds = [type(p).__name__ for p in network([Affine.of(1.0, mean), layer], dtype).layers]
    assert kinds == ["BatchNorm", "Activation", "Layer"]


CANCELLING = {
    # the source rounds numbers of size 1 and 100, which nothing in the folded layer tells of
    "in front": lambda w, m: (w - np.outer(w @ m, m) / (m @ m), None, 1e-3),
    "behind": lambda w, m: (w * 1e-3, m[: len(w)] * 100, 1.0),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("where", CANCELLING)
def test_the_bound_sees_what_cancels_in_a_folded_layer(where, seed, dtype):
    rng = np.random.default_rng(seed)
    n, k = [(3, 4), (5, 8), (16, 64), (10, 300)][seed]
    m = rng.uniform(0.5, 1.5, k)
    w, b, size = CANCELLING[where](rng.standard_normal((n, k)) / np.sqrt(k), m)
    layer = fl.Layer.from_arrays(w, b, dtype=dtype)
    w, b = layer.weight, layer.bias

    def parts(error=0.0):
        if where == "in front":
            return [Affine.of(1.0, m + error * (np.arange(k) == 0)), layer]
        return [layer, Affine.of(1.0, error - b.astype(float))]

    def reference(x):
        return (x + m.astype(dtype)) @ w.T if where == "in front" else (x @ w.T + b) - b

    net = network(parts(), dtype, k)
    inputs = (rng.standard_normal((100, k)) * size).astype(dtype)
    proof = prove(net, reference, source="numpy", inputs=inputs)
    assert 1e-4 < proof.bound_share < 0.5
    # a layer that was folded beforehand explains too little: its own numbers cancel nowhere
    bias = w.astype(float) @ m if where == "in front" else 0 * b
    folded = fl.Network([fl.Layer.from_arrays(w, bias, dtype=dtype)])
    with pytest.raises(fl.ConversionError, match="more than rounding"):
        prove(folded, reference, source="numpy", inputs=inputs)
    wrong = network(parts(1e5 * np.finfo(dtype).eps * np.sqrt(k)), dtype, k)
    with pytest.raises(fl.ConversionError, match="more than rounding"):
        prove(wrong, reference, source="numpy", inputs=inputs)


def test_a_number_behind_parts_that_change_the_width():
    number, tall = Affine.of(2.0, 1.0), fl.Layer(3, 5, "relu", rng=0)
    assert network([tall, number], np.float32, 3)[1].in_features == 5
    tanh = fl.Activation("tanh")
    assert (
        network([tall, tanh, Join.of("add", [[tanh], []]), number], np.float32)[3].in_features == 5
    )
    net = network([tall, tanh, fl.Network([fl.Layer(5, 2)]), number], np.float32)
    assert net[3].in_features == 2
    net = network([Flat("flatten"), number, fl.LayerNorm(15)], np.float32)
    assert net[1].in_features == 15
