"""`fastlayer.sklearn` among scikit-learn's tools, and without it."""

from __future__ import annotations

from inspect import signature

import numpy as np
import pytest

pytest.importorskip("sklearn")
import joblib
import sklearn
from own_process import finish, run_python
from perceptrons import KINDS, VERSION, assert_same_weights, calm, samples
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import fastlayer as fl
import fastlayer.sklearn as ours

QUIET = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
NAMES = {"MLPClassifier": "cancer", "MLPRegressor": "diabetes"}


def made(kind, **parameters):
    given = {"hidden_layer_sizes": 8, "max_iter": 30, "learning_rate_init": 0.01, "random_state": 0}
    return getattr(ours, kind)(**{**given, **parameters})


def data(kind):
    return samples(NAMES[kind])


@pytest.mark.filterwarnings("ignore")  # the checks make what is warned of
@pytest.mark.parametrize("kind", KINDS)
def test_check_estimator(kind):
    """All of them, none of which is expected to fail."""
    results = check_estimator(getattr(ours, kind)())
    if VERSION >= (1, 6):
        counts = {r["check_name"]: r["status"] for r in results}
        assert len(counts) > 40
        assert {
            name for name, status in counts.items() if status not in ("passed", "skipped")
        } == set()


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_is(kind):
    est = made(kind)
    assert (is_classifier(est), is_regressor(est)) == (kind == KINDS[0], kind == KINDS[1])
    assert est.get_params().keys() == signature(type(est)).parameters.keys()
    assert est._repr_html_()


@pytest.mark.parametrize("kind", KINDS)
def test_clone(kind):
    est = made(kind, activation=["tanh"], schedule=fl.Schedule("cosine"))
    calm(est.fit, *data(kind))
    other = clone(est)
    assert repr(other.get_params()) == repr(est.get_params())
    assert not hasattr(other, "coefs_")
    with pytest.raises(NotFittedError):
        other.predict(data(kind)[0])
    calm(other.fit, *data(kind))
    assert_same_weights(est, other)


@QUIET
@pytest.mark.parametrize("kind", KINDS)
def test_in_a_pipeline(kind):
    x, y = data(kind)
    pipe = make_pipeline(StandardScaler(), made(kind))
    found = pipe.fit(x * 50 + 3, y).predict(x * 50 + 3)
    wanted = made(kind).fit(StandardScaler().fit_transform(x * 50 + 3), y)
    np.testing.assert_array_equal(found, wanted.predict(StandardScaler().fit_transform(x * 50 + 3)))
    assert pipe.score(x * 50 + 3, y) > 0.4


@pytest.mark.thread_unsafe(reason="starts processes")
@QUIET
@pytest.mark.parametrize("kind", KINDS)
def test_a_grid_search_in_two_processes(kind, monkeypatch):
    """The same estimator as in one; what the workers warn of is theirs."""
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    x, y = data(kind)
    grid = {"alpha": [1e-4, 1.0], "activation": ["tanh", ["gelu"]]}
    with joblib.parallel_backend("loky"):
        two = GridSearchCV(made(kind), grid, cv=3, n_jobs=2).fit(x, y)
    one = GridSearchCV(made(kind), grid, cv=3).fit(x, y)
    np.testing.assert_array_equal(
        two.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"]
    )
    assert two.best_params_ == one.best_params_
    assert_same_weights(two.best_estimator_, one.best_estimator_)


@QUIET
@pytest.mark.parametrize("kind", KINDS)
def test_cross_val_score(kind):
    x, y = data(kind)
    found = cross_val_score(made(kind), x, y, cv=3)
    third = len(x) // 3
    assert found.shape == (3,)
    assert found.min() > (0.9 if kind == "MLPClassifier" else 0.3)
    if kind == "MLPRegressor":  # whose folds are in order
        last = made(kind).fit(x[: len(x) - third], y[: len(x) - third])
        assert found[2] == last.score(x[-third:], y[-third:])


@pytest.mark.parametrize("kind", KINDS)
def test_permutation_importance(kind):
    """Of a feature that is all there is to know, and one that is nothing."""
    x = np.random.RandomState(0).uniform(-1, 1, (200, 2))
    y = x[:, 0] if kind == "MLPRegressor" else x[:, 0] > 0
    est = made(kind, max_iter=100)
    calm(est.fit, x, y)
    found = permutation_importance(est, x, y, n_repeats=3, random_state=0).importances_mean
    assert found[0] > 0.3
    assert abs(found[1]) < 0.05


@QUIET
def test_calibrated():
    x, y = data("MLPClassifier")
    clf = CalibratedClassifierCV(made("MLPClassifier"), cv=3).fit(x, y)
    np.testing.assert_allclose(clf.predict_proba(x).sum(axis=1), 1)
    assert clf.score(x, y) > 0.95


