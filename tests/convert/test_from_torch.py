"""`from_torch`: modules and forwards of PyTorch, compared with PyTorch itself."""

import copy
import pickle
import subprocess
import sys
import warnings
from collections import OrderedDict
from contextlib import nullcontext

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import assert_round_trips

import fastlayer as fl
from fastlayer.convert._prove import prove
from fastlayer.convert._rounding import rounding_bound

torch = pytest.importorskip("torch")
import torch_asserts
from torch_asserts import body

nn, F = torch.nn, torch.nn.functional


def randomized(module, dtype=torch.float32):
    """Give every parameter and running statistic a value of its own; eval mode, in `dtype`."""
    generator = torch.Generator().manual_seed(7)
    module = module.to(dtype)
    with torch.no_grad():
        for name, t in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var"):
                t.uniform_(0.5, 2.0, generator=generator)
            elif t.is_floating_point():
                spread = t.shape[1] ** -0.5 if t.ndim == 2 else 0.5
                t.normal_(0.0, spread, generator=generator)
                if name.endswith("weight") and t.ndim == 1:
                    t.add_(1.0)
    return module.eval()


def run(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def assert_agree(net, module, x):
    """Equal to rounding: the bound is derived for each element, see `_rounding`."""
    ours, theirs = net(x), run(module, x)
    assert ours.dtype == theirs.dtype == net.dtype == x.dtype
    assert ours.shape == theirs.shape
    assert (np.abs(ours - theirs) <= rounding_bound(net, x)).all()


class Forward(nn.Module):
    """Layers of the same width, and a function of theirs as the forward."""

    def __init__(self, function, width=6, count=3):
        super().__init__()
        self.function = function
        self.fc = nn.ModuleList(nn.Linear(width, width) for _ in range(count))
        self.gain = nn.Parameter(torch.ones(width))
        self.table = nn.Parameter(torch.ones(width, 4))

    def forward(self, x):
        return self.function(self, x)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.body = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        return x + self.body(self.norm(x))


class Options(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x, scale=0.5, residual=True, mask=None):
        h = torch.relu(self.fc(x))
        if residual:
            h = h + x
        return h * scale if mask is None else h * mask


class TwiceTheSame(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(torch.tanh(self.fc(x)))


class OwnLinear(nn.Linear):
    """A subclass that keeps the forward."""


class DoubledLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def relu_in_place_before_the_sum(m, x):
    h = m.fc[0](x)
    y = m.fc[1](F.relu(h, inplace=True))
    return y + h  # h is what relu made of it


def relu_in_place_as_a_statement(m, x):
    h = m.fc[0](x)
    h.relu_()
    return m.fc[1](h)


class InputByName(nn.Module):
    """A forward whose only input has a default."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x=None):
        return torch.relu(self.fc(x))


def wrapped(x):
    return x


torch.fx.wrap("wrapped")


def residual_in_a_residual(m, x):
    h = m.fc[1](x)
    return x + (h + m.fc[2](h.sigmoid()))


def batched(m, x):
    x = x.view(x.size(0), -1)
    return m.fc[1](x.reshape(x.shape[0], -1).flatten(1).contiguous())


ARCHITECTURES = {
    "linear": lambda: nn.Linear(6, 4),
    "no bias": lambda: nn.Sequential(nn.Linear(6, 4, bias=False)),
    "mlp": lambda: nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3), nn.Softmax(dim=1)),
    "wide mlp": lambda: nn.Sequential(
        nn.Linear(300, 257), nn.Tanh(), nn.Linear(257, 65), nn.SiLU(), nn.Linear(65, 10)
    ),
    "ten layers": lambda: nn.Sequential(
        *(m for _ in range(10) for m in (nn.Linear(16, 16), nn.ELU()))
    ),
    "nested": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(6, 8), nn.ReLU()),
        nn.Sequential(nn.Sequential(nn.Linear(8, 8)), nn.Identity(), nn.LogSoftmax(-1)),
    ),
    "named children": lambda: nn.Sequential(
        OrderedDict(a=nn.Linear(6, 5), act=nn.Mish(), b=nn.Linear(5, 2))
    ),
    "dropout": lambda: nn.Sequential(
        nn.Dropout(0.5), nn.Linear(6, 6), nn.AlphaDropout(0.2), nn.SELU(), nn.Linear(6, 2)
    ),
    "flatten": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Sigmoid()),
    "batch norm after": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    ),
    "batch norm before": lambda: nn.Sequential(
        nn.BatchNorm1d(6), nn.Linear(6, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)
    ),
    "batch norm without weights": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8, eps=1e-3, affine=False), nn.Hardtanh(-2.0, 0.5)
    ),
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU()),
    "layer norm without weights": lambda: nn.Sequential(
        nn.LayerNorm((6,), eps=1e-3, elementwise_affine=False), nn.Linear(6, 8)
    ),
    "layer norm without bias": lambda: nn.Sequential(nn.LayerNorm(6, bias=False), nn.Linear(6, 8)),
    "rms norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 3)),
    "rms norm with eps": lambda: nn.Sequential(nn.RMSNorm([6], eps=1e-3), nn.Linear(6, 3)),
    "prelu": lambda: nn.Sequential(nn.Linear(6, 8), nn.PReLU(), nn.Linear(8, 3)),
    "prelu for each": lambda: nn.Sequential(nn.Linear(6, 8), nn.PReLU(8), nn.Linear(8, 3)),
    "softmin": lambda: nn.Sequential(nn.Linear(6, 8), nn.Softmin(dim=-1)),
    "transformer feed forward": lambda: nn.Sequential(nn.Linear(6, 16), Block(16), Block(16)),
    "subclass": lambda: nn.Sequential(OwnLinear(6, 4), nn.ReLU(), DoubledLinear(4, 3)),
    "options": Options,
    "shared layer": TwiceTheSame,
    "residual": lambda: Forward(lambda m, x: torch.relu(x + m.fc[0](x))),
    "residual of several": lambda: Forward(
        lambda m, x: m.fc[2](x + m.fc[1](F.relu(m.fc[0](x)))).tanh()
    ),
    "residual in a residual": lambda: Forward(residual_in_a_residual),
    "same skip twice": lambda: Forward(lambda m, x: (x + m.fc[0](x)) + x),
    "difference": lambda: Forward(lambda m, x: x - m.fc[0](x)),
    "doubled": lambda: Forward(lambda m, x: m.fc[0](x + x)),
    "functions": lambda: Forward(
        lambda m, x: F.log_softmax(m.fc[2](F.leaky_relu(m.fc[1](F.hardswish(m.fc[0](x))), 0.3)), 1)
    ),
    "methods": lambda: Forward(lambda m, x: m.fc[1](m.fc[0](x).relu()).softmax(dim=-1)),
    "functional weights": lambda: Forward(
        lambda m, x: F.linear(x @ m.table, m.table, bias=m.gain).clamp(min=0.0, max=2.0)
    ),
    "functional norms": lambda: Forward(
        lambda m, x: F.rms_norm(F.layer_norm(m.fc[0](x), (6,), m.gain), [6], eps=1e-5)
    ),
    "functional dropout": lambda: Forward(
        lambda m, x: m.fc[1](F.dropout(F.relu(m.fc[0](x)), 0.5, m.training))
    ),
    "constants": lambda: Forward(
        lambda m, x: (3.0 - m.fc[1]((x / 255 - 0.5) * m.gain) * m.gain.exp()) / m.gain.abs().add(1)
    ),
    "constant of a function": lambda: Forward(lambda m, x: m.fc[0](x) * torch.exp(m.gain)),
    "reversed difference": lambda: Forward(lambda m, x: torch.rsub(m.fc[0](x), m.gain)),
    "same dtype": lambda: Forward(lambda m, x: m.fc[1](m.fc[0](x).to(m.gain.dtype)), count=2),
    "input with a default": InputByName,
    "function with an underscore": lambda: Forward(
        lambda m, x: torch._softmax(m.fc[0](x), -1, False)
    ),
    "constant at the end": lambda: Forward(lambda m, x: 2 * m.fc[0](x).relu() + 1),
    "clamps": lambda: Forward(lambda m, x: torch.clamp_max(torch.clip(m.fc[0](x), -1), 0.5)),
    "batched": lambda: Forward(batched),
    "in place": lambda: Forward(relu_in_place_before_the_sum),
    "in place method": lambda: Forward(relu_in_place_as_a_statement),
}

ACTIVATIONS = {
    "ReLU": {},
    "LeakyReLU": {},
    "leaky with slope": {"negative_slope": 0.2},
    "RReLU": {"lower": 0.1, "upper": 0.3},
    "Threshold": {"threshold": 0, "value": 0},
    "threshold elsewhere": {"threshold": 0.4, "value": -7.0},
    "Hardshrink": {},
    "hardshrink 1": {"lambd": 1.0},
    "Softshrink": {},
    "softshrink 0": {"lambd": 0},
    "ReLU6": {},
    "Hardtanh": {"min_val": -0.5, "max_val": 2.0},
    "ELU": {"alpha": 0.7},
    "CELU": {"alpha": 1.3},
    "SELU": {},
    "GELU": {},
    "gelu tanh": {"approximate": "tanh"},
    "SiLU": {},
    "Mish": {},
    "Sigmoid": {},
    "LogSigmoid": {},
    "Hardsigmoid": {},
    "Hardswish": {},
    "Tanh": {},
    "Softplus": {},
    "softplus beta": {"beta": 2.0, "threshold": 3.0},
    "Softsign": {},
    "Softmax": {"dim": -1},
    "softmax 1": {"dim": 1},
    "LogSoftmax": {"dim": 1},
}
CLASSES = {
    "leaky with slope": "LeakyReLU",
    "threshold elsewhere": "Threshold",
    "hardshrink 1": "Hardshrink",
    "softshrink 0": "Softshrink",
    "gelu tanh": "GELU",
    "softplus beta": "Softplus",
    "softmax 1": "Softmax",
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(rng, name, dtype):
    module = randomized(ARCHITECTURES[name](), DTYPES[dtype])
    net = fl.from_torch(module)
    assert net.verification.bound_share <= 1
    assert fl.from_torch(module, verify=False).verification is None
    x = rng.standard_normal((33, net.in_features)).astype(dtype)
    assert_agree(net, module, x)
    assert_round_trips(net, x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(rng, name, dtype):
    activation = getattr(nn, CLASSES.get(name, name))(**ACTIVATIONS[name])
    module = randomized(
        nn.Sequential(nn.Linear(9, 17), activation, nn.Linear(17, 3)), DTYPES[dtype]
    )
    net = fl.from_torch(module)
    assert len(net) == 2  # the activation is part of its layer
    x = 3 * rng.standard_normal((33, 9)).astype(dtype)
    assert_agree(net, module, x)
    assert_round_trips(net, x)


# Not elementwise or along the features alone, or no activation of fastlayer's computes them.
WITHOUT_COUNTERPART = {
    "GLU", "MultiheadAttention", "Softmax2d",
}  # fmt: skip


def test_every_activation_of_torch_is_tried():
    there = set(nn.modules.activation.__all__)
    tried = {CLASSES.get(name, name) for name in ACTIVATIONS}
    tried |= {"PReLU", "Softmin", "Tanhshrink"}  # which are more than one step
    assert there - tried == WITHOUT_COUNTERPART & there


def test_module_in_training_mode(rng):
    module = randomized(
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    ).train()
    module[2].eval()
    before = copy.deepcopy(module.state_dict())
    net = fl.from_torch(module)
    assert [m.training for m in module.modules()] == [True, True, True, False, True]
    for name, t in module.state_dict().items():
        assert torch.equal(t, before[name])
    x = rng.standard_normal((5, 6)).astype(np.float32)
    assert_agree(net, module.eval(), x)


def test_weights_are_copied(rng):
    module = randomized(nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)))
    net = fl.from_torch(module)
    x = rng.standard_normal((5, 6)).astype(np.float32)
    before = net(x)
    with torch.no_grad():
        for t in module.parameters():
            t.zero_()
    assert_same_bits(net(x), before)


def test_what_cancels_in_a_folded_layer_is_rounding(dtype):
    """PyTorch rounds ``x + 1``; in weights that have it folded in, nothing of the 1 is left."""
    module = Forward(lambda m, x: m.fc[0](x + m.gain), count=1).to(DTYPES[dtype])
    with torch.no_grad():
        module.fc[0].weight -= module.fc[0].weight.mean(dim=1, keepdim=True)
        module.fc[0].bias.zero_()
    assert [type(part).__name__ for part in fl.from_torch(module)] == ["BatchNorm", "Layer"]
    w = module.fc[0].weight.detach().numpy()
    folded = fl.Network([fl.Layer.from_arrays(w, w.sum(axis=1, dtype=float), dtype=w.dtype)])
    with pytest.raises(fl.ConversionError, match="more than rounding"):
        prove(folded, lambda x: run(module, x), source="torch")


def test_features_far_from_zero_lose_no_accuracy(dtype):
    """Years: folded, 400 times the weights would go into the bias, and cancel there."""
    module = Forward(lambda m, x: m.fc[0]((x - 2010) / 5).tanh()).to(DTYPES[dtype])
    net = fl.from_torch(module)
    x = np.arange(1980, 2040).reshape(10, 6).astype(dtype)
    exact = run(module.double(), x.astype(np.float64))
    # differences are exact; six terms of size 6 and a tanh follow
    assert np.abs(net(x) - exact).max() <= 100 * np.finfo(dtype).eps


def test_the_proof_belongs_to_the_converted_network():
    net = fl.from_torch(randomized(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))))
    assert "share of the rounding bound" in str(net.verification)
    assert net.verification.samples >= 64
    others = net.copy(), copy.copy(net), pickle.loads(pickle.dumps(net)), net[:], net.astype("f8")
    assert [other.verification for other in others] == [None] * len(others)


def test_parametrized_weight(rng):
    module = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
    nn.utils.parametrizations.weight_norm(module[0])
    module = randomized(module)
    net = fl.from_torch(module)
    assert_agree(net, module, rng.standard_normal((5, 6)).astype(np.float32))


def test_images(rng):
    module = randomized(nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.ReLU()))
    net = fl.from_torch(module)
    x = rng.standard_normal((7, 2, 3, 4)).astype(np.float32)
    theirs = run(module, x)
    assert (np.abs(net(x) - theirs) <= rounding_bound(net, x.reshape(7, 24))).all()


def test_lists_and_views_of_rows(rng):
    module = randomized(Forward(lambda m, x: m.fc[0](x.view(-1, 6) / 2)))
    assert_agree(fl.from_torch(module), module, rng.standard_normal((5, 6)).astype(np.float32))


def test_data_parallel_wrapper(rng):
    inner = randomized(nn.Linear(6, 3))
    net = fl.from_torch(nn.DataParallel(inner))
    assert_agree(net, inner, rng.standard_normal((5, 6)).astype(np.float32))


def test_layers_that_do_nothing():
    net = fl.from_torch(nn.Sequential(nn.Dropout(), nn.Identity()))
    assert_same_bits(net(np.ones((2, 3), np.float32)), np.ones((2, 3), np.float32))


def _tests_of_rank(m, x):
    if x.dim() == 1:
        x = x.unsqueeze(0)
    if x.ndim > 2 or x.ndimension() != 2:
        x = x.flatten(1)
    return body(m, x)


def _shapes(m, x):
    rows, features = x.shape
    if len(x.shape) > 2:
        x = x.flatten(1)
    h = F.layer_norm(body(m, x.reshape(rows, features)), (4,))
    return F.layer_norm(h, h.shape[-1:]).view(h.size())


def _tests_of_type(m, x):
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(x)
    if not isinstance(x, torch.Tensor):
        x = torch.as_tensor(x)
    if not x.is_floating_point() or x.dtype != torch.float32:
        x = x.float()
    if x.device != m.fc[0].weight.device or x.is_cuda:
        x = x.to(m.fc[0].weight.device)
    return body(m, x)


NOTHING = {
    "to device": lambda m, x: body(m, x.to(m.fc[0].weight.device)),
    "to device and dtype": lambda m, x: body(m, x.to("cpu", torch.float32, non_blocking=True)),
    "to by keywords": lambda m, x: body(m, x.to(device="cpu", dtype=torch.float32, copy=True)),
    "to another": lambda m, x: body(m, x.to(m.fc[0].weight)),
    "type": lambda m, x: body(m, x.type(torch.float32)),
    "type_as weights": lambda m, x: body(m, x.type_as(m.fc[0].weight)),
    "type_as itself": lambda m, x: body(m, x).type_as(x),
    "cpu": lambda m, x: body(m, x.cpu()).cpu().detach().contiguous().clone(),
    "squeeze": lambda m, x: m.fc[2](body(m, x)).squeeze(-1).contiguous(),
    "squeeze of axis 1": lambda m, x: torch.squeeze(m.fc[2](body(m, x)), dim=1),
    "unsqueeze and squeeze": lambda m, x: body(m, x.unsqueeze(1)).squeeze(1),
    "unsqueeze in front": lambda m, x: body(m, x.unsqueeze(0)).tanh().squeeze(0),
    "unsqueeze at the end": lambda m, x: torch.relu(body(m, x).unsqueeze(-1) * 2).squeeze(2),
    "an axis by index": lambda m, x: body(m, x[:, None])[:, 0] + body(m, x[None])[0],
    "an axis by view": lambda m, x: body(m, x.view(-1, 1, 6)).reshape(x.shape[0], 4),
    "an axis that is flattened": lambda m, x: body(m, x[:, None, :]).flatten(1),
    "view of its shape": lambda m, x: body(m, x).view(x.shape[0], -1).reshape(body(m, x).shape),
    "expand to its shape": lambda m, x: body(m, x.expand_as(x)).expand(x.size(0), -1),
    "type of a class": lambda m, x: body(m, x.type(torch.FloatTensor)),
    "dtype of a softmax": lambda m, x: F.softmax(body(m, x), -1, dtype=torch.float32),
    "lengths of a shape": _shapes,
    "errors": torch_asserts.errors,
    "asserts of shapes": torch_asserts.of_shapes,
    "asserts of several": torch_asserts.of_several,
    "asserts of values": torch_asserts.of_values,
    "tests of the rank": _tests_of_rank,
    "tests of the type": _tests_of_type,
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_does_nothing_to_numbers(name, rng):
    module = Forward(NOTHING[name])
    module.fc = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(4, 1)])
    net, x = fl.from_torch(module), rng.standard_normal((5, 6), np.float32)
    expected = module(torch.from_numpy(x)).detach().numpy().reshape(5, -1)
    np.testing.assert_allclose(net(x), expected, rtol=1e-5, atol=1e-6)
    tested = name in ("asserts of several", "tests of the rank", "lengths of a shape", "errors")
    tested = tested or any(word in name for word in ("axis by", "an axis", "unsqueeze"))
    with pytest.raises(ValueError, match="takes rows") if tested else nullcontext():
        net(np.ones((2, 3, 6), np.float32))


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda m, x: body(m, x.to(torch.float64)), "changes the dtype"),
        (lambda m, x: body(m, x.to("cpu", torch.float16)), "changes the dtype"),
        (lambda m, x: body(m, x.type_as(torch.ones(1, dtype=torch.float64))), "changes the dtype"),
        (lambda m, x: body(m, x.type("torch.DoubleTensor")), "no dtype"),
        (lambda m, x: m.fc[1](body(m, x)[:, 0]), "has another axis than rows"),
        (lambda m, x: body(m, x).squeeze(0), "takes the axis of the samples away"),
        (
            lambda m, x: torch.softmax(body(m, x).unsqueeze(1), 1).squeeze(1),
            "another axis than rows",
        ),
        (lambda m, x: body(m, x).unsqueeze(1) + body(m, x), "different numbers of axes"),
        (lambda m, x: body(m, x) + body(m, x)[:, 0], "different numbers of axes"),
        (lambda m, x: body(m, x).sum(1) + m.fc[1].bias, "another axis than rows"),
        (lambda m, x: body(m, x).unsqueeze(1), "with an axis of length one; squeeze it"),
        (lambda m, x: body(m, x).unsqueeze_(1).squeeze(1), "axes of an array in place"),
        (lambda m, x: body(m, x).expand(3, -1, -1), "known is one feature that becomes several"),
        (lambda m, x: torch.stack([body(m, x), body(m, x)]), "stacks arrays"),
        (lambda m, x: torch.einsum("bi,bi->b", x, x), "is no dense layer"),
        (lambda m, x: body(m, x) if x.shape[0] > 1 else x, "same steps for every input"),
        (lambda m, x: body(m, x) if x.shape[-1] == 6 else x, "same steps for every input"),
        (lambda m, x: body(m, x) if (x > 0).all() else x, "same steps for every input"),
    ],
)
def test_what_only_looks_as_if_it_did_nothing(forward, words):
    with pytest.raises(fl.ConversionError, match=words):
        fl.from_torch(Forward(forward))


WEIGHTLESS = {
    "nothing": nn.Identity(),
    "relu": nn.ReLU(),
    "layer norm": nn.LayerNorm(3, elementwise_affine=False),
    "several": nn.Sequential(nn.Tanh(), nn.LayerNorm(3, elementwise_affine=False), nn.Softmax(-1)),
}


@pytest.mark.parametrize("name", WEIGHTLESS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_weights_the_dtype_is_that_of_the_input(name, dtype, rng, tmp_path):
    module, x = WEIGHTLESS[name], rng.standard_normal((5, 3)).astype(dtype)
    net = fl.from_torch(module)
    expected = module(torch.from_numpy(x)).numpy()
    net.save(tmp_path / "net.npz")
    for one in (net, pickle.loads(pickle.dumps(net)), fl.load(tmp_path / "net.npz"), net.copy()):
        y = one(x)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, rtol=8 * np.finfo(dtype).eps)
        assert_same_bits(one(x, out=np.empty_like(y)), y)
        assert_same_bits(one(x.T, axis=0).T, y)
    assert net.astype(np.float32)(x).dtype == np.float32
    assert net([[1, 2, 3]]).dtype == np.float64


ALONG_1 = {
    "softmax": nn.Softmax(dim=1),
    "log softmax": nn.LogSoftmax(dim=1),
    "softmin": nn.Softmin(dim=1),
    "slopes": nn.PReLU(6),
    "batch norm": nn.BatchNorm1d(6),
    "by a function": Forward(lambda m, x: F.log_softmax(m.fc[0](x), 1)),
    "by a method": Forward(lambda m, x: m.fc[0](x).softmax(1)),
}


@pytest.mark.parametrize("name", ALONG_1)
def test_axis_1_is_that_of_the_features_in_rows_alone(name, rng, tmp_path):
    head = ALONG_1[name]
    module = head if isinstance(head, Forward) else nn.Sequential(nn.Linear(6, 6), head)
    net = fl.from_torch(module.eval())
    x = rng.standard_normal((4, 6), np.float32)
    np.testing.assert_allclose(net(x), module(torch.from_numpy(x)).detach(), rtol=1e-5, atol=1e-6)
    assert_same_bits(net(x[0]), net(x)[0])
    net.save(tmp_path / "net.npz")
    others = pickle.loads(pickle.dumps(net)), fl.load(tmp_path / "net.npz"), net[:], net.copy()
    for one in (net, *others, net.astype(np.float64), fl.Network([net])):
        for shape in ((2, 3, 6), (6, 6, 6), (1, 1, 6), (0, 2, 6)):
            with pytest.raises(ValueError, match=r"takes rows \(m, k\).*along axis 1"):
                one(np.ones(shape, np.float32))
        with pytest.raises(ValueError, match="takes rows"):
            one(np.ones((6, 2, 2), np.float32), axis=0)
    flat = nn.Sequential(nn.Flatten(), *module) if isinstance(module, nn.Sequential) else None
    if flat is not None:
        assert fl.from_torch(flat)(np.ones((2, 3, 2), np.float32)).shape == (2, 6)


class Unclear(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else x


def lazy_module():
    return nn.Sequential(nn.LazyLinear(3))


def with_hook():
    module = nn.Sequential(nn.Linear(6, 6))
    module[0].register_forward_hook(lambda m, x, y: 2 * y)
    return module


def with_its_own_forward():
    module = nn.Sequential(nn.Linear(6, 6))
    module[0].forward = lambda x: 2 * x
    return module


def mixed_dtypes():
    return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6).double())


two_inputs = type("TwoInputs", (nn.Module,), {"forward": lambda self, x, y: x + y})

# Module, and what the message has to say: where, what, and what to do.
REFUSED = {
    "lstm": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.LSTM(6, 6)),
        "layer '1' (torch LSTM)",
        "dense",
    ),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3)),
        "layer '0' (torch Conv2d)",
        "convolutional",
    ),
    "embedding": (lambda: nn.Sequential(nn.Embedding(9, 6)), "torch Embedding", "NumPy"),
    "glu": (lambda: nn.Sequential(nn.GLU()), "layer '0' (torch GLU)", "how many there are"),
    "softshrink": (lambda: nn.Sequential(nn.Softshrink(-1)), "torch Softshrink", "not be negative"),
    "threshold": (
        lambda: nn.Sequential(nn.Threshold(1.0, float("nan"))),
        "torch Threshold",
        "value must be a number, got nan",
    ),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.GRU(6, 6))),
        "layer '0.1' (torch GRU)",
        "recurrent",
    ),
    "softmax over samples": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.Softmax(dim=0)),
        "layer '1' (torch Softmax)",
        "dim=-1",
    ),
    "batch statistics": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False)),
        "layer '1' (torch BatchNorm1d)",
        "track_running_stats",
    ),
    "flatten of the batch": (
        lambda: nn.Sequential(nn.Flatten(0)),
        "layer '0' (torch Flatten)",
        "start_dim=1",
    ),
    "two axes": (
        lambda: nn.Sequential(nn.LayerNorm((2, 3))),
        "layer '0' (torch LayerNorm)",
        "(2, 3)",
    ),
    "axis 1 before flatten": (
        lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(16, 3)),
        "layer '1' (torch Flatten)",
        "flatten first",
    ),
    "half": (lambda: nn.Linear(6, 6).half(), "parameter 'weight'", ".float()"),
    "bfloat16": (lambda: nn.Linear(6, 6).bfloat16(), "is bfloat16", ".float()"),
    "mixed dtypes": (mixed_dtypes, "parameter '1.weight'", "'0.weight' is float32"),
    "lazy": (lazy_module, "parameter '0.weight'", "on some rows first"),
    "meta": (lambda: nn.Linear(6, 6, device="meta"), "layer '0' (torch Linear)", "no values"),
    "hook": (with_hook, "module '0' (torch Linear)", "hook"),
    "data-dependent": (Unclear, "torch Unclear", "same steps for every input"),
    "two inputs": (lambda: two_inputs(), "torch TwoInputs", "2 inputs"),
    "no array": (lambda: Forward(lambda m, x: (x.shape, 3)), "torch Forward", "expected an array"),
    "an array and a shape": (
        lambda: Forward(lambda m, x: (m.fc[0](x), x.shape)),
        "output 'output_1' of its forward",
        "return arrays only",
    ),
    "division": (lambda: Forward(lambda m, x: x / m.fc[0](x)), "(torch truediv)", "multiplies"),
    "cat": (
        lambda: Forward(lambda m, x: torch.cat([x, m.fc[0](x)])),
        "(torch cat)",
        "stacks samples",
    ),
    "squeeze": (
        lambda: Forward(lambda m, x: m.fc[0](x).squeeze(0)),
        "(torch squeeze)",
        "axis of the samples",
    ),
    "dropout always": (
        lambda: Forward(lambda m, x: F.dropout(m.fc[0](x))),
        "'dropout' in its forward (torch dropout)",
        "self.training",
    ),
    "reshape": (lambda: Forward(lambda m, x: x.view(2, -1)), "(torch view)", "x.flatten(1)"),
    "rows cut up": (
        lambda: Forward(lambda m, x: m.fc[0](x).view(-1, 3).relu()),
        "(torch view)",
        "not one row a sample",
    ),
    "constant for each sample": (
        lambda: Forward(lambda m, x: x * m.table),
        "(torch mul)",
        "one number for each feature",
    ),
    "dtype": (lambda: Forward(lambda m, x: m.fc[0](x).double()), "(torch double)", "float32"),
    "one feature of nobody knows how many": (
        lambda: Forward(lambda m, x: x * x[:, :1]),
        "torch Forward",
        "no layer tells how many features",
    ),
    "number without layers": (
        lambda: Forward(lambda m, x: torch.relu(x * 2)),
        "torch Forward",
        "how many features",
    ),
    "array to write to": (
        lambda: Forward(lambda m, x: torch.abs(m.fc[0](x), out=None)),
        "(torch abs)",
        "arguments beside its input",
    ),
    "bool beside the input": (
        lambda: Forward(lambda m, x: m.fc[0](x) * True),
        "(torch mul)",
        "combines its input with True",
    ),
    "integers beside the input": (
        lambda: Forward(lambda m, x: m.fc[0](x) * torch.arange(6)),
        "(torch mul)",
        "holds torch.int64",
    ),
    "difference with a factor, turned": (
        lambda: Forward(lambda m, x: torch.rsub(x, m.fc[0](x), alpha=2)),
        "(torch rsub)",
        "arguments beside the two operands",
    ),
    "arithmetic with the number of rows": (
        lambda: Forward(lambda m, x: m.fc[0](x) / (2 * x.shape[0])),
        "(torch mul)",
        "between the calls",
    ),
    "rows of unknown width": (
        lambda: Forward(lambda m, x: m.fc[0](x).view(-1, x.size(0))),
        "(torch view)",
        "(-1, 'rows')",
    ),
    "number of features": (
        lambda: Forward(lambda m, x: torch.relu(x).view(x.size(0), x.size(1))),
        "(torch size)",
        "which no layer before it tells",
    ),
    "rows of another width": (
        lambda: Forward(lambda m, x: m.fc[0](x.view(-1, 5))),
        "(torch view)",
        "rows of 5 features, and the next layer takes 6",
    ),
    "product with a vector": (
        lambda: Forward(lambda m, x: m.fc[0](x) @ m.gain),
        "(torch matmul)",
        "between the calls",
    ),
    "product with the input": (
        lambda: Forward(lambda m, x: torch.matmul(m.fc[0](x), x)),
        "(torch matmul)",
        "between the calls",
    ),
    "layer of constants": (
        lambda: Forward(lambda m, x: x + m.fc[0](m.gain)),
        "layer 'fc.0' (torch Linear)",
        "not called with one array that comes from the input",
    ),
    "function outside PyTorch": (
        lambda: Forward(lambda m, x: wrapped(m.fc[0](x))),
        "'wrapped' in its forward (torch wrapped)",
        "outside PyTorch",
    ),
    "forward of the object": (with_its_own_forward, "layer '0' (torch Linear)", "dense networks"),
    "unknown option": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.GELU(approximate="sine")),
        "layer '1' (torch GELU)",
        "approximate",
    ),
    "random slopes": (
        lambda: Forward(lambda m, x: F.rrelu(m.fc[0](x), training=True)),
        "(torch rrelu)",
        "random",
    ),
    "norm that PyTorch refuses": (
        lambda: Forward(lambda m, x: F.layer_norm(m.fc[0](x), 6)),
        "torch Forward",
        "the original fails",
    ),
    "weights that change": (
        lambda: Forward(lambda m, x: m.fc[0](x) * m.gain.mul_(2)),
        "(torch mul_)",
        "at every call",
    ),
    "batch norm of images": (
        lambda: nn.Sequential(nn.BatchNorm2d(3)),
        "(torch BatchNorm2d)",
        "convolutional",
    ),
    "power": (lambda: Forward(lambda m, x: m.fc[0](x) ** 5), "(torch pow)", "between the calls"),
    "activation of two": (
        lambda: Forward(lambda m, x: F.softmax(x, 1, dtype=torch.float64)),
        "(torch softmax)",
        "dtype",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name):
    make, place, advice = REFUSED[name]
    with pytest.raises(fl.ConversionError) as caught:
        fl.from_torch(make())
    message = str(caught.value)
    assert place in message
    assert advice in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_many_residual_blocks():
    def blocks(m, x):
        for _ in range(400):
            x = x + m.fc[0](x).tanh()
        return x

    net = fl.from_torch(Forward(blocks, width=2, count=1))
    assert len(net) == 400


def test_refusal_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.Linear(6, 6), nn.Dropout(), nn.LSTM(6, 6))
    with pytest.raises(fl.ConversionError):
        fl.from_torch(module)
    assert all(m.training for m in module.modules())


def test_scripted_module():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself is deprecated
        module = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(fl.ConversionError, match="TorchScript"):
        fl.from_torch(module)


def test_verify_finds_what_tracing_misses():
    def aliased(m, x):
        h = m.fc[0](x)
        kept = h
        h += 1.0  # changes what `kept` names, which torch.fx does not see
        return m.fc[1](h).relu() + kept

    module = randomized(Forward(aliased))
    with pytest.raises(fl.ConversionError, match="Worst row"):
        fl.from_torch(module)
    assert fl.from_torch(module, verify=False).in_features == 6


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"weight": 1}, "from_state_dict"),
        ("model.pt", "fl.load"),
        (nn.Linear, "not the class"),
        (3, "torch.nn.Module"),
    ],
)
def test_not_a_module(wrong, hint):
    with pytest.raises(TypeError, match=hint):
        fl.from_torch(wrong)


def test_without_torch():
    """Where nobody has imported PyTorch there is no module, and it stays unimported."""
    code = (
        "import sys, fastlayer as fl\n"
        "try: fl.from_torch(3)\n"
        "except TypeError as error: print(error)\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == ["from_torch takes a torch.nn.Module, got int", "False"]


@pytest.mark.parametrize("seed", range(8))
def test_a_batch_norm_whose_bias_undoes_its_mean(seed):
    """PyTorch rounds the large numbers before they cancel, which the bound has to know of."""
    rng = np.random.default_rng(seed)
    norm = nn.BatchNorm1d(8).eval()
    mean, var, weight = 1e3 * rng.normal(size=8), rng.uniform(0.5, 2, 8), rng.normal(size=8)
    with torch.no_grad():
        norm.running_mean[:] = torch.from_numpy(mean)
        norm.running_var[:] = torch.from_numpy(var)
        norm.weight[:] = torch.from_numpy(weight)
        norm.bias[:] = torch.from_numpy(mean * weight / np.sqrt(var + norm.eps) + 1)
    assert fl.from_torch(norm).verification.bound_share <= 1


def test_how_many_features_may_be_said():
    module = Forward(lambda m, x: torch.sin(x * 2) * x[:, :1])
    net = fl.from_torch(module, inputs=[6])
    assert net.in_features == 6
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    np.testing.assert_allclose(net(x), np.sin(x * 2) * x[:, :1], rtol=1e-5, atol=1e-6)
