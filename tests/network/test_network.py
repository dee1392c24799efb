"""Network: what it accepts, how it runs, and the reports about it."""

import copy
import io
import pickle
import sys
import threading
import types
from itertools import pairwise

import numpy as np
import pytest
from helpers import assert_same_bits, assert_within, ref_network

import fastlayer as fl
from fastlayer.network import module
from fastlayer.report import profile as report

DTYPES = [np.float32, np.float64]


def layers(dtype=np.float64, sizes=(6, 9, 4), last="softmax"):
    pairs = list(pairwise(sizes))
    return [
        fl.Layer(k, n, "tanh" if i + 1 < len(pairs) else last, rng=i, dtype=dtype)
        for i, (k, n) in enumerate(pairs)
    ]


def one_by_one(net, x):
    for i, part in enumerate(net):
        x = (net[i : i + 1] if isinstance(part, fl.Residual) else part)(x)
    return x


# --- making


@pytest.mark.parametrize(
    ("error", "match", "parts"),
    [
        (ValueError, r"layer 1 Layer\(64, 10\) takes 64.*layer 0 Layer\(3, 8\) gives 8",
         lambda: [fl.Layer(3, 8), fl.Layer(64, 10)]),
        (ValueError, r"layer 3 Layer\(7, 2\) takes 7.*layer 0 Layer\(3, 8\) gives 8",
         lambda: [fl.Layer(3, 8), "relu", fl.Residual("tanh"), fl.Layer(7, 2)]),
        (ValueError, "BatchNorm.*takes 7", lambda: [fl.Layer(3, 8), fl.BatchNorm(7)]),
        (ValueError, "prelu.*takes 2", lambda: [fl.Layer(3, 8), fl.Activation("prelu", weight=[1, 2])]),
        (ValueError, "Network.*takes 5", lambda: [fl.Layer(3, 8), fl.Network([fl.Layer(5, 2)])]),
        (ValueError, "layer 1.*float64.*layer 0.*float32",
         lambda: [fl.Layer(3, 8), fl.Layer(8, 2, dtype="f8")]),
        (ValueError, "at least one layer", list),
        (ValueError, "unknown activation", lambda: [fl.Layer(3, 8), "rellu"]),
        (ValueError, "axis=-1", lambda: [fl.Activation("softmax", axis=0)]),
        (TypeError, "layer 1 is the class Flatten", lambda: [fl.Layer(3, 8), fl.Flatten]),
        (TypeError, "layer 0 is None", lambda: [None]),
        (TypeError, "got int", lambda: [3]),
        (TypeError, "list of layers", lambda: fl.Layer(3, 8)),
        (TypeError, "list of layers", lambda: "relu"),
        (TypeError, "prelu needs its slopes", lambda: [fl.prelu]),
    ],
)  # fmt: skip
def test_constructor_refuses(error, match, parts):
    with pytest.raises(error, match=match) as caught:
        fl.Network(parts())
    assert "\n" not in str(caught.value)


def test_is_a_sequence_with_identity_equality():
    parts = layers()
    net = fl.Network(iter([*parts, "relu"]))
    assert len(net) == 3
    assert list(net) == list(net.layers)
    assert net[0] is parts[0]
    assert net[-1] == fl.Activation("relu")
    assert isinstance(net[:2], fl.Network)
    assert net[:2].layers == net.layers[:2]
    assert net != fl.Network(net)
    assert len({net, fl.Network(net)}) == 2
    with pytest.raises(ValueError, match="empty"):
        net[3:]
    with pytest.raises(IndexError):
        net[3]


def test_what_is_known_of_the_features():
    def features(*parts):
        net = fl.Network(parts)
        return net.in_features, net.out_features

    assert features(*layers()) == (6, 4)
    assert features("relu", *layers()) == (6, 4)
    assert features(fl.Flatten(), *layers(), "relu") == (6, 4)
    assert features(lambda x: x, *layers()) == (None, 4)
    assert features(*layers(), lambda x: x) == (6, None)
    assert features("relu") == (None, None)
    assert features(fl.Residual("relu"), fl.LayerNorm(3)) == (3, 3)
    assert fl.Network([fl.Flatten(), fl.Layer(8, 2)]).dtype == np.float32
    assert fl.Network(["relu", fl.Layer(8, 2, dtype="f8")]).dtype == np.float64
    assert fl.Network(["relu"]).dtype == np.float64
    # a Flatten in front changes the features, so a neighbour's can't be held against it
    fl.Network([fl.Layer(3, 4), fl.Network([fl.Flatten(), fl.Layer(8, 2)])])


