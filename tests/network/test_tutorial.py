"""The tutorials that fastlayer grew from: one test a row of their table, with their numbers."""

import math

import numpy as np
import pytest
from helpers import assert_same_bits, assert_within, linear_bound, ref_linear, ref_network

import fastlayer as fl

W = np.array([[0.2, -0.5, 0.1], [0.8, 0.3, -0.4]])
B = np.array([0.1, -0.1])
PIXEL = np.array([0.8, 0.3, 0.5])
X = np.array([[0.8, 0.3, 0.5], [0.1, 0.9, 0.2], [0.6, 0.4, 0.7], [0.3, 0.8, 0.1]])
Z = np.array([[0.16, 0.43], [-0.31, 0.17], [0.09, 0.22], [-0.23, 0.34]])
A = np.array([[0.16, 0.43], [0.0, 0.17], [0.09, 0.22], [0.0, 0.34]])
EPS = np.finfo(np.float64).eps


def assert_decimal(actual, golden, x, weight, bias=0.0):
    """`golden` is exact in decimal: the sum's own bound, plus eps/2 for each decimal input."""
    bound = linear_bound(x, weight, bias) + 2 * EPS * ref_linear(
        np.abs(x), np.abs(weight), abs(bias)
    )
    assert_within(actual, np.asarray(golden), bound)


def leaky_relu(x, leaky_param=0.1):
    return np.maximum(x, x * leaky_param)


# --- S0: shapes and the one-line layer


def test_s0_1_data_matrix_rows_are_samples():
    people = np.array([[170, 65, 30], [160, 55, 25], [180, 80, 40], [175, 70, 35]])
    assert people.shape == (4, 3)
    assert fl.Layer(3, 2, rng=0)(people).shape == (4, 2)


def test_s0_2_min_max_normalise():
    heights = np.array([170.0, 160.0, 180.0, 175.0])
    scaled = (heights - heights.min()) / (heights.max() - heights.min())
    assert scaled.tolist() == [0.5, 0.0, 1.0, 0.75]
    assert fl.dot(scaled, np.ones(4)) == 2.25  # exact in binary


@pytest.mark.parametrize(("b", "sign"), [([2.0, 1.0], 1), ([-1.0, 2.0], 0), ([-2.0, -1.0], -1)])
def test_s0_3_dot_product_sign(b, sign):
    assert np.sign(fl.dot(np.array([2.0, 1.0]), np.array(b))) == sign


def test_s0_4_matmul_rule():
    a, b = np.ones((2, 3)), np.ones((3, 4))
    assert fl.matmul(a, b).shape == (2, 4)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 3\)"):
        fl.matmul(a, a)


def test_s0_5_layer_matmul_is_all_dot_products():
    z = fl.matmul(X, W.T)
    assert_same_bits(z, np.array([[fl.dot(x, w) for w in W] for x in X]))


def test_s0_6_broadcasting():
    assert fl.bias_add(Z, B).shape == (4, 2)
    with pytest.raises(ValueError, match=r"\(4, 2\).*\(3,\)|\(3,\).*\(4, 2\)"):
        fl.bias_add(Z, np.ones(3))


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_s0_7_single_neuron(activation):
    a, z = fl.dense_forward(PIXEL, W[0], 0.1, activation)
    assert_decimal(z, 0.16, PIXEL, W[0], 0.1)
    assert_same_bits(a, getattr(fl, activation)(z))


def test_s0_8_relu_and_sigmoid():
    z = np.array([-700.0, -1.0, 0.0, 1.0, 30.0])
    assert fl.relu(z).tolist() == [0.0, 0.0, 0.0, 1.0, 30.0]
    s = fl.sigmoid(z)
    assert ((s > 0) & (s < 1)).all()
    assert s[2] == 0.5


def test_s0_9_full_layer_in_one_line():
    line = fl.linear(X, W, B, "relu")
    assert_same_bits(line, fl.relu(fl.linear(X, W, B)))
    assert_decimal(line, A, X, W, B)


# --- S1: vectors, matrices and operations


