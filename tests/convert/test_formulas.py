"""Activations and norms written by hand, or taken apart by an exporter: known through every door."""

from __future__ import annotations

import numpy as np
import pytest

import fastlayer as fl
from fastlayer.errors import ConversionError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
from onnx_models import BACK, DENSE, WEIGHTS, check, check_by_hand, make, number

nn, F = torch.nn, torch.nn.functional
C = (2 / np.pi) ** 0.5


def by_hand(m, h):
    d = h - h.mean(-1, keepdim=True)
    return d / torch.sqrt((d**2).mean(-1, keepdim=True) + 1e-5) * m.gain + m.bias


# What a of h is: as nodes of ONNX, and as a function of PyTorch, which gets the module too.
FORMULAS = {
    "gelu": (
        "d = Div(h, r)\ne = Erf(d)\np = Add(e, one)\nm = Mul(h, p)\na = Mul(m, half)",
        lambda m, h: h * (1 + torch.erf(h / 2**0.5)) * 0.5,
    ),
    "gelu, half first": (
        "d = Mul(h, i)\ne = Erf(d)\np = Add(one, e)\nm = Mul(half, h)\na = Mul(m, p)",
        lambda m, h: 0.5 * h * (1 + (h * 0.5**0.5).erf()),
    ),
    "gelu tanh": (
        "q = Mul(h, h)\nt = Mul(h, q)\nu = Mul(k, t)\ns = Add(h, u)\nv1 = Mul(z, s)\nw1 = Tanh(v1)\nx1 = Add(one, w1)\ny1 = Mul(h, x1)\na = Mul(half, y1)",
        lambda m, h: 0.5 * h * (1 + torch.tanh(C * (h + 0.044715 * h * h * h))),
    ),
    "gelu tanh, power": (
        "t = Pow(h, three)\nu = Mul(t, k)\ns = Add(u, h)\nv1 = Mul(s, z)\nw1 = Tanh(v1)\nx1 = Add(w1, one)\ny1 = Mul(x1, half)\na = Mul(h, y1)",
        lambda m, h: h * ((C * (h.pow(3) * 0.044715 + h)).tanh() + 1) * 0.5,
    ),
    "silu": (
        "s = Sigmoid(h)\na = Mul(h, s)",
        lambda m, h: h * torch.sigmoid(h),
    ),
    "silu, by hand": (
        "n = Neg(h)\ne = Exp(n)\np = Add(e, one)\na = Div(h, p)",
        lambda m, h: h / (torch.exp(-h) + 1),
    ),
    "quick gelu": (
        "s0 = Mul(h, three)\ns = Sigmoid(s0)\na = Mul(s, h)",
        lambda m, h: h * torch.sigmoid(3 * h),
    ),
    "mish": (
        "s = Softplus(h)\nt = Tanh(s)\na = Mul(h, t)",
        lambda m, h: h * torch.tanh(F.softplus(h)),
    ),
    "mish, by hand": (
        "e = Exp(h)\np = Add(e, one)\ns = Log(p)\nt = Tanh(s)\na = Mul(t, h)",
        lambda m, h: torch.log(1 + h.exp()).tanh() * h,
    ),
    "hard swish": (
        "s = Add(h, three)\nc1 = Clip(s, zero, six)\nd = Div(c1, six)\na = Mul(h, d)",
        lambda m, h: h * (torch.clamp(h + 3, 0, 6) / 6),
    ),
    "hard swish, product first": (
        "s = Add(h, three)\nc1 = Clip(s, zero, six)\nm = Mul(h, c1)\na = Div(m, six)",
        lambda m, h: h * F.relu6(h + 3) / 6,
    ),
    "hard swish, hard sigmoid": (
        "s = HardSigmoid<alpha=0.16666667, beta=0.5>(h)\na = Mul(h, s)",
        lambda m, h: h * F.hardsigmoid(h),
    ),
    "hard sigmoid": (
        "s = Add(h, three)\nc1 = Clip(s, zero, six)\na = Div(c1, six)",
        lambda m, h: F.hardtanh(h + 3, 0, 6) / 6,
    ),
    "softplus": (
        "e = Exp(h)\np = Add(e, one)\na = Log(p)",
        lambda m, h: torch.log1p(torch.exp(h)),
    ),
    "softplus, beta": (
        "m = Mul(h, three)\ns = Softplus(m)\na = Div(s, three)",
        lambda m, h: F.softplus(h * 3) / 3,
    ),
    "log sigmoid": (
        "s = Sigmoid(h)\na = Log(s)",
        lambda m, h: torch.log(h.sigmoid()),
    ),
    "log sigmoid, softplus": (
        "n = Neg(h)\ns = Softplus(n)\na = Neg(s)",
        lambda m, h: -torch.log(torch.exp(-h) + 1),
    ),
    "sigmoid": (
        "n = Neg(h)\ne = Exp(n)\np = Add(one, e)\na = Reciprocal(p)",
        lambda m, h: 1 / (1 + torch.exp(-h)),
    ),
    "softsign": (
        "s = Abs(h)\np = Add(s, one)\na = Div(h, p)",
        lambda m, h: h / (1 + abs(h)),
    ),
    "relu, Max": (
        "a = Max(h, zero)",
        lambda m, h: torch.maximum(h, m.zero),
    ),
    "clip, Min and Max": (
        "s = Min(h, one)\na = Max(zero, s)",
        lambda m, h: torch.clamp_min(torch.minimum(m.one, h), 0),
    ),
    "a line": (
        "s = Sub(one, h)\nt = Div(s, three)\nu = Neg(t)\na = Mul(u, six)",
        lambda m, h: -((1 - h) / 3) * 6,
    ),
    "layer norm": (
        "m = ReduceMean<axes=[-1]>(h)\nd = Sub(h, m)\ns = Pow(d, two)\nn = ReduceMean<axes=[-1]>(s)\ne = Add(n, tiny)\nr1 = Sqrt(e)\nf = Div(d, r1)\ng = Mul(f, g0)\na = Add(g, h0)",
        by_hand,
    ),
    "rms norm": (
        "s = Mul(h, h)\nn = ReduceMean<axes=[-1]>(s)\ne = Add(n, tiny)\nr1 = Sqrt(e)\ni1 = Reciprocal(r1)\nf = Mul(h, i1)\na = Mul(f, g0)",
        lambda m, h: m.gain * (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-5)),
    ),
}
NUMBERS = {
    "zero": 0, "half": 0.5, "one": 1, "two": 2, "three": 3, "six": 6, "r": 2**0.5, "i": 0.5**0.5,
    "k": 0.044715, "z": (2 / np.pi) ** 0.5, "tiny": 1e-5,
}  # fmt: skip
ONE_PART = {"quick gelu", "a line", "layer norm", "rms norm", "softplus, beta", "relu, Max"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FORMULAS)
def test_onnx(name, dtype):
    text = f"{DENSE}{FORMULAS[name][0]}{BACK}"
    used = {n: number(v, dtype) for n, v in NUMBERS.items() if n in text}
    constants = {**WEIGHTS, "g0": (6,), "h0": (6,)} if "norm" in name else WEIGHTS
    model = make(text, 13, dtype, **constants, **used)
    if (name, dtype) == ("hard swish, hard sigmoid", np.float64):
        # 1/6 rounded to float32 is no hard swish: a product of branches.
        assert [type(part).__name__ for part in check(model)] == ["Layer", "Multiply", "Layer"]
        return
    erf = "Erf" in text and dtype == np.float64
    net = check_by_hand(model, "gelu") if erf else check(model)
    if name not in ONE_PART and "clip" not in name:
        assert len(net) == 2, net


