"""Arrays as users have them: any layout and dtype in, any legal out=, clear refusals."""

import re
import sys
import types

import numpy as np
import pytest
from helpers import (
    FLOATS,
    LAYOUTS,
    WRITABLE,
    assert_same_bits,
    native,
    random_values,
)

import fastlayer as fl
from fastlayer import arrays as _arrays

WIDER = ["i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
DTYPES = ["?", "i1", "u1", *(order + d for order in "<>" for d in WIDER)]
K = 21


@pytest.fixture(params=FLOATS, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def normal(rng, shape, dtype=np.float64):
    return rng.standard_normal(shape).astype(dtype)


@pytest.fixture
def layer(rng, dtype):
    return fl.Layer.from_arrays(normal(rng, (13, K), dtype), normal(rng, 13, dtype), "relu")


@pytest.fixture
def net(rng, layer, dtype):
    return fl.Network([layer, fl.Layer.from_arrays(normal(rng, (5, 13), dtype), None, "tanh")])


# --- inputs


@pytest.mark.parametrize("order", ["<" if sys.byteorder == "little" else ">", "="])
def test_marks_of_byte_order_change_nothing(rng, dtype, order):
    """newbyteorder leaves a mark on a dtype that is native; NumPy calls the two equal."""

    def marked(a):
        return a.astype(a.dtype.newbyteorder(order))

    x, w, b = normal(rng, (9, K), dtype), normal(rng, (13, K), dtype), normal(rng, 13, dtype)
    layer = fl.Layer.from_arrays(marked(w), marked(b), "relu")
    assert_same_bits(layer.weight, w)
    norm = fl.LayerNorm(13, weight=marked(b), dtype=dtype)
    net = fl.Network([layer, norm])
    plain = fl.Network(
        [fl.Layer.from_arrays(w, b, "relu"), fl.LayerNorm(13, weight=b, dtype=dtype)]
    )
    out = marked(np.zeros((9, 13), dtype))
    assert net(marked(x), out=out) is out
    assert_same_bits(np.asarray(out, dtype), plain(x))
    assert_same_bits(net(marked(x)), plain(x))
    assert_same_bits(net(marked(x.T), axis=0), plain(x).T)
    assert_same_bits(net.predict(marked(x), batch_size=4), plain(x))
    assert_same_bits(fl.linear(marked(x), marked(w), marked(b), "relu"), layer(x))
    assert_same_bits(fl.matmul(marked(x), marked(w).T), fl.matmul(x, w.T))
    assert_same_bits(fl.dot(marked(x), marked(w[0])), fl.dot(x, w[0]))
    assert_same_bits(fl.bias_add(marked(x), marked(x[0])), fl.bias_add(x, x[0]))
    assert_same_bits(fl.dense_forward(marked(x[0]), marked(w), marked(b), "relu")[0], layer(x[0]))
    for f in (fl.relu, fl.softmax, lambda a: fl.prelu(a, marked(x[0]))):
        assert_same_bits(f(marked(x)), f(x))
    layer.update(weight=marked(w * 2))
    assert_same_bits(layer.weight, w * 2)


@pytest.mark.parametrize("input_dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_input_has_the_bits_of_its_plain_copy(rng, layer, net, dtype, layout, input_dtype):
    x = LAYOUTS[layout](random_values(rng, (9, K), input_dtype))
    before = x.tobytes()
    converted = np.ascontiguousarray(x, dtype)
    for f in (layer, net):
        y = f(x)
        assert y.dtype == dtype
        assert_same_bits(y, f(converted))
    plain = native(x)
    weight, bias = layer.weight, layer.bias
    computed = {"f2": np.float32, "f4": np.float32}.get(plain.dtype.str[1:], np.float64)
    result = np.result_type(plain, weight)
    assert_same_bits(
        fl.linear(x, weight, bias),
        fl.linear(plain.astype(result), weight.astype(result), bias.astype(result)),
    )
    expected = fl.relu(plain.astype(computed))
    assert_same_bits(fl.relu(x), expected.astype(np.float16) if plain.dtype == "f2" else expected)
    assert x.tobytes() == before


@pytest.mark.parametrize("order", "<>")
def test_every_number_of_float16(dtype, order):
    x = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(order + "f2")
    expected = x.astype(dtype)
    one = np.ones((1, 1), dtype)
    found = fl.matmul(x[:, None], one).ravel()
    assert found.dtype == dtype
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.isinf(found).sum() == 2
    assert np.isnan(found).sum() == 2 * 1023


@pytest.mark.parametrize("kind", [np.intc, np.uintc, np.int_, np.uint, np.longlong, np.ulonglong])
def test_every_integer_type_of_c(layer, kind):
    x = np.arange(2 * K, dtype=kind).reshape(2, K)
    assert_same_bits(layer(x), layer(x.astype(layer.dtype)))
    assert_same_bits(fl.relu(x), x.astype(np.float64))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(K,), (2, 3, K), (2, 1, 3, K)], ids=str)
def test_layouts_of_other_ranks(rng, net, layout, shape):
    x = LAYOUTS[layout](normal(rng, shape))
    if x.shape[-1] != K:
        x = np.empty((0, K))
    y = net(x)
    assert y.shape == (*x.shape[:-1], 5)
    assert_same_bits(y, net(native(x)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_have_the_bits_of_rows(rng, layer, net, layout):
    rows = LAYOUTS[layout](normal(rng, (9, K)))
    for f in (layer, net):
        assert_same_bits(f(rows.T, axis=0), f(rows).T)
    assert_same_bits(net(rows[:1].T, axis=0), net(rows[:1]).T)


@pytest.mark.parametrize("x", [[0.5] * K, [[1] * K] * 2, tuple(range(K)), [True] * K])
def test_lists(layer, net, x):
    for f in (layer, net):
        assert_same_bits(f(x), f(np.array(x, f.dtype if f is layer else layer.dtype)))


def test_empty_batches(layer, net, dtype):
    for shape in [(0, K), (0, 3, K), (3, 0, K)]:
        x = np.empty(shape, dtype)
        assert_same_bits(layer(x), np.empty((*shape[:-1], 13), dtype))
        assert_same_bits(net(x), np.empty((*shape[:-1], 5), dtype))
        assert_same_bits(net(x, out=np.empty((*shape[:-1], 5), dtype)), net(x))


class Subclass(np.ndarray):
    pass


def test_subclasses_are_plain_arrays(rng, net):
    x = normal(rng, (4, K))
    y = net(x.view(Subclass))
    assert_same_bits(y, net(x))


REFUSED = [
    ("complex128", np.ones((2, K), complex)),
    ("complex64", np.ones((2, K), np.complex64)),
    ("object", np.ones((2, K), object)),
    ("str|<U", np.ones((2, K)).astype(str)),
    ("bytes|S", np.ones((2, K)).astype("S3")),
    ("datetime64", np.zeros((2, K), "M8[s]")),
    ("timedelta64", np.zeros((2, K), "m8[s]")),
    ("masked", np.ma.masked_array(np.ones((2, K)), mask=False)),
    ("void|V|f0|x", np.zeros((2, K), [("x", "f4")])),
    ("longdouble|float128", np.ones((2, K), np.longdouble)),
    ("complex", [[1j] * K]),
]


@pytest.mark.parametrize(("named", "x"), REFUSED, ids=[str(n) for n, _ in REFUSED])
def test_unsuitable_dtypes_are_refused_by_name(layer, net, named, x):
    calls = [
        layer,
        net,
        fl.relu,
        fl.softmax,
        lambda v: fl.linear(v, layer.weight),
        lambda v: fl.linear(np.ones((2, K)), v),
        lambda v: fl.matmul(v, layer.weight.T),
        lambda v: fl.bias_add(v, np.ones(K)),
        fl.Layer.from_arrays,
    ]
    for call in calls:
        with pytest.raises(TypeError, match=named):
            call(x)


# --- out=


@pytest.mark.parametrize("layout", WRITABLE)
@pytest.mark.parametrize("x_layout", ["c", "transposed", "sliced"])
def test_out_is_written_in_place(rng, layer, net, dtype, layout, x_layout):
    x = LAYOUTS[x_layout](normal(rng, (9, K), dtype))
    calls = [
        (layer, 13),
        (net, 5),
        (lambda v, out=None: fl.linear(v, layer.weight, layer.bias, "gelu", out=out), 13),
        (lambda v, out=None: fl.matmul(v, layer.weight.T, out=out), 13),
        (lambda v, out=None: fl.bias_add(v[:, :13], layer.bias, out=out), 13),
        (fl.tanh, K),
        (fl.softmax, K),
        (lambda v, out=None: fl.softmax(v, axis=0, out=out), K),
    ]
    for call, n in calls:
        expected = call(x)
        out = LAYOUTS[layout](np.full((9, n), np.nan, dtype))
        assert call(x, out=out) is out
        assert_same_bits(out, expected)


@pytest.mark.parametrize("layout", ["sliced", "padded_rows"])
def test_out_leaves_its_surroundings_alone(rng, net, dtype, layout):
    out = LAYOUTS[layout](np.zeros((9, 5), dtype))
    around = out.base
    around[...] = 7
    x = normal(rng, (9, K), dtype)
    net(x, out=out)
    assert_same_bits(out, net(x))
    out[...] = 7
    assert (around == 7).all()


@pytest.mark.parametrize("layout", WRITABLE)
def test_out_of_columns(rng, layer, net, dtype, layout):
    x = normal(rng, (K, 9), dtype)
    for f, n in ((layer, 13), (net, 5)):
        out = LAYOUTS[layout](np.full((n, 9), np.nan, dtype))
        assert f(x, axis=0, out=out) is out
        assert_same_bits(out, f(x, axis=0))


def test_out_of_a_single_row(rng, layer, dtype):
    x = normal(rng, K, dtype)
    out = np.empty(26, dtype)[::-2]
    assert layer(x, out=out) is out
    assert_same_bits(out, layer(x))


@pytest.mark.parametrize("shift", [-13, -7, -1, 0, 1, 5, 13, 21])
@pytest.mark.parametrize("m", [1, 2, 9, 70])
def test_overlap_of_out_and_x(rng, layer, dtype, m, shift):
    """Two matrices in one buffer, out `shift` elements after x: the answer of two buffers."""
    buffer = normal(rng, m * K + 60, dtype)

    def part(start, shape):
        return buffer[start : start + shape[0] * shape[1]].reshape(shape)

    kept = buffer.copy()
    calls = [
        (layer, 13),
        (fl.Network([layer, fl.Layer.from_arrays(np.eye(13, dtype=dtype))]), 13),
        (lambda v, out=None: fl.linear(v, layer.weight, layer.bias, out=out), 13),
        (lambda v, out=None: fl.matmul(v, layer.weight.T, out=out), 13),
        (fl.sigmoid, K),
        (fl.softmax, K),
    ]
    for call, n in calls:
        buffer[:] = kept
        x, out = part(20, (m, K)), part(20 + shift, (m, n))
        expected = call(x.copy())
        assert call(x, out=out) is out
        assert_same_bits(out, expected)


def test_overlap_of_out_and_the_parameters(rng, dtype):
    x, square = normal(rng, (8, 8), dtype), normal(rng, (8, 8), dtype)
    expected = fl.linear(x, square, square[0])
    weight = square.copy()
    assert_same_bits(fl.linear(x, weight, square[0], out=weight), expected)
    weight = square.copy()
    assert_same_bits(fl.linear(x, weight, weight[0], out=weight.T), expected)
    bias = np.tile(square[0], (8, 1))
    assert_same_bits(fl.linear(x, square, bias, out=bias), expected)


def test_square_layer_in_place_and_transposed_in_place(rng, dtype):
    layer = fl.Layer.from_arrays(normal(rng, (9, 9), dtype))
    x = normal(rng, (9, 9), dtype)
    for view in (lambda a: a, lambda a: a.T, lambda a: a[::-1], lambda a: a[:, ::-1]):
        array = x.copy()
        expected = layer(array)
        assert_same_bits(layer(array, out=view(array)), expected)


def bad_outs(shape, dtype):
    other = np.float32 if dtype == np.float64 else np.float64
    read_only = np.full(shape, 7, dtype)
    read_only.flags.writeable = False
    yield "other float", TypeError, np.full(shape, 7, other)
    yield "integer", TypeError, np.full(shape, 7, np.int64)
    yield "too few rows", ValueError, np.full((shape[0] - 1, shape[1]), 7, dtype)
    yield "too many columns", ValueError, np.full((shape[0], shape[1] + 1), 7, dtype)
    yield "other rank", ValueError, np.full(shape[1:], 7, dtype)
    yield "flat", ValueError, np.full(shape[0] * shape[1], 7, dtype)
    yield "read-only", ValueError, read_only
    row = np.full(shape[1:], 7, dtype)
    broadcast = np.lib.stride_tricks.as_strided(row, shape, (0, row.itemsize))
    yield "broadcast", ValueError, broadcast
    yield "list", TypeError, [[7.0] * shape[1]] * shape[0]


@pytest.mark.parametrize("case", range(9))
def test_bad_out_raises_and_changes_nothing(rng, layer, net, dtype, case):
    x = normal(rng, (9, K), dtype)
    calls = [
        (layer, 13),
        (net, 5),
        (lambda v, out: fl.linear(v, layer.weight, layer.bias, out=out), 13),
        (lambda v, out: fl.matmul(v, layer.weight.T, out=out), 13),
        (lambda v, out: fl.bias_add(v, np.ones(K, dtype), out=out), K),
        (fl.relu, K),
        (fl.softmax, K),
    ]
    for call, n in calls:
        what, error, out = list(bad_outs((9, n), dtype))[case]
        before = np.array(out).tobytes()
        with pytest.raises(error, match="out") as caught:
            call(x, out=out)
        assert np.array(out).tobytes() == before, what
        if what in ("too few rows", "too many columns", "other rank"):
            assert str((9, n)) in str(caught.value)
            assert str(out.shape) in str(caught.value)


# --- messages


def refusal(function, *arrays, error=ValueError, **keywords):
    with pytest.raises(error) as caught:
        function(*arrays, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_bias_that_does_not_broadcast_is_one_line_with_both_shapes():
    message = refusal(fl.linear, np.ones((4, 3)), np.ones((2, 3)), np.ones(3))
    assert re.search(r"\(4, 2\).*\(3,\)|\(3,\).*\(4, 2\)", message)


@pytest.mark.parametrize("shape", [(4, K + 1), (K - 1,), (2, 3, 1)], ids=str)
def test_wrong_feature_count_names_both(layer, net, shape):
    for f in (layer, net):
        message = refusal(f, np.ones(shape))
        assert str(shape) in message
        assert str(K) in message
    message = refusal(fl.linear, np.ones(shape), layer.weight)
    assert str(shape) in message
    assert str((13, K)) in message


def test_columns_given_as_rows(layer):
    message = refusal(layer, np.ones((K, 1)))
    assert str((K, 1)) in message
    assert "axis=0" in message


def test_a_number_is_not_a_row(layer, net):
    for f in (layer, net):
        assert "scalar" in refusal(f, 1.0)


def test_layer_arrays_that_do_not_fit():
    message = refusal(fl.Layer.from_arrays, np.ones((2, 4)), np.ones(3))
    assert "(3,)" in message
    assert "(2,)" in message
    assert "(4,)" in refusal(fl.Layer.from_arrays, np.ones(4))
    assert "(1, 2, 3)" in refusal(fl.Layer.from_arrays, np.ones((1, 2, 3)))


def test_incompatible_neighbours_name_both():
    layers = [fl.Layer(3, 4, rng=0), fl.Layer(5, 2, rng=0)]
    message = refusal(fl.Network, layers)
    for part in ("4", "5"):
        assert part in message


def test_weights_are_read_only(layer):
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        layer.bias[0] = 1


@pytest.mark.thread_unsafe(reason="replaces the weights of a fixture")
def test_assigned_weights_are_seen_everywhere(rng, layer, net, dtype):
    x = normal(rng, (4, K), dtype)
    first = net(x)
    weight = normal(rng, (13, K), dtype)
    layer.weight = weight
    assert_same_bits(layer(x), fl.linear(x, weight, layer.bias, "relu"))
    again = net(x)
    assert_same_bits(again, fl.Network(list(net.layers))(x))
    assert (again != first).any()
    weight[...] = 0  # the layer holds its own copy
    assert_same_bits(net(x), again)
    message = refusal(layer.update, weight=np.ones((13, K + 1)))
    assert str((13, K + 1)) in message
    assert_same_bits(net(x), again)


def test_columns_of_a_square_array_are_not_taken_for_a_whole_one(rng, dtype):
    """Rows lie as far apart as there are rows, which is also what a flat array of that width has."""
    a, b = normal(rng, (8, 8), dtype), np.full((8, 8), 7, dtype)
    fl.relu(a[:, :5], out=b[:, :5])
    assert_same_bits(b[:, :5], np.maximum(a[:, :5], 0))
    assert (b[:, 5:] == 7).all()


@pytest.mark.parametrize("m", [1, 3, 40])
def test_columns_that_lie_an_odd_number_of_bytes_apart(rng, layer, net, dtype, m):
    """Rows lie side by side as in a transposed array, but no column begins at an element."""
    size = np.dtype(dtype).itemsize
    memory = np.zeros(K * (m * size + 1), np.uint8)
    x = np.ndarray((m, K), dtype, memory, strides=(size, m * size + 1))
    x[...] = normal(rng, (m, K), dtype)
    plain = np.ascontiguousarray(x)
    for f in (layer, net, fl.relu, lambda a: fl.linear(a, layer.weight)):
        assert_same_bits(f(x), f(plain))


def test_a_core_that_declines_what_was_made_to_fit_is_reported():
    x = np.ones(3, np.float32)
    for out in (None, np.empty_like(x)):
        with pytest.raises(RuntimeError, match="declined valid arguments; please report"):
            _arrays.evaluate(lambda a, target: None, x, (x.dtype, x.dtype), x.shape, out)


@pytest.mark.parametrize(("axis", "expected"), [(0, r"\(21, \.\.\.\)"), (-1, r"\(\.\.\., 21\)")])
def test_the_expected_shape_is_that_of_the_axis(layer, axis, expected):
    x = np.ones((5, 2), layer.dtype)
    with pytest.raises(ValueError, match=f"expected x of shape {expected}, got .* axis={axis}"):
        layer(x, axis=axis)


def test_numpy_ma_in_the_midst_of_its_import(monkeypatch):
    """Another thread's import puts the module there before what is in it."""
    monkeypatch.setitem(sys.modules, "numpy.ma", types.ModuleType("numpy.ma"))
    assert_same_bits(fl.relu([-1.0, 2.0]), np.array([0.0, 2.0]))