# --- calling


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6,), (0, 6), (1, 6), (17, 6), (2, 3, 6)], ids=str)
def test_against_wide_arithmetic(rng, dtype, shape):
    parts = layers(dtype)
    net = fl.Network(parts)
    x = rng.standard_normal(shape).astype(dtype)
    plain = [(p.weight, p.bias, p.activation.name) for p in parts]
    exact, bound = ref_network(x, plain, dtype)
    y = net(x)
    assert y.dtype == dtype
    assert_within(y, exact, bound)
    assert_same_bits(y, one_by_one(net, x))
    assert_same_bits(net.forward(x), y)
    out = np.empty_like(y)
    assert net(x, out=out) is out
    assert_same_bits(out, y)


MIXTURES = {
    "callable": lambda d: [*layers(d), lambda z: z[..., :2] * 2],
    "callable inside": lambda d: [
        fl.Layer(6, 4, np.cos, rng=0, dtype=d), np.sin, fl.Layer(4, 3, rng=1, dtype=d)],
    "callable first": lambda d: [np.abs, *layers(d)],
    "activations": lambda d: ["relu", *layers(d), fl.prelu_of(4, d), "swish"],
    "flatten": lambda d: [fl.Flatten(), *layers(d), fl.Flatten()],
    "nested": lambda d: [fl.Network(layers(d)), fl.Network([fl.Network([fl.Layer(4, 2, rng=3, dtype=d)])])],
    "residual": lambda d: [fl.Residual(*layers(d, (6, 8, 6), None)), fl.Residual("relu")],
    "residual with callable": lambda d: [fl.Residual(np.cos), *layers(d), fl.Residual(np.sin)],
}  # fmt: skip