class Between(nn.Module):
    """A function between two layers, and the parameters that it may use."""

    def __init__(self, function, width=6):
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 3)
        self.function = function
        self.gain = nn.Parameter(torch.linspace(0.5, 2, width))
        self.bias = nn.Parameter(torch.linspace(-1, 1, width))
        self.register_buffer("zero", torch.zeros(()))
        self.register_buffer("one", torch.ones(1))

    def forward(self, x):
        return self.last(self.function(self, self.first(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FORMULAS)
def test_torch(name, dtype):
    torch.manual_seed(3)
    module = Between(FORMULAS[name][1]).to(dtype)
    net = fl.from_torch(module)
    assert net.verification.bound_share <= 1
    if name not in ONE_PART and "clip" not in name:
        assert len(net) == 2, net


VARIANTS = {
    "layer norm of var": lambda m, h: (
        (h - h.mean(-1, keepdim=True)) / (h.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    ),
    "layer norm of squares": lambda m, h: (
        (h - h.mean(-1, True))
        * torch.rsqrt((h * h).mean(-1, True) - h.mean(-1, True).square() + 1e-5)
        * m.gain
    ),
    "rms norm and a shift": lambda m, h: (
        h / torch.sqrt(torch.mean(h.pow(2), dim=-1, keepdim=True) + 1e-6) * m.gain + m.bias
    ),
    "tanhshrink": lambda m, h: h - torch.tanh(h),
    "F.tanhshrink": lambda m, h: F.tanhshrink(h),
    "F.softshrink": lambda m, h: F.softshrink(h, 0.3),
    "nn.Softshrink": lambda m, h: h - torch.clamp(h, -0.5, 0.5),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_other_ways_to_write_them(name):
    net = fl.from_torch(Between(VARIANTS[name]))
    assert net.verification.bound_share <= 1
    kinds = [type(part).__name__ for part in net]
    assert ("norm" not in name) or any(kind.endswith("Norm") for kind in kinds)


def test_a_module_that_is_a_sum():
    net = fl.from_torch(nn.Sequential(nn.Linear(4, 6), nn.Tanhshrink(), nn.Linear(6, 3)))
    assert [type(part).__name__ for part in net] == ["Layer", "Residual", "Layer"]


REFUSED = {
    "mean of the batch": (lambda m, h: h - h.mean(0, keepdim=True), "each row"),
    "mean of all": (lambda m, h: h - h.mean(), "each row"),
    "unbiased": (lambda m, h: h / torch.sqrt(h.var(-1, keepdim=True)), "unbiased=False"),
    "half of a formula": (lambda m, h: 1 + torch.erf(h), "between the calls"),
    "a power": (lambda m, h: 2**h, "between the calls"),
    "two arrays": (lambda m, h: torch.maximum(h, m.last(h)), "adds, multiplies"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    function, why = REFUSED[name]
    with pytest.raises(ConversionError, match=why) as caught:
        fl.from_torch(Between(function, 3))
    assert "in its forward" in caught.value.place
