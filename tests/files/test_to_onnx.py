"""`Network.to_onnx`: ONNX Runtime, onnx's own reference and fastlayer itself run what it writes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import FLOATS

import fastlayer as fl
from fastlayer.functions.activation import _KINDS

onnx = pytest.importorskip("onnx")

SPECIAL = {
    "prelu": fl.Activation("prelu", weight=[0.1, 0.2, 0.3, 0.4, 0.5]),
    "gelu_tanh": fl.Activation("gelu", approximate="tanh"),
    "one slope": fl.Activation("prelu", weight=0.3),
    "softplus": fl.Activation("softplus", beta=2.0, threshold=3.0),
    "threshold": fl.Activation("threshold", threshold=0.5, value=-1.0),
    "hardshrink": fl.Activation("hardshrink", lambd=0.7),
    "softshrink": fl.Activation("softshrink", lambd=0.7),
    "leaky_relu": fl.Activation("leaky_relu", negative_slope=0.3),
    "elu": fl.Activation("elu", alpha=0.7),
    "celu": fl.Activation("celu", alpha=0.7),
    "hardtanh": fl.Activation("hardtanh", min_val=-0.3, max_val=0.8),
}


def with_activation(name):
    return lambda dtype: fl.Network(
        [
            fl.Layer(4, 5, SPECIAL.get(name, name), rng=0, dtype=dtype),
            fl.Layer(5, 2, rng=1, dtype=dtype),
        ]
    )


def everything(dtype):
    layer = lambda k, n, a=None, rng=0: fl.Layer(k, n, a, rng=rng, dtype=dtype)
    heads = fl.Concat(
        [layer(8, 2, "softmax", 2), fl.Multiply([layer(8, 3, rng=3), fl.Slice(1, 4)])]
    )
    return fl.Network(
        [
            fl.BatchNorm(
                6, running_mean=np.arange(6.0), running_var=np.arange(1.0, 7), dtype=dtype
            ),
            layer(6, 8, "relu"),
            fl.LayerNorm(8, weight=np.arange(1.0, 9), bias=np.ones(8), dtype=dtype),
            fl.Residual(layer(8, 8, "tanh", 1)),
            fl.RMSNorm(8, weight=np.arange(1.0, 9), dtype=dtype),
            heads,
        ],
        inputs={"state": 4, "action": 2},
        outputs={"policy": 2, "value": 3},
    )


NETWORKS = {
    **{name: with_activation(name) for name in {**_KINDS, **SPECIAL}},
    "everything": everything,
    "no bias": lambda dtype: fl.Network([fl.Layer(4, 3, bias=False, rng=0, dtype=dtype)]),
    "plain norms": lambda dtype: fl.Network(
        [
            fl.Layer(4, 3, rng=0, dtype=dtype),
            fl.LayerNorm(3, dtype=dtype),
            fl.RMSNorm(3, dtype=dtype),
        ]
    ),
    "an activation alone": lambda dtype: fl.Network(
        [fl.Layer(4, 3, rng=0, dtype=dtype), "relu", "exp"]
    ),
    "a name for one output": lambda dtype: fl.Network(
        [fl.Layer(4, 3, rng=0, dtype=dtype)], inputs={"u": 4}, outputs={"v": 3}
    ),
}


def samples(net, rows=23):
    rng = np.random.default_rng(5)
    widths = net._in.widths or (net.in_features,)
    return [rng.normal(size=(rows, w)).astype(net.dtype) * 2 for w in widths]


def assert_close(net, xs, found, scale):
    given = net(*xs)
    given = given if isinstance(given, tuple) else (given,)
    assert len(found) == len(given)
    for y, other in zip(given, found, strict=True):
        assert other.dtype == y.dtype
        largest = max(1.0, float(np.nanmax(np.abs(y))))
        assert np.array_equal(np.isnan(other), np.isnan(y))  # of square roots
        assert np.nanmax(np.abs(other - y)) <= scale * np.finfo(y.dtype).eps * largest


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_reference_computes_the_same(tmp_path, name, dtype):
    net = NETWORKS[name](dtype)
    net.to_onnx(tmp_path / "model.onnx")
    session = pytest.importorskip("onnx.reference").ReferenceEvaluator(str(tmp_path / "model.onnx"))
    assert session.input_names == list(net.input_names or ("x",))
    assert session.output_names == list(net.output_names or ("y",))
    xs = samples(net)
    found = session.run(None, dict(zip(session.input_names, xs, strict=True)))
    narrow = name == "gelu" and dtype == np.float64  # its Erf computes in float32
    assert_close(net, xs, found, 2.0**30 if narrow else 64)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_computes_the_same(tmp_path, name):
    runtime = pytest.importorskip("onnxruntime")
    net = NETWORKS[name](np.float32)
    net.to_onnx(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    xs = samples(net)
    names = [i.name for i in session.get_inputs()]
    # Its sigmoid and tanh are approximations, 3e-7 apart; the sums of the next layer add these up.
    assert_close(net, xs, session.run(None, dict(zip(names, xs, strict=True))), 64)


@pytest.mark.parametrize("name", ["relu", "silu", "softmax", "everything", "plain norms"])
def test_fastlayer_reads_it_back(tmp_path, name):
    net = NETWORKS[name](np.float64)
    net.to_onnx(tmp_path / "model.onnx")
    back = fl.load(tmp_path / "model.onnx")
    assert back.input_names == net.input_names
    assert back.output_names == net.output_names
    found = back(*samples(net))
    assert_close(net, samples(net), found if isinstance(found, tuple) else (found,), 64)


def test_a_flattening_network_takes_rows(tmp_path):
    net = fl.Network([fl.Flatten(), fl.Layer(6, 2, rng=0)])
    net.to_onnx(tmp_path / "model.onnx")
    x = np.ones((5, 2, 3), np.float32)
    session = pytest.importorskip("onnx.reference").ReferenceEvaluator(str(tmp_path / "model.onnx"))
    assert_close(net, [x], session.run(None, {"x": x.reshape(5, 6)}), 64)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fl.Network([fl.Layer(3, 2, rng=0), np.cbrt]), "computed by Python"),
        (lambda: fl.Network(["relu"]), "any number of features"),
    ],
)
def test_what_has_no_counterpart_is_refused(tmp_path, make, words):
    with pytest.raises(fl.ConversionError, match=words):
        make().to_onnx(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"saved as \.onnx"):
        NETWORKS["relu"](np.float32).to_onnx(tmp_path / "model.npz")


def test_without_the_package(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="pip install onnx"):
        NETWORKS["relu"](np.float32).to_onnx(tmp_path / "model.onnx")