@pytest.fixture(autouse=True)
def prelu_of(monkeypatch):
    def make(n, dtype):
        return fl.Activation("prelu", weight=np.linspace(0.1, 0.5, n).astype(dtype))

    monkeypatch.setattr(fl, "prelu_of", make, raising=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_are_their_parts_one_by_one(rng, name, dtype):
    net = fl.Network(MIXTURES[name](dtype))
    x = rng.standard_normal((5, 6)).astype(dtype)
    before = x.copy()
    y = net(x)
    assert y.dtype == dtype
    assert_same_bits(y, np.asarray(one_by_one(net, x), dtype))
    assert_same_bits(x, before)
    assert_same_bits(net(x.astype(">f8")), net(x.astype("f8")))
    assert_same_bits(net(x.T.copy(), axis=0), y.T)
    out = np.full((5, 2 * y.shape[1]), 7, dtype)[:, ::2]
    assert net(x, out=out) is out
    assert_same_bits(out, y)
    pairs = net.activations(x)
    assert len(pairs) == len(net)
    assert_same_bits(pairs[-1][0], y)


def test_in_place_steps_leave_the_input_alone(rng):
    def double(x):
        x *= 2
        return x

    x = rng.standard_normal((3, 4))
    residual = fl.Network([fl.Residual(double), fl.Layer(4, 2, rng=0, dtype="f8")])
    expected = residual[1](3 * x)
    assert_within(residual(x), expected, 1e-12)
    same = fl.Network([lambda v: v])
    y = same(x.astype(np.float32))
    assert not np.may_share_memory(y, x)


def test_flatten_makes_rows(rng):
    net = fl.Network([fl.Flatten(), fl.Layer(12, 5, rng=0, dtype="f8")])
    x = rng.standard_normal((7, 3, 4))
    y = net(x)
    assert_same_bits(y, net(x.reshape(7, 12)))
    assert_same_bits(net(np.asfortranarray(x)), y)
    assert_same_bits(net(x[0].reshape(12)), y[0])
    assert net(x[:0]).shape == (0, 5)
    assert fl.Flatten()(np.zeros((2, 0, 3))).shape == (2, 0)
    assert_same_bits(net(x.reshape(7, 12).T, axis=0), y.T)
    with pytest.raises(ValueError, match="axis=-1 only"):
        net(x, axis=0)
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        net(x[0])


@pytest.mark.parametrize(
    ("error", "match", "x"),
    [
        (ValueError, r"\(\.\.\., 6\), got \(3, 5\)", np.ones((3, 5))),
        (ValueError, "scalar", 1.0),
        (TypeError, "complex", np.ones(6, complex)),
    ],
)
def test_calls_refuse(error, match, x):
    for parts in (layers(), [*layers(), np.sin], [np.sin, *layers()]):
        with pytest.raises(error, match=match):
            fl.Network(parts)(x)


def test_a_callable_that_gives_the_wrong_features_is_explained():
    net = fl.Network([fl.Layer(3, 4), lambda x: x[..., :2], fl.Layer(4, 2)])
    with pytest.raises(ValueError, match=r"takes 4 features.*\(5, 2\)"):
        net(np.ones((5, 3)))
    with pytest.raises(ValueError, match=r"branches of a sum.*\(5, 2\), \(5, 3\).*the same"):
        fl.Network([fl.Residual(lambda x: x[..., :2])])(np.ones((5, 3)))
    with pytest.raises(ValueError, match=r"take 3 features.*give 4"):
        fl.Residual(fl.Layer(3, 4))


def test_a_layer_in_two_networks_and_unrelated_updates(rng):
    shared, other = fl.Layer(4, 4, rng=0), fl.Layer(4, 4, rng=1)
    a, b = fl.Network([shared, "relu"]), fl.Network([shared, shared])
    x = rng.standard_normal((3, 4)).astype(np.float32)
    a(x)
    y = b(x)
    other.weight = np.eye(4)
    assert_same_bits(b(x), y)
    shared.weight = np.eye(4)
    assert_same_bits(a(x), fl.relu(x))
    assert_same_bits(b(x), x)


def test_a_layer_and_a_norm_that_come_twice(rng):
    """The weights that do the work of both are made once, and stand in both places."""
    layer = fl.Layer(4, 4, rng=0)
    norm = fl.BatchNorm(4, weight=[1, 2, 3, 4], bias=[1, 0, -1, 2], dtype=np.float32)
    x = rng.standard_normal((3, 4)).astype(np.float32)
    once, twice = fl.Network([layer, norm]), fl.Network([layer, norm, layer, norm])
    assert_same_bits(twice(x), once(once(x)))
    layer.weight = np.eye(4)
    assert_same_bits(twice(x), once(once(x)))


def test_an_update_concerns_only_what_holds_the_layer(monkeypatch):
    compiled = []
    original = module.compile_steps
    monkeypatch.setattr(
        module, "compile_steps", lambda *args: compiled.append(args) or original(*args)
    )
    mine, its = fl.Layer(4, 4, rng=0), fl.Layer(4, 4, rng=1)
    held = fl.Network([mine, "relu"])
    nets = held, fl.Network([held, np.cos, its]), fl.Network([its, fl.BatchNorm(4)])
    x = np.ones((3, 4), np.float32)

    def compilations():
        compiled.clear()
        for net in nets:
            net(x)
            net(x.T, axis=0)
        return len(compiled)

    assert compilations() == 3
    assert compilations() == 0
    mine.bias = np.ones(4)
    assert compilations() == 2
    its.activation = "tanh"
    assert compilations() == 2
    fl.Layer(4, 4).weight = np.zeros((4, 4))
    assert compilations() == 0


def test_a_snapshot_keeps_what_a_layer_had(rng):
    layer = fl.Layer(4, 4, rng=0)
    net = fl.Network([layer, np.cos, fl.Residual(layer)])
    x = rng.standard_normal((3, 4)).astype(np.float32)
    before = net(x)
    held = net._snapshot()
    layer.weight = np.eye(4)
    assert_same_bits(held(x), before)
    assert_same_bits(held(x), before)
    assert np.any(net(x) != before)


def test_threads_share_a_network(rng):
    net = fl.Network([*layers(), np.cos])
    x = rng.standard_normal((64, 6))
    expected = net(x)
    results = []

    def work():
        results.extend(net(x) for _ in range(20))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert len(results) == 80
    for y in results:
        assert_same_bits(y, expected)


# --- predict


@pytest.mark.parametrize("batch_size", [None, 1, 7, 30, 100])
def test_predict_has_the_bits_of_one_call(rng, tmp_path, batch_size):
    net = fl.Network(layers())
    x = rng.standard_normal((30, 6))
    expected = net(x)
    told = []
    y = net.predict(x, batch_size=batch_size, progress=lambda *v: told.append(v))
    assert_same_bits(y, expected)
    assert told[-1] == (30, 30)
    assert len(told) == -(-30 // (batch_size or 256))
    assert_same_bits(net.predict(x.tolist(), batch_size=batch_size), expected)
    out = np.memmap(tmp_path / "out", np.float64, "w+", shape=(30, 4))
    source = np.memmap(tmp_path / "in", np.float64, "w+", shape=(30, 6))
    source[:] = x
    assert net.predict(source, batch_size=batch_size, out=out) is out
    assert_same_bits(np.asarray(out), expected)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_predict_on_streams(rng, batch_size):
    net = fl.Network(layers())
    parts = [rng.standard_normal((m, 6)) for m in (5, 0, 1, 9)]
    expected = net(np.concatenate(parts))
    assert_same_bits(net.predict(iter(parts), batch_size=batch_size), expected)
    assert_same_bits(net.predict(parts, batch_size=batch_size), expected)
    out = np.empty_like(expected)
    assert net.predict((p for p in parts), batch_size=batch_size, out=out) is out
    assert_same_bits(out, expected)
    rows = np.concatenate(parts)
    assert_same_bits(net.predict(iter(rows), batch_size=batch_size), expected)
    assert net.predict(iter([])).shape == (0, 4)
    for wrong in (np.empty((14, 4)), np.empty((16, 4))):
        with pytest.raises(ValueError, match="rows"):
            net.predict(iter(parts), batch_size=batch_size, out=wrong)


def test_predict_flattens_images_batch_by_batch(rng):
    net = fl.Network([fl.Flatten(), fl.Layer(12, 5, rng=0, dtype="f8")])
    x = rng.standard_normal((20, 3, 4))
    told = []
    y = net.predict(x, batch_size=8, progress=lambda *v: told.append(v))
    assert_same_bits(y, net(x))
    assert told == [(8, 20), (16, 20), (20, 20)]
    assert net.predict(x[:0], batch_size=8).shape == (0, 5)


def test_predict_refuses(rng):
    net = fl.Network(layers())
    for size in (0, -3, 2.5):
        with pytest.raises(ValueError, match="batch_size"):
            net.predict(np.ones((3, 6)), batch_size=size)
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(5, 4\)"):
        net.predict(np.ones((5, 6)), batch_size=2, out=np.empty((3, 4)))
    with pytest.raises(ValueError, match=r"got \(5, 7\)"):
        net.predict(np.ones((5, 7)), batch_size=2)


@pytest.mark.parametrize("shown", [True, False], ids=["terminal", "file"])
def test_progress_is_a_bar_on_a_terminal_and_nothing_elsewhere(monkeypatch, shown):
    pytest.importorskip("tqdm")
    error = io.StringIO()
    monkeypatch.setattr(error, "isatty", lambda: shown, raising=False)
    monkeypatch.setattr(sys, "stderr", error)
    fl.Network(layers()).predict(np.ones((3, 6)), progress=True)
    assert ("100%" in error.getvalue() and "3.00/3.00" in error.getvalue()) == shown
    assert bool(error.getvalue()) == shown


def test_progress_without_tqdm_is_quiet(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    net = fl.Network(layers())
    assert_same_bits(net.predict(np.ones((3, 6)), progress=True), net(np.ones((3, 6))))
    assert capfd.readouterr() == ("", "")


def test_predict_with_a_bar(monkeypatch, rng):
    """The bar is told how many rows there are, of each batch, and is closed; a stream has no total."""
    seen = []

    class Bar:
        def __init__(self, **settings):
            seen.append(settings["total"])

        def update(self, rows):
            seen.append(rows)

        def close(self):
            seen.append("closed")

    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    net, x = fl.Network(layers()), rng.standard_normal((7, 6))
    assert_same_bits(net.predict(x, batch_size=3, progress=True), net(x))
    assert seen == [7, 3, 3, 1, "closed"]
    seen.clear()
    with pytest.raises(ValueError, match="got"):
        net.predict(np.ones((7, 5)), progress=True)
    assert seen in ([], [7, "closed"])


# --- looking inside


def test_activations_of_layers_and_others(rng):
    net = fl.Network([fl.Layer(4, 3, "relu", rng=0), fl.LayerNorm(3), "tanh"])
    x = rng.standard_normal((5, 4)).astype(np.float32)
    (a0, z0), (a1, z1), (a2, z2) = net.activations(x)
    assert_same_bits(a0, fl.relu(z0))
    assert_same_bits(z1, a0)
    assert_same_bits(z2, a1)
    assert_same_bits(a2, net(x))


def test_summary_and_counts():
    slopes = fl.Activation("prelu", weight=[0.1] * 8)
    net = fl.Network(
        [
            fl.Flatten(),
            fl.Layer(12, 8),
            fl.BatchNorm(8),
            slopes,
            fl.Residual(fl.Layer(8, 8)),
            np.sin,
        ]
    )
    assert net.num_parameters == 12 * 8 + 8 + 8 + 8 * 8 + 8
    assert net.nbytes == 4 * net.num_parameters
    assert net.flops(10) == 20 * (12 * 8 + 8 * 8)
    summary = net.summary()
    assert [row["parameters"] for row in summary.rows] == [0, 104, 0, 8, 72, 0]
    assert summary.total == {"parameters": 184, "bytes": 736, "flops": net.flops()}
    assert summary.rows[2]["kernel"] == "folded into layer 1"
    assert summary.rows[-1]["kernel"] == "Python"
    before = fl.Network([fl.BatchNorm(8), fl.Layer(8, 4)]).summary()
    assert before.rows[0]["kernel"] == "folded into layer 1"
    assert [row["shape"] for row in summary.rows[:3]] == ["(..., 12)", "(..., 8)", "(..., 8)"]
    assert [row["shape"] for row in summary.rows[3:]] == ["(..., 8)", "(..., 8)", "(..., ?)"]
    text = str(summary)
    assert fl.show_config(mode="dicts")["isa"]["active"] in text
    assert len({line.rstrip() for line in text.splitlines()}) == len(net) + 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(90, "90 s"), (1, "1 s"), (0.25, "250 ms"), (1.5e-5, "15 us"), (2e-9, "2 ns")],
)
def test_durations_have_fitting_units(seconds, text):
    assert report._duration(seconds) == text


def test_profile(rng):
    net = fl.Network(layers())
    profile = net.profile(rng.standard_normal((8, 6)), repeat=2)
    assert [row["layer"] for row in profile.rows] == ["Layer(6, 9)", "Layer(9, 4)"]
    assert abs(sum(row["share"] for row in profile.rows) - 1) < 1e-12
    assert profile.samples == 8
    assert "Whole network" in str(profile)
    with pytest.raises(ValueError, match="repeat"):
        net.profile(np.ones((8, 6)), repeat=0)


def test_verify(rng):
    net = fl.Network(layers(np.float32, last=None))
    x = rng.standard_normal((20, 6))
    same = net.verify(net, x)
    assert (same.max_abs, same.max_rel, same.max_ulp, same.argmax_agreement) == (0, 0, 0, 1)
    y = net(x)
    near = net.verify(lambda v: np.nextafter(net(v), np.float32(np.inf)), x)
    assert 0.5 <= near.max_ulp <= 1
    far = net.verify(lambda v: -net(v), x)
    assert far.max_abs == 2 * np.abs(y).max()
    assert far.max_rel == 2
    assert far.argmax_agreement < 1
    spoilt = y.copy()
    spoilt[3, 2] = np.nan
    assert net.verify(lambda v: spoilt, x).max_ulp == np.inf
    assert net.verify(lambda v: net(v), np.full((2, 6), np.nan)).max_abs == 0
    assert "argmax" in str(far)
    assert net.verify(net, x[:0]).argmax_agreement == 1
    with pytest.raises(ValueError, match=r"\(20, 3\).*\(20, 4\)"):
        net.verify(lambda v: y[:, :3], x)


# --- copies


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, fl.Network.copy, lambda n: pickle.loads(pickle.dumps(n))])  # fmt: skip
def test_copies(rng, duplicate):
    net = fl.Network(
        [
            fl.Flatten(),
            *layers(),
            fl.BatchNorm(4),
            fl.Residual(fl.LayerNorm(4)),
            fl.RMSNorm(4, weight=[1, 2, 3, 4.0], dtype="f8"),
        ][:3]
    )
    x = rng.standard_normal((5, 6))
    y = net(x)
    twin = duplicate(net)
    assert_same_bits(twin(x), y)
    assert repr(twin) == repr(net)
    shares = duplicate is copy.copy
    assert (twin[1] is net[1]) == shares
    twin[1].weight = np.zeros((9, 6))
    assert np.array_equal(net(x), y) != shares


