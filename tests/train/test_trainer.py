"""`fastlayer.Trainer`: its ways to take a step, its state, and what it refuses before anything changes."""

import copy
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gradient_bounds import random_case
from helpers import FLOATS, assert_same_bits

import fastlayer as fl
from fastlayer.train.core import CoreSteps

OPTIMIZERS = [fl.SGD(lr=0.1), fl.SGD(lr=0.05, momentum=0.9), fl.Adam(lr=0.01), fl.AdamW(lr=0.01)]


@pytest.fixture(params=OPTIMIZERS, ids=repr)
def optimizer(request):
    return request.param


def net_of(dtype=np.float64, end=None):
    slopes = fl.Activation("prelu", weight=np.full(6, 0.25))
    parts = [
        fl.Layer(4, 6, slopes, dtype=dtype, rng=0),
        fl.LayerNorm(6, weight=np.ones(6), bias=np.zeros(6), dtype=dtype),
        fl.Residual(fl.Layer(6, 6, "gelu", dtype=dtype, rng=1)),
        fl.Layer(6, 3, end, dtype=dtype, rng=2),
    ]
    return fl.Network(parts)


def data(rng, m=40):
    return rng.normal(size=(m, 4)), rng.integers(0, 3, m)


def values(trainer):
    return trainer.state["values"]


def assert_same_state(a, b):
    a, b = a.state, b.state
    for x, y in zip(a["values"], b["values"], strict=True):
        assert_same_bits(x, y)
    for x, y in zip(a["moments"], b["moments"], strict=True):
        for u, v in zip(x, y, strict=True):
            assert_same_bits(u, v)
    assert [a[k] for k in ("progress", "steps", "lr")] == [
        b[k] for k in ("progress", "steps", "lr")
    ]


def trainers(count, *args, make=net_of, **options):
    return [fl.Trainer(make(), *args, **options) for _ in range(count)]


# --- ways to take steps


@pytest.mark.parametrize("weighted", [False, True])
def test_steps_are_single_steps(rng, optimizer, weighted):
    x, t = data(rng)
    w = rng.random(40) if weighted else None
    order = rng.permutation(40)
    one, many = trainers(2, "cross_entropy", optimizer, max_norm=1.0)
    losses = []
    for begin in range(0, 40, 7):  # the last batch has fewer
        at = order[begin : begin + 7]
        losses.append(one.step(x[at], t[at], None if w is None else w[at]))
    got = many.steps(x, t, 7, order, w)
    assert got.dtype == np.float64
    assert got.tolist() == losses
    assert_same_state(one, many)
    assert one.steps_done == 6


def test_steps_without_an_order_go_from_first_to_last(rng):
    x, t = data(rng)
    one, many = trainers(2, "cross_entropy", "adam")
    assert one.steps(x, t, 16).tolist() == many.steps(x, t, 16, range(40)).tolist()
    assert_same_state(one, many)
    before = one.state["steps"]
    assert one.steps(x, t, 16, []).shape == (0,)
    assert one.state["steps"] == before


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("seed", range(14))
def test_forward_backward_update_is_a_step(seed, dtype):
    """With the gradient that `Loss` gives, for networks of all parts and every loss."""
    seed = 2 * seed + (dtype is np.float32)
    net, _, x, t, loss, weights = random_case(seed)
    again = random_case(seed)[0]
    one, other = fl.Trainer(net, loss, "adam"), fl.Trainer(again, None, "adam")
    # Behind a final activation, the gradient of the step is that of the sum before it.
    last = again.layers[-1]
    last.update(activation=None)
    other = fl.Trainer(again, None, "adam")
    for _ in range(3):
        value = one.step(x, t, weights)
        y = other.forward(x)
        assert value == loss(y, t, weights)
        other.backward(loss.gradient(y, t, weights))
        other.update()
    assert_same_state(one, other)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("train", [False, True])
