"""`Network.fit`: what it takes, how it goes on, how it ends, and its history."""

import math
import pickle
import sys
import threading
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import assert_same_bits
from own_process import run_python
from preloaded import SANITIZED

import fastlayer as fl

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 4))
T = (X[:, 0] > 0).astype(int) + (X[:, 1] > 1)


def net_of(end="softmax", dtype=np.float64):
    return fl.Network(
        [fl.Layer(4, 8, "tanh", dtype=dtype, rng=0), fl.Layer(8, 3, end, dtype=dtype, rng=1)]
    )


def weights(net):
    return [a for layer in net.layers for a in (layer.weight, layer.bias)]


def assert_same_weights(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        assert_same_bits(a, b)


# --- how it goes on


def test_an_epoch_is_the_steps_of_a_trainer():
    """Shuffled by keys of raw bits, which every NumPy draws alike; whole batches, then the rest."""
    net, other = net_of(), net_of()
    history = net.fit(X, T, epochs=3, batch_size=16, rng=7, optimizer=fl.Adam(lr=0.01))
    trainer = fl.Trainer(other, "cross_entropy", fl.Adam(lr=0.01))
    bits = np.random.PCG64(7)
    sizes = np.array([16, 16, 16, 12])
    for epoch in range(3):
        losses = trainer.steps(X, T, 16, np.argsort(bits.random_raw(60), kind="stable"))
        assert history.loss[epoch] == pytest.approx((losses * sizes).sum() / 60, rel=1e-14)
    assert_same_weights(net, trainer.network)
    assert history.epochs == 3
    assert history.stopped_by == "epochs"
    assert history.lr == [0.01] * 3
    assert history.best_epoch is None


@pytest.mark.parametrize("seed", [lambda: 3, lambda: np.int64(3), lambda: np.random.default_rng(3)])
def test_a_seed_repeats_the_run(seed):
    one, other = net_of(), net_of()
    options = {"epochs": 4, "validation": 0.25, "patience": 2, "schedule": "cosine"}
    first = one.fit(X, T, rng=seed(), **options)
    second = other.fit(X, T, rng=seed(), **options)
    assert_same_weights(one, other)
    assert first.loss == second.loss
    assert first.val_loss == second.val_loss
    third = net_of()
    third.fit(X, T, rng=4, **options)
    assert not np.array_equal(third.layers[0].weight, one.layers[0].weight)


@pytest.mark.parametrize(
    ("end", "t", "loss"),
    [
        ("softmax", T, "cross_entropy"),
        ("log_softmax", T, "cross_entropy"),
        ("sigmoid", np.eye(3)[T], "binary_cross_entropy"),
        ("exp", np.eye(3)[T], "poisson"),
        (None, np.eye(3)[T], "mse"),
        ("tanh", np.eye(3)[T], "mse"),
    ],
)
def test_the_loss_belongs_to_the_last_activation(end, t, loss):
    one, other = net_of(end), net_of(end)
    assert one.fit(X, t, epochs=1, rng=0).loss == other.fit(X, t, loss, epochs=1, rng=0).loss
    assert_same_weights(one, other)


def test_class_numbers_want_to_be_told_apart_from_numbers():
    with pytest.raises(
        ValueError, match=r"say which loss: t of shape \(60,\) may be class numbers"
    ):
        net_of(None).fit(X, T)


def test_one_output_takes_a_vector(rng):
    net = fl.Network([fl.Layer(4, 1, rng=0)])
    history = net.fit(X, X @ [1.0, 2.0, 3.0, 4.0], epochs=60, optimizer=fl.Adam(lr=0.1), rng=0)
    assert history.loss[-1] < 1e-3 * history.loss[0]


def test_lists_and_frames(rng):
    one, other = net_of(), net_of()
    one.fit(X.tolist(), T.tolist(), epochs=2, rng=0)
    other.fit(X, T, epochs=2, rng=0)
    assert_same_weights(one, other)
    pandas = pytest.importorskip("pandas")
    third = net_of()
    third.fit(pandas.DataFrame(X), pandas.Series(T), epochs=2, rng=0)
    assert_same_weights(third, other)


def test_several_inputs():
    layer = fl.Layer(4, 3, "softmax", dtype=float, rng=0)
    net = fl.Network([layer], inputs=[1, 3])
    other = fl.Network([fl.Layer(4, 3, "softmax", dtype=float, rng=0)])
    options = {"epochs": 2, "rng": 0}
    history = net.fit((X[:, :1], X[:, 1:]), T, validation=0.2, **options)
    assert history.loss == other.fit(X, T, validation=0.2, **options).loss
    held = (X[:9, :1], X[:9, 1:]), T[:9]
    a = net.fit((X[:, :1], X[:, 1:]), T, validation=held, **options)
    b = other.fit(X, T, validation=(X[:9], T[:9]), **options)
    assert a.val_loss == b.val_loss
    assert_same_weights(net, other)


def test_a_loss_of_ones_own():
    net = net_of("tanh")
    t = np.eye(3)[T]
    history = net.fit(X, t, lambda y, t: (((y - t) ** 2).sum(), 2 * (y - t)), epochs=5, rng=0)
    assert history.loss[-1] < history.loss[0]
    with pytest.raises(ValueError, match="has to see to the weights of samples itself"):
        net.fit(X, t, lambda y, t: (0.0, y), sample_weight=np.ones(60))


def test_max_norm_and_train():
    net, other = net_of(), net_of()
    net.fit(X, T, epochs=2, rng=0, max_norm=0.1, train=net[-1:])
    assert_same_bits(net.layers[0].weight, other.layers[0].weight)
    trainer = fl.Trainer(other, "cross_entropy", "adam", train=other[-1:], max_norm=0.1)
    bits = np.random.PCG64(0)
    for _ in range(2):
        trainer.steps(X, T, 32, np.argsort(bits.random_raw(60), kind="stable"))
    assert_same_weights(net, trainer.network)


# --- validation and patience


def test_a_share_is_held_back_and_never_trained_on():
    net = net_of()
    seen = []
    marked = np.arange(60.0)

    def loss(y, t):
        seen.extend(t[:, 3].tolist())
        return float(((y - t[:, :3]) ** 2).sum()), 2 * (y - t[:, :3])

    t = np.column_stack([np.eye(3)[T], marked])
    history = net_of("tanh").fit(X, t, loss, epochs=2, rng=0, validation=0.25, batch_size=45)
    assert len(history.val_loss) == 2
    assert history.val_accuracy == []
    trained, held = seen[:45], seen[45:60]
    assert sorted(trained + held) == marked.tolist()
    assert sorted(seen[60:105]) == sorted(trained)
    assert seen[105:] == held == sorted(held)
    history = net.fit(X, T, epochs=2, rng=0, validation=0.25)
    at = np.array(held, int)
    assert history.val_loss[-1] == pytest.approx(
        fl.Loss("cross_entropy")(np.log(net(X[at])), T[at]), rel=1e-12
    )
    assert history.val_accuracy[-1] == np.mean(net(X[at]).argmax(axis=1) == T[at])


def test_samples_to_validate_with():
    net = net_of()
    w = np.r_[np.zeros(10), np.ones(10)]
    history = net.fit(X, T, epochs=1, validation=(X[:20], T[:20], w), rng=0)
    expected = fl.Loss("cross_entropy")(np.log(net(X[10:20])), T[10:20])
    assert history.val_loss[0] == pytest.approx(expected, rel=1e-12)
    rows = net_of().fit(X, T, epochs=1, validation=(X[:20], np.eye(3)[T[:20]]), rng=0)
    plain = net_of().fit(X, T, epochs=1, validation=(X[:20], T[:20]), rng=0)
    assert rows.val_loss == pytest.approx(plain.val_loss, rel=1e-12)
    assert rows.val_accuracy == plain.val_accuracy


def test_more_samples_than_are_evaluated_at_a_time(rng):
    x, t = rng.normal(size=(9000, 4)), rng.integers(0, 3, 9000)
    w = np.r_[np.zeros(5000), rng.random(4000)]  # a part of them has no weight
    net = net_of()
    history = net.fit(X, T, epochs=1, validation=(x, t, w), rng=0)
    expected = fl.Loss("cross_entropy")(np.log(net(x)), t, w)
    assert history.val_loss[0] == pytest.approx(expected, rel=1e-12)


def test_one_output_is_right_above_one_half():
    net = fl.Network([fl.Layer(4, 1, "sigmoid", dtype=float, rng=0)])
    history = net.fit(X, T > 0, epochs=2, validation=(X, T > 0), rng=0)
    assert history.val_accuracy[-1] == np.mean((net(X)[:, 0] > 0.5) == (T > 0))


def test_patience_ends_the_run_and_restores_the_best_weights():
    net = net_of()
    kept = []
    history = net.fit(
        X[:20],
        T[:20],
        epochs=200,
        validation=(X[20:], (T[20:] + 1) % 3),  # gets worse as the fit gets better
        patience=3,
        rng=0,
        optimizer=fl.Adam(lr=0.02),
        callback=lambda net, _: kept.append(weights(net)),
    )
    best = int(np.argmin(history.val_loss))
    assert history.stopped_by == "patience"
    assert history.best_epoch == best
    assert history.epochs == best + 3 + 1 == len(kept)
    for a, b in zip(weights(net), kept[best], strict=True):
        assert_same_bits(a, b)
    assert f"the weights are those of epoch {best}" in str(history)
    assert f"ended by patience after {history.epochs} epochs" in str(history)


def test_the_best_weights_come_back_where_all_epochs_were_run():
    net, kept = net_of(), []
    history = net.fit(
        X[:20], T[:20], epochs=6, validation=(X[20:], (T[20:] + 1) % 3), patience=50, rng=0,
        callback=lambda net, _: kept.append(weights(net)),
    )  # fmt: skip
    assert history.stopped_by == "epochs"
    for a, b in zip(weights(net), kept[history.best_epoch], strict=True):
        assert_same_bits(a, b)


# --- schedules


def half_wave(p):
    return 0.5 * (1 + math.cos(math.pi * p))


FORMULAS = [
    (fl.Schedule("constant"), lambda p: 1.0),
    (fl.Schedule("constant", warmup=0.2), lambda p: min(1.0, p / 0.2)),
    (fl.Schedule("step"), lambda p: 0.1 ** int(p / 0.25)),
    (fl.Schedule("step", every=0.5, factor=0.5), lambda p: 0.5 ** int(p / 0.5)),
    (fl.Schedule("cosine"), half_wave),
    (fl.Schedule("cosine", final=0.1), lambda p: 0.1 + 0.9 * half_wave(p)),
    (
        fl.Schedule("cosine", warmup=0.25),
        lambda p: p / 0.25 if p < 0.25 else half_wave((p - 0.25) / 0.75),
    ),
    (
        fl.Schedule("one_cycle"),
        lambda p: (
            0.04 + 0.96 * (1 - half_wave(p / 0.3))
            if p < 0.3
            else 4e-6 + (1 - 4e-6) * half_wave((p - 0.3) / 0.7)
        ),
    ),
]


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=lambda v: repr(v)[:40])
def test_schedules(schedule, formula):
    for p in [0.0, 0.1, 0.2, 0.25, 0.3, 0.49, 0.5, 0.75, 0.999]:
        assert schedule(p) == pytest.approx(formula(p), rel=1e-13, abs=1e-15)
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert again.parameters == schedule.parameters
    for change in (lambda: setattr(schedule, "_name", "x"), lambda: delattr(schedule, "_name")):
        with pytest.raises(AttributeError, match="can't be changed"):
            change()


