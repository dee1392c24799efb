"""Functional models of Keras: operations between layers, branches, several inputs and outputs."""

import numpy as np
import pytest
from helpers import assert_same_bits
from keras_models import assert_agree, keras, randomized
from model_files import assert_round_trips

import fastlayer as fl

L, ops = keras.layers, keras.ops
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MEAN = np.array([0.3, -1.2, 0.5, 2.0, -0.1, 0.9], np.float32)
STD = np.array([0.5, 1.5, 0.8, 1.1, 2.0, 0.6], np.float32)
MATRIX = (np.arange(18).reshape(6, 3) % 7 - 3).astype(np.float32) / 4


def dense(n, activation=None):
    return L.Dense(n, activation=activation)


def functional(build, shape=(6,)):
    x = keras.Input(shape)
    return randomized(keras.Model(x, build(x)))


def of_hidden(formula, n=6):
    """What a formula makes of a dense layer."""
    return lambda x: formula(dense(n)(x))


def mean(h):
    return ops.mean(h, axis=-1, keepdims=True)


def layer_norm(h):
    return (h - mean(h)) / ops.sqrt(ops.var(h, axis=-1, keepdims=True) + 1e-5)


def rms_norm(h):
    return h * ops.rsqrt(mean(h**2) + 1e-6)


def gelu_tanh(h):
    return 0.5 * h * (1 + ops.tanh(ops.sqrt(2 / np.pi) * (h + 0.044715 * ops.power(h, 3))))


