"""activation_backward, linear_backward, dense_backward: accuracy, kinks, shapes, out=, threads."""

import math
import re

import numpy as np
import pytest
from helpers import (
    BLOCK,
    DERIVATIVES,
    ELEMENTWISE,
    FLOATS,
    LAYOUTS,
    SAME_VALUES,
    assert_same_bits,
    assert_within,
    plain_sum,
    reference,
    slope_limit,
    ulp_error,
    wide_type,
)
from test_activations import CASES, IDS, normal, sample

import fastlayer as fl

CONFIGURED = [
    ("elu", {"alpha": 1e30}),
    ("elu", {"alpha": -0.75}),
    ("celu", {"alpha": -0.75}),
    ("celu", {"alpha": 0.7}),
    ("softplus", {"beta": 0.7, "threshold": 60.0}),
    ("softplus", {"beta": 3.0, "threshold": -1.0}),
    ("leaky_relu", {"negative_slope": -2.0}),
    ("hardshrink", {"lambd": -1.0}),
]
SLOPES = [*CASES, *CONFIGURED]
SLOPE_IDS = [*IDS, *(f"{name}-{'-'.join(map(str, p.values()))}" for name, p in CONFIGURED)]
all_slopes = pytest.mark.parametrize(("name", "parameters"), SLOPES, ids=SLOPE_IDS)
ROWWISE = ["softmax", "log_softmax"]
everything = pytest.mark.parametrize(
    ("name", "parameters"),
    [*SLOPES, *((name, {}) for name in ROWWISE)],
    ids=[*SLOPE_IDS, *ROWWISE],
)
INF, NAN = np.inf, np.nan