def test_ways_to_take_a_step_may_alternate(rng, optimizer, dtype, train, monkeypatch):
    """In the core and out of it, with a state that comes and goes: as if all were one way."""

    def make():
        net = fl.Network(
            [
                fl.Layer(4, 7, "gelu", dtype=dtype, rng=0),
                fl.Layer(7, 5, "tanh", bias=False, dtype=dtype, rng=1),
                fl.Layer(5, 3, dtype=dtype, rng=2),
            ]
        )
        return fl.Trainer(net, "cross_entropy", optimizer, train=net[1:] if train else None)

    x, t = data(rng)
    x, w = x.astype(dtype), rng.random(40)
    one = make()
    with monkeypatch.context() as patch:
        patch.setattr(CoreSteps, "of", lambda *_: None)
        plain = make()
    loss, losses = fl.Loss("cross_entropy"), []
    for i in range(24):
        at = slice(i, i + 12)
        match i % 6:
            case 0 | 3:
                losses.append(one.step(x[at], t[at], w[at]))
            case 1:
                y = one.forward(x[at])
                one.backward(loss.gradient(y, t[at], w[at]))
                losses.append(loss(y, t[at], w[at]))
                one.update()
            case 2 | 5:
                losses += one.steps(x, t, 12, range(i, i + 12), w).tolist()
            case 4:
                one, state = make(), one.state
                one.state = state
                losses.append(one.step(x[at], t[at], w[at]))
                assert one.network.layers[2].weight.dtype == dtype
        assert plain.step(x[at], t[at], w[at]) == losses[-1]
        one.lr = plain.lr = 0.01 / (i + 1)
        if i % 5 == 0:
            assert_same_state(one, plain)
            assert_same_bits(one.forward(x), plain.forward(x))
    assert_same_state(one, plain)


def test_gradients_add_up_until_the_update(rng):
    x, _ = data(rng)
    one, other = trainers(2, "mse", fl.SGD(lr=0.1))
    dy = rng.normal(size=(40, 3))
    sums = None
    for at in (slice(0, 10), slice(10, 40), slice(0, 40)):
        one.forward(x[at])
        one.backward(dy[at])
        other.forward(x[at])
        before = other.gradients
        other.backward(dy[at])
        alone = [a - b for a, b in zip(other.gradients, before, strict=True)]
        sums = alone if sums is None else [a + b for a, b in zip(sums, alone, strict=True)]
    for g, s in zip(one.gradients, sums, strict=True):
        np.testing.assert_allclose(g, s, rtol=1e-12, atol=1e-14)
    old = values(one)
    one.update()
    for p, before, g in zip(values(one), old, other.gradients, strict=True):
        assert_same_bits(p, before - 0.1 * g)
    assert all(not g.any() for g in one.gradients)


def test_one_forward_and_several_backward_passes(rng):
    """Several losses of one output."""
    x, _ = data(rng)
    a, b = rng.normal(size=(2, 40, 3))
    trainer = trainers(1, None, fl.SGD(lr=0.1))[0]
    trainer.forward(x)
    trainer.backward(a)
    first = trainer.gradients
    trainer.backward(b)
    both = trainer.gradients
    trainer.update()
    fresh = trainers(1, None, fl.SGD(lr=0.1))[0]
    fresh.forward(x)
    fresh.backward(b)
    for one, two, sum_ in zip(first, fresh.gradients, both, strict=True):
        assert_same_bits(one + two, sum_)


def test_rows_may_be_changed_between_forward_and_backward(rng):
    """Buffers are used again."""
    x, _ = data(rng)
    one, other = (fl.Trainer(fl.Layer(4, 3, dtype=float, rng=0), None, "adam") for _ in range(2))
    buffer, dy = x.copy(), rng.normal(size=(40, 3))
    y = one.forward(buffer)
    buffer[:] = 0
    y[:] = 0
    one.backward(dy)
    other.forward(x)
    other.backward(dy)
    for a, b in zip(one.gradients, other.gradients, strict=True):
        assert_same_bits(a, b)


def test_the_learning_rate_is_set_between_steps(rng):
    x, t = data(rng)
    one, other = trainers(2, "cross_entropy", fl.SGD(lr=0.1))
    one.lr = 0.5
    assert one.lr == 0.5
    assert one.optimizer == fl.SGD(lr=0.1)
    before = values(one)
    found = one.network.gradients(x, t, "cross_entropy")
    one.step(x, t)
    np.testing.assert_array_equal(values(one)[0], before[0] - 0.5 * found.weights[0])
    other.step(x, t)
    assert not np.array_equal(values(one)[0], values(other)[0])
    for bad, error in [(0, ValueError), (-1, ValueError), (np.inf, ValueError), ("a", TypeError)]:
        with pytest.raises(error, match="lr must be"):
            one.lr = bad
    assert one.lr == 0.5


