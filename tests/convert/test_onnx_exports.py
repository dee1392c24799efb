"""from_onnx: whole models that PyTorch exported, judged by ONNX Runtime or by PyTorch."""

import io
import warnings
from itertools import pairwise

import numpy as np
import pytest

from fastlayer.convert._prove import prove
from fastlayer.convert.onnx import from_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import check


def mlp(torch, *hidden, act="ReLU", out=10):
    nn = torch.nn
    sizes = [64, *hidden, out]
    layers = []
    for k, n in pairwise(sizes[:-1]):
        layers += [nn.Linear(k, n), getattr(nn, act)()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], out))


def _norms(torch):
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 16),
        nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 10), nn.LogSoftmax(1),
    )  # fmt: skip


def _view(torch):
    class View(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp(torch, 32)

        def forward(self, x):
            return self.inner(x.view(x.size(0), -1))

    return View()


def _residual(torch):
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(64, 96), torch.nn.Linear(96, 64)
            self.norm = torch.nn.LayerNorm(64)

        def forward(self, x):
            return x + self.b(torch.nn.functional.silu(self.a(self.norm(x))))

    return torch.nn.Sequential(Block(), Block(), torch.nn.Linear(64, 10))


def _scaled(torch):
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp(torch, 32)
            self.register_buffer("mean", torch.linspace(0, 1, 64))
            self.register_buffer("std", torch.linspace(0.5, 2, 64))

        def forward(self, x):
            return torch.softmax(self.inner((x - self.mean) / self.std), dim=-1)

    return Scaled()


ARCHITECTURES = {
    "one layer": lambda t: mlp(t),
    "relu": lambda t: mlp(t, 48),
    "deep": lambda t: mlp(t, *[24] * 12, act="Tanh"),
    "sigmoid": lambda t: mlp(t, 16, 16, act="Sigmoid"),
    "gelu": lambda t: mlp(t, 32, 16, act="GELU"),
    "silu": lambda t: mlp(t, 32, 16, act="SiLU"),
    "mish": lambda t: mlp(t, 32, 16, act="Mish"),
    "hard swish": lambda t: mlp(t, 32, 16, act="Hardswish"),
    "elu": lambda t: mlp(t, 32, 16, act="ELU"),
    "selu": lambda t: mlp(t, 32, 16, act="SELU"),
    "softplus": lambda t: mlp(t, 32, 16, act="Softplus"),
    "leaky relu": lambda t: mlp(t, 32, 16, act="LeakyReLU"),
    "prelu": lambda t: mlp(t, 32, 16, act="PReLU"),
    "relu6": lambda t: mlp(t, 32, 16, act="ReLU6"),
    "softsign": lambda t: mlp(t, 32, 16, act="Softsign"),
    "norms": _norms,
    "view": _view,
    "residual blocks": _residual,
    "scaled": _scaled,
}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def exported(torch, module, opset, frozen, dtype):
    module = module.eval().to(getattr(torch, dtype))
    x = torch.zeros(2, 64, dtype=getattr(torch, dtype))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the old one
        torch.onnx.export(
            module, (x,), file, opset_version=opset, dynamo=False, input_names=["x"],
            output_names=["y"], dynamic_axes=None if frozen else {"x": {0: "N"}},
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


@pytest.mark.parametrize("opset", [11, 17, 20])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_exported_from_torch(torch, name, opset):
    torch.manual_seed(0)
    model = exported(torch, ARCHITECTURES[name](torch), opset, opset == 11, "float32")
    check(model)


@pytest.mark.parametrize("name", ["relu", "deep", "sigmoid", "gelu", "silu", "mish", "scaled"])
def test_exported_from_torch_in_float64(torch, name):
    torch.manual_seed(0)
    module = ARCHITECTURES[name](torch)
    net = from_onnx(exported(torch, module, 17, False, "float64"))
    assert net.dtype == np.float64

    def run(x):  # torch itself: the judges know erf in float32 only
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()

    prove(net, run, source="torch")


def test_residual_blocks_in_float64(torch):
    torch.manual_seed(0)
    module = ARCHITECTURES["residual blocks"](torch)
    assert check(exported(torch, module, 17, False, "float64")).dtype == np.float64
