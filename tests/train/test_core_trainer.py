"""The core's steps against the same steps taken one function at a time, bit for bit.

The reference is written with the functions of the package and NumPy; sums in float64 are those of
`matmul`.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import threading
from typing import NamedTuple

import numpy as np
import pytest
from helpers import FLOATS, assert_same_bits, available_isas
from own_process import run_python

from fastlayer import _core

LR, MOMENTUM, DECAY, BETA1, BETA2, EPS, MAX_NORM, POWER1, POWER2 = range(9)
VALUE, SLOPE, PENALTY, FORMS, LEAST, MOST = range(9, 15)

ADAM = {LR: 0.01, BETA1: 0.9, BETA2: 0.999, EPS: 1e-8}
OPTIMIZERS = {
    "sgd": {LR: 0.05},
    "momentum": {LR: 0.05, MOMENTUM: 0.9},
    "nesterov": {LR: 0.05, MOMENTUM: 0.9},
    "adam": ADAM,
    "adamw": {**ADAM, DECAY: 0.1},
}
# A loss, its parameter, and the last activation.
LOSSES = [
    ("mse", 0.0, "identity"),
    ("mse", 0.0, "tanh"),
    ("mae", 0.0, "identity"),
    ("huber", 0.3, "identity"),
    ("cross_entropy", 0.0, "softmax"),
    ("cross_entropy", 0.0, "identity"),
    ("cross_entropy", 0.1, "log_softmax"),
    ("cross_entropy", 0.1, "relu"),
    ("binary_cross_entropy", 0.0, "sigmoid"),
    ("binary_cross_entropy", 0.0, "identity"),
    ("poisson", 0.0, "exp"),
    ("poisson", 0.0, "identity"),
]


def scalars(values):
    array = np.zeros(15)
    array[[POWER1, POWER2, VALUE, SLOPE]] = 1.0
    array[[LEAST, MOST]] = -np.inf, np.inf
    for at, value in values.items():
        array[at] = value
    return array


# ----------------------------------------------------------------------------- the reference


def blocked_dot(u, v):
    return _core.matmul(u.astype(np.float64)[None], v.astype(np.float64)[:, None], None)[0, 0]


def blocked_sum(v):
    return blocked_dot(v, np.ones(len(v)))


def run(name, x, p0=0.0, p1=0.0):
    return _core.activation(name, np.ascontiguousarray(x), p0, p1, None)


class Dense(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray | None
    activation: str = "identity"
    p0: float = 0.0
    p1: float = 0.0
    trained: bool = True


def sum_and_activation(layer, x):
    z = _core.linear(x, layer.weight, layer.bias, "identity", 0.0, 0.0, None, False)
    if layer.activation == "identity":
        return z, z
    return z, run(layer.activation, z, layer.p0, layer.p1)


def smoothed(t, n, eps, dtype):
    if t.ndim == 1:
        t = (t[:, None] == np.arange(n)).astype(dtype)
    if eps == 0:
        return t
    return ((1 - eps) * t.astype(np.float64) + eps / n).astype(dtype)


def loss_and_gradient(
    name, p0, y, t, weights, value_scale=1.0, slope=1.0, bounds=(-np.inf, np.inf)
):
    """Of an output, or of the sum that the loss sees."""
    m, n = y.shape
    T = y.dtype.type
    total = float(m) if weights is None else blocked_sum(weights)
    r = np.full(m, slope / m) if weights is None else slope * weights / total
    wide = np.float64
    if name == "cross_entropy":
        t = smoothed(t, n, p0, T)
        p, q = run("softmax", y), run("log_softmax", y).astype(wide)
        q = np.where(t == 0, 0.0, q)
        values = np.array([-blocked_dot(a, b) for a, b in zip(t, q, strict=True)]).clip(*bounds)
        sigma = np.array([blocked_sum(row) for row in t]).astype(T)[:, None]
        dy = (p * sigma - t) * r.astype(T)[:, None]
    else:
        factor = 2.0 * r if name == "mse" else r
        scale = (factor / n).astype(T)[:, None]
        d = y - t
        if name == "mse":
            values = [blocked_dot(row, row) for row in d]
            dy = d * scale
        elif name == "mae":
            values = [blocked_sum(row) for row in abs(d)]
            dy = np.sign(d) * scale
        elif name == "huber":
            delta = T(p0)
            e, w = d.astype(wide), wide(delta)
            terms = np.where(abs(e) < w, 0.5 * e * e, w * (abs(e) - 0.5 * w))
            values = [blocked_sum(row) for row in terms]
            dy = np.clip(d, -delta, delta) * scale
        elif name == "binary_cross_entropy":
            plus, minus = (run("softplus", z, 1.0, math.inf).astype(wide) for z in (y, -y))
            terms = (t.astype(wide) * minus + (1 - t.astype(wide)) * plus).clip(*bounds)
            values = [blocked_sum(row) for row in terms]
            dy = np.where(t == 1, -run("sigmoid", -y), run("sigmoid", y) - t) * scale
        else:
            rate = run("exp", y)
            terms = rate.astype(wide) - t.astype(wide) * y.astype(wide)
            values = [blocked_sum(row) for row in terms]
            dy = (rate - t) * scale
        values = np.array(values) / n
    sums = blocked_sum(values) if weights is None else blocked_dot(weights, values)
    return value_scale * (sums / total), dy, total


def sees_through(loss, last):
    return last in {
        "cross_entropy": ("softmax", "log_softmax"),
        "binary_cross_entropy": ("sigmoid",),
        "poisson": ("exp",),
    }.get(loss, ())


class Reference:
    def __init__(self, layers, loss, p0, optimizer):
        self.layers = list(layers)
        self.loss, self.p0, self.optimizer = loss, p0, optimizer
        self.moments = [
            [tuple(None if a is None else np.zeros_like(a) for a in (lay.weight, lay.bias))] * 2
            for lay in layers
        ]

    def forward(self, x):
        self.seen = []
        for layer in self.layers:
            z, a = sum_and_activation(layer, x)
            self.seen.append((x, z))
            x = a
        return x

    def backward(self, d, through):
        gradients = []
        for i in reversed(range(len(self.layers))):
            layer, (x, z) = self.layers[i], self.seen[i]
            if not (through and i == len(self.layers) - 1) and layer.activation != "identity":
                d = _core.activation_backward(layer.activation, d, z, layer.p0, layer.p1, None)
            turned = np.ascontiguousarray(d.T)
            gradients.insert(
                0,
                (
                    _core.matmul(turned, x, None),
                    _core.matmul(turned, np.ones((len(x), 1), x.dtype), None)[:, 0],
                ),
            )
            d = _core.matmul(d, layer.weight, None)
        return gradients, d

    def step(self, x, t, weights, rates):
        y = self.forward(x)
        through = sees_through(self.loss, self.layers[-1].activation)
        value, dy, total = loss_and_gradient(
            self.loss, self.p0, self.seen[-1][1] if through else y, t, weights,
            rates[VALUE], rates[SLOPE], rates[[LEAST, MOST]],
        )  # fmt: skip
        gradients = self.backward(dy, through)[0]
        if rates[PENALTY]:
            squares = 0.0
            for layer in self.layers:
                if layer.trained:
                    squares += blocked_sum(np.array([blocked_dot(w, w) for w in layer.weight]))
            value += 0.5 * rates[PENALTY] * squares / total
        self.update(gradients, rates, rates[PENALTY] / total)
        return value

    def update(self, gradients, rates, pull=0.0):
        T = gradients[0][0].dtype.type
        pairs = [
            (i, j, g)
            for i, pair in enumerate(gradients)
            for j, g in enumerate(pair)
            if self.layers[i].trained and (j == 0 or self.layers[i].bias is not None)
        ]
        coefficient = 1.0
        if rates[MAX_NORM] > 0:
            norm = 0.0
            for _, _, g in pairs:
                norm += blocked_dot(g.ravel(), g.ravel())
            coefficient = rates[MAX_NORM] / (math.sqrt(norm) + 1e-6)
        rates[POWER1] *= rates[BETA1]
        rates[POWER2] *= rates[BETA2]
        for i, j, g in pairs:
            if coefficient < 1:
                g = g * T(coefficient)
            w = self.layers[i][j]
            if pull and j == 0:
                g = g + T(pull) * w
            m, v = (kept[j] for kept in self.moments[i])
            w, m, v = self.optimized(w, g, m, v, rates, T)
            self.layers[i] = self.layers[i]._replace(**{("weight", "bias")[j]: w})
            for which, value in enumerate((m, v)):
                pair = list(self.moments[i][which])
                pair[j] = value
                self.moments[i][which] = tuple(pair)

    def optimized(self, w, g, m, v, rates, T):
        lr, decay = T(rates[LR]), T(rates[DECAY])
        if self.optimizer == "adamw":
            w = w - T(rates[LR] * rates[DECAY]) * w
        elif rates[DECAY] != 0:
            g = g + decay * w
        if self.optimizer == "sgd":
            return w - lr * g, m, v
        if self.optimizer in ("momentum", "nesterov"):
            mom = T(rates[MOMENTUM])
            if rates[FORMS]:
                g, lr = lr * g, T(1)
            m = mom * m + g
            return w - lr * (m if self.optimizer == "momentum" else g + mom * m), m, v
        m = m + T(1 - rates[BETA1]) * (g - m)
        v = T(rates[BETA2]) * v + T(1 - rates[BETA2]) * (g * g)
        step = T(rates[LR] / (1 - rates[POWER1]))
        scale = 1 / math.sqrt(1 - rates[POWER2])
        eps = T(rates[EPS] * scale if rates[FORMS] else rates[EPS])
        return w - step * (m / (np.sqrt(v) * T(scale) + eps)), m, v


# ----------------------------------------------------------------------------- both of them


def chain(rng, dtype, widths, activations, *, bias=True, frozen=()):
    layers = []
    for i, (k, n) in enumerate(itertools.pairwise(widths)):
        w = (rng.normal(size=(n, k)) / math.sqrt(k)).astype(dtype)
        b = rng.normal(size=n).astype(dtype) * dtype(0.1) if bias else None
        name, *p = (activations[i], 0.0, 0.0) if isinstance(activations[i], str) else activations[i]
        layers.append(Dense(w, b, name, *p, trained=i not in frozen))
    return layers


def core(layers, loss, p0, optimizer):
    trainer = _core.Trainer(str(layers[0].weight.dtype), layers[0].weight.shape[1])
    for layer in layers:
        trainer.dense(*layer)
    trainer.finish(loss, p0, optimizer)
    return trainer


def targets(rng, loss, m, n, dtype, classes=True):
    if loss == "cross_entropy":
        if classes:
            return rng.integers(0, n, m)
        t = rng.random((m, n)) * (rng.random((m, n)) < 0.7)
        return t.astype(dtype)
    if loss == "binary_cross_entropy":
        return rng.choice([0.0, 1.0, 0.3], (m, n)).astype(dtype)
    if loss == "poisson":
        return rng.integers(0, 5, (m, n)).astype(dtype)
    return rng.normal(size=(m, n)).astype(dtype)


def assert_same_state(trainer, reference):
    for i, layer in enumerate(reference.layers):
        assert_same_bits(trainer.weight(i), layer.weight)
        if layer.bias is None:
            assert trainer.bias(i) is None
        else:
            assert_same_bits(trainer.bias(i), layer.bias)
        for which, name in enumerate(("first", "second")):
            for j, part in enumerate(("weight", "bias")):
                kept = getattr(trainer, f"{name}_moment_{part}")(i)
                if kept is not None:
                    assert_same_bits(kept, reference.moments[i][which][j])


def assert_same_steps(rng, layers, loss, p0, optimizer, rates, batches, *, classes, weighted):
    trainer, reference = core(layers, loss, p0, optimizer), Reference(layers, loss, p0, optimizer)
    dtype, k = layers[0].weight.dtype.type, layers[0].weight.shape[1]
    ours, theirs = scalars(rates), scalars(rates)
    for m in batches:
        x = rng.normal(size=(m, k)).astype(dtype)
        t = targets(rng, loss, m, layers[-1].weight.shape[0], dtype, classes)
        weights = rng.random(m) if weighted else None
        value = trainer.step(x, t, weights, ours)
        assert_same_bits(np.float64(value), np.float64(reference.step(x, t, weights, theirs)))
        if optimizer.startswith("adam"):
            assert_same_bits(ours, theirs)
    assert_same_state(trainer, reference)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("loss", "p0", "last"), LOSSES)
def test_losses(dtype, loss, p0, last):
    for seed, (classes, weighted) in enumerate(itertools.product((True, False), (False, True))):
        rng = np.random.default_rng(seed)
        layers = chain(rng, dtype, (5, 17, 10), ("relu", last))
        assert_same_steps(
            rng, layers, loss, p0, "sgd", OPTIMIZERS["sgd"], (1, 2, 15, 33, 600),
            classes=classes, weighted=weighted,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("loss", "p0"), [("mse", 0.0), ("cross_entropy", 0.1)])
@pytest.mark.parametrize("n", [1024, 1025, 1500])
def test_many_outputs(dtype, loss, p0, n):
    layers = chain(np.random.default_rng(20), dtype, (5, n), ["identity"])
    assert_same_steps(
        np.random.default_rng(21), layers, loss, p0, "sgd", OPTIMIZERS["sgd"], (37,),
        classes=True, weighted=True,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "more", [{}, {DECAY: 0.01}, {MAX_NORM: 0.1}, {MAX_NORM: 1e9}, {DECAY: 0.01, MAX_NORM: 0.1}]
)
def test_optimizers(dtype, optimizer, more):
    rng = np.random.default_rng(1)
    layers = chain(rng, dtype, (20, 33, 40, 1), ("tanh", "relu", "identity"))
    assert_same_steps(
        rng, layers, "mse", 0.0, optimizer, {**OPTIMIZERS[optimizer], **more}, [16] * 5,
        classes=False, weighted=False,
    )  # fmt: skip


# As scikit-learn's MLPs count.
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam"])
@pytest.mark.parametrize("frozen", [(), (1,)])
def test_penalties_scales_and_other_forms(dtype, optimizer, weighted, frozen):
    rng = np.random.default_rng(2)
    layers = chain(rng, dtype, (20, 33, 300, 5), ("tanh", "relu", "identity"), frozen=frozen)
    more = {VALUE: 0.5, SLOPE: 2.5, PENALTY: 0.3, FORMS: 1.0, EPS: 1e-3}
    assert_same_steps(
        rng, layers, "mse", 0.0, optimizer, {**OPTIMIZERS[optimizer], **more}, [16, 16, 7, 300],
        classes=False, weighted=weighted,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_bounds_of_cross_entropies(dtype, loss, classes):
    rng = np.random.default_rng(3)
    layers = chain(rng, dtype, (20, 33, 5), ("tanh", "identity"))
    rates = {**OPTIMIZERS["adam"], LEAST: 0.4, MOST: 1.1}
    assert_same_steps(
        rng, layers, loss, 0.0, "adam", rates, [16, 7], classes=classes, weighted=classes
    )


WIDTHS = [
    (1, 1),
    (3, 8, 8, 3),
    (4, 16, 1),
    (257, 31, 2),
    (600, 48, 10),
    (64, 300, 300, 7),
    (9, 520, 16),
]
NAMES = ["relu", "identity", "tanh", "gelu", "silu", "elu", "softmax", "log_softmax", "softplus"]
PARAMETERS = {"elu": (1.0, 0.0), "softplus": (1.0, 20.0), "leaky_relu": (0.1, 0.0)}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_random_chains(dtype, widths, bias):
    rng = np.random.default_rng(len(widths))
    names = rng.choice([*NAMES, "leaky_relu"], len(widths) - 2)
    inner = [(str(name), *PARAMETERS.get(name, (0.0, 0.0))) for name in names]
    layers = chain(rng, dtype, widths, [*inner, "identity"], bias=bias)
    assert_same_steps(
        rng, layers, "mse", 0.0, "adam", ADAM, (1, 2, 15, 256, 257, 600),
        classes=False, weighted=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_activations_in_the_middle(dtype, name):
    rng = np.random.default_rng(2)
    middle = (name, *PARAMETERS.get(name, (0.0, 0.0)))
    layers = chain(rng, dtype, (6, 19, 21, 4), [middle, middle, "softmax"])
    assert_same_steps(
        rng, layers, "cross_entropy", 0.0, "adam", ADAM, (7, 40), classes=True, weighted=True
    )


@pytest.mark.parametrize("frozen", [(0,), (0, 1), (1,), (2,), (0, 1, 2)])
def test_frozen_layers(frozen):
    rng = np.random.default_rng(3)
    layers = chain(rng, np.float32, (6, 19, 21, 4), ["tanh", "relu", "identity"], frozen=frozen)
    assert_same_steps(
        rng, layers, "mse", 0.0, "adam", {**ADAM, MAX_NORM: 0.5}, (7, 40), classes=True,
        weighted=True,
    )  # fmt: skip


def problem(rng, dtype=np.float32, rows=103, widths=(11, 20, 5), optimizer="adam"):
    layers = chain(rng, dtype, widths, ["gelu", "softmax"])
    x = rng.normal(size=(rows, widths[0])).astype(dtype)
    t = rng.integers(0, widths[-1], rows)
    return core(layers, "cross_entropy", 0.0, optimizer), x, t


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [1, 16, 50, 103, 200])
def test_an_epoch_is_its_steps(batch_size, weighted):
    one, x, t = problem(np.random.default_rng(4))
    all_, _, _ = problem(np.random.default_rng(4))
    weights = np.random.default_rng(5).random(103) if weighted else None
    order = np.random.default_rng(6).permutation(103)
    first, second = scalars(ADAM), scalars(ADAM)
    losses = all_.steps(x, t, weights, batch_size, order, first)
    assert losses.dtype == np.float64
    expected = []
    for begin in range(0, 103, batch_size):
        rows = order[begin : begin + batch_size]
        some = None if weights is None else weights[rows]
        expected.append(one.step(x[rows], t[rows], some, second))
    assert_same_bits(losses, np.array(expected))
    assert_same_bits(first, second)
    assert all_.steps_done == len(expected)
    assert_same_bits(all_.losses(), losses)
    for i in range(2):
        assert_same_bits(all_.weight(i), one.weight(i))
        assert_same_bits(all_.second_moment_bias(i), one.second_moment_bias(i))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float16).astype(np.float32),
        lambda x: (10 * x).astype(np.int8),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 3, axis=1)[:, ::3],
        lambda x: x[::-1],
    ],
)
def test_rows_of_any_dtype_and_layout(change, ordered):
    rng = np.random.default_rng(7)
    trainer, x, t = problem(rng)
    plain, _, _ = problem(np.random.default_rng(7))
    x = change(x)
    order = rng.permutation(len(x)) if ordered else None
    given = np.ascontiguousarray(x, dtype=np.float32)
    losses = trainer.steps(x, t, None, 20, order, scalars(ADAM))
    assert_same_bits(losses, plain.steps(given, t, None, 20, order, scalars(ADAM)))
    assert_same_bits(trainer.weight(0), plain.weight(0))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("frozen", [(), (0,), (0, 1, 2)])
@pytest.mark.parametrize("max_norm", [0.0, 0.2])
def test_the_parts_of_a_step(dtype, frozen, max_norm):
    rng = np.random.default_rng(8)
    acts = ["tanh", "softmax", "sigmoid"]
    layers = chain(rng, dtype, (6, 19, 21, 4), acts, frozen=frozen)
    trainer, reference = core(layers, "", 0.0, "adam"), Reference(layers, "", 0.0, "adam")
    rates = scalars({**ADAM, MAX_NORM: max_norm}), scalars({**ADAM, MAX_NORM: max_norm})
    for m, wrt_input in [(1, True), (30, False), (300, True), (30, True)]:
        x = rng.normal(size=(m, 6)).astype(dtype)
        dy = rng.normal(size=(m, 4)).astype(dtype)
        assert_same_bits(trainer.forward(x), reference.forward(x))
        gradients, dx = reference.backward(dy, False)
        ours = trainer.backward(dy, wrt_input)
        if wrt_input:
            assert_same_bits(ours, dx)
        else:
            assert ours is None
        for i in range(3):
            if i not in frozen:
                assert_same_bits(trainer.gradient_weight(i), gradients[i][0])
                assert_same_bits(trainer.gradient_bias(i), gradients[i][1])
        assert trainer.update(rates[0])
        reference.update(gradients, rates[1])
    assert_same_state(trainer, reference)


def test_state_taken_out_and_put_in_goes_on_as_if_nothing_had_happened():
    whole, x, t = problem(np.random.default_rng(9))
    rates = scalars(ADAM)
    whole.steps(x, t, None, 10, None, rates)
    halved, _, _ = problem(np.random.default_rng(10))
    for i in range(2):
        halved.set_weights(i, whole.weight(i), whole.bias(i))
        halved.set_first_moments(i, whole.first_moment_weight(i), whole.first_moment_bias(i))
        halved.set_second_moments(i, whole.second_moment_weight(i), whole.second_moment_bias(i))
    other = rates.copy()
    assert_same_bits(
        whole.steps(x, t, None, 10, None, rates), halved.steps(x, t, None, 10, None, other)
    )
    assert_same_bits(whole.weight(0), halved.weight(0))


THREADS = """
import numpy as np, hashlib
from fastlayer import _core
rng = np.random.default_rng(0)
done = hashlib.sha256()
for dtype in ("float32", "float64"):
    for max_norm in (0.0, 0.5):
        trainer = _core.Trainer(dtype, 300)
        widths = (300, 260, 200, 10)
        for k, n in zip(widths, widths[1:]):
            w = rng.normal(size=(n, k)).astype(dtype) / dtype_of(dtype, k)
            trainer.dense(w, np.zeros(n, dtype), "softmax" if n == 10 else "gelu")
        trainer.finish("cross_entropy", 0.1, "adamw")
        x = rng.normal(size=(320, 300)).astype(dtype)
        rates = np.array([0.001, 0, 0.01, 0.9, 0.999, 1e-8, max_norm, 1, 1, 1, 1, 0, 0, -np.inf, np.inf])
        for batch in (320, 100):
            t = rng.integers(0, 10, 320)
            done.update(trainer.steps(x, t, None, batch, rng.permutation(320), rates).tobytes())
        for i in range(3):
            done.update(trainer.weight(i).tobytes())
            done.update(trainer.second_moment_bias(i).tobytes())
