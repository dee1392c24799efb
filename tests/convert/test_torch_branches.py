"""Forwards with branches: several inputs and outputs, joins, slices, against PyTorch."""

from collections import namedtuple

import numpy as np
import pytest

import fastlayer as fl

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn import functional as F

Pair = namedtuple("Pair", ["mean", "value"])  # a class that torch.fx can follow
R = torch.relu


class Parts(nn.Module):
    def __init__(self, function):
        super().__init__()
        torch.manual_seed(3)
        self.body, self.policy, self.value = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 1)
        self.state, self.middle, self.same = nn.Linear(4, 8), nn.Linear(10, 8), nn.Linear(6, 6)
        self.log_std = nn.Parameter(torch.tensor([-1.0, -2.0, 0.5]))
        self.register_buffer("order", torch.tensor([2, 0, 1]))
        self.function = function


class One(Parts):
    def forward(self, x):
        return self.function(self, x)


class Two(Parts):
    def forward(self, state, action):
        return self.function(self, state, action)


def check(module, **options):
    """Return the network of a module; it gives what the module does for each input apart."""
    module.eval()
    net = fl.from_torch(module, **options)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((7, 6)).astype(np.float32)
    inputs = (x[:, :4], x[:, 4:]) if isinstance(module, Two) else (x,)
    with torch.no_grad():
        wanted = module(*map(torch.from_numpy, inputs))
    given = net(*inputs)
    if isinstance(wanted, dict):
        assert net.output_names == tuple(wanted)
        wanted = tuple(wanted.values())
    if not isinstance(wanted, tuple | list):
        wanted, given = (wanted,), (given,)
    assert len(given) == len(wanted)
    for ours, theirs in zip(given, wanted, strict=True):
        full = np.broadcast_to(theirs.detach().numpy(), ours.shape)
        np.testing.assert_allclose(ours, full, rtol=2e-5, atol=2e-5)
    assert net.verification.bound_share <= 1
    return net


def heads(m, x):
    h = R(m.body(x))
    return m.policy(h), m.value(h)


def spread(m, x):
    y = m.policy(m.body(x))
    return y, m.log_std.expand_as(y)