@QUIET
def test_other_meta_estimators():
    x, y = data("MLPRegressor")
    reg = TransformedTargetRegressor(made("MLPRegressor"), transformer=StandardScaler())
    assert reg.fit(x, 100 * y + 7).score(x, 100 * y + 7) > 0.4
    x, y = data("MLPClassifier")
    assert BaggingClassifier(made("MLPClassifier"), 3, random_state=0).fit(x, y).score(x, y) > 0.95


# --- tables


def table(library, x, names):
    module = pytest.importorskip(library)
    return module.DataFrame({n: x[:, i] for i, n in enumerate(names)})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_tables(kind, library):
    x, y = data(kind)
    x = x[:, :4]
    est, plain = made(kind), made(kind)
    frame = table(library, x, "abcd")
    calm(est.fit, frame, y)
    calm(plain.fit, x, y)
    assert_same_weights(est, plain)
    assert [*est.feature_names_in_] == [*"abcd"]
    np.testing.assert_array_equal(est.predict(frame), plain.predict(x))
    assert not hasattr(plain, "feature_names_in_")
    for wrong in ("abdc", "abcx"):
        with pytest.raises(ValueError, match="feature names should match those that were passed"):
            est.predict(table(library, x, wrong))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        est.predict(x)
    est.partial_fit(frame, y)
    with pytest.raises(ValueError, match="feature names should match"):
        est.partial_fit(table(library, x, "badc"), y)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_targets(library):
    module = pytest.importorskip(library)
    x, y = samples("strings")
    clf, plain = made("MLPClassifier"), made("MLPClassifier")
    calm(clf.fit, x, module.Series("which", y) if library == "polars" else module.Series(y))
    calm(plain.fit, x, y)
    assert_same_weights(clf, plain)
    assert [*clf.classes_] == ["benign", "malignant"]


@QUIET
@pytest.mark.parametrize("kind", KINDS)
def test_set_output_around_it(kind):
    pd = pytest.importorskip("pandas")
    x, y = data(kind)
    pipe = Pipeline([("scale", StandardScaler()), ("net", made(kind))]).set_output(
        transform="pandas"
    )
    frame = pd.DataFrame(x[:, :3].copy(), columns=["u", "v", "w"])
    pipe.fit(frame, y)
    assert [*pipe["net"].feature_names_in_] == ["u", "v", "w"]
    assert isinstance(pipe.predict(frame), np.ndarray)


# --- sample_weight on its way


@QUIET
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("around", ["pipeline", "search"])
def test_sample_weight_is_routed(kind, around):
    x, y = data(kind)
    weight = np.random.RandomState(0).uniform(size=len(y))
    with sklearn.config_context(enable_metadata_routing=True):
        est = made(kind).set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        if around == "pipeline":
            fitted = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), est)
            found = fitted.fit(x, y, sample_weight=weight)[-1]
            x = StandardScaler().fit_transform(x)
        else:
            search = GridSearchCV(est, {"alpha": [1e-4]}, cv=2)
            found = search.fit(x, y, sample_weight=weight).best_estimator_
    wanted = made(kind).fit(x, y, sample_weight=weight)
    assert_same_weights(found, wanted)
    assert found.loss_ != made(kind).fit(x, y).loss_


@pytest.mark.parametrize("kind", KINDS)
def test_sample_weight_that_nobody_asked_for(kind):
    x, y = data(kind)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(made(kind), {"alpha": [1e-4]}, cv=2)
        with pytest.raises(ValueError, match="sample_weight"):
            search.fit(x, y, sample_weight=np.ones(len(y)))


# --- files


@pytest.mark.parametrize("kind", KINDS)
def test_joblib(kind, tmp_path):
    x, y = data(kind)
    est = made(kind)
    calm(est.fit, x, y)
    joblib.dump(est, tmp_path / "est.joblib", compress=3)
    loaded = joblib.load(tmp_path / "est.joblib")
    np.testing.assert_array_equal(loaded.predict(x), est.predict(x))
    np.testing.assert_array_equal(loaded.network(x), est.network(x))


# --- without scikit-learn


def test_fastlayer_does_not_import_scikit_learn():
    code = (
        "import sys, fastlayer; print(*(m in sys.modules for m in ('sklearn', 'scipy', 'joblib')))"
    )
    assert run_python(code) == "False False False"


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_without_scikit_learn(name):
    code = "import sys; sys.modules['sklearn'] = None\n"
    done = finish(code + f"from fastlayer.sklearn import {name}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: fastlayer.sklearn needs scikit-learn 1.5 or later: "
        "pip install 'fastlayer-nn[sklearn]'"
    )
    assert run_python(code + "import fastlayer; print(fastlayer.Layer(2, 1).in_features)") == "2"
