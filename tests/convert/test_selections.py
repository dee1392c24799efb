"""Activations written with conditions, as piecewise linear functions, or in stable forms."""

from __future__ import annotations

import numpy as np
import pytest

import fastlayer as fl
from fastlayer.convert import _recognise, _views
from fastlayer.convert.onnx import from_onnx
from fastlayer.errors import ConversionError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
from onnx_models import BACK, DENSE, WEIGHTS, check, integers, judge, make, number

nn, F = torch.nn, torch.nn.functional
ACT = fl.Activation
SLOPES = np.array([0.1, 0.2, 0.3, 0.05, 0.4, 0.25])
NUMBERS = {
    "zero": 0, "tenth": 0.1, "fifth": 0.2, "p4": 0.4, "half": 0.5, "p6": 0.6, "p7": 0.7, "one": 1,
    "two": 2, "three": 3, "six": 6, "t20": 20, "m1": -1, "m2": -2, "m3": -3, "m05": -0.5,
    "alpha": 1.6732632423543772, "scale": 1.0507009873554805, "slopes": SLOPES, "falls": -SLOPES,
    "near": 1.01, "zeros": np.zeros(6), "tenths": np.full(6, np.float32(0.1)),
}  # fmt: skip
LEAKY = ACT("leaky_relu", negative_slope=0.2)
ELU = ACT("elu", alpha=0.7)
PRELU = ACT("prelu", weight=SLOPES)
ABS = ACT("leaky_relu", negative_slope=-1.0)
SOFTPLUS = ACT("softplus", threshold=np.inf)
EXPM1 = "e = Exp(h)\nm = Sub(e, one)\n"
STABLE = "d = Abs(h)\nn = Neg(d)\ne = Exp(n)\np = Add(e, one)\nl = Log(p)\n"
LARGEST = "m = ReduceMax<axes=[-1]>(h)\ns = Sub(h, m)\ne = Exp(s)\nt = ReduceSum(e, last)\n"

