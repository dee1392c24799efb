"""Gradients of networks: PyTorch's, difference quotients, and each part by itself."""

import numpy as np
import pytest
from gradient_bounds import CURVES, loss_gradient, random_case, steepness, torch_loss
from helpers import FLOATS, assert_same_bits, assert_within, reference
from hypothesis import given
from hypothesis import strategies as st

import fastlayer as fl

NETWORKS = 200


@pytest.mark.parametrize("name", CURVES)
def test_the_bounds_know_how_activations_are_curved(name):
    second, kinks, _ = CURVES[name]
    at = np.linspace(-8, 8, 160_001)
    step = at[1] - at[0]
    first = np.diff(reference(name, at, np.float32)) / step
    far = np.ones(len(at), bool)
    for kink, *_ in kinks:
        far &= np.abs(at - kink) > 3 * step
    if name == "exp":
        return
    between = far[1:] & far[:-1]
    assert np.abs(first[between]).max() <= steepness(name) + 1e-4
    if second:  # within what rounding does to a difference quotient
        assert np.abs(np.diff(first))[far[1:-1]].max() / step <= second + 2e-3


def expected(net_nodes, x, t, loss, weights):
    """Gradients of all arrays and of the input by PyTorch in float64, and their error bounds."""
    torch = pytest.importorskip("torch")
    leaves = {
        id(node): [torch.tensor(a.astype(float), requires_grad=True) for a in node.arrays]
        for node in net_nodes.nodes()
    }
    at = torch.tensor(x.astype(float), requires_grad=True)
    share = None if weights is None else torch.tensor(weights)
    given = torch.tensor(t if t.dtype.kind == "i" else t.astype(float))
    value = torch_loss(torch, loss, net_nodes.run(torch, at, leaves), given, share)
    value.backward()
    found, bounds = [], []
    # Twice: what PyTorch's own rounding adds is bounded like ours in float64.
    for node in net_nodes.nodes():
        found += [leaf.grad.numpy() for leaf in leaves[id(node)]]
    y, e = net_nodes.forward(x.astype(float), np.zeros(x.shape))
    a, e = loss_gradient(loss, y, e, t, weights, net_nodes.dtype)
    dx_bound = net_nodes.backward(a, e)[1]
    for node in net_nodes.nodes():
        bounds += [2 * error for error in node.errors]
    return float(value.detach()), found, bounds, at.grad.numpy(), 2 * dx_bound


def arrays_of(gradients):
    """All gradients in the order of the trainer."""
    lists = zip(gradients.weights, gradients.biases, gradients.slopes, strict=True)
    return [a for part in lists for a in part if a is not None]


@pytest.mark.parametrize("first", range(0, NETWORKS, 10))
def test_gradients_of_random_networks_are_pytorchs(first):
    for seed in range(first, first + 10):
        net, nodes, x, t, loss, weights = random_case(seed)
        value, wanted, bounds, dx, dx_bound = expected(nodes, x, t, loss, weights)
        got = net.gradients(x, t, loss, sample_weight=weights, wrt_input=True)
        actual = arrays_of(got)
        assert len(actual) == len(wanted)
        for a, b, bound in zip(actual, wanted, bounds, strict=True):
            assert a.dtype == net.dtype
            assert_within(a, b, np.broadcast_to(bound, b.shape))
        assert_within(got.input, dx, dx_bound)
        eps = np.finfo(net.dtype).eps
        assert got.loss == pytest.approx(value, rel=2e4 * float(eps))
        # A bound that everything is within would say nothing.
        largest = max(np.max(b, initial=0) for b in bounds)
        size = max(np.max(np.abs(b), initial=0) for b in wanted)
        assert largest < (1e-1 if net.dtype == np.float32 else 1e-7) * max(size, 1)


@pytest.mark.parametrize("first", range(0, NETWORKS, 20))
def test_gradients_of_random_networks_are_difference_quotients(first):
    for seed in range(first, first + 20, 4):
        net, _, x, t, loss, weights = random_case(seed)
        check = fl.check_gradients(net, x, t, loss, sample_weight=weights)
        assert check < 1e-4, (seed, net, loss, check)


# --- whole networks


def actor_critic(dtype=float):
    trunk = fl.Layer(5, 8, "tanh", dtype=dtype, rng=0)
    heads = fl.Concat([fl.Layer(8, 3, dtype=dtype, rng=1), fl.Layer(8, 1, dtype=dtype, rng=2)])
    return fl.Network([trunk, heads], inputs=[3, 2], outputs=[3, 1])


