"""A row's bits depend on that row and the weights alone, and the sum is the plain one."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from helpers import (
    FLOATS,
    LAYOUTS,
    SAME_VALUES,
    active_isa,
    assert_same_bits,
    available_isas,
    fma,
    plain_sum,
    requested_isa,
)

import fastlayer as fl

KS = [1, 2, 255, 256, 257, 511, 512, 513, 784, 1000]
LONG = 4097
NS = range(1, 71)
# Every n at one k or more and every k at several n: what the tiles can do, below and above a block.
PAIRS = sorted(
    {(KS[3 * n % 10], n) for n in NS}
    | {(k, 7 * i % 70 + 1) for i, k in enumerate(KS * 2)}
    | {(LONG, n) for n in (1, 10, 33)}
)
BATCHES = [*range(1, 68), 257]
FEW_BATCHES = [1, 2, 3, 5, 8, 16, 33, 67, 257]


@pytest.fixture(params=FLOATS, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def deep(rng, k, n, dtype):
    """k - n - 19 - 3, with activations that mix and that don't."""
    sizes = [k, n, 19, 3]
    return fl.Network(
        [
            fl.Layer.from_arrays(normal(rng, (o, i), dtype) / i, normal(rng, o, dtype), act)
            for i, o, act in zip(sizes, sizes[1:], ["relu", "tanh", "softmax"], strict=False)
        ]
    )


def test_the_cases_cover_every_n():
    assert {n for _, n in PAIRS} == set(NS)
    assert {k for k, _ in PAIRS} == {*KS, LONG}


# --- the environment


def test_the_requested_instruction_set_is_active_or_else_the_best():
    assert available_isas()[-1] == "scalar"
    assert active_isa() == (requested_isa() or available_isas()[0])


# --- rows


@pytest.mark.parametrize(("k", "n"), PAIRS)
def test_a_batch_is_its_rows_one_by_one(rng, threads, dtype, k, n):
    w, b = normal(rng, (n, k), dtype), normal(rng, n, dtype)
    layer = fl.Layer.from_arrays(w, b, "gelu")
    x = normal(rng, (257, k), dtype)
    alone = np.stack([layer(row) for row in x])
    for m in BATCHES if threads == 1 and k != LONG else FEW_BATCHES:
        assert_same_bits(layer(x[:m]), alone[:m])
        assert_same_bits(layer(x[257 - m :]), alone[257 - m :])


@pytest.mark.parametrize(("k", "n"), PAIRS[::3])
def test_functions_on_batches_and_on_rows(rng, threads, dtype, k, n):
    w, b, x = normal(rng, (n, k), dtype), normal(rng, n, dtype), normal(rng, (67, k), dtype)
    alone = np.stack([fl.linear(row, w, b) for row in x])
    products = np.stack([fl.matmul(row, w.T) for row in x])
    for m in (1, 2, 3, 4, 7, 8, 13, 32, 67):
        assert_same_bits(fl.linear(x[:m], w, b), alone[:m])
        assert_same_bits(fl.matmul(x[:m], w.T), products[:m])
        assert_same_bits(fl.matmul(w, x[:m].T), products[:m].T)
        assert_same_bits(fl.dot(x[:m], w[0]), products[:m, 0])
    assert_same_bits(np.array([fl.dot(row, w[-1]) for row in x]), products[:, -1])


