"""What `fastlayer.sklearn` has and scikit-learn's perceptrons have not."""

from __future__ import annotations

import copy
import io
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
import helpers
import joblib
import sklearn.neural_network as theirs
from helpers import assert_same_bits, available_isas
from own_process import run_python
from perceptrons import (
    KINDS,
    WEIGHED,
    assert_alike,
    assert_same_weights,
    calm,
    fitted,
    kind_of,
    made,
    pair,
    samples,
    weights,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

import fastlayer as fl
import fastlayer.sklearn as ours
from fastlayer.sklearn import MLPClassifier, MLPRegressor

SUPPORT = str(Path(helpers.__file__).parent)
ALL = ["digits", "cancer", "labels", "diabetes", "outputs"]


def done(name, fit=None, **parameters):
    """One of ours, fitted."""
    return fitted([made(name, **parameters)], *samples(name), **(fit or {}))[0]


# --- the weights of classes


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize(
    ("name", "class_weight"),
    [
        ("cancer", {0: 3.0, 1: 0.5}),
        ("cancer", {0: 2}),
        ("cancer", "balanced"),
        ("strings", {"malignant": 4}),
        ("digits", "balanced"),
        ("labels", [{0: 1, 1: 2}, {0: 1, 1: 5}, {0: 1, 1: 1}, {0: 3, 1: 1}]),
        ("labels", "balanced"),
    ],
)
def test_class_weight_is_that_of_samples(name, class_weight, solver):
    _, y = samples(name)
    weight = compute_sample_weight(class_weight, y)
    both = {"class_weight": class_weight, "solver": solver}
    assert_same_weights(done(name, **both), done(name, {"sample_weight": weight}, solver=solver))
    given = np.random.RandomState(0).uniform(size=len(y))
    assert_same_weights(
        done(name, {"sample_weight": given}, **both),
        done(name, {"sample_weight": given * weight}, solver=solver),
    )
    assert done(name, **both).loss_ != done(name, solver=solver).loss_


@WEIGHED
def test_class_weight_beside_the_weights_that_scikit_learn_knows():
    x, y = samples("cancer")
    weight = compute_sample_weight("balanced", y)
    mine, other = pair("cancer")
    fitted([mine.set_params(class_weight="balanced")], x, y)
    fitted([other], x, y, sample_weight=weight)
    assert_alike(mine, other, x)


def test_class_weight_in_parts():
    x, y = samples("cancer")
    a = made("cancer", class_weight={0: 3.0}).partial_fit(x, y, classes=[0, 1])
    b = made("cancer").partial_fit(x, y, np.where(y == 0, 3.0, 1.0), classes=[0, 1])
    assert_same_weights(a, b)


@pytest.mark.parametrize("given", ["uneven", 3])
def test_a_bad_class_weight(given):
    with pytest.raises(ValueError, match="'class_weight' parameter of MLPClassifier must be"):
        done("cancer", class_weight=given)


@pytest.mark.parametrize("kind", ["cancer", "diabetes"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_weights_are_not_negative(kind, solver):
    weight = np.where(np.arange(len(samples(kind)[0])) == 7, -1.0, 1.0)
    with pytest.raises(ValueError, match="negative"):
        done(kind, {"sample_weight": weight}, solver=solver)


@pytest.mark.parametrize("name", ALL)
def test_samples_of_weight_0_are_not_there(name):
    """Whole batches of them, in which there is nothing to learn, too."""
    x, y = samples(name)
    weight = np.where(np.arange(len(x)) < 120, 1.0, 0.0)
    options = {"batch_size": 40, "shuffle": False, "max_iter": 5}
    some = made(name, **options)
    if kind_of(name) == "MLPClassifier":  # the classes are all that there are
        fitted([some], x, y, sample_weight=weight)
        parts = made(name, **options)
        classes = np.unique(y) if y.ndim == 1 else np.arange(4)
        for _ in range(5):
            parts.partial_fit(x[:120], y[:120], classes=classes)
    else:
        fitted([some], x, y, sample_weight=weight)
        parts = fitted([made(name, **options)], x[:120], y[:120])[0]
    assert_same_weights(some, parts)


# --- activations


@pytest.mark.parametrize(
    "activation",
    ["gelu", "silu", "leaky_relu", "elu", "softplus", "sigmoid", fl.Activation("elu", alpha=0.5)],
    ids=str,
)
@pytest.mark.parametrize("name", ["cancer", "diabetes"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_any_activation(name, activation, solver):
    x, y = samples(name)
    est = done(name, activation=activation, solver=solver, max_iter=60, learning_rate_init=0.01)
    assert est.score(x, y) > (0.9 if name == "cancer" else 0.4)
    names = [layer.activation.name for layer in est.network]
    assert names[:2] == [getattr(activation, "name", activation)] * 2


def test_an_activation_for_each_layer():
    given = ["tanh", fl.Activation("leaky_relu", negative_slope=0.2)]
    each = done("digits", activation=given)
    found = [layer.activation for layer in each.network]
    assert found == [fl.Activation("tanh"), given[1], fl.Activation("softmax")]
    assert_same_weights(each, done("digits", activation=tuple(given)))
    assert_same_weights(
        done("digits", activation=["logistic", "logistic"]), done("digits", activation="logistic")
    )
    assert (
        done("digits", activation=["tanh", "relu"]).loss_ != done("digits", activation="tanh").loss_
    )


@pytest.mark.parametrize(
    ("activation", "told"),
    [
        (["relu"], "1 entries, but there are 2 hidden layers"),
        (["relu"] * 3, "3 entries, but there are 2 hidden layers"),
        (["relu", "nonsense"], "nonsense"),
        ("prelu", "'activation' parameter of MLPClassifier must be"),
        (fl.Activation("prelu", weight=np.ones(12)), "can't be used here"),
        (["relu", 3], "got int"),
    ],
)
def test_a_bad_activation(activation, told):
    with pytest.raises((ValueError, TypeError), match=re.escape(told)):
        done("cancer", activation=activation)


# --- losses

SQUARES = {"mse": lambda y, t: (np.mean((y - t) ** 2), 2 * (y - t) / y.size)}


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("loss", ["huber", "absolute_error", "mae", fl.Loss("huber", delta=0.1)])
@pytest.mark.parametrize("name", ["diabetes", "outputs"])
def test_losses_of_numbers(name, loss, solver):
    x, y = samples(name)
    reg = done(name, loss=loss, solver=solver, alpha=0.0, max_iter=100, learning_rate_init=0.01)
    d = abs(reg.predict(x) - y)
    delta = {"huber": 1.0, fl.Loss("huber", delta=0.1): 0.1}.get(loss)
    each = d if delta is None else np.where(d < delta, d**2 / 2, delta * (d - delta / 2))
    before = reg.loss_
    calm(reg.set_params(warm_start=True, max_iter=1, batch_size=len(x), shuffle=False).fit, x, y)
    # The loss of an epoch of one batch is that of before its step; lbfgs says that of its end.
    if solver == "lbfgs":
        assert before == pytest.approx(each.mean(), rel=1e-12)
    else:
        assert reg.loss_ == pytest.approx(each.mean(), rel=1e-12)
    assert each.mean() < 0.7 * np.mean(abs(y))


def test_two_names_of_one_loss():
    assert_same_weights(done("diabetes", loss="mae"), done("diabetes", loss="absolute_error"))
    assert_same_weights(done("diabetes", loss="huber"), done("diabetes", loss=fl.Loss("huber")))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_smoothed_labels(solver):
    """Of the loss that is asked for; fewer probabilities near 0 and 1."""
    x, y = samples("digits")
    parameters = {"solver": solver, "max_iter": 80, "learning_rate_init": 0.01}
    soft = done("digits", loss=fl.Loss("cross_entropy", label_smoothing=0.2), **parameters)
    hard = done("digits", **parameters)
    assert soft.score(x, y) > 0.9
    assert soft.predict_proba(x).max(axis=1).mean() < hard.predict_proba(x).max(axis=1).mean() - 0.1


@pytest.mark.parametrize("name", ["cancer", "labels"])
def test_losses_of_several_classes_are_not_of_one_output(name):
    """Nor of labels: the error names what does for them, or what is in the way."""
    with pytest.raises(ValueError, match=r"use binary_cross_entropy|the network ends in sigmoid"):
        done(name, loss=fl.Loss("cross_entropy"))
    same = done(name, loss=fl.Loss("binary_cross_entropy"), solver="lbfgs", alpha=0.0)
    named = done(name, solver="lbfgs", alpha=0.0)
    assert named.loss_ == pytest.approx(same.loss_ * named.n_outputs_, rel=1e-3)


@pytest.mark.parametrize("loss", ["poisson", fl.Loss("poisson")])
def test_counts_are_not_negative(loss):
    with pytest.raises(ValueError, match="targets of poisson are numbers from 0 on"):
        done("diabetes", loss=loss)
    assert done("counts", loss=loss).out_activation_ == "exp"


def cross_entropy(p, t):
    return -np.sum(t * np.log(p)) / len(p), -t / p / len(p)


def half_square(y, t):
    return np.sum((y - t) ** 2) / (2 * len(y)), (y - t) / len(y)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize(("name", "loss"), [("digits", cross_entropy), ("diabetes", half_square)])
def test_a_loss_of_ones_own(name, loss, solver):
    """As the one that it repeats, to rounding: through exp and log of probabilities here."""
    parameters = {"solver": solver, "max_iter": 5}
    own, named = done(name, loss=loss, **parameters), done(name, **parameters)
    assert own.loss_ == pytest.approx(named.loss_, rel=1e-9)
    for a, b in zip(weights(own), weights(named), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_a_loss_of_ones_own_goes_on():
    """With the moments of before, as its trainer knows that it is the same."""
    x, y = samples("diabetes")
    whole = made("diabetes", loss=half_square, shuffle=False, max_iter=10)
    parts = made("diabetes", loss=half_square, shuffle=False, max_iter=5, warm_start=True)
    fitted([whole, parts], x, y)
    fitted([parts], x, y)
    assert_same_weights(whole, parts)


def test_huge_samples_leave_the_loss_of_a_classifier_finite():
    """It is computed from what is before the softmax; scikit-learn's becomes NaN, and fit fails."""
    x, y = samples("cancer")
    clf = made("cancer", max_iter=2)
    with np.errstate(all="ignore"):  # of the sum by which scikit-learn looks for a NaN
        fitted([clf], x * 1e306, y)
    assert 0 < clf.loss_ < 36.1


@pytest.mark.parametrize(("name", "loss"), [("cancer", "hinge"), ("diabetes", "log_loss")])
def test_a_loss_that_is_none(name, loss):
    with pytest.raises(ValueError, match="'loss' parameter of MLP"):
        done(name, loss=loss)


# --- solvers and rates


def test_adamw_decays_weights_apart_from_the_loss():
    plain, decayed = done("diabetes", alpha=0.0), done("diabetes", alpha=0.0, solver="adamw")
    for a, b in zip(weights(plain), weights(decayed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # eps at another place
    strong = done("diabetes", alpha=10.0, solver="adamw")
    assert sum(abs(w).sum() for w in strong.coefs_) < 0.9 * sum(abs(w).sum() for w in plain.coefs_)
    # The loss of the first step is that of the weights at first, without a penalty.
    whole = {"max_iter": 1, "batch_size": 442}
    losses = [done("diabetes", alpha=a, solver="adamw", **whole).loss_ for a in (0.0, 10.0)]
    assert losses[0] == losses[1] < done("diabetes", alpha=10.0, **whole).loss_


def test_a_schedule_over_all_epochs():
    """Constant is none; one of a function is the rate of each step."""
    constant = done("digits", schedule="constant")
    assert_same_weights(constant, done("digits"))
    seen = []

    def halves(fraction):
        seen.append(fraction)
        return 0.5

    half = done("digits", schedule=halves, learning_rate_init=0.002, max_iter=4, batch_size=100)
    assert seen == [(epoch + step / 4) / 4 for epoch in range(4) for step in range(4)]
    assert_same_weights(half, done("digits", max_iter=4, batch_size=100))
    cosine = done("digits", schedule=fl.Schedule("cosine"))
    assert_same_weights(cosine, done("digits", schedule="cosine"))
    assert cosine.loss_ != constant.loss_


def test_a_schedule_that_comes_to_nothing():
    """After one epoch, here; no weight moves any more."""
    parameters = {"solver": "sgd", "momentum": 0}
    still = done("diabetes", schedule=lambda fraction: float(fraction < 1 / 20), **parameters)
    assert still.n_iter_ > 2
    assert_same_weights(still, done("diabetes", max_iter=1, **parameters))


@pytest.mark.parametrize(
    ("rate", "more"), [("invscaling", {}), ("adaptive", {"tol": 0.05, "n_iter_no_change": 1})]
)
def test_a_warm_start_begins_the_rate_anew(rate, more):
    """As scikit-learn does; where an adaptive one had become too small there would be no epochs left."""
    x, y = samples("diabetes")
    more = {"solver": "sgd", "momentum": 0, "learning_rate": rate, "warm_start": True, **more}
    estimators = pair("diabetes", max_iter=60, **more)
    for _ in range(2):
        fitted(estimators, x, y)
        assert_alike(*estimators, x)
    assert estimators[0].n_iter_ > 5


def test_another_rate_takes_effect_in_parts():
    x, y = samples("diabetes")
    reg = made("diabetes", solver="sgd", momentum=0, alpha=0).partial_fit(x, y)
    again = copy.deepcopy(reg)
    before = [w.copy() for w in weights(reg)]
    reg.partial_fit(x, y)
    again.set_params(learning_rate_init=0.1).partial_fit(x, y)
    steps = [
        np.hstack([(w - v).ravel() for w, v in zip(weights(e), before, strict=True)])
        for e in (reg, again)
    ]
    assert np.linalg.norm(steps[1]) > 20 * np.linalg.norm(steps[0])


# --- dtypes


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float32, "float32", np.dtype(np.float64)], ids=str)
def test_a_dtype_of_ones_own(name, dtype):
    x, y = samples(name)
    est = done(name, dtype=dtype)
    assert {w.dtype for w in weights(est)} == {np.dtype(dtype)}
    assert est.network.dtype == np.dtype(dtype)
    same = made(name)
    fitted([same], x.astype(dtype), y)
    assert_same_weights(est, same)


@pytest.mark.parametrize("dtype", [np.int32, "float16"])
def test_a_bad_dtype(dtype):
    with pytest.raises(
        ValueError, match=f"dtype must be float32 or float64, got {np.dtype(dtype)}"
    ):
        done("cancer", dtype=dtype)


# --- samples to be scored


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("weighed", [False, True])
def test_scores_of_validation_data(name, weighed):
    """After each epoch, and nothing else is changed by it."""
    x, y = samples(name)
    part = (x[100:150], y[100:150])
    weight = np.linspace(0, 1, 50) if weighed else None
    found = []
    seen = made(name, callback=lambda e: found.append(e.score(*part, sample_weight=weight)))
    data = (*part, weight) if weighed else part
    fitted([seen], x, y, validation_data=data)
    assert seen.validation_scores_ == found
    assert seen.best_validation_score_ == max(found)
    assert seen.best_loss_ == min(seen.loss_curve_)
    assert_same_weights(seen, done(name))


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_validation_data_in_the_place_of_what_is_held_back(name):
    x, y = samples(name)
    kept = []
    est = made(name, early_stopping=True, max_iter=300, n_iter_no_change=3, learning_rate_init=0.01)
    est.set_params(callback=lambda e: kept.append([w.copy() for w in weights(e)]))
    fitted([est], x[:100], y[:100], validation_data=(x[100:200], y[100:200]))
    assert est.n_iter_ < 300
    assert est.t_ == 100 * est.n_iter_
    best = int(np.argmax(est.validation_scores_))
    assert best < est.n_iter_ - 1
    for w, v in zip(weights(est), kept[best], strict=True):
        assert_same_bits(w, v)
    assert est.score(x[100:200], y[100:200]) == est.best_validation_score_


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([1, 2], "tuple .X, y. or .X, y, sample_weight., got list"),
        ((1,), "tuple .X, y. or"),
        ((np.zeros((3, 2)), [0, 1, 0]), "2 features"),
        ((np.zeros((3, 30)), [0, 1]), "inconsistent numbers of samples"),
    ],
)
def test_bad_validation_data(given, told):
    with pytest.raises(ValueError, match=told):
        done("cancer", {"validation_data": given})


@pytest.mark.parametrize("kind", KINDS)
def test_a_solver_without_epochs_scores_no_validation_data(kind):
    est = getattr(ours, kind)(solver="lbfgs", max_iter=2)
    with pytest.raises(ValueError, match="scored after each epoch, and lbfgs has none"):
        est.fit([[0.0], [1.0]], [0, 1], validation_data=([[0.0]], [0]))
    x, y = [[0.0], [1.0]], [0, 1]
    calm(est.set_params(solver="adam").fit, x, y, validation_data=(x, y))
    assert len(est.validation_scores_) == 2


def test_a_warm_start_that_finds_nothing_better_keeps_the_best():
    """Bit for bit, where scikit-learn has changed the arrays that it meant to keep."""
    x, y = samples("digits")
    parameters = {"early_stopping": True, "max_iter": 30, "warm_start": True, "solver": "sgd"}
    clf = made("digits", **parameters)
    fitted([clf], x, y)
    before, best = [w.copy() for w in weights(clf)], clf.best_validation_score_
    clf.set_params(learning_rate_init=1e-9, max_iter=3)
    fitted([clf], x, y)
    assert clf.best_validation_score_ == best
    for w, v in zip(weights(clf), before, strict=True):
        assert_same_bits(w, v)


# --- what is called and told


@pytest.mark.parametrize("stop", [True, np.True_])
def test_a_callback_ends_the_training(stop):
    seen = []

    def callback(estimator):
        seen.append((estimator.n_iter_, estimator.loss_, estimator.network.out_features))
        return stop if len(seen) == 3 else 1  # which is no bool, and means nothing

    clf = made("digits", callback=callback)
    clf.fit(*samples("digits"))  # no warning that epochs are few
    assert clf.n_iter_ == 3
    assert [n for n, _, _ in seen] == [1, 2, 3]
    assert [loss for _, loss, _ in seen] == clf.loss_curve_
    assert seen[0][2] == 10
    assert_same_weights(clf, done("digits", max_iter=3))


@pytest.mark.parametrize("parts", [False, True])
def test_progress_is_told(parts):
    told = []
    clf = made("digits", progress=lambda *given: told.append(given))
    if parts:
        clf.partial_fit(*samples("digits"), classes=np.arange(10))
        assert told == []
    else:
        fitted([clf], *samples("digits"))
        assert told == [(i, 20) for i in range(1, 21)]
    assert done("digits", progress=True).n_iter_ == 20


def test_ctrl_c_leaves_what_was_learned():
    def callback(estimator):
        if estimator.n_iter_ == 4:
            raise KeyboardInterrupt

    clf = made("digits", callback=callback)
    with pytest.warns(UserWarning, match=r"^Training interrupted by user\.$") as caught:
        clf.fit(*samples("digits"))
    assert Path(caught[0].filename).name == "test_more.py"
    assert clf.n_iter_ == 4
    assert_same_weights(clf, done("digits", max_iter=4))


@pytest.mark.parametrize(
    ("call", "category"),
    [
        (lambda e: e.fit(*samples("cancer")), ConvergenceWarning),
        (
            lambda e: e.set_params(batch_size=999).partial_fit(*samples("cancer"), None, [0, 1]),
            UserWarning,
        ),
    ],
    ids=["few epochs", "a large batch"],
)
def test_warnings_are_of_the_line_that_called(call, category):
    with pytest.warns(category) as caught:
        call(made("cancer"))
    assert [Path(w.filename).name for w in caught] == ["test_more.py"]


# --- the same bits


def digest(n_jobs=None):
    """Of fits of every kind, large enough for several threads."""
    rng = np.random.RandomState(0)
    x, y = rng.uniform(-1, 1, (600, 40)), rng.randint(0, 4, 600)
    parameters = {
        "hidden_layer_sizes": (90, 60),
        "random_state": 0,
        "max_iter": 4,
        "n_jobs": n_jobs,
    }
    estimators = [
        MLPClassifier(batch_size=300, **parameters),
        MLPClassifier(early_stopping=True, batch_size=300, solver="sgd", **parameters),
        MLPClassifier(solver="lbfgs", activation="tanh", **parameters),
        MLPRegressor(loss="huber", batch_size=300, solver="adamw", **parameters),
    ]
    found = []
    for estimator in estimators:
        calm(estimator.fit, x, y)
        found += [*weights(estimator), np.array(estimator.loss_), estimator.predict(x)]
    return joblib.hash([a.tobytes() for a in found])


@pytest.fixture(scope="module")
def expected():
    with fl.num_threads(1):
        return digest()


@pytest.mark.thread_unsafe(reason="sets the number of threads")
def test_on_any_number_of_threads(expected, threads):
    assert digest() == expected


@pytest.mark.parametrize("n_jobs", [1, 2, 3, -1, -100])
def test_n_jobs_are_threads(expected, n_jobs):
    before = fl.get_num_threads()
    assert digest(n_jobs) == expected
    assert fl.get_num_threads() == before


def test_n_jobs_of_0():
    with pytest.raises(ValueError, match="n_jobs == 0 has no meaning"):
        done("cancer", n_jobs=0)


def test_n_jobs_is_how_many_threads_there_are_meanwhile():
    seen = []
    done("cancer", n_jobs=3, max_iter=2, callback=lambda e: seen.append(fl.get_num_threads()))
    assert seen == [3, 3]


@pytest.mark.parametrize("isa", available_isas())
def test_on_every_instruction_set(expected, isa):
    """That of lbfgs, too: what SciPy does between is the same on one machine."""
    folder = str(Path(__file__).parent)
    code = (
        f"import sys; sys.path[:0] = [{SUPPORT!r}, {folder!r}]\n"
        "import fastlayer as fl\n"
        "from test_more import digest\n"
        f"assert fl.show_config(mode='dicts')['isa']['active'] == {isa!r}\n"
        "print(digest())"
    )
    assert run_python(code, env={"FASTLAYER_ISA": isa}) == expected


# --- going on


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
def test_a_warm_start_goes_on_with_the_moments(name, solver):
    x, y = samples(name)
    options = {"shuffle": False, "solver": solver, "batch_size": 32}
    whole = done(name, max_iter=10, **options)
    parts = made(name, max_iter=5, warm_start=True, **options)
    for _ in range(2):
        fitted([parts], x, y)
    assert_same_weights(whole, parts)
    assert parts.loss_curve_ == whole.loss_curve_
    assert parts.t_ == whole.t_
    fitted([parts.set_params(warm_start=False, max_iter=10)], x, y)  # and anew
    assert_same_weights(whole, parts)


COPIES = {
    "pickle": lambda e: pickle.loads(pickle.dumps(e)),
    "protocol 2": lambda e: pickle.loads(pickle.dumps(e, 2)),
    "deepcopy": copy.deepcopy,
    "joblib": lambda e: joblib.load(written(e)),
}


def written(estimator):
    stream = io.BytesIO()
    joblib.dump(estimator, stream)
    stream.seek(0)
    return stream


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", "invscaling"])
@pytest.mark.parametrize("name", ["digits", "outputs"])
def test_a_copy_goes_on_bit_for_bit(name, solver, how):
    """With the moments, and the learning rate of then."""
    x, y = samples(name)
    rate = (
        {"solver": "sgd", "learning_rate": solver} if solver == "invscaling" else {"solver": solver}
    )
    classes = {"classes": np.arange(10)} if name == "digits" else {}
    whole = made(name, batch_size=40, **rate)
    for _ in range(3):
        whole.partial_fit(x, y, **classes)
    other = COPIES[how](whole)
    assert_same_bits(other.predict(x), whole.predict(x))
    for _ in range(2):
        for est in (whole, other):
            est.partial_fit(x, y)
        assert_same_weights(whole, other)
        assert whole.loss_ == other.loss_


@pytest.mark.parametrize("name", ["digits", "outputs"])
def test_a_copy_that_is_not_fitted(name):
    for copied in (call(made(name)) for call in COPIES.values()):
        fitted([copied], *samples(name))
        assert_same_weights(copied, done(name))


@pytest.mark.parametrize("how", ["replaced", "in place"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_weights_changed_by_hand_are_those_that_count(how, solver):
    x, y = samples("diabetes")
    reg = done("diabetes", solver=solver)
    before = reg.predict(x)
    if how == "replaced":
        reg.coefs_ = [*reg.coefs_[:-1], reg.coefs_[-1] * 2]
        reg.intercepts_ = [*reg.intercepts_[:-1], reg.intercepts_[-1] * 2]
    else:
        reg.coefs_[-1] *= 2
        reg.intercepts_[-1] *= 2
    np.testing.assert_array_equal(reg.predict(x), 2 * before)
    np.testing.assert_array_equal(reg.network(x)[:, 0], 2 * before)
    if solver == "adam":
        changed = [w.copy() for w in weights(reg)]
        reg.set_params(learning_rate_init=1e-6).partial_fit(x, y)
        for w, v in zip(weights(reg), changed, strict=True):
            np.testing.assert_allclose(w, v, atol=1e-4)


def test_weights_changed_by_hand_keep_the_moments():
    """Adam goes on from them: the next step is not the first one, whose size is the rate."""
    x, y = samples("diabetes")
    reg = done("diabetes", max_iter=30, shuffle=False, batch_size=len(x))
    same = copy.deepcopy(reg)
    reg.intercepts_[-1] = reg.intercepts_[-1] + 0.0  # another array of the same numbers
    same.coefs_[0] = same.coefs_[0] * (1 + 2**-40)
    for est in (reg, same):
        est.partial_fit(x, y)
    for a, b in zip(weights(reg), weights(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_momentum_switched_on_or_off(momentum):
    """There are no moments to go on with, or nothing to do with them: as after a warm start of scikit-learn."""
    x, y = samples("diabetes")
    parameters = {"solver": "sgd", "warm_start": True, "learning_rate_init": 0.02}
    estimators = pair("diabetes", momentum=0.9 - momentum, **parameters)
    fitted(estimators, x, y)
    fitted([e.set_params(momentum=momentum) for e in estimators], x, y)
    assert_alike(*estimators, x)


def test_a_core_that_declines_is_told(monkeypatch):
    """Which never happens; it is no reason to give back weights that were not fitted."""
    monkeypatch.setattr("fastlayer.sklearn.lbfgs._core.Trainer.forward", lambda *_: None)
    with pytest.raises(RuntimeError, match="please report this as a bug"):
        done("diabetes", solver="lbfgs")


def test_objectives_are_hashed_as_they_are_compared():
    from fastlayer.sklearn.objective import Velocity, objective

    def some(alpha):
        return [
            objective(loss, 1, "identity", alpha, 1e-16, False) for loss in ("huber", half_square)
        ]

    for same, again, other in zip(some(0.5), some(0.5), some(1.0), strict=True):
        assert (same == again, same == other) == (True, False)
        assert len({same, again, other}) == 2
    for lr, momentum in ((0.0, 0.5), (np.inf, 0.5), (0.1, 1.5), (0.1, -0.5)):
        with pytest.raises(ValueError, match="out of range"):
            Velocity(lr, momentum, False)


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
@pytest.mark.parametrize("sizes", [(12,), (12, 8), (12, 7, 7)])
def test_other_sizes_go_on_with_nothing(call, sizes):
    clf = done("digits", warm_start=True)
    with pytest.raises(ValueError, match="fit with warm_start=False begins anew"):
        getattr(clf.set_params(hidden_layer_sizes=sizes), call)(*samples("digits"))
    calm(clf.set_params(warm_start=False).fit, *samples("digits"))


def test_another_solver_or_activation_goes_on():
    """From the weights of before, with what is its own."""
    x, y = samples("digits")
    clf = done("digits", warm_start=True, activation="tanh", max_iter=30)
    first = clf.loss_
    for solver in ("sgd", "lbfgs", "adamw", "lbfgs", "adam"):
        fitted([clf.set_params(solver=solver)], x, y)
        assert clf.loss_ < first
    other = done("digits", solver="lbfgs", warm_start=True, max_iter=5)
    fitted([other.set_params(solver="adam", max_iter=20)], x, y)
    assert len(other.loss_curve_) == 20
    assert other.best_loss_ == min(other.loss_curve_)
    calm(clf.set_params(activation="relu").partial_fit, x, y)
    assert clf.network[0].activation == fl.Activation("relu")


def test_early_stopping_between():
    """Switched on and off between warm starts."""
    x, y = samples("digits")
    clf = done("digits", warm_start=True)
    fitted([clf.set_params(early_stopping=True)], x, y)
    assert len(clf.validation_scores_) == 20
    other = done("digits", warm_start=True, early_stopping=True)
    assert other.best_loss_ is None
    fitted([other.set_params(early_stopping=False)], x, y)
    assert other.best_loss_ == min(other.loss_curve_[20:])


# --- the network


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_network(name, solver, dtype, tmp_path):
    x, y = samples(name, dtype)
    est = made(name, solver=solver)
    fitted([est], x, y)
    net = est.network
    assert isinstance(net, fl.Network)
    assert est.network is net
    wanted = est.predict_proba(x) if kind_of(name) == "MLPClassifier" else est.predict(x)
    found = net(x)
    if name == "cancer":
        wanted = wanted[:, 1:]
    assert_same_bits(found, wanted.reshape(found.shape))
    est.save(tmp_path / "net.npz")
    assert_same_bits(fl.load(tmp_path / "net.npz")(x), found)


def test_no_network_before_fit():
    for call in (lambda: MLPClassifier().network, lambda: MLPRegressor().save("net.npz")):
        with pytest.raises(NotFittedError):
            call()


@pytest.mark.parametrize("name", ALL)
def test_from_sklearn(name):
    x, y = samples(name)
    est = done(name)
    inside = make_pipeline(StandardScaler(), made(name))
    calm(inside.fit, x, y)
    for model in (est, inside):
        found, wanted = fl.from_sklearn(model).predict(x), model.predict(x)
        if kind_of(name) == "MLPClassifier":
            np.testing.assert_array_equal(found, wanted)
        else:  # the scaler is folded into the first layer
            np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_scikit_learns_attributes_in_ours():
    """Weights of one are taken by the other."""
    x, y = samples("digits")
    mine, other = pair("digits", max_iter=3)
    fitted([mine, other], x, y)
    mine.coefs_, mine.intercepts_ = other.coefs_, other.intercepts_
    np.testing.assert_allclose(mine.predict_proba(x), other.predict_proba(x), rtol=1e-12)
    assert isinstance(other, theirs.MLPClassifier)
    assert {kind: getattr(ours, kind).__name__ for kind in KINDS} == dict(
        zip(KINDS, KINDS, strict=True)
    )


def test_predicting_warns_of_nothing():
    """Also where a probability is 0, whose logarithm is minus infinity."""
    x, _ = samples("cancer")
    clf = done("cancer", max_iter=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isneginf(clf.predict_log_proba(x * 1e6)).any()