@pytest.mark.parametrize("given", [np.float32, np.float16, np.int8, np.uint8, bool])
def test_rows_of_any_real_dtype(rng, given):
    x, t = data(rng)
    x = (3 * x).astype(given)
    one, other = trainers(2, "cross_entropy", "adam")
    assert one.step(x, t) == other.step(x.astype(np.float64), t)
    assert one.steps(x, t, 8).tolist() == other.steps(x.astype(np.float64), t, 8).tolist()
    assert_same_state(one, other)


def test_one_sample(rng):
    x, t = data(rng)
    one, other, third = trainers(3, "cross_entropy", "adam")
    for i in range(5):
        assert one.step(x[i], t[i]) == other.step(x[i : i + 1], t[i : i + 1])
        third.steps(x, t, 1, [i])
    assert_same_state(one, other)
    assert_same_state(one, third)


def test_one_output_takes_a_vector_of_targets(rng):
    x = rng.normal(size=(20, 4))
    t = rng.normal(size=20)
    one, other = (fl.Trainer(fl.Layer(4, 1, rng=0), "mse", "adam") for _ in range(2))
    assert one.step(x, t) == other.step(x, t[:, None])
    assert one.steps(x, t, 8).tolist() == other.steps(x, t[:, None], 8).tolist()
    assert_same_state(one, other)


def test_several_inputs(rng):
    def make():
        return fl.Network([fl.Layer(5, 2, "tanh", dtype=float, rng=0)], inputs=[3, 2])

    a, b, t = rng.normal(size=(20, 3)), rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    one, other, third = trainers(3, "mse", "adam", make=make)
    plain = fl.Trainer(fl.Layer(5, 2, "tanh", dtype=float, rng=0), "mse", "adam")
    for begin in (0, 8, 16):
        at = slice(begin, begin + 8)
        value = plain.step(np.hstack([a, b])[at], t[at])
        assert one.step((a[at], b[at]), t[at]) == value
        other.steps((a, b), t, 8, np.arange(20)[at])
    assert_same_state(one, plain)
    assert_same_state(other, plain)
    third.forward((a, b))
    with pytest.raises(ValueError, match="input"):
        one.step((a, a), t)
    assert_same_state(one, plain)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_loss_of_ones_own(rng, dtype):
    x, t = rng.normal(size=(20, 4)), rng.normal(size=(20, 3))
    seen = []

    def squares(y, t):
        seen.append((type(y), y.dtype, y.shape, t))
        d = y - t.astype(dtype)
        return float((d.astype(float) ** 2).mean()), d * dtype(2 / d.size)

    one = fl.Trainer(net_of(dtype, "tanh"), squares, "adam")
    other = fl.Trainer(net_of(dtype, "tanh"), "mse", "adam")
    for _ in range(3):
        assert one.step(x, t) == pytest.approx(other.step(x, t), rel=1e-5)
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)
    assert seen[0][:3] == (np.ndarray, dtype, (20, 3))
    assert seen[0][3] is t  # as it was given


def test_a_loss_of_ones_own_gets_several_outputs(rng):
    trunk = fl.Layer(4, 5, "tanh", dtype=float, rng=0)
    heads = fl.Concat([fl.Layer(5, 2, dtype=float, rng=1), fl.Layer(5, 1, dtype=float, rng=2)])
    net = fl.Network([trunk, heads], outputs={"policy": 2, "value": 1})
    x = rng.normal(size=(9, 4))

    def loss(y, t):
        policy, value = y
        assert policy.shape == (9, 2)
        d = value - t["value"]
        return (d**2).sum() + policy.sum(), (np.ones_like(policy), 2 * d)

    t = {"value": rng.normal(size=(9, 1))}  # whatever the loss makes of it
    assert fl.check_gradients(net, x, t, loss) < 1e-6
    trainer = fl.Trainer(net, loss, fl.SGD(lr=0.01))
    assert trainer.step(x, t) > trainer.step(x, t)
    trainer.forward(x)
    with pytest.raises(ValueError, match=r"dy has shapes \(9, 1\), \(9, 2\)"):
        trainer.backward((np.ones((9, 1)), np.ones((9, 2))))


# --- what is trained