# Operations on one array; what they become, where it is more than arithmetic.
OPERATIONS = {
    "standardised": (lambda x: dense(3)((x - MEAN) / STD), None),
    "standardised by float64": (
        lambda x: dense(3)((x - MEAN.astype(float)) / STD.astype(float)),
        None,
    ),
    "tensors": (
        lambda x: dense(3)((x - ops.convert_to_tensor(MEAN)) * ops.convert_to_tensor(STD)),
        None,
    ),
    "constants of one row": (lambda x: dense(3)(x - MEAN[None]), None),
    "integers": (lambda x: dense(3)(x * np.arange(1, 7)), None),
    "constant at the end": (lambda x: dense(6)(x) * STD + MEAN, None),
    "without an array": (lambda x: 1.0 - dense(3)(x), None),
    "ops.divide": (lambda x: dense(3)(ops.divide(x, STD)), None),
    "negative": (lambda x: -dense(3)(x), None),
    "clip": (of_hidden(lambda h: ops.clip(h, -1, 0.5)), "hardtanh"),
    "maximum": (of_hidden(lambda h: ops.maximum(h, 0.0)), "relu"),
    "minimum": (of_hidden(lambda h: ops.minimum(0.25, h)), "hardtanh"),
    "gelu": (of_hidden(lambda h: 0.5 * h * (1 + ops.erf(h / 2.0**0.5))), "gelu"),
    "gelu by a rounded root": (
        of_hidden(lambda h: 0.5 * h * (1 + ops.erf(h / ops.sqrt(2.0)))),
        "gelu",
    ),
    "gelu by tanh": (of_hidden(gelu_tanh), "gelu"),
    "silu": (of_hidden(lambda h: h * ops.sigmoid(h)), "silu"),
    "silu by layers": (of_hidden(lambda h: L.Multiply()([h, L.Activation("sigmoid")(h)])), "silu"),
    "sigmoid": (of_hidden(lambda h: 1 / (1 + ops.exp(-h))), "sigmoid"),
    "mish": (of_hidden(lambda h: h * ops.tanh(ops.softplus(h))), "mish"),
    "softplus": (of_hidden(lambda h: ops.log(1 + ops.exp(h))), "softplus"),
    "softsign": (of_hidden(lambda h: h / (1 + ops.abs(h))), "softsign"),
    "hardswish": (of_hidden(lambda h: h * ops.relu6(h + 3) / 6), "hardswish"),
    "relu with a bound": (of_hidden(lambda h: keras.activations.relu(h, max_value=0.5)), "hardtanh"),
    "softmax": (of_hidden(lambda h: ops.softmax(h, axis=1)), "softmax"),
    "layer norm": (of_hidden(layer_norm, 8), fl.LayerNorm),
    "layer norm with weights": (of_hidden(lambda h: layer_norm(h) * STD + MEAN), fl.LayerNorm),
    "rms norm": (of_hidden(rms_norm, 8), fl.RMSNorm),
    "tanh shrink": (of_hidden(ops.tanh_shrink), fl.Residual),
    "soft shrink": (of_hidden(lambda h: ops.soft_shrink(h, 0.3)), "softshrink"),
    "hard shrink": (of_hidden(lambda h: ops.hard_shrink(h, 0.3)), "hardshrink"),
    "threshold": (of_hidden(lambda h: ops.threshold(h, 0.5, 0.1)), "threshold"),
    "sine": (of_hidden(ops.sin), "sin"),
    "cosine": (of_hidden(lambda h: ops.cos(30 * h)), "cos"),
    "square root": (lambda x: ops.sqrt(dense(3, "exponential")(x)), "sqrt"),
    "squareplus": (of_hidden(lambda h: ops.squareplus(h, b=3)), fl.Residual),
    "activations of layers": (lambda x: dense(3, "soft_shrink")(dense(3, "tanh_shrink")(dense(3, "squareplus")(x))), fl.Residual),
    "reshape": (lambda x: dense(3)(ops.reshape(x, (-1, 6))), None),
    "axis of length one": (lambda x: ops.squeeze(dense(3)(ops.expand_dims(x, 1)), 1), None),
    "layer for the axis": (lambda x: dense(3)(L.Flatten()(dense(4)(L.Reshape((1, 6))(x)))), None),
    "product": (lambda x: ops.matmul(x, MATRIX) + MEAN[:3], None),
    "dot": (lambda x: ops.dot(x, MATRIX), None),
    "einsum": (lambda x: ops.einsum("bi,oi->bo", x, MATRIX.T.copy()), None),
    "cast": (lambda x: dense(3)(ops.cast(x, x.dtype)), None),
    "copies": (lambda x: ops.stop_gradient(dense(3)(x)), None),
    "dense by einsum": (
        lambda x: L.EinsumDense("ab,bc->ac", output_shape=3, bias_axes="c", activation="relu")(x),
        "relu",
    ),
    "turned kernel": (lambda x: L.EinsumDense("...x,yx->...y", output_shape=3)(x), None),
    "spectral norm": (lambda x: dense(2)(L.SpectralNormalization(dense(3, "relu"))(x)), "relu"),
    "masking of zeros": (lambda x: dense(3)(L.Masking()(x)), None),
    "leaky relu by where": (of_hidden(lambda h: ops.where(h > 0, h, 0.1 * h)), "leaky_relu"),
    "elu by where": (
        of_hidden(lambda h: ops.where(ops.greater_equal(h, 0.0), h, ops.exp(h) - 1)),
        "elu",
    ),
    "leaky relu by maximum": (of_hidden(lambda h: ops.maximum(h, 0.2 * h)), "leaky_relu"),
    "absolute": (of_hidden(ops.abs), None),
    "softmax by hand": (
        of_hidden(lambda h: ops.exp(h) / ops.sum(ops.exp(h), axis=-1, keepdims=True)),
        "softmax",
    ),
    # Branches.
    "skip": (lambda x: dense(3)(L.Concatenate()([x, dense(4, "relu")(x)])), fl.Concat),
    "sum": (lambda x: L.Add()([dense(3, "relu")(x), dense(3, "tanh")(x)]), fl.Add),
    "linear sum": (lambda x: ops.relu(L.Add()([dense(3)(x), dense(3)(x)])), "relu"),
    "difference": (lambda x: L.Subtract()([dense(3, "relu")(x), dense(3)(x)]), fl.Add),
    "average": (lambda x: L.Average()([dense(3, "relu")(x), dense(3, "elu")(x), dense(3)(x)]), fl.Add),
    "gate": (lambda x: dense(3, "sigmoid")(x) * dense(3, "tanh")(x), fl.Multiply),
    "gate of one": (lambda x: dense(1, "sigmoid")(x) * dense(3, "tanh")(x), fl.Multiply),
    "product of three": (
        lambda x: L.Multiply()([dense(3, "sigmoid")(x), dense(3, "tanh")(x), dense(3)(x)]),
        fl.Multiply,
    ),
    "attention": (lambda x: x * dense(6, "softmax")(x), fl.Multiply),
    "square": (of_hidden(ops.square), fl.Multiply),
    "power": (of_hidden(lambda h: h**2), fl.Multiply),
    "glu": (of_hidden(ops.glu), fl.Multiply),
    "slice": (lambda x: dense(2)(x[:, 1:4]), fl.Slice),
    "last ones": (lambda x: dense(2)(x[..., -2:]), fl.Slice),
    "all of them": (lambda x: dense(2)(x[:, :]), None),
    "split": (
        of_hidden(lambda h: ops.concatenate(ops.split(h, [1, 4], axis=1)[::-2], axis=-1)),
        fl.Concat,
    ),
    "heads with an activation each": (
        of_hidden(
            lambda h: ops.concatenate(
                [ops.tanh(h[:, :2]), ops.sigmoid(h[:, 2:3]), ops.clip(h[:, 3:], -1, 1)], axis=-1
            )
        ),
        fl.Concat,
    ),
    "sum of the features": (of_hidden(lambda h: ops.sum(h, axis=1, keepdims=True)), None),
    "mean beside": (lambda x: dense(2)(L.Concatenate()([x, mean(x)])), fl.Concat),
}  # fmt: skip


