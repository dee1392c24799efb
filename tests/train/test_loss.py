"""`fastlayer.Loss`: values, gradients, extreme values, and what is refused."""

import math
import pickle

import numpy as np
import pytest
from helpers import FLOATS, LAYOUTS, SAME_VALUES, assert_same_bits

import fastlayer as fl

NAMES = ["mse", "mae", "huber", "cross_entropy", "binary_cross_entropy", "poisson"]
# Name, parameters, how the targets are given.
CASES = [
    ("mse", {}, "numbers"),
    ("mae", {}, "numbers"),
    ("huber", {}, "numbers"),
    ("huber", {"delta": 0.3}, "numbers"),
    ("cross_entropy", {}, "classes"),
    ("cross_entropy", {}, "rows"),
    ("cross_entropy", {"label_smoothing": 0.1}, "classes"),
    ("cross_entropy", {"label_smoothing": 0.1}, "rows"),
    ("binary_cross_entropy", {}, "shares"),
    ("poisson", {}, "counts"),
]
IDS = [f"{name}-{kind}-{'-'.join(map(str, p.values()))}".rstrip("-") for name, p, kind in CASES]
SHAPES = [(1, 2), (7, 3), (300, 5), (5, 300)]


def targets(rng, kind, m, n):
    if kind == "classes":
        return rng.integers(0, n, m)
    if kind == "rows":
        return rng.dirichlet(np.ones(n), m)
    if kind == "shares":
        return np.where(rng.random((m, n)) < 0.5, rng.integers(0, 2, (m, n)), rng.random((m, n)))
    if kind == "counts":
        return rng.poisson(2.0, (m, n)).astype(float)
    return rng.normal(size=(m, n))


def log_sum(z):
    top = z.max(axis=1, keepdims=True)
    return top + np.log(np.exp(z - top).sum(axis=1, keepdims=True))


def one_hot(t, n):
    return np.eye(n, dtype=np.longdouble)[t] if t.ndim == 1 else t.astype(np.longdouble)


def plain(name, y, t, *, delta=1.0, label_smoothing=0.0):
    """The loss of each row and its gradient by the row, in extended precision."""
    y = y.astype(np.longdouble)
    n = y.shape[1]
    if name == "cross_entropy":
        rows = (1 - label_smoothing) * one_hot(t, n) + label_smoothing / n
        logs = y - log_sum(y)
        return -(rows * logs).sum(axis=1), np.exp(logs) * rows.sum(axis=1, keepdims=True) - rows
    t = t.astype(np.longdouble)
    d = y - t
    if name == "mse":
        return (d * d).mean(axis=1), 2 * d / n
    if name == "mae":
        return np.abs(d).mean(axis=1), np.sign(d) / n
    if name == "huber":
        small = np.abs(d) < delta
        terms = np.where(small, d * d / 2, delta * (np.abs(d) - np.longdouble(delta) / 2))
        return terms.mean(axis=1), np.where(small, d, delta * np.sign(d)) / n
    if name == "poisson":
        return (np.exp(y) - t * y).mean(axis=1), (np.exp(y) - t) / n
    soft = np.log1p(np.exp(-np.abs(y))) + np.maximum(y, 0)
    return (soft - t * y).mean(axis=1), (1 / (1 + np.exp(-y)) - t) / n


def mean(losses, slopes, weights):
    share = (np.ones(len(losses)) if weights is None else weights).astype(np.longdouble)
    share = share / share.sum()
    return (losses * share).sum(), slopes * share[:, None]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "parameters", "kind"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_the_formulas(
    rng, shape, dtype, name, parameters, kind, weighted
):
    m, n = shape
    y = (3 * rng.normal(size=shape)).astype(dtype)
    t = targets(rng, kind, m, n)
    if kind != "classes":
        t = t.astype(dtype)  # as it counts
    weights = rng.random(m) if weighted else None
    if weighted and m > 2:
        weights[1] = 0
    loss = fl.Loss(name, **parameters)
    losses, slopes = plain(name, y, t, **parameters)
    value, slope = mean(losses, slopes, weights)
    # Every element of a row sees fewer than 16 roundings and kernels of at most 3 ULP and
    # 4 + log2(n) eps; those of a sum of n float64 terms are counted in float64.
    eps = float(np.finfo(dtype).eps)
    size = np.abs(slopes).max() + np.abs(y).max() + np.abs(losses).max() + 1
    bound = (32 + math.log2(n)) * eps * size + (n + m) * 2.3e-16 * size
    assert abs(loss(y, t, weights) - value) <= bound
    dy = loss.gradient(y, t, weights)
    assert dy.dtype == dtype
    assert dy.shape == shape
    share = 1 / m if weights is None else (weights / weights.sum())[:, None]
    assert (np.abs(dy - slope) <= bound * share).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "parameters", "kind"), CASES, ids=IDS)