# What a of h is, and the activation that it is. TYPE is that of the network.
ONNX = {
    "leaky, >": ("g = Greater(h, zero)\nr = Mul(fifth, h)\na = Where(g, h, r)", LEAKY),
    "leaky, >=": ("g = GreaterOrEqual(h, zero)\nr = Mul(h, fifth)\na = Where(g, h, r)", LEAKY),
    "leaky, <": ("g = Less(h, zero)\nr = Mul(fifth, h)\na = Where(g, r, h)", LEAKY),
    "leaky, not <=": (
        "g = LessOrEqual(h, zero)\nn = Not(g)\nr = Mul(fifth, h)\na = Where(n, h, r)",
        LEAKY,
    ),
    "leaky, constant first": ("g = Less(zero, h)\nr = Mul(fifth, h)\na = Where(g, h, r)", LEAKY),
    "leaky, masks": (
        ("g = Greater(h, zero)\nf = Cast<to=TYPE>(g)\nn = Sub(one, f)\np = Mul(h, f)\n"
        "q = Mul(h, n)\nr = Mul(q, fifth)\na = Add(p, r)"),
        LEAKY,
    ),
    "leaky, a vector of zeros": (
        "g = Greater(h, zeros)\nr = Mul(fifth, h)\na = Where(g, h, r)",
        LEAKY,
    ),
    "threshold, vectors of one number": (
        "g = Greater(h, tenths)\na = Where(g, h, zeros)",
        ACT("threshold", threshold=np.float32(0.1), value=0.0),
    ),
    "hardshrink, a mask cast twice": (
        (
            "g = Greater(h, half)\nl = Less(h, m05)\nk = Cast<to=9>(g)\nm = Cast<to=9>(l)\n"
            "o = Or(k, m)\na = Where(o, h, zero)"
        ),
        ACT("hardshrink"),
    ),
    "softshrink, zeros of h": (
        (
            "d = Abs(h)\ng = Greater(d, fifth)\ns = Sign(h)\nk = Mul(s, fifth)\nm = Sub(h, k)\n"
            "o = Mul(h, zero)\na = Where(g, m, o)"
        ),
        ACT("softshrink", lambd=0.2),
    ),
    "softplus, beta": (
        "k = Mul(h, two)\ns = Softplus(k)\nr = Div(s, two)\ng = Greater(k, t20)\na = Where(g, h, r)",
        ACT("softplus", beta=2.0),
    ),
    "leaky, Max": ("r = Mul(fifth, h)\na = Max(h, r)", LEAKY),
    "leaky, Min": ("r = Mul(two, h)\na = Min(h, r)", ACT("leaky_relu", negative_slope=2.0)),
    "leaky, |h|": ("d = Abs(h)\nk = Mul(p6, h)\nl = Mul(p4, d)\na = Add(k, l)", LEAKY),
    "leaky, rectifiers": (
        "p = Relu(h)\nn = Neg(h)\nq = Relu(n)\nr = Mul(fifth, q)\na = Sub(p, r)",
        LEAKY,
    ),
    "prelu, Where": ("g = Greater(h, zero)\nr = Mul(slopes, h)\na = Where(g, h, r)", PRELU),
    "prelu, rectifiers": (
        "p = Relu(h)\nn = Neg(h)\nq = Relu(n)\nr = Mul(falls, q)\na = Add(p, r)",
        PRELU,
    ),
    "prelu, Min": ("p = Relu(h)\nn = Min(h, zero)\nr = Mul(slopes, n)\na = Add(p, r)", PRELU),
    "prelu, Max": ("r = Mul(slopes, h)\na = Max(h, r)", PRELU),
    "abs": ("a = Abs(h)", ABS),
    "abs, Max": ("n = Neg(h)\na = Max(h, n)", ABS),
    "abs, Sign": ("s = Sign(h)\na = Mul(s, h)", ABS),
    "relu, Where": ("g = Greater(h, zero)\na = Where(g, h, zero)", ACT("relu")),
    "relu, mask": ("g = Greater(h, zero)\nf = Cast<to=TYPE>(g)\na = Mul(h, f)", ACT("relu")),
    "relu, |h|": ("d = Abs(h)\nk = Add(h, d)\na = Mul(k, half)", ACT("relu")),
    "relu6, Where": ("r = Relu(h)\ng = Greater(r, six)\na = Where(g, six, r)", ACT("relu6")),
    "hardtanh": (
        "g = Greater(h, one)\nl = Less(h, m1)\nt = Where(g, one, h)\na = Where(l, m1, t)",
        ACT("hardtanh"),
    ),
    "hardtanh, And": (
        "g = Less(h, one)\nl = Greater(h, m1)\ni = And(g, l)\ns = Sign(h)\na = Where(i, h, s)",
        ACT("hardtanh"),
    ),
    "hardsigmoid": (
        ("d = Div(h, six)\ns = Add(d, half)\ng = Greater(h, three)\nl = Less(h, m3)\n"
        "t = Where(g, one, s)\na = Where(l, zero, t)"),
        ACT("hardsigmoid"),
    ),
    "hardswish": (
        "s = Add(h, three)\nr = Relu(s)\nm = Min(r, six)\nt = Mul(h, m)\na = Div(t, six)",
        ACT("hardswish"),
    ),
    "threshold": (
        "g = Greater(h, half)\na = Where(g, h, tenth)",
        ACT("threshold", threshold=0.5, value=0.1),
    ),
    "hardshrink": (
        "d = Abs(h)\ng = Greater(d, half)\na = Where(g, h, zero)",
        ACT("hardshrink", lambd=0.5),
    ),
    "hardshrink, Or": (
        "g = Greater(h, half)\nl = Less(h, m05)\no = Or(g, l)\na = Where(o, h, zero)",
        ACT("hardshrink", lambd=0.5),
    ),
    "softshrink": (
        "d = Abs(h)\nk = Sub(d, half)\nr = Relu(k)\ns = Sign(h)\na = Mul(s, r)",
        ACT("softshrink", lambd=0.5),
    ),
    "softshrink, rectifiers": (
        "s = Sub(h, half)\nr = Relu(s)\nn = Neg(h)\nt = Sub(n, half)\nu = Relu(t)\na = Sub(r, u)",
        ACT("softshrink", lambd=0.5),
    ),
    "elu, Where": (EXPM1 + "t = Mul(p7, m)\ng = Greater(h, zero)\na = Where(g, h, t)", ELU),
    "elu, Exp of Min": (
        ("k = Min(h, zero)\ne = Exp(k)\nm = Sub(e, one)\nt = Mul(p7, m)\np = Max(h, zero)\n"
        "a = Add(p, t)"),
        ELU,
    ),
    "elu, Min of Exp": (EXPM1 + "t = Mul(p7, m)\nu = Min(t, zero)\np = Relu(h)\na = Add(p, u)", ELU),
    "celu": (
        ("d = Div(h, p7)\ne = Exp(d)\nm = Sub(e, one)\nt = Mul(p7, m)\nu = Min(t, zero)\n"
        "p = Relu(h)\na = Add(p, u)"),
        ACT("celu", alpha=0.7),
    ),
    "selu": (
        EXPM1 + "t = Mul(alpha, m)\ng = Greater(h, zero)\nk = Where(g, h, t)\na = Mul(k, scale)",
        ACT("selu"),
    ),
    "softplus, threshold": (
        "s = Softplus(h)\ng = Greater(h, t20)\na = Where(g, h, s)",
        ACT("softplus"),
    ),
    "softplus, by hand": (
        "e = Exp(h)\np = Add(e, one)\ns = Log(p)\ng = Greater(h, t20)\na = Where(g, h, s)",
        ACT("softplus"),
    ),
    "softplus, stable": (STABLE + "r = Relu(h)\na = Add(r, l)", SOFTPLUS),
    "log sigmoid, stable": (STABLE + "r = Min(h, zero)\na = Sub(r, l)", ACT("log_sigmoid")),
    "mish": (
        "s = Softplus(h)\ng = Greater(h, t20)\nk = Where(g, h, s)\nt = Tanh(k)\na = Mul(h, t)",
        ACT("mish"),
    ),
    "mish, one Exp": (
        ("e = Exp(h)\nf = Mul(e, e)\ng = Mul(two, e)\nn = Add(f, g)\nd = Add(n, two)\nq = Div(n, d)\n"
        "a = Mul(h, q)"),
        ACT("mish"),
    ),
    "sigmoid, stable": (
        ("n = Neg(h)\ne = Exp(n)\np = Add(e, one)\nr = Reciprocal(p)\nf = Exp(h)\nq = Add(f, one)\n"
        "s = Div(f, q)\ng = GreaterOrEqual(h, zero)\na = Where(g, r, s)"),
        ACT("sigmoid"),
    ),
    "tanh": (
        "f = Exp(h)\nn = Neg(h)\ne = Exp(n)\np = Sub(f, e)\nq = Add(f, e)\na = Div(p, q)",
        ACT("tanh"),
    ),
    "tanh, one Exp": (
        "t = Mul(h, m2)\ne = Exp(t)\np = Sub(one, e)\nq = Add(one, e)\na = Div(p, q)",
        ACT("tanh"),
    ),
    "softsign": ("d = Abs(h)\nk = Add(d, one)\na = Div(h, k)", ACT("softsign")),
    "softmax": (LARGEST + "a = Div(e, t)", ACT("softmax")),
    "softmax, plain": ("e = Exp(h)\nt = ReduceSum(e, last)\na = Div(e, t)", ACT("softmax")),
    "log softmax": (LARGEST + "l = Log(t)\na = Sub(s, l)", ACT("log_softmax")),
    "log softmax, one sum": (
        LARGEST + "l = Log(t)\nk = Add(l, m)\na = Sub(h, k)",
        ACT("log_softmax"),
    ),
    "log softmax, ReduceLogSumExp": (
        "m = ReduceLogSumExp<axes=[-1]>(h)\na = Sub(h, m)",
        ACT("log_softmax"),
    ),
}  # fmt: skip