def test_frozen_layers_keep_their_bits(rng, optimizer):
    x, t = data(rng)
    net = net_of()
    before = [net.layers[0].weight, net.layers[0].bias, net.layers[1].weight, net.layers[3].weight]
    trainer = fl.Trainer(net, "cross_entropy", optimizer, train=net[-1:])
    losses = [trainer.step(x, t) for _ in range(20)]
    assert losses[-1] < losses[0]
    after = trainer.network.layers
    for a, b in zip((after[0].weight, after[0].bias, after[1].weight), before, strict=False):
        assert_same_bits(a, b)
    assert not np.array_equal(after[3].weight, before[3])
    # The last layer learns what it would learn on what the others make of the rows.
    alone = net_of()
    short = fl.Trainer(alone[-1:], "cross_entropy", optimizer)
    assert [short.step(alone[:-1](x), t) for _ in range(20)] == losses
    assert_same_bits(short.network.layers[0].weight, after[3].weight)


@pytest.mark.parametrize(
    ("pick", "arrays"),
    [
        (lambda net: net.layers[2], 2),
        (lambda net: [net.layers[0], net[2:3]], 5),
        (lambda net: net[1:], 6),
        (lambda net: iter(net.layers), 9),
        (lambda net: net, 9),
        (lambda net: None, 9),
    ],
    ids=["part", "parts", "slice", "iterator", "network", "all"],
)
def test_parts_that_learn(pick, arrays):
    net = net_of()
    trainer = fl.Trainer(net, "cross_entropy", "adam", train=pick(net))
    assert len(trainer.gradients) == len(values(trainer)) == arrays


def test_the_network_and_all_that_share_its_layers_get_the_weights(rng):
    x, t = data(rng)
    net = net_of()
    whole, head = fl.Network([*net.layers, "softmax"]), net[-1:]
    before = net(x)
    trainer = fl.Trainer(net, "cross_entropy", "adam")
    trainer.step(x, t)
    assert_same_bits(net(x), before)
    learned = trainer.forward(x)
    assert_same_bits(trainer.network(x), learned)
    assert_same_bits(whole(x), fl.softmax(learned))
    assert_same_bits(head(net[:-1](x)), learned)
    copied = net.copy()
    trainer.step(x, t)
    assert trainer.network is net
    assert_same_bits(copied(x), learned)


def test_a_network_that_learns_slopes_and_norms(rng):
    x, t = data(rng)
    net = net_of()
    trainer = fl.Trainer(net, "cross_entropy", fl.SGD(lr=0.1))
    trainer.step(x, t)
    layers = trainer.network.layers
    assert not np.array_equal(layers[0].activation.parameters["weight"], np.full(6, 0.25))
    assert not np.array_equal(layers[1].weight, np.ones(6))
    assert not np.array_equal(layers[1].bias, np.zeros(6))


# --- state


def test_a_state_goes_on_bit_for_bit(rng, optimizer):
    x, t = data(rng)
    one, other = trainers(2, "cross_entropy", optimizer)
    one.steps(x, t, 8)
    one.lr *= 0.5
    saved = one.state
    kept = copy.deepcopy(saved)
    one.steps(x, t, 8)
    np.testing.assert_equal(saved, kept)  # plain data of its own
    other.state = saved
    assert other.steps_done == 5
    other.steps(x, t, 8)
    assert_same_state(one, other)
    np.testing.assert_equal(saved, kept)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
@pytest.mark.parametrize("frozen", [False, True])
def test_pickles_and_copies_go_on_bit_for_bit(rng, optimizer, again, frozen):
    x, t = data(rng)
    net = net_of(end="softmax")
    train = net[-2:] if frozen else None
    one = fl.Trainer(net, "cross_entropy", optimizer, train=train, max_norm=0.5)
    one.steps(x, t, 8)
    one.lr = 0.03
    other = again(one)
    assert other.network is not net
    assert repr(other) == repr(one)
    one.steps(x, t, 8)
    other.steps(x, t, 8)
    assert_same_state(one, other)
    assert_same_bits(one.network(x), other.network(x))