def test_values_and_gradients_are_pytorchs(rng, name, parameters, kind, weighted):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    m, n = 40, 6
    y = torch.tensor(3 * rng.normal(size=(m, n)), requires_grad=True)
    t = targets(rng, kind, m, n)
    weights = rng.random(m) if weighted else None
    of = {
        "mse": functional.mse_loss,
        "mae": functional.l1_loss,
        "huber": functional.huber_loss,
        "cross_entropy": functional.cross_entropy,
        "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
        "poisson": lambda z, t, reduction: functional.poisson_nll_loss(
            z, t, log_input=True, full=False, reduction=reduction
        ),
    }[name]
    each = of(y, torch.tensor(t), reduction="none", **parameters)
    rows = each if each.ndim == 1 else each.mean(dim=1)
    share = (
        torch.full((m,), 1 / m, dtype=torch.float64)
        if weights is None
        else torch.tensor(weights / weights.sum())
    )
    value = (rows * share).sum()
    value.backward()
    loss = fl.Loss(name, **parameters)
    # Both are off by less than 64 eps of what the sums add up.
    given = y.detach().numpy()
    scale = float(rows.detach().max()) + np.abs(given).max()
    expected = float(value.detach())
    assert loss(given, t, weights) == pytest.approx(expected, rel=0, abs=64 * 2.3e-16 * scale)
    actual, expected = loss.gradient(given, t, weights), y.grad.numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=64 * 2.3e-16 * scale / m)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_arithmetic_of_simple_losses_is_that_of_numpy_bit_for_bit(rng, dtype):
    """One rounding for each operation, in the dtype; short rows, so that sums have one order."""
    y, t = (rng.normal(size=(9, 1)).astype(dtype) for _ in range(2))
    d = y - t
    assert_same_bits(fl.Loss("mse").gradient(y, t), d * dtype(2.0 * (1.0 / 9) / 1))
    assert_same_bits(fl.Loss("mae").gradient(y, t), np.sign(d) * dtype((1.0 / 9) / 1))
    delta = dtype(0.7)
    expected = np.clip(d, -delta, delta) * dtype((1.0 / 9) / 1)
    assert_same_bits(fl.Loss("huber", delta=0.7).gradient(y, t), expected)
    wide = d.astype(np.float64)[:, 0]
    total = 0.0
    for v in wide * wide:  # the sum of squares is rounded in float64, one after the other
        total += v
    assert fl.Loss("mse")(y, t) == total / 9


@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropy_of_extreme_logits(dtype):
    loss = fl.Loss("cross_entropy")
    z = np.array([[1000, -1000, 0], [-1000, 1000, 1000]], dtype)
    assert loss(z, [0, 0]) == pytest.approx(1000 + math.log(2) / 2, rel=float(np.finfo(dtype).eps))
    np.testing.assert_array_equal(
        loss.gradient(z, [0, 0]), np.array([[0, 0, 0], [-0.5, 0.25, 0.25]], dtype)
    )
    # An impossible class that is not the target takes nothing and gives nothing.
    masked = np.array([[-np.inf, 0, 0]], dtype)
    assert loss(masked, [1]) == pytest.approx(math.log(2), rel=1e-7)
    assert loss(masked, [[0, 0.5, 0.5]]) == pytest.approx(math.log(2), rel=1e-7)
    assert loss.gradient(masked, [1]).tolist() == [[0, -0.5, 0.5]]
    assert loss(masked, [0]) == math.inf
    assert math.isnan(loss(np.array([[np.nan, 0]], dtype), [0]))


