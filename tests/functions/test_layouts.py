"""Any layout, dtype, alignment and overlap: the right answer or a named error, nothing lost.

100 examples of each test are a part of the suite. The long run, 10^4 of each and so more than 10^5
together, is ``HYPOTHESIS_PROFILE=long pytest tests/functions/test_layouts.py``.
"""

import array
from importlib.util import find_spec

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from anywhere import KINDS, Memory, sides
from helpers import (
    DERIVATIVES,
    ELEMENTWISE,
    FLOATS,
    LAYOUTS,
    ULP_LIMITS,
    activation_bound,
    assert_same_bits,
    assert_within,
    ref_network,
    reference,
    slope_limit,
    sum_bound,
    ulp,
    ulp_error,
    wide_type,
)
from hypothesis import given
from hypothesis import strategies as st

import fastlayer as fl

SIDES = st.integers(0, 5) | st.sampled_from([8, 16, 17, 33])
LEADS = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def dtypes_of(*arrays):
    """The dtype that NumPy's promotion computes in, integers as float64, and the result's."""
    common = np.result_type(*(a.dtype for a in arrays))
    if common == np.float16:
        return np.dtype(np.float32), common
    return (common, common) if common == np.float32 else (np.dtype(np.float64),) * 2


def computed(compute, *arrays):
    with np.errstate(all="ignore"):
        return [np.array(a, compute, order="C") for a in arrays]


def assert_right(y, exact, bound, dtype):
    """Within the bound; a result in float16 within what the bound's ends round to."""
    y = np.asarray(y)
    assert y.dtype == dtype
    assert y.shape == exact.shape
    if dtype != np.float16:
        assert_within(y, exact, bound)
        return
    with np.errstate(over="ignore"):
        low, high = (exact - bound).astype(dtype), (exact + bound).astype(dtype)
    assert ((low <= y) & (y <= high)).all()


def check_product(y, a, b, start=None):
    """``a @ b + start`` in the dtype of NumPy's promotion."""
    operands = [v for v in (a, b, start) if v is not None]
    check_product_in(y, a, b, *dtypes_of(*operands), start)


def check_product_in(y, a, b, compute, result, start=None):
    """The same, computed in one dtype and rounded to another."""
    operands = [v for v in (a, b, start) if v is not None]
    wide = [v.astype(wide_type(compute)) for v in computed(compute, *operands)]
    exact, magnitude = np.matmul(*wide[:2]), np.matmul(*map(np.abs, wide[:2]))
    if start is not None:
        exact, magnitude = exact + wide[2], magnitude + np.abs(wide[2])
    bound = sum_bound(a.shape[-1], magnitude, compute)
    assert_right(y, np.asarray(exact), np.asarray(bound), result)


# --- functions


@given(st.data())
def test_linear(data):
    memory = Memory(data)
    lead, k, n = data.draw(LEADS), data.draw(SIDES), data.draw(SIDES)
    rows = sides((*lead, k), 100)
    memory.array(rows)
    memory.array((n, k))
    shape = (*lead, n)[-1 - data.draw(st.integers(0, 2)) :]
    bias = data.draw(st.sampled_from([None, (n,), (1,), (), shape]))
    if bias is not None and rows[:-1] == lead:
        memory.array(bias)
    x, w, *b = memory.arrays()
    x, w = x[..., : min(x.shape[-1], k)], w[:, : x.shape[-1]]
    y = memory.unchanged(lambda: fl.linear(x, w, *b))
    check_product(y, x, w.T, *b)
    cut = x.shape[-1]
    memory.check_out(lambda a, out: fl.linear(a[0], a[1][:, :cut], *a[2:], out=out), y)


@given(
    hnp.mutually_broadcastable_shapes(
        signature=np.matmul.signature, max_dims=2, min_side=0, max_side=5
    ),
    st.data(),
)
def test_matmul(shapes, data):
    memory = Memory(data)
    for shape in shapes.input_shapes:
        memory.array(shape)
    a, b = memory.arrays()
    y = memory.unchanged(lambda: fl.matmul(a, b))
    check_product(y, np.asarray(a), np.asarray(b))
    memory.check_out(lambda v, out: fl.matmul(*v, out=out), y)


