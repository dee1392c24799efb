"""Optimisers: bit for bit what NumPy makes of their formulas, and what PyTorch's do."""

import math
import pickle

import numpy as np
import pytest
from helpers import FLOATS, assert_same_bits

import fastlayer as fl

OPTIMIZERS = [
    fl.SGD(lr=0.1),
    fl.SGD(lr=0.1, weight_decay=0.01),
    fl.SGD(lr=0.05, momentum=0.9),
    fl.SGD(lr=0.05, momentum=0.9, weight_decay=0.1),
    fl.SGD(lr=0.02, momentum=0.8, nesterov=True),
    fl.SGD(lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.2),
    fl.Adam(),
    fl.Adam(lr=0.01, betas=(0.8, 0.95), eps=1e-4),
    fl.Adam(lr=0.01, weight_decay=0.1),
    fl.Adam(lr=0.01, betas=(0.0, 0.0)),
    fl.AdamW(),
    fl.AdamW(lr=0.02, betas=(0.7, 0.99), weight_decay=0.5),
    fl.AdamW(lr=0.02, weight_decay=0),
]


@pytest.fixture(params=OPTIMIZERS, ids=repr)
def optimizer(request):
    return request.param


def transcription(optimizer, weights, gradients):
    """The steps in NumPy, one rounding for each operation; scalars in float64 until they are used."""
    T = weights.dtype.type
    p = optimizer.parameters
    lr, decay = p["lr"], p["weight_decay"]
    w = weights.copy()
    first, second = np.zeros_like(w), np.zeros_like(w)
    power1 = power2 = 1.0
    for g in gradients:
        if decay and type(optimizer) is not fl.AdamW:
            g = g + T(decay) * w
        if isinstance(optimizer, fl.SGD):
            d = g
            if p["momentum"]:
                first = T(p["momentum"]) * first + g
                d = g + T(p["momentum"]) * first if p["nesterov"] else first
            w = w - T(lr) * d
            continue
        if decay and type(optimizer) is fl.AdamW:
            w = w - T(lr * decay) * w
        b1, b2 = p["betas"]
        power1, power2 = power1 * b1, power2 * b2
        first = first + T(1 - b1) * (g - first)
        second = T(b2) * second + T(1 - b2) * (g * g)
        root = np.sqrt(second) * T(1 / math.sqrt(1 - power2)) + T(p["eps"])
        w = w - T(lr / (1 - power1)) * (first / root)
    return w


def descended(optimizer, weights, gradients, **options):
    """What a trainer makes of weights (n, k) and gradients: those of the loss sum(g * W)."""
    k = weights.shape[1]
    layer = fl.Layer.from_arrays(weights)
    trainer = fl.Trainer(layer, None, optimizer, **options)
    eye = np.eye(k, dtype=weights.dtype)
    for g in gradients:
        trainer.forward(eye)
        trainer.backward(g.T)
        trainer.update()
    assert trainer.steps_done == len(gradients)
    return trainer.network.weight


@pytest.mark.parametrize("dtype", FLOATS)
def test_steps_have_the_bits_of_their_formulas(rng, optimizer, dtype):
    weights = rng.normal(size=(5, 7)).astype(dtype)
    gradients = rng.normal(size=(50, 5, 7)).astype(dtype)
    gradients[:, 0] = 0
    gradients[:, 1] *= dtype(1e-30)
    with np.errstate(under="ignore"):
        expected = transcription(optimizer, weights, gradients)
    assert_same_bits(descended(optimizer, weights, gradients), expected)
    assert not np.array_equal(expected[2:], weights[2:])