@pytest.mark.parametrize("dtype", FLOATS)
def test_binary_cross_entropy_of_extreme_logits(dtype):
    loss = fl.Loss("binary_cross_entropy")
    z = np.array([[1000], [-1000]], dtype)
    assert loss(z, [1, 0]) == 0
    assert loss(z, [0, 1]) == 1000
    assert loss.gradient(z, [0, 1]).tolist() == [[0.5], [-0.5]]
    # What is left of 1 where the answer is nearly right.
    small = loss.gradient(np.array([[40]], dtype), [1])
    assert small[0, 0] == pytest.approx(-math.exp(-40), rel=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_other_losses_of_extreme_values(dtype):
    big = np.finfo(dtype).max / 4
    y = np.array([[big, -big]], dtype)
    assert fl.Loss("mae")(y, [[0, 0]]) == big
    assert fl.Loss("huber")(y, [[0, 0]]) == pytest.approx(float(big), rel=1e-6)
    assert fl.Loss("huber").gradient(y, [[0, 0]]).tolist() == [[0.5, -0.5]]
    if dtype == np.float32:  # squares are summed in float64
        assert fl.Loss("mse")(y, [[0, 0]]) == pytest.approx(float(big) ** 2, rel=1e-6)
    assert fl.Loss("poisson")(np.array([[-1000]], dtype), [0]) == 0
    assert fl.Loss("poisson").gradient(np.array([[1000]], dtype), [0]).tolist() == [[math.inf]]
    assert fl.Loss("mae").gradient(np.array([[0.0]], dtype), [0]).tolist() == [[0]]


@pytest.mark.parametrize("name", NAMES)
def test_one_sample_is_a_batch_of_one(rng, name):
    y, t = rng.normal(size=3), np.array([0.0, 1.0, 0.0])
    loss = fl.Loss(name)
    assert loss(y, t) == loss(y[None], t[None])
    assert_same_bits(loss.gradient(y, t), loss.gradient(y[None], t[None])[0])
    if name == "cross_entropy":
        assert loss(y, 1) == loss(y, [1]) == loss(y, t)


@pytest.mark.parametrize("given", [bool, np.int8, np.uint64, np.float16])
def test_targets_of_other_dtypes(rng, given):
    y = rng.normal(size=(5, 2))
    t = rng.integers(0, 2, (5, 2))
    for name in NAMES:
        assert fl.Loss(name)(y, t.astype(given)) == fl.Loss(name)(y, t.astype(np.float64))
    if given is not np.float16:
        t = t[:, 0]
        assert fl.Loss("cross_entropy")(y, t.astype(given)) == fl.Loss("cross_entropy")(y, t)
        assert fl.Loss("cross_entropy")(y, t[:, None]) == fl.Loss("cross_entropy")(y, t)


def test_integers_are_float64_and_halves_are_float32():
    loss = fl.Loss("mse")
    assert loss.gradient([[1, 2]], [[0, 0]]).dtype == np.float64
    assert loss.gradient(np.ones((1, 2), np.float16), [[0, 0]]).dtype == np.float32


@pytest.mark.parametrize("layout", SAME_VALUES)
@pytest.mark.parametrize("name", NAMES)
def test_layouts(rng, name, layout):
    y, t = rng.normal(size=(6, 4)), rng.random((6, 4))
    lay = LAYOUTS[layout]
    loss = fl.Loss(name)
    assert loss(lay(y), lay(t)) == loss(y, t)
    assert_same_bits(loss.gradient(lay(y), lay(t)), loss.gradient(y, t))


def test_a_target_of_nothing_has_a_loss_of_plus_zero():
    value = fl.Loss("cross_entropy")([[1000.0, 0.0]], [0])
    assert math.copysign(1, value) == 1


# --- what it is


def test_parameters_and_texts():
    assert fl.Loss("huber").parameters == {"delta": 1.0}
    assert fl.Loss("mse").parameters == {}
    assert repr(fl.Loss("huber", delta=2)) == "Loss('huber', delta=2.0)"
    assert repr(fl.Loss("huber")) == "Loss('huber')"
    assert fl.Loss("poisson").name == "poisson"


def test_it_is_immutable_and_compares_by_value():
    loss = fl.Loss("huber", delta=2.0)
    for change in (
        lambda: setattr(loss, "name", "mse"),
        lambda: setattr(loss, "_value", 3.0),
        lambda: setattr(loss, "other", 3.0),
        lambda: delattr(loss, "_value"),
    ):
        with pytest.raises(AttributeError):
            change()
    loss.parameters["delta"] = 5.0
    assert loss == fl.Loss("huber", delta=2.0) != fl.Loss("huber")
    assert hash(loss) == hash(fl.Loss("huber", delta=2.0))
    assert loss != "huber"
    assert len({loss, fl.Loss("huber", delta=2), fl.Loss("mse")}) == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol):
    for name, parameters, _ in CASES:
        loss = fl.Loss(name, **parameters)
        assert pickle.loads(pickle.dumps(loss, protocol)) == loss


