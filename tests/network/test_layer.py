"""Layer: construction, weights and their replacement, calls, copies and messages."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest
from helpers import assert_same_bits, assert_within, linear_bound, ref_linear

import fastlayer as fl

DTYPES = [np.float32, np.float64]


def make(rng, n=5, k=7, dtype=np.float64, activation=None):
    return fl.Layer.from_arrays(
        rng.standard_normal((n, k)), rng.standard_normal(n), activation, dtype=dtype
    )


def cube(z):
    return z**3


# --- making


@pytest.mark.parametrize("init", ["he_normal", "xavier_uniform", "lecun_normal", "normal", "zeros"])
def test_initializers_have_their_scale_and_a_zero_bias(init):
    n, k = 300, 200
    layer = fl.Layer(k, n, init=init, rng=1, dtype=np.float64)
    sd = {
        "he_normal": np.sqrt(2 / k),
        "xavier_uniform": np.sqrt(2 / (n + k)),
        "lecun_normal": np.sqrt(1 / k),
        "normal": 1 / (n * k),
        "zeros": 0,
    }[init]
    # the sample deviation of N numbers is off by sd / sqrt(2 N) in the mean; six of those
    assert abs(layer.weight.std() - sd) <= 6 * sd / np.sqrt(2 * n * k)
    assert not layer.bias.any()


def test_seed_decides_the_weights_whatever_the_dtype():
    a, b, c = fl.Layer(3, 4, rng=5), fl.Layer(3, 4, rng=5), fl.Layer(3, 4, rng=6)
    wide = fl.Layer(3, 4, rng=np.random.default_rng(5), dtype=np.float64)
    assert_same_bits(a.weight, b.weight)
    assert_same_bits(a.weight, wide.weight.astype(np.float32))
    assert not np.array_equal(a.weight, c.weight)


def test_callable_initializer_and_no_bias():
    layer = fl.Layer(3, 2, bias=False, init=lambda rng, shape: np.arange(6).reshape(shape))
    assert layer.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert layer.bias is None
    assert layer.num_parameters == 6


@pytest.mark.parametrize(
    ("error", "match", "arguments", "keywords"),
    [
        (ValueError, "at least 1, got 0", (0, 3), {}),
        (ValueError, "at least 1, got -2", (3, -2), {}),
        (TypeError, "in_features must be an integer", (3.0, 2), {}),
        (TypeError, "out_features must be an integer", (3, True), {}),
        (ValueError, "unknown init 'he'", (3, 2), {"init": "he"}),
        (ValueError, r"init returned shape \(3,\)", (3, 2), {"init": lambda r, s: np.ones(3)}),
        (TypeError, "init must be", (3, 2), {"init": 3}),
        (TypeError, "float32 or float64, got int64", (3, 2), {"dtype": np.int64}),
        (TypeError, "float32 or float64, got None", (3, 2), {"dtype": None}),
        (TypeError, "float32 or float64, got 'nonsense'", (3, 2), {"dtype": "nonsense"}),
        (ValueError, "did you mean 'relu'.*Known: identity", (3, 2, "rellu"), {}),
        (TypeError, "prelu needs its slopes", (3, 2, fl.prelu), {}),
        (TypeError, "got int", (3, 2, 4), {}),
        (ValueError, "axis=-1", (3, 2, fl.Activation("softmax", axis=0)), {}),
        (ValueError, "3 slopes.*2 outputs", (3, 2, fl.Activation("prelu", weight=[1, 2, 3])), {}),
    ],
)
def test_constructor_refuses(error, match, arguments, keywords):
    with pytest.raises(error, match=match):
        fl.Layer(*arguments, **keywords)


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
@pytest.mark.parametrize("bias_shape", [None, (4,), (1, 4), (4, 1)])
def test_from_arrays_layouts(rng, layout, bias_shape):
    weight = rng.standard_normal((4, 3))
    bias = None if bias_shape is None else rng.standard_normal(bias_shape)
    given = weight if layout == "out_in" else weight.T
    layer = fl.Layer.from_arrays(given, bias, layout=layout)
    assert_same_bits(layer.weight, weight)
    assert (layer.in_features, layer.out_features) == (3, 4)
    if bias is None:
        assert layer.bias is None
    else:
        assert_same_bits(layer.bias, bias.reshape(4))


@pytest.mark.parametrize(
    ("weight", "bias", "dtype"),
    [
        (np.float32, None, np.float32),
        (np.float64, np.float32, np.float64),
        (np.float32, np.float64, np.float64),
        (np.float16, np.float16, np.float32),
        (np.int64, np.int8, np.float64),
        (bool, None, np.float64),
        (">f4", None, np.float32),
    ],
)
def test_from_arrays_dtype(weight, bias, dtype):
    b = None if bias is None else np.ones(2, bias)
    layer = fl.Layer.from_arrays(np.ones((2, 3), weight), b)
    assert layer.dtype == layer.weight.dtype == dtype
    assert fl.Layer.from_arrays(np.ones((2, 3), weight), b, dtype="f4").dtype == np.float32


def test_a_list_as_bias_takes_the_dtype_of_the_weight():
    assert fl.Layer.from_arrays(np.ones((2, 3), np.float32), [1.0, 2.0]).dtype == np.float32


@pytest.mark.parametrize(
    ("error", "match", "weight", "keywords"),
    [
        (ValueError, r"2 dimensions, got shape \(3,\)", np.ones(3), {}),
        (ValueError, r"\(2,\).*2 rows, got \(4,\)", np.ones((2, 3)), {"bias": np.ones(4)}),
        (ValueError, r"got \(\)", np.ones((2, 3)), {"bias": 1.0}),
        (ValueError, "layout must be", np.ones((2, 3)), {"layout": "auto"}),
        (TypeError, "complex128", np.ones((2, 3), complex), {}),
        (TypeError, "masked", np.ma.masked_array(np.ones((2, 3))), {}),
        (TypeError, "bias has dtype object", np.ones((2, 3)), {"bias": np.array([1, None])}),
        (TypeError, "float32 or float64", np.ones((2, 3)), {"dtype": np.float16}),
    ],
)
def test_from_arrays_refuses(error, match, weight, keywords):
    with pytest.raises(error, match=match):
        fl.Layer.from_arrays(weight, **keywords)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_sizes_of_zero(shape):
    layer = fl.Layer.from_arrays(np.ones(shape), np.ones(shape[0]))
    assert layer(np.ones((4, shape[1]))).tolist() == np.ones((4, shape[0])).tolist()


def test_weights_beyond_the_dtype_become_infinite_without_a_warning():
    layer = fl.Layer.from_arrays([[1e300, -1e300, np.nan]], dtype=np.float32)
    assert layer.weight[0, :2].tolist() == [np.inf, -np.inf]
    assert np.isnan(layer.weight[0, 2])


# --- weights


def test_weight_is_read_only_for_good(rng):
    layer = make(rng)
    for array in (layer.weight, layer.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_weight_is_one_array_while_it_is_held(rng):
    layer = make(rng)
    held = layer.weight
    assert layer.weight is held
    assert layer.bias is not layer.weight
    layer.activation = "relu"
    assert_same_bits(layer.weight, held)
    del held
    gc.collect()
    assert layer.weight.shape == (5, 7)


def test_weights_are_copied_from_the_arrays(rng):
    weight = rng.standard_normal((2, 3))
    layer = fl.Layer.from_arrays(weight)
    before = weight.copy()
    weight[:] = 0
    assert_same_bits(layer.weight, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_are_seen_everywhere(rng, dtype):
    layer = make(rng, dtype=dtype)
    net = fl.Network([layer, "relu"])
    x = rng.standard_normal((3, 7)).astype(dtype)
    layer(x), net(x)
    weight, bias = rng.standard_normal((5, 7)), rng.standard_normal((5, 1))
    layer.weight = weight
    layer.bias = bias
    expected = fl.Layer.from_arrays(weight, bias, dtype=dtype)(x)
    assert_same_bits(layer(x), expected)
    assert_same_bits(net(x), fl.relu(expected))
    layer.update(weight=-weight, bias=None, activation="tanh")
    expected = fl.Layer.from_arrays(-weight, None, "tanh", dtype=dtype)(x)
    assert layer.bias is None
    assert_same_bits(layer(x), expected)
    assert_same_bits(net(x), fl.relu(expected))


@pytest.mark.parametrize(
    ("error", "keywords"),
    [
        (ValueError, {"weight": np.ones((7, 5))}),
        (ValueError, {"bias": np.ones(4)}),
        (TypeError, {"weight": None}),
        (TypeError, {"weight": np.ones((5, 7), complex)}),
        (ValueError, {"activation": "none"}),
    ],
)
def test_a_refused_update_changes_nothing(rng, error, keywords):
    layer = make(rng, activation="relu")
    x = rng.standard_normal((3, 7))
    before = layer(x)
    with pytest.raises(error):
        layer.update(**keywords)
    assert_same_bits(layer(x), before)


def test_calls_during_updates_see_one_state_or_the_other(rng):
    layer = make(rng, n=40, k=30)
    x = rng.standard_normal((4, 30))
    states = [(rng.standard_normal((40, 30)), rng.standard_normal(40)) for _ in range(2)]
    allowed = {fl.Layer.from_arrays(*state)(x).tobytes() for state in states}
    layer.update(weight=states[0][0], bias=states[0][1])
    stop = threading.Event()

    def change():
        for i in range(300):
            layer.update(weight=states[i % 2][0], bias=states[i % 2][1])
        stop.set()

    writer = threading.Thread(target=change)
    writer.start()
    seen = {layer(x).tobytes()}
    while not stop.is_set():
        seen.add(layer(x).tobytes())
    writer.join()
    assert seen <= allowed


# --- calls


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (0, 7), (1, 7), (9, 7), (2, 3, 7), (2, 0, 7)], ids=str)
def test_shapes_against_numpy(rng, dtype, shape):
    layer = make(rng, dtype=dtype)
    x = rng.standard_normal(shape).astype(dtype)
    y = layer(x)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    exact = ref_linear(x, layer.weight, layer.bias)
    assert_within(y, exact, linear_bound(x, layer.weight, layer.bias))
    out = np.empty(y.shape, dtype)
    assert layer(x, out=out) is out
    assert_same_bits(out, y)
    assert_same_bits(layer.forward(x), y)


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 4), (7, 2, 3), (7, 0)], ids=str)
def test_axis_zero_is_the_transpose(rng, shape):
    layer = make(rng, activation="softmax")
    x = rng.standard_normal(shape)
    y = layer(x, axis=0)
    assert y.flags.c_contiguous
    assert_same_bits(y, np.moveaxis(layer(np.moveaxis(x, 0, -1).copy()), -1, 0))
    out = np.asfortranarray(np.zeros_like(y))
    assert layer(x, axis=0, out=out) is out
    assert_same_bits(out, y)


def test_middle_axis_and_integer_columns(rng):
    layer = make(rng)
    x = rng.standard_normal((2, 7, 3))
    assert_same_bits(layer(x, axis=1), np.moveaxis(layer(np.moveaxis(x, 1, -1)), -1, 1))
    column = np.eye(7, 1, dtype=np.int64)
    assert_same_bits(layer(column, axis=0)[:, 0], layer.weight[:, 0] + layer.bias)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u1", "i8", "?", ">f4", ">i4"])
def test_real_input_is_converted_to_the_dtype_of_the_layer(rng, dtype, kind):
    layer = make(rng, dtype=dtype)
    x = (10 * rng.standard_normal((3, 7))).astype("i1").astype(kind)
    expected = layer(x.astype(dtype))
    assert_same_bits(layer(x), expected)
    assert_same_bits(layer(x.tolist()), expected)
    assert_same_bits(layer(x.view(np.matrix)), expected)
    assert_same_bits(layer(np.asarray(x.T, order="C"), axis=0), expected.T)


def test_subclasses_become_arrays_and_out_may_be_one(rng, tmp_path):
    layer = make(rng)
    x = np.memmap(tmp_path / "x", np.float64, "w+", shape=(3, 7))
    x[:] = rng.standard_normal((3, 7))
    out = np.memmap(tmp_path / "y", np.float64, "w+", shape=(3, 5))
    y = layer(x)
    assert type(y) is np.ndarray
    assert layer(x, out=out) is out
    assert_same_bits(np.asarray(out), y)


@pytest.mark.parametrize(
    ("error", "match", "x", "keywords"),
    [
        (ValueError, r"\(\.\.\., 7\), got \(3, 6\)", np.ones((3, 6)), {}),
        (ValueError, "axis=0", np.ones((7, 6)), {}),
        (ValueError, r"\(7, \.\.\.\), got \(3, 7\).*leave axis out", np.ones((3, 7)), {"axis": 0}),
        (ValueError, r"scalar.*\(\.\.\., 7\)", 3.0, {}),
        (ValueError, "fl.Flatten", np.ones((3, 7, 1)), {}),
        (ValueError, "out of bounds", np.ones((3, 7)), {"axis": 2}),
        (TypeError, "axis must be an integer", np.ones((3, 7)), {"axis": 0.5}),
        (ValueError, "rectangular", [[1.0], [1.0, 2.0]], {}),
        (TypeError, "complex64", np.ones((3, 7), np.complex64), {}),
        (TypeError, "object", np.full((3, 7), None), {}),
        (TypeError, "<U1", np.full((3, 7), "a"), {}),
        (TypeError, "datetime64", np.zeros((3, 7), "M8[s]"), {}),
        (TypeError, "longdouble|float128", np.zeros((3, 7), np.longdouble), {}),
        (TypeError, "masked array.*filled", np.ma.masked_array(np.ones((3, 7))), {}),
        (ValueError, r"\(3, 4\).*\(3, 5\)", np.ones((3, 7)), {"out": np.ones((3, 4))}),
        (TypeError, "float32.*float64", np.ones((3, 7)), {"out": np.ones((3, 5), np.float32)}),
    ],
)
def test_calls_refuse(rng, error, match, x, keywords):
    with pytest.raises(error, match=match) as caught:
        make(rng)(x, **keywords)
    assert "\n" not in str(caught.value)


# --- activations


ACTIVATIONS = [
    None,
    "relu",
    fl.gelu,
    "softmax",
    fl.Activation("leaky_relu", negative_slope=0.1),
    fl.Activation("prelu", weight=[0.1, 0.2, 0.3, 0.4, 0.5]),
    fl.Activation("prelu", weight=0.25),
    cube,
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_preactivation(rng, dtype, activation):
    layer = make(rng, dtype=dtype, activation=activation)
    plain = fl.Layer.from_arrays(layer.weight, layer.bias)
    for x, axis in ((rng.standard_normal((4, 7)), -1), (rng.standard_normal((7, 4)), 0)):
        a, z = layer.forward(x, axis=axis, return_preactivation=True)
        assert_same_bits(a, layer(x, axis=axis))
        assert_same_bits(z, plain(x, axis=axis))
        assert not np.may_share_memory(a, z)
        out = np.empty_like(a)
        assert layer.forward(x, axis=axis, out=out, return_preactivation=True)[0] is out
        assert_same_bits(out, a)


def test_a_callable_keeps_dtype_and_gets_its_own_array(rng):
    def inplace(z):
        z *= 2
        return z.astype(np.float64)

    layer = make(rng, dtype=np.float32, activation=inplace)
    x = rng.standard_normal((4, 7)).astype(np.float32)
    expected = 2 * fl.Layer.from_arrays(layer.weight, layer.bias)(x)
    assert_same_bits(layer(x), expected)
    a, z = layer.forward(x, return_preactivation=True)
    assert_same_bits(a, expected)
    assert_same_bits(2 * z, expected)


def test_a_layer_as_an_activation_is_a_callable_like_any_other():
    inner = fl.Layer(5, 5, "tanh", rng=1)
    layer = fl.Layer(4, 5, inner, rng=0)
    x = np.ones((3, 4), np.float32)
    assert layer.activation is inner
    assert_same_bits(layer(x), inner(fl.Layer.from_arrays(layer.weight, layer.bias)(x)))
    with pytest.raises(ValueError, match="keeps the shape"):
        fl.Layer(4, 5, fl.Layer(5, 3))(x)


@pytest.mark.parametrize(
    ("error", "match", "activation"),
    [
        (ValueError, r"\(4, 1\).*\(4, 5\)", lambda z: z[:, :1]),
        (TypeError, "complex128", lambda z: z + 0j),
        (ZeroDivisionError, "division", lambda z: 1 / 0),
    ],
)
def test_a_callable_that_misbehaves(rng, error, match, activation):
    with pytest.raises(error, match=match):
        make(rng, activation=activation)(np.ones((4, 7)))


# --- copies


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))]
)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_copies_are_equal_and_independent(rng, duplicate, activation):
    layer = make(rng, activation=activation)
    x = rng.standard_normal((4, 7))
    y = layer(x)
    twin = duplicate(layer)
    assert_same_bits(twin(x), y)
    assert repr(twin) == repr(layer)
    assert twin != layer
    twin.weight = np.zeros((5, 7))
    assert_same_bits(layer(x), y)


def test_a_pickle_holds_plain_arrays(rng):
    state = make(rng, activation="relu").__getstate__()
    assert {type(v) for k, v in state.items() if k in ("weight", "bias")} == {np.ndarray}
    assert b"PackedWeights" not in pickle.dumps(make(rng))


def test_repr_and_counts():
    layer = fl.Layer(784, 128, "relu")
    assert repr(layer) == "Layer(784, 128, activation='relu', dtype=float32)"
    assert layer.num_parameters == 784 * 128 + 128
    assert layer.nbytes == 4 * layer.num_parameters
    assert layer.flops(10) == 2 * 10 * 784 * 128
    assert repr(fl.Layer(2, 1, bias=False)) == "Layer(2, 1, bias=False, dtype=float32)"
    leaky = fl.Activation("leaky_relu", negative_slope=0.1)
    assert "leaky_relu(negative_slope=0.1)" in repr(fl.Layer(2, 1, leaky))