def onnx_model(body, dtype=np.float32):
    body = body.replace("TYPE", "1" if dtype == np.float32 else "11")
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {n: np.array(v, dtype) for n, v in NUMBERS.items() if n in words}
    if "last" in words:
        used["last"] = integers(-1)
    return make(f"{DENSE}{body}{BACK}", 17, dtype, **WEIGHTS, **used)


def assert_is(net, expected, eps):
    assert [type(part).__name__ for part in net] == ["Layer", "Layer"], net
    found = net[0].activation
    assert found.name == expected.name, net
    for name, value in expected.parameters.items():
        given = found.parameters[name]
        if isinstance(value, str):
            assert given == value
        else:
            np.testing.assert_allclose(given, value, rtol=8 * eps, atol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ONNX)
def test_onnx(name, dtype):
    body, expected = ONNX[name]
    net = check(onnx_model(body, dtype))
    assert_is(net, expected, np.finfo(dtype).eps)


# One number, sign or side is another: none of them may be taken for the activation.
NEAR = {
    "leaky at 1": ("g = Greater(h, one)\nr = Mul(fifth, h)\na = Where(g, h, r)", "leaky_relu"),
    "a step for each feature": ("s = Sign(h)\na = Mul(s, slopes)", "threshold"),
    "a step that is moved": ("s = Sign(h)\na = Add(s, slopes)", "threshold"),
    "relu at 1": ("g = Greater(h, one)\na = Where(g, h, zero)", "relu"),
    "elu that jumps": (
        "e = Exp(h)\nm = Sub(e, near)\ng = Greater(h, zero)\na = Where(g, h, m)",
        "elu",
    ),
    "elu at 1": (EXPM1 + "g = Greater(h, one)\na = Where(g, h, m)", "elu"),
    "celu of other numbers": (
        (
            "d = Div(h, p7)\ne = Exp(d)\nm = Sub(e, one)\nt = Mul(p6, m)\nu = Min(t, zero)\n"
            "p = Relu(h)\na = Add(p, u)"
        ),
        "celu",
    ),
    "selu": (
        EXPM1 + "k = Mul(alpha, m)\nt = Mul(k, near)\ng = Greater(h, zero)\nu = Where(g, h, t)\n"
        "a = Mul(u, scale)",
        "selu",
    ),
    "softplus": (STABLE.replace("one", "near") + "r = Relu(h)\na = Add(r, l)", "softplus"),
    "softplus that jumps": ("s = Softplus(h)\ng = Less(h, half)\na = Where(g, h, s)", "softplus"),
    "mish from 1 on": (
        "s = Softplus(h)\ng = Greater(h, one)\nk = Where(g, h, s)\nt = Tanh(k)\na = Mul(h, t)",
        "mish",
    ),
    "tanh": (
        "t = Mul(h, m2)\ne = Exp(t)\np = Sub(one, e)\nq = Add(near, e)\na = Div(p, q)",
        "tanh",
    ),
    "sigmoid of the wrong sides": (
        (
            "n = Neg(h)\ne = Exp(n)\np = Add(e, one)\nr = Reciprocal(p)\nf = Exp(h)\nq = Add(f, near)\n"
            "s = Div(f, q)\ng = GreaterOrEqual(h, zero)\na = Where(g, r, s)"
        ),
        "sigmoid",
    ),
    "hardshrink of two numbers": (
        "g = Greater(h, half)\nl = Less(h, m1)\no = Or(g, l)\na = Where(o, h, zero)",
        "hardshrink",
    ),
    "hardswish": (
        (
            "s = Add(h, three)\nr = Relu(s)\nm = Min(r, six)\nt = Mul(h, m)\nu = Div(t, six)\n"
            "a = Mul(u, near)"
        ),
        "hardswish",
    ),
    "softmax of halves": (
        (
            "m = ReduceMax<axes=[-1]>(h)\ns = Sub(h, m)\ne = Exp(s)\nt = ReduceSum(e, last)\n"
            "k = Mul(t, near)\na = Div(e, k)"
        ),
        "softmax",
    ),
    "softmax, half of the largest": (
        (
            "m = ReduceMax<axes=[-1]>(h)\nk = Mul(m, half)\ns = Sub(h, k)\ne = Exp(s)\n"
            "f = Exp(h)\nt = ReduceSum(f, last)\na = Div(e, t)"
        ),
        "softmax",
    ),
}


