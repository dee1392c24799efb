"""The error bound of the sum on more than 10^5 dot products of each dtype, benign and hostile."""

import numpy as np
import pytest
from helpers import linear_bound, ref_linear, wide_type

import fastlayer as fl

KS = [1, 7, 100, 255, 256, 257, 600, 1000, 2048]
ROWS, COLUMNS = 61, 64


def normal(rng, k, dtype):
    x, w, b = rng.standard_normal((ROWS, k)), rng.standard_normal((COLUMNS, k)), 1.0
    return x.astype(dtype), w.astype(dtype), np.full(COLUMNS, b, dtype)


def spread(rng, k, dtype):
    """Magnitudes over 24 binary orders, so that small terms meet large partial sums."""
    x, w, b = normal(rng, k, dtype)
    return x * np.exp2(rng.integers(-12, 12, x.shape)).astype(dtype), w, b


def cancelling(rng, k, dtype):
    """Every product has an opposite somewhere; the exact sum is the bias."""
    x, w, b = normal(rng, k, dtype)
    half = k // 2
    order = rng.permutation(k)
    x[:, order[half : 2 * half]] = -x[:, order[:half]]
    w[:, order[half : 2 * half]] = w[:, order[:half]]
    x[:, order[2 * half :]] = 0
    return x, w, b


def ill_conditioned(rng, k, dtype):
    """Large terms that cancel, and small ones that decide."""
    x, w, b = cancelling(rng, k, dtype)
    scale = np.where(rng.random(k) < 0.5, 1, 2.0**20).astype(dtype)
    return x * scale + normal(rng, k, dtype)[0] * dtype(2.0**-20), w, b


KINDS = [normal, spread, cancelling, ill_conditioned]


def test_there_are_enough_cases():
    assert len(KINDS) * len(KS) * ROWS * COLUMNS >= 10**5


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_error_bound_holds(rng, dtype, kind, k):
    x, w, b = kind(rng, k, dtype)
    wide = wide_type(dtype)
    magnitude = np.abs(b).astype(wide) + np.abs(x).astype(wide) @ np.abs(w).astype(wide).T
    # What the reference itself may be off by: k + 1 roundings in the wide type.
    slack = (k + 1) * np.finfo(wide).eps * magnitude
    error = np.abs(fl.linear(x, w, b).astype(wide) - ref_linear(x, w, b))
    assert np.all(error <= linear_bound(x, w, b) + slack)
    # A dot product is worth testing only where it is hard: its terms outweigh their sum.
    if kind is not normal and k > 255:
        assert np.median(magnitude / np.abs(ref_linear(x, w, b))) > 5
