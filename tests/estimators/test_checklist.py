"""What scikit-learn's own tests ask of its perceptrons, asked of ours.

Its four tests that look into private attributes have other forms here: a step that is worked out beside,
slopes of the loss by differences, and learning rates by what they do.
"""

from __future__ import annotations

import re
import warnings
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("sklearn")
import joblib
from perceptrons import KINDS, calm, samples, weights
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import roc_auc_score

import fastlayer.sklearn as ours
from fastlayer.sklearn import MLPClassifier, MLPRegressor

ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]
IRIS = load_iris(return_X_y=True)


def digits(classes):
    """The first digits of so many classes."""
    x, y = samples("digits")
    return x[y < classes], y[y < classes]


def made(kind, **parameters):
    return getattr(ours, kind)(**{"random_state": 1, **parameters})


# --- what is computed


def test_more_alpha_makes_smaller_weights():
    sums = []
    for alpha in (0, 1, 10):
        clf = made("MLPClassifier", hidden_layer_sizes=8, alpha=alpha, max_iter=100)
        calm(clf.fit, *digits(2))
        sums.append([abs(w).sum() for w in clf.coefs_])
    assert all(np.greater(a, b).all() for a, b in pairwise(sums))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("alpha", [0, 0.5])
@pytest.mark.parametrize("target", [0, 1])
def test_a_first_step_that_is_worked_out(alpha, target):
    """One sample, logistic, plain steps: weights less the rate times the slopes, by the chain rule."""
    x, y = np.array([[1.0, -0.5]]), np.array([target])
    clf = made("MLPClassifier", hidden_layer_sizes=3, activation="logistic", solver="sgd")
    clf.set_params(momentum=0, learning_rate_init=0.25, alpha=alpha)
    clf.partial_fit(x, y, classes=[0, 1])
    clf.coefs_ = [np.array([[0.5, -1.0, 0.25], [0.0, 2.0, 1.0]]), np.array([[1.0], [-0.5], [0.75]])]
    clf.intercepts_ = [np.array([0.1, 0.2, -0.3]), np.array([-0.4])]
    w, v, a, b = (np.array(p) for p in weights(clf))

    h = sigmoid(x @ w + a)
    p = sigmoid(h @ v + b)
    at_output = p - y
    at_hidden = at_output @ v.T * h * (1 - h)
    expected = [
        w - 0.25 * (x.T @ at_hidden + alpha * w),
        v - 0.25 * (h.T @ at_output + alpha * v),
        a - 0.25 * at_hidden[0],
        b - 0.25 * at_output[0],
    ]
    clf.partial_fit(x, y)
    for found, wanted in zip(weights(clf), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-14)
    loss = -np.log(p if target else 1 - p).item() + alpha / 2 * ((w**2).sum() + (v**2).sum())
    assert clf.loss_ == pytest.approx(loss, rel=1e-14)
    after = sigmoid(sigmoid(x @ expected[0] + expected[2]) @ expected[1] + expected[3])
    np.testing.assert_allclose(clf.predict_proba(x)[:, 1:], after, rtol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["two", "three", "labels", "number", "numbers"])