def test_texts_of_schedules():
    assert repr(fl.Schedule("step", every=0.5)) == "Schedule('step', every=0.5)"
    assert repr(fl.Schedule("constant")) == "Schedule('constant')"
    assert fl.Schedule("cosine").name == "cosine"


@pytest.mark.parametrize(
    "schedule",
    [
        "constant",
        "step",
        "cosine",
        "one_cycle",
        "warmup",
        fl.Schedule("cosine"),
        lambda p: 1 - p,
        None,
    ],
)
def test_the_rate_of_every_step(schedule):
    factor = schedule
    if schedule is None or isinstance(schedule, str):
        factor = fl.Schedule(schedule or "constant") if schedule != "warmup" else None
        factor = factor or fl.Schedule("constant", warmup=0.1)
    net, other = net_of(), net_of()
    history = net.fit(X, T, epochs=3, batch_size=30, rng=1, schedule=schedule)
    trainer = fl.Trainer(other, "cross_entropy", "adam")
    bits, rates = np.random.PCG64(1), []
    for epoch in range(3):
        order = np.argsort(bits.random_raw(60), kind="stable")
        for i in range(2):
            trainer.lr = max(1e-3 * factor((epoch + i / 2) / 3), 5e-324)
            trainer.step(X[order[30 * i : 30 * i + 30]], T[order[30 * i : 30 * i + 30]])
        rates.append(trainer.lr)
    assert history.lr == rates
    assert_same_weights(net, trainer.network)