@pytest.mark.parametrize(("k", "n"), [(1, 1), (3, 8), (17, 40), (256, 9), (784, 32)])
def test_networks(rng, threads, dtype, k, n):
    net = deep(rng, k, n, dtype)
    x = normal(rng, (257, k), dtype)
    alone = np.stack([net(row) for row in x])
    for m in BATCHES if threads == 1 else (1, 2, 5, 16, 67, 257):
        assert_same_bits(net(x[:m]), alone[:m])
    order = rng.permutation(257)
    assert_same_bits(net(x[order]), alone[order])
    for cut in (1, 100, 128, 200):
        assert_same_bits(np.concatenate([net(x[:cut]), net(x[cut:])]), alone)
    for size in (1, 7, 64, 300):
        assert_same_bits(net.predict(x, batch_size=size), alone)


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_row_at_every_place_of_a_batch(rng, dtype):
    net = deep(rng, 300, 33, dtype)
    x = normal(rng, (257, 300), dtype)
    row = normal(rng, 300, dtype)
    expected, others = net(row), net(x)
    for place in range(257):
        batch = x.copy()
        batch[place] = row
        y = net(batch)
        assert_same_bits(y[place], expected)
        y[place] = others[place]
        assert_same_bits(y, others)  # no other row has changed


@pytest.mark.parametrize(("m", "k", "n"), [(1, 300, 7), (5, 257, 64), (40, 600, 33), (200, 64, 10)])
def test_forms_of_a_product(rng, threads, dtype, m, k, n):
    w, x = normal(rng, (n, k), dtype), normal(rng, (m, k), dtype)
    expected = fl.linear(x, w)
    wide = np.zeros((k, 2 * n), dtype)
    wide[:, ::2] = w.T
    for weight in (w.T, np.ascontiguousarray(w.T), wide[:, ::2], w[::-1].copy()[::-1].T):
        assert_same_bits(fl.matmul(x, weight), expected)
        assert_same_bits(fl.matmul(np.asfortranarray(x), weight), expected)
    stacked = fl.matmul(np.stack([x, -x, x]), w.T)
    assert_same_bits(stacked[0], expected)
    assert_same_bits(stacked[2], expected)
    assert_same_bits(fl.matmul(x, np.stack([w.T, w.T]))[1], expected)
    assert_same_bits(fl.matmul(w, x.T), np.ascontiguousarray(expected.T))
    zeros = np.zeros(n, dtype)
    assert_same_bits(fl.linear(x, w, zeros), expected)
    assert_same_bits(fl.Layer.from_arrays(w)(x), expected)
    assert_same_bits(fl.Network([fl.Layer.from_arrays(w.T, layout="in_out")])(x), expected)
    out = np.empty((m, 2 * n), dtype)[:, ::-2]
    assert_same_bits(fl.linear(x, w, out=out), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_row_stays_alone(rng, dtype, bad):
    net = deep(rng, 40, 17, dtype)
    x = normal(rng, (67, 40), dtype)
    expected = net(x)
    for place in range(67):
        batch = x.copy()
        batch[place, place % 40] = bad
        y = net(batch)
        y[place] = expected[place]
        assert_same_bits(y, expected)


@pytest.mark.parametrize("layout", SAME_VALUES)
def test_layouts(rng, threads, dtype, layout):
    for k, n in [(1, 5), (257, 17), (513, 40)]:
        net = deep(rng, k, n, dtype)
        for m in (1, 6, 67):
            x = normal(rng, (m, k), dtype)
            assert_same_bits(net(LAYOUTS[layout](x)), net(x))


@pytest.mark.thread_unsafe(reason="counts the parallel regions of the process")
@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 5000, 2500), (3, 3000, 2500), (2000, 300, 70), (50000, 64, 10)]
)
def test_thread_counts(rng, dtype, m, k, n):
    """Large enough that more than one thread has work, split by rows or by outputs."""
    w, b, x = normal(rng, (n, k), dtype), normal(rng, n, dtype), normal(rng, (m, k), dtype)
    layer = fl.Layer.from_arrays(w, b, "sigmoid")
    openmp = fl._core.config()["openmp"]
    results = []
    for count in (1, 2, 3, 4, 7):
        with fl.num_threads(count):
            assert fl.get_num_threads() == count
            regions = fl._core.stats()["parallel_regions"]
            results.append((layer(x), fl.linear(x, w, b), fl.matmul(x, w.T)))
            parallel = fl._core.stats()["parallel_regions"] - regions
            assert parallel >= 3 if count > 1 and openmp else parallel == 0
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            assert_same_bits(actual, expected)