# What is near something else that there is.
OTHERS = {"relu at 1", "celu of other numbers", "selu", "mish from 1 on", "hardswish"}


@pytest.mark.parametrize("name", NEAR)
def test_near_misses(name):
    body, activation = NEAR[name]
    model = onnx_model(body)
    if name in OTHERS:
        net = check(model)
        assert len(net) > 2 or net[0].activation.name != activation, net
        return
    with pytest.raises(ConversionError, match="nothing for it"):
        from_onnx(model)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
@pytest.mark.parametrize("edge", [0.3, 0.5, -1.7, 0.0])
def test_the_threshold_itself(op, edge, dtype):
    t = np.array(edge, dtype)
    sides = "x, v" if op.startswith("Greater") else "v, x"
    model = make(f"g = {op}(x, t)\ny = Where(g, {sides})", 17, dtype, t=t, v=np.array(7.0, dtype))
    net = from_onnx(model)
    assert net[0].name == "threshold"
    x = np.array([np.nextafter(t, dtype(-9)), t, np.nextafter(t, dtype(9)), -8.0, 8.0], dtype)
    rows = np.tile(x, (2, 1))[:, :4]
    np.testing.assert_array_equal(net(rows), judge(model)(rows))


@pytest.mark.parametrize("op", ["Greater", "GreaterOrEqual"])
def test_the_ends_of_hardshrink(op):
    model = make(f"d = Abs(x)\ng = {op}(d, t)\ny = Where(g, x, z)", t=number(0.3), z=number(0))
    net = from_onnx(model)
    assert net[0].name == "hardshrink"
    t = np.float32(0.3)
    x = np.array(
        [t, np.nextafter(t, np.float32(0)), np.nextafter(t, np.float32(1)), 0.0], np.float32
    )
    rows = np.stack([x, -x])
    np.testing.assert_array_equal(net(rows), judge(model)(rows))


