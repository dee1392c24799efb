"""`from_keras`, and the files that the same models are saved to, compared with Keras itself."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_same_bits
from keras_models import assert_agree, randomized, run
from model_files import assert_round_trips

import fastlayer as fl
from fastlayer.convert.keras import load_keras

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
L = keras.layers
# Keras makes variables with a keyword that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


def sequential(*layers, shape=(6,)):
    return lambda: keras.Sequential([keras.Input(shape), *(make() for make in layers)])


def functional(build, shape=(6,)):
    def make():
        x = keras.Input(shape)
        return keras.Model(x, build(x))

    return make


def dense(n, activation=None, **options):
    return lambda: L.Dense(n, activation=activation, **options)


def residual_blocks(x):
    x = L.Dense(8, "relu")(x)
    for _ in range(3):
        h = L.LayerNormalization()(x)
        h = L.Dense(16, "gelu")(h)
        x = L.Add()([x, L.Dropout(0.1)(L.Dense(8)(h))])
    return L.Dense(3, "softmax")(x)


def operators(x):
    h = L.Dense(6)(x * 2.0 - 1.0)
    h = keras.activations.relu(h, negative_slope=0.1) + x
    h = 3.0 - keras.ops.gelu(h) / 2.0
    return keras.ops.softmax(L.Dense(3)(keras.ops.leaky_relu(h)))


def nested(x):
    inner = keras.Sequential(
        [keras.Input((6,)), L.Dense(5, "tanh"), L.BatchNormalization(), L.Dense(6)], name="inner"
    )
    y = keras.Input((6,))
    outer = keras.Model(y, L.Dense(6, "relu")(L.Add()([y, inner(y)])), name="outer")
    return L.Dense(2)(outer(L.Dense(6)(x)))


def three_summands(x):
    h = L.Dense(6)(x)
    return L.Dense(2)(L.Add()([h, x, x]))


def shared_layer(x):
    layer = L.Dense(6, "elu")
    return L.Dense(2)(layer(layer(x)))


def subtracted(x):
    return L.Subtract()([x, L.Dense(6, "sigmoid")(x)])


ARCHITECTURES = {
    "dense": sequential(dense(4)),
    "no bias": sequential(dense(4, use_bias=False)),
    "mlp": sequential(dense(40, "relu"), dense(20, "tanh"), dense(3, "softmax")),
    "wide": sequential(dense(257, "silu"), dense(65, "relu"), dense(10), shape=(300,)),
    "ten layers": sequential(*(dense(16, "elu") for _ in range(10))),
    "activation layers": sequential(
        dense(8), lambda: L.Activation("relu"), dense(8), L.ELU, dense(3), L.Softmax
    ),
    "leaky relu layer": sequential(dense(8), L.LeakyReLU, dense(3)),
    "leaky relu slope": sequential(dense(8), lambda: L.LeakyReLU(0.1), dense(3)),
    "layer as activation": sequential(lambda: L.Dense(8, activation=L.LeakyReLU(0.05)), dense(3)),
    "relu with options": sequential(
        dense(8),
        lambda: L.ReLU(max_value=0.7),
        dense(8),
        lambda: L.ReLU(6),
        dense(8),
        lambda: L.ReLU(negative_slope=0.2),
        dense(8),
        lambda: L.ReLU(0.5, negative_slope=0.2),
    ),
    "prelu": sequential(dense(8), L.PReLU, dense(3)),
    "dropout": sequential(
        lambda: L.Dropout(0.2),
        dense(8, "selu"),
        lambda: L.AlphaDropout(0.1),
        lambda: L.GaussianNoise(1.0),
        lambda: L.GaussianDropout(0.1),
        dense(3),
        L.Identity,
    ),
    "batch normalization": sequential(
        dense(8), L.BatchNormalization, lambda: L.Activation("relu"), dense(3)
    ),
    "batch normalization before": sequential(L.BatchNormalization, dense(3, "relu")),
    "batch normalization bare": sequential(
        dense(8, "relu"), lambda: L.BatchNormalization(center=False, scale=False, epsilon=0.1)
    ),
    "batch normalization axis 1": sequential(dense(8), lambda: L.BatchNormalization(axis=1)),
    "layer normalization": sequential(dense(8), L.LayerNormalization, dense(3)),
    "layer normalization bare": sequential(
        dense(8), lambda: L.LayerNormalization(center=False, scale=False), dense(3)
    ),
    "rms normalization": sequential(dense(8), L.RMSNormalization, dense(3)),
    "normalization": sequential(L.Normalization, dense(8, "relu"), dense(3)),
    "normalization given": sequential(
        lambda: L.Normalization(mean=[1.0, 2, 3, 4, 5, 6], variance=[1.0, 2, 3, 4, 5, 6]), dense(3)
    ),
    "normalization of all": sequential(
        lambda: L.Normalization(axis=None, mean=2.0, variance=3.0), dense(3)
    ),
    "denormalized": sequential(
        dense(3), lambda: L.Normalization(mean=2.0, variance=3.0, invert=True)
    ),
    "rescaling": sequential(lambda: L.Rescaling(1 / 255, offset=-0.5), dense(8, "relu"), dense(3)),
    "nothing but an offset": sequential(dense(3), lambda: L.Rescaling(0.0, 3.0), dense(2)),
    "rescaling at the end": sequential(dense(3, "tanh"), lambda: L.Rescaling(10.0, 3.0)),
    "images": sequential(
        lambda: L.Rescaling(1 / 16), L.Flatten, dense(8, "relu"), dense(3), shape=(4, 5)
    ),
    "reshape": sequential(lambda: L.Reshape((20,)), dense(8, "relu"), dense(3), shape=(4, 5)),
    "steps of a series": sequential(dense(8, "relu"), dense(3), shape=(7, 5)),
    "residual blocks": functional(residual_blocks),
    "operators": functional(operators),
    "nested": functional(nested),
    "three summands": functional(three_summands),
    "shared layer": functional(shared_layer),
    "subtracted": functional(subtracted),
}
ACTIVATIONS = [
    "linear",
    "relu",
    "leaky_relu",
    "relu6",
    "elu",
    "celu",
    "selu",
    "gelu",
    "silu",
    "swish",
    "mish",
    "sigmoid",
    "log_sigmoid",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "tanh",
    "hard_tanh",
    "softplus",
    "softsign",
    "exponential",
    "softmax",
    "log_softmax",
]


def save_and_load(model, folder):
    """Return the networks of the live model and of the two kinds of files it can be saved to."""
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    return [fl.from_keras(model), *(load_keras(folder / f"model.{s}") for s in ("keras", "h5"))]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(rng, tmp_path, dtype, name):
    model = randomized(ARCHITECTURES[name]())
    live, *stored = save_and_load(model, tmp_path)
    x = rng.standard_normal((33, *model.input_shape[1:])).astype(dtype)
    assert_agree(live, model, x)
    assert live.verification.bound_share <= 1
    for net in stored:
        assert_same_bits(net(x), live(x))
        assert net.verification is None
    assert_round_trips(live, x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(rng, tmp_path, dtype, name):
    model = randomized(sequential(dense(17, name), dense(3))())
    live, *stored = save_and_load(model, tmp_path)
    assert len(live) == 2
    x = 3 * rng.standard_normal((33, 6)).astype(dtype)
    assert_agree(live, model, x)
    assert_round_trips(live, x)
    for net in stored:
        # PyTorch's softplus is its argument above 20, and a file does not tell the backend
        same = name != "softplus" or dtype == "float32"
        assert_same_bits(net(x), live(x)) if same else assert_agree(net, model, x)


def test_adapted_normalization(rng, tmp_path):
    layer = L.Normalization()
    layer.adapt((5 + 3 * rng.standard_normal((100, 6))).astype(np.float32))
    model = keras.Sequential([keras.Input((6,)), layer, L.Dense(3)])
    live, *stored = save_and_load(model, tmp_path)
    x = (5 + 3 * rng.standard_normal((9, 6))).astype(np.float32)
    assert_agree(live, model, x)
    for net in stored:
        assert_same_bits(net(x), live(x))


def test_lora(rng, tmp_path):
    model = randomized(sequential(dense(8, "relu"), dense(3))())
    model.layers[0].enable_lora(2)
    randomized(model)
    model.save(tmp_path / "model.keras")
    x = rng.standard_normal((9, 6)).astype(np.float32)
    assert_agree(fl.from_keras(model), model, x)
    assert_agree(load_keras(tmp_path / "model.keras"), model, x)
    model.save(tmp_path / "model.h5")
    with pytest.raises(fl.ConversionError, match="LoRA"):
        load_keras(tmp_path / "model.h5")


def test_weights_are_copied(rng):
    model = randomized(sequential(dense(3))())
    net = fl.from_keras(model)
    x = rng.standard_normal((5, 6)).astype(np.float32)
    before = net(x)
    for v in model.weights:
        v.assign(np.zeros(v.shape))
    assert_same_bits(net(x), before)


@keras.saving.register_keras_serializable()
class OwnDense(L.Dense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training)


class OwnModel(keras.Model):
    def __init__(self):
        super().__init__()
        self.fc = L.Dense(3)

    def call(self, x):
        return self.fc(x)


class OwnSequential(keras.Sequential):
    """A subclass that keeps what it does."""


def built(model):
    model(np.zeros((1, 6), np.float32))
    return model


def own_activation(x):
    return x * x


# Model, and what the message has to say: where, what, and what to do.
REFUSED = {
    "lstm": (
        sequential(dense(6), lambda: L.LSTM(3, name="lstm_1"), shape=(4, 6)),
        "layer 1, 'lstm_1' (keras LSTM)",
        "recurrent",
    ),
    "conv": (
        sequential(lambda: L.Conv2D(1, 2), shape=(4, 4, 1)),
        "(keras Conv2D)",
        "convolutional",
    ),
    "embedding": (sequential(lambda: L.Embedding(9, 3)), "(keras Embedding)", "NumPy"),
    "lambda": (sequential(lambda: L.Lambda(lambda x: x + 1)), "(keras Lambda)", "never run"),
    "own layer": (sequential(lambda: OwnDense(3)), "(keras OwnDense)", "of its own"),
    "own activation": (sequential(dense(3, own_activation)), "own_activation", "never run"),
    "own model": (lambda: built(OwnModel()), "OwnModel", "Python code"),
    "nested own layer": (
        lambda: keras.Sequential(
            [keras.Input((6,)), keras.Sequential([OwnDense(3)], name="inner")]
        ),
        "of 'inner'",
        "of its own",
    ),
    "sparsemax": (sequential(dense(3, "sparsemax")), "'sparsemax'", "does not have"),
    "threshold": (
        sequential(dense(3), lambda: L.ReLU(threshold=1.0)),
        "(keras ReLU)",
        "threshold 0",
    ),
    "softmax axis": (
        sequential(dense(3), lambda: L.Softmax(axis=1), shape=(4, 6)),
        "(keras Softmax)",
        "axis=-1",
    ),
    "batch normalization axis": (
        sequential(lambda: L.BatchNormalization(axis=1), shape=(4, 6)),
        "(keras BatchNormalization)",
        "axis=-1",
    ),
    "quotient": (functional(lambda x: 2.0 / L.Dense(6)(x)), "Divide", "divides a number by"),
    "slopes for each step": (
        sequential(dense(3), L.PReLU, shape=(4, 6)),
        "(keras PReLU)",
        "slopes of shape (4, 3); flatten first",
    ),
    "channels first": (
        sequential(lambda: L.Flatten(data_format="channels_first"), dense(3), shape=(4, 6)),
        "(keras Flatten)",
        "channels_last",
    ),
    "dropout in inference": (
        functional(lambda x: L.Dense(3)(L.Dropout(0.5)(x, training=True))),
        "(keras Dropout)",
        "random",
    ),
    "mixed precision": (
        sequential(dense(3, dtype="mixed_float16")),
        "(keras Dense)",
        "mixed_float16",
    ),
    "two dtypes": (sequential(dense(3), dense(3, dtype="float64")), "is float64", "one dtype"),
    "permute": (sequential(lambda: L.Permute((2, 1)), shape=(4, 6)), "(keras Permute)", "between"),
    "reshape": (sequential(lambda: L.Reshape((2, 3))), "(keras Reshape)", "rows"),
    "not built": (lambda: keras.Sequential([L.Dense(3)]), "keras Sequential", "call it"),
    "flatten after dense": (
        sequential(dense(3), L.Flatten, dense(2), shape=(4, 6)),
        "keras Sequential",
        "verify=False",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name):
    make, place, advice = REFUSED[name]
    with pytest.raises(fl.ConversionError) as caught:
        fl.from_keras(make())
    assert place in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    "name", ["lstm", "lambda", "own layer", "nested own layer", "own activation"]
)
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_refusal_of_files(tmp_path, name, suffix):
    make, place, _ = REFUSED[name]
    path = tmp_path / f"model.{suffix}"
    make().save(path)
    with pytest.raises(fl.ConversionError) as caught:
        load_keras(path)
    assert str(caught.value).startswith(f"{path}: layer ")
    assert place in str(caught.value)


def test_dense_on_the_last_of_several_axes(rng):
    model = randomized(REFUSED["flatten after dense"][0]())
    net = fl.from_keras(model, verify=False)
    x = rng.standard_normal((5, 4, 6)).astype(np.float32)
    # two sums of at most 12 products of numbers around 1
    assert np.abs(net(x) - run(model, x)).max() <= 64 * np.finfo(np.float32).eps


def test_subclass_that_keeps_call(rng):
    model = randomized(OwnSequential([keras.Input((6,)), L.Dense(3)]))
    assert_agree(fl.from_keras(model), model, rng.standard_normal((5, 6)).astype(np.float32))


@pytest.mark.parametrize(("wrong", "hint"), [("model.keras", "fl.load"), (3, "Keras model")])
def test_not_a_model(wrong, hint):
    with pytest.raises(TypeError, match=hint):
        fl.from_keras(wrong)


def test_keras_model_given_to_from_torch():
    if keras.backend.backend() != "torch":
        pytest.skip("models are modules of PyTorch with that backend only")
    with pytest.raises(TypeError, match="from_keras"):
        fl.from_torch(ARCHITECTURES["dense"]())


def test_without_keras():
    """Where nobody has imported Keras there is no model, and it stays unimported."""
    code = (
        "import sys, fastlayer as fl\n"
        "try: fl.from_keras(3)\n"
        "except TypeError as error: print(error)\n"
        "print('keras' in sys.modules, 'h5py' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == ["from_keras takes a Keras model, got int", "False False"]
