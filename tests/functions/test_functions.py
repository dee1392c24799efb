"""linear, matmul, dot, dense_forward and bias_add: values, shapes, dtypes, out=."""

from concurrent.futures import ThreadPoolExecutor

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from helpers import (
    FLOATS,
    LAYOUTS,
    SAME_VALUES,
    SIZES,
    assert_same_bits,
    assert_within,
    linear_bound,
    ref_linear,
    sum_bound,
    wide_type,
)
from hypothesis import given

import fastlayer as fl
from fastlayer import _core


def _shapes():
    """Every size as m, as k and as n, beside sizes that keep the product small; and the corners."""
    rng = np.random.default_rng(7)
    out = {(0, 0, 0), (1, 1, 1), (1, 784, 1), (1, 257, 784), (257, 784, 1), (3, 784, 257)}
    for s in SIZES:
        for place in range(3):
            for limit in (9, 65):
                shape = rng.choice([v for v in SIZES if v <= limit], 3)
                shape[place] = s
                out.add(tuple(int(v) for v in shape))
    return sorted(out)


SHAPES = _shapes()


@pytest.fixture(params=FLOATS, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


# --- linear


def test_linear_is_within_the_bound(rng, dtype):
    for m, k, n in SHAPES:
        x, w = normal(rng, (m, k), dtype), normal(rng, (n, k), dtype)
        for bias in (None, normal(rng, n, dtype)):
            y = fl.linear(x, w, bias)
            assert y.dtype == dtype
            assert_within(y, ref_linear(x, w, bias), linear_bound(x, w, bias))


def test_linear_layer_and_network_have_the_same_bits(rng, dtype):
    for m, k, n in SHAPES:
        x, w, b = (normal(rng, s, dtype) for s in ((m, k), (n, k), n))
        y = fl.linear(x, w, b, "relu")
        layer = fl.Layer.from_arrays(w, b, "relu")
        assert_same_bits(layer(x), y)
        assert_same_bits(fl.Network([layer])(x), y)
        assert_same_bits(fl.Layer.from_arrays(w.T, b, "relu", layout="in_out")(x), y)


@pytest.mark.parametrize("layout", SAME_VALUES)
def test_linear_has_the_same_bits_in_every_layout(rng, dtype, layout):
    change = LAYOUTS[layout]
    for m, k, n in [(1, 33, 17), (5, 257, 9), (67, 31, 65), (3, 1, 1)]:
        x, w, b = (normal(rng, s, dtype) for s in ((m, k), (n, k), n))
        expected = fl.linear(x, w, b)
        assert_same_bits(fl.linear(change(x), w, b), expected)
        assert_same_bits(fl.linear(x, change(w), b), expected)
        assert_same_bits(fl.linear(x, w, change(b)), expected)
        assert_same_bits(fl.Layer.from_arrays(change(w), change(b))(x), expected)


@pytest.mark.parametrize(
    "shape", [(), (1,), (7,), (1, 7), (5, 1), (5, 7), (2, 1, 1), (2, 5, 7), (1, 5, 1)], ids=str
)
def test_linear_broadcasts_the_bias(rng, dtype, shape):
    x, w, b = (
        normal(rng, (2, 5, 300), dtype),
        normal(rng, (7, 300), dtype),
        normal(rng, shape, dtype),
    )
    y = fl.linear(x, w, b)
    assert_within(y, ref_linear(x, w, b), linear_bound(x, w, b))
    rows = [
        fl.linear(v, w, c)
        for v, c in zip(x.reshape(10, 300), np.broadcast_to(b, y.shape).reshape(10, 7), strict=True)
    ]
    assert_same_bits(y, np.reshape(rows, y.shape))


@pytest.mark.parametrize("lead", [(), (1,), (4,), (2, 3), (2, 0, 3), (1, 2, 1, 2)], ids=str)
def test_linear_takes_any_leading_shape(rng, dtype, lead):
    x, w = normal(rng, (*lead, 19), dtype), normal(rng, (6, 19), dtype)
    y = fl.linear(x, w)
    assert y.shape == (*lead, 6)
    assert_same_bits(y, fl.linear(x.reshape(-1, 19), w).reshape(y.shape))


def test_linear_with_the_weights_of_one_neuron(rng, dtype):
    x, w = normal(rng, (2, 5, 300), dtype), normal(rng, 300, dtype)
    assert_same_bits(fl.linear(x, w, 0.5), fl.linear(x, w[None], 0.5)[..., 0])
    assert_same_bits(fl.linear(x[0, 0], w), fl.dot(x[0, 0], w))


def test_linear_with_no_inputs_is_the_bias(dtype):
    b = np.array([1.5, -0.0], dtype)
    assert_same_bits(
        fl.linear(np.ones((3, 0), dtype), np.ones((2, 0), dtype), b), np.tile(b, (3, 1))
    )
    assert_same_bits(
        fl.linear(np.ones((3, 0), dtype), np.ones((2, 0), dtype)), np.zeros((3, 2), dtype)
    )


def test_linear_reads_the_arrays_at_every_call(rng, dtype):
    x, w, b = (normal(rng, s, dtype) for s in ((4, 5), (3, 5), 3))
    first = fl.linear(x, w, b)
    w *= 2
    b *= 2
    assert_same_bits(fl.linear(x, w, b), 2 * first)


@pytest.mark.parametrize(
    "activation", [np.tanh, lambda z: z * z, fl.tanh, "tanh", fl.Activation("elu", alpha=2)]
)
def test_linear_takes_names_functions_and_callables(rng, dtype, activation):
    x, w = normal(rng, (4, 5), dtype), normal(rng, (3, 5), dtype)
    act = fl.tanh if activation == "tanh" else activation
    assert_same_bits(fl.linear(x, w, None, activation), act(fl.linear(x, w)))


def test_linear_out(rng, dtype):
    x, w, b = (normal(rng, s, dtype) for s in ((9, 40), (17, 40), 17))
    expected = fl.linear(x, w, b, "tanh")
    out = np.full((9, 17), np.nan, dtype)
    assert fl.linear(x, w, b, "tanh", out=out) is out
    assert_same_bits(out, expected)
    assert fl.linear(x, w, b, np.negative, out=out) is out
    assert_same_bits(out, -fl.linear(x, w, b))


@pytest.mark.parametrize(
    ("x", "w", "b"),
    [
        ((4, 3), (2, 4), None),
        ((3,), (2, 4), None),
        ((4, 3), (2, 3), (3,)),
        ((), (2, 3), None),
    ],
)
def test_linear_refuses_shapes_that_do_not_fit(x, w, b):
    with pytest.raises(ValueError, match=r"\(") as caught:
        fl.linear(np.ones(x), np.ones(w), None if b is None else np.ones(b))
    assert "\n" not in str(caught.value)
    for shape in (x, w) if b is None else (b,):
        assert (str(shape) if shape else "scalar") in str(caught.value)


def test_unknown_activation_names_the_nearest():
    with pytest.raises(ValueError, match="leaky_relu"):
        fl.linear(np.ones((2, 3)), np.ones((4, 3)), None, "leakyrelu")


# --- dtypes

KINDS = ["?", "i1", "u1", "i2", "i4", "i8", "u8", "f2", "f4", "f8"]


def promoted(*dtypes):
    """NumPy's promotion; integers and bools among themselves become float64."""
    common = np.result_type(*dtypes)
    return common if common.kind == "f" else np.dtype(np.float64)


@pytest.mark.parametrize("right", KINDS)
@pytest.mark.parametrize("left", KINDS)
def test_promotion(rng, left, right):
    x, w = (rng.integers(0, 2, s).astype(d) for s, d in (((3, 4), left), ((2, 4), right)))
    result = promoted(left, right)
    exact = (x.astype(int) @ w.astype(int).T).astype(result)  # small integers: nothing is rounded
    for y in (
        fl.linear(x, w),
        fl.matmul(x, w.T),
        fl.dot(x, w.T),
        fl.dense_forward(x.T, w, 0, None)[1].T,
    ):
        assert_same_bits(y, exact)
    assert_same_bits(fl.bias_add(x, w[0]), (x.astype(int) + w[0].astype(int)).astype(result))


def test_float16_is_computed_in_float32(rng):
    x, w, b = (rng.standard_normal(s).astype(np.float16) for s in ((5, 300), (4, 300), 4))
    in_float32 = fl.linear(*(a.astype(np.float32) for a in (x, w, b)), "sigmoid")
    assert_same_bits(fl.linear(x, w, b, "sigmoid"), in_float32.astype(np.float16))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_one_neuron_runs_over_the_samples(rng, dtype, name):
    """A weight of shape (k,) gives a result without a last axis, as NumPy's product does."""
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((6, 5), 5, ()))
    expected = getattr(fl, name)(fl.linear(x, w, b))
    assert_same_bits(fl.linear(x, w, b, name), expected)
    out = np.empty(6, dtype)
    assert fl.linear(x, w, b, name, out=out) is out
    assert_same_bits(out, expected)