LOW, HIGH = -np.array([1, 1, 0.5, 0.5, 0.75, 0.25]), np.array([1, 1, 0.5, 2, 0.75, 0.25])
CLIPS = {
    "both": "l = Min(h, high)\na = Max(l, low)",
    "one number": "l = Relu(h)\na = Min(l, high)",
    "below": "a = Max(h, low)",
    "Where": "g = Greater(h, high)\nl = Where(g, high, h)\nk = Less(l, low)\na = Where(k, low, l)",
    "a line": "k = Mul(h, half)\nl = Min(k, high)\nm = Max(l, low)\nn = Sub(h, h)\na = Add(m, n)",
    "bounds that cross": "l = Min(h, low)\na = Max(l, high)",
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CLIPS)
def test_clips_of_each_feature(name, dtype):
    used = {"high": HIGH.astype(dtype), "low": LOW.astype(dtype), "half": np.array(0.5, dtype)}
    used = {k: v for k, v in used.items() if k in CLIPS[name]}
    net = check(make(f"{DENSE}{CLIPS[name]}{BACK}", 17, dtype, **WEIGHTS, **used))
    if name in ("both", "one number", "below", "Where"):
        assert sum(isinstance(part, fl.Concat) for part in net) == 1, net


@pytest.mark.parametrize("runs", [256, 257])
def test_clips_of_very_many_features(runs):
    high = np.repeat(np.arange(1, runs + 1), 2).astype(np.float32)
    model = make("y = Min(x, high)", shape=("N", 2 * runs), high=high)
    if runs > 256:
        with pytest.raises(ConversionError, match="nothing for it"):
            from_onnx(model)
        return
    net = from_onnx(model)
    x = np.random.default_rng(0).normal(size=(5, 2 * runs)).astype(np.float32) * 200
    np.testing.assert_array_equal(net(x), np.minimum(x, high))


def test_equal_bounds_are_one_clip():
    net = check(make(f"{DENSE}a = Min(h, high){BACK}", **WEIGHTS, high=np.ones(6, np.float32)))
    assert net[0].activation == ACT("hardtanh", min_val=-np.inf, max_val=1.0)