@given(st.data())
def test_dot(data):
    memory = Memory(data)
    m, k, n = (data.draw(SIDES) for _ in range(3))
    memory.array(data.draw(st.sampled_from([(k,), (m, k), (2, 3, k)])))
    memory.array(data.draw(st.sampled_from([(k,), (k, n)])))
    a, b = memory.arrays()
    y = memory.unchanged(lambda: fl.dot(a, b))
    check_product(y, np.asarray(a), np.asarray(b))
    memory.check_out(lambda v, out: fl.dot(*v, out=out), y)


@given(st.data())
def test_dense_forward(data):
    memory = Memory(data)
    m, k, n = (data.draw(SIDES) for _ in range(3))
    inputs = data.draw(st.sampled_from([(k,), (k, m)]))
    weights = data.draw(st.sampled_from([(n, k), (k,)]))
    shape = weights[:-1] + inputs[1:]
    bias = data.draw(st.sampled_from([(), (1,) * len(shape), (*shape[:1], 1)[: len(shape)], shape]))
    for s in (inputs, weights, bias):
        memory.array(s)
    x, w, b = memory.arrays()
    name = data.draw(st.sampled_from([None, "relu", "leaky_relu", "hardtanh"]))
    a, z = memory.unchanged(lambda: fl.dense_forward(x, w, b, name))
    check_product(z, np.asarray(w), np.asarray(x), np.asarray(b))
    assert_same_bits(a, z if name is None else getattr(fl, name)(z))


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=5), st.data())
def test_bias_add(shapes, data):
    memory = Memory(data)
    for shape in shapes.input_shapes:
        memory.array(shape)
    z, b = memory.arrays()
    y = memory.unchanged(lambda: fl.bias_add(z, b))
    compute, result = dtypes_of(z, b)
    assert_same_bits(y, np.add(*computed(compute, z, b)).astype(result))
    memory.check_out(lambda v, out: fl.bias_add(*v, out=out), y)


# --- activations


def check_elementwise(name, lead, n, data):
    memory = Memory(data)
    memory.array(sides((*lead, n)) if data.draw(st.booleans()) else lead)
    (x,) = memory.arrays()
    f = getattr(fl, name)
    y = memory.unchanged(lambda: f(x))
    compute, result = dtypes_of(x)
    (v,) = computed(compute, x)
    exact = np.reshape(reference(name, v.ravel(), compute), v.shape)
    limit = ULP_LIMITS[name][compute == np.float64]
    if result == compute:
        y = np.asarray(y)
        assert y.dtype == result
        assert (ulp_error(y, exact) <= limit).all()
    else:
        assert_right(y, exact, limit * ulp(exact, compute), result)
    memory.check_out(lambda a, out: f(a[0], out=out), y)


@given(st.sampled_from([name for name in ELEMENTWISE if name != "gelu"]), LEADS, SIDES, st.data())
def test_elementwise(name, lead, n, data):
    check_elementwise(name, lead, n, data)


@pytest.mark.skipif(find_spec("mpmath") is None, reason="could not import 'mpmath'")
@given(LEADS, SIDES, st.data())
def test_gelu(lead, n, data):
    check_elementwise("gelu", lead, n, data)


@given(st.sampled_from(["softmax", "log_softmax"]), LEADS, SIDES, st.data())
def test_rowwise(name, lead, n, data):
    memory = Memory(data)
    memory.array(sides((*lead, n)), memory.dtype(["?", "i1", "u1", "f2", "f4", "f8"]))
    (x,) = memory.arrays()
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    f = getattr(fl, name)
    y = memory.unchanged(lambda: f(x, axis=axis))
    compute, result = dtypes_of(x)
    (v,) = computed(compute, x)
    rows = np.moveaxis(v, axis, -1)
    if rows.size == 0:
        assert np.shape(y) == x.shape
    elif name == "softmax":
        exact, bound = activation_bound(name, rows.astype(wide_type(compute)), 0 * rows, compute)
        assert_right(np.moveaxis(y, axis, -1), exact, bound, result)
    else:
        exact = reference(name, rows, compute)
        eps = np.finfo(compute).eps
        bound = (4 + np.log2(rows.shape[-1])) * eps * np.abs(exact)
        assert_right(np.moveaxis(y, axis, -1), exact, bound, result)
    memory.check_out(lambda a, out: f(a[0], axis=axis, out=out), y)