# --- weights of samples and of classes


def test_weights_of_samples_and_of_classes():
    w = RNG.random(60)
    options = {"epochs": 2, "batch_size": 20, "rng": 0}
    by_hand, by_class = net_of(), net_of()
    counts = np.bincount(T)
    by_hand.fit(X, T, sample_weight=60 / (3 * counts[T]), **options)
    by_class.fit(X, T, class_weight="balanced", **options)
    assert_same_weights(by_hand, by_class)
    by_hand.fit(X, T, sample_weight=w * np.array([1.0, 3.0, 1.0])[T], **options)
    by_class.fit(X, T, sample_weight=w, class_weight={1: 3.0}, **options)
    assert_same_weights(by_hand, by_class)


def test_batches_in_which_nothing_counts_are_left_out():
    """They are not known beforehand: the order is drawn."""
    w = np.zeros(60)
    w[:3] = 1
    net = net_of()
    history = net.fit(X, T, sample_weight=w, epochs=5, batch_size=5, rng=0)
    assert all(math.isfinite(value) for value in history.loss)
    other = net_of()
    trainer = fl.Trainer(other, "cross_entropy", "adam")
    bits = np.random.PCG64(0)
    for _ in range(5):
        order = np.argsort(bits.random_raw(60), kind="stable")
        for at in order.reshape(12, 5):
            if w[at].any():
                trainer.step(X[at], T[at], w[at])
    assert_same_weights(net, trainer.network)