def test_a_network_that_has_run_pickles_as_small_as_a_new_one(rng):
    fresh, used = (fl.Network(layers()) for _ in range(2))
    used(np.ones((3, 6)))
    assert pickle.dumps(used) == pickle.dumps(fresh)


def test_astype(rng):
    net = fl.Network([*layers(np.float64), fl.BatchNorm(4, dtype="f8"), fl.Residual("relu")])
    narrow = net.astype(np.float32)
    x = rng.standard_normal((5, 6))
    assert narrow.dtype == narrow(x).dtype == narrow[0].dtype == narrow[2].dtype == np.float32
    assert_same_bits(narrow[0].weight, net[0].weight.astype(np.float32))
    assert net.dtype == np.float64
    with pytest.raises(TypeError, match="float32 or float64"):
        net.astype(np.float16)


def test_repr_shows_every_layer():
    text = repr(fl.Network([fl.Network([fl.Layer(3, 2, "relu")]), fl.Flatten(), "tanh"]))
    assert text == (
        "Network([\n    Network([\n        Layer(3, 2, activation='relu', dtype=float32),\n    ]),"
        "\n    Flatten(),\n    'tanh',\n])"
    )


# --- the call without Python


class Doubled(fl.Network):
    def __call__(self, x, *, axis=-1, out=None):
        return 2 * super().__call__(x, axis=axis, out=out)


