"""Networks of several inputs and outputs: each is some features of one row."""

import copy
import pickle

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import assert_round_trips

import fastlayer as fl
from fastlayer.files.document import from_document
from fastlayer.network.network import PARTS

PLAIN = lambda a: a


def actor_critic(dtype=np.float32):
    heads = fl.Concat(
        [fl.Layer(8, 3, "softmax", rng=1, dtype=dtype), fl.Layer(8, 1, rng=2, dtype=dtype)]
    )
    layers = [fl.Layer(6, 8, "relu", rng=0, dtype=dtype), heads]
    return fl.Network(layers, inputs={"state": 4, "action": 2}, outputs={"policy": 3, "value": 1})


def arrays(rng, m, dtype=np.float32):
    return rng.standard_normal((m, 4)).astype(dtype), rng.standard_normal((m, 2)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "make",
    [
        PLAIN,
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: a.astype(np.float16),
        lambda a: (a * 50).astype(np.int8),
        lambda a: a.tolist(),
    ],
)
@pytest.mark.parametrize("m", [1, 3, 17, 300, 5000])
def test_inputs_are_read_as_if_they_were_beside_each_other(rng, dtype, make, m):
    net = actor_critic(dtype)
    s, u = arrays(rng, m, dtype)
    for pair in ((make(s), u), (s, make(u)), (make(s), make(u))):
        row = np.concatenate([np.asarray(a).astype(dtype) for a in pair], axis=1)
        right = net(row)
        for _ in range(2):  # the first call may be another way than the next ones
            for found, wanted in zip(net(*pair), right, strict=True):
                assert_same_bits(found, wanted)


@pytest.mark.parametrize("widths", [(1, 15, 1), (16, 1, 3), (3, 17, 40), (1,) * 9, (33,) * 3])
@pytest.mark.parametrize("order", "CF")
def test_many_inputs_of_any_width(rng, widths, order):
    """The columns of a transposed input are written in whole lines, and go no further."""
    net = fl.Network([fl.Layer(sum(widths), 5, rng=0)], inputs=list(widths))
    for m in (1, 16, 40, 3000):
        given = [np.asarray(rng.standard_normal((m, n)), np.float32, order=order) for n in widths]
        right = net(np.concatenate(given, axis=1))
        for _ in range(2):
            assert_same_bits(net(*given), right)


def test_outputs_are_views_of_one_array(rng):
    net = actor_critic()
    s, u = arrays(rng, 5)
    for _ in range(2):
        policy, value = net(s, u)
        assert policy.base is value.base is not None
        assert policy.base.shape == (5, 4)
        assert policy.flags.writeable
        out = np.empty((5, 4), np.float32)
        policy, value = net(s, u, out=out)
        assert policy.base is value.base is out
        assert_same_bits(out[:, 3:], value)


def test_other_ways_to_call(rng):
    net = actor_critic()
    s, u = arrays(rng, 7)
    policy, value = net(s, u)
    for found in (
        net(np.concatenate([s, u], axis=1)),
        net((s, u)),
        net.forward(s, u),
        net.predict((s, u)),
        net.predict((s, u), batch_size=3),
        [y.T for y in net(s.T, u.T, axis=0)],
        [np.stack([net(a, b)[i] for a, b in zip(s, u, strict=True)]) for i in range(2)],
        [y.reshape(7, -1) for y in net(s.reshape(7, 1, 4), u.reshape(7, 1, 2), axis=2)],
        [y[0] for y in net(s[None], u[None])],
    ):
        assert_same_bits(found[0], policy)
        assert_same_bits(found[1], value)
    assert net((s, u))[0].shape == (7, 3)
    assert [y.shape for y in net(s[:0], u[:0])] == [(0, 3), (0, 1)]
    row = net.activations((s, u))[-1][0]
    np.testing.assert_allclose(row, np.concatenate([policy, value], axis=1), rtol=1e-6)
    pair = fl.Network([fl.Layer.from_arrays([[1.0, 2.0]])], inputs=[1, 1])
    assert_same_bits(pair((3.0, 4.0)), np.array([11.0]))  # numbers are a row


