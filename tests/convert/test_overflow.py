"""Sources that overflow in their own arithmetic: judged in float64 where they compute in that too."""

from __future__ import annotations

import numpy as np
import pytest

import fastlayer as fl
from fastlayer.convert._prove import prove

K, N = 16, 17


def normed(size):
    """A layer whose sums are too large for their squares, and an RMS norm."""
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((N, K)) * size).astype(np.float32)
    net = fl.Network([fl.Layer.from_arrays(w), fl.RMSNorm(N, 1e-6, np.ones(N, np.float32))])

    def reference(x):
        z = x @ w.T.astype(x.dtype)
        return z / np.sqrt((z * z).mean(axis=1, keepdims=True, dtype=x.dtype) + x.dtype.type(1e-6))

    return net, reference


def test_float64_judges_where_float32_overflows():
    net, reference = normed(1e22)
    x = np.random.default_rng(1).standard_normal((5, K)).astype(np.float32)
    with np.errstate(over="ignore"):
        assert not reference(x).any()  # finite, and wrong
    proof = prove(net, reference, source="numpy", wide=reference)
    assert proof.bound_share <= 1
    assert proof.dtype == np.float32
    np.testing.assert_allclose(net(x), reference(x.astype(float)), rtol=1e-4)


@pytest.mark.parametrize("mistake", ["eps", "weight", "missing"])
def test_a_wrong_conversion_is_found_by_either(mistake):
    size = 1e-3 if mistake == "eps" else 1e22
    net, reference = normed(size)
    layer, norm = net.layers
    if mistake == "eps":
        norm = fl.RMSNorm(N, 1e-5, norm.weight)
    elif mistake == "weight":
        changed = layer.weight.copy()
        changed[-1, -1] *= 1.01
        layer = fl.Layer.from_arrays(changed)
    parts = [layer] if mistake == "missing" else [layer, norm]
    with pytest.raises(fl.ConversionError, match="more than rounding"):
        prove(fl.Network(parts), reference, source="numpy", wide=reference)


def test_a_source_in_float32_alone_is_not_blamed_on_the_conversion():
    net, reference = normed(1e22)
    with pytest.raises(fl.ConversionError, match=r"overflow float32.*verify=False") as info:
        prove(net, reference, source="numpy")
    assert "did not see" not in str(info.value)
    large = fl.Layer.from_arrays(np.eye(3, dtype=np.float32) * 200, activation="softmax")
    with pytest.raises(fl.ConversionError, match="overflow float32"):  # NaN on plain rows
        prove(fl.Network([large]), plain_softmax, source="numpy")
    net, reference = normed(1)
    with pytest.raises(fl.ConversionError, match="did not see"):
        prove(net, lambda x: reference(x) * np.float32(1.01), source="numpy")


def plain_softmax(x):
    e = np.exp(x * x.dtype.type(200))
    return e / e.sum(axis=1, keepdims=True)


def test_a_float64_source_that_fails_judges_nothing():
    net, reference = normed(1e22)

    def broken(x):
        raise RuntimeError("no float64 here")

    with pytest.raises(fl.ConversionError, match="more than rounding"):
        prove(net, reference, source="numpy", wide=broken)
    with pytest.raises(fl.ConversionError, match="more than rounding"):
        prove(net, reference, source="numpy", wide=lambda x: reference(x)[:, :1])


def test_torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(K, N), torch.nn.SiLU(), torch.nn.Linear(N, N), torch.nn.RMSNorm(N)
    )
    with torch.no_grad():
        module[2].weight.mul_(1e20)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    net = fl.from_torch(module)
    assert module.training
    assert all(
        value.dtype == torch.float32 and torch.equal(value, before[name])
        for name, value in module.state_dict().items()
    )
    x = np.random.default_rng(1).standard_normal((5, K)).astype(np.float32)
    with torch.no_grad():
        right = module.double().eval()(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(net(x), right, rtol=1e-4, atol=1e-5)


def test_torch_with_a_softplus_by_hand():
    torch = pytest.importorskip("torch")

    class Softplus(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(K, 4)

        def forward(self, x):
            return torch.log(1 + torch.exp(self.fc(x)))

    module = Softplus()
    with torch.no_grad():
        module.fc.weight.mul_(500)
    net = fl.from_torch(module)
    x = np.random.default_rng(1).standard_normal((5, K)).astype(np.float32)
    with torch.no_grad():
        right = module.double()(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(net(x), right, rtol=1e-5, atol=1e-15)


def test_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    w = (np.random.default_rng(0).standard_normal((K, N)) * 1e22).astype(np.float32)
    ones = np.ones(N, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["z"]),
            helper.make_node("LayerNormalization", ["z", "s"], ["y"], epsilon=1e-5),
        ],
        "overflows",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["m", K])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["m", N])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(ones, "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    net = fl.load(tmp_path / "model.onnx")
    x = np.random.default_rng(1).standard_normal((5, K)).astype(np.float32)
    z = x.astype(float) @ w.astype(float)
    right = (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)
    np.testing.assert_allclose(net(x), right, rtol=1e-4, atol=1e-5)