def kinds(net):
    """The kinds of parts and the names of activations in a network."""
    found = {type(part) for part in net}
    return found | {getattr(getattr(part, "activation", part), "name", "") for part in net}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(rng, tmp_path, name):
    build, kind = OPERATIONS[name]
    model = functional(build)
    live = fl.from_keras(model)
    x = rng.standard_normal((33, 6)).astype(np.float32)
    assert_agree(live, model, x)
    assert kind is None or kind in kinds(live)
    model.save(tmp_path / "model.keras")
    assert_same_bits(fl.load(tmp_path / "model.keras")(x), live(x))
    assert_round_trips(live, x)


@pytest.mark.parametrize("name", ["slice", "split", "glu", "skip", "layer norm", "silu", "product"])
def test_operations_in_h5_files(rng, tmp_path, name):
    """Such files don't say where a class comes from, and Keras itself can't read them."""
    model = functional(OPERATIONS[name][0])
    model.save(tmp_path / "model.h5")
    x = rng.standard_normal((9, 6)).astype(np.float32)
    assert_same_bits(fl.load(tmp_path / "model.h5")(x), fl.from_keras(model)(x))


STEPS = {
    "dense": lambda x: dense(2)(L.TimeDistributed(dense(5, "relu"))(x)),
    "softmax": lambda x: L.TimeDistributed(L.Activation("softmax"))(dense(3)(x)),
    "slopes shared": lambda x: L.PReLU(keras.initializers.Constant(0.3), shared_axes=[1])(
        dense(5)(x)
    ),
    "batch norm": lambda x: L.TimeDistributed(L.BatchNormalization())(x),
    "model": lambda x: L.TimeDistributed(
        keras.Sequential([keras.Input((6,)), dense(5, "relu"), L.LayerNormalization(), dense(3)])
    )(x),
    "einsum": lambda x: L.EinsumDense("bti,io->bto", output_shape=(None, 3), bias_axes="o")(x),
    "constants": lambda x: dense(2)((x - MEAN) / STD),
    "dropout": lambda x: dense(2)(L.SpatialDropout1D(0.3)(x)),
    "branches": lambda x: dense(2)(L.Concatenate()([dense(3, "tanh")(x), dense(2)(x)])),
    "rows": lambda x: dense(2)(ops.reshape(x, (-1, 24))),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_of_a_series(rng, tmp_path, name):
    model = functional(STEPS[name], (4, 6))
    live = fl.from_keras(model)
    x = rng.standard_normal((9, 4, 6)).astype(np.float32)
    assert_agree(live, model, x)
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"model.{suffix}")
        assert_same_bits(fl.load(tmp_path / f"model.{suffix}")(x), live(x))