def test_a_step_goes_down_the_slope_of_the_loss(kind, activation):
    """The step of plain sgd is the slope of what it says of the loss, which differences give.

    Central ones, of 1e-5: an error of its square, and rounding of 1e-16 / 1e-5. Of several numbers the
    loss is the mean, and the slope that of the sum.
    """
    rng = np.random.RandomState(0)
    x = rng.uniform(size=(6, 4))
    y = {
        "two": np.array([0, 1, 1, 0, 1, 0]),
        "three": np.array([0, 1, 2, 0, 1, 2]),
        "labels": rng.randint(0, 2, (6, 3)),
        "number": rng.uniform(size=6),
        "numbers": rng.uniform(size=(6, 3)),
    }[kind]
    name = KINDS[kind.startswith("number")]
    first = (
        {}
        if name == "MLPRegressor"
        else {"classes": range(len(y.T) if y.ndim > 1 else y.max() + 1)}
    )
    est = made(
        name, hidden_layer_sizes=5, activation=activation, solver="sgd", momentum=0, alpha=0.3
    )
    est.set_params(learning_rate_init=1e-3).partial_fit(x, y, **first)
    before = [np.array(w) for w in weights(est)]

    def put(arrays):
        est.coefs_, est.intercepts_ = [w.copy() for w in arrays[:2]], [w.copy() for w in arrays[2:]]

    def loss(arrays):
        put(arrays)
        return est.partial_fit(x, y).loss_  # of before the step

    put(before)
    est.partial_fit(x, y)
    step = [(w - v) / 1e-3 for w, v in zip(before, weights(est), strict=True)]
    outputs = 3 if kind == "numbers" else 1
    penalty = [0.3 / 6 * w if w.ndim == 2 else 0.0 for w in before]
    for i, array in enumerate(before):
        slope = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            moved = [[w.copy() for w in before] for _ in range(2)]
            for arrays, d in zip(moved, (1e-5, -1e-5), strict=True):
                arrays[i][at] += d
            slope[at] = (loss(moved[0]) - loss(moved[1])) / 2e-5
        wanted = (slope - penalty[i]) * outputs + penalty[i]
        np.testing.assert_allclose(step[i], wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_without_shuffling_the_order_is_that_of_the_samples(kind):
    x, y = samples("cancer")
    same, other = (
        [made(kind, hidden_layer_sizes=2, shuffle=s) for _ in range(2)] for s in (True, False)
    )
    found = []
    for one, two in (same, other):
        for est in (one, two):
            calm(est.set_params(max_iter=1, batch_size=1).fit, x[:40], y[:40])
        np.testing.assert_array_equal(one.coefs_[0], two.coefs_[0])
        found.append(one.coefs_[0])
    assert not np.array_equal(*found)


# --- lbfgs


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("classes", [2, 3])
def test_lbfgs_learns_classes(classes, activation):
    x, y = digits(classes)
    half = len(x) // 2
    clf = made("MLPClassifier", solver="lbfgs", hidden_layer_sizes=20, activation=activation)
    clf.fit(x[:half], y[:half])
    found = clf.predict(x[half:])
    assert (found.shape, found.dtype) == (y[half:].shape, y.dtype)
    assert clf.score(x[:half], y[:half]) > 0.95
    assert np.mean(found == y[half:]) > 0.85


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_lbfgs_learns_numbers(activation):
    """More than a line gives, where the hidden layer bends."""
    x, y = samples("diabetes")
    x, y = x[:150], y[:150]
    reg = made("MLPRegressor", solver="lbfgs", activation=activation, hidden_layer_sizes=50)
    calm(reg.fit, x, y)
    line = np.linalg.lstsq(np.c_[x, np.ones(150)], y, rcond=None)[1].item()
    line = 1 - line / ((y - y.mean()) ** 2).sum()
    if activation == "identity":
        assert reg.score(x, y) == pytest.approx(line, abs=1e-3)
    else:
        assert reg.score(x, y) > 0.98 > line + 0.2


def test_lbfgs_learns_several_numbers():
    x, y = samples("outputs")
    reg = made("MLPRegressor", solver="lbfgs", hidden_layer_sizes=30, tol=1e-3)
    calm(reg.fit, x, y)
    assert reg.predict(x).shape == y.shape
    assert reg.score(x, y) > 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_max_fun_ends_lbfgs(kind, activation):
    est = made(kind, solver="lbfgs", max_fun=7, tol=0.0, activation=activation)
    with pytest.warns(ConvergenceWarning):
        est.fit(*digits(3))
    assert 0 < est.n_iter_ <= 7


# --- learning rates


@pytest.mark.parametrize("rate", ["constant", "invscaling"])
def test_the_learning_rate_after_a_warm_start(rate):
    """By the step of a bias whose slope is worked out: twice 4 samples were seen before the third call."""
    x, y = np.array([[3.0, 2], [1, 6], [5, 6], [-2, -4]]), np.array([1, 1, 1, 0])
    clf = made("MLPClassifier", solver="sgd", hidden_layer_sizes=4, learning_rate=rate, momentum=0)
    clf.set_params(power_t=0.25, warm_start=True, max_iter=1, learning_rate_init=0.1)
    for _ in range(2):
        calm(clf.fit, x, y)
    assert clf.t_ == 8
    bias, slope = clf.intercepts_[1].item(), np.mean(clf.predict_proba(x)[:, 1] - y)
    clf.partial_fit(x, y)
    expected = 0.1 if rate == "constant" else 0.1 / 9**0.25
    assert (bias - clf.intercepts_[1].item()) / slope == pytest.approx(expected, rel=1e-10)


def test_the_adaptive_rate_ends_the_training_where_it_is_too_small(capsys):
    """Five times smaller, each time that two epochs were no better; from 0.001 to below 1e-6."""
    clf = made("MLPClassifier", tol=0.5, max_iter=3000, solver="sgd", learning_rate="adaptive")
    clf.set_params(n_iter_no_change=1, verbose=True).fit([[3, 2], [1, 6]], [1, 0])
    told = capsys.readouterr().out
    rates = [float(r) for r in re.findall(r"learning rate to (\S+)", told)]
    assert rates == [round(0.001 / 5**i, 6) for i in range(1, 6)]
    assert told.count("Learning rate too small. Stopping.") == 1
    assert clf.n_iter_ < 3000


# --- partial_fit


@pytest.mark.parametrize("classes", [2, 3])
def test_partial_fit_of_classes_gives_what_fit_gives(classes):
    x, y = digits(classes)
    parameters = {"solver": "sgd", "learning_rate_init": 0.2, "hidden_layer_sizes": 20}
    whole = made("MLPClassifier", max_iter=60, tol=0, **parameters)
    calm(whole.fit, x, y)
    parts = made("MLPClassifier", **parameters)
    for _ in range(60):
        parts.partial_fit(x, y, classes=np.unique(y))
    np.testing.assert_array_equal(whole.predict(x), parts.predict(x))
    assert parts.score(x, y) > 0.95


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_partial_fit_of_numbers_gives_what_fit_gives(momentum):
    """To rounding: sums over one batch are taken in another order, and of 442 samples."""
    x, y = samples("diabetes")
    parameters = {"solver": "sgd", "learning_rate_init": 0.01, "batch_size": len(x)}
    parameters |= {"momentum": momentum, "hidden_layer_sizes": 10}
    whole = made("MLPRegressor", max_iter=100, **parameters)
    calm(whole.fit, x, y)
    parts = made("MLPRegressor", **parameters)
    for _ in range(100):
        parts.partial_fit(x, y)
    np.testing.assert_allclose(whole.predict(x), parts.predict(x), rtol=1e-7, atol=1e-10)
    assert parts.score(x, y) > 0.15


def test_labels_learned_in_parts():
    x, y = samples("labels")
    parts = made("MLPClassifier", solver="sgd", learning_rate_init=0.2, activation="logistic")
    for _ in range(200):
        parts.partial_fit(x, y, classes=np.arange(4))
    assert parts.score(x, y) > 0.8
    whole = made("MLPClassifier", solver="lbfgs", activation="logistic").fit(x, y)
    assert whole.score(x, y) > 0.97
    held = made("MLPClassifier", early_stopping=True, max_iter=30)
    assert calm(held.fit, x, y).predict(x).shape == y.shape  # nothing to stratify by


def test_classes_that_come_later():
    clf = made("MLPClassifier")
    clf.partial_fit([[1], [2], [3]], ["p", "q", "r"], classes=["p", "q", "r", "s"])
    for _ in range(100):
        clf.partial_fit([[4]], ["s"])
    assert clf.predict([[4]]) == ["s"]


def test_what_partial_fit_refuses():
    x, y = [[3, 2], [1, 6]], [1, 0]
    clf = made("MLPClassifier").partial_fit(x, y, classes=[0, 1])
    with pytest.raises(ValueError, match="is not the same as on last call"):
        clf.partial_fit(x, y, classes=[1, 2])
    with pytest.raises(ValueError, match="classes not in"):
        made("MLPClassifier").partial_fit(x, y, classes=[2])


@pytest.mark.parametrize("kind", KINDS)
def test_no_partial_fit_with_lbfgs(kind):
    """Also for numbers, where scikit-learn has it by mistake."""
    est = made(kind, solver="lbfgs")
    assert not hasattr(est, "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit"):
        est.partial_fit([[0]], [0])
    assert hasattr(est.set_params(solver="sgd"), "partial_fit")


@pytest.mark.parametrize("kind", KINDS)
def test_no_partial_fit_after_early_stopping(kind):
    est = made(kind, early_stopping=True, max_iter=20)
    calm(est.fit, *IRIS)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        est.partial_fit(*IRIS)


def test_partial_fit_after_joblib(tmp_path):
    reg = made("MLPRegressor", hidden_layer_sizes=20, learning_rate_init=0.01)
    calm(reg.fit, [[2]], [4])
    joblib.dump(reg, tmp_path / "reg")
    loaded = joblib.load(tmp_path / "reg")
    before = loaded.predict([[2]])
    assert before == reg.predict([[2]])
    for _ in range(300):
        loaded.partial_fit([[2]], [1])
    assert loaded.predict([[2]]) == pytest.approx([1], rel=1e-3)
    assert reg.predict([[2]]) == before


# --- probabilities


@pytest.mark.parametrize("name", ["cancer", "digits", "labels"])
def test_probabilities_and_their_logarithms(name):
    x, y = samples(name)
    clf = made("MLPClassifier", hidden_layer_sizes=20, max_iter=60, learning_rate_init=0.01)
    calm(clf.fit, x, y)
    p = clf.predict_proba(x)
    assert p.shape == (len(x), len(clf.classes_))
    np.testing.assert_allclose(clf.predict_log_proba(x), np.log(p), rtol=1e-15)
    if name == "labels":
        np.testing.assert_array_equal(clf.predict(x), p > 0.5)
        assert np.ptp(p.sum(axis=1)) > 0.1
    else:
        np.testing.assert_array_equal(clf.classes_[p.argmax(axis=1)], clf.predict(x))
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    if name == "cancer":
        assert roc_auc_score(y, p[:, 1]) > 0.99


# --- samples


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix])
def test_sparse_samples(form):
    x, y = digits(2)
    clf = made("MLPClassifier", solver="lbfgs", hidden_layer_sizes=15)
    found = clf.fit(x, y).predict(x)
    np.testing.assert_array_equal(clf.predict(form(x)), found)
    np.testing.assert_array_equal(clf.fit(form(x), y).predict(form(x)), found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_that_of_the_samples(kind, dtype):
    x, y = samples("digits", dtype)
    est = made(kind, hidden_layer_sizes=(5, 3), max_iter=20)
    calm(est.fit, x, y)
    assert {w.dtype for w in weights(est)} == {np.dtype(dtype)}
    assert est.predict(x).dtype == (y.dtype if kind == "MLPClassifier" else dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_close_to_float64(kind):
    """2^-24 of rounding, through 30 epochs."""
    found = []
    for dtype in (np.float32, np.float64):
        x, y = samples("digits", dtype)
        est = made(kind, hidden_layer_sizes=(5, 3), max_iter=30)
        calm(est.fit, x[:200], y[:200])
        found.append(est.predict_proba(x) if kind == "MLPClassifier" else est.predict(x))
    np.testing.assert_allclose(*found, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_features_are_no_reason_to_warn(kind):
    pd = pytest.importorskip("pandas")
    x = pd.DataFrame(np.random.RandomState(0).randn(20, 2), columns=["height", "width"])
    y = pd.Series(np.arange(20) % 2, name="which")
    est = made(kind, early_stopping=True, validation_fraction=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        calm(est.fit, x, y)
    assert [*est.feature_names_in_] == ["height", "width"]


# --- ends


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_score_ends_the_training(kind):
    x, y = digits(2)
    est = made(kind, tol=0.2, max_iter=3000, solver="sgd", early_stopping=True)
    est.fit(x, y)
    assert est.n_iter_ < 3000
    assert est.best_loss_ is None
    assert isinstance(est.validation_scores_, list)
    assert max(est.validation_scores_) == est.best_validation_score_
    assert max(est.validation_scores_[-2:]) < est.best_validation_score_ + 0.2
    est.set_params(early_stopping=False).fit(x, y)
    assert est.validation_scores_ is None
    assert est.best_validation_score_ is None
    assert est.best_loss_ == min(est.loss_curve_)


@pytest.mark.parametrize("epochs", [1, 2, 5, 50])
def test_epochs_without_getting_better(epochs):
    """The first is better than nothing, and none after it is by so much: one more than are allowed ends it."""
    clf = made("MLPClassifier", tol=1e9, max_iter=3000, solver="sgd", n_iter_no_change=epochs)
    clf.fit([[3, 2], [1, 6]], [1, 0])
    assert clf.n_iter_ == epochs + 2


def test_any_number_of_epochs_without_getting_better():
    clf = made("MLPClassifier", tol=1e9, max_iter=300, solver="sgd", n_iter_no_change=np.inf)
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(300\) reached"):
        clf.fit([[3, 2], [1, 6]], [1, 0])
    assert clf.n_iter_ == 300


def test_what_is_held_back_has_samples_of_each_class():
    clf = made("MLPClassifier", early_stopping=True)
    with pytest.raises(ValueError, match=r"only 1 member"):
        clf.fit([[1, 2], [2, 3], [3, 4], [4, 5]], [0, 0, 0, 1])


def test_too_few_are_held_back():
    with pytest.raises(ValueError, match="The validation set is too small"):
        made("MLPRegressor", early_stopping=True).fit(IRIS[0][48:52], IRIS[1][48:52])


def test_scores_of_labels_that_are_strings():
    x, y = samples("strings")
    clf = made("MLPClassifier", early_stopping=True, max_iter=20)
    calm(clf.fit, x, y.astype(object))
    assert len(clf.validation_scores_) == clf.n_iter_
    assert np.isfinite(clf.validation_scores_).all()
    assert clf.score(x, y) > 0.9


@pytest.mark.parametrize("early_stopping", [True, False])
def test_what_diverges(early_stopping):
    """Scores of NaN, and the weights of an epoch that had none."""
    reg = made("MLPRegressor", activation="identity", solver="sgd", learning_rate_init=10.0)
    reg.set_params(max_iter=20, early_stopping=early_stopping)
    if early_stopping:
        with np.errstate(over="ignore"):  # of r2_score
            calm(reg.fit, *IRIS)
        assert isinstance(reg.validation_scores_[-1], float)
        assert np.isnan(reg.validation_scores_[-1])
        assert all(np.isfinite(w).all() for w in weights(reg))
    else:
        with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
            calm(reg.fit, *IRIS)


def test_a_classifier_that_diverges_has_scores_of_nan():
    clf = made("MLPClassifier", activation="identity", solver="sgd", learning_rate_init=1e250)
    clf.set_params(early_stopping=True, max_iter=5)
    calm(clf.fit, *IRIS)
    assert np.isnan(clf.validation_scores_).any()
    assert all(np.isfinite(w).all() for w in weights(clf))


def test_numbers_that_are_too_large():
    rng = np.random.RandomState(0)
    x = np.finfo(np.float64).max * rng.uniform(size=(10, 2))
    with pytest.raises(ValueError, match="may contain large values and need to be preprocessed"):
        calm(made("MLPRegressor").fit, x, rng.standard_normal(10))


def test_what_is_printed_in_parts(capsys):
    clf = made("MLPClassifier", solver="sgd", max_iter=2, verbose=10)
    calm(clf.fit, [[3, 2], [1, 6]], [1, 0])
    assert [*re.findall("Iteration (.), loss", capsys.readouterr().out)] == ["1", "2"]
    clf.partial_fit([[3, 2], [1, 6]], [1, 0])
    assert "Iteration 1, loss = " in capsys.readouterr().out


def test_what_lbfgs_prints(capsys):
    clf = made("MLPClassifier", solver="lbfgs", max_iter=4, verbose=True)
    calm(clf.fit, *digits(2))
    told = re.findall(r"Iteration (\d), loss = (\S+)", capsys.readouterr().out)
    assert [i for i, _ in told] == ["1", "2", "3", "4"]
    assert float(told[-1][1]) == pytest.approx(clf.loss_, abs=1e-8)


# --- warm starts


def solver_of(epochs, **parameters):
    return {"max_iter": epochs, "warm_start": True, "random_state": 0, **parameters}


def test_a_warm_start_has_the_same_classes():
    x, y = IRIS
    clf = MLPClassifier(**solver_of(30, solver="lbfgs", hidden_layer_sizes=2))
    for target in (y, y, np.repeat([0, 1, 2], [40, 50, 60])):
        calm(clf.fit, x, target)
    for other in (y // 2, np.repeat([0, 1, 3], 50), np.arange(150) % 4):
        told = f"Previously got [0 1 2], `y` has {np.unique(other)}"
        with pytest.raises(ValueError, match=re.escape(told)):
            clf.fit(x, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_a_warm_start_has_all_its_epochs(kind, solver):
    est = made(kind, **solver_of(5, solver=solver, n_iter_no_change=np.inf))
    for epochs in (5, 5, 9):
        with pytest.warns(ConvergenceWarning):
            est.set_params(max_iter=epochs).fit(*IRIS)
        assert est.n_iter_ == epochs


@pytest.mark.parametrize("kind", KINDS)
def test_scores_go_on_with_a_warm_start(kind):
    est = made(kind, **solver_of(5, early_stopping=True))
    calm(est.fit, *IRIS)
    before = [*est.validation_scores_]
    calm(est.fit, *IRIS)
    assert est.validation_scores_[: len(before)] == before
    assert len(est.validation_scores_) == len(before) + est.n_iter_


# --- weights of samples, counts


@pytest.mark.parametrize("early_stopping", [False, True])
def test_weights_of_1_are_no_weights(early_stopping):
    x, y = samples("diabetes")
    reg = MLPRegressor(
        **solver_of(30, early_stopping=early_stopping, batch_size=30, warm_start=False)
    )
    calm(reg.fit, x, y, sample_weight=np.ones(len(y)))
    weighed = reg.predict(x)
    calm(reg.fit, x, y)
    np.testing.assert_allclose(weighed, reg.predict(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_network_of_one_neuron_is_a_poisson_regression(seed):
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, 100)[:, None]
    y = rng.poisson(np.exp(x[:, 0] + 1))
    wanted = PoissonRegressor(alpha=0, tol=1e-8).fit(x, y).predict(x)
    parameters = {"hidden_layer_sizes": 1, "activation": "identity", "alpha": 0, "tol": 1e-7}
    reg = MLPRegressor(loss="poisson", solver="lbfgs", random_state=seed, **parameters).fit(x, y)
    np.testing.assert_allclose(reg.predict(x), wanted, rtol=1e-4)  # as far as both go down
    line = MLPRegressor(solver="lbfgs", random_state=seed, **parameters).fit(x, y)
    assert not np.allclose(line.predict(x), wanted, rtol=1e-2)