def test_several_inputs_and_outputs(rng):
    torch = pytest.importorskip("torch")
    net = actor_critic()
    a, b = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    dy = rng.normal(size=(9, 3)), rng.normal(size=(9, 1))
    trainer = fl.Trainer(net, None, fl.SGD(lr=1.0))
    outputs = trainer.forward((a, b))
    for y, wanted in zip(outputs, net(a, b), strict=True):
        assert_same_bits(y, wanted)
    dx = trainer.backward(dy)
    assert dx.shape == (9, 5)
    layers = [net.layers[0], *(branch for branch in net.layers[1].branches)]
    layers = [part[0] if isinstance(part, fl.Network | tuple) else part for part in layers]
    leaves = [torch.tensor(w, requires_grad=True) for p in layers for w in (p.weight, p.bias)]
    w0, b0, w1, b1, w2, b2 = leaves
    x = torch.tensor(np.hstack([a, b]), requires_grad=True)
    hidden = torch.tanh(x @ w0.T + b0)
    loss = (hidden @ w1.T + b1) * torch.tensor(dy[0]) + 0
    (loss.sum() + ((hidden @ w2.T + b2) * torch.tensor(dy[1])).sum()).backward()
    for g, leaf in zip(trainer.gradients, leaves, strict=True):
        np.testing.assert_allclose(g, leaf.grad.numpy(), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(dx, x.grad.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("seed", range(30))
def test_the_forward_pass_of_training_has_the_bits_of_a_call(seed, dtype):
    net, _, x, *_ = random_case(2 * seed + (dtype is np.float32))
    if any(isinstance(part, fl.BatchNorm) for part in net.layers):
        return  # a call folds it into a neighbour
    assert_same_bits(fl.Trainer(net, None, fl.SGD(lr=1.0)).forward(x), net(x))


@pytest.mark.parametrize("end", ["softmax", "log_softmax", "sigmoid", "exp", "tanh", None])
def test_outputs_and_gradients_behind_a_final_activation(rng, end):
    """A loss looks behind it, `forward` gives its result, and `backward` goes through it."""
    loss = {"softmax": "cross_entropy", "log_softmax": "cross_entropy", "exp": "poisson"}
    loss = loss.get(end, "binary_cross_entropy" if end == "sigmoid" else "mse")
    net = fl.Network([fl.Layer(4, 3, end, dtype=float, rng=0)])
    sums = fl.Network([fl.Layer.from_arrays(net.layers[0].weight, net.layers[0].bias)])
    x, dy = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    t = np.eye(3)[rng.integers(0, 3, 6)]
    trainer = fl.Trainer(net, loss, fl.SGD(lr=1.0))
    assert_same_bits(trainer.forward(x), net(x))
    trainer.backward(dy)
    z = sums(x)
    dz = dy if end is None else fl.activation_backward(dy, z, end)
    assert_same_bits(trainer.gradients[0], fl.matmul(dz.T, x))
    assert_same_bits(trainer.gradients[1], fl.matmul(dz.T, np.ones((6, 1)))[:, 0])
    if end == "tanh":
        return
    behind = fl.Loss(loss).gradient(z, t)
    assert_same_bits(net.gradients(x, t, loss).weights[0], fl.matmul(behind.T, x))
    assert net.gradients(x, t, loss).loss == fl.Loss(loss)(z, t)


@given(
    m=st.integers(1, 600),
    k=st.integers(1, 40),
    n=st.integers(1, 40),
    single=st.booleans(),
    act=st.sampled_from(["relu", "tanh", "gelu", "softmax"]),
)
def test_gradients_of_a_layer_are_the_products_of_numerics(m, k, n, single, act):
    """Over shapes: dW = matmul(dz.T, x), db the same with ones, dx = matmul(dz, W)."""
    rng = np.random.default_rng(m * 1600 + k * 40 + n)
    dtype = np.float32 if single else np.float64
    w, b, x, t = (rng.normal(size=shape).astype(dtype) for shape in [(n, k), (n,), (m, k), (m, n)])
    net = fl.Network([fl.Layer.from_arrays(w, b, act)])
    found = net.gradients(x, t, "mse", wrt_input=True)
    z = fl.linear(x, w, b)
    dz = fl.activation_backward(fl.Loss("mse").gradient(net(x), t), z, act)
    assert_same_bits(found.weights[0], fl.matmul(dz.T, x))
    assert_same_bits(found.biases[0], fl.matmul(dz.T, np.ones((m, 1), dtype))[:, 0])
    assert_same_bits(found.input, fl.matmul(dz, w))


def test_what_gradients_holds(rng):
    slopes = fl.Activation("prelu", weight=[0.1, 0.2, 0.3])
    net = fl.Network(
        [
            fl.Layer(4, 3, slopes, rng=0),
            fl.RMSNorm(3, weight=[1, 1, 1], dtype="f4"),
            fl.LayerNorm(3, dtype="f4"),
            fl.Layer(3, 2, bias=False, rng=1),
        ]
    )
    x = rng.normal(size=(5, 4))
    found = net.gradients(x, [0, 1, 0, 1, 1], "cross_entropy")
    shapes = [
        [None if a is None else a.shape for a in part]
        for part in (found.weights, found.biases, found.slopes)
    ]
    assert shapes == [[(3, 4), (3,), (2, 3)], [(3,), None, None], [(3,), None, None]]
    assert found.input is None
    text = str(found)
    assert f"loss {found.loss:.6g}" in text
    assert "Layer(4, 3" in text
    assert found._repr_html_().startswith("<table>")


def test_the_gradient_by_one_sample_has_its_shape(rng):
    net = fl.Network(
        [fl.Layer(4, 3, "tanh", dtype=float, rng=0), fl.Layer(3, 1, dtype=float, rng=1)]
    )
    x = rng.normal(size=4)
    alone = net.gradients(x, [1.0], "mse", wrt_input=True)
    assert alone.input.shape == (4,)
    assert_same_bits(alone.input, net.gradients(x[None], [1.0], "mse", wrt_input=True).input[0])
    images = fl.Network([fl.Flatten(), fl.Layer(6, 2, rng=0)])
    found = images.gradients(
        rng.normal(size=(5, 2, 3)), [0, 1, 0, 1, 1], "cross_entropy", wrt_input=True
    )
    assert found.input.shape == (5, 2, 3)


def test_gradients_leave_the_network_as_it_is(rng):
    net = actor_critic()
    before = [layer.copy() for layer in (net.layers[0].weight, net.layers[0].bias)]
    net.gradients(
        (rng.normal(size=(4, 3)), rng.normal(size=(4, 2))), rng.normal(size=(4, 4)), "mse"
    )
    assert_same_bits(net.layers[0].weight, before[0])
    assert_same_bits(net.layers[0].bias, before[1])


def test_gradients_of_a_layer_that_is_no_network(rng):
    layer = fl.Layer(4, 2, "relu", dtype=float, rng=0)
    x, t = rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
    assert fl.check_gradients(layer, x, t, "mse") < 1e-6
    trainer = fl.Trainer(layer, "mse", fl.SGD(lr=0.1))
    assert trainer.step(x, t) > trainer.step(x, t)
    assert trainer.network is layer


# --- check_gradients


def test_a_root_behind_an_exponential(rng):
    net = fl.Network(
        [fl.Layer(3, 4, "exp", dtype=float, rng=0), "sqrt", fl.Layer(4, 2, dtype=float, rng=1)]
    )
    x, t = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    assert fl.check_gradients(net, x, t, "mse") < 1e-6


def test_a_wrong_derivative_is_found(rng):
    x, t = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))

    def net(derivative):
        return fl.Network([fl.Layer(3, 2, (np.sinh, derivative), dtype=float, rng=0)])

    right = fl.check_gradients(net(np.cosh), x, t, "mse")
    wrong = fl.check_gradients(net(np.sinh), x, t, "mse")
    assert right < 1e-6
    assert wrong > 0.01
    assert "they agree" in str(right)
    assert "they do not agree" in repr(wrong)
    assert "they agree" in right._repr_html_()