print(done.hexdigest())
""".replace("dtype_of(dtype, k)", "np.dtype(dtype).type(k**0.5)")


def test_threads_and_instruction_sets_give_the_same_bits():
    hashes = set()
    for isa in available_isas():
        for threads in (1, 2, 3, 7) if isa == available_isas()[0] else (2,):
            done = run_python(
                f"import fastlayer as fl; fl.set_num_threads({threads})\n" + THREADS,
                env={**os.environ, "FASTLAYER_ISA": isa},
            )
            hashes.add(done)
    assert len(hashes) == 1


# ------------------------------------------------------------------- what is refused, and Ctrl-C


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [-1, 5, 2**40])
@pytest.mark.parametrize("ordered", [False, True])
def test_class_numbers_out_of_range_change_nothing(dtype, bad, ordered):
    trainer, x, t = problem(np.random.default_rng(11), dtype=dtype)
    before, rates = trainer.weight(0), scalars(ADAM)
    t[100] = bad
    with pytest.raises(ValueError, match="class numbers"):
        trainer.steps(x, t, None, 10, np.arange(103) if ordered else None, rates)
    with pytest.raises(ValueError, match="class numbers"):
        trainer.step(x, t, None, rates)
    assert_same_bits(trainer.weight(0), before)
    assert_same_bits(rates, scalars(ADAM))
    # Rows that are not asked for do not count.
    assert len(trainer.steps(x, t, None, 10, np.arange(100), rates)) == 10


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [-1, 103, -(2**62)])
def test_indices_out_of_range_change_nothing(dtype, bad):
    trainer, x, t = problem(np.random.default_rng(12), dtype=dtype)
    before = trainer.weight(0)
    with pytest.raises(ValueError, match="indices"):
        trainer.steps(x, t, None, 10, np.array([0, 1, bad]), scalars(ADAM))
    with pytest.raises(ValueError, match="batch_size"):
        trainer.steps(x, t, None, 0, None, scalars(ADAM))
    assert_same_bits(trainer.weight(0), before)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_to_do(dtype):
    trainer, x, t = problem(np.random.default_rng(13), dtype=dtype)
    none = trainer.steps(x, t, None, 10, np.empty(0, np.int64), scalars(ADAM))
    assert none.shape == (0,)
    assert trainer.steps_done == 0


def unaligned(array):
    """The same numbers, one byte further on."""
    memory = np.empty(array.nbytes + 1, np.uint8)
    there = memory[1:].view(array.dtype).reshape(array.shape)
    there[...] = array
    return there


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("at", "other"),
    [
        (0, lambda x: x[:, :-1]),
        (0, lambda x: x[:-1]),
        (0, lambda x: x[:0]),
        (0, lambda x: x[0]),
        (0, lambda x: x.astype(complex)),
        (0, lambda x: x.tolist()),
        (1, lambda t: t[:-1]),
        (1, lambda t: t.astype(np.int32)),
        (1, lambda t: t[0]),
        (1, lambda t: t.tolist()),
        (1, lambda t: np.array(3)),
        (1, lambda t: np.zeros((len(t), 4), np.float32)),
        (1, lambda t: np.zeros((len(t), 4))),
        (1, lambda t: np.zeros((len(t), 5, 1))),
        (1, lambda t: np.zeros((len(t), 5), np.int64)),
        (2, lambda _: np.ones(103, np.float32)),
        (2, lambda _: np.ones(102)),
        (2, lambda _: np.ones((103, 1))),
        (2, lambda _: [1.0] * 103),
        (3, lambda r: r[:-1]),
        (3, lambda r: r.astype(np.float32)),
        (3, lambda r: list(r)),
        (3, lambda r: r[None]),
        (3, lambda r: np.repeat(r, 2)[::2]),
        (3, unaligned),
    ],
)
def test_not_mine(dtype, at, other):
    trainer, x, t = problem(np.random.default_rng(14), dtype=dtype)
    before = trainer.weight(0)
    given = [x, t, None, scalars(ADAM)]
    given[at] = other(given[at])
    assert trainer.step(*given) is None
    assert trainer.steps(*given[:3], 10, None, given[3]) is None
    assert_same_bits(trainer.weight(0), before)


def test_scalars_are_written_in_place_or_not_mine():
    trainer, x, t = problem(np.random.default_rng(15))
    rates = scalars(ADAM)
    rates.flags.writeable = False
    assert trainer.step(x, t, None, rates) is None


@pytest.mark.parametrize("dtype", FLOATS)
def test_targets_of_the_other_dtype_are_not_mine(dtype):
    trainer, x, t = problem(np.random.default_rng(14), dtype=dtype)
    other = np.float64 if dtype == np.float32 else np.float32
    shares = np.eye(5)[t]
    assert trainer.step(x, shares.astype(other), None, scalars(ADAM)) is None
    assert isinstance(trainer.step(x, shares.astype(dtype), None, scalars(ADAM)), float)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "order", [lambda o: o.astype(np.int32), lambda o: o[None], lambda o: o.tolist()]
)
def test_an_order_of_another_kind_is_not_mine(dtype, order):
    trainer, x, t = problem(np.random.default_rng(14), dtype=dtype)
    before = trainer.weight(0)
    assert trainer.steps(x, t, None, 10, order(np.arange(103)), scalars(ADAM)) is None
    assert_same_bits(trainer.weight(0), before)


@pytest.mark.parametrize("dtype", FLOATS)
def test_class_numbers_are_for_cross_entropy(dtype):
    layers = chain(np.random.default_rng(16), dtype, (3, 4), ["identity"])
    x, t = np.zeros((2, 3), dtype), np.array([0, 1])
    assert core(layers, "mse", 0.0, "sgd").step(x, t, None, scalars({LR: 0.1})) is None


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_trainer_without_a_loss_takes_no_steps(dtype):
    trainer = core(chain(np.random.default_rng(16), dtype, (3, 4), ["identity"]), "", 0.0, "sgd")
    x, t = np.zeros((2, 3), dtype), np.zeros((2, 4), dtype)
    assert trainer.step(x, t, None, scalars({LR: 0.1})) is None
    assert trainer.steps(x, t, None, 1, None, scalars({LR: 0.1})) is None


@pytest.mark.parametrize("dtype", FLOATS)
def test_parts_out_of_turn(dtype):
    trainer, x, _ = problem(np.random.default_rng(17), dtype=dtype)
    dy = np.ones((103, 5), dtype)
    with pytest.raises(ValueError, match="forward"):
        trainer.backward(dy)
    with pytest.raises(ValueError, match="backward"):
        trainer.update(scalars(ADAM))
    for other in (x[:0], x[0], x[:, :-1], x.tolist()):
        assert trainer.forward(other) is None
    trainer.forward(x)
    for other in (dy[:-1], dy[0], dy[:, :-1], dy.astype(np.int32), dy.tolist()):
        assert trainer.backward(other) is None
    with pytest.raises(ValueError, match="backward"):
        trainer.update(scalars(ADAM))
    trainer.backward(dy)
    with pytest.raises(ValueError, match="forward"):
        trainer.backward(dy)
    assert trainer.update(None) is False


@pytest.mark.parametrize(
    ("dtype", "width"), [("float16", 3), ("float32", 0), ("float64", -1), ("float32", 2**62)]
)
def test_what_is_no_trainer(dtype, width):
    with pytest.raises(ValueError, match="expected"):
        _core.Trainer(dtype, width)


@pytest.mark.parametrize("dtype", FLOATS)
def test_building(dtype):
    w, b = np.zeros((3, 4), dtype), np.zeros(3, dtype)
    trainer = _core.Trainer(np.dtype(dtype).name, 4)
    x, t, rates = np.zeros((1, 4), dtype), np.zeros((1, 3), dtype), scalars({})
    for early in (
        lambda: trainer.step(x, t, None, rates),
        lambda: trainer.steps(x, t, None, 1, None, rates),
        lambda: trainer.forward(x),
        lambda: trainer.backward(t),
        lambda: trainer.update(rates),
        lambda: trainer.weight(0),
        lambda: trainer.set_weights(0, w, b),
    ):
        with pytest.raises(ValueError, match="not finished"):
            early()
    with pytest.raises(ValueError, match="without layers"):
        trainer.finish("mse", 0.0, "sgd")
    for weight, bias in [
        (w.T, None),
        (w.astype(np.int32), None),
        (w[0], None),
        (w.tolist(), None),
        (w[:0], None),
        (unaligned(w), None),
        (w, b[1:]),
    ]:
        with pytest.raises(ValueError, match="expected"):
            trainer.dense(weight, bias)
    trainer.dense(w, b)
    for loss, optimizer in [("l2", "sgd"), ("mse", "lion")]:
        with pytest.raises(ValueError, match="unknown name"):
            trainer.finish(loss, 0.0, optimizer)
    trainer.finish("mse", 0.0, "sgd")
    for call in (lambda: trainer.dense(w, b), lambda: trainer.finish("mse", 0.0, "sgd")):
        with pytest.raises(ValueError, match="is finished"):
            call()
    with pytest.raises(ValueError, match="no such array"):
        trainer.set_first_moments(0, w, b)
    with pytest.raises(ValueError, match="bias"):
        trainer.set_weights(0, w, None)
    with pytest.raises(ValueError, match="weight: expected"):
        trainer.set_weights(0, w[1:], b)
    for layer in (-1, 1):
        with pytest.raises(IndexError):
            trainer.weight(layer)
        with pytest.raises(IndexError):
            trainer.set_weights(layer, w, b)
    assert trainer.first_moment_weight(0) is None
    assert trainer.layers == 1


def test_infinities_and_nan_reach_the_loss_and_nothing_else():
    trainer, x, t = problem(np.random.default_rng(18))
    x[5, 3] = np.nan
    x[6, 2] = np.inf
    losses = trainer.steps(x, t, None, 10, None, scalars(ADAM))
    assert np.isnan(losses).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("isa", available_isas())
def test_the_slope_of_an_absolute_value_at_zero_and_nan(dtype, isa):
    code = f"""