def test_an_update_reaches_all_ways(rng):
    net = actor_critic()
    s, u = arrays(rng, 3)
    for _ in range(3):
        net(s, u)
    net[0].update(weight=np.zeros((8, 6), np.float32))
    policy, value = net(s, u)
    right = net(np.concatenate([s, u], axis=1))
    assert_same_bits(policy, right[0])
    assert_same_bits(value, right[1])
    np.testing.assert_allclose(policy, np.full((3, 3), 1 / 3), rtol=1e-5)


def test_names():
    net = actor_critic()
    assert net.input_names == ("state", "action")
    assert net.output_names == ("policy", "value")
    assert fl.Network([fl.Layer(6, 3)]).input_names == ()
    net = fl.Network([fl.Layer(6, 3)], inputs=[4, 2], outputs=[3])
    assert net.input_names == ("input_0", "input_1")
    assert net.output_names == ("output_0",)
    assert isinstance(net(np.ones(6)), tuple)  # of one
    assert "inputs={'state': 4, 'action': 2}, outputs={'policy': 3, 'value': 1})" in repr(
        actor_critic()
    )


def test_slices_keep_the_ends_that_they_have():
    net = actor_critic()
    assert (net[:1].input_names, net[:1].output_names) == (net.input_names, ())
    assert (net[1:].input_names, net[1:].output_names) == ((), net.output_names)
    assert (net[:].input_names, net[:].output_names) == (net.input_names, net.output_names)
    assert (net[::-2].input_names, net[::-2].output_names) == ((), ())


def test_part_of_another_network(rng):
    """There it takes and gives rows."""
    net = actor_critic()
    s, u = arrays(rng, 4)
    outer = fl.Network([net, fl.Layer(4, 2, rng=5)])
    row = np.concatenate([s, u], axis=1)
    right = outer[1](np.concatenate(net(s, u), axis=1))
    np.testing.assert_allclose(outer(row), right, rtol=1e-6)
    with pytest.raises(TypeError, match="takes one array, and got 2"):
        outer(s, u)


@pytest.mark.parametrize(
    "other", [lambda n: pickle.loads(pickle.dumps(n)), copy.deepcopy, lambda n: n.copy()]
)
def test_copies(rng, other):
    net = actor_critic()
    again = other(net)
    s, u = arrays(rng, 3)
    for found, right in zip(again(s, u), net(s, u), strict=True):
        assert_same_bits(found, right)
    assert repr(again) == repr(net)


def test_files(rng):
    assert_round_trips(actor_critic(), rng.standard_normal((3, 6)).astype(np.float32))
    assert_round_trips(actor_critic(np.float64), rng.standard_normal((3, 6)))


def test_astype(rng):
    wide = actor_critic().astype(np.float64)
    assert wide.output_names == ("policy", "value")
    assert [y.dtype for y in wide(*arrays(rng, 2))] == [np.float64, np.float64]


def test_tables(rng):
    net = actor_critic()
    s, u = arrays(rng, 4)
    assert len(net.profile((s, u), repeat=1).rows) == 2
    assert len(net.summary().rows) == 2
    plain = fl.Network(net.layers)

    def split(state, action):
        y = plain(np.concatenate([state, action], axis=1))
        return y[:, :3], y[:, 3:]

    assert net.verify(split, (s, u)).max_abs == 0
    named = net.verify(
        lambda *x: dict(zip(("value", "policy"), split(*x)[::-1], strict=True)), (s, u)
    )
    assert named.max_abs == 0
    with pytest.raises(ValueError, match="has to give 2 arrays: policy, value"):
        net.verify(lambda *x: plain(np.concatenate(x, axis=1)), (s, u))