@pytest.fixture(params=FLOATS, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def backward(da, z, name, parameters, **keywords):
    return fl.activation_backward(da, z, fl.Activation(name, **parameters), **keywords)


def slope(z, name, parameters):
    return backward(1.0, z, name, parameters)


# --- the derivatives


def needs_mpmath(name, parameters):
    return name == "gelu" or (name in ("celu", "softplus") and bool(parameters))


@all_slopes
def test_accuracy(dtype, name, parameters):
    size = 200_000
    if dtype == np.float64:
        if np.finfo(np.longdouble).nmant < 63:
            pytest.skip("no type wider than float64 here")
        size = 50_000
        if needs_mpmath(name, parameters):
            pytest.importorskip("mpmath")
            size = 4_000
    x = sample(dtype, size)
    with np.errstate(all="raise"):
        y = slope(x, name, parameters)
    exact = reference(name, x, dtype, functions=DERIVATIVES, **parameters)
    error = ulp_error(y, exact) / np.maximum(slope_limit(name, x, exact, dtype), 1e-9)
    worst = np.argmax(error)
    assert error[worst] <= 1, f"{error[worst]:.3f} of the limit at {x[worst]!r}: {y[worst]!r}"


@all_slopes
def test_the_same_bits_beside_any_others(dtype, name, parameters):
    """Numbers in order share vectors with their like, where a function may take a shorter way."""
    x = sample(dtype, 20_000)
    order = np.argsort(x)
    y = slope(x, name, parameters)
    assert_same_bits(y[order], slope(x[order], name, parameters))


@all_slopes
def test_the_gradient_is_multiplied_by_the_derivative(rng, dtype, name, parameters):
    z, da = 4 * normal(rng, 1000, dtype), normal(rng, 1000, dtype)
    with np.errstate(all="ignore"):
        expected = da * slope(z, name, parameters)
    assert_same_bits(backward(da, z, name, parameters), expected)


def test_slopes_of_subnormal_numbers_and_subnormal_slopes(dtype):
    info = np.finfo(dtype)
    tiny = np.linspace(-info.smallest_normal, info.smallest_normal, 67, dtype=dtype)
    for name, value in (("tanh", 1), ("softsign", 1), ("sigmoid", 0.25), ("gelu", 0.5)):
        assert_same_bits(slope(tiny, name, {}), np.full(67, value, dtype))
    reach = {np.float32: 103, np.float64: 744}[dtype]
    for name in ("sigmoid", "silu", "mish", "elu", "softplus"):
        y = slope(np.linspace(-reach, -reach + 9, 67, dtype=dtype), name, {})
        assert (y != 0).all()
        assert (np.abs(y[:30]) < info.smallest_normal).all()


# What PyTorch has at the kinks, as (parameters, {place: derivative}).
KINKS = {
    "relu": ({}, {0: 0}),
    "leaky_relu": ({"negative_slope": 0.25}, {0: 0.25}),
    "relu6": ({}, {0: 0, 6: 0}),
    "hardtanh": ({"min_val": -2, "max_val": 3}, {-2: 0, 3: 0}),
    "hardsigmoid": ({}, {-3: 0, 3: 0}),
    "hardswish": ({}, {-3: 0, 3: 1}),
    "elu": ({"alpha": 0.5}, {0: 0.5}),
    "celu": ({"alpha": 0.5}, {0: 1}),
    "selu": ({}, {0: 1.75809934084737686}),
    "threshold": ({"threshold": 1.5, "value": -7.0}, {1.5: 0}),
    "hardshrink": ({"lambd": 0.5}, {-0.5: 0, 0.5: 0}),
    "softshrink": ({"lambd": 0.5}, {-0.5: 0, 0.5: 0}),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks(dtype, name):
    parameters, places = KINKS[name]
    for at, value in places.items():
        for zero in (0.0, -0.0) if at == 0 else (at,):
            y = slope(np.full(67, zero, dtype), name, parameters)
            assert_same_bits(y, np.full(67, value, dtype))


TORCH = [
    *KINKS,
    *("gelu", "silu", "mish", "log_sigmoid", "softplus", "softsign", "tanh", "sigmoid"),
    *ROWWISE,
]


@pytest.mark.parametrize("name", TORCH)
def test_derivatives_are_those_of_torch(rng, name):
    torch = pytest.importorskip("torch")
    parameters, places = KINKS.get(name, ({}, {}))
    z = np.concatenate([4 * rng.standard_normal(400), [*places, 0.0, -0.0]])
    da = rng.standard_normal(z.size)
    keywords = {"dim": -1} if name in ROWWISE else parameters
    at = torch.from_numpy(z).requires_grad_()
    y = getattr(torch.nn.functional, name.replace("log_sig", "logsig"))(at, **keywords)
    (expected,) = torch.autograd.grad(y, at, torch.from_numpy(da))
    rtol = 3e-8 if name == "hardsigmoid" else 1e-11  # PyTorch's 1/6 is that of float32
    np.testing.assert_allclose(
        backward(da, z, name, parameters), expected.numpy(), rtol=rtol, atol=1e-14
    )


# f' at -inf, 0, inf. At -0.0 it is that of 0.0; None for no promise.
SPECIAL = {
    "identity": (1, 1, 1),
    "relu": (0, 0, 1),
    "leaky_relu": (0.01, 0.01, 1),
    "relu6": (0, 0, 0),
    "hardtanh": (0, 1, 0),
    "elu": (0, 1, 1),
    "celu": (0, 1, 1),
    "selu": (0, 1.75809934084737686, 1.0507009873554805),
    "gelu": (0, 0.5, 1),
    "silu": (0, 0.5, 1),
    "mish": (0, 0.6, 1),
    "sigmoid": (0, 0.25, 0),
    "log_sigmoid": (1, 0.5, 0),
    "hardsigmoid": (0, 1 / 6, 0),
    "hardswish": (0, 0.5, 1),
    "tanh": (0, 1, 0),
    "softplus": (0, 0.5, 1),
    "softsign": (0, 1, 0),
    "exp": (0, 1, INF),
    "sin": (NAN, 1, NAN),
    "cos": (NAN, 0, NAN),
    "sqrt": (NAN, INF, 0),
    "threshold": (0, 0, 1),
    "hardshrink": (1, 0, 1),
    "softshrink": (1, 0, 1),
}


def test_every_derivative_has_special_values():
    assert set(SPECIAL) == set(ELEMENTWISE) == set(DERIVATIVES)


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values_in_every_lane(dtype, name):
    plain = np.linspace(0.1, 2, 67, dtype=dtype)
    expected = slope(plain, name, {})
    low, zero, high = SPECIAL[name]
    cases = [(-INF, low), (INF, high), (0.0, zero), (-0.0, zero), (NAN, NAN)]
    if name not in ("sin", "cos", "sqrt"):  # the largest numbers have the limit's value
        cases += [(-np.finfo(dtype).max, low), (np.finfo(dtype).max, high)]
    with np.errstate(all="raise"):
        for x, wanted in cases:
            for lane in range(67):
                z = plain.copy()
                z[lane] = x
                y = slope(z, name, {})
                assert y[lane] == dtype(wanted) or (np.isnan(y[lane]) and np.isnan(wanted)), x
                y[lane] = expected[lane]
                assert_same_bits(y, expected)


@pytest.mark.parametrize(
    ("name", "parameters", "low", "high"),
    [
        ("celu", {"alpha": -0.75}, INF, 1),
        ("elu", {"alpha": 1e30}, 0, 1),
        ("softplus", {"beta": 2.0, "threshold": -5.0}, 0, 1),
        ("leaky_relu", {"negative_slope": INF}, INF, 1),
        ("hardtanh", {"min_val": -INF, "max_val": INF}, 0, 0),
        ("gelu", {"approximate": "tanh"}, 0, 1),
    ],
)
def test_limits_with_parameters(dtype, name, parameters, low, high):
    y = slope(np.array([-INF, INF, NAN] * 9, dtype), name, parameters)
    assert_same_bits(y + dtype(0), np.array([low, high, NAN] * 9, dtype))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_nan_keeps_its_sign_and_payload(dtype, name):
    bits = np.finfo(dtype).bits
    quiet = int(np.array(NAN, dtype).view(f"u{bits // 8}"))
    patterns = [quiet | payload | sign << bits - 1 for payload in (0, 1, 0x1234) for sign in (0, 1)]
    nans = np.array(patterns * 12, f"u{bits // 8}")[:67]
    y = slope(nans.view(dtype), name, {})
    assert np.array_equal(y.view(nans.dtype), nans)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_nan_of_the_gradient_stays_in_its_element(rng, dtype, name):
    z, da = np.abs(normal(rng, 67, dtype)), normal(rng, 67, dtype)
    expected = backward(da, z, name, {})
    da[5] = NAN
    y = backward(da, z, name, {})
    assert np.isnan(y[5])
    assert_same_bits(np.delete(y, 5), np.delete(expected, 5))


# --- softmax and log_softmax


def softmax_backward_and_bound(name, da, z, dtype):
    """The product with the Jacobian; numerics.md: off by (8 + 2 log2(n)) eps of what is added.

    That is what p may be off by, once for itself and once in the sum. Below the normal range p is
    off by n + 1/2 subnormals, as in `softmax_bound`.
    """
    info, n = np.finfo(dtype), z.shape[-1]
    p, da = reference("softmax", z, dtype), da.astype(wide_type(dtype))

    def total(a):
        return np.sum(a, axis=-1, keepdims=True)

    if name == "softmax":
        exact = p * (da - total(da * p))
        size = p * (np.abs(da) + total(np.abs(da) * p))
        of_p = np.abs(da) + total(np.abs(da) * p) + p * total(np.abs(da))
    else:
        exact = da - p * total(da)
        size = np.abs(da) + p * total(np.abs(da))
        of_p = total(np.abs(da))
    tiny = wide_type(dtype)(info.smallest_subnormal)
    return exact, (8 + 2 * math.log2(n)) * info.eps * size + (n + 0.5) * tiny * of_p + tiny


@pytest.mark.parametrize("spread", [1, 30])
@pytest.mark.parametrize("name", ROWWISE)
def test_softmax_accuracy(rng, dtype, name, spread):
    for n in [*range(1, 68), 257, 1000, 70_000]:
        z, da = spread * normal(rng, (3, n), dtype), normal(rng, (3, n), dtype)
        exact, bound = softmax_backward_and_bound(name, da, z, dtype)
        assert_within(backward(da, z, name, {}), exact, bound)


@pytest.mark.parametrize("name", ROWWISE)
def test_softmax_axes(rng, dtype, name):
    z, da = normal(rng, (3, 20, 5), dtype), normal(rng, (3, 20, 5), dtype)
    for axis in range(-3, 3):
        rows = [np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in (da, z)]
        expected = np.moveaxis(backward(*rows, name, {}), -1, axis)
        assert_same_bits(backward(da, z, name, {"axis": axis}), expected)
        out = np.full_like(z, NAN)
        assert backward(da, z, name, {"axis": axis}, out=out) is out
        assert_same_bits(out, expected)
        for of in (0, 1):
            given = [da.copy(), z.copy()]
            backward(*given, name, {"axis": axis}, out=given[of])
            assert_same_bits(given[of], expected)
    for axis in (3, -4):
        with pytest.raises(np.exceptions.AxisError):
            backward(da, z, name, {"axis": axis})
    with pytest.raises(ValueError, match="softmax needs an axis"):
        backward(1.0, 1.0, name, {})


@pytest.mark.parametrize("n", [2, 9, 67])
def test_softmax_special_rows(rng, dtype, n):
    plain, da = normal(rng, n, dtype), normal(rng, n, dtype)
    for lane in range(n):
        some, nan, plus = plain.copy(), plain.copy(), plain.copy()
        some[lane], nan[lane], plus[lane] = -INF, NAN, INF
        z = np.stack([plain, some, nan, plus, np.full(n, -INF, dtype), plain])
        for name in ROWWISE:
            y = backward(np.broadcast_to(da, z.shape), z, name, {})
            assert_same_bits(y[[0, 5]], np.stack([backward(da, plain, name, {})] * 2))
            assert np.isnan(y[2:5]).all()
            assert y[1, lane] == (0 if name == "softmax" else da[lane])


def test_the_softmax_gradient_of_a_constant_is_zero(rng, dtype):
    z = normal(rng, (4, 100), dtype)
    y = slope(z, "softmax", {})
    assert (np.abs(y) <= 8 * np.finfo(dtype).eps * fl.softmax(z)).all()
    labels = np.zeros_like(z)
    labels[:, 3] = 1
    # Of cross entropy, -log_softmax at the label: p - t.
    dz = backward(-labels, z, "log_softmax", {})
    assert_within(
        dz,
        (reference("softmax", z, dtype) - labels).astype(wide_type(dtype)),
        12 * np.finfo(dtype).eps * np.ones(z.shape),
    )


# --- what an activation may be


def test_prelu(rng, dtype):
    z, da, slopes = (normal(rng, s, dtype) for s in ((6, 19), (6, 19), 19))
    z[0, :3] = 0, -0.0, NAN
    expected = da * np.where(z > 0, 1, np.where(np.isnan(z), z, slopes)).astype(dtype)
    assert_same_bits(backward(da, z, "prelu", {"weight": slopes}), expected)
    out = z.copy()
    assert backward(da, out, "prelu", {"weight": slopes}, out=out) is out
    assert_same_bits(out, expected)
    shared = backward(da, z, "leaky_relu", {"negative_slope": 0.5})
    assert_same_bits(backward(da, z, "prelu", {"weight": 0.5}), shared)
    with pytest.raises(ValueError, match=r"2 slopes.*\(6, 19\)"):
        backward(da, z, "prelu", {"weight": [1.0, 2.0]})
    assert backward(da[:0], z[:0], "prelu", {"weight": slopes}).shape == (0, 19)


def test_names_functions_and_activations_are_the_same(rng, dtype):
    z, da = normal(rng, 33, dtype), normal(rng, 33, dtype)
    for name in [*ELEMENTWISE, *ROWWISE]:
        expected = backward(da, z, name, {})
        assert_same_bits(fl.activation_backward(da, z, name), expected)
        assert_same_bits(fl.activation_backward(da, z, getattr(fl, name)), expected)
    assert_same_bits(fl.activation_backward(da, z, None), da)


def test_pairs(rng, dtype):
    def square(z):
        return z * z

    z, da = normal(rng, (5, 4), dtype), normal(rng, (5, 4), dtype)
    pair = (square, lambda z: 2 * z)
    assert_same_bits(fl.activation_backward(da, z, pair), da * (2 * z))
    assert_same_bits(fl.activation_backward(1.0, z, (square, lambda z: 2)), np.full_like(z, 2))
    for over in (0, 1):
        arrays = [da.copy(), z.copy()]
        out = arrays[over]
        assert fl.activation_backward(*arrays, pair, out=out) is out
        assert_same_bits(out, da * (2 * z))
    turned = (square, lambda z: z[::-1])  # a view of what is overwritten
    out = z.copy()
    fl.activation_backward(da, out, turned, out=out)
    assert_same_bits(out, da * z[::-1])
    with pytest.raises(
        ValueError, match=r"derivative gave shape \(3, 5, 4\) for z of shape \(5, 4\)"
    ):
        fl.activation_backward(da, z, (square, lambda z: np.stack([z] * 3)))
    with pytest.raises(TypeError, match=r"result of the derivative.*complex"):
        fl.activation_backward(da, z, (square, lambda z: 1j * z))
    for wrong in ((square,), (square, "tanh"), (square, square, square), ()):
        with pytest.raises(TypeError, match="two callables"):
            fl.activation_backward(da, z, wrong)


def test_a_callable_alone_is_refused_with_advice(rng):
    z = rng.standard_normal(5)
    with pytest.raises(TypeError) as refused:
        fl.activation_backward(1.0, z, np.tanh)
    advice = re.search(r"pass a pair of functions \((\w+), its derivative\)", str(refused.value))
    assert advice[1] == "tanh"
    pair = (getattr(np, advice[1]), lambda z: 1 - np.tanh(z) ** 2)
    y = fl.activation_backward(1.0, z, pair)
    np.testing.assert_allclose(y, fl.activation_backward(1.0, z, "tanh"), rtol=1e-12)

    class Swish:
        def __call__(self, z):
            return z

    for unknown, name in ((Swish(), "Swish"), (lambda z: z, "<lambda>")):
        with pytest.raises(TypeError, match=rf"derivative of {name}; pass a pair"):
            fl.activation_backward(1.0, z, unknown)
    with pytest.raises(ValueError, match="unknown activation 'nosuch'"):
        fl.activation_backward(1.0, z, "nosuch")


# --- shapes, dtypes, out=


@all_slopes
def test_every_length_has_the_same_bits(rng, dtype, name, parameters):
    z, da = 3 * normal(rng, 67, dtype), normal(rng, 67, dtype)
    expected = backward(da, z, name, parameters)
    for n in range(68):
        assert_same_bits(backward(da[:n], z[:n], name, parameters), expected[:n])
    for i in range(67):
        assert_same_bits(backward(da[i], z[i], name, parameters), expected[i])


@everything
def test_layouts_and_out(rng, dtype, name, parameters):
    z, da = 3 * normal(rng, (4, 3, 7), dtype), normal(rng, (4, 3, 7), dtype)
    expected = backward(da, z, name, parameters)
    kept = z.copy(), da.copy()
    for layout in SAME_VALUES:
        change = LAYOUTS[layout]
        assert_same_bits(backward(change(da), z, name, parameters), expected)
        assert_same_bits(backward(da, change(z), name, parameters), expected)
    for out in (
        np.empty_like(z),
        np.empty_like(z, order="F"),
        np.empty((8, 3, 14), dtype)[::2, :, ::2],
    ):
        assert backward(da, z, name, parameters, out=out) is out
        assert_same_bits(out, expected)
    assert_same_bits(z, kept[0])
    assert_same_bits(da, kept[1])
    for over in (0, 1):
        arrays = [da.copy(), z.copy()]
        assert backward(*arrays, name, parameters, out=arrays[over]) is arrays[over]
        assert_same_bits(arrays[over], expected)
        assert_same_bits(arrays[1 - over], (da, z)[1 - over])
        for shift in (-5, 5):  # overlaps: as if it did not
            buffer = np.zeros(84 + 10, dtype)
            buffer[5:-5] = (da, z)[over].ravel()
            given = [da, z]
            given[over] = buffer[5:-5].reshape(z.shape)
            out = buffer[5 + shift : 89 + shift].reshape(z.shape)
            backward(*given, name, parameters, out=out)
            assert_same_bits(out, expected)


@pytest.mark.parametrize("name", ["tanh", "relu", "softmax"])
def test_shapes_broadcast(rng, dtype, name):
    z = normal(rng, (4, 5), dtype)
    for shape in ((), (1,), (5,), (4, 1), (1, 5), (4, 5), (3, 4, 5), (3, 1, 1)):
        da = normal(rng, shape, dtype)
        whole = np.broadcast_shapes(shape, z.shape)
        expected = backward(*(np.broadcast_to(a, whole).copy() for a in (da, z)), name, {})
        assert_same_bits(backward(da, z, name, {}), expected)
        out = np.empty(whole, dtype)
        assert backward(da, z, name, {}, out=out) is out
        assert_same_bits(out, expected)
    row = normal(rng, 5, dtype)
    assert_same_bits(backward(z, row, name, {}), backward(z, np.tile(row, (4, 1)), name, {}))
    with pytest.raises(ValueError, match=r"da of shape \(4,\).*z of shape \(4, 5\)"):
        backward(np.ones(4), z, name, {})
    for shape in ((0,), (0, 5), (5, 0), (2, 0, 3)):
        assert backward(1.0, np.ones(shape, dtype), name, {}).shape == shape


def test_dtypes(rng):
    z, da = np.array([-2.0, -0.5, 0.25, 3.0]), np.array([1.0, 2.0, -3.0, 0.5])
    for name in ("gelu", "tanh", "softmax", "relu"):
        expected = backward(da, z, name, {})
        single = backward(da.astype("f4"), z.astype("f4"), name, {})
        half = backward(da.astype("f2"), z.astype("f2"), name, {})
        assert_same_bits(half, single.astype(np.float16))
        assert_same_bits(backward(da.tolist(), z.tolist(), name, {}), expected)
        assert_same_bits(backward(da.astype("f4"), z, name, {}), expected)
        assert_same_bits(backward(da, z.astype("f4"), name, {}), expected)
        assert_same_bits(backward(da.astype("f2"), z.astype("f4"), name, {}), single)
        whole = np.array([-2, 0, 1, 3])
        exact = backward(da, whole.astype(float), name, {})
        assert_same_bits(backward(da, whole, name, {}), exact)
        assert_same_bits(backward(da, whole.astype("i1"), name, {}), exact)
        out = np.empty(4, np.float16)
        assert backward(da.astype("f2"), z.astype("f2"), name, {}, out=out) is out
        assert_same_bits(out, half)
        # A Python number takes the dtype of z, an array of no dimensions has its own.
        assert backward(1.0, z.astype("f4"), name, {}).dtype == np.float32
        assert backward(1, z.astype("f2"), name, {}).dtype == np.float16
        assert backward(np.float64(1), z.astype("f4"), name, {}).dtype == np.float64
        assert backward(True, [1, 2], name, {}).dtype == np.float64
    assert isinstance(backward(1.0, np.float32(1), "tanh", {}), np.float32)
    with pytest.raises(TypeError, match="da has dtype complex128"):
        backward(1j, z, "tanh", {})
    with pytest.raises(TypeError, match="z is a masked array"):
        backward(1.0, np.ma.array(z), "tanh", {})


@pytest.mark.parametrize("name", ["tanh", "softmax", "prelu"])
def test_a_wrong_out_is_refused_and_left_alone(rng, name):
    z = rng.standard_normal((4, 5))
    parameters = {"weight": np.arange(5.0)} if name == "prelu" else {}
    read_only = np.full((4, 5), 7.0)
    read_only.flags.writeable = False
    for out, error, message in (
        (np.full((5, 4), 7.0), ValueError, r"shape \(5, 4\).*\(4, 5\)"),
        (np.full((4, 5), 7.0, np.float32), TypeError, "float32.*float64"),
        (read_only, ValueError, "read-only"),
        ([7.0], TypeError, "must be a NumPy array"),
    ):
        with pytest.raises(error, match=message):
            backward(1.0, z, name, parameters, out=out)
        assert (np.asarray(out) == 7).all()


# --- threads


BIG = 300_000


@everything
def test_threads_do_not_change_bits(rng, threads, dtype, name, parameters):
    z = np.linspace(-12, 9, BIG, dtype=dtype)
    da = np.linspace(2, -3, BIG, dtype=dtype)
    if name in ROWWISE:
        z, da = z.reshape(1000, 300), da.reshape(1000, 300)
    y = backward(da, z, name, parameters)
    some = slice(None, None, 7) if name in ROWWISE else slice(BIG - 9000, None)
    with fl.num_threads(1):
        assert_same_bits(y[some], backward(da[some], z[some], name, parameters))
    strided = np.repeat(z, 2, axis=-1)[..., ::2]
    assert_same_bits(backward(da, strided, name, parameters), y)
    assert backward(da, z, name, parameters, out=z) is z
    assert_same_bits(z, y)


@pytest.mark.parametrize("name", ["gelu", "softmax"])
def test_rows_longer_than_what_a_thread_takes(rng, threads, name):
    z, da = (rng.standard_normal((3, 100_003), np.float32) for _ in range(2))
    y = backward(da, z, name, {})
    for i in range(3):
        assert_same_bits(backward(da[i], z[i], name, {}), y[i])
    wide = np.zeros((3, 100_010), np.float32)
    wide[:, :100_003] = z
    assert_same_bits(backward(da, wide[:, :100_003], name, {}), y)
    columns = np.asfortranarray(z)
    assert_same_bits(backward(da, columns, name, {}), y)


# --- linear_backward and dense_backward


def row_case(rng, dtype, lead, n, k):
    """dz, x and weight of `linear`; n is None for a single neuron."""
    outputs = () if n is None else (n,)
    shapes = (*lead, *outputs), (*lead, k), (*outputs, k)
    return [normal(rng, s, dtype) for s in shapes]


def expected_gradients(dz, x, weight):
    """The prescribed sums, of matrices, element by element."""
    n, k = (1, *weight.shape)[-2:]
    m = math.prod(x.shape[:-1])
    d, rows = dz.reshape(m, n), x.reshape(m, k)
    ones = np.ones((1, len(d)), d.dtype)
    return (
        plain_sum(d, np.ascontiguousarray(weight.reshape(n, k).T)).reshape(x.shape),
        plain_sum(np.ascontiguousarray(d.T), np.ascontiguousarray(rows.T)).reshape(weight.shape),
        plain_sum(np.ascontiguousarray(d.T), ones).reshape(weight.shape[:-1]),
    )


LEADS = [(), (1,), (7,), (BLOCK + 1,), (2, 3), (2, 0, 3), (0,), (3, 2, 5, 2)]


@pytest.mark.parametrize("lead", LEADS, ids=str)
@pytest.mark.parametrize(("n", "k"), [(5, 7), (1, 1), (None, 7), (BLOCK + 3, 2), (0, 3), (3, 0)])
def test_the_order_of_the_sums(rng, dtype, lead, n, k):
    dz, x, weight = row_case(rng, dtype, lead, n, k)
    found = fl.linear_backward(dz, x, weight)
    for got, expected in zip(found, expected_gradients(dz, x, weight), strict=True):
        assert_same_bits(got, expected)


def test_the_order_of_the_sum_over_a_long_batch(rng, dtype, threads):
    dz, x, weight = row_case(rng, dtype, (3 * BLOCK + 11,), 3, 4)
    for got, expected in zip(
        fl.linear_backward(dz, x, weight), expected_gradients(dz, x, weight), strict=True
    ):
        assert_same_bits(got, expected)


def test_gradients_are_products(rng, dtype, threads):
    dz, x, weight = row_case(rng, dtype, (1000,), 65, 130)
    dx, dw, db = fl.linear_backward(dz, x, weight)
    assert_same_bits(dx, fl.matmul(dz, weight))
    assert_same_bits(dw, fl.matmul(dz.T, x))
    assert_same_bits(db, fl.matmul(dz.T, np.ones(1000, dtype)))
    columns = fl.dense_backward(dz.T, x.T, weight)
    for got, expected in zip(columns, (dx.T, dw, db[:, None]), strict=True):
        assert_same_bits(got, expected)


def test_dense_backward_shapes(rng, dtype):
    weights, x, dz = (normal(rng, s, dtype) for s in ((5, 7), (7, 4), (5, 4)))
    rows = fl.linear_backward(dz.T, x.T, weights)
    dx, dw, db = fl.dense_backward(dz, x, weights)
    assert_same_bits(dx, np.ascontiguousarray(rows[0].T))
    assert_same_bits(dw, rows[1])
    assert_same_bits(db, rows[2][:, None])
    one = fl.dense_backward(dz[:, 0], x[:, 0], weights)
    for got, expected in zip(one, fl.linear_backward(dz[:, 0], x[:, 0], weights), strict=True):
        assert_same_bits(got, expected)
    assert_same_bits(one[1], np.outer(dz[:, 0], x[:, 0]))
    assert_same_bits(one[2], dz[:, 0] + dtype(0))
    # A single neuron, of columns and of one sample.
    dx, dw, db = fl.dense_backward(dz[0], x, weights[0])
    assert_same_bits(dx, np.outer(weights[0], dz[0]))
    assert_same_bits(dw, fl.matmul(x, dz[0]))
    assert db == fl.matmul(np.ones(4, dtype), dz[0])
    assert isinstance(db, dtype)
    dx, dw, db = fl.dense_backward(dz[0, 0], x[:, 0], weights[0])
    assert_same_bits(dx, dz[0, 0] * weights[0])
    assert_same_bits(dw, dz[0, 0] * x[:, 0])
    assert db == dz[0, 0]
    # No samples: sums of nothing.
    dx, dw, db = fl.dense_backward(dz[:, :0], x[:, :0], weights)
    assert dx.shape == (7, 0)
    assert_same_bits(dw, np.zeros((5, 7), dtype))
    assert_same_bits(db, np.zeros((5, 1), dtype))


def both(rng, dtype=np.float64):
    """The two functions and arguments for them."""
    dz, x, weight = row_case(rng, dtype, (6,), 5, 7)
    return [
        (fl.linear_backward, [dz, x, weight]),
        (fl.dense_backward, [np.ascontiguousarray(a) for a in (dz.T, x.T)] + [weight]),
    ]


def test_layouts_of_gradients(rng, dtype):
    for f, arguments in both(rng, dtype):
        expected = f(*arguments)
        for layout in SAME_VALUES:
            for got, wanted in zip(f(*map(LAYOUTS[layout], arguments)), expected, strict=True):
                assert_same_bits(got, wanted)
        assert all(y.flags.c_contiguous for y in expected)


def test_out_of_gradients(rng, dtype):
    for f, arguments in both(rng, dtype):
        expected = f(*arguments)
        out = tuple(np.full_like(y, NAN) for y in expected)
        found = f(*arguments, out=out)
        for got, given, wanted in zip(found, out, expected, strict=True):
            assert got is given
            assert_same_bits(got, wanted)
        for which in range(3):
            some = tuple(o if i == which else None for i, o in enumerate(out))
            out[which][...] = NAN
            found = f(*arguments, out=some)
            assert found[which] is out[which]
            for got, wanted in zip(found, expected, strict=True):
                assert_same_bits(got, wanted)
        strided = tuple(
            np.zeros([2 * n for n in y.shape], dtype)[(slice(None, None, 2),) * y.ndim]
            for y in expected
        )
        for got, wanted in zip(f(*arguments, out=strided), expected, strict=True):
            assert_same_bits(got, wanted)
        # Over the inputs: dx over x, and dW over the weights.
        dz, x, weight = (a.copy() for a in arguments)
        found = f(dz, x, weight, out=(x, weight, None))
        assert found[0] is x
        assert found[1] is weight
        for got, wanted in zip(found, expected, strict=True):
            assert_same_bits(got, wanted)
        # dW over a part of dz and x.
        memory = np.zeros(dz.size + x.size + weight.size, dtype)
        dz, x = memory[: dz.size].reshape(dz.shape), memory[dz.size :][: x.size].reshape(x.shape)
        dz[...], x[...] = arguments[:2]
        dw = memory[dz.size - 3 :][: weight.size].reshape(weight.shape)
        found = f(dz, x, arguments[2], out=(None, dw, None))
        for got, wanted in zip(found, expected, strict=True):
            assert_same_bits(got, wanted)


def test_outputs_that_share_memory_are_refused_and_left_alone(rng, dtype):
    for f, arguments in both(rng, dtype):
        expected = f(*arguments)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            first, second = expected[i].size, expected[j].size
            for begin in (0, 1, first - 1):  # of the second in the first; the last by one element
                memory = np.full(first + second, 7, dtype)
                out: list = [None, None, None]
                out[i] = memory[:first].reshape(expected[i].shape)
                out[j] = memory[begin : begin + second].reshape(expected[j].shape)
                names = " and ".join(("dx", "dW", "db")[at] for at in (i, j))
                with pytest.raises(ValueError, match=f"out: {names} share memory"):
                    f(*arguments, out=tuple(out))
                assert (memory == 7).all()
            # Beside each other, and with every other element, they share none.
            memory = np.full(2 * (first + second), 7, dtype)
            for one, other in ((memory, memory[first:]), (memory[::2], memory[1::2])):
                out[i] = one[:first].reshape(expected[i].shape)
                out[j] = other[:second].reshape(expected[j].shape)
                for got, wanted in zip(f(*arguments, out=tuple(out)), expected, strict=True):
                    assert_same_bits(got, wanted)


def test_a_wrong_out_of_gradients_changes_nothing(rng):
    for f, arguments in both(rng):
        good = [np.full_like(y, 7) for y in f(*arguments)]
        for which in range(3):
            for wrong, error in (
                (np.full((2, 2), 7.0), ValueError),
                (np.full_like(good[which], 7, np.float32), TypeError),
                ([7.0], TypeError),
            ):
                out = [*good]
                out[which] = wrong
                with pytest.raises(error, match="out"):
                    f(*arguments, out=tuple(out))
                assert all((np.asarray(o) == 7).all() for o in out)
        for out in (good[0], good, tuple(good[:2]), ()):
            with pytest.raises(TypeError, match=r"out must be a tuple \(dx, dW, db\)"):
                f(*arguments, out=out)


def test_dtypes_of_gradients(rng):
    for f, arguments in both(rng):
        single = [a.astype(np.float32) for a in arguments]
        half = [a.astype(np.float16) for a in arguments]
        wide = f(*(a.astype(np.float32) for a in half))
        for got, wanted in zip(f(*half), wide, strict=True):
            assert_same_bits(got, wanted.astype(np.float16))
        mixed = f(single[0], arguments[1], single[2])
        exact = f(single[0].astype(float), arguments[1], single[2].astype(float))
        for got, wanted in zip(mixed, exact, strict=True):
            assert_same_bits(got, wanted)
        whole = [rng.integers(-9, 9, a.shape) for a in arguments]
        for got, wanted in zip(f(*whole), f(*(a.astype(float) for a in whole)), strict=True):
            assert_same_bits(got, wanted)
        for got, wanted in zip(f(*(a.tolist() for a in whole)), f(*whole), strict=True):
            assert_same_bits(got, wanted)
        out = tuple(np.empty(y.shape, np.float16) for y in wide)
        for got, wanted in zip(f(*half, out=out), wide, strict=True):
            assert_same_bits(got, wanted.astype(np.float16))
        for at, name in enumerate(("dz", "x|inputs", "weight")):
            wrong = [*arguments]
            wrong[at] = wrong[at] * 1j
            with pytest.raises(TypeError, match=rf"({name})\w* has dtype complex128"):
                f(*wrong)


@pytest.mark.parametrize(
    ("f", "shapes", "message"),
    [
        (fl.linear_backward, [(4, 2), (4, 3), (2, 5)], r"\(2, 5\).*\(4, 3\)"),
        (fl.linear_backward, [(4, 3), (4, 3), (2, 3)], r"\(4, 3\).*\(4, 2\)"),
        (fl.linear_backward, [(5, 2), (4, 3), (2, 3)], r"\(5, 2\).*\(4, 2\)"),
        (fl.linear_backward, [(4,), (4, 3), (2, 3)], r"\(4,\).*\(4, 2\)"),
        (fl.linear_backward, [(4, 1), (4, 3), (3,)], r"\(4, 1\).*\(4,\)"),
        (fl.linear_backward, [(4, 2), (4, 3), (1, 2, 3)], r"\(1, 2, 3\).*\(4, 3\)"),
        (fl.linear_backward, [(), (), (2, 3)], r"\(2, 3\).*\(\)"),
        (fl.linear_backward, [(), (3,), ()], r"\(\).*\(3,\)"),
        (fl.dense_backward, [(2, 4), (4, 3), (2, 3)], r"\(2, 3\).*\(4, 3\)"),
        (fl.dense_backward, [(4, 2), (3, 4), (2, 3)], r"\(4, 2\).*\(2, 4\)"),
        (fl.dense_backward, [(2,), (3, 4), (2, 3)], r"\(2,\).*\(2, 4\)"),
        (fl.dense_backward, [(2, 1), (3,), (2, 3)], r"\(2, 1\).*\(2,\)"),
        (fl.dense_backward, [(2, 4, 1), (3, 4, 1), (2, 3)], r"\(2, 3\).*\(3, 4, 1\)"),
    ],
)
def test_errors_name_both_shapes(f, shapes, message):
    with pytest.raises(ValueError, match=f"{f.__name__}.*{message}"):
        f(*map(np.ones, shapes))


def test_a_whole_backward_pass_is_that_of_central_differences(rng):
    """Two layers and a squared error, in float64: every gradient against (f(+h) - f(-h)) / 2h."""
    x, t = rng.standard_normal((6, 4)), rng.standard_normal((6, 3))
    parameters = [rng.standard_normal(s) for s in ((5, 4), 5, (3, 5), 3)]

    def loss(w1, b1, w2, b2):
        return np.sum((fl.linear(fl.linear(x, w1, b1, "gelu"), w2, b2, "softmax") - t) ** 2)

    w1, b1, w2, b2 = parameters
    z1 = fl.linear(x, w1, b1)
    a1 = fl.gelu(z1)
    z2 = fl.linear(a1, w2, b2)
    dz2 = fl.activation_backward(2 * (fl.softmax(z2) - t), z2, "softmax")
    da1, dw2, db2 = fl.linear_backward(dz2, a1, w2)
    dz1 = fl.activation_backward(da1, z1, "gelu")
    _, dw1, db1 = fl.linear_backward(dz1, x, w1)
    h = 1e-5  # h^2 of the third derivative, and eps / h of rounding: some 1e-10
    for at, gradient in enumerate((dw1, db1, dw2, db2)):
        for i in np.ndindex(gradient.shape):
            ends = []
            for step in (h, -h):
                changed = [p.copy() for p in parameters]
                changed[at][i] += step
                ends.append(loss(*changed))
            assert abs((ends[0] - ends[1]) / (2 * h) - gradient[i]) <= 1e-8