# --- callbacks and progress


def test_a_callback_sees_every_epoch_and_may_end_the_run():
    net, seen = net_of(), []

    def callback(trained, history):
        assert trained is net
        seen.append((history.epochs, history.loss[-1], weights(trained)))
        return history.epochs == 3

    history = net.fit(X, T, epochs=10, callback=callback, rng=0)
    assert history.stopped_by == "callback"
    assert [entry[0] for entry in seen] == [1, 2, 3]
    assert [entry[1] for entry in seen] == history.loss
    for a, b in zip(seen[-1][2], weights(net), strict=True):
        assert_same_bits(a, b)
    other = net_of()
    other.fit(X, T, epochs=3, rng=0)
    assert_same_weights(net, other)


@pytest.mark.parametrize(("answer", "epochs"), [(np.bool_(True), 1), (1, 3), ("yes", 3), (None, 3)])
def test_only_true_ends_the_run(answer, epochs):
    history = net_of().fit(X, T, epochs=3, callback=lambda *_: answer, rng=0)
    assert history.epochs == epochs


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
def test_an_exception_leaves_the_weights_of_the_last_whole_epoch(error):
    net, kept = net_of(), []

    def callback(trained, history):
        kept.append(weights(trained))
        if history.epochs == 2:
            raise error

    with pytest.raises(error):
        net.fit(X, T, epochs=5, callback=callback, rng=0)
    for a, b in zip(weights(net), kept[-1], strict=True):
        assert_same_bits(a, b)
    other = net_of()
    other.fit(X, T, epochs=2, rng=0)
    assert_same_weights(net, other)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_exception_within_an_epoch_does_too(error):
    steps = []

    def loss(y, t):
        steps.append(1)
        if len(steps) == 5:  # of three a batch
            raise error
        return float(((y - t) ** 2).sum()), 2 * (y - t)

    t = np.eye(3)[T]
    net, other = net_of("tanh"), net_of("tanh")
    with pytest.raises(error):
        net.fit(X, t, loss, epochs=5, batch_size=20, rng=0)
    steps[:] = [1] * 10
    other.fit(X, t, loss, epochs=1, batch_size=20, rng=0)
    assert_same_weights(net, other)
    net.fit(X, t, loss, epochs=1, batch_size=20, rng=0)  # and goes on