@pytest.mark.parametrize("activation", ["identity", "relu", "softmax"])
def test_bias_for_each_row(rng, dtype, activation):
    """The sums start from a bias that differs between rows, as the contract says of any bias."""
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((6, 300), (4, 300), (6, 4)))
    rows = np.concatenate([fl.linear(x[i : i + 1], w, b[i], activation) for i in range(6)])
    for weight in (w, np.asfortranarray(w)):
        assert_same_bits(fl.linear(x, weight, b, activation), rows)
        whole, wide = np.empty((6, 4), dtype), np.empty((6, 8), dtype)
        for out in (whole, whole[:, ::-1], wide[:, ::2], np.empty((4, 6), dtype).T):
            assert fl.linear(x, weight, b, activation, out=out) is out
            assert_same_bits(np.ascontiguousarray(out), rows)


@pytest.mark.parametrize("activation", ["relu", np.tanh])
def test_linear_delivers_into_what_the_core_cannot_write(rng, activation):
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((6, 5), (4, 5)))
    expected = fl.linear(x, w, None, activation)
    memory = np.zeros(6 * 4 * 4 + 1, np.uint8)
    misaligned = memory[1:].view(np.float32).reshape(6, 4)
    for out in (
        misaligned,
        np.empty((6, 4), np.float32)[::-1],
        np.empty((6, 8), np.float32)[:, ::2],
    ):
        assert fl.linear(x, w, None, activation, out=out) is out
        assert_same_bits(np.ascontiguousarray(out), expected)
    half = np.empty((6, 4), np.float16)
    x, w = x.astype(np.float16), w.astype(np.float16)
    assert fl.linear(x, w, None, activation, out=half) is half
    assert_same_bits(half, fl.linear(x, w, None, activation))


