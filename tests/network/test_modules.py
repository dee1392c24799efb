"""LayerNorm, RMSNorm, BatchNorm with its folding, Residual and Flatten."""

import copy
import pickle

import numpy as np
import pytest
from helpers import assert_same_bits, assert_within

import fastlayer as fl

DTYPES = [np.float32, np.float64]
N = 37


def batch_norm(rng, n=N, dtype=np.float64):
    return fl.BatchNorm(
        n,
        weight=rng.standard_normal(n),
        bias=rng.standard_normal(n),
        running_mean=rng.standard_normal(n),
        running_var=rng.uniform(0.1, 3, n),
        dtype=dtype,
    )


def scale_and_shift(norm):
    scale = norm.weight.astype("f8") / np.sqrt(norm.running_var.astype("f8") + norm.eps)
    return scale, norm.bias.astype("f8") - norm.running_mean.astype("f8") * scale


def wide(a, dtype):
    return np.asarray(a, np.float64 if dtype == np.float32 else np.longdouble)


# --- norms on their own


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [(N,), (0, N), (5, N), (2, 3, N)], ids=str)
def test_layer_norm_and_rms_norm(rng, dtype, affine, shape):
    weight, bias = (rng.standard_normal(N).astype(dtype) for _ in range(2))
    x = rng.standard_normal(shape).astype(dtype)
    v, eps = wide(x, dtype), np.finfo(dtype).eps
    w, b = (wide(weight, dtype), wide(bias, dtype)) if affine else (1, 0)
    mean = v.mean(-1, keepdims=True)
    spread = np.sqrt(((v - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
    exact = (v - mean) / spread * w + b
    layer_norm = fl.LayerNorm(N, 1e-5, *([weight, bias] if affine else []), dtype=dtype)
    # Each of mean, variance, root, quotient, factor and summand rounds; the sums are of N terms,
    # whose error is at most N eps of the sum of magnitudes.
    top = np.abs(v).max(initial=0) / spread.min(initial=np.inf) if v.size else 0
    bound = (3 * N + 8) * eps * ((np.abs(v - mean) / spread + top) * np.abs(w) + np.abs(b))
    assert_within(layer_norm(x), exact, bound)
    rms = np.sqrt((v**2).mean(-1, keepdims=True) + eps)
    rms_norm = fl.RMSNorm(N, weight=weight if affine else None, dtype=dtype)
    assert_within(rms_norm(x), v / rms * w, (N + 8) * eps * np.abs(v / rms * w))
    for norm in (layer_norm, rms_norm):
        y = norm(x)
        assert y.dtype == dtype
        assert_same_bits(norm(np.moveaxis(x, -1, 0), axis=0), np.moveaxis(y, -1, 0))
        out = np.empty_like(y)
        assert norm(x, out=out) is out
        assert_same_bits(out, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_alone(rng, dtype):
    norm = batch_norm(rng, dtype=dtype)
    x = rng.standard_normal((5, N)).astype(dtype)
    scale, shift = scale_and_shift(norm)
    bound = 4 * np.finfo(dtype).eps * (np.abs(x * scale) + np.abs(shift))
    assert_within(norm(x), x * scale + shift, bound)
    assert_same_bits(fl.Network([norm])(x), norm(x))


def test_defaults_change_nothing_but_eps():
    x = np.array([[3.0, -4.0]])
    assert fl.BatchNorm(2, eps=0, dtype="f8")(x).tolist() == x.tolist()
    assert fl.RMSNorm(4).eps == np.finfo(np.float32).eps
    assert fl.RMSNorm(4, dtype="f8").eps == np.finfo(np.float64).eps
    assert fl.LayerNorm(4).dtype == np.float32
    assert fl.LayerNorm(4, weight=np.ones(4)).dtype == np.float64
    assert fl.LayerNorm(4, weight=np.ones(4)).num_parameters == 4


@pytest.mark.parametrize(
    ("error", "match", "make"),
    [
        (ValueError, "at least 1", lambda: fl.LayerNorm(0)),
        (TypeError, "integer", lambda: fl.LayerNorm((3, 4))),
        (ValueError, r"weight must have shape \(3,\), got \(4,\)", lambda: fl.RMSNorm(3, weight=np.ones(4))),
        (ValueError, "eps", lambda: fl.LayerNorm(3, eps=-1)),
        (ValueError, "eps", lambda: fl.LayerNorm(3, eps=np.nan)),
        (ValueError, "running_var must not be negative", lambda: fl.BatchNorm(2, running_var=[1, -1])),
        (TypeError, "bias has dtype complex", lambda: fl.BatchNorm(2, bias=[1j, 1])),
        (TypeError, "float32 or float64", lambda: fl.BatchNorm(2, dtype="f2")),
    ],
)  # fmt: skip
def test_norms_refuse(error, match, make):
    with pytest.raises(error, match=match):
        make()


def test_norms_do_not_change(rng):
    weight = np.ones(3)
    for norm in (fl.LayerNorm(3, weight=weight), fl.RMSNorm(3, weight=weight)):
        x = rng.standard_normal((2, 3))
        y = norm(x)
        weight[:] = 0
        for twin in (norm, copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
            assert_same_bits(twin(x), y)
            assert repr(twin) == repr(norm)
            with pytest.raises(ValueError, match="WRITEABLE"):
                twin.weight.flags.writeable = True
        weight[:] = 1


# --- folding


def folded_bound(x, exact_parts, dtype):
    """Folding rounds each weight once, so a sum of k terms is off by (k + 4) eps of its magnitude."""
    w, b = exact_parts
    return (
        (w.shape[1] + 4) * np.finfo(dtype).eps * (np.abs(x).astype("f8") @ np.abs(w).T + np.abs(b))
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_fold_into_the_layer_before(rng, dtype, bias):
    layer = fl.Layer(21, N, rng=0, dtype=dtype, bias=bias)
    norm = batch_norm(rng, dtype=dtype)
    net = fl.Network([layer, norm, "relu"])
    x = rng.standard_normal((9, 21)).astype(dtype)
    before = layer.weight.copy()

    def exact():
        scale, shift = scale_and_shift(norm)
        b = np.zeros(N) if layer.bias is None else layer.bias.astype("f8")
        return layer.weight.astype("f8") * scale[:, None], b * scale + shift

    w, b = exact()
    assert_within(net(x), np.maximum(x @ w.T + b, 0), folded_bound(x, (w, b), dtype))
    folded = fl.Layer.from_arrays(w.astype(dtype), b.astype(dtype), "relu")
    assert_same_bits(net(x), folded(x))
    assert_same_bits(layer.weight, before)
    layer.update(weight=rng.standard_normal((N, 21)), bias=rng.standard_normal(N))
    w, b = exact()
    assert_same_bits(net(x), fl.Layer.from_arrays(w.astype(dtype), b.astype(dtype), "relu")(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("front", [[], ["tanh"]])
def test_fold_into_the_layer_after(rng, dtype, front):
    layer = fl.Layer(N, 11, "sigmoid", rng=0, dtype=dtype)
    norm = batch_norm(rng, dtype=dtype)
    net = fl.Network([*front, norm, layer])
    x = rng.standard_normal((9, N)).astype(dtype)
    scale, shift = scale_and_shift(norm)
    w = layer.weight.astype("f8")
    b = fl.linear(shift, w, layer.bias.astype("f8"))
    folded = fl.Layer.from_arrays((w * scale).astype(dtype), b.astype(dtype), "sigmoid")
    assert_same_bits(net(x), fl.Network([*front, folded])(x))


def test_two_norms_fold_into_one_layer_and_activations_do_not_fold(rng):
    layer = fl.Layer(5, N, rng=0, dtype="f8")
    norms = batch_norm(rng), batch_norm(rng)
    x = rng.standard_normal((4, 5))
    steps = norms[1](norms[0](layer(x)))
    assert_within(fl.Network([layer, *norms])(x), steps, 1e-13 * (1 + np.abs(steps)))
    active = fl.Layer(5, N, "relu", rng=0, dtype="f8")
    assert_same_bits(fl.Network([active, norms[0]])(x), norms[0](active(x)))
    inside = fl.Network([active, fl.Residual(norms[0])])
    assert_same_bits(inside(x), norms[0](active(x)) + active(x))


def test_a_layer_that_is_folded_twice_differently(rng):
    layer = fl.Layer(N, N, rng=0, dtype="f8")
    a, b = batch_norm(rng), batch_norm(rng)
    x = rng.standard_normal((4, N))
    net = fl.Network([layer, a, layer, b])
    single = [fl.Network([layer, norm]) for norm in (a, b)]
    assert_same_bits(net(x), single[1](single[0](x)))


# --- residual and flatten


@pytest.mark.parametrize("dtype", DTYPES)
def test_residual_is_the_sum(rng, dtype):
    inner = [fl.Layer(N, 8, "relu", rng=0, dtype=dtype), fl.Layer(8, N, rng=1, dtype=dtype)]
    x = rng.standard_normal((6, N)).astype(dtype)
    expected = inner[1](inner[0](x)) + x
    for residual in (fl.Residual(*inner), fl.Residual(inner), fl.Residual(fl.Network(inner))):
        assert_same_bits(residual(x), expected)
        assert_same_bits(fl.Network([residual])(x), expected)
        assert residual.in_features == residual.out_features == N
        assert residual.num_parameters == sum(p.num_parameters for p in inner)
    twice = fl.Residual(fl.Residual(*inner), "tanh")
    assert_same_bits(twice(x), fl.tanh(expected) + x)
    with_function = fl.Residual(fl.Residual(*inner), np.tanh)
    assert_same_bits(with_function(x), np.tanh(expected) + x)


def test_residual_of_bytes_adds_numbers_of_the_dtype():
    residual = fl.Residual(fl.LayerNorm(4, weight=np.zeros(4, np.float32)))
    x = np.array([[1, 2, 3, 250]], np.uint8)
    assert_same_bits(residual(x), x.astype(np.float32))


def test_residual_refuses():
    with pytest.raises(ValueError, match="at least one"):
        fl.Residual()
    with pytest.raises(ValueError, match=r"take 4 features.*give 3"):
        fl.Residual(fl.Layer(4, 3))
    with pytest.raises(ValueError, match=r"expected x of shape \(\.\.\., 3\), got \(2, 4\)"):
        fl.Residual(fl.Layer(3, 3))(np.ones((2, 4)))


def test_flatten(rng):
    x = rng.integers(0, 9, (4, 2, 3))
    y = fl.Flatten()(x)
    assert y.tolist() == x.reshape(4, 6).tolist()
    assert y.dtype == x.dtype
    assert fl.Flatten()([1.0, 2.0]).tolist() == [1.0, 2.0]