def norm_bound(v):
    return 4 * EPS * np.linalg.norm(v)  # squares, sum of three, root: at most 2 eps, golden as much


def test_s1_1_vector_norm():
    golden = 0.9899494936611665
    assert abs(np.linalg.norm(PIXEL) - golden) <= norm_bound(PIXEL)
    assert abs(math.sqrt(fl.dot(PIXEL, PIXEL)) - golden) <= norm_bound(PIXEL)


def test_s1_2_unit_vector():
    unit = PIXEL / math.sqrt(fl.dot(PIXEL, PIXEL))
    assert np.round(unit, 8).tolist() == [0.80812204, 0.30304576, 0.50507627]
    assert abs(fl.dot(unit, unit) - 1) <= 8 * EPS  # two norms' roundings, squared


def test_s1_3_add_subtract_scale():
    a, b = np.array([3.0, 2.0]), np.array([1.0, 4.0])
    assert fl.bias_add(a, b).tolist() == [4.0, 6.0]
    assert fl.bias_add(a, -b).tolist() == [2.0, -2.0]
    assert (2.5 * a).tolist() == [7.5, 5.0]


def test_s1_4_dot_both_ways():
    a, b = np.array([3.0, 2.0]), np.array([1.0, 4.0])
    assert fl.dot(a, b) == 11.0 == sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("v", "golden"), [([3.0, 2.0], 3.6056), ([1.0, 4.0], 4.1231)])
def test_s1_5_norms(v, golden):
    v = np.array(v)
    assert round(math.sqrt(fl.dot(v, v)), 4) == golden == round(float(np.linalg.norm(v)), 4)


def test_s1_6_cosine_and_angle():
    a, b = np.array([3.0, 2.0]), np.array([1.0, 4.0])
    cosine = fl.dot(a, b) / math.sqrt(fl.dot(a, a) * fl.dot(b, b))
    assert round(float(cosine), 4) == 0.7399
    assert round(math.degrees(math.acos(cosine)), 2) == 42.27


def test_s1_7_similarity_triple():
    others = np.array([[3.0, 2.0], [-2.0, 3.0], [-3.0, -2.0]])
    a = np.array([3.0, 2.0])
    assert [float(fl.dot(a, o)) for o in others] == [13.0, 0.0, -13.0]
    assert fl.linear(a, others).tolist() == [13.0, 0.0, -13.0]


def test_s1_8_weight_matrix():
    layer = fl.Layer.from_arrays(W, B)
    assert layer.weight.shape == (2, 3)
    assert layer.weight[0, 1] == -0.5
    assert layer.weight[0].tolist() == [0.2, -0.5, 0.1]
    assert layer.weight[:, 1].tolist() == [-0.5, 0.3]
    assert layer.weight.T.shape == (3, 2)
    assert (layer.in_features, layer.out_features) == (3, 2)


def test_s1_9_identity_leaves_the_vector_alone():
    assert_same_bits(fl.matmul(np.eye(3), PIXEL), PIXEL)
    assert_same_bits(fl.linear(PIXEL, np.eye(3)), PIXEL)


def test_s1_10_matvec_layer():
    z = fl.bias_add(fl.matmul(W, PIXEL), B)
    assert_decimal(z, [0.16, 0.43], PIXEL, W, B)
    assert_decimal(fl.linear(PIXEL, W, B), [0.16, 0.43], PIXEL, W, B)
    partial = np.array([fl.dot(row, PIXEL) for row in W])
    assert_decimal(partial, [0.06, 0.53], PIXEL, W)
    assert_same_bits(partial, fl.matmul(W, PIXEL))


def test_s1_11_nn_linear_float32():
    layer = fl.Layer.from_arrays(W.astype(np.float32), B.astype(np.float32))
    single, batch = layer(PIXEL.astype(np.float32)), layer(X.astype(np.float32))
    assert single.dtype == batch.dtype == np.float32
    assert np.round(single, 4).tolist() == np.float32([0.16, 0.43]).tolist()
    assert_same_bits(batch[0], single)


