"""sin and cos where reducing the argument is hard: next to multiples of pi / 2, and far out."""

import numpy as np
import pytest
from helpers import FLOATS, assert_same_bits

import fastlayer as fl

# The numbers of either dtype that lie nearest to a multiple of pi / 2 (Muller et al., Handbook of
# Floating-Point Arithmetic), and others that are often taken.
FAR = [16367173 * 2.0**72, 6381956970095103 * 2.0**797, 1e22, 2.0**1000, 1e308, 2.0**120, 2.0**28]


@pytest.fixture(params=FLOATS, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def hard(dtype):
    """Finite, shuffled, both signs; subnormal numbers and zeros among them."""
    rng = np.random.default_rng(8)
    info = np.finfo(dtype)
    turns = np.concatenate([np.arange(1, 500), rng.integers(1, 2**27, 500)]) * (np.pi / 2)
    far = np.ldexp(turns, rng.integers(0, info.maxexp - 31, turns.size))
    with np.errstate(over="ignore"):
        spread = [rng.uniform(0, reach, 1000) for reach in (1, 9, 2.0**29)]
        x = np.concatenate([turns, far, FAR, *spread]).astype(dtype)
    small = np.array([0, info.smallest_subnormal, info.smallest_normal, info.eps, 0.5], dtype)
    x = np.concatenate([x, small])
    near = np.nextafter(np.array([np.pi / 4, np.pi, 2.0**28], dtype), dtype(0))
    x = np.concatenate([x[np.isfinite(x)], near, np.nextafter(near, dtype(np.inf))])
    x = np.concatenate([x, -x])
    rng.shuffle(x)
    return x


def ulp_errors(y, exact, mp):
    info = np.finfo(y.dtype)
    for got, want in zip(y.tolist(), exact, strict=True):
        exponent = max(mp.frexp(want)[1] - 1, info.minexp) if want else info.minexp
        yield float(abs(got - want) / mp.ldexp(1, exponent - info.nmant))


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_hard_arguments(dtype, name):
    mp = pytest.importorskip("mpmath").mp.clone()
    mp.prec = 1200
    x = hard(dtype)
    exact = [getattr(mp, name)(mp.mpf(v)) for v in x.tolist()]
    y = getattr(fl, name)(x)
    assert y.dtype == dtype
    errors = list(ulp_errors(y, exact, mp))
    worst = int(np.argmax(errors))
    limit = 0.501 if dtype == np.float32 else 0.8  # below the promise: what the steps add up to
    assert errors[worst] <= limit, f"{errors[worst]:.3f} ULP at {x[worst]!r}: {y[worst]!r}"


def test_a_far_argument_changes_no_neighbour(dtype):
    near = np.linspace(-90, 90, 67, dtype=dtype)
    for f in (fl.sin, fl.cos):
        expected = f(near)
        for far in (dtype(2.0**28), dtype(-1e30), dtype(np.nan), dtype(np.inf)):
            alone = f(np.array([far]))[0]
            for lane in range(67):
                x = near.copy()
                x[lane] = far
                wanted = expected.copy()
                wanted[lane] = alone
                assert_same_bits(f(x), wanted)


def test_one_is_odd_and_one_even(dtype):
    x = hard(dtype)
    assert_same_bits(fl.sin(-x), -fl.sin(x))
    assert_same_bits(fl.cos(-x), fl.cos(x))
    assert_same_bits(fl.cos(dtype(0) * x), np.ones_like(x))


def test_in_layers_and_networks(rng, dtype):
    weight, bias = rng.normal(size=(33, 20)).astype(dtype), rng.normal(size=33).astype(dtype)
    x = rng.normal(size=(7, 20)).astype(dtype)
    z = fl.linear(x, weight, bias)
    for name in ("sin", "cos"):
        f = getattr(fl, name)
        net = fl.Network([fl.Layer.from_arrays(weight, bias, name), fl.Activation(name)])
        assert_same_bits(fl.linear(x, weight, bias, name), f(z))
        assert_same_bits(net(x), f(f(z)))