def test_axis_that_is_taken_away_at_the_end(rng):
    """The network keeps it: a row of one number for each sample."""
    model = functional(lambda x: ops.squeeze(dense(1)(dense(4, "tanh")(x)), -1))
    x = rng.standard_normal((9, 6)).astype(np.float32)
    theirs = ops.convert_to_numpy(model(x))
    # sums of at most 6 products of numbers around 1
    assert np.abs(fl.from_keras(model)(x) - theirs[:, None]).max() <= 32 * np.finfo("f4").eps


# ------------------------------------------------------------------------- several ends


def inputs(*widths):
    return [keras.Input((n,)) for n in widths]


def critic():
    state, action = inputs(4, 2)
    return keras.Model(
        [state, action], dense(1)(dense(8, "relu")(L.Concatenate()([state, action])))
    )


def critic_joined_late():
    state, action = keras.Input((4,), name="observation"), keras.Input((2,), name="action")
    h = L.Concatenate()([dense(5, "tanh")(state), action])
    return keras.Model({"observation": state, "action": action}, dense(1)(dense(8, "relu")(h)))


def swapped():
    a, b = inputs(3, 2)
    return keras.Model([a, b], dense(2)(ops.concatenate([b, a], axis=-1)))


def one_unused():
    a, b = inputs(3, 2)
    return keras.Model([a, b], dense(2)(b))


def added():
    a, b = inputs(6, 6)
    return keras.Model([a, b], L.Add()([a, dense(6)(b)]))


def features_of_a_table():
    columns = inputs(1, 1, 1)
    scaled = [L.Normalization(mean=float(i), variance=i + 1.0)(x) for i, x in enumerate(columns)]
    return keras.Model(columns, dense(1, "sigmoid")(dense(8, "relu")(L.Concatenate()(scaled))))


def siamese():
    a, b = inputs(4, 4)
    encoder = keras.Sequential([keras.Input((4,)), dense(8, "relu"), dense(3)])
    return keras.Model([a, b], dense(1, "sigmoid")(L.Subtract()([encoder(a), encoder(b)])))


def actor_critic():
    (state,) = inputs(6)
    h = dense(8, "tanh")(state)
    policy = L.Dense(3, activation="softmax", name="policy")(h)
    return keras.Model(state, [policy, L.Dense(1, name="value")(h)])


def by_key():
    (state,) = inputs(6)
    h = dense(8, "tanh")(state)
    return keras.Model(state, {"std": ops.exp(dense(2)(h)), "mean": dense(2)(h), "features": h})


def same_twice():
    (x,) = inputs(6)
    h = L.Dense(3, name="h")(x)
    return keras.Model(x, [h, h, x])


def lists_of_one():
    (x,) = inputs(6)
    return keras.Model([x], [dense(3)(x)])


def keys_of_one():
    x = keras.Input((6,), name="x")
    return keras.Model({"x": x}, {"y": dense(3)(x)})


def duelling():
    (x,) = inputs(6)
    h = dense(8, "relu")(x)
    value, advantage = dense(1)(h), dense(4)(h)
    return keras.Model(x, value + (advantage - mean(advantage)))


def inner_of_two(keys):
    a, b = keras.Input((3,), name="u"), keras.Input((2,), name="b")
    h = dense(4)(L.Concatenate()([b, a]))
    outputs = {"z": dense(2)(h), "p": dense(3, "relu")(h)}
    given = {"u": a, "b": b}
    inner = keras.Model(given if keys else [a, b], outputs if keys else [*outputs.values()])
    (s,) = inputs(5)
    made = inner({"u": s[:, :3], "b": s[:, 3:]} if keys else [s[:, :3], s[:, 3:]])
    made = [made["z"], made["p"]] if keys else made
    return keras.Model(s, dense(2)(L.Concatenate()(made)))