class Inherited(fl.Network):
    pass


def test_whoever_overrides_the_call_is_called(rng, monkeypatch):
    layer = fl.Layer.from_arrays(rng.standard_normal((5, 4)), rng.standard_normal(5))
    x = rng.standard_normal((3, 4))
    plain = fl.Network([layer])
    y = plain(x)
    assert_same_bits(Doubled([layer])(x), 2 * y)
    assert_same_bits(Doubled([layer]).forward(x), 2 * y)
    assert_same_bits(type("Further", (Doubled,), {})([layer])(x), 2 * y)
    heir = Inherited([layer])
    assert_same_bits(heir(x), y)
    monkeypatch.setattr(Inherited, "__call__", lambda self, x: "patched")
    assert heir(x) == "patched"
    assert_same_bits(plain(x), y)
    monkeypatch.setattr(module.Module, "__call__", lambda self, x: "all of them")
    assert plain(x) == layer(x) == "all of them"
    monkeypatch.undo()
    assert_same_bits(heir(x), y)
    assert_same_bits(plain(x), y)


def test_no_way_of_calling_is_lost(rng):
    net = fl.Network([fl.Layer.from_arrays(rng.standard_normal((5, 4)), rng.standard_normal(5))])
    x = rng.standard_normal((3, 4))
    y, out = net(x), np.empty((3, 5))
    for _ in range(2):  # before and after the program is made anew
        for result in (
            net(x, axis=-1),
            net(x=x),
            net(x, out=None, axis=-1),
            net(x, axis=np.int64(-1)),
            net(x, axis=1),
            net(x.T.copy(), axis=0).T,
            net(x.tolist()),
            net.forward(x),
            net(x, **{"".join("out"): None}),
        ):
            assert_same_bits(result, y)
        assert net(x, out=out) is out
        assert_same_bits(out, y)
        net[0].update(weight=net[0].weight)
    for args, keywords, message in (
        ((), {}, "'x'"),
        ((x, -1), {}, "takes one array, and got 2"),
        ((x,), {"axes": 0}, "'axes'"),
    ):
        with pytest.raises(TypeError, match=message):
            net(*args, **keywords)
    for axis in (2**80, -(2**80)):
        with pytest.raises((IndexError, OverflowError, ValueError)):
            net(x, axis=axis)
    with pytest.raises(TypeError, match="dtype"):
        net(x, out=np.empty((3, 5), np.float32))


def test_a_call_keeps_no_references(rng):
    net = fl.Network([fl.Layer.from_arrays(rng.standard_normal((5, 4)))])
    x, out = rng.standard_normal((3, 4)), np.empty((3, 5))
    net(x)
    held = (x, out, net, None, net._run)
    before = [sys.getrefcount(v) for v in held]
    for _ in range(100):
        net(x)
        net(x, out=out)
        net(x[0].tolist())
        net(x.astype(np.float16))
    after = [sys.getrefcount(v) for v in held]
    assert all(abs(a - b) < 50 for a, b in zip(after, before, strict=True))