CALLS = {
    "too few": (lambda n, s, u: n(s), ValueError, r"expected x of shape \(..., 6\), got \(3, 4\).*one by one are net\(state, action\)"),
    "too many": (lambda n, s, u: n(s, u, u), TypeError, r"takes 2 arrays \(state, action\), and got 3"),
    "features": (lambda n, s, u: n(u, s), ValueError, "input 'state': expected 4 features"),
    "rows": (lambda n, s, u: n(s, u[:2]), ValueError, r"shapes \(3, 4\), \(2, 2\); all axes but"),
    "a number": (lambda n, s, u: n(s, 1.0), ValueError, "expected x|input 'action'"),
    "text": (lambda n, s, u: n(s, np.array([["a", "b"]] * 3)), TypeError, "action|text|str"),
    "out": (lambda n, s, u: n(s, u, out=np.empty((3, 3), np.float32)), ValueError, r"\(3, 4\)"),
    "a layer": (lambda n, s, u: n[0](s, u), TypeError, "takes one array, and got 2"),
    "one input": (lambda n, s, u: n[1:](s, u), TypeError, "takes one array, and got 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_what_a_call_refuses(rng, name):
    call, kind, message = CALLS[name]
    net = actor_critic()
    s, u = arrays(rng, 3)
    for _ in range(2):
        with pytest.raises(kind, match=message):
            call(net, s, u)
        net(s, u)


@pytest.mark.parametrize(
    ("keywords", "kind", "message"),
    [
        ({"inputs": [4, 3]}, ValueError, "the inputs have 4 [+] 3 = 7 features, and the network 6"),
        ({"outputs": {"y": 2}}, ValueError, "the outputs have 2 = 2 features, and the network 3"),
        ({"inputs": []}, ValueError, "expected 1 to 1000 of at least 1 feature"),
        ({"inputs": [6, 0]}, ValueError, "at least 1 feature"),
        ({"inputs": {"": 6}}, ValueError, "no name"),
        ({"inputs": {3: 6}}, ValueError, "no name"),
        ({"inputs": 6}, TypeError, "expected a list or a dict"),
        ({"inputs": "six"}, TypeError, "expected a list or a dict"),
        ({"outputs": [1.5, 1.5]}, TypeError, "integer"),
    ],
)
def test_what_a_network_refuses(keywords, kind, message):
    with pytest.raises(kind, match=message):
        fl.Network([fl.Layer(6, 3)], **keywords)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"outputs": [["y", 3]], "single": 1}, "'single' holds 1, expected bool"),
        ({"outputs": [["y", 3]], "single": None}, "'single' holds None, expected bool"),
        ({"outputs": [["y", 3]], "single": "true"}, "'single' holds 'true', expected bool"),
        ({"outputs": [["y", 1], ["z", 2]], "single": True}, "'single' is there beside 2 outputs"),
        ({"single": True}, "'single' is there without 'outputs'"),
        ({"inputs": [["x", 3]], "single": True}, "'single' is there without 'outputs'"),
        ({"inputs": [["x", 3]], "single": 0}, "'single' holds 0, expected bool"),
        ({"outputs": [["y", 3]], "single": True}, None),
        ({"outputs": [["y", 1], ["z", 2]], "single": False}, None),
    ],
)
def test_a_document_that_says_single_in_vain_is_damaged(fields, message):
    layer = {"type": "Activation", "name": "relu", "parameters": {}}
    document = {"format": "fastlayer", "version": 2, "dtype": "float32", "layers": [layer]}
    if message is None:
        y = from_document(document | fields, None, PARTS)(np.ones((2, 3), np.float32))
        assert isinstance(y, tuple) != fields["single"]
        return
    with pytest.raises(ValueError, match=message):
        from_document(document | fields, None, PARTS)


def test_features_that_no_part_tells():
    """The inputs do, and other numbers are refused."""
    net = fl.Network([fl.Concat([fl.Slice(0, 2), "relu"])], inputs=[2, 1])
    assert net.in_features == 3
    assert net([1.0, 2.0], [-3.0]).tolist() == [1, 2, 1, 2, 0]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"expected x of shape \(..., 3\), got \(1, 4\)"):
            net(np.ones((1, 4)))
    assert fl.Network(["relu"], inputs=[1, 2])([1.0], [-1.0, 1.0]).tolist() == [1, 0, 1]


def test_a_python_function_inside(rng):
    net = fl.Network([lambda x: x * 2, fl.Layer(6, 4, rng=0)], inputs=[4, 2], outputs=[1, 3])
    s, u = arrays(rng, 3)
    right = net[1](np.concatenate([s, u], axis=1) * 2)
    for _ in range(2):
        first, second = net(s, u)
        assert_same_bits(first, right[:, :1])
        assert_same_bits(second, right[:, 1:])


def test_out_may_be_an_input(rng):
    net = fl.Network([fl.Layer(6, 4, rng=0)], inputs=[4, 2])
    s, u = arrays(rng, 40)
    right = net(s, u)
    held = s.copy()
    for _ in range(2):
        held[...] = s
        assert net(held, u, out=held) is held
        assert_same_bits(held, right)