def test_constant_conditions_choose_features():
    g, z = np.array([True, False] * 3), np.zeros(6, np.float32)
    model = make(f"{DENSE}a = Where(g, h, z){BACK}", **WEIGHTS, g=g, z=z)
    check(model)


NESTED = {
    "Where": ["g{i} = Greater({h}, c)", "{o} = Where(g{i}, {h}, d)"],
    "Max": ["g{i} = Mul({h}, c)", "{o} = Max(g{i}, {h})"],
    "Max of vectors": ["g{i} = Add({h}, v)", "{o} = Max(g{i}, {h})"],
    "Abs": ["g{i} = Abs({h})", "{o} = Sub(g{i}, c)"],
}


@pytest.mark.parametrize("kind", NESTED)
def test_growth_is_bounded(kind, monkeypatch):
    lines, h = [], "x"
    for i in range(3000):
        o = f"h{i}" if i < 2999 else "y"
        lines += [line.format(i=i, h=h, o=o) for line in NESTED[kind]]
        h = o
    numbers = {
        "c": np.array(0.25, np.float32),
        "d": np.array(0.5, np.float32),
        "v": np.linspace(0, 1, 4, dtype=np.float32),
    }
    used = {k: v for k, v in numbers.items() if f", {k})" in lines[0] + lines[1]}
    looked, resolve = [], _recognise.resolve
    monkeypatch.setattr(_recognise, "resolve", lambda *given: looked.append(1) or resolve(*given))
    with pytest.raises(ConversionError):
        from_onnx(make("\n".join(lines), **used))
    assert len(looked) <= _views.MOST_RESOLVED