def test_a_callable_without_a_hash_is_an_activation(rng):
    class Doubled:
        __hash__ = None

        def __call__(self, z):
            return 2 * z

    x, w = rng.standard_normal((6, 5)), rng.standard_normal((4, 5))
    assert_same_bits(fl.linear(x, w, None, Doubled()), 2 * fl.linear(x, w))


@pytest.mark.parametrize("which", [0, 1, 2], ids=["x", "weight", "bias"])
@pytest.mark.parametrize("offset", [0, 3, 20])
def test_linear_out_shares_memory_with_an_argument(rng, dtype, which, offset):
    arguments = [rng.standard_normal(s).astype(dtype) for s in ((6, 5), (40, 5), 40)]
    memory = rng.standard_normal(300).astype(dtype)
    shared = arguments[which]
    arguments[which] = memory[offset : offset + shared.size].reshape(shared.shape)
    expected = fl.linear(*(a.copy() for a in arguments), "tanh")
    out = memory[:240].reshape(6, 40)
    assert fl.linear(*arguments, "tanh", out=out) is out
    assert_same_bits(out, expected)


@pytest.mark.parametrize("m", [1, 3])
def test_threads_share_the_columns_of_a_matrix_that_is_read_in_place(threads, rng, m):
    """Weights kept as (inputs, outputs), large enough to be worth help for a few rows."""
    a, b = (rng.standard_normal(s, dtype=np.float32) for s in ((m, 1000), (1000, 4000)))
    fl.set_num_threads(1)
    expected = fl.matmul(a, b)
    fl.set_num_threads(threads)
    for _ in range(3):
        assert_same_bits(fl.matmul(a, b), expected)


# Each takes longer than 5 ms by the estimate, so that it gives up the GIL and asks for signals, and
# the results of the element-wise ones are larger than most caches and go past them.
LARGE = {
    "relu": lambda x, v: fl.relu(x),
    "softmax": lambda x, v: fl.softmax(x),
    "prelu": lambda x, v: fl.prelu(x, v),
    "bias_add": lambda x, v: fl.bias_add(x, v),
}