def test_a_wrong_gradient_of_a_loss_of_ones_own_is_found(rng):
    x, t = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    net = fl.Network([fl.Layer(3, 2, "tanh", rng=0)])
    right = fl.check_gradients(net, x, t, lambda y, t: (((y - t) ** 4).sum(), 4 * (y - t) ** 3))
    wrong = fl.check_gradients(net, x, t, lambda y, t: (((y - t) ** 4).sum(), 3 * (y - t) ** 3))
    assert right < 1e-6
    assert wrong == pytest.approx(0.25, rel=1e-3)


def test_a_check_computes_in_float64_and_leaves_the_network_alone(rng):
    net = fl.Network([fl.Layer(3, 2, "tanh", rng=0)])
    before = net.layers[0].weight
    assert fl.check_gradients(net, rng.normal(size=(4, 3)), [0, 1, 1, 0], "cross_entropy") < 1e-7
    assert net.dtype == np.float32
    assert_same_bits(net.layers[0].weight, before)


def test_a_bias_that_an_argument_of_the_check_names():
    net = fl.Network([fl.Layer(3, 200, "tanh", rng=0)])
    text = str(fl.check_gradients(net, np.ones((2, 3)), np.zeros((2, 200)), "mse"))
    assert "weight" in text
    assert "bias" in text
    assert " 64 " in text  # of so many elements, no more are checked