def test_states_that_do_not_fit_change_nothing(rng):
    x, t = data(rng)
    trainer = trainers(1, "cross_entropy", "adam")[0]
    trainer.step(x, t)
    good = trainer.state
    other = fl.Trainer(fl.Layer(4, 3, rng=0), "cross_entropy", "adam").state
    plain = trainers(1, "cross_entropy", fl.SGD(lr=0.1))[0].state
    short = {**good, "moments": [[a[:1] for a in each] for each in good["moments"]]}
    for state, error, message in [
        (other, ValueError, "another trainer: it has arrays of shapes"),
        (plain, ValueError, r"another optimizer than Adam\(lr=0.001\)"),
        (short, ValueError, "another optimizer"),
        ({}, TypeError, "a dict with"),
        (3, TypeError, "a dict with"),
        ({**good, "lr": -1}, ValueError, "lr must be positive"),
    ]:
        with pytest.raises(error, match=message):
            trainer.state = state
        np.testing.assert_equal(trainer.state, good)


def test_its_text():
    trainer = fl.Trainer(fl.Layer(4, 3, rng=0), "cross_entropy", "adam")
    assert "Loss('cross_entropy'), Adam(lr=0.001), steps_done=0)" in repr(trainer)
    assert trainer.loss == fl.Loss("cross_entropy")


# --- bad input: nothing changes

X, T = np.ones((6, 4)), np.array([0, 1, 2, 0, 1, 2])
BAD = [
    (ValueError, r"expected x of shape \(m, 4\), got \(6, 3\)", (X[:, :3], T)),
    (ValueError, "x is a scalar", (1.0, T)),
    (TypeError, "x has dtype complex", (X * 1j, T)),
    (TypeError, "masked array", (np.ma.masked_array(X), T)),
    (ValueError, "t has shape", (X, T[:5])),
    (ValueError, "t has shape", (X, np.zeros((6, 4)))),
    (ValueError, r"t\[1\] is 3, but there are 3 outputs", (X, [0, 3, 0, 0, 0, 0])),
    (TypeError, r"pass t\.astype\(int\)", (X, T.astype(float))),
    (ValueError, r"t\[0, 0\] is nan", (X, np.full((6, 3), np.nan))),
    (ValueError, "sample_weight must have shape", (X, T, np.ones(5))),
    (ValueError, "sample_weight is 0 for every", (X, T, np.zeros(6))),
    (ValueError, "not negative", (X, T, -np.ones(6))),
]


@pytest.mark.parametrize(("error", "message", "args"), BAD, ids=lambda v: str(v)[:30])
def test_nothing_changes_where_a_batch_is_refused(rng, error, message, args):
    trainer, same = trainers(2, "cross_entropy", "adam")
    trainer.step(*data(rng))
    same.state = trainer.state
    with pytest.raises(error, match=message):
        trainer.step(*args)
    x, t, *w = args
    if np.ndim(x):
        with pytest.raises(error, match=message.replace("the batch", "")):
            trainer.steps(x, t, 2, None, *w)
    assert_same_state(trainer, same)
    assert trainer.step(X, T) == same.step(X, T)
    assert_same_state(trainer, same)


STEPS = [
    (ValueError, "there are no samples", (X[:0], T[:0], 2)),
    (ValueError, r"rows of samples \(N, k\)", (X[0], T[:1], 2)),
    (ValueError, "batch_size must be at least 1", (X, T, 0)),
    (TypeError, "batch_size must be an integer", (X, T, 2.0)),
    (ValueError, "indices beyond 0 to 5", (X, T, 2, [0, 6])),
    (ValueError, "indices beyond 0 to 5", (X, T, 2, [-1])),
    (TypeError, "order must be a vector of integers", (X, T, 2, [0.5])),
    (TypeError, "order must be a vector of integers", (X, T, 2, [[0, 1]])),
    (ValueError, r"t\[5\] is 7", (X, [0, 1, 2, 0, 1, 7], 2)),
    (ValueError, "0 for every sample of batch 1", (X, T, 2, None, [1, 1, 0, 0, 1, 0])),
]


@pytest.mark.parametrize(("error", "message", "args"), STEPS, ids=lambda v: str(v)[:30])
def test_nothing_changes_where_an_epoch_is_refused(error, message, args):
    trainer, same = trainers(2, "cross_entropy", "adam")
    with pytest.raises(error, match=message):
        trainer.steps(*args)
    assert_same_state(trainer, same)


def test_an_empty_batch():
    trainer = trainers(1, "cross_entropy", "adam")[0]
    with pytest.raises(ValueError, match="the batch is empty"):
        trainer.step(X[:0], T[:0])
    assert trainer.steps_done == 0