def test_steps_are_pytorchs(rng, optimizer):
    torch = pytest.importorskip("torch")
    weights, gradients = rng.normal(size=(4, 6)), rng.normal(size=(50, 4, 6))
    w = torch.tensor(weights, requires_grad=True)
    p = {"foreach": False, **optimizer.parameters}
    peer = getattr(torch.optim, type(optimizer).__name__)([w], **p)
    for g in gradients:
        w.grad = torch.tensor(g)
        peer.step()
    actual = descended(optimizer, weights, gradients)
    np.testing.assert_allclose(actual, w.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_clipping_scales_all_gradients_to_the_norm(rng, dtype, size):
    weights = np.zeros((3, 300), dtype)
    g = (size * rng.normal(size=weights.shape)).astype(dtype)
    actual = descended(fl.SGD(lr=1.0), weights, [g], max_norm=1.0)
    norm = math.sqrt(float(fl.dot(g.reshape(-1).astype(float), g.reshape(-1).astype(float))))
    share = 1.0 / (norm + 1e-6)
    assert_same_bits(-actual, g * dtype(share) if share < 1 else g)
    length = float(np.linalg.norm(actual.astype(float)))
    assert length == pytest.approx(min(1.0, norm), rel=1e-5 if dtype == np.float64 else 2e-5)


def test_clipping_adds_up_all_parameters(rng):
    net = fl.Network(
        [fl.Layer(3, 4, "tanh", dtype=float, rng=0), fl.Layer(4, 2, dtype=float, rng=1)]
    )
    x, t = rng.normal(size=(8, 3)), 10 * rng.normal(size=(8, 2))
    found = net.gradients(x, t, "mse")
    before = [(layer.weight, layer.bias) for layer in net.layers]
    trainer = fl.Trainer(net, "mse", fl.SGD(lr=1.0), max_norm=0.25)
    trainer.step(x, t)
    order = [a for pair in zip(found.weights, found.biases, strict=True) for a in pair]
    squares = 0.0
    for g in order:
        squares += float(fl.dot(g.reshape(-1), g.reshape(-1)))
    share = 0.25 / (math.sqrt(squares) + 1e-6)
    assert share < 1
    for layer, old, *new in zip(
        trainer.network.layers, before, found.weights, found.biases, strict=True
    ):
        assert_same_bits(layer.weight, old[0] - new[0] * share)
        assert_same_bits(layer.bias, old[1] - new[1] * share)


def test_a_slope_of_a_prelu_is_a_parameter_like_others(rng, optimizer):
    """A single number: NumPy's scalars must not get in the way."""
    layer = fl.Layer.from_arrays([[1.0], [2.0]], activation=fl.Activation("prelu", weight=0.25))
    trainer = fl.Trainer(layer, "mse", optimizer, max_norm=10.0)
    x, t = rng.normal(size=(20, 1)), rng.normal(size=(20, 2))
    first = trainer.step(x, t)
    for _ in range(30):
        last = trainer.step(x, t)
    assert last < first
    assert trainer.network.activation.parameters["weight"] != 0.25


def test_bias_correction_counts_steps_by_repeated_multiplication():
    trainer = fl.Trainer(fl.Layer(1, 1, rng=0), "mse", fl.Adam(betas=(0.9, 0.99)))
    first = second = 1.0
    for _ in range(100):
        trainer.step([[1.0]], [[2.0]])
        first, second = first * 0.9, second * 0.99
    assert trainer.state["progress"] == {"beta1_power": first, "beta2_power": second}


# --- what they are


def test_texts():
    assert repr(fl.SGD(0.1)) == "SGD(lr=0.1)"
    assert repr(fl.SGD(0.1, 0.9, True)) == "SGD(lr=0.1, momentum=0.9, nesterov=True)"
    assert repr(fl.Adam()) == "Adam(lr=0.001)"
    assert repr(fl.Adam(betas=(0.5, 0.9))) == "Adam(lr=0.001, betas=(0.5, 0.9))"
    assert repr(fl.AdamW(weight_decay=0.0)) == "AdamW(lr=0.001, weight_decay=0.0)"


def test_they_compare_by_value_and_pickle(optimizer):
    again = pickle.loads(pickle.dumps(optimizer))
    assert again == optimizer
    assert hash(again) == hash(optimizer)
    assert again.parameters == optimizer.parameters
    assert [other for other in OPTIMIZERS if other == optimizer] == [optimizer]
    assert fl.Adam() != fl.AdamW(weight_decay=0)


def test_they_are_immutable(optimizer):
    lr = optimizer.lr
    for change in (
        lambda: setattr(optimizer, "lr", 5.0),
        lambda: setattr(optimizer, "momentum", 0.5),
        lambda: delattr(optimizer, "lr"),
    ):
        with pytest.raises(AttributeError):
            change()
    optimizer.parameters["lr"] = 5.0
    assert optimizer.lr == optimizer.parameters["lr"] == lr


REFUSED = [
    (ValueError, "lr must be positive, got 0.0", lambda: fl.SGD(lr=0)),
    (ValueError, "lr must be positive, got -1", lambda: fl.Adam(lr=-1)),
    (ValueError, "lr must be positive, got inf", lambda: fl.AdamW(lr=math.inf)),
    (ValueError, "lr must be a number, got nan", lambda: fl.SGD(lr=math.nan)),
    (TypeError, "lr must be a real number", lambda: fl.SGD(lr="0.1")),
    (ValueError, "momentum must be from 0 to less than 1, got 1", lambda: fl.SGD(0.1, momentum=1)),
    (ValueError, "nesterov needs a momentum", lambda: fl.SGD(0.1, nesterov=True)),
    (ValueError, "weight_decay must not be negative", lambda: fl.SGD(0.1, weight_decay=-1)),
    (ValueError, "betas must be from 0 to less than 1", lambda: fl.Adam(betas=(0.9, 1.0))),
    (TypeError, "betas must be two numbers, got 0.9", lambda: fl.Adam(betas=0.9)),
    (TypeError, "betas must be two numbers", lambda: fl.Adam(betas=(0.9, 0.9, 0.9))),
    (ValueError, "eps must not be negative", lambda: fl.Adam(eps=-1e-8)),
    (ValueError, "weight_decay must not be negative", lambda: fl.AdamW(weight_decay=-1)),
]


@pytest.mark.parametrize(("error", "message", "call"), REFUSED, ids=lambda v: str(v)[:40])
def test_what_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("error", "message", "given"),
    [
        (ValueError, r"pass fl\.SGD\(lr=\.\.\.\)", "sgd"),
        (ValueError, "unknown optimizer 'lion'; known: adam, adamw", "lion"),
        (TypeError, r"got type; make one: fl\.Adam\(", fl.Adam),
        (TypeError, "got float", 0.1),
        (TypeError, "got NoneType", None),
    ],
    ids=str,
)
def test_optimizers_that_a_trainer_refuses(error, message, given):
    with pytest.raises(error, match=message):
        fl.Trainer(fl.Layer(2, 1, rng=0), "mse", given)


def test_names_stand_for_defaults():
    layer = fl.Layer(2, 1, rng=0)
    assert fl.Trainer(layer, "mse", "adam").optimizer == fl.Adam()
    assert fl.Trainer(layer, "mse", "adamw").optimizer == fl.AdamW()