def test_progress():
    told = []
    net_of().fit(X, T, epochs=3, progress=lambda *args: told.append(args), rng=0)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_bar_where_tqdm_is_installed(monkeypatch):
    tqdm = pytest.importorskip("tqdm.auto")
    bars = []

    class Bar:
        def __init__(self, **options):
            self.options, self.done, self.closed = options, 0, False
            bars.append(self)

        def update(self, n):
            self.done += n

        def close(self):
            self.closed = True

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    net_of().fit(X, T, epochs=3, progress=True, rng=0)
    (bar,) = bars
    assert bar.options["total"] == bar.done == 3
    assert bar.options["unit"] == " epochs"
    assert bar.closed


# --- streams and large arrays


def test_a_function_that_returns_the_batches_of_an_epoch():
    def batches():
        for begin in range(0, 60, 25):
            yield X[begin : begin + 25], T[begin : begin + 25]

    net, other = net_of(), net_of()
    history = net.fit(batches, epochs=2, validation=(X, T))
    trainer = fl.Trainer(other, "cross_entropy", "adam")
    for _ in range(2):
        losses = trainer.steps(X, T, 25)
    assert_same_weights(net, trainer.network)
    assert history.loss[-1] == pytest.approx((losses * [25, 25, 10]).sum() / 60, rel=1e-14)
    assert len(history.val_accuracy) == 2


def test_a_generator_for_one_epoch_with_weights():
    def batches():
        yield X[:10], T[:10], np.ones(10)
        yield X[10:20], T[10:20], np.zeros(10)  # nothing to learn from
        yield X[5], T[5]

    net, other = net_of(), net_of()
    history = net.fit(batches(), epochs=1)
    trainer = fl.Trainer(other, "cross_entropy", "adam")
    losses = [trainer.step(X[:10], T[:10]), trainer.step(X[5], T[5])]
    assert_same_weights(net, trainer.network)
    assert history.loss == [pytest.approx((10 * losses[0] + losses[1]) / 11, rel=1e-14)]


@pytest.mark.skipif(SANITIZED, reason="the sanitizer keeps what is freed for a while")
def test_a_large_memory_mapped_array_is_read_a_batch_at_a_time(tmp_path):
    """A file of 512 MB that is all holes, in a process that may allocate 64 MB more."""
    pytest.importorskip("resource")
    if sys.platform != "linux":
        pytest.skip("limits of private memory are Linux's")
    path = tmp_path / "rows"
    with open(path, "wb") as file:
        file.truncate(512 << 20)
    code = f"""
import resource
import numpy as np
import fastlayer as fl
x = np.memmap({str(path)!r}, np.float32, "r", shape=(1 << 17, 1024))
net = fl.Network([fl.Layer(1024, 4, rng=0)])
t = np.zeros((1 << 17, 4), np.float32)
net.fit(x[:64], t[:64], epochs=1, validation=0.5)  # loads all that it needs
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20),) * 2)
losses = fl.Trainer(net, "mse", "adam").steps(x, t, 256, np.arange(0, 1 << 17, 1 << 10))
history = net.fit(x, t, epochs=1, batch_size=1 << 11, validation=0.05, rng=0)
try:
    np.array(x)
except MemoryError:
    print(len(losses), history.epochs, "and it would not have fitted")
"""
    env = {"FASTLAYER_NUM_THREADS": "1"}  # stacks of threads count
    assert run_python(code, env=env) == "1 1 and it would not have fitted"


# --- what ends it


@pytest.mark.parametrize("lr", [1e300, 1e30])
def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_weights(lr):
    net = net_of(None, np.float64)
    t = X[:, :3]
    net.fit(X, t, epochs=2, rng=0)
    before, kept = weights(net), []
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=r"loss is (nan|inf) in step \d+ of epoch 0; .*lr"),
    ):
        net.fit(X, t, epochs=3, batch_size=8, rng=0, optimizer=fl.SGD(lr=lr), callback=kept.append)
    for a, b in zip(weights(net), before, strict=True):
        assert_same_bits(a, b)
    assert not kept


def test_weights_that_are_no_numbers_after_the_last_step_do_too():
    net = net_of(None, np.float32)
    before = weights(net)
    with pytest.raises(FloatingPointError, match="weights of epoch 0 are not finite"):
        net.fit(X, X[:, :3], epochs=3, batch_size=60, rng=0, optimizer=fl.SGD(lr=1e300))
    for a, b in zip(weights(net), before, strict=True):
        assert_same_bits(a, b)


def nan_at(*place):
    t = np.eye(3)[T]
    t[place] = np.nan
    return t