def test_backward_and_update_out_of_turn(rng):
    x, t = data(rng)
    trainer = trainers(1, "cross_entropy", "adam")[0]
    with pytest.raises(ValueError, match="call forward first"):
        trainer.backward(np.ones((40, 3)))
    with pytest.raises(ValueError, match="call backward first"):
        trainer.update()
    trainer.forward(x)
    with pytest.raises(ValueError, match=r"dy has shape \(40, 2\), but forward gave \(40, 3\)"):
        trainer.backward(np.ones((40, 2)))
    with pytest.raises(ValueError, match="call backward first"):
        trainer.update()
    trainer.step(x[:5], t[:5])  # goes forward through other rows
    with pytest.raises(ValueError, match="call forward first"):
        trainer.backward(np.ones((40, 3)))
    trainer = trainers(1, None, "adam")[0]
    with pytest.raises(ValueError, match="no loss: call forward, backward and update"):
        trainer.step(x, t)


class Boom(Exception):
    pass


def raising(*_):
    raise Boom


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (raising, Boom, None),
        (lambda y, t: 1.0, TypeError, r"the loss returned 1\.0; it returns a number and the grad"),
        (lambda y, t: (y, y), TypeError, "it returns a number and the gradient"),
        (lambda y, t: (1.0, y[:2]), ValueError, r"dy of shape \(2, 3\) for y of shape \(40, 3\)"),
        (lambda y, t: (1.0, None), TypeError, "dy"),
    ],
)
def test_a_loss_that_fails_changes_nothing(rng, loss, error, message):
    x, t = data(rng)
    switch = [False]

    def own(y, t):
        return loss(y, t) if switch[0] else (1.0, np.ones_like(y))

    trainer, same = (fl.Trainer(net_of(), own, "adam") for _ in range(2))
    for one in (trainer, same):
        one.step(x, t)
    before = trainer.network(x)
    switch[0] = True
    with pytest.raises(error, match=message):
        trainer.step(x, t)
    assert_same_state(trainer, same)
    assert_same_bits(trainer.network(x), before)
    switch[0] = False
    assert trainer.step(x, t) == same.step(x, t)
    assert_same_state(trainer, same)


def test_a_derivative_that_fails_leaves_the_gradients_as_they_were(rng):
    switch = [False]

    def derivative(z):
        if switch[0]:
            raise Boom
        return np.cosh(z)

    net = fl.Network([fl.Layer(4, 5, (np.sinh, derivative), rng=0), fl.Layer(5, 3, rng=1)])
    x, t = data(rng)
    trainer = fl.Trainer(net, "cross_entropy", "adam")
    trainer.forward(x)
    trainer.backward(np.ones((40, 3)))
    before = trainer.gradients
    switch[0] = True
    with pytest.raises(Boom):
        trainer.backward(np.ones((40, 3)))
    for a, b in zip(trainer.gradients, before, strict=True):
        assert_same_bits(a, b)
    with pytest.raises(Boom):
        trainer.step(x, t)
    switch[0] = False
    assert trainer.step(x, t) > 0
    net = fl.Network([fl.Layer(4, 5, (np.sinh, lambda z: np.cosh(z)[:1]), rng=0)])
    with pytest.raises(ValueError, match=r"the derivative returned shape \(1, 5\)"):
        fl.Trainer(net, "mse", "adam").step(x, np.ones((40, 5)))


# --- networks that are refused


def test_a_layer_that_is_there_twice():
    layer = fl.Layer(4, 4, "tanh", rng=0)
    net = fl.Network([layer, layer, fl.Layer(4, 2, rng=1)])
    with pytest.raises(ValueError, match=r"is in the network twice.*make a layer for each place"):
        fl.Trainer(net, "mse", "adam")
    fl.Trainer(net, "mse", "adam", train=net[-1:])  # frozen, it does no harm
    branches = fl.Network([fl.Add([layer, layer])])
    with pytest.raises(ValueError, match="twice"):
        fl.Trainer(branches, "mse", "adam")


def test_a_prelu_by_itself_and_what_is_advised_instead(rng):
    slopes = fl.Activation("prelu", weight=[0.1, 0.2, 0.3])
    with pytest.raises(TypeError, match=r"give it to the layer before it, fl\.Layer\(") as error:
        fl.Trainer(fl.Network([fl.Layer(4, 3, rng=0), slopes]), "cross_entropy", "adam")
    assert "activation=fl.Activation('prelu', weight=...)" in str(error.value)
    net = fl.Network([fl.Layer(4, 3, activation=slopes, rng=0)])
    assert fl.Trainer(net, "cross_entropy", "adam").step(*data(rng)) > 0


