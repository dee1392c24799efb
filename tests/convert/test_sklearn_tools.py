"""Stand-ins of `from_sklearn` among scikit-learn's own tools, and in front of tables."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from helpers import assert_same_bits

import fastlayer as fl

sklearn = pytest.importorskip("sklearn")
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
)
from sklearn.metrics import get_scorer
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

try:
    from sklearn.frozen import FrozenEstimator
except ImportError:  # before scikit-learn 1.6
    FrozenEstimator = None


def data():
    x = np.random.default_rng(7).normal(size=(90, 3)) * [1, 3, 0.5]
    return x, x @ np.array([1.0, -0.5, 1.0])


def fit(model, classes=None):
    """A fitted model, its stand-in, and their data."""
    x, y = data()
    if classes:
        y = np.array(classes)[
            np.digitize(y, np.quantile(y, np.arange(1, len(classes)) / len(classes)))
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y if not isinstance(model, PoissonRegressor) else np.exp(y))
    return model, fl.from_sklearn(model), x, y


TWO, THREE = ("no", "yes"), ("a", "b", "c")
CLASSIFIERS = {
    "LogisticRegression": (lambda: LogisticRegression(), TWO),
    "LogisticRegression, three": (lambda: LogisticRegression(), THREE),
    "LinearSVC": (lambda: make_pipeline(StandardScaler(), LinearSVC()), TWO),
    "MLPClassifier": (
        lambda: MLPClassifier(hidden_layer_sizes=(5,), max_iter=20, random_state=0),
        TWO,
    ),
    "MLPClassifier, three": (
        lambda: MLPClassifier(hidden_layer_sizes=(5,), max_iter=20, random_state=0),
        THREE,
    ),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scorers_of_classifiers(name):
    make, classes = CLASSIFIERS[name]
    model, standin, x, y = fit(make(), classes)
    names = ["accuracy", "f1_macro", "balanced_accuracy"]
    if classes is TWO:
        names.append("roc_auc")
    if hasattr(model, "predict_proba"):
        names += ["neg_log_loss", "roc_auc_ovr"]
    for scorer in names:
        ours, theirs = (get_scorer(scorer)(one, x, y) for one in (standin, model))
        assert ours == pytest.approx(theirs, rel=1e-12)
    assert standin.score(x, y) == model.score(x, y)


@pytest.mark.parametrize("scorer", ["r2", "neg_mean_squared_error", "neg_median_absolute_error"])
def test_scorers_of_regressors(scorer):
    model, standin, x, y = fit(MLPRegressor(hidden_layer_sizes=(5,), max_iter=20, random_state=0))
    ours, theirs = (get_scorer(scorer)(one, x, y) for one in (standin, model))
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_score_of_what_has_no_variance():
    model, standin, x, _ = fit(LinearRegression())
    y = np.ones(len(x))
    assert standin.score(x, y) == model.score(x, y) == 0
    assert standin.score(x, model.predict(x)) == 1
    same = np.zeros((2, 3))
    constant = fl.from_sklearn(LinearRegression().fit(same, [2.0, 2.0]))
    assert constant.score(same, [2.0, 2.0]) == 1
    for one in (model, standin):
        with pytest.warns(UserWarning, match="two samples"):
            assert np.isnan(one.score(x[:1], y[:1]))


def test_score_takes_targets_as_a_column_and_no_others():
    model, standin, x, y = fit(LogisticRegression(), TWO)
    assert standin.score(x, y[:, None]) == standin.score(x, list(y)) == model.score(x, y)
    for wrong in (y[:-1], np.stack([y, y], axis=1)):
        with pytest.raises(ValueError, match=r"score: y has shape"):
            standin.score(x, wrong)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_one(name):
    make, classes = CLASSIFIERS[name]
    model, standin, _, _ = fit(make(), classes)
    for one in (model, standin):
        check_is_fitted(one)
        assert is_classifier(one)
        assert not is_regressor(one)
        assert one.n_features_in_ == 3
    for method in ("predict_proba", "predict_log_proba", "decision_function"):
        assert hasattr(standin, method) == hasattr(model, method)


def test_a_regressor_is_one():
    _, standin, _, _ = fit(PoissonRegressor())
    check_is_fitted(standin)
    assert is_regressor(standin)
    assert not is_classifier(standin)
    assert not hasattr(standin, "predict_proba")


def test_tags_tell_several_targets():
    tags = getattr(sklearn.utils, "get_tags", None)
    if tags is None:
        pytest.skip("scikit-learn has no get_tags before 1.6")
    x, y = data()
    several = LinearRegression().fit(x, np.stack([y, -y], axis=1))
    labels = RidgeClassifier().fit(x, np.stack([y > 0, x[:, 0] > 0], axis=1))
    assert tags(fl.from_sklearn(several)).target_tags.multi_output
    assert not tags(fl.from_sklearn(Ridge().fit(x, y))).target_tags.multi_output
    assert tags(fl.from_sklearn(labels)).classifier_tags.multi_label


@pytest.mark.parametrize("scoring", [None, "accuracy", "roc_auc"])
def test_permutation_importance(scoring):
    model, standin, x, y = fit(LogisticRegression(), TWO)
    ours, theirs = (
        permutation_importance(one, x, y, scoring=scoring, n_repeats=3, random_state=0)
        for one in (standin, model)
    )
    np.testing.assert_allclose(ours.importances, theirs.importances, rtol=1e-12)


def test_permutation_importance_in_processes():
    model, standin, x, y = fit(make_pipeline(StandardScaler(), Ridge()))
    ours, theirs = (
        permutation_importance(one, x, y, n_repeats=2, random_state=0, n_jobs=2)
        for one in (standin, model)
    )
    np.testing.assert_allclose(ours.importances, theirs.importances, rtol=1e-9)


@pytest.mark.parametrize("classes", [None, TWO])
def test_partial_dependence(classes):
    estimator = (
        LogisticRegression() if classes else MLPRegressor(hidden_layer_sizes=(4,), max_iter=300)
    )
    model, standin, x, _ = fit(estimator, classes)
    ours, theirs = (
        partial_dependence(one, x, [0, 2], grid_resolution=4) for one in (standin, model)
    )
    np.testing.assert_allclose(ours.average, theirs.average, rtol=1e-9)


def test_displays():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    from sklearn.inspection import DecisionBoundaryDisplay, PartialDependenceDisplay

    x, y = data()
    model = LogisticRegression().fit(x[:, :2], y > 0)
    standin = fl.from_sklearn(model)
    ours, theirs = (
        DecisionBoundaryDisplay.from_estimator(one, x[:, :2], grid_resolution=9)
        for one in (standin, model)
    )
    np.testing.assert_allclose(ours.response, theirs.response, rtol=1e-9)
    PartialDependenceDisplay.from_estimator(standin, x[:, :2], [0])
    pyplot.close("all")


def frozen(standin):
    if FrozenEstimator is None:
        pytest.skip("scikit-learn has no FrozenEstimator before 1.6")
    return FrozenEstimator(standin)


def test_calibration_of_a_frozen_one():
    model, standin, x, y = fit(make_pipeline(StandardScaler(), LinearSVC()), TWO)
    ours, theirs = (
        CalibratedClassifierCV(frozen(one)).fit(x, y).predict_proba(x) for one in (standin, model)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_a_vote_of_frozen_ones():
    model, standin, x, y = fit(LogisticRegression(), (0, 1))
    other, second, _, _ = fit(
        MLPClassifier(hidden_layer_sizes=(4,), max_iter=20, random_state=0), (0, 1)
    )
    ours, theirs = (
        VotingClassifier([("a", frozen(a)), ("b", frozen(b))], voting="soft").fit(x, y)
        for a, b in ((standin, second), (model, other))
    )
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-9)


def test_a_stack_of_fitted_ones():
    model, standin, x, y = fit(LogisticRegression(), TWO)
    ours, theirs = (
        StackingClassifier([("a", one)], cv="prefit").fit(x, y).predict(x)
        for one in (standin, model)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_fitting_and_cloning_say_what_to_do():
    _, standin, x, y = fit(LogisticRegression(), TWO)
    with pytest.raises(TypeError, match=r"fit the estimator, and convert it with fl\.from_sklearn"):
        standin.fit(x, y)
    for call in (lambda: clone(standin), lambda: cross_val_score(standin, x, y)):
        with pytest.raises(TypeError, match=r"can't be cloned.*FrozenEstimator"):
            call()


def test_joblib():
    joblib = pytest.importorskip("joblib")
    _, standin, x, y = fit(make_pipeline(StandardScaler(), LogisticRegression()), THREE)
    file = io.BytesIO()
    joblib.dump(standin, file)
    again = joblib.load(io.BytesIO(file.getvalue()))
    assert_same_bits(again.predict_proba(x), standin.predict_proba(x))
    assert again.score(x, y) == standin.score(x, y)


def test_pickles_of_earlier_versions():
    """They have fewer attributes."""
    _, standin, x, _ = fit(LogisticRegression(), TWO)
    kept = ("network", "_flat", "_floats", "classes_", "_kind", "_by_scores", "_made")
    earlier = type(standin).__new__(type(standin))
    earlier.__dict__.update({name: vars(standin)[name] for name in kept})
    assert_same_bits(earlier.predict_proba(x), standin.predict_proba(x))
    assert_same_bits(earlier.decision_function(x), standin.decision_function(x))
    assert earlier.n_features_in_ == 3


def test_predicting_imports_no_scikit_learn():
    _, standin, x, y = fit(make_pipeline(StandardScaler(), LogisticRegression()), TWO)
    code = (
        "import pickle, sys\n"
        "standin, x, y = pickle.load(sys.stdin.buffer)\n"
        "standin.predict(x), standin.predict_log_proba(x), standin.decision_function(x)\n"
        "print(standin.score(x, y), 'sklearn' in sys.modules)\n"
    )
    import pickle

    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((standin, x, y)),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().split() == [str(standin.score(x, y)), "False"]


# ----------------------------------------------------------------------------- tables


def table(library, columns):
    module = pytest.importorskip(library)
    return (module.table if library == "pyarrow" else module.DataFrame)(columns)


def people(library):
    rng = np.random.default_rng(4)
    return table(
        library,
        {
            "name": [f"person {i}" for i in range(80)],
            "age": rng.integers(20, 60, 80),
            "pay": rng.normal(3e4, 1e4, 80),
            "city": rng.integers(0, 2, 80) > 0,
            "size": rng.normal(170, 9, 80),
        },
    )


NAMES = ["name", "age", "pay", "city", "size"]
COLUMNS = {
    "names": lambda: make_column_transformer(
        (StandardScaler(), ["pay", "age"]), ("passthrough", ["city"]), (MinMaxScaler(), ["size"])
    ),
    "numbers": lambda: make_column_transformer(
        (StandardScaler(), [2, 1]), ("drop", [0]), remainder="passthrough"
    ),
    "projections": lambda: make_column_transformer(
        (PCA(1), ["pay", "age"]),
        ("passthrough", ["city", "size"]),
    ),
    "slice": lambda: make_column_transformer((StandardScaler(), slice("age", "size"))),
}


@pytest.fixture(params=["pandas", "polars"])
def frame(request):
    return people(request.param)


@pytest.mark.parametrize("how", ["plain", "nested", "targets"])
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_found_by_name(frame, name, how):
    y = np.asarray(frame["pay"]) * 1e-3 + np.asarray(frame["age"])
    pipe = make_pipeline(
        COLUMNS[name](), MLPRegressor(hidden_layer_sizes=(4,), max_iter=300, random_state=0)
    )
    if how == "nested":
        pipe = make_pipeline("passthrough", pipe)
    if how == "targets":
        pipe = TransformedTargetRegressor(pipe, transformer=StandardScaler())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = pipe.fit(frame, y)
    standin = fl.from_sklearn(model)
    assert list(standin.feature_names_in_) == NAMES
    assert standin.n_features_in_ == 5
    expected = standin.predict(frame)
    np.testing.assert_allclose(expected, model.predict(frame), rtol=1e-10)
    for order in (NAMES[::-1], NAMES[1:], ["size", "city", "pay", "age"]):
        np.testing.assert_allclose(model.predict(frame[order]), expected, rtol=1e-10)
        assert_same_bits(standin.predict(frame[order]), expected)
        assert_same_bits(standin(frame[order])[:, 0], expected)
    for one in (model, standin):
        with pytest.raises(ValueError, match="'pay'"):
            one.predict(frame[["name", "age", "city", "size"]])


def test_columns_of_a_table_given_as_an_array():
    frame = people("pandas")
    numbers = frame[NAMES[1:]].astype(float)
    transformer = ColumnTransformer([("a", StandardScaler(), [3, 0])])
    model = make_pipeline(transformer, Ridge()).fit(numbers, numbers["pay"])
    standin = fl.from_sklearn(model)
    with pytest.warns(UserWarning, match="feature names"):
        ours = standin.predict(numbers.to_numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(ours, model.predict(numbers.to_numpy()), rtol=1e-12)
        for one in (model, standin):
            with pytest.raises(ValueError, match=r"3"):
                one.predict(numbers.to_numpy()[:, :3])


def test_a_union_of_columns():
    frame = people("pandas")[NAMES[1:]].astype(float)
    model = make_pipeline(
        FeatureUnion([("a", COLUMNS["names"]()), ("b", StandardScaler())]), Ridge()
    ).fit(frame, frame["pay"])
    standin = fl.from_sklearn(model)
    np.testing.assert_allclose(standin.predict(frame), model.predict(frame), rtol=1e-10)
    for one in (model, standin):
        with pytest.raises(ValueError, match="feature names"):
            one.predict(frame[NAMES[:0:-1]])


def test_columns_by_name_are_not_tried_without_a_table(monkeypatch):
    frame = people("pandas")
    model = make_pipeline(COLUMNS["names"](), Ridge()).fit(frame, frame["pay"])
    for library in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(fl.ConversionError, match=r"pandas or polars.*verify=False"):
        fl.from_sklearn(model)
    standin = fl.from_sklearn(model, verify=False)
    monkeypatch.undo()
    np.testing.assert_allclose(standin.predict(frame), model.predict(frame), rtol=1e-10)


def test_scalers_in_front_of_columns_want_the_order_of_the_training_data():
    frame = people("pandas")[NAMES[1:]].astype(float)
    model = make_pipeline(
        StandardScaler(), ColumnTransformer([("a", "passthrough", [0, 3])]), Ridge()
    ).fit(frame, frame["pay"])
    standin = fl.from_sklearn(model)
    for one in (model, standin):
        with pytest.raises(ValueError, match="feature names"):
            one.predict(frame[NAMES[:0:-1]])