# --- the sum


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_emulated_fma_rounds_correctly(rng, dtype):
    count = 2000
    a, b = normal(rng, count, dtype), normal(rng, count, dtype)
    exponent = rng.integers(-30, 31, count)
    c = np.ldexp(normal(rng, count, dtype), exponent).astype(dtype)
    c[::3] = -a[::3] * b[::3]  # cancels all but the product's rounding error
    c[::7] = 0
    halfway = slice(1, None, 11)  # products of few bits: sums that are exact ties
    a[halfway], b[halfway] = 1 + np.finfo(dtype).eps, 0.5
    c[halfway] = rng.integers(1, 9, c[halfway].shape)
    for r, x, y, z in zip(fma(a, b, c), a, b, c, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        error = abs(Fraction(float(r)) - exact)
        for side in (-np.inf, np.inf):
            other = abs(Fraction(float(np.nextafter(r, dtype(side)))) - exact)
            even = int(np.asarray(r).view(f"u{r.itemsize}")) & 1 == 0
            assert error < other or (error == other and even)


@pytest.mark.parametrize("n", [1, 3, 17, 40])
@pytest.mark.parametrize("k", [0, 3, *KS])
def test_the_sum_is_the_plain_one(rng, dtype, k, n):
    w, b = normal(rng, (n, k), dtype), normal(rng, n, dtype)
    x = normal(rng, (7, k), dtype)
    for bias in (None, b):
        expected = plain_sum(x, w, bias)
        assert_same_bits(fl.linear(x, w, bias), expected)
        assert_same_bits(fl.linear(x[0], w, bias), expected[0])
        assert_same_bits(fl.Layer.from_arrays(w, bias)(x), expected)
        assert_same_bits(fl.Layer.from_arrays(w, bias)(x[6]), expected[6])
    product = plain_sum(x, w)
    assert_same_bits(fl.matmul(x, w.T), product)
    assert_same_bits(fl.matmul(w, x.T), product.T)
    assert_same_bits(fl.matmul(w, x[2]), product[2])
    assert_same_bits(fl.dot(x[1], w[0]), product[1, 0])


@pytest.mark.parametrize("shape", [(40,), (1,), (6, 1), (6, 40)], ids=str)
def test_the_bias_comes_first_whatever_its_shape(rng, dtype, shape):
    x, w, b = normal(rng, (6, 513), dtype), normal(rng, (40, 513), dtype), normal(rng, shape, dtype)
    assert_same_bits(fl.linear(x, w, b), plain_sum(x, w, b))


# --- instruction sets

DIGEST = """
import hashlib, numpy as np, fastlayer as fl
digest = hashlib.sha256()
for dtype in (np.float32, np.float64):
    rng = np.random.default_rng(11)
    draw = lambda *s: rng.standard_normal(s).astype(dtype)
    for m, k, n in [(1, 1, 1), (1, 784, 40), (5, 257, 17), (33, 64, 65), (67, 513, 3)]:
        x, w, b = draw(m, k), draw(n, k), draw(n)
        digest.update(fl.linear(x, w, b).tobytes())
        digest.update(fl.Layer.from_arrays(w, b)(x).tobytes())
        digest.update(fl.matmul(x, w.T).tobytes())
    x = np.concatenate([np.linspace(-110, 110, 20011), np.linspace(-8, 8, 20011)]).astype(dtype)
    for name in NAMES:
        digest.update(getattr(fl, name)(x).tobytes())
        digest.update(getattr(fl, name)(x[:37 * 41].reshape(37, 41)).tobytes())
print(digest.hexdigest())
"""


def test_instruction_sets_have_the_same_bits():
    from helpers import REFERENCES

    code = DIGEST.replace("NAMES", repr(list(REFERENCES)))
    digests = {
        isa: subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "FASTLAYER_ISA": isa},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for isa in available_isas()
    }
    assert len(set(digests.values())) == 1, digests