BAD = [
    (ValueError, "t is missing", {"t": None}),
    (ValueError, r"x has shape \(60, 4\), but t has shape \(59,\)", {"t": T[:59]}),
    (ValueError, "expected x of shape", {"x": X[:, :3]}),
    (ValueError, "x must be rows", {"x": X[:, 0]}),
    (ValueError, "no samples", {"x": X[:0], "t": T[:0]}),
    (ValueError, r"t\[59\] is 3, but there are 3 outputs", {"t": np.r_[T[:59], 3]}),
    (ValueError, r"t\[59, 2\] is nan", {"t": nan_at(59, 2)}),
    (ValueError, "epochs must be at least 1", {"epochs": 0}),
    (TypeError, "batch_size must be an integer", {"batch_size": 2.5}),
    (TypeError, "rng must be an int or a numpy.random.Generator", {"rng": "seed"}),
    (ValueError, "unknown loss", {"loss": "l1"}),
    (ValueError, "unknown optimizer", {"optimizer": "lion"}),
    (ValueError, "unknown schedule", {"schedule": "linear"}),
    (TypeError, "schedule must be a name", {"schedule": 0.5}),
    (ValueError, r"the schedule gave -1\.0 at 0\.000", {"schedule": lambda p: -1}),
    (ValueError, "the schedule gave nan", {"schedule": lambda p: math.nan}),
    (TypeError, "callback must be a function", {"callback": True}),
    (ValueError, "patience waits for the validation loss", {"patience": 3}),
    (ValueError, "patience must be at least 1", {"patience": 0, "validation": 0.1}),
    (ValueError, "leaves none on one side", {"validation": 0.001}),
    (ValueError, "leaves none on one side", {"validation": 1.0}),
    (TypeError, "validation must be a real number", {"validation": "some"}),
    (ValueError, r"validation is a fraction or a tuple", {"validation": (X,)}),
    (ValueError, r"validation: t has shape \(5,\)", {"validation": (X[:4], T[:5])}),
    (ValueError, r"validation: t\[0\] is 9", {"validation": (X[:1], [9])}),
    (ValueError, r"validation: .*expected x of shape \(m, 4\)", {"validation": (X[:, :2], T)}),
    (ValueError, "validation: there are no samples", {"validation": (X[:0], T[:0])}),
    (ValueError, "sample_weight must have shape", {"sample_weight": np.ones(3)}),
    (ValueError, "not negative", {"sample_weight": -np.ones(60)}),
    (ValueError, "0 for every sample", {"sample_weight": np.zeros(60)}),
    (ValueError, "class_weight has a class 7", {"class_weight": {7: 1.0}}),
    (ValueError, "not negative", {"class_weight": {0: -1.0}}),
    (ValueError, "a dict or 'balanced'", {"class_weight": "even"}),
    (TypeError, "a dict or 'balanced', got list", {"class_weight": [1, 2, 3]}),
    (ValueError, "needs class numbers", {"class_weight": "balanced", "t": np.eye(3)[T]}),
    (ValueError, "max_norm must be positive", {"max_norm": -1}),
    (ValueError, "leave t out", {"x": lambda: [(X, T)]}),
    (ValueError, "one epoch only: pass a function", {"x": iter([(X, T)]), "t": None}),
    (ValueError, "nothing can be held back", {"x": list, "t": None, "validation": 0.1}),
    (ValueError, "goes into the batches", {"x": list, "t": None, "sample_weight": np.ones(60)}),
    (ValueError, "epoch 0 had no batches", {"x": list, "t": None}),
    (TypeError, "a stream yields tuples", {"x": lambda: [X], "t": None}),
    (ValueError, "expected x of shape", {"x": lambda: [(X[:, :2], T)], "t": None}),
]


@pytest.mark.parametrize(("error", "message", "changes"), BAD, ids=[str(b[1])[:40] for b in BAD])
def test_nothing_changes_where_arguments_are_refused(error, message, changes):
    net, same = net_of(), net_of()
    options = {"epochs": 2, "rng": 0, **changes}
    x, t = options.pop("x", X), options.pop("t", T)
    with pytest.raises(error, match=message):
        net.fit(x, t, options.pop("loss", None), **options)
    assert_same_weights(net, same)