# Models, and the names of their inputs and outputs where they have several, None for any.
ENDS = {
    "a feature each": (features_of_a_table, 3, ()),
    "critic": (critic, 2, ()),
    "critic joined late": (critic_joined_late, ("action", "observation"), ()),
    "swapped": (swapped, 2, ()),
    "one unused": (one_unused, 2, ()),
    "added": (added, 2, ()),
    "siamese": (siamese, 2, ()),
    "actor and critic": (actor_critic, (), ("policy", "value")),
    "by key": (by_key, (), ("features", "mean", "std")),
    "same twice": (same_twice, (), 3),
    "duelling": (duelling, (), ()),
    "lists of one": (lists_of_one, (), ()),
    "keys of one": (keys_of_one, (), ()),
    "inner model": (lambda: inner_of_two(False), None, ()),
    "inner model by keys": (lambda: inner_of_two(True), None, ()),
}


def run(model, xs):
    """Return all outputs of a model, in the order of their keys where they have any."""
    form = model.input
    given = dict(zip(sorted(form), xs, strict=True)) if isinstance(form, dict) else xs
    y = model(given if isinstance(form, dict | list) else xs[0], training=False)
    y = [y[key] for key in sorted(y)] if isinstance(y, dict) else y
    return [ops.convert_to_numpy(one) for one in (y if isinstance(y, list) else [y])]


def rows(rng, model):
    return [rng.standard_normal((9, *x.shape[1:])).astype(np.float32) for x in model.inputs]


def assert_gives(net, xs, theirs):
    ours = net(*xs)
    ours = ours if isinstance(ours, tuple) else (ours,)
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    for a, b in zip(ours, theirs, strict=True):
        # two sums of at most 8 products of numbers around 1
        assert (np.abs(a - b) <= 64 * np.finfo("f4").eps * (1 + np.abs(b))).all()


@pytest.mark.parametrize("name", ENDS)
def test_several_inputs_and_outputs(rng, tmp_path, name):
    make, takes, gives = ENDS[name]
    model = randomized(make())
    live = fl.from_keras(model)
    for names, known in ((live.input_names, takes), (live.output_names, gives)):
        assert known is None or (len(names) if isinstance(known, int) else names) == known
    assert live.verification.bound_share <= 1
    xs = rows(rng, model)
    theirs = run(model, xs)
    assert_gives(live, xs, theirs)
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"model.{suffix}")
        stored = fl.load(tmp_path / f"model.{suffix}")
        assert (stored.input_names, stored.output_names) == (live.input_names, live.output_names)
        assert_gives(stored, xs, theirs)


@pytest.mark.parametrize("name", ["actor and critic", "by key", "same twice"])
def test_chosen_outputs(rng, tmp_path, name):
    model = randomized(ENDS[name][0]())
    model.save(tmp_path / "model.keras")
    (x,) = rows(rng, model)
    for output, theirs in zip(fl.from_keras(model).output_names, run(model, [x]), strict=True):
        live = fl.from_keras(model, outputs=output)
        assert_gives(live, [x], [theirs])
        assert_same_bits(fl.load(tmp_path / "model.keras", outputs=output)(x), live(x))
        (alone,) = fl.from_keras(model, outputs=[output])(x)
        assert_same_bits(alone, live(x))


def test_inputs_that_the_chosen_outputs_do_not_need(rng):
    state, action = inputs(4, 2)
    value = dense(1)(L.Concatenate()([state, action]))
    model = randomized(
        keras.Model([state, action], {"policy": dense(2, "tanh")(state), "q": value})
    )
    xs = rows(rng, model)
    policy, q = run(model, xs)
    assert_gives(fl.from_keras(model, outputs="policy"), xs[:1], [policy])
    assert_gives(fl.from_keras(model, outputs="q"), xs, [q])
    assert_gives(fl.from_keras(model, outputs=["q", "policy"]), xs, [q, policy])
    with pytest.raises(fl.ConversionError, match="it has the outputs 'policy', 'q'; outputs='v'"):
        fl.from_keras(model, outputs="v")


