"""Concat, Add, Multiply and Slice: the bits of their branches, in whatever way they are run."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import FLOATS, assert_same_bits
from model_files import assert_round_trips

import fastlayer as fl
from fastlayer import _core


def layer(k, n, activation=None, dtype=np.float32, seed=0):
    return fl.Layer(k, n, activation, rng=10 * k + n + seed, dtype=dtype)


def critic(dtype=np.float32):
    """State and action are features of one row; the action joins in the middle."""
    return [
        fl.Concat([[fl.Slice(0, 8), layer(8, 12, "relu", dtype)], fl.Slice(8, 11)]),
        layer(15, 9, "tanh", dtype),
        layer(9, 1, dtype=dtype),
    ]


def policy(dtype=np.float32):
    """A body, and heads that are columns of one result."""
    heads = [
        layer(12, 3, "tanh", dtype),
        layer(12, 1, None, dtype),
        layer(12, 3, "softplus", dtype),
    ]
    return [layer(11, 12, "relu", dtype), fl.Concat(heads)]


def gated(dtype=np.float32):
    return [
        fl.Multiply([layer(11, 7, None, dtype), [layer(11, 7, None, dtype, 1), "sigmoid"]]),
        fl.Add([layer(7, 7, "gelu", dtype), [], fl.LayerNorm(7, dtype=dtype)]),
        fl.Concat([[], layer(7, 4, "softmax", dtype)]),
        "tanh",
        fl.Slice(2, 9),
    ]


def nested(dtype=np.float32):
    inner = fl.Concat([layer(11, 4, "relu", dtype), fl.Residual(layer(11, 11, "tanh", dtype))])
    return [fl.Add([[inner, layer(15, 6, None, dtype)], [fl.Slice(1, 7)]]), fl.Multiply([[], []])]


def slices(dtype=np.float32):
    return [fl.Slice(2, 9), fl.Concat([fl.Slice(3, 5), [fl.Slice(0, 3), "relu"]]), fl.Slice(1, 4)]


NETWORKS = {f.__name__: f for f in (critic, policy, gated, nested, slices)}


def alone(parts, x):
    """One part after the other; branches one by one, joined by NumPy."""
    for part in parts:
        if isinstance(part, fl.Slice):
            x = x[..., part.begin : part.end]
        elif isinstance(part, fl.Residual):
            x = alone(part.layers, x) + x
        elif hasattr(part, "branches"):
            results = [alone(branch, x) for branch in part.branches]
            if isinstance(part, fl.Concat):
                x = np.concatenate(results, axis=-1)
            else:
                join = np.add if isinstance(part, fl.Add) else np.multiply
                total = results[0]
                for y in results[1:]:
                    total = join(total, y)
                x = total
        else:
            x = fl.Network([part]).astype(x.dtype)(x)
    return np.ascontiguousarray(x)


@pytest.fixture(params=NETWORKS)
def parts(request):
    return NETWORKS[request.param]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m", [1, 2, 5, 67, 300])
def test_the_bits_of_the_branches(rng, parts, dtype, m):
    net = fl.Network(parts(dtype))
    if net.in_features is None:
        net = net.astype(dtype)
    x = rng.standard_normal((m, 11)).astype(dtype)
    expected = alone(parts(dtype), x)
    assert net.dtype == dtype
    for threads in (1, 2, 3):
        with fl.num_threads(threads):
            assert_same_bits(net(x), expected)
    assert_same_bits(net(x[-1]), expected[-1])
    assert_same_bits(net(x.T, axis=0), expected.T)
    assert_same_bits(net(np.asfortranarray(x)), expected)
    assert_same_bits(net(x.reshape(m, 1, 11)), expected[:, None])
    out = np.full((2 * m, expected.shape[1] + 3), np.nan, dtype)
    assert_same_bits(net(x, out=out[::2, 1:-2]), expected)
    assert np.isnan(out[1::2]).all()
    assert np.isnan(out[:, [0, -1, -2]]).all()


def test_the_result_may_overlap_the_input(rng):
    net = fl.Network([fl.Concat([fl.Slice(4, 8), [fl.Slice(0, 4), "relu"]])]).astype(np.float32)
    x = rng.standard_normal((50, 8), np.float32)
    expected = np.concatenate([x[:, 4:], np.maximum(x[:, :4], 0)], axis=1)
    assert_same_bits(net(x, out=x), expected)


@pytest.mark.thread_unsafe(reason="counts the allocations of the process")
def test_they_are_run_by_the_core_in_one_call(rng, parts):
    net = fl.Network(parts()).astype(np.float32)
    x = rng.standard_normal((4, 11), np.float32)
    y = net(x)
    assert len(net._compiled()) == 1
    before = _core.stats()
    net(x, out=y)
    assert _core.stats()["workspace_allocations"] == before["workspace_allocations"]


def test_everything_that_a_chain_offers(rng, parts):
    net = fl.Network(parts()).astype(np.float32)
    x = rng.standard_normal((9, 11), np.float32)
    assert_round_trips(net, x)
    assert_same_bits(net.predict(x, batch_size=2), net(x))
    assert_same_bits(net.copy()(x), net(x))
    assert_same_bits(net.activations(x)[-1][0], net(x))
    assert net.summary().total["parameters"] == net.num_parameters
    assert len(net.profile(x, repeat=1).rows) == len(net)
    assert net.verify(lambda a: alone(net.layers, np.asarray(a)), x).max_ulp == 0
    names = {name: getattr(fl, name) for name in fl.__all__} | {"float32": "float32"}
    assert repr(eval(repr(net), names)) == repr(net)


def test_numbers_of_a_chain():
    net = fl.Network(critic())
    assert (net.in_features, net.out_features) == (None, 1)
    assert net.num_parameters == 8 * 12 + 12 + 15 * 9 + 9 + 9 + 1
    assert net.flops(2) == 4 * (8 * 12 + 15 * 9 + 9)
    body = fl.Network(policy())
    assert (body.in_features, body.out_features) == (11, 7)
    gate = fl.Multiply([layer(4, 3), layer(4, 3)])
    assert (gate.in_features, gate.out_features, gate.dtype) == (4, 3, np.float32)
    assert (fl.Add([[], "relu"]).in_features, fl.Add([[], layer(3, 3)]).out_features) == (None, 3)


def test_an_update_reaches_the_branches(rng):
    one = layer(5, 2)
    both = fl.Network([fl.Concat([one, layer(5, 3)])])
    x = rng.standard_normal((4, 5), np.float32)
    before = both(x)
    one.update(weight=2 * one.weight)
    assert_same_bits(both(x)[:, :2], one(x))
    assert_same_bits(both(x)[:, 2:], before[:, 2:])


@pytest.mark.parametrize(
    "part",
    [
        fl.Concat([lambda x: x[..., :2], []]),
        fl.Add([lambda x: 2 * x, "relu"]),
        fl.Multiply([[], [lambda x: x + 1, "tanh"]]),
    ],
)
def test_functions_in_branches(rng, part):
    x = rng.standard_normal((6, 5))
    by_hand = {
        fl.Concat: lambda: np.concatenate([x[:, :2], x], axis=1),
        fl.Add: lambda: 2 * x + np.maximum(x, 0),
        fl.Multiply: lambda: x * fl.tanh(x + 1),
    }
    assert_same_bits(part(x), by_hand[type(part)]())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fl.Concat([]), "1 to 1000 branches, got 0"),
        (lambda: fl.Concat([layer(3, 2), layer(4, 2)]), "features 3 in branch 0 and 4 in branch 1"),
        (lambda: fl.Add([layer(3, 2), layer(3, 4)]), "of each: 2 in branch 0 and 4 in branch 1"),
        (lambda: fl.Add([layer(3, 2), []]), "of each: 2 in branch 0 and 3 in branch 1"),
        (lambda: fl.Multiply([layer(3, 2), layer(3, 2, None, np.float64)]), "one dtype"),
        (lambda: fl.Concat([fl.Flatten(), layer(3, 2)]), "Flatten goes in front"),
        (lambda: fl.Concat([[layer(3, 2), layer(3, 2)]]), "Concat: branch 0: layer 1.* takes 3"),
        (lambda: fl.Network([fl.Concat([layer(3, 2), []]), layer(4, 1)]), "gives 5"),
        (lambda: fl.Slice(4, 3), "0 <= begin <= end"),
        (lambda: fl.Slice(-1, 3), "0 <= begin <= end"),
        (lambda: fl.Slice(1, 4)(np.ones((2, 3))), "needs 4 features, and gets 3"),
        (lambda: fl.Network([layer(2, 3), fl.Slice(1, 4)]), "takes 4 features or more"),
        (lambda: fl.Add([[lambda x: x[..., :2]], []])(np.ones((2, 3))), "have to give the same"),
        (lambda: fl.Concat([[lambda x: x[:1]], []])(np.ones((2, 3))), "Concat: the branches give"),
    ],
)
def test_what_does_not_fit(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_features_that_branches_multiply_are_bounded():
    twice = fl.Concat([[], []])
    with pytest.raises(ValueError, match="too many features"):
        fl.Network([twice] * 60)(np.ones((1, 1)))


@pytest.mark.parametrize("given", ["relu", 3, None])
def test_branches_come_in_a_list(given):
    with pytest.raises(TypeError, match="Concat takes a list of branches"):
        fl.Concat(given)
    with pytest.raises(TypeError, match="branch 1: layer 0 is None"):
        fl.Concat([[], None])
    with pytest.raises(TypeError):
        fl.Slice(0.5, 2)
