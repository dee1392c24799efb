"""Every activation: accuracy, special values, tails, axes, out=, fusing, threads."""

import copy
import math

import numpy as np
import pytest
from helpers import (
    ELEMENTWISE,
    FLOATS,
    REFERENCES,
    ULP_LIMITS,
    assert_same_bits,
    assert_within,
    reference,
    ulp_error,
    wide_type,
)

import fastlayer as fl

CONFIGURED = [
    ("leaky_relu", {"negative_slope": 0.1}),
    ("leaky_relu", {"negative_slope": 0.25}),
    ("hardtanh", {"min_val": -2.0, "max_val": 3.0}),
    ("elu", {"alpha": 0.5}),
    ("celu", {"alpha": 2.0}),
    ("gelu", {"approximate": "tanh"}),
    ("softplus", {"beta": 2.0, "threshold": 10.0}),
    ("threshold", {"threshold": 1.5, "value": -7.0}),
    ("hardshrink", {"lambd": 2.0}),
    ("softshrink", {"lambd": 0.0}),
]
CASES = [(name, {}) for name in ELEMENTWISE] + CONFIGURED
IDS = [f"{name}{'-'.join(['', *map(str, p.values())])}" for name, p in CASES]
all_cases = pytest.mark.parametrize(("name", "parameters"), CASES, ids=IDS)


