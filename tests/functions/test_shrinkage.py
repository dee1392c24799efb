"""sqrt, threshold, hardshrink and softshrink: bit for bit what IEEE 754 and PyTorch define."""

import numpy as np
import pytest
from helpers import FLOATS, assert_same_bits

import fastlayer as fl


@pytest.fixture(params=FLOATS, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def numbers(dtype, *bounds):
    """Numbers around the bounds and of all sizes, and specials; NaN with either sign."""
    rng = np.random.default_rng(4)
    info = np.finfo(dtype)
    unsigned = f"u{info.bits // 8}"
    patterns = rng.integers(0, np.iinfo(unsigned).max, 20_000, unsigned, endpoint=True)
    edges = np.array([*bounds, 1.0], dtype)
    special = [0, info.smallest_subnormal, info.smallest_normal, info.max, np.inf, np.nan]
    x = np.concatenate(
        [
            patterns.view(dtype),
            rng.normal(size=2000).astype(dtype),
            *(np.nextafter(edges, dtype(to)) for to in (-np.inf, 0, np.inf)),
            edges,
            np.array(special, dtype),
        ]
    )
    x = np.concatenate([x, -x])
    rng.shuffle(x)
    return x


def check(x, y, expected):
    """NaN where it came in, with its bits."""
    assert_same_bits(y, expected)
    nan = np.isnan(x)
    assert np.array_equal(x[nan].view(f"u{x.itemsize}"), y[nan].view(f"u{x.itemsize}"))


def test_sqrt(dtype):
    x = numbers(dtype)
    with np.errstate(invalid="ignore"):
        check(x, fl.sqrt(x), np.sqrt(x))


@pytest.mark.parametrize(
    ("limit", "value"), [(0, 0), (0.5, -7), (-2, np.inf), (1e-3, -0.0), (np.inf, 1), (-np.inf, 1)]
)
def test_threshold(dtype, limit, value):
    x = numbers(dtype, limit)
    y = fl.threshold(x, threshold=limit, value=value)
    check(x, y, np.where(x <= dtype(limit), dtype(value), x))


@pytest.mark.parametrize("lambd", [0.5, 0, 2, 1e-3, -1, np.inf])
def test_hardshrink(dtype, lambd):
    x = numbers(dtype, lambd)
    bound = dtype(lambd)
    expected = np.where((x >= -bound) & (x <= bound), dtype(0), x)
    check(x, fl.hardshrink(x, lambd=lambd), expected)
    if lambd == 0.5:
        assert_same_bits(fl.hardshrink(x), expected)


@pytest.mark.parametrize("lambd", [0.5, 0, 2, 1e-3])
def test_softshrink(dtype, lambd):
    x = numbers(dtype, lambd)
    bound = dtype(lambd)
    with np.errstate(all="ignore"):
        moved = np.where(x > bound, x - bound, x + bound)
    expected = np.where((x >= -bound) & (x <= bound), dtype(0), moved)
    check(x, fl.softshrink(x, lambd=lambd), expected)
    if lambd == 0.5:
        assert_same_bits(fl.softshrink(x), expected)


def test_shrinkage_as_torch_has_it(dtype):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = numbers(dtype, 0.25, 0.5, 2)
    pairs = [
        (fl.threshold(x, 0.25, -7.0), functional.threshold, {"threshold": 0.25, "value": -7.0}),
        (fl.hardshrink(x), functional.hardshrink, {}),
        (fl.hardshrink(x, 2.0), functional.hardshrink, {"lambd": 2.0}),
        (fl.softshrink(x), functional.softshrink, {}),
        (fl.softshrink(x, 2.0), functional.softshrink, {"lambd": 2.0}),
    ]
    for y, theirs, parameters in pairs:
        expected = theirs(torch.from_numpy(x), **parameters).numpy()
        if theirs is functional.softshrink:
            expected = np.where(expected == 0, dtype(0), expected)  # theirs has either zero
        assert_same_bits(y, expected)