@given(LEADS, SIDES, st.data())
def test_prelu(lead, n, data):
    memory = Memory(data)
    memory.array(sides((*lead, n)))
    memory.array(data.draw(st.sampled_from([(), (1,), memory.places[0][0][-1:]])))
    x, slope = memory.arrays()
    y = memory.unchanged(lambda: fl.prelu(x, slope))
    compute, result = dtypes_of(x, slope)
    v, s = computed(compute, x, slope)
    with np.errstate(all="ignore"):
        assert_same_bits(y, np.where(v < 0, v * s, v).astype(result))
    memory.check_out(lambda a, out: fl.prelu(*a, out=out), y)


# --- the backward pass


@given(
    st.sampled_from([name for name in ELEMENTWISE if name != "gelu"]),
    hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=5),
    st.data(),
)
def test_activation_backward(name, shapes, data):
    memory = Memory(data)
    for shape in shapes.input_shapes:
        memory.array(shape)
    da, z = memory.arrays()
    dz = memory.unchanged(lambda: fl.activation_backward(da, z, name))
    compute, result = dtypes_of(da, z)
    d, v = computed(compute, da, z)
    with np.errstate(all="ignore"):
        slope = fl.activation_backward(compute.type(1), v, name)
        exact = reference(name, v, compute, functions=DERIVATIVES)
        assert (ulp_error(slope, exact) <= slope_limit(name, v, exact, compute)).all()
        assert_same_bits(dz, (d * slope).astype(result))
    memory.check_out(lambda a, out: fl.activation_backward(*a, name, out=out), dz)


@given(st.sampled_from(["softmax", "log_softmax"]), LEADS, SIDES, st.data())
def test_rowwise_backward(name, lead, n, data):
    memory = Memory(data)
    shape = sides((*lead, n))
    for _ in range(2):
        memory.array(shape, memory.dtype(["?", "i1", "u1", "f2", "f4", "f8"]))
    da, z = memory.arrays()
    axis = data.draw(st.integers(-z.ndim, z.ndim - 1))
    act = fl.Activation(name, axis=axis)
    dz = memory.unchanged(lambda: fl.activation_backward(da, z, act))
    compute, result = dtypes_of(da, z)
    rows = (np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in computed(compute, da, z))
    expected = fl.activation_backward(*rows, name)  # its accuracy: test_backward.py
    assert_same_bits(np.asarray(dz), np.moveaxis(expected, -1, axis).astype(result))
    memory.check_out(lambda a, out: fl.activation_backward(*a, act, out=out), dz)


def check_gradients(f, memory, columns):
    """Products against NumPy, and each of the three places of ``out=``."""
    dz, x, w = memory.arrays()
    found = memory.unchanged(lambda: f(dz, x, w))
    compute, result = dtypes_of(dz, x, w)
    d, v, m = (np.asarray(a) for a in (dz, x, w))
    n, k = (1, *w.shape)[-2:]
    if columns:
        count = 1 if x.ndim == 1 else x.shape[1]
        d, v = d.reshape(n, count).T, v.reshape(k, count).T
    else:
        count = int(np.prod(x.shape[:-1]))
        d, v = d.reshape(count, n), v.reshape(count, k)
    bias = w.shape[:-1] + (1,) * (columns and x.ndim == 2 and w.ndim == 2)
    assert [np.shape(y) for y in found] == [x.shape, w.shape, bias]
    d, v, m = computed(compute, d, v, m.reshape(n, k))
    ones = np.ones(count, compute)
    dx = np.reshape(found[0], (k, count)).T if columns else np.reshape(found[0], (count, k))
    for y, a, b in ((dx, d, m), (np.reshape(found[1], (n, k)), d.T, v)):
        check_product_in(y, a, b, compute, result)
    check_product_in(np.reshape(found[2], n), d.T, ones, compute, result)
    at = memory.draw(st.integers(0, 2))

    def into(arrays, out):
        return f(*arrays, out=tuple(out if i == at else None for i in range(3)))[at]

    memory.check_out(into, found[at])