class Between(nn.Module):
    """A function between two layers, and what it may use."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.function = function
        self.register_buffer("slopes", torch.from_numpy(SLOPES))
        self.register_buffer("high", torch.from_numpy(HIGH))
        self.register_buffer("mean", torch.linspace(-1, 1, 6))
        self.register_buffer("var", torch.linspace(0.5, 2, 6))

    def forward(self, x):
        return self.last(self.function(self, self.first(x)))


def softmax(m, h):
    e = torch.exp(h - h.max(-1, keepdim=True)[0])
    return e / e.sum(-1, keepdim=True)


TORCH = {
    "leaky, where": (lambda m, h: torch.where(h > 0, h, 0.2 * h), LEAKY),
    "leaky, method": (lambda m, h: h.where(h.ge(0), h * 0.2), LEAKY),
    "leaky, by names": (
        lambda m, h: torch.where(condition=torch.lt(h, 0), input=h * 0.2, other=h),
        LEAKY,
    ),
    "leaky, masks": (lambda m, h: (h > 0) * h + (h <= 0).float() * h * 0.2, LEAKY),
    "leaky, mask of its type": (
        lambda m, h: h * h.gt(0).to(h.dtype) + 0.2 * h * (~(h > 0)).type_as(h),
        LEAKY,
    ),
    "leaky, maximum": (lambda m, h: torch.maximum(h, 0.2 * h), LEAKY),
    "leaky, max": (lambda m, h: torch.max(0.2 * h, h), LEAKY),
    "leaky, rectifiers": (lambda m, h: F.relu(h) - 0.2 * F.relu(-h), LEAKY),
    "leaky, abs": (lambda m, h: 0.6 * h + 0.4 * h.abs(), LEAKY),
    "prelu": (lambda m, h: torch.where(h > 0, h, m.slopes * h), PRELU),
    "prelu, clamps": (lambda m, h: h.clamp(min=0) + m.slopes * h.clamp(max=0), PRELU),
    "abs": (lambda m, h: abs(h), ABS),
    "abs, absolute": (lambda m, h: torch.absolute(h), ABS),
    "abs, sign": (lambda m, h: h * torch.sign(h), ABS),
    "relu, mask": (lambda m, h: h * (h > 0).float(), ACT("relu")),
    "relu, zeros_like": (lambda m, h: torch.max(h, torch.zeros_like(h)), ACT("relu")),
    "relu, masked_fill": (lambda m, h: h.masked_fill(h < 0, 0.0), ACT("relu")),
    "relu, in place": (lambda m, h: h.clone().masked_fill_(h < 0, 0), ACT("relu")),
    "relu, clamp_": (lambda m, h: h.clamp_(min=0), ACT("relu")),
    "hardtanh, logic": (
        lambda m, h: torch.where((h < 1) & (h > -1), h, torch.sign(h)),
        ACT("hardtanh"),
    ),
    "threshold": (
        lambda m, h: torch.where(h > 0.3, h, torch.full_like(h, 0.1)),
        ACT("threshold", threshold=np.float32(0.3), value=np.float32(0.1)),
    ),
    "hardshrink": (
        lambda m, h: torch.where(torch.logical_or(h > 0.5, h < -0.5), h, 0.0),
        ACT("hardshrink", lambd=0.5),
    ),
    "softshrink": (
        lambda m, h: torch.sign(h) * F.relu(torch.abs(h) - 0.5),
        ACT("softshrink", lambd=0.5),
    ),
    "elu": (lambda m, h: torch.where(h > 0, h, 0.7 * torch.expm1(h)), ELU),
    "elu, clamps": (
        lambda m, h: F.relu(h) + torch.minimum(torch.zeros(()), 0.7 * (h.exp() - 1)),
        ELU,
    ),
    "softplus": (lambda m, h: torch.logaddexp(h, torch.zeros_like(h)), SOFTPLUS),
    "softplus, stable": (
        lambda m, h: h.clamp_min(0) + torch.log1p(torch.exp(-torch.abs(h))),
        SOFTPLUS,
    ),
    "softplus, threshold": (
        lambda m, h: torch.where(h > 20, h, torch.log(1 + torch.exp(h))),
        ACT("softplus"),
    ),
    "log sigmoid": (
        lambda m, h: torch.clamp(h, max=0) - torch.log1p(torch.exp(-h.abs())),
        ACT("log_sigmoid"),
    ),
    "sigmoid": (
        lambda m, h: torch.where(h >= 0, 1 / (1 + torch.exp(-h)), h.exp() / (1 + h.exp())),
        ACT("sigmoid"),
    ),
    "tanh": (
        lambda m, h: (h.exp() - torch.exp(-h)) / (h.exp() + torch.exp(-h)),
        ACT("tanh"),
    ),
    "softmax": (softmax, ACT("softmax")),
    "softmax, dim=1": (
        lambda m, h: h.exp() / torch.sum(h.exp(), dim=1, keepdim=True),
        ACT("softmax"),
    ),
    "log softmax": (
        lambda m, h: h - torch.logsumexp(h, dim=-1, keepdim=True),
        ACT("log_softmax"),
    ),
    "log of softmax": (lambda m, h: torch.log(torch.softmax(h, dim=-1)), ACT("log_softmax")),
    "log softmax, amax": (
        lambda m, h: h - h.amax(-1, True) - (h - h.amax(-1, True)).exp().sum(-1, True).log(),
        ACT("log_softmax"),
    ),
    "log softmax, values": (
        lambda m, h: torch.log(
            torch.exp(h - torch.max(h, -1, keepdim=True).values)
            / torch.exp(h - h.max(-1, True)[0]).sum(-1, True)
        ),
        ACT("log_softmax"),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name):
    function, expected = TORCH[name]
    torch.manual_seed(5)
    module = Between(function).float()
    net = fl.from_torch(module)
    assert net.verification.bound_share <= 1
    assert_is(net, expected, np.finfo(np.float32).eps)
    x = np.random.default_rng(7).standard_normal((50, 4)).astype(np.float32)
    expected = module(torch.from_numpy(x)).detach().numpy()
    assert np.abs(net(x) - expected).max() <= 50 * np.finfo(np.float32).eps


PARTS = {
    "squareplus": (lambda m, h: 0.5 * (h + torch.sqrt(h * h + 4)), ["BatchNorm", "Residual"]),
    "rms norm, weights first": (
        lambda m, h: m.high * h / torch.sqrt(torch.mean(h**2, dim=-1, keepdim=True) + 1e-6),
        ["RMSNorm"],
    ),
    "layer norm, weights first": (
        lambda m, h: (
            m.high
            * (h - h.mean(-1, True))
            / torch.sqrt(((h - h.mean(-1, True)) ** 2).mean(-1, True) + 1e-5)
        ),
        ["LayerNorm"],
    ),
    "squares of relu": (lambda m, h: torch.square(F.relu(h)), ["Multiply"]),
}


@pytest.mark.parametrize("name", PARTS)
def test_torch_parts(name):
    function, expected = PARTS[name]
    torch.manual_seed(5)
    net = fl.from_torch(Between(function).float())
    assert net.verification.bound_share <= 1
    between = {type(part).__name__ for part in net if not isinstance(part, fl.Layer)}
    assert between - {"Activation"} == set(expected), net


def test_torch_clips_of_each_feature():
    torch.manual_seed(5)
    for function in (
        lambda m, h: torch.max(torch.min(h, m.high), -m.high),
        lambda m, h: torch.clamp(h, -m.high, m.high),
    ):
        net = fl.from_torch(Between(function).float())
        assert sum(isinstance(part, fl.Concat) for part in net) == 1, net


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_mish_of_a_softplus_that_has_a_threshold(dtype):
    net = fl.from_torch(Between(lambda m, h: h * torch.tanh(F.softplus(h))).to(dtype))
    assert_is(net, ACT("mish"), 0)


class Linear(nn.Module):
    """Layers called as functions, with parameters of the module."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))
        self.bias = nn.Parameter(torch.randn(6))
        self.register_buffer("mean", torch.linspace(-1, 1, 6))
        self.register_buffer("var", torch.linspace(0.5, 2, 6))
        self.function = function

    def forward(self, x):
        return self.function(self, x)