OUTPUTS = {
    "tuple": (heads, ("output_0", "output_1")),
    "list": (lambda m, x: [m.policy(m.body(x)), m.body(x)], ("output_0", "output_1")),
    "one": (lambda m, x: (m.policy(m.body(x)),), ("output_0",)),
    "dictionary": (
        lambda m, x: {"mean": m.policy(m.body(x)), "std": m.log_std.exp()},
        ("mean", "std"),
    ),
    "named tuple": (lambda m, x: Pair(*heads(m, x)), ("mean", "value")),
    "constant spread": (spread, ("output_0", "output_1")),
    "constant expanded": (
        lambda m, x: (m.policy(m.body(x)), m.log_std.expand(x.shape[0], -1)),
        ("output_0", "output_1"),
    ),
    "split": (lambda m, x: m.body(x).split([3, 5], -1), ("output_0", "output_1")),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_several_outputs(name):
    function, names = OUTPUTS[name]
    assert check(One(function)).output_names == names


def two_critics(m, x):
    return m.value(R(m.body(x))), m.value(torch.tanh(m.body(x)))


INPUTS = {
    "joined first": lambda m, s, a: m.value(R(m.body(torch.cat([s, a], 1)))),
    "joined first, last axis": lambda m, s, a: m.value(R(m.body(torch.cat((s, a), dim=-1)))),
    "joined by name": lambda m, s, a: m.value(R(m.body(torch.concat(tensors=[s, a], dim=-1)))),
    "hstack": lambda m, s, a: m.value(R(m.body(torch.hstack([s, a])))),
    "joined in the middle": lambda m, s, a: m.value(R(m.middle(torch.cat([R(m.state(s)), a], 1)))),
    "both": lambda m, s, a: m.value(
        R(m.middle(torch.cat([R(m.state(s)), a], 1))) + R(m.body(torch.cat([s, a], 1)))
    ),
    "two critics": lambda m, s, a: two_critics(m, torch.cat([s, a], 1)),
}


@pytest.mark.parametrize("name", INPUTS)
def test_several_inputs(name):
    module = Two(INPUTS[name])
    if name == "joined by name":
        with pytest.raises(fl.ConversionError, match="not a list of arrays"):
            fl.from_torch(module)
        return
    net = check(module)
    assert net.input_names == ("state", "action")
    given = check(module, inputs={"action": 2, "state": 4})
    assert given.input_names == ("state", "action")
    check(module, inputs=[4, 2])


def test_inputs_that_are_joined_first_may_have_any_features():
    """PyTorch looks at their sum alone, and so does the network."""
    net = check(Two(INPUTS["joined first"]))
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    for at in (1, 4, 5):
        assert net(x[:, :at], x[:, at:]).tobytes() == net(x).tobytes()
    with pytest.raises(ValueError, match=r"expected x of shape \(..., 6\), got \(3, 7\)"):
        net(x, x[:, :1])


def test_inputs_whose_features_nothing_tells():
    module = Two(lambda m, s, a: m.value(m.body(torch.cat([torch.tanh(s), a], 1))))
    with pytest.raises(fl.ConversionError, match="takes 2 inputs, state, action, and its layers"):
        fl.from_torch(module)
    check(module, inputs={"state": 4, "action": 2})  # the message's advice
    for wrong in ([6], {"s": 4, "a": 2}):
        with pytest.raises(fl.ConversionError, match="takes the inputs state, action, and inputs="):
            fl.from_torch(module, inputs=wrong)
    with pytest.raises(fl.ConversionError):
        fl.from_torch(module, inputs=[3, 2])


def duelling(m, x, dim):
    h = R(m.body(x))
    a = m.policy(h)
    return m.value(h) + (a - a.mean(dim, keepdim=True))


def activations(m, x):
    y = m.policy(m.body(x))
    return torch.cat([torch.tanh(y[:, :2]), torch.sigmoid(y[:, 2:])], 1)


def activations_last(m, x):
    y = m.policy(m.body(x))
    return torch.cat([y[..., :1].tanh(), y[..., 1:].exp()], -1)


def chunk(m, x):
    a, b = m.body(x).chunk(2, dim=-1)
    return a * torch.sigmoid(b)


def split(m, x):
    a, b = m.body(x).split(4, dim=1)
    return a - b


def highway(m, x):
    g = torch.sigmoid(m.same(x))
    return g * torch.tanh(m.same(x)) + (1 - g) * x


def centred(m, x):
    h = m.body(x)
    return h - h.mean(1, keepdim=True)


JOINS = {
    "duelling": lambda m, x: (
        m.value(R(m.body(x))) + m.policy(R(m.body(x))) - m.policy(R(m.body(x))).mean(1, True)
    ),
    "duelling, axis 1": lambda m, x: duelling(m, x, 1),
    "duelling, last axis": lambda m, x: duelling(m, x, -1),
    "an activation for each": activations,
    "an activation for each, last axis": activations_last,
    "chunk": chunk,
    "split": split,
    "highway": highway,
    "centred": centred,
    "narrow": lambda m, x: m.body(x).narrow(1, 2, 3),
    "index_select": lambda m, x: m.policy(m.body(x)).index_select(1, m.order),
    "a list of features": lambda m, x: m.body(x)[:, [3, 0, -1]],
    "every second": lambda m, x: m.body(x)[:, ::2],
    "glu": lambda m, x: F.glu(m.body(x)),
    "gate": lambda m, x: m.policy(m.body(x) * torch.sigmoid(m.body(x))),
    "square": lambda m, x: m.policy(m.body(x) ** 2),
    "torch.square": lambda m, x: torch.square(m.body(x)) * 2,
    "features of the input": lambda m, x: m.state(x[:, :4]),
    "all and some of the input": lambda m, x: m.state(x[:, :4]) + m.body(x),
    "beside its square": lambda m, x: m.policy(
        m.body(torch.cat([x[:, :3], (x * x)[:, 3:]], dim=1))
    ),
    "a constant beside": lambda m, x: torch.cat([m.body(x), m.log_std.expand(x.size(0), 3)], 1),
    "a mean": lambda m, x: m.body(x).mean(-1, keepdim=True),
    "a sum": lambda m, x: torch.tanh(m.body(x)).sum(-1, keepdim=True),
    "pairs of features": lambda m, x: (
        m.value(m.body(x)) + 0.5 * (m.body(x).sum(1, True) ** 2 - (m.body(x) ** 2).sum(1, True))
    ),
}


@pytest.mark.parametrize("name", JOINS)
def test_join(name):
    check(One(JOINS[name]))


def test_modules_of_pytorch_that_branch():
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    module = nn.Sequential(nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(fl.from_torch(module)(x), wanted, rtol=1e-5, atol=1e-6)


def test_duelling_heads_are_one_layer():
    for name in ("duelling, axis 1", "duelling, last axis"):
        assert [type(part).__name__ for part in check(One(JOINS[name]))] == ["Layer", "Layer"]


def test_what_outputs_have_in_common_is_computed_once():
    """Also with a constant between them, and where they do not stand beside each other."""

    def constant_between(m, x):
        h = R(m.body(x))
        return {"mean": m.policy(h), "std": m.log_std.exp(), "value": m.value(h)}

    net = check(One(constant_between))
    assert [type(part).__name__ for part in net] == ["Layer", "Concat"]

    def in_turns(m, x):
        h, g = R(m.body(x)), torch.tanh(m.same(x))
        return m.policy(h), m.same(g), m.value(h), torch.relu(g)

    net = check(One(in_turns))
    heads, order = net
    assert [len(branch) for branch in heads.branches] == [2, 2]
    assert repr(order) == "Concat([Slice(0, 3), Slice(4, 10), Slice(3, 4), Slice(10, 16)])"


def test_axis_1_is_the_features_of_rows_alone():
    net = check(One(JOINS["an activation for each"]))
    with pytest.raises(ValueError, match="along axis 1"):
        net(np.ones((2, 3, 6), np.float32))
    net = check(One(JOINS["an activation for each, last axis"]))
    assert net(np.ones((2, 3, 6), np.float32)).shape == (2, 3, 3)


ONE_FEATURE = {
    "duelling, unsqueezed": lambda m, h: m.value(h) + (a := m.policy(h)) - a.mean(1).unsqueeze(1),
    "duelling, expanded": lambda m, h: (
        m.value(h).expand(-1, 3)
        + ((a := m.policy(h)) - a.mean(1, keepdim=True).expand(h.size(0), 3))
    ),
    "duelling, expanded as": lambda m, h: (
        (v := m.value(h).expand_as(a := m.policy(h))) + a - a.mean(1)[:, None].expand_as(v)
    ),
    "products and their sum": lambda m, h: (m.policy(h) * m.log_std).sum(-1),
    "columns": lambda m, h: torch.stack(
        [torch.tanh((y := m.policy(h))[:, 0]), y[:, 1] * 2 + 1, y[..., 2].sigmoid()], dim=1
    ),
    "a gate": lambda m, h: torch.sigmoid(m.value(h).squeeze(1)).view(-1, 1) * m.policy(h),
    "as many": lambda m, h: m.same(m.value(h).expand(-1, 6)),
    "an einsum": lambda m, h: torch.einsum("oi,...i->...o", m.policy.weight, h),
    "an einsum of a vector": lambda m, h: torch.einsum("bi,i->b", h, m.value.weight[0]).tanh(),
    "with factors": lambda m, h: torch.add(
        m.policy(h), torch.sub(m.log_std, m.value(h), alpha=2), alpha=3
    ),
}


@pytest.mark.parametrize("name", ONE_FEATURE)
def test_single_features(name):
    def forward(m, x):
        y = ONE_FEATURE[name](m, R(m.body(x)))
        return y if y.ndim == 2 else y.unsqueeze(1)

    net = check(One(forward))
    if "duelling" in name:
        assert len(net) == 2  # the heads are one layer


REFUSED = {
    "samples": (lambda m, x: torch.cat([m.body(x), m.body(x)], 0), "stacks samples"),
    "another axis": (lambda m, x: torch.cat([m.body(x), m.body(x)], 2), "dim=2"),
    "rows": (lambda m, x: m.body(x)[0], "takes 0"),
    "some rows": (lambda m, x: m.body(x)[2:], "takes slice"),
    "a mask": (lambda m, x: m.body(x)[:, [True] * 8 + [9]], "of 8 features"),
    "too far": (lambda m, x: m.body(x)[:, 8], "takes 8 of 8 features"),
    "an odd half": (lambda m, x: F.glu(m.policy(m.body(x))), "halves 3 features"),
    "a matrix beside": (
        lambda m, x: torch.cat([m.body(x), m.middle.weight[:7]], 1), "expected one row",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    function, why = REFUSED[name]
    with pytest.raises(fl.ConversionError, match=why) as caught:
        fl.from_torch(One(function))
    assert "in its forward" in caught.value.place