@pytest.mark.parametrize("columns", [10, 1000, 20000])
@pytest.mark.parametrize("name", LARGE)
def test_large_calls_have_the_bits_of_their_parts(rng, dtype, name, columns):
    rows = 13_000_000 * 4 // np.dtype(dtype).itemsize // columns
    x = np.tile(normal(rng, (50, columns), dtype), (rows // 50 + 1, 1))
    v = normal(rng, columns, dtype)
    few = LARGE[name](x[:50], v)
    with ThreadPoolExecutor(1) as other:  # handles no signals
        ys = LARGE[name](x, v), other.submit(LARGE[name], x, v).result()
    for y in ys:
        assert (y.reshape(-1, 50, columns) == few).all()


def test_large_products_have_the_bits_of_their_parts(rng, dtype):
    w, b = normal(rng, (1000, 900), dtype), normal(rng, (1000, 1), dtype)
    x = np.asfortranarray(np.tile(normal(rng, (900, 40), dtype), (1, 30)))
    a, z = fl.dense_forward(x, w, b, "tanh")
    a_few, z_few = fl.dense_forward(np.ascontiguousarray(x[:, :40]), w, b, "tanh")
    for i in range(30):
        part = slice(40 * i, 40 * (i + 1))
        assert_same_bits(a[:, part], a_few)
        assert_same_bits(z[:, part], z_few)
    assert_same_bits(fl.matmul(w, x), fl.linear(x.T, w).T)


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"linear: x is a scalar, but weight of shape \(4, 5\)"):
        fl.linear(1.0, np.ones((4, 5)))
    with pytest.raises(ValueError, match=r"linear: weight must be \(n, k\)"):
        fl.linear(np.ones(5), np.ones((1, 4, 5)))
    with pytest.raises(ValueError, match=r"pass weight\.T"):
        fl.linear(np.ones(4), np.ones((4, 5)))
    with pytest.raises(
        ValueError, match=r"weights of shape \(2, 3\) do not fit inputs of shape \(2,"
    ):
        fl.dense_forward(np.ones(2), np.ones((2, 3)), np.ones(2), "relu")
    with pytest.raises(ValueError, match=r"np\.dot and np\.matmul differ"):
        fl.dot(np.ones((2, 3)), np.ones((4, 3, 2)))


def test_dense_forward_takes_a_bias_larger_than_the_product(dtype):
    """As in NumPy's sum, the product is repeated."""
    x, w, b = np.arange(3, dtype=dtype), np.ones((2, 3), dtype), np.ones((4, 2), dtype)
    a, z = fl.dense_forward(x, w, b, "relu")
    assert_same_bits(z, np.full((4, 2), 4, dtype))
    assert_same_bits(a, z)


def test_lists_are_arrays():
    assert_same_bits(fl.linear([[1, 2]], [[3, 4], [5, 6]], [1, 1]), np.array([[12.0, 18.0]]))
    assert_same_bits(fl.dot([1.0, 2.0], [3.0, 4.0]), np.float64(11))


# --- matmul and dot


def exact_product(a, b):
    wide = wide_type(np.result_type(a, b))
    a, b = np.asarray(a, wide), np.asarray(b, wide)
    return np.matmul(a, b), np.matmul(np.abs(a), np.abs(b))


def check_product(y, a, b):
    exact, magnitude = exact_product(a, b)
    like = np.matmul(a, b)
    assert np.shape(y) == np.shape(like)
    assert y.dtype == like.dtype
    assert_within(np.asarray(y), np.asarray(exact), sum_bound(a.shape[-1], magnitude, like.dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@given(
    shapes=hnp.mutually_broadcastable_shapes(
        signature=np.matmul.signature, max_dims=3, min_side=0, max_side=5
    )
)
def test_matmul_on_stacks(dtype, shapes):
    rng = np.random.default_rng(0)
    a, b = (normal(rng, s, dtype) for s in shapes.input_shapes)
    y = fl.matmul(a, b)
    check_product(y, a, b)
    out = np.full(np.shape(y), np.nan, dtype)
    assert fl.matmul(a, b, out=out) is out
    assert_same_bits(out, y)


def test_matmul_over_sizes(rng, dtype):
    for m, k, n in SHAPES:
        a, b = normal(rng, (m, k), dtype), normal(rng, (k, n), dtype)
        y = fl.matmul(a, b)
        check_product(y, a, b)
        assert_same_bits(fl.dot(a, b), y)
        assert_same_bits(fl.linear(a, b.T), y)
        assert_same_bits(fl.matmul(a, np.ascontiguousarray(b.T).T), y)


@pytest.mark.parametrize("layout", SAME_VALUES)
def test_matmul_has_the_same_bits_in_every_layout(rng, dtype, layout):
    change = LAYOUTS[layout]
    for left, right in [
        ((5, 257), (257, 9)),
        ((33,), (33, 17)),
        ((2, 3, 8), (8, 4)),
        ((3, 9), (2, 9, 5)),
    ]:
        a, b = normal(rng, left, dtype), normal(rng, right, dtype)
        expected = fl.matmul(a, b)
        assert_same_bits(fl.matmul(change(a), b), expected)
        assert_same_bits(fl.matmul(a, change(b)), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_matmul_takes_zero_strides(rng, dtype, axis):
    a, b = normal(rng, (6, 40), dtype), normal(rng, (40, 5), dtype)
    a = np.broadcast_to(a[:1] if axis == 0 else a[:, :1], a.shape)
    assert_same_bits(fl.matmul(a, b), fl.matmul(a.copy(), b))
    assert_same_bits(fl.matmul(b.T, a.T), fl.matmul(b.T, a.T.copy()))


def test_vectors_of_every_length(rng, dtype):
    for k in SIZES:
        a, b = normal(rng, k, dtype), normal(rng, k, dtype)
        check_product(fl.dot(a, b), a, b)
        assert_same_bits(fl.matmul(a, b), fl.dot(a, b))
        w = normal(rng, (k, 3), dtype)
        assert_same_bits(fl.dot(a, w), fl.matmul(a, w))
        assert_same_bits(fl.dot(w.T, a), fl.matmul(w.T, a))
        check_product(fl.dot(w.T, a), w.T, a)


@pytest.mark.parametrize(("left", "right"), [((2, 3), (2, 3, 4)), ((1, 2, 2), (1, 2, 2))])
def test_dot_points_to_matmul_where_they_differ(left, right):
    with pytest.raises(ValueError, match="matmul"):
        fl.dot(np.ones(left), np.ones(right))


@pytest.mark.parametrize(
    ("left", "right"), [((2, 3, 4), (4,)), ((2, 3, 4), (4, 5)), ((3,), (2, 3, 4))]
)
def test_dot_is_matmul_where_they_agree(rng, dtype, left, right):
    a, b = normal(rng, left, dtype), normal(rng, right, dtype)
    assert np.dot(a, b).shape == fl.dot(a, b).shape
    assert_same_bits(fl.dot(a, b), fl.matmul(a, b))


@pytest.mark.parametrize("function", [fl.matmul, fl.dot])
@pytest.mark.parametrize(
    ("left", "right"), [((2, 3), (2, 3)), ((3,), (4,)), ((3,), (4, 3)), ((4, 3), (4,))]
)
def test_products_refuse_inner_sizes_that_differ(function, left, right):
    with pytest.raises(ValueError, match=r"\(") as caught:
        function(np.ones(left), np.ones(right))
    assert str(left) in str(caught.value)
    assert str(right) in str(caught.value)


@pytest.mark.parametrize(("left", "right"), [((), (2,)), ((2, 2), ()), ((), ())])
def test_matmul_refuses_scalars(left, right):
    with pytest.raises(ValueError, match=r"\(\)"):
        fl.matmul(np.ones(left), np.ones(right))


def test_matmul_out_shares_memory_with_an_input(rng, dtype):
    a, b = normal(rng, (8, 8), dtype), normal(rng, (8, 8), dtype)
    expected = fl.matmul(a, b)
    for left, right in ((0, 1), (1, 0)):
        arrays = [a.copy(), b.copy()]
        assert_same_bits(fl.matmul(*arrays, out=arrays[left]), expected)
        assert_same_bits(arrays[right], (a, b)[right])


# --- dense_forward and bias_add


@pytest.mark.parametrize("activation", ["relu", fl.sigmoid, np.tanh, None])
def test_dense_forward(rng, dtype, activation):
    w, b = normal(rng, (5, 300), dtype), normal(rng, 5, dtype)
    for inputs, biases in (
        (normal(rng, 300, dtype), b),
        (normal(rng, (300, 4), dtype), b[:, None]),
    ):
        a, z = fl.dense_forward(inputs, w, biases, activation)
        rows = np.atleast_2d(inputs.T)
        exact, bound = ref_linear(rows, w, b), linear_bound(rows, w, b)
        assert z.dtype == dtype
        assert_within(z, exact.T.reshape(z.shape), bound.T.reshape(z.shape))
        assert_same_bits(z, fl.linear(rows, w, b).T.reshape(z.shape))
        act = fl.relu if activation == "relu" else activation
        assert_same_bits(a, act(z) if act else z)


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=6))
def test_bias_add_is_numpys_addition(shapes):
    rng = np.random.default_rng(1)
    for dtype in FLOATS:
        z, b = (normal(rng, s, dtype) for s in shapes.input_shapes)
        assert_same_bits(fl.bias_add(z, b), z + b)
        out = np.full(shapes.result_shape, np.nan, dtype)
        assert fl.bias_add(z, b, out=out) is out
        assert_same_bits(out, np.asarray(z + b))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((5, 7), (5, 1)),
        ((5, 1), (5, 1)),
        ((5, 7), (1, 7)),
        ((3, 5, 7), (5, 7)),
        ((3, 5, 7), (5, 1)),
    ],
)
@pytest.mark.parametrize("layout", SAME_VALUES)
def test_bias_add_of_columns_and_equal_shapes(rng, dtype, left, right, layout):
    z, b = normal(rng, left, dtype), normal(rng, right, dtype)
    change = LAYOUTS[layout]
    assert_same_bits(fl.bias_add(change(z), b), z + b)
    assert_same_bits(fl.bias_add(z, change(b)), z + b)
    expected, whole = z + b, z.copy()
    assert fl.bias_add(whole, b, out=whole) is whole
    assert_same_bits(whole, expected)
    if left == right:
        assert_same_bits(fl.bias_add(z, b, out=b), expected)