def test_a_function_without_its_derivative_and_what_is_advised_instead(rng):
    x, t = data(rng)
    for net in (
        fl.Network([fl.Layer(4, 3, np.sinh, rng=0)]),
        fl.Network([fl.Layer(4, 3, rng=0), np.sinh]),
    ):
        message = r"derivative of sinh: give the pair \(sinh, its derivative\) in the place of sinh"
        with pytest.raises(TypeError, match=message):
            fl.Trainer(net, "cross_entropy", "adam")
    for net in (
        fl.Network([fl.Layer(4, 3, (np.sinh, np.cosh), rng=0)]),
        fl.Network([fl.Layer(4, 3, rng=0), (np.sinh, np.cosh)]),
    ):
        assert fl.Trainer(net, "cross_entropy", "adam").step(x, t) > 0


SOFT = fl.Network([fl.Layer(4, 3, "softmax", rng=0)])
ONE = fl.Network([fl.Layer(4, 1, "sigmoid", rng=0)])


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "takes a Network or a Layer, got list", lambda: fl.Trainer([], "mse", "adam")),
        (
            TypeError,
            "takes a Network or a Layer, got str",
            lambda: fl.Trainer("net", "mse", "adam"),
        ),
        (ValueError, "nothing to train", lambda: fl.Trainer(fl.Network(["relu"]), "mse", "adam")),
        (ValueError, "unknown loss 'l2'", lambda: fl.Trainer(SOFT, "l2", "adam")),
        (TypeError, "a name, an fl.Loss or a callable", lambda: fl.Trainer(SOFT, 3, "adam")),
        (
            ValueError,
            "max_norm must be positive",
            lambda: fl.Trainer(SOFT, "mse", "adam", max_norm=0),
        ),
        (ValueError, "use binary_cross_entropy", lambda: fl.Trainer(ONE, "cross_entropy", "adam")),
        (
            ValueError,
            "binary_cross_entropy belongs behind sigmoid, .* ends in softmax",
            lambda: fl.Trainer(SOFT, "binary_cross_entropy", "adam"),
        ),
        (
            ValueError,
            "cross_entropy belongs behind softmax, .* ends in sigmoid",
            lambda: fl.Trainer(fl.Layer(4, 3, "sigmoid"), "cross_entropy", "adam"),
        ),
        (
            ValueError,
            "no part of the network",
            lambda: fl.Trainer(SOFT, "mse", "adam", train=ONE),
        ),
        (TypeError, "train takes parts", lambda: fl.Trainer(SOFT, "mse", "adam", train="last")),
        (TypeError, "train takes parts", lambda: fl.Trainer(SOFT, "mse", "adam", train=3)),
        (ValueError, "nothing to train", lambda: fl.Trainer(SOFT, "mse", "adam", train=[])),
    ],
)
def test_what_a_trainer_refuses(error, message, call):
    with pytest.raises(error, match=message):
        call()


# --- other threads


@pytest.mark.thread_unsafe(reason="sets how often the process changes threads")
def test_other_threads_never_see_weights_of_two_renewals():
    """All layers change together: 40 that add c give 40 c, for one c, at every call."""
    depth, renewals, found = 40, 200, set()
    parts = [fl.Layer.from_arrays([[1.0]], [0.0]) for _ in range(depth)]
    net = fl.Network(parts)
    trainer = fl.Trainer(net, None, fl.SGD(lr=1.0))
    done = threading.Event()

    def call():
        while not done.is_set():
            fresh = fl.Network(parts)  # compiles, whenever that may be
            found.update({float(net([0.0])[0]), float(fresh([0.0])[0])})

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(call) for _ in range(3)]
            for i in range(renewals):
                state = trainer.state
                state["values"] = [np.array([[1.0]]), np.array([float(i + 1)])] * depth
                trainer.state = state
                assert trainer.network is net
            done.set()
            for reader in readers:
                reader.result()
    finally:
        done.set()
        sys.setswitchinterval(before)
    assert len(found) > 1
    assert found <= {float(depth * c) for c in range(renewals + 1)}