# --- what is refused

Y = np.zeros((3, 4))
REFUSED = [
    (ValueError, r"unknown loss 'l2'; known: mse, mae", lambda: fl.Loss("l2")),
    (TypeError, r"name must be a string", lambda: fl.Loss(3)),
    (TypeError, r"'mse' has no parameter 'delta'", lambda: fl.Loss("mse", delta=1)),
    (TypeError, r"no parameter 'd'; it takes delta", lambda: fl.Loss("huber", d=1)),
    (ValueError, r"delta must be positive, got 0", lambda: fl.Loss("huber", delta=0)),
    (ValueError, r"delta must be a number, got nan", lambda: fl.Loss("huber", delta=math.nan)),
    (ValueError, r"from 0 to 1, got 2", lambda: fl.Loss("cross_entropy", label_smoothing=2)),
    (TypeError, r"delta must be a real number", lambda: fl.Loss("huber", delta="1")),
    (ValueError, r"t has shape \(3, 3\), .* takes \(3, 4\)$", lambda: fl.Loss("mse")(Y, Y[:, :3])),
    (ValueError, r"t has shape \(3,\)", lambda: fl.Loss("mse")(Y, [0, 0, 0])),
    (ValueError, r"or class numbers \(3,\)", lambda: fl.Loss("cross_entropy")(Y, [0, 0])),
    (ValueError, r"the batch is empty", lambda: fl.Loss("mse")(Y[:0], Y[:0])),
    (ValueError, r"y must be \(m, n\)", lambda: fl.Loss("mse")(Y[None], Y[None])),
    (ValueError, r"y must be \(m, n\)", lambda: fl.Loss("mse")(1.0, 1.0)),
    (TypeError, r"y has dtype complex", lambda: fl.Loss("mse")(Y * 1j, Y)),
    (TypeError, r"t has dtype complex", lambda: fl.Loss("mse")(Y, Y * 1j)),
    (
        ValueError,
        r"t\[0\] is 4, but there are 4 outputs",
        lambda: fl.Loss("cross_entropy")(Y, [4, 0, 0]),
    ),
    (ValueError, r"t\[2\] is -1", lambda: fl.Loss("cross_entropy")(Y, [0, 1, -1])),
    (TypeError, r"pass t\.astype\(int\)", lambda: fl.Loss("cross_entropy")(Y, [0.0, 1.0, 2.0])),
    (TypeError, r"integers, got dtype float64$", lambda: fl.Loss("cross_entropy")(Y, [0.5, 1, 2])),
    (ValueError, r"weight must have shape \(3,\)", lambda: fl.Loss("mse")(Y, Y, [1, 1])),
    (ValueError, r"not negative", lambda: fl.Loss("mse")(Y, Y, [1, 1, -1])),
    (ValueError, r"finite", lambda: fl.Loss("mse")(Y, Y, [1, 1, math.nan])),
    (ValueError, r"finite", lambda: fl.Loss("mse")(Y, Y, [1, 1, math.inf])),
    (ValueError, r"0 for every sample", lambda: fl.Loss("mse")(Y, Y, [0, 0, 0])),
    (TypeError, r"sample_weight has dtype", lambda: fl.Loss("mse")(Y, Y, ["a", "b", "c"])),
]


@pytest.mark.parametrize(("error", "message", "call"), REFUSED, ids=lambda v: str(v)[:40])
def test_what_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


OUT_OF_RANGE = {
    "cross_entropy": [-0.1],
    "binary_cross_entropy": [-0.1, 1.1],
    "poisson": [-1.0],
}


@pytest.mark.parametrize("name", NAMES)
def test_targets_that_are_no_numbers_or_out_of_range(name):
    for bad in [math.nan, math.inf, -math.inf, *OUT_OF_RANGE.get(name, [])]:
        t = Y.copy()
        t[1, 2] = bad
        with pytest.raises(ValueError, match=rf"t\[1, 2\] is {bad}; targets of {name} are"):
            fl.Loss(name)(Y, t)
    with pytest.raises(ValueError, match=r"t\[0, 1\] is 1e\+300"):  # infinite in float32
        fl.Loss("mse")(np.zeros((1, 2), np.float32), [[0, 1e300]])