def test_a_layer_that_nobody_can_train_is_named():
    with pytest.raises(TypeError, match="nobody knows the derivative of sinh"):
        fl.Network([fl.Layer(4, 3, np.sinh, rng=0)]).fit(X, np.eye(3)[T])


# --- other threads


def test_other_threads_see_whole_epochs():
    net, whole, seen = net_of(), [], []
    going = threading.Event()
    done = threading.Event()
    whole.append(net(X))

    def call():
        while not done.is_set():
            seen.append(net(X))
            going.set()

    thread = threading.Thread(target=call)
    thread.start()
    assert going.wait(60)
    try:
        net.fit(X, T, epochs=20, rng=0, callback=lambda net, _: whole.append(net(X)))
    finally:
        done.set()
        thread.join()
    known = {y.tobytes() for y in whole}
    assert {y.tobytes() for y in seen} <= known
    assert len(known) == 21


# --- fine-tuning


def test_a_converted_network_is_fine_tuned():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(),
        torch.nn.Linear(8, 3),
    ).double()  # fmt: skip
    module.eval()
    net = fl.from_torch(module)
    before = fl.Loss("cross_entropy")(net(X), T)
    history = net.fit(X, T, "cross_entropy", epochs=40, optimizer=fl.Adam(lr=0.02), rng=0)
    assert history.loss[-1] < 0.5 * before
    assert fl.Loss("cross_entropy")(net(X), T) < 0.5 * before
    norms = [part for part in net.layers if isinstance(part, fl.BatchNorm)]
    assert len(norms) == 1  # frozen
    np.testing.assert_array_equal(norms[0].running_var, np.ones(8))


def test_the_last_layer_alone_learns_from_what_the_others_give():
    net, other = net_of(), net_of()
    before = net.layers[0].weight
    history = net[-1:].fit(net[:-1](X), T, epochs=3, rng=0)
    assert other.fit(X, T, epochs=3, rng=0, train=other[-1:]).loss == history.loss
    assert_same_weights(net, other)
    assert_same_bits(net.layers[0].weight, before)


# --- the history


class WellFormed(HTMLParser):
    """Every tag is closed by its own."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("epochs", [1, 2, 10, 11, 30])
@pytest.mark.parametrize("validation", [None, 0.25])
def test_the_table_of_a_history(epochs, validation):
    history = net_of().fit(X, T, epochs=epochs, validation=validation, rng=0)
    text = str(history)
    assert text == repr(history)
    lines = text.splitlines()
    assert lines[0].split() == [
        "epoch",
        "loss",
        *(["val_loss", "val_accuracy"] if validation else []),
    ]
    assert lines[-1].split()[0] == str(epochs - 1)
    assert len(lines) == 2 + min(epochs, 11)
    assert lines[2].split()[1] == f"{history.loss[0]:.5g}"
    page = WellFormed(history._repr_html_())
    assert page.seen.count("polyline") == (0 if epochs == 1 else 2 if validation else 1)
    assert "table" in page.seen
    with np.errstate(all="raise"):
        history.loss[0] = math.nan
        WellFormed(history._repr_html_())
        history.loss[:] = [0.0] * epochs
        WellFormed(history._repr_html_())


def test_a_picture_where_matplotlib_is_installed(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    history = net_of().fit(X, T, epochs=5, validation=0.25, rng=0)
    ax = history.plot()
    lines = {line.get_label(): line.get_ydata().tolist() for line in ax.get_lines()}
    assert lines == {"loss": history.loss, "val_loss": history.val_loss}
    assert ax.get_yscale() == "log"
    assert ax.get_xlabel() == "epoch"
    history.loss[0] = 0.0
    fresh = pyplot.figure().subplots()
    assert history.plot(fresh) is fresh
    assert fresh.get_yscale() == "linear"
    pyplot.close("all")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        history.plot()


def test_an_import_loads_nothing_of_training():
    code = (
        "import sys, fastlayer as fl; "
        "before = [m for m in sys.modules if m.startswith('fastlayer.train')]; "
        "net = fl.Network([fl.Layer(2, 1, rng=0)]); net([1.0, 2.0]); "
        "after = [m for m in sys.modules if m.startswith('fastlayer.train')]; "
        "fl.Trainer; print(before, after, 'fastlayer.train.trainer' in sys.modules)"
    )
    assert run_python(code) == "[] [] True"