def test_s1_11_nn_linear_torch():
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(W))
        module.bias.copy_(torch.tensor(B))
    weight, bias = (p.detach().numpy() for p in (module.weight, module.bias))
    layer = fl.Layer.from_arrays(weight, bias)
    for x in (PIXEL.astype(np.float32), X.astype(np.float32)):
        theirs = module(torch.from_numpy(x)).detach().numpy()
        bound = 2 * linear_bound(x, weight, bias)  # both are rounded
        assert_within(layer(x), theirs.astype(np.float64), bound)


def test_s1_12_batch_layer():
    assert_decimal(fl.linear(X, W, B), Z, X, W, B)
    assert_decimal(fl.Layer.from_arrays(W, B)(X), Z, X, W, B)


def test_s1_13_batch_row_equals_single_sample():
    z = fl.linear(X, W, B)
    for row, x in zip(z, X, strict=True):
        assert np.array_equal(row, fl.linear(x, W, B))
        assert np.array_equal(row, fl.Layer.from_arrays(W, B)(x))


def test_s1_14_relu():
    assert fl.relu(np.array([0.5, -0.3, 0.0, 1.2])).tolist() == [0.5, 0.0, 0.0, 1.2]
    assert_same_bits(fl.relu(Z), A)


def test_s1_15_preactivation_and_activation():
    a, z = fl.Layer.from_arrays(W, B, "relu").forward(X, return_preactivation=True)
    assert z.shape == a.shape == (4, 2)
    assert (np.sum(z != a), z.size) == (2, 8)


def test_s1_16_bias_added_again():
    again = fl.bias_add(Z, B)
    assert_same_bits(again, Z + B)
    assert np.round(again, 10).tolist() == [
        [0.26, 0.33],
        [-0.21, 0.07],
        [0.19, 0.12],
        [-0.13, 0.24],
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [((4, 2), (4, 2)), ((4, 2), (2,)), ((3, 3), (3, 1)), ((1,), (4, 2)), ((4, 2), ())],
)
def test_s1_17_broadcast_table(rng, left, right):
    a, b = rng.standard_normal(left), rng.standard_normal(right)
    assert_same_bits(fl.bias_add(a, b), a + b)


def test_s1_17_broadcast_mismatch_raises():
    with pytest.raises(ValueError, match=r"\(4, 2\).*\(3,\)|\(3,\).*\(4, 2\)"):
        fl.bias_add(np.ones((4, 2)), np.ones(3))


def test_s1_18_flatten():
    image = np.array([[0.1, 0.5, 0.9], [0.2, 0.4, 0.8]])
    flat = image.reshape(-1)
    assert flat.tolist() == [0.1, 0.5, 0.9, 0.2, 0.4, 0.8]
    net = fl.Network([fl.Flatten(), fl.Layer.from_arrays(np.eye(6))])
    assert_same_bits(net(image[None])[0], flat)


def test_s1_19_reshape():
    rows = np.arange(12).reshape(3, 4)
    assert rows.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert fl.linear(rows, np.eye(4)).tolist() == rows.tolist()


def test_s1_20_image_to_input(rng):
    image = rng.integers(0, 256, (28, 28), np.uint8)
    layer = fl.Layer(784, 10, rng=1)
    assert layer(image.reshape(-1)).shape == (10,)
    assert_same_bits(layer(image.reshape(-1)), layer(image.reshape(1, 784))[0])


def test_s1_21_both_dtypes():
    assert fl.linear(X, W, B).dtype == np.float64
    assert fl.linear(*(a.astype(np.float32) for a in (X, W, B))).dtype == np.float32
    assert fl.Layer(3, 2).dtype == np.float32
    assert fl.Layer.from_arrays(W, B).dtype == np.float64


def test_s1_22_sigmoid_and_the_768_3072_layer(rng):
    layer = fl.Layer(768, 3072, "sigmoid", rng=0)
    assert layer.weight.shape == (3072, 768)
    x = rng.standard_normal((2, 768), np.float32)
    exact, bound = ref_network(x, [(layer.weight, layer.bias, "sigmoid")], np.float32)
    assert_within(layer(x), exact, bound)


# --- S2: a network from classes