@pytest.mark.parametrize(
    ("left", "right", "shape"),
    [((6,), (6, 4), (4,)), ((3, 6), (6,), (3,)), ((2, 3, 6), (6,), (2, 3)), ((6,), (6,), ())],
)
def test_products_with_vectors_write_to_out(rng, dtype, left, right, shape):
    a, b = normal(rng, left, dtype), normal(rng, right, dtype)
    y = fl.matmul(a, b)
    for spaced in (False, True):
        out = np.full((*shape, 2), np.nan, dtype)[..., 0] if spaced else np.empty(shape, dtype)
        assert fl.matmul(a, b, out=out) is out
        assert_same_bits(out, np.asarray(y))
        assert fl.dot(a, b, out=out) is out
        assert_same_bits(out, np.asarray(y))
    if shape == (3,):  # a result that is written over its input
        square = normal(rng, (6, 6), dtype)
        expected = fl.matmul(square, b)
        assert_same_bits(fl.matmul(square, b, out=b), expected)


def test_bias_add_over_sizes_and_layouts(rng, dtype):
    for n in SIZES:
        z, b = normal(rng, (5, n), dtype), normal(rng, n, dtype)
        for layout in SAME_VALUES:
            assert_same_bits(fl.bias_add(LAYOUTS[layout](z), LAYOUTS[layout](b)), z + b)
        expected = z + b
        assert_same_bits(fl.bias_add(z, b, out=z), expected)


@pytest.mark.parametrize("offset", [0, 1, 4, 15])
def test_results_larger_than_the_caches_are_whole_wherever_they_begin(dtype, offset, threads):
    n = _core.config()["caches"]["l3"] // np.dtype(dtype).itemsize + 1000 + offset
    if n > 1 << 25:
        pytest.skip("the last cache is very large")
    x = np.resize(np.array([-2, -0.0, 0.5, 3, -0.25, 7, -1], dtype), n)
    around = np.full(n + 32, 9, dtype)
    out = around[offset : offset + n]
    fl.set_num_threads(threads)
    assert fl.relu(x, out=out) is out
    assert_same_bits(out, np.where(x < 0, np.zeros((), dtype), x))
    assert (around[:offset] == 9).all()
    assert (around[offset + n :] == 9).all()
