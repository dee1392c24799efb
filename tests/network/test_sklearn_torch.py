"""Trained models of scikit-learn and PyTorch, rebuilt by hand from their arrays."""

import warnings

import numpy as np
import pytest
from helpers import assert_within, ref_network

import fastlayer as fl


@pytest.fixture(scope="module")
def digits():
    sklearn = pytest.importorskip("sklearn.datasets")
    x, labels = sklearn.load_digits(return_X_y=True)
    return x / 16, labels


@pytest.fixture(
    scope="module",
    params=[("relu", (32,)), ("tanh", (16, 12)), ("logistic", (16,)), ("identity", (8,))],
    ids=lambda p: p[0],
)
def classifier(request, digits):
    network = pytest.importorskip("sklearn.neural_network")
    from sklearn.exceptions import ConvergenceWarning

    activation, hidden = request.param
    model = network.MLPClassifier(hidden, activation=activation, max_iter=6, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*digits)


def rebuilt(model):
    activations = [model.activation] * (len(model.coefs_) - 1) + [model.out_activation_]
    return fl.Network(
        [
            fl.Layer.from_arrays(*arrays, layout="in_out")
            for arrays in zip(model.coefs_, model.intercepts_, activations, strict=True)
        ]
    )


def test_sklearn_classifier(digits, classifier):
    x, _ = digits
    p, theirs = rebuilt(classifier)(x), classifier.predict_proba(x)
    assert p.shape == (1797, 10)
    assert p.dtype == np.float64
    assert np.abs(p - theirs).max() <= 1e-12
    # labels: the two largest probabilities are always further apart than two such differences
    top = np.sort(theirs, axis=1)[:, -2:]
    assert (top[:, 1] - top[:, 0]).min() > 4e-12
    assert (classifier.classes_[p.argmax(axis=1)] == classifier.predict(x)).all()


def test_sklearn_classifier_against_the_exact_network(digits, classifier):
    x = digits[0][::40]
    names = {"logistic": "sigmoid"}
    activations = [classifier.activation] * (len(classifier.coefs_) - 1) + ["softmax"]
    layers = [
        (w.T, b, names.get(a, a))
        for w, b, a in zip(classifier.coefs_, classifier.intercepts_, activations, strict=True)
    ]
    exact, bound = ref_network(x, layers, np.float64)
    assert bound.max() <= 1e-12  # what makes 1e-12 the tolerance above
    assert_within(rebuilt(classifier)(x), exact, bound)


TORCH_NETS = {
    "relu": ("ReLU", {}),
    "leaky_relu": ("LeakyReLU", {"negative_slope": 0.2}),
    "relu6": ("ReLU6", {}),
    "hardtanh": ("Hardtanh", {}),
    "elu": ("ELU", {}),
    "celu": ("CELU", {}),
    "selu": ("SELU", {}),
    "gelu": ("GELU", {}),
    "gelu tanh": ("GELU", {"approximate": "tanh"}),
    "silu": ("SiLU", {}),
    "mish": ("Mish", {}),
    "sigmoid": ("Sigmoid", {}),
    "log_sigmoid": ("LogSigmoid", {}),
    "hardsigmoid": ("Hardsigmoid", {}),
    "hardswish": ("Hardswish", {}),
    "tanh": ("Tanh", {}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
}


@pytest.mark.parametrize("name", TORCH_NETS)
def test_torch_sequential(rng, name):
    torch = pytest.importorskip("torch")
    module, parameters = TORCH_NETS[name]
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(784, 512), getattr(torch.nn, module)(**parameters), torch.nn.Linear(512, 10)
    )
    first, last = ([p.detach().numpy() for p in theirs[i].parameters()] for i in (0, 2))
    hidden = fl.Activation(name.split()[0], **parameters)
    net = fl.Network([fl.Layer.from_arrays(*first, hidden), fl.Layer.from_arrays(*last)])
    x = rng.uniform(size=(64, 784)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    assert net(x).dtype == expected.dtype == np.float32
    # float32 sums of 784 and 512 terms whose absolute values add to about 10: a few eps of 1.2e-7
    # each, in random directions; the worst case over all roundings is the derived bound below
    assert np.abs(net(x) - expected).max() <= 1e-6
    exact, bound = ref_network(
        x, [(*first, name.split()[0], parameters), (*last, None)], np.float32
    )
    assert_within(net(x), exact, bound)


def test_torch_softmax_classifier(rng):
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10), torch.nn.Softmax(1)
    )
    arrays = [[p.detach().numpy() for p in theirs[i].parameters()] for i in (0, 2)]
    net = fl.Network(
        [fl.Layer.from_arrays(*a, act) for a, act in zip(arrays, ["relu", "softmax"], strict=True)]
    )
    x = rng.uniform(size=(64, 784)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    assert np.abs(net(x) - expected).max() <= 1e-6
    assert (net(x).argmax(axis=1) == expected.argmax(axis=1)).all()