@given(LEADS, SIDES, SIDES, st.booleans(), st.data())
def test_linear_backward(lead, k, n, single, data):
    memory = Memory(data)
    outputs = () if single else (n,)
    *lead, k = sides((*lead, k), 100)
    for shape in ((*lead, *outputs), (*lead, k), (*outputs, k)):
        memory.array(shape)
    check_gradients(fl.linear_backward, memory, columns=False)


@given(st.none() | SIDES, SIDES, SIDES, st.booleans(), st.data())
def test_dense_backward(m, k, n, single, data):
    memory = Memory(data)
    outputs, samples = () if single else (n,), () if m is None else (m,)
    for shape in ((*outputs, *samples), (k, *samples), (*outputs, k)):
        memory.array(shape)
    check_gradients(fl.dense_backward, memory, columns=True)


# --- layers and networks


def draw_net(memory, k, hidden, dtype):
    """A layer, or a network of two, and its weights for `ref_network`."""
    layers = []
    for features, name in ((hidden, "relu"), (3, "tanh")):
        w = memory.rng.standard_normal((features, k)).astype(dtype)
        b = memory.rng.standard_normal(features).astype(dtype)
        layers.append((w, b, name))
        k = features
    parts = [fl.Layer.from_arrays(*layer) for layer in layers]
    return (parts[0], layers[:1]) if memory.draw(st.booleans()) else (fl.Network(parts), layers)


@given(st.sampled_from(FLOATS), LEADS, SIDES, SIDES, st.data())
def test_layers_and_networks(dtype, lead, k, hidden, data):
    memory = Memory(data)
    rank = len(lead) + 1
    axis = data.draw(st.sampled_from([-1, -1, 0, data.draw(st.integers(-rank, rank - 1))]))
    place = axis % rank
    shape = (*lead[:place], k, *lead[place:])
    memory.array(shape)
    net, layers = draw_net(memory, k, hidden, dtype)
    (x,) = memory.arrays()
    y = memory.unchanged(lambda: net(x, axis=axis))
    (v,) = computed(np.dtype(dtype), x)
    exact, bound = ref_network(np.moveaxis(v, axis, -1), layers, dtype)
    assert_right(np.moveaxis(y, axis, -1), exact, bound, dtype)
    memory.check_out(lambda a, out: net(a[0], axis=axis, out=out), y)


@given(st.sampled_from(FLOATS), st.integers(0, 9), SIDES, SIDES, st.data())
def test_predict(dtype, m, k, hidden, data):
    memory = Memory(data)
    memory.array(data.draw(st.sampled_from([(m, k), (m, k), (m, 2, k)])))
    net, layers = draw_net(memory, k, hidden, dtype)
    net = net if isinstance(net, fl.Network) else fl.Network([net])
    size = data.draw(st.none() | st.integers(1, 10))
    (x,) = memory.arrays()
    y = memory.unchanged(lambda: net.predict(x, batch_size=size))
    assert_same_bits(y, net(np.asarray(x)))
    exact, bound = ref_network(*computed(np.dtype(dtype), x), layers, dtype)
    assert_right(y, exact, bound, dtype)
    memory.check_out(lambda a, out: net.predict(a[0], batch_size=size, out=out), y)


# --- what is no plain array of real numbers