class Dense:
    """He-normal weights (in, out), a bias row, and the inputs kept for training."""

    def __init__(self, size, outputs):
        self.weights = np.random.randn(size, outputs) * np.sqrt(2.0 / size)  # noqa: NPY002
        self.bias = np.zeros((1, outputs))

    def forward(self, inputs):
        self.inputs = inputs
        return inputs @ self.weights + self.bias


def softmax_rows(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def seeded_demo():
    np.random.seed(42)  # noqa: NPY002
    x = np.random.randn(4, 3)  # noqa: NPY002
    dense = [Dense(3, 8), Dense(8, 8), Dense(8, 3)]
    return x, dense


def seeded_network(dense):
    return fl.Network(
        [
            fl.Layer.from_arrays(d.weights, d.bias, activation, layout="in_out")
            for d, activation in zip(dense, ["relu", "relu", "softmax"], strict=True)
        ]
    )


def test_s2_1_dense_layer():
    x, (dense, *_) = seeded_demo()
    layer = fl.Layer.from_arrays(dense.weights, dense.bias, layout="in_out")
    theirs = dense.forward(x)
    assert dense.inputs is x
    assert layer.bias.shape == (8,)
    assert_within(layer(x), theirs, 2 * linear_bound(x, dense.weights.T).astype(float))
    he = fl.Layer(1000, 200, init="he_normal", rng=3, dtype=np.float64)
    # the sd of N normal deviates is off by sd/sqrt(2N) at one sigma; six are allowed
    assert abs(he.weight.std() / math.sqrt(2 / 1000) - 1) <= 6 / math.sqrt(2 * he.weight.size)
    assert not he.bias.any()


def test_s2_2_relu_class(rng):
    z = rng.standard_normal((4, 8))
    assert_same_bits(fl.relu(z), np.maximum(0, z))


def test_s2_3_softmax_class(rng):
    z = rng.standard_normal((4, 3))
    p = fl.softmax(z, axis=1)
    # both sides: at most 4 + log2(3) < 6 eps, and |z - max| < 8 costs theirs 4 eps more
    assert_within(p, softmax_rows(z), 16 * EPS * p)
    assert_within(p.sum(axis=1), np.ones(4), np.full(4, 8 * EPS))


def test_s2_4_simple_nn():
    x, dense = seeded_demo()
    h = np.maximum(0, dense[0].forward(x))
    h = np.maximum(0, dense[1].forward(h))
    theirs = softmax_rows(dense[2].forward(h))
    ours = seeded_network(dense)(x)
    assert ours.shape == (4, 3)
    _, bound = demo_bound(x, dense)
    assert_within(ours, theirs, 2 * bound.astype(float))


def demo_bound(x, dense):
    names = ["relu", "relu", "softmax"]
    layers = [(d.weights.T, d.bias, name) for d, name in zip(dense, names, strict=True)]
    return ref_network(x, layers, np.float64)


def test_s2_5_seeded_demo():
    golden = np.array(
        [
            [0.25025510322686045, 0.6214707453154951, 0.12827415145764437],
            [0.3577016305432682, 0.3299531016862264, 0.31234526777050536],
            [0.2968722478021803, 0.47436595660361197, 0.22876179559420776],
            [0.35970107707295623, 0.3267997690125041, 0.31349915391453964],
        ]
    )
    x, dense = seeded_demo()
    p = seeded_network(dense)(x)
    exact, bound = demo_bound(x, dense)
    assert_within(p, exact, bound)
    # the golden numbers are NumPy's, with the same number of roundings: as far off on their side
    assert_within(p, golden, 2 * bound.astype(float))
    assert np.argmax(p, axis=1).tolist() == [1, 0, 1, 0]
    assert_within(p.sum(axis=1), np.ones(4), np.full(4, 8 * EPS))


def test_s2_6_core_equation():
    x, (dense, *_) = seeded_demo()
    out = fl.sigmoid(fl.bias_add(fl.matmul(x, dense.weights), dense.bias))
    layer = fl.Layer.from_arrays(dense.weights, dense.bias, "sigmoid", layout="in_out")
    assert_same_bits(out, layer(x))  # the bias is 0: added first or last


# --- S3: vectorising


def test_s3_1_loop_neuron():
    total = 1.0
    for x, w in zip([1.0, 2.0], [0.5, -1.0], strict=True):
        total += x * w
    assert fl.dense_forward([1.0, 2.0], [0.5, -1.0], 1.0, None)[1] == total == -0.5


def test_s3_2_vector_neuron():
    z = fl.dot(np.array([0.5, -1.0]), np.array([1.0, 2.0])) + 1.0
    assert z == -0.5
    assert fl.relu(z) == 0.0


@pytest.mark.parametrize(
    "z", [-0.5, 2.0, np.float64(-1.5), np.array(3.0), [1.0, -2.0], [[-1.0, 4.0]]]
)
def test_s3_3_relu_of_scalar_vector_and_matrix(z):
    expected = np.maximum(0, z)
    assert np.shape(fl.relu(z)) == np.shape(expected)
    assert_same_bits(fl.relu(z), expected)


def test_s3_4_dense_forward_returns_a_then_z():
    def relu(z):
        return np.maximum(0, z)

    a, z = fl.dense_forward(PIXEL, -W, -B, relu)
    assert_decimal(z, [-0.16, -0.43], PIXEL, -W, -B)
    assert a.tolist() == [0.0, 0.0]
    a, z = fl.dense_forward(PIXEL, W, B, relu)
    assert_same_bits(a, z)


def test_s3_5_gradients_of_a_dense_layer():
    """Weights: an outer product. Biases: the gradient, summed over samples. Inputs: a product."""
    dz = np.array([0.25, -1.5])
    dx, dw, db = fl.dense_backward(dz, PIXEL, W)
    assert_same_bits(dw, np.outer(dz, PIXEL))  # one rounding in each element
    assert_same_bits(db, dz)
    assert_decimal(dx, [-1.15, -0.575, 0.625], dz, W.T)
    assert_within(dx, W.T @ dz, bound_of(dz, W.T))
    # The loops that these lines stand for.
    assert dw.tolist() == [[g * x for x in PIXEL] for g in dz]


def test_s3_5_gradients_of_a_batch():
    dz = np.array([[1.0, -2.0], [0.5, 0.0], [-1.0, 4.0], [0.25, 1.0]])
    dx, dw, db = fl.linear_backward(dz, X, W)
    assert_within(dw, sum(np.outer(g, x) for g, x in zip(dz, X, strict=True)), bound_of(dz.T, X.T))
    assert_same_bits(db, dz.sum(axis=0))  # exact in binary
    assert_within(dx, dz @ W, bound_of(dz, W.T))
    columns = fl.dense_backward(dz.T, X.T, W)
    for got, expected in zip(columns, (dx.T, dw, db[:, None]), strict=True):
        assert_same_bits(got, expected)


def bound_of(x, weight):
    """For two results, each within its bound."""
    return 2 * linear_bound(x, weight)


def test_s3_5_the_gradient_passes_the_activation():
    da = np.ones((4, 2))
    dz = fl.activation_backward(da, Z, "relu")
    assert dz.tolist() == (Z > 0).astype(float).tolist()
    slope = fl.Activation("leaky_relu", negative_slope=0.1)
    assert_same_bits(fl.activation_backward(da, Z, slope), np.maximum(Z > 0, 0.1))
    own = (leaky_relu, lambda z: np.maximum(z > 0, 0.1))
    assert_same_bits(fl.activation_backward(da, Z, own), np.maximum(Z > 0, 0.1))


# --- S4: columns, and a layer class


def test_s4_1_create_weight_matrix():
    zeros = fl.Layer(4, 2, init="zeros", dtype=np.float64)
    assert zeros.weight.tolist() == [[0.0] * 4] * 2
    ours = fl.Layer(4, 2, init=lambda rng, shape: np.zeros(shape), dtype=np.float64)
    assert_same_bits(ours.weight, zeros.weight)
    normal = fl.Layer(50, 40, init="normal", rng=5, dtype=np.float64).weight
    assert abs(normal.std() * 50 * 40 - 1) <= 6 / math.sqrt(2 * normal.size)


def test_s4_2_bias_column():
    column = np.random.default_rng(0).normal(0, 1 / 2, (2, 1))
    for bias in (column, column.T, column[:, 0]):
        assert_same_bits(fl.Layer.from_arrays(np.ones((2, 4)), bias).bias, column[:, 0])


def test_s4_3_integer_column_input(rng):
    w, b = rng.normal(0, 1 / 8, (2, 4)), rng.normal(0, 1 / 2, (2, 1))
    x = np.array((1, 0, 0, 0), ndmin=2, dtype=np.int64).T
    z = fl.Layer.from_arrays(w, b)(x, axis=0)
    assert z.shape == (2, 1)
    assert_same_bits(z, np.dot(w, x) + b)  # the products are w and 0: one rounding, NumPy's too
    assert_same_bits(fl.dense_forward(x, w, b, None)[1], z)


def test_s4_4_leaky_relu():
    z = np.array([[-0.67662439], [0.18410246]])
    a = fl.leaky_relu(z, negative_slope=0.1)
    assert np.round(a, 8).tolist() == [[-0.06766244], [0.18410246]]
    assert_same_bits(a, leaky_relu(z))
    assert_same_bits(fl.leaky_relu(z), np.maximum(z, z * 0.01))


class ColumnLayer:
    def __init__(self, ins, outs, act_function, rng):
        self.ins, self.outs, self.act_function = ins, outs, act_function
        self._W = rng.normal(0, 1 / (ins * outs), (outs, ins))
        self._b = rng.normal(0, 1 / outs, (outs, 1))

    def forward_pass(self, x):
        return self.act_function(np.dot(self._W, x) + self._b)


@pytest.mark.parametrize("activation", [leaky_relu, np.tanh, lambda z: z**3], ids=str)
def test_s4_5_layer_with_any_callable(rng, activation):
    theirs = ColumnLayer(3, 5, activation, rng)
    ours = fl.Layer.from_arrays(theirs._W, theirs._b, activation)
    x = rng.uniform(size=(3, 7))
    z = fl.Layer.from_arrays(theirs._W, theirs._b)(x, axis=0)
    assert_same_bits(ours(x, axis=0), activation(z))
    bound = linear_bound(x.T, theirs._W, theirs._b[:, 0]).T.astype(float)
    # |f'| <= 1, or 3 z^2 <= 12 for the cube with |z| < 2; f itself rounds both sides once or twice
    assert np.abs(z).max() < 2
    assert_within(ours(x, axis=0), theirs.forward_pass(x), 24 * bound)


def test_s4_6_demo_2_4_4_1(rng):
    theirs = [ColumnLayer(i, o, leaky_relu, rng) for i, o in [(2, 4), (4, 4), (4, 1)]]
    slope = fl.Activation("leaky_relu", negative_slope=0.1)
    net = fl.Network([fl.Layer.from_arrays(layer._W, layer._b, slope) for layer in theirs])
    x = rng.uniform(size=(2, 1))
    expected = x
    for layer in theirs:
        expected = layer.forward_pass(expected)
    assert net(x, axis=0).shape == (1, 1)
    layers = [(n._W, n._b[:, 0], "leaky_relu", {"negative_slope": 0.1}) for n in theirs]
    _, bound = ref_network(x.T, layers, np.float64)
    assert_within(net(x, axis=0), expected, 2 * bound.T.astype(float))
    assert_same_bits(net(x[:, 0]), net(x, axis=0)[:, 0])


def test_s4_7_the_digits_network(rng):
    net = fl.Network([fl.Layer(784, 10, "softmax", rng=0)])
    images = rng.integers(0, 256, (5, 784), np.uint8) / np.float32(255)
    p = net(images)
    assert p.shape == (5, 10)
    exact, bound = ref_network(images, [(net[0].weight, net[0].bias, "softmax")], np.float32)
    assert_within(p, exact, bound)
    assert net(images[0].reshape(784, 1), axis=0).argmax() == p[0].argmax()