@pytest.fixture(params=FLOATS, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def sample(dtype, size):
    """Finite numbers at an even stride of bit patterns, and an even grid where curves bend."""
    bits = np.dtype(dtype).itemsize * 8
    stride = 2**bits // size | 1
    patterns = (np.arange(size, dtype=np.uint64) * np.uint64(stride)).astype(f"u{bits // 8}")
    reach = 150 if dtype == np.float32 else 760
    x = np.concatenate(
        [
            patterns.view(dtype),
            np.linspace(-reach, reach, size // 2, dtype=dtype),
            np.linspace(-9, 9, size // 2, dtype=dtype),
        ]
    )
    x = x[np.isfinite(x)]
    np.random.default_rng(3).shuffle(x)  # any value in any lane
    return x


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


# --- accuracy


@all_cases
def test_accuracy(dtype, name, parameters):
    if dtype == np.float64:
        if np.finfo(np.longdouble).nmant < 63:
            pytest.skip("no type wider than float64 here")
        if name == "gelu":
            pytest.importorskip("mpmath")
    size = 500_000 if dtype == np.float32 else 4_000 if name == "gelu" else 50_000
    x = sample(dtype, size)
    with np.errstate(all="raise"):
        y = getattr(fl, name)(x, **parameters)
    exact = reference(name, x, dtype, **parameters)
    assert_limit(name, x, y, exact)


@all_cases
def test_the_same_bits_beside_any_others(dtype, name, parameters):
    """Numbers in order share vectors with their like, where a function may take a shorter way."""
    f = getattr(fl, name)
    x = sample(dtype, 20_000)
    order = np.argsort(x)
    assert_same_bits(f(x, **parameters)[order], f(x[order], **parameters))


def assert_limit(name, x, y, exact):
    error = ulp_error(y, exact)
    worst = np.argmax(error)
    limit = ULP_LIMITS[name][y.dtype == np.float64]
    assert error[worst] <= limit, f"{error[worst]:.3f} ULP > {limit} at {x[worst]!r}: {y[worst]!r}"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("elu", {"alpha": 0.7}),
        ("celu", {"alpha": 0.7}),
        ("softplus", {"beta": 0.7, "threshold": 60.0}),
    ],
)
def test_accuracy_with_other_parameters(dtype, name, parameters):
    x = sample(dtype, 5_000)
    y, exact = getattr(fl, name)(x, **parameters), reference(name, x, dtype, **parameters)
    assert_limit(name, x, y, exact)


# --- softmax and log_softmax


def softmax_bound(exact, n, dtype):
    """numerics.md: 4 + log2(n) eps relative, plus what underflow takes.

    Below the normal range an exp of 1 ULP is off by one subnormal, and a quotient by half of one;
    log_softmax of a row's peak is minus the sum of n - 1 such exps.
    """
    info = np.finfo(dtype)
    underflow = (n + 0.5) * wide_type(dtype)(info.smallest_subnormal)
    return (4 + math.log2(n)) * info.eps * np.abs(exact) + underflow


@pytest.mark.parametrize("spread", [1, 5, 30, 200])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_accuracy(rng, dtype, name, spread):
    for n in [*range(1, 68), 257, 1000]:
        x = spread * normal(rng, (5, n), dtype)
        y = getattr(fl, name)(x)
        exact = reference(name, x, dtype)
        assert y.dtype == dtype
        assert_within(y, exact, softmax_bound(exact, n, dtype))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_axes(rng, dtype, name):
    f = getattr(fl, name)
    x = normal(rng, (3, 20, 5), dtype)
    for axis in range(-3, 3):
        expected = np.moveaxis(f(np.ascontiguousarray(np.moveaxis(x, axis, -1))), -1, axis)
        assert_same_bits(f(x, axis=axis), expected)
        out = np.full_like(x, np.nan)
        assert f(x, axis=axis, out=out) is out
        assert_same_bits(out, expected)
    for axis in (3, -4):
        with pytest.raises(ValueError, match="axis"):
            f(x, axis=axis)


@pytest.mark.parametrize(
    "shape", [(0,), (0, 5), (5, 0), (2, 0, 3), (1,), (4, 1), (1, 1, 1)], ids=str
)
def test_softmax_of_nothing_and_of_one(dtype, shape):
    x = np.full(shape, -3.5, dtype)
    assert_same_bits(fl.softmax(x), np.ones(shape, dtype))
    assert (fl.log_softmax(x) == np.zeros(shape, dtype)).all()
    assert fl.log_softmax(x).shape == shape


@pytest.mark.parametrize("n", [2, 3, 9, 17, 67])
def test_softmax_special_rows(rng, dtype, n):
    inf = np.inf
    plain = normal(rng, n, dtype)
    for lane in range(n):
        some, nan, plus = plain.copy(), plain.copy(), plain.copy()
        some[lane], nan[lane], plus[lane] = -inf, np.nan, inf
        rows = np.stack([plain, some, nan, plus, np.full(n, -inf, dtype), plain])
        for name in ("softmax", "log_softmax"):
            f = getattr(fl, name)
            y = f(rows)
            assert_same_bits(y[[0, 5]], np.stack([f(plain)] * 2))
            assert np.isnan(y[2:5]).all()
            assert y[1, lane] == (0 if name == "softmax" else -inf)
            rest = np.delete(some, lane)
            exact = reference(name, rest, dtype)
            assert_within(np.delete(y[1], lane), exact, softmax_bound(exact, n, dtype))


def test_softmax_between_arrays_whose_rows_lie_differently_far_apart(rng, dtype):
    for f in (fl.softmax, fl.log_softmax):
        for m, n in ((1, 10), (40, 10), (40, 200)):
            x, out = normal(rng, (m, n + 3), dtype)[:, :n], np.full((m, n + 7), 7, dtype)
            f(x, out=out[:, :n])
            assert_same_bits(np.ascontiguousarray(out[:, :n]), f(np.ascontiguousarray(x)))
            assert (out[:, n:] == 7).all()


def test_softmax_does_not_overflow(dtype):
    top = np.finfo(dtype).max
    x = np.array([[top, top], [-top, -top], [top, -top], [1000, 0]], dtype)
    expected = np.array([[0.5, 0.5], [0.5, 0.5], [1, 0], [1, 0]], dtype)
    with np.errstate(all="raise"):
        assert_same_bits(fl.softmax(x), expected)


# --- special values

INF, NAN = np.inf, np.nan
MAX = "max"  # the largest number of the dtype
# f at +inf, -inf, -0.0, max, -max. 0.0 stands for either zero, "-0" for -0.0, None for no promise.
SPECIAL = {
    "identity": (INF, -INF, "-0", MAX, "-max"),
    "relu": (INF, 0.0, "-0", MAX, 0.0),
    "leaky_relu": (INF, -INF, "-0", MAX, None),
    "relu6": (6.0, 0.0, 0.0, 6.0, 0.0),
    "hardtanh": (1.0, -1.0, "-0", 1.0, -1.0),
    "elu": (INF, -1.0, "-0", MAX, -1.0),
    "celu": (INF, -1.0, "-0", MAX, -1.0),
    "selu": (INF, -1.7580993408473766, "-0", INF, -1.7580993408473766),
    "gelu": (INF, 0.0, "-0", MAX, 0.0),
    "silu": (INF, 0.0, "-0", MAX, 0.0),
    "mish": (INF, 0.0, "-0", MAX, 0.0),
    "sigmoid": (1.0, 0.0, 0.5, 1.0, 0.0),
    "log_sigmoid": (0.0, -INF, None, 0.0, "-max"),
    "hardsigmoid": (1.0, 0.0, 0.5, 1.0, 0.0),
    "hardswish": (INF, 0.0, 0.0, MAX, 0.0),
    "tanh": (1.0, -1.0, "-0", 1.0, -1.0),
    "softplus": (INF, 0.0, None, MAX, 0.0),
    "softsign": (1.0, -1.0, "-0", 1.0, -1.0),
    "exp": (INF, 0.0, 1.0, INF, 0.0),
    "sin": (NAN, NAN, "-0", None, None),
    "cos": (NAN, NAN, 1.0, None, None),
    "sqrt": (INF, NAN, "-0", None, NAN),
    "threshold": (INF, 0.0, 0.0, MAX, 0.0),
    "hardshrink": (INF, -INF, 0.0, MAX, "-max"),
    "softshrink": (INF, -INF, 0.0, MAX, "-max"),
}


def special_values(name, dtype):
    top = np.finfo(dtype).max
    names = {"max": top, "-max": -top, "-0": dtype(-0.0)}
    inputs = [INF, -INF, -0.0, top, -top]
    for x, expected in zip(inputs, SPECIAL[name], strict=True):
        if expected is not None:
            yield dtype(x), expected, dtype(names.get(expected, expected))
    yield dtype(NAN), NAN, dtype(NAN)


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values_in_every_lane(dtype, name):
    f = getattr(fl, name)
    plain = np.linspace(-2, 2, 67, dtype=dtype)
    expected = f(plain)
    with np.errstate(all="raise"):
        for x, rule, wanted in special_values(name, dtype):
            for lane in range(67):
                array = plain.copy()
                array[lane] = x
                y = f(array)
                got = y[lane]
                if np.isnan(wanted):
                    assert np.isnan(got), (x, lane)
                elif name == "selu" and np.isfinite(wanted):
                    assert ulp_error(y[lane : lane + 1], wanted) <= 2.5
                else:
                    assert got == wanted, (x, lane, got)
                    if rule == "-0":
                        assert np.signbit(got), (x, lane)
                y[lane] = expected[lane]
                assert_same_bits(y, expected)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_nan_keeps_its_sign_and_payload(dtype, name):
    bits = np.finfo(dtype).bits
    quiet = int(np.array(NAN, dtype).view(f"u{bits // 8}"))
    patterns = [quiet | payload | sign << bits - 1 for payload in (0, 1, 0x1234) for sign in (0, 1)]
    nans = np.array(patterns * 12, f"u{bits // 8}")[:67]
    y = getattr(fl, name)(nans.view(dtype))
    assert np.array_equal(y.view(nans.dtype), nans)


def test_every_activation_has_special_values():
    assert set(SPECIAL) == set(ELEMENTWISE)


@pytest.mark.parametrize(
    "name",
    [
        *("identity", "relu", "leaky_relu", "hardtanh", "relu6", "elu", "celu", "tanh", "softsign"),
        *("sin", "threshold"),
    ],
)
def test_subnormals_are_kept(dtype, name):
    info = np.finfo(dtype)
    x = np.linspace(info.smallest_subnormal, info.smallest_normal, 67, dtype=dtype)
    assert_same_bits(getattr(fl, name)(x), x)  # f(x) = x (1 + O(x)), or x itself
    y = getattr(fl, name)(-x)
    if name in ("elu", "celu", "tanh", "softsign", "identity", "hardtanh", "sin"):
        assert_same_bits(y, -x)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_limits(dtype, approximate):
    x = np.array([INF, -INF, NAN, np.finfo(dtype).max, -np.finfo(dtype).max], dtype)
    y = fl.gelu(x, approximate=approximate)
    assert y[0] == INF
    assert y[1] == y[4] == 0
    assert np.isnan(y[2])
    assert y[3] == x[3]


# --- shapes, tails, out=


@all_cases
def test_every_length_has_the_same_bits(rng, dtype, name, parameters):
    f = getattr(fl, name)
    x = 3 * normal(rng, 67, dtype)
    expected = f(x, **parameters)
    for n in range(68):
        assert_same_bits(f(x[:n], **parameters), expected[:n])
        assert_same_bits(f(x[67 - n :], **parameters), expected[67 - n :])
    for i in range(67):
        assert_same_bits(np.asarray(f(x[i], **parameters)), expected[i])


@all_cases
def test_shapes_and_out(rng, dtype, name, parameters):
    f = getattr(fl, name)
    x = 3 * normal(rng, (4, 3, 7), dtype)
    expected = f(x.reshape(-1), **parameters).reshape(x.shape)
    assert_same_bits(f(x, **parameters), expected)
    assert_same_bits(f(x.T, **parameters), expected.T)
    assert_same_bits(f(x[::2, ::-1, 1::3], **parameters), expected[::2, ::-1, 1::3])
    for out in (
        np.empty_like(x),
        np.empty_like(x, order="F"),
        np.empty((8, 3, 14), dtype)[::2, :, ::2],
    ):
        assert f(x, out=out, **parameters) is out
        assert_same_bits(out, expected)
    kept = x.copy()
    assert f(x, out=x, **parameters) is x
    assert_same_bits(x, expected)
    buffer = np.concatenate([kept.reshape(-1), np.zeros(5, dtype)])
    f(buffer[:84], out=buffer[5:], **parameters)  # overlaps: as if it did not
    assert_same_bits(buffer[5:], expected.reshape(-1))


@pytest.mark.parametrize("name", REFERENCES)
def test_dtypes(name):
    f = getattr(fl, name)
    for dtype in ("?", "i1", "u1", "i8", "u8"):
        x = np.array([[0, 1, 1, 0]], dtype)
        assert_same_bits(f(x), f(x.astype(np.float64)))
    x = np.array([[-2, -0.5, 0, 0.25, 3]], np.float16)
    assert_same_bits(f(x), f(x.astype(np.float32)).astype(np.float16))
    assert_same_bits(f([[1, 2, 3]]), f(np.array([[1.0, 2.0, 3.0]])))


def test_defaults_and_aliases(rng, dtype):
    x = 4 * normal(rng, 257, dtype)
    for name, parameters in [
        ("leaky_relu", {"negative_slope": 0.01}),
        ("hardtanh", {"min_val": -1, "max_val": 1}),
        ("elu", {"alpha": 1}),
        ("celu", {"alpha": 1}),
        ("gelu", {"approximate": "none"}),
        ("softplus", {"beta": 1, "threshold": 20}),
        ("threshold", {"threshold": 0, "value": 0}),
        ("hardshrink", {"lambd": 0.5}),
        ("softshrink", {"lambd": 0.5}),
        ("softmax", {"axis": -1}),
        ("log_softmax", {"axis": -1}),
    ]:
        assert_same_bits(getattr(fl, name)(x), getattr(fl, name)(x, **parameters))
    assert_same_bits(fl.swish(x), fl.silu(x))
    assert_same_bits(fl.logistic(x), fl.sigmoid(x))


def test_prelu(rng, dtype):
    x, slope = normal(rng, (6, 19), dtype), normal(rng, 19, dtype)
    assert_same_bits(fl.prelu(x, slope), np.where(x > 0, x, slope * x))
    assert_same_bits(fl.prelu(x, dtype(0.25)), np.where(x > 0, x, dtype(0.25) * x))
    assert_same_bits(fl.prelu(x, dtype(0.25)), fl.leaky_relu(x, negative_slope=0.25))
    expected = fl.prelu(x, slope)
    assert fl.prelu(x, slope, out=x) is x
    assert_same_bits(x, expected)


def test_bad_parameters():
    x = np.ones(3)
    with pytest.raises(ValueError, match="approximate"):
        fl.gelu(x, approximate="erf")
    with pytest.raises(ValueError, match="nosuch"):
        fl.Activation("nosuch")
    with pytest.raises(TypeError, match="slope"):
        fl.Activation("relu", slope=1)
    with pytest.raises(TypeError, match="'elu' has no parameter 'slope'; it takes alpha"):
        fl.Activation("elu", slope=1)
    with pytest.raises(TypeError, match="name must be a string, got 3"):
        fl.Activation(3)
    for slope in ("1", None, 1j):
        with pytest.raises(TypeError, match="negative_slope must be a real number, got"):
            fl.leaky_relu(x, negative_slope=slope)
    with pytest.raises(ValueError, match="negative_slope must be a number, got nan"):
        fl.leaky_relu(x, negative_slope=np.nan)
    with pytest.raises(ValueError, match=r"min_val=2.*greater than max_val=1"):
        fl.hardtanh(x, min_val=2, max_val=1)
    with pytest.raises(ValueError, match="celu: alpha must not be zero"):
        fl.celu(x, alpha=0)
    for beta in (0, -1):
        with pytest.raises(ValueError, match="softplus: beta must be positive"):
            fl.softplus(x, beta=beta)
    with pytest.raises(ValueError, match="softshrink: lambd must not be negative, got -1"):
        fl.softshrink(x, lambd=-1)
    for f in (fl.softmax, fl.log_softmax):
        with pytest.raises(ValueError, match="softmax needs an axis"):
            f(1.5)
        with pytest.raises(TypeError, match=r"axis must be an integer, got 0\.5"):
            f(x, axis=0.5)
        with pytest.raises(np.exceptions.AxisError):
            f(x, axis=-2)
    with pytest.raises(ValueError, match=r"weight of shape \(2,\) holds 2 slopes"):
        fl.prelu(x, np.ones(2))
    with pytest.raises(ValueError, match="must be a number, \\(1,\\) or"):
        fl.prelu(x, np.ones((1, 3)))


def test_an_activation_does_not_change():
    relu = fl.Activation("leaky_relu", negative_slope=0.5)
    for change in (lambda: setattr(relu, "name", "elu"), lambda: delattr(relu, "name")):
        with pytest.raises(AttributeError, match="can't be changed"):
            change()
    assert copy.copy(relu) is relu
    assert copy.deepcopy(relu) is relu
    assert relu != "leaky_relu"
    assert relu == fl.Activation("leaky_relu", negative_slope=0.5)


@pytest.mark.parametrize(("name", "parameters"), [("elu", {"alpha": 2}), ("leaky_relu", {})])
def test_out_of_float16(name, parameters):
    """The core computes in float32; the result is rounded into `out` once."""
    f = getattr(fl, name)
    x = np.array([[-2, -0.5, 0, 0.25, 65504]], np.float16)
    out = np.full(x.shape, 7, np.float16)
    assert f(x, out=out, **parameters) is out
    assert_same_bits(out, f(x, **parameters))


# --- fused, threaded


@pytest.mark.parametrize(
    ("name", "parameters"),
    [*CASES, ("softmax", {}), ("log_softmax", {})],
    ids=[*IDS, "softmax", "log_softmax"],
)
def test_fused_has_the_bits_of_the_function(rng, dtype, name, parameters):
    for k, n in [(9, 1), (9, 5), (300, 67)]:
        w, b, x = (3 * normal(rng, s, dtype) for s in ((n, k), n, (21, k)))
        f = getattr(fl, name)
        activation = fl.Activation(name, **parameters) if parameters else f
        z = fl.linear(x, w, b)
        expected = f(z, **parameters)
        for act in [activation] if parameters else [activation, name]:
            layer = fl.Layer.from_arrays(w, b, act)
            assert_same_bits(layer(x), expected)
            a, preactivation = layer.forward(x, return_preactivation=True)
            assert_same_bits(a, expected)
            assert_same_bits(preactivation, z)
            assert_same_bits(fl.linear(x, w, b, act), expected)
            assert_same_bits(fl.Network([fl.Layer.from_arrays(w, b), act])(x), expected)
            assert_same_bits(layer(x[0]), expected[0])
            assert_same_bits(fl.linear(x, w, b, act, out=np.empty_like(z)), expected)


BIG = 300_000


@pytest.fixture(scope="module")
def one_thread():
    """Results on one thread, per activation and dtype, kept for the runs on more."""
    kept = {}

    def get(name, parameters, x):
        key = name, str(parameters), x.dtype
        if key not in kept:
            with fl.num_threads(1):
                kept[key] = getattr(fl, name)(x, **parameters)
        return kept[key]

    return get


@pytest.mark.parametrize(
    ("name", "parameters"),
    [*CASES, ("softmax", {}), ("log_softmax", {})],
    ids=[*IDS, "softmax", "log_softmax"],
)
def test_threads_do_not_change_bits(threads, one_thread, dtype, name, parameters):
    x = np.linspace(-12, 9, BIG, dtype=dtype)
    if "softmax" in name:
        x = x.reshape(1000, 300)
    assert_same_bits(getattr(fl, name)(x, **parameters), one_thread(name, parameters, x))


def last_cache_bytes():
    return int(fl.show_config(mode="dicts")["caches"]["l3"].split()[0]) * 1024


def test_results_larger_than_the_caches(rng, threads, dtype):
    """These are stored past the caches: from and to any alignment, and not a byte beyond."""
    size = last_cache_bytes() // np.dtype(dtype).itemsize + 12345
    x = rng.normal(size=size + 3).astype(dtype)[3:]
    out = np.full(size + 2, 7, dtype)
    fl.relu(x, out=out[1:-1])
    assert_same_bits(out[1:-1], np.maximum(x, 0))
    assert (out[0], out[-1]) == (7, 7)
    expected = fl.tanh(x[-1000:])
    fl.tanh(x, out=x)
    assert_same_bits(x[-1000:], expected)


@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize("columns", [10, 125, 3000])
def test_softmax_larger_than_the_caches(rng, threads, columns, gap):
    rows = last_cache_bytes() // 4 // columns + 7
    x = rng.random((rows, columns), np.float32)
    out = np.full((rows, columns + gap), 7, np.float32)
    fl.softmax(x, out=out[:, :columns])
    some = slice(None, None, rows // 50)
    assert_same_bits(out[some, :columns], fl.softmax(x[some]))
    assert_same_bits(out[-1, :columns], fl.softmax(x[-1]))
    assert (out[:, columns:] == 7).all()