import numpy as np
from fastlayer import _core

trainer = _core.Trainer("{np.dtype(dtype).name}", 1)
trainer.dense(np.zeros((20, 1), "{np.dtype(dtype).name}"), None)
trainer.finish("mae", 0.0, "sgd")
x = np.ones((1, 1), "{np.dtype(dtype).name}")
t = np.resize(np.array([0, -0.0, 1, -1, np.nan], x.dtype), (1, 20))
rates = np.zeros(15)
rates[[0, 9, 10]] = 20.0, 1.0, 1.0
trainer.step(x, t, None, rates)
found = trainer.weight(0).ravel()
assert np.array_equal(found, np.sign(t[0]), equal_nan=True), found
"""
    run_python(code, env={"FASTLAYER_ISA": isa})


def long_epoch():
    trainer, x, t = problem(np.random.default_rng(19), rows=2000, widths=(11, 1000, 5))
    return trainer, x, t, np.tile(np.arange(2000), 500)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")
def test_an_exception_of_a_signal_handler_ends_an_epoch_between_two_steps():
    trainer, x, t, order = long_epoch()
    again, _, _, _ = long_epoch()
    refused = []

    def handler(*_):
        with pytest.raises(RuntimeError, match="at work"):
            trainer.weight(0)
        refused.append(True)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    rates = scalars(ADAM)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.steps(x, t, None, 20, order, rates)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert refused == [True]
    done = trainer.steps_done
    assert 0 < done < len(order) // 20
    other = scalars(ADAM)
    losses = again.steps(x, t, None, 20, order[: 20 * done], other)
    assert_same_bits(trainer.losses(), losses)
    assert_same_bits(rates, other)
    assert_same_bits(trainer.weight(0), again.weight(0))


def test_a_second_thread_is_refused():
    trainer, x, t, order = long_epoch()
    alone, _, _, _ = long_epoch()
    results, start = [], threading.Barrier(2)

    def train():
        start.wait()
        try:
            results.append(trainer.steps(x, t, None, 20, order[:4_000], scalars(ADAM)))
        except RuntimeError as error:
            results.append(str(error))

    both = [threading.Thread(target=train) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    texts = [r for r in results if isinstance(r, str)]
    assert all("at work" in text for text in texts)
    for _ in range(2 - len(texts)):
        alone.steps(x, t, None, 20, order[:4_000], scalars(ADAM))
    assert_same_bits(trainer.weight(0), alone.weight(0))
