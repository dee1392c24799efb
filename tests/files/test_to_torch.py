"""`Network.to_torch`: PyTorch computes what the network does, and `from_torch` leads back to its bits."""

from __future__ import annotations

import copy
import io
import sys

import numpy as np
import pytest
from helpers import FLOATS, assert_same_bits
from model_files import every_part
from test_to_onnx import NETWORKS, assert_close, samples

import fastlayer as fl

torch = pytest.importorskip("torch")


def vectors(y):
    return y if isinstance(y, tuple) else (y,)


def run(module, xs):
    with torch.no_grad():
        return [t.numpy() for t in vectors(module(*map(torch.from_numpy, xs)))]


def gates(dtype):
    """Branches in branches, a network in a network, and norms with some of their arrays."""
    layer = lambda k, n, a=None, rng=0: fl.Layer(k, n, a, rng=rng, dtype=dtype)
    ones = np.arange(1.0, 5)
    inner = fl.Concat([[fl.Slice(0, 3), fl.Add(["relu", "tanh"])], []])
    return fl.Network(
        [
            fl.Network([layer(4, 4, "sin"), fl.BatchNorm(4, bias=ones, dtype=dtype)]),
            fl.Multiply([layer(4, 4, "sigmoid"), fl.LayerNorm(4, bias=ones, dtype=dtype)]),
            fl.Residual(fl.BatchNorm(4, 0.0, ones, running_var=ones, dtype=dtype), "identity"),
            fl.LayerNorm(4, weight=ones, dtype=dtype),
            inner,
            layer(7, 2, fl.Activation("prelu", weight=[0.5, 2.0])),
        ]
    )


MORE = {
    "gates": gates,
    "every part": lambda dtype: fl.Network([fl.Layer(12, 12, rng=9, dtype=dtype), *every_part(dtype)[1:]]),
    "activations alone": lambda dtype: fl.Network([fl.Layer(3, 3, rng=0, dtype=dtype), "sqrt", "identity"]),
    "one input with a name": lambda dtype: fl.Network(
        [fl.Layer(3, 4, rng=0, dtype=dtype)], inputs={"not a name": 3}, outputs=[1, 3]
    ),
    "names that are taken": lambda dtype: fl.Network(
        [fl.Layer(8, 4, rng=0, dtype=dtype)],
        inputs={"torch": 1, "lambda": 1, "self": 1, "input": 1, "layers": 1, "slice": 1, "f(": 1, "e\u0301": 1},
        outputs=[1, 3],
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", [*NETWORKS, *MORE])
def test_there_and_back(name, dtype):
    net = {**NETWORKS, **MORE}[name](dtype)
    module, xs = net.to_torch(), samples(net)
    assert not any(m.training for m in module.modules())
    assert_close(net, xs, run(module, xs), 64)
    back = fl.from_torch(module, inputs=net._in.widths if len(xs) > 1 else None)
    y, again = net(*xs), back(*xs)
    assert isinstance(y, tuple) == isinstance(again, tuple)
    for a, b in zip(vectors(y), vectors(again), strict=True):
        assert_same_bits(a, b)


def test_names_of_inputs_are_those_of_arguments():
    net = NETWORKS["everything"](np.float32)
    back = fl.from_torch(net.to_torch(), inputs={"state": 4, "action": 2})
    assert back.input_names == net.input_names


def test_a_flattening_network_takes_samples():
    net = fl.Network([fl.Flatten(), fl.Layer(6, 2, rng=0)])
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    assert_close(net, [x], run(net.to_torch(), [x]), 64)


def test_a_plain_chain_is_a_sequential_of_plain_modules():
    net = NETWORKS["relu"](np.float32)
    module = net.to_torch()
    assert type(module) is torch.nn.Sequential
    assert list(module.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    again = fl.from_state_dict(module.state_dict(), activation="relu")
    (x,) = samples(net)
    assert_same_bits(again(x), net(x))


def test_weights_are_copies_that_can_be_trained():
    net = NETWORKS["everything"](np.float32)
    module, xs = net.to_torch(), samples(net)
    before = net(*xs)
    assert all(p.requires_grad for p in module.parameters())
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.fill_(7)
    for a, b in zip(before, net(*xs), strict=True):
        assert_same_bits(a, b)


def test_nobody_elses_random_numbers_are_used():
    torch.manual_seed(3)
    NETWORKS["everything"](np.float32).to_torch()
    drawn = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), drawn)


@pytest.mark.parametrize("name", ["relu", "everything", "sin"])
def test_the_module_is_one_like_any_other(name):
    """It is copied and saved like those of torch.nn."""
    net = {**NETWORKS, **MORE}[name](np.float32)
    module, xs = net.to_torch(), samples(net)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    expected = run(module, xs)
    for other in (copy.deepcopy(module), torch.load(file, weights_only=False)):
        for a, b in zip(run(other, xs), expected, strict=True):
            assert_same_bits(a, b)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fl.Network([fl.Layer(3, 2, rng=0), np.cbrt]), "holds a Python function"),
        (lambda: fl.Network([fl.Activation("hardtanh", min_val=1.0, max_val=1.0)]), "PyTorch refuses"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused(make, words):
    with pytest.raises(fl.ConversionError, match=words):
        make().to_torch()


def test_labels_are_refused():
    onnx = pytest.importorskip("onnx")
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        graph (float[N, 2] x) => (int64[N] y) <float[2, 3] w = {1, -1, 0, 2, 1, 1}>
        { h = MatMul(x, w) y = ArgMax<axis=1, keepdims=0>(h) }"""
    )
    with pytest.raises(fl.ConversionError, match="gives labels"):
        fl.from_onnx(model).to_torch()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        NETWORKS["relu"](np.float32).to_torch()