@pytest.mark.parametrize("several", [True, False])
def test_features_far_from_zero(rng, several):
    """Each centred before anything is multiplied, also where no dense layer follows at once."""
    means, deviations = np.array([1.6e6, 5e5, 3.0]), np.array([100.0, 50.0, 1.0])
    columns = inputs(1, 1, 1) if several else inputs(3)
    scaled = [
        L.Normalization(mean=m, variance=d**2)(x)
        for x, m, d in zip(
            columns,
            means if several else [means],
            [*deviations] if several else [deviations],
            strict=True,
        )
    ]
    joined = L.Concatenate()([*scaled, *(dense(2, "tanh")(x) for x in scaled[:1])])
    net = fl.from_keras(randomized(keras.Model(columns, joined)))
    x = (means + deviations * rng.standard_normal((50, 3))).astype(np.float32)
    y = net(*np.split(x, 3, axis=1)) if several else net(x)
    expected = (x.astype(np.float64) - means) / deviations
    assert np.abs(y[:, :3] - expected).max() <= 4 * np.finfo("f4").eps * np.abs(expected).max()


# ----------------------------------------------------------------------------- refusals


def heads(x):
    return L.EinsumDense("bti,ijk->btjk", output_shape=(None, 3, 2), bias_axes="jk")(x)


