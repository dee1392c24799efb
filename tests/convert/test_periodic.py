"""Networks with sin, cos and shrinkage: SIREN, Fourier features and thresholds, from each framework."""

import os

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import assert_round_trips

import fastlayer as fl

os.environ.setdefault("KERAS_BACKEND", "torch")
# Keras makes variables with a keyword that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def judged(net, run, dtype, features=5):
    """The proof was made, and holds for other rows too, at rounding's size."""
    assert net.verification.bound_share <= 1
    x = np.random.default_rng(1).standard_normal((17, features)).astype(dtype)
    y, expected = net(x), run(x)
    assert y.dtype == expected.dtype == dtype
    # Sums of at most 16 products of numbers of size 1, before and after a sine of slope 30.
    np.testing.assert_allclose(y, expected, rtol=0, atol=4000 * np.finfo(dtype).eps)
    assert_round_trips(net, x)


def torch_models():
    torch = pytest.importorskip("torch")
    nn, functional = torch.nn, torch.nn.functional

    class Between(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.first, self.last, self.function = nn.Linear(5, 16), nn.Linear(16, 3), function

        def forward(self, x):
            return self.last(self.function(self.first(x)))

    functions = {
        "siren": lambda h: torch.sin(30 * h),
        "sine as a method": lambda h: h.sin(),
        "sine in place": lambda h: h.sin_(),
        "cosine": lambda h: (2 * torch.pi * h + 0.5).cos(),
        "hardshrink": lambda h: functional.hardshrink(h, 0.3),
        "softshrink": lambda h: functional.softshrink(h, lambd=0.3),
        "threshold": lambda h: functional.threshold(h, 0.1, 20.0),
        "threshold of a module": nn.Threshold(-0.2, 1.0),
    }
    torch.manual_seed(5)
    return torch, {name: Between(function) for name, function in functions.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name",
    [
        *("siren", "sine as a method", "sine in place", "cosine", "hardshrink", "softshrink"),
        *("threshold", "threshold of a module"),
    ],
)
def test_torch(name, dtype):
    torch, models = torch_models()
    module = models[name].to(getattr(torch, dtype))

    def run(x):
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()

    judged(fl.from_torch(module), run, dtype)


@pytest.mark.parametrize("op", ["Sin", "Cos"])
def test_onnx_far_from_zero(op):
    pytest.importorskip("onnxruntime")
    onnx_models = pytest.importorskip("onnx_models")
    text = "h = Mul(x, hundred)\na = Gemm<transB=1>(h, w, b)\n"
    weights = {"w": (16, 4), "b": (16,), "v": (3, 16), "c": (3,), "hundred": np.float32([100])}
    model = onnx_models.make(f"{text}a2 = {op}(a)\ny = Gemm<transB=1>(a2, v, c)", **weights)
    onnx_models.check(model)


KERAS = {
    "sin": lambda k, h: k.ops.sin(h),
    "cos": lambda k, h: k.ops.cos(h),
    "sqrt": lambda k, h: k.ops.sqrt(k.ops.relu(h)),
    "hard_shrink": lambda k, h: k.ops.hard_shrink(h, threshold=0.3),
    "soft_shrink": lambda k, h: k.ops.soft_shrink(h, threshold=0.3),
    "threshold": lambda k, h: k.ops.threshold(h, 0.1, 20.0),
    "hard_shrink of a layer": "hard_shrink",
    "soft_shrink of a layer": "soft_shrink",
    "an Activation": lambda k, h: k.layers.Activation("hard_shrink")(h),
}


@pytest.mark.parametrize("name", KERAS)
def test_keras(tmp_path, name):
    keras = pytest.importorskip("keras")
    if not hasattr(keras.ops, name.split()[0]) and " " not in name:
        pytest.skip(f"this Keras has no {name}")
    keras.utils.set_random_seed(3)
    x = keras.Input((5,))
    middle = KERAS[name]
    if isinstance(middle, str):
        h = keras.layers.Dense(16, middle)(x)
    else:
        h = middle(keras, keras.layers.Dense(16)(x))
    model = keras.Model(x, keras.layers.Dense(3)(h))
    net = fl.from_keras(model)
    judged(net, lambda rows: keras.ops.convert_to_numpy(model(rows)), "float32")
    model.save(tmp_path / "model.keras")
    rows = np.linspace(-2, 2, 35, dtype=np.float32).reshape(7, 5)
    assert_same_bits(fl.load(tmp_path / "model.keras")(rows), net(rows))


@pytest.mark.parametrize(
    ("activation", "why"),
    [
        ("threshold", "threshold must be a real number, got None"),
        ({"class_name": "SoftShrink", "config": {"threshold": -1.0}}, "lambd must not be negative"),
    ],
)
def test_what_no_keras_computes(tmp_path, activation, why):
    pytest.importorskip("h5py")
    keras_files = pytest.importorskip("keras_files")
    config = keras_files.sequential(
        keras_files.dense("a", 2, activation, batch_input_shape=[None, 3])
        if isinstance(activation, str)
        else keras_files.dense("a", 2, batch_input_shape=[None, 3]),
        *([] if isinstance(activation, str) else [activation]),
    )
    weights = {"a": {"kernel": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)}}
    path = keras_files.write_h5(tmp_path / "m.h5", config, weights)
    with pytest.raises(fl.ModelFileError, match=why):
        fl.load(path)