REFUSED = ["c8", "c16", "O", "U4", "S4", "M8[s]", "m8[s]", "g", "V8"]
CALLS = {
    "linear x": lambda v, out: fl.linear(v, np.ones((3, 4)), out=out),
    "linear weight": lambda v, out: fl.linear(np.ones(4), v, out=out),
    "linear bias": lambda v, out: fl.linear(np.ones((2, 5)), np.ones((4, 5)), v, out=out),
    "matmul a": lambda v, out: fl.matmul(v, np.ones((4, 3)), out=out),
    "matmul b": lambda v, out: fl.matmul(np.ones((3, 2)), v, out=out),
    "dot": lambda v, out: fl.dot(v, np.ones(4), out=out),
    "bias_add": lambda v, out: fl.bias_add(v, np.ones(4), out=out),
    "tanh": lambda v, out: fl.tanh(v, out=out),
    "tanh's da": lambda v, out: fl.activation_backward(v, np.ones((2, 4)), "tanh", out=out),
    "tanh's z": lambda v, out: fl.activation_backward(1.0, v, "tanh", out=out),
    "linear's dz": lambda v, out: fl.linear_backward(
        v, np.ones((2, 3)), np.ones((4, 3)), out=(out, None, None)
    ),
    "linear's x": lambda v, out: fl.linear_backward(
        np.ones((2, 3)), v, np.ones((3, 4)), out=(None, None, out)
    ),
    "dense weights": lambda v, out: fl.dense_backward(
        np.ones(2), np.ones(4), v, out=(None, out, None)
    ),
    "softmax": lambda v, out: fl.softmax(v, out=out),
    "layer": lambda v, out: fl.Layer(4, 3, rng=0)(v, out=out),
    "network": lambda v, out: fl.Network([fl.Layer(4, 3, rng=0)])(v, axis=0, out=out),
    "predict": lambda v, out: fl.Network([fl.Layer(4, 3, rng=0)]).predict(v, out=out),
}


@given(st.sampled_from(sorted(CALLS)), st.sampled_from([*REFUSED, "masked"]), st.data())
def test_dtypes_without_a_meaning_are_refused(name, dtype, data):
    memory = Memory(data)
    memory.array((2, 4), data.draw(st.sampled_from(KINDS)))
    (x,) = memory.arrays()
    plain = np.asarray(x)
    with np.errstate(all="ignore"):
        v = np.ma.masked_array(plain) if dtype == "masked" else np.zeros((2, 4), dtype)
    out = np.full((2, 3), 7.0)
    with pytest.raises(TypeError, match=r"masked|dtype"):
        memory.unchanged(lambda: CALLS[name](v, out))
    assert (out == 7).all()


# --- objects that offer an array


class OnlyArray:
    """An object with ``__array__`` and nothing else."""

    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a if dtype is None else self.a.astype(dtype)


class OnlyInterface:
    """An object with ``__array_interface__`` and nothing else."""

    def __init__(self, a):
        self.a = a
        self.__array_interface__ = a.__array_interface__


class OnlyDLPack:
    """An object with DLPack's two methods and nothing else."""

    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **keywords):
        return self.a.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


def as_ctypes(a):
    return np.ctypeslib.as_ctypes(np.ascontiguousarray(a))


PROTOCOLS = {
    "__array__": OnlyArray,
    "__array_interface__": OnlyInterface,
    "DLPack": OnlyDLPack,
    "memoryview": memoryview,
    "ctypes": as_ctypes,
}