# What builds a model, the shape of its samples, and what the message has to say.
REFUSED = {
    "unit norm": (L.UnitNormalization(), (6,), "(keras UnitNormalization)"),
    "group norm": (L.GroupNormalization(2), (6,), "(keras GroupNormalization)"),
    "bins": (L.Discretization([0.0, 1.0]), (6,), "(keras Discretization)"),
    "mask of ones": (L.Masking(1.0), (4, 6), "makes zeros of rows of 1.0"),
    "softmax behind a mask": (
        lambda x: L.Softmax()(L.Masking()(x)), (4, 6), "is called with mask=",
    ),
    "softmax with a mask": (
        lambda x: L.Softmax()(x, mask=ops.ones((1, 6), "bool")), (6,), "is called with mask=",
    ),
    "mean of all": (lambda x: x - ops.mean(x), (6,), "is over axis None"),
    "mean of samples": (lambda x: x - ops.mean(x, axis=0, keepdims=True), (6,), "is over axis 0"),
    "sum without the axis": (lambda x: ops.sum(x, axis=-1), (6,), "keepdims=True"),
    "mean without the axis": (lambda x: ops.mean(dense(3)(x), axis=-1), (6,), "keepdims=True"),
    "wider constant": (lambda x: dense(1)(x) * MEAN, (6,), "constant of shape (6,)"),
    "constant for each step": (lambda x: x - MATRIX.reshape(3, 6), (3, 6), "of shape (3, 6)"),
    "divided by zero": (lambda x: dense(3)(x) / 0.0, (6,), "divides its input by zero"),
    "divided by infinity": (lambda x: dense(3)(x) / np.inf, (6,), "that is not finite"),
    "largest of another branch": (
        lambda x: dense(3)(x) - ops.max(dense(3)(x), axis=-1, keepdims=True), (6,),
        "(keras Subtract): joins two arrays of the model",
    ),
    "selection of branches": (
        lambda x: ops.where(x > 0.0, dense(6)(x), dense(6)(x)), (6,), "(keras Where)",
    ),
    "quotient of branches": (lambda x: x / dense(6, "exponential")(x), (6,), "(keras TrueDivide)"),
    "maximum of branches": (L.Maximum(), None, "(keras Maximum): joins two arrays of the model"),
    "dot of branches": (L.Dot(1), None, "(keras Dot): has 2 inputs"),
    "transposed": (ops.transpose, (6,), "(keras Transpose)"),
    "power by a vector": (lambda x: x ** np.arange(6.0), (6,), "(keras Power)"),
    "power of a number": (lambda x: 2.0**x, (6,), "(keras Power)"),
    "every second": (lambda x: x[:, ::2], (6,), "x[:, begin:end]"),
    "one of them": (lambda x: x[:, 0], (6,), "x[:, begin:end]"),
    "step of a series": (lambda x: x[:, 0], (4, 6), "x[:, begin:end]"),
    "split of steps": (lambda x: ops.split(x, 2, axis=1)[0], (4, 6), "works along axis 1"),
    "steps beside each other": (
        lambda x: L.Concatenate(axis=1)([x, x]), (4, 6), "works along axis 1",
    ),
    "rows of steps": (lambda x: ops.reshape(x, (-1, 6)), (4, 6), "samples are rows"),
    "axis at the end": (lambda x: ops.expand_dims(dense(3)(x), 1), (6,), "reshape the result"),
    "nothing but samples": (
        lambda x: dense(2)(ops.expand_dims(ops.sigmoid(ops.squeeze(dense(1)(x), -1)), -1)), (6,),
        "one number a sample",
    ),
    "other dtype": (lambda x: dense(3)(ops.cast(dense(6)(x), "float16")), (6,), "'float16'"),
    "product of branches": (lambda x: ops.einsum("bi,bi->b", x, dense(6)(x)), (6,), "'bi,bi->b'"),
    "einsum of heads": (heads, (4, 6), "equation 'bti,ijk->btjk'"),
    "einsum that turns": (
        lambda x: L.EinsumDense("bti,io->bot", output_shape=(3, 4))(x), (4, 6), "'bti,io->bot'",
    ),
    "bias of steps": (
        lambda x: L.EinsumDense("bti,io->bto", output_shape=(4, 3), bias_axes="to")(x), (4, 6),
        "bias along the axes 'to'",
    ),
    "flattened steps": (L.TimeDistributed(L.Flatten()), (4, 6), "is around Flatten"),
    "recurrent inside": (L.TimeDistributed(L.LSTM(2)), (3, 4, 6), "(keras TimeDistributed)"),
    "outputs of steps": (lambda x: [dense(2)(x), dense(3)(x)], (4, 6), "several outputs are rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name):
    build, shape, message = REFUSED[name]
    if shape is None:
        joined = build
        build, shape = (lambda x: joined([dense(6)(x), dense(6)(x)])), (6,)
    with pytest.raises(fl.ConversionError) as caught:
        fl.from_keras(functional(build, shape))
    assert message in str(caught.value)


def test_inputs_of_series():
    a, b = keras.Input((4, 6)), keras.Input((4, 2))
    with pytest.raises(fl.ConversionError, match="several inputs are rows"):
        fl.from_keras(keras.Model([a, b], L.Concatenate()([a, b])))


def test_step_that_is_left_to_numpy(rng):
    """As the message of a maximum of branches says."""
    (x,) = inputs(6)
    both = [dense(3)(x), dense(3)(x)]
    with pytest.raises(fl.ConversionError, match="both as its outputs, and compute this step"):
        fl.from_keras(keras.Model(x, L.Maximum()(both)))
    model = keras.Model(x, both)
    (rows_of_x,) = rows(rng, model)
    ours = np.maximum(*fl.from_keras(model)(rows_of_x))
    assert_gives(lambda _: ours, [rows_of_x], run(keras.Model(x, L.Maximum()(both)), [rows_of_x]))


def test_arguments_that_keras_does_not_write():
    model = functional(lambda x: ops.clip(x, np.float32(-1), np.float32(1)))
    with pytest.raises(fl.ConversionError, match="has to be plain numbers"):
        fl.from_keras(model)
    plain = functional(lambda x: ops.clip(x, -1.0, 1.0))  # as the message says
    assert fl.from_keras(plain)([9.0] * 6).tolist() == [1.0] * 6