LINEAR = {
    "addmm": (lambda m, x: torch.addmm(m.bias, x, m.weight), 1),
    "addmm, factors": (lambda m, x: torch.addmm(m.bias, x, m.weight, beta=0.5, alpha=2), 1),
    "linear": (lambda m, x: F.linear(x, m.weight.t(), m.bias), 1),
    "batch norm": (lambda m, x: F.batch_norm(x @ m.weight, m.mean, m.var, m.bias), 2),
    "batch norm, eps": (
        lambda m, x: F.batch_norm(x @ m.weight, m.mean, m.var, weight=m.bias, bias=m.mean, eps=0.1),
        2,
    ),
    "layer norm": (lambda m, x: F.layer_norm(x @ m.weight, (6,), m.bias, m.mean), 2),
    "rms norm": (lambda m, x: F.rms_norm(x @ m.weight, (6,), m.bias), 2),
}


@pytest.mark.parametrize("name", LINEAR)
def test_torch_layers_as_functions(name):
    torch.manual_seed(5)
    function, parts = LINEAR[name]
    net = fl.from_torch(Linear(function))
    assert len(net) == parts, net
    assert net.verification.bound_share <= 1


REFUSED = {
    "batch norm that trains": (
        lambda m, x: F.batch_norm(x @ m.weight, m.mean, m.var, training=True),
        "training",
    ),
    "normalize": (lambda m, x: F.normalize(x @ m.weight), "normalize"),
    "smallest of each row": (lambda m, x: x - x.min(-1, keepdim=True)[0], "min"),
    "places": (lambda m, x: x + x.max(-1, keepdim=True)[1], "combines its input with"),
    "largest of all": (lambda m, x: x - x.max(), "each row"),
    "equal": (lambda m, x: torch.where(x == 0, x, 1.0), "eq"),
    "a condition that nothing is": (lambda m, x: torch.where(x > 1, x, 0.2 * x), "where"),
    "a mask": (lambda m, x: (x > 0).float(), "gt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_torch_refused(name):
    function, why = REFUSED[name]
    with pytest.raises(ConversionError, match=why) as caught:
        fl.from_torch(Linear(function))
    assert "in its forward" in caught.value.place