@pytest.mark.parametrize("layout", ["c", "fortran", "sliced", "reversed", "transposed"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1"])
@pytest.mark.parametrize("offered", PROTOCOLS.values(), ids=PROTOCOLS)
def test_objects_that_offer_an_array_are_arrays(rng, offered, dtype, layout):
    x, w, b = (LAYOUTS[layout](rng.integers(0, 9, s).astype(dtype)) for s in ((5, 4), (3, 4), 3))
    ox, ow, ob = offered(x), offered(w), offered(b)
    assert_same_bits(fl.linear(ox, ow, ob), fl.linear(x, w, b))
    assert_same_bits(fl.matmul(ox, offered(w.T)), fl.matmul(x, w.T))
    assert_same_bits(fl.dot(ox, offered(w[0])), fl.dot(x, w[0]))
    assert_same_bits(fl.bias_add(ox, offered(x[0])), fl.bias_add(x, x[0]))
    assert_same_bits(fl.tanh(ox), fl.tanh(x))
    assert_same_bits(fl.softmax(ox, axis=0), fl.softmax(x, axis=0))
    a, z = fl.dense_forward(offered(x.T), ow, offered(b[:, None]), "relu")
    assert_same_bits(z, fl.linear(x, w, b).T)
    assert_same_bits(a, fl.relu(z))
    assert_same_bits(fl.activation_backward(ox, ox, "tanh"), fl.activation_backward(x, x, "tanh"))
    dz = fl.linear(x, w)
    for got, wanted in zip(
        fl.linear_backward(offered(dz), ox, ow), fl.linear_backward(dz, x, w), strict=True
    ):
        assert_same_bits(got, wanted)
    layer, plain = fl.Layer.from_arrays(ow, ob, "relu"), fl.Layer.from_arrays(w, b, "relu")
    assert_same_bits(layer.weight, plain.weight)
    out = np.empty((5, 3), layer.dtype)
    assert layer(ox, out=out) is out
    assert_same_bits(out, plain(x))
    net = fl.Network([layer])
    assert_same_bits(net(offered(x.T), axis=0), plain(x).T)
    assert_same_bits(net.predict(ox, batch_size=2), plain(x))
    layer.update(weight=offered(2 * w))
    assert_same_bits(layer(ox), fl.Layer.from_arrays(2 * w, b, "relu")(x))


@pytest.mark.parametrize(
    "x", [array.array("f", [1, 2, 3]), array.array("i", [1, 2, 3]), bytearray(b"\1\2\3")], ids=repr
)
def test_buffers_of_numbers_are_vectors(x):
    w = np.arange(6.0).reshape(2, 3)
    assert_same_bits(fl.linear(x, w), fl.linear(np.array(x), w))
    net = fl.Network([fl.Layer.from_arrays(w)])
    assert_same_bits(net(x), net([1.0, 2.0, 3.0]))
    assert_same_bits(net.predict(x), net(x))


def test_objects_that_cannot_hand_over_their_array_are_refused_by_name():
    class OnGPU(OnlyDLPack):
        def __dlpack__(self, **keywords):
            raise BufferError("the array is on a GPU")

    with pytest.raises(TypeError, match=r"x is a OnGPU.*on a GPU.*copy it to the CPU"):
        fl.linear(OnGPU(np.ones(3)), np.ones((2, 3)))
    with pytest.raises(TypeError, match="weight is a OnGPU"):
        fl.Layer.from_arrays(OnGPU(np.ones((2, 3))))
    for text in ("123", b"123"):
        with pytest.raises(TypeError, match="dtype"):
            fl.linear(text, np.ones((2, 3)))


# --- streams of arrays


def parts_of(a, kind):
    parts = [a[i : i + 2] for i in range(0, len(a), 2)]
    return parts if kind == "list" else iter(parts)


@pytest.mark.parametrize("shift", range(-7, 8))
@pytest.mark.parametrize("kind", ["list", "generator"])
def test_parts_that_out_overwrites_before_their_turn(rng, kind, shift):
    net = fl.Network([fl.Layer(3, 3, rng=0)])
    buffer = rng.standard_normal((24, 3)).astype(np.float32)
    x, out = buffer[8:16], buffer[8 + shift : 16 + shift]
    expected = net(x)
    if kind == "generator" and shift > 0:
        with pytest.raises(ValueError, match="out has overwritten"):
            net.predict(parts_of(x, kind), out=out)
        return
    assert net.predict(parts_of(x, kind), out=out) is out
    assert_same_bits(out, expected)


def test_an_out_of_streams_whose_rows_share_memory_is_refused():
    net = fl.Network([fl.Layer(3, 3, rng=0)])
    out = np.broadcast_to(np.zeros(3, np.float32), (4, 3))
    out = np.lib.stride_tricks.as_strided(out.base, (4, 3), (0, 4), writeable=True)
    for x in ([np.ones((1, 3))] * 4, (np.ones((1, 3)) for _ in range(4))):
        with pytest.raises(ValueError, match="share memory"):
            net.predict(x, out=out)
    assert (out == 0).all()
