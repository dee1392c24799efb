"""Each model and each transformer that `from_sklearn` takes, against scikit-learn itself."""

from __future__ import annotations

import pickle
import warnings
from inspect import signature

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import assert_round_trips

import fastlayer as fl

pytest.importorskip("sklearn")
import sklearn.linear_model as linear
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA, FactorAnalysis, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import (
    RFE,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
    f_regression,
)
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from sklearn.svm import LinearSVC, LinearSVR

FLOATS = [np.float32, np.float64]
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


def data(dtype=np.float64, rows=80):
    rng = np.random.default_rng(5)
    return (rng.standard_normal((rows, 6)) * [1, 4, 0.3, 2, 1, 1] + [0, 3, 1, -2, 0, 5]).astype(
        dtype
    )


def targets(kind, x):
    score = x @ np.array([1.0, 0.4, 2.0, -1.0, 0.0, 0.5])
    return {
        "two": np.where(score > np.median(score), "yes", "no"),
        "three": np.digitize(score, np.quantile(score, [0.3, 0.7])) * 10 - 7,
        "labels": np.stack([score > 4, x[:, 1] > 3, x[:, 3] > -2], axis=1).astype(int),
        "number": score,
        "numbers": np.stack([score, 1 - 2 * score], axis=1),
        "positive": np.exp(score / 8),
        "thousands": 1000 * np.exp(score / 8),
    }[kind]


def quiet(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def fit(model, kind, dtype=np.float64):
    x = data(dtype)
    return quiet(lambda: model.fit(x, targets(kind, x).copy())), x


def assert_close(ours, theirs, dtype=None):
    """`dtype` is that of the estimator: its own numbers are rounded to it."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    # sums of 20 terms at most, of size below 100 beside results of size 1; two of each
    eps = np.finfo(dtype or ours.dtype).eps
    np.testing.assert_allclose(ours, theirs, rtol=1000 * eps, atol=4000 * eps)


def assert_like(standin, model, x, dtype=None):
    """The same methods, dtypes, shapes and labels; numbers but for rounding."""
    for name in METHODS:
        assert hasattr(standin, name) == hasattr(model, name), name
    ours, theirs = standin.predict(x), quiet(lambda: model.predict(x))
    if hasattr(model, "classes_"):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(standin.classes_, model.classes_)
    else:
        assert_close(ours, theirs, dtype)
    for name in METHODS[1:]:
        if hasattr(model, name):
            ours, theirs = getattr(standin, name)(x), quiet(lambda n=name: getattr(model, n)(x))
            ours, theirs = (np.exp(v) if "log" in name else v for v in (ours, theirs))
            assert_close(ours, theirs, dtype)


def assert_scores(standin, model, x, y):
    weights = np.arange(len(x)) % 3 + 0.5
    assert standin.score(x, y) == pytest.approx(quiet(lambda: model.score(x, y)), rel=1e-3)
    if not isinstance(model, linear.RANSACRegressor):  # whose score takes none
        theirs = quiet(lambda: model.score(x, y, sample_weight=weights))
        assert standin.score(x, y, sample_weight=weights) == pytest.approx(theirs, rel=1e-3)


def old(name):
    """scikit-learn's class of that name; those that are going away warn when they are made."""
    return getattr(linear, name, None) or pytest.skip(f"no {name} in this scikit-learn")


REGRESSORS = {
    **{name: (getattr(linear, name), "number") for name in (
        "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars",
        "LarsCV", "Lasso", "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC",
        "LinearRegression", "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV", "Ridge",
        "RidgeCV", "SGDRegressor", "TheilSenRegressor")},
    **{f"{name}, two outputs": (getattr(linear, name), "numbers") for name in (
        "ElasticNet", "Lars", "Lasso", "LassoLars", "LinearRegression", "MultiTaskElasticNet",
        "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV",
        "OrthogonalMatchingPursuit", "Ridge", "RidgeCV")},
    "GammaRegressor": (linear.GammaRegressor, "positive"),
    "LinearSVR": (LinearSVR, "number"),
    "MLPRegressor": (lambda: MLPRegressor(hidden_layer_sizes=(5,), max_iter=5, random_state=0), "number"),
    "PassiveAggressiveRegressor": (lambda: old("PassiveAggressiveRegressor")(), "number"),
    "PoissonRegressor": (linear.PoissonRegressor, "positive"),
    "QuantileRegressor": (lambda: linear.QuantileRegressor(alpha=0), "number"),
    "RANSACRegressor": (lambda: linear.RANSACRegressor(random_state=0), "number"),
    "no intercept": (lambda: linear.Lasso(fit_intercept=False), "number"),
    "TweedieRegressor 0": (linear.TweedieRegressor, "number"),
    "TweedieRegressor 1.5": (lambda: linear.TweedieRegressor(power=1.5), "positive"),
    "TweedieRegressor 3": (lambda: linear.TweedieRegressor(power=3), "positive"),
    "TweedieRegressor identity": (
        lambda: linear.TweedieRegressor(power=0, link="identity", alpha=0.1), "positive"),
    "TweedieRegressor log": (lambda: linear.TweedieRegressor(power=0, link="log"), "positive"),
}  # fmt: skip

CLASSIFIERS = {
    "LinearDiscriminantAnalysis": LinearDiscriminantAnalysis,
    "LinearSVC": LinearSVC,
    "LinearSVC crammer_singer": lambda: LinearSVC(multi_class="crammer_singer"),
    "LogisticRegression": lambda: linear.LogisticRegression(C=3),
    "LogisticRegressionCV": lambda: linear.LogisticRegressionCV(Cs=2, cv=2),
    "MLPClassifier": lambda: MLPClassifier(hidden_layer_sizes=(5,), max_iter=5, random_state=0),
    "PassiveAggressiveClassifier": lambda: old("PassiveAggressiveClassifier")(random_state=0),
    "Perceptron": lambda: linear.Perceptron(random_state=0),
    "RidgeClassifier": linear.RidgeClassifier,
    "RidgeClassifierCV": linear.RidgeClassifierCV,
    "SGDClassifier": lambda: linear.SGDClassifier(random_state=0),
    "SGDClassifier log_loss": lambda: linear.SGDClassifier("log_loss", random_state=0),
    "SGDClassifier modified_huber": lambda: linear.SGDClassifier("modified_huber", random_state=0),
}


# scikit-learn 1.8 has multi_class no more.
SCHEMES = {
    f"LogisticRegression {scheme}": (
        lambda scheme=scheme: linear.LogisticRegression(multi_class=scheme),
        kind,
    )
    for scheme, kind in (("ovr", "three"), ("multinomial", "two"))
    if "multi_class" in signature(linear.LogisticRegression).parameters
}
MODELS = {
    "LogisticRegression liblinear": (
        lambda: linear.LogisticRegression(solver="liblinear"),
        "two",
    ),
    **SCHEMES,
    **REGRESSORS,
    **{
        f"{n}, {kind}": (make, kind) for n, make in CLASSIFIERS.items() for kind in ("two", "three")
    },
    "RidgeClassifier, labels": (linear.RidgeClassifier, "labels"),
    "MLPClassifier, labels": (CLASSIFIERS["MLPClassifier"], "labels"),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", MODELS)
def test_model(name, dtype):
    make, kind = MODELS[name]
    model, x = fit(quiet(make), kind, dtype)
    standin = fl.from_sklearn(model)
    assert standin.verification.bound_share <= 1
    assert_round_trips(standin.network, x)
    for rows in (x, x[:1], x.astype(np.float64), np.rint(x).astype(np.int64)):
        assert_like(standin, model, rows, dtype)
    assert_scores(standin, model, x, targets(kind, x))
    assert_like(pickle.loads(pickle.dumps(standin)), model, x, dtype)


@pytest.mark.parametrize("loss", ["log_loss", "modified_huber"])
@pytest.mark.parametrize("kind", ["two", "three"])
def test_probabilities_of_classes_against_the_rest_where_scores_are_large(loss, kind):
    model, x = fit(linear.SGDClassifier(loss, random_state=0), kind)
    model.coef_ *= 0.01
    model.intercept_ = model.intercept_ * 0.01 - 1.5 * (loss == "modified_huber")
    standin = fl.from_sklearn(model)
    assert_like(standin, model, x)
    nothing = (np.clip(model.decision_function(x), -1, 1) == -1).reshape(len(x), -1).all(axis=1)
    assert loss == "log_loss" or nothing.any()  # no class has a share of those


@pytest.mark.parametrize("dtype", FLOATS)
def test_probabilities_where_every_sigmoid_vanishes(dtype):
    model, x = fit(linear.SGDClassifier("log_loss", random_state=0), "three", dtype)
    model.coef_ = 0 * model.coef_
    model.coef_[:, 0] = [1, 2, 3]
    model.intercept_ = np.zeros(3, dtype)
    standin = fl.from_sklearn(model)
    x = np.zeros((900, 6), dtype)
    x[:, 0] = -np.arange(900)
    theirs = quiet(lambda: model.predict_proba(x))
    theirs = np.nan_to_num(theirs, nan=1 / 3)  # of earlier versions of scikit-learn
    np.testing.assert_allclose(standin.predict_proba(x), theirs, rtol=1e3 * np.finfo(dtype).eps)


@pytest.mark.parametrize("kind", ["two", "three"])
@pytest.mark.parametrize("make", [LinearDiscriminantAnalysis, linear.LogisticRegression])
def test_logarithms_of_probabilities_that_are_0(make, kind):
    model, x = fit(make(), kind)
    standin = fl.from_sklearn(model)
    x = 1e4 * x
    ours, theirs = standin.predict_log_proba(x), quiet(lambda: model.predict_log_proba(x))
    assert (standin.predict_proba(x) == 0).any()
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_labels_at_a_tie_are_those_of_scikit_learn():
    model, x = fit(linear.RidgeClassifier(), "three")
    model.coef_[1], model.intercept_[1] = model.coef_[0], model.intercept_[0]
    np.testing.assert_array_equal(fl.from_sklearn(model).predict(x), model.predict(x))
    two, x = fit(linear.Perceptron(fit_intercept=False), "two")
    assert fl.from_sklearn(two).predict(0 * x[:1]) == two.predict(0 * x[:1]) == "no"


# ----------------------------------------------------------------------------- transformers


def columns(*transformers, **parameters):
    return ColumnTransformer(list(transformers), **parameters)


def empty_column(imputer):
    """An imputer that has seen nothing in column 2."""
    x = data()
    x[:, 2] = np.nan
    x[3, 4] = np.nan
    return Frozen(quiet(lambda: imputer.fit(x)))


class Frozen:
    """Not fitted again."""

    def __init__(self, transformer):
        self.transformer = transformer


TRANSFORMERS = {
    "FactorAnalysis": lambda: FactorAnalysis(2, random_state=0),
    "FastICA": lambda: FastICA(3, random_state=0),
    "FastICA not whitened": lambda: FastICA(whiten=False, random_state=0),
    "FeatureUnion": lambda: make_union(StandardScaler(), PCA(2), "passthrough"),
    "FeatureUnion drop": lambda: FeatureUnion(
        [("a", StandardScaler()), ("b", "drop"), ("c", VarianceThreshold())],
        transformer_weights={"a": 0.3, "c": 7},
    ),
    "FeatureUnion, the first dropped": lambda: FeatureUnion(
        [("a", "drop"), ("b", RobustScaler()), ("c", SelectKBest(f_regression, k=2))]
    ),
    "FeatureUnion with nothing in a part": lambda: make_union(
        PCA(2), make_pipeline(PCA(), SelectFwe(f_regression, alpha=0)), MaxAbsScaler()
    ),
    "FunctionTransformer": lambda: FunctionTransformer(),
    "GaussianRandomProjection": lambda: GaussianRandomProjection(4, random_state=0),
    "IncrementalPCA": lambda: IncrementalPCA(3, whiten=True),
    "IterativeImputer": lambda: IterativeImputer(max_iter=2),
    "KNNImputer": lambda: KNNImputer(),
    "MaxAbsScaler": lambda: MaxAbsScaler(),
    "MinMaxScaler": lambda: MinMaxScaler((-2, 3)),
    "MinMaxScaler clip": lambda: MinMaxScaler(clip=True),
    "NeighborhoodComponentsAnalysis": lambda: Frozen(
        NeighborhoodComponentsAnalysis(3, max_iter=3, random_state=0).fit(
            data(), targets("three", data())
        )
    ),
    "PCA": lambda: PCA(3),
    "PCA of all": lambda: PCA(),
    "PCA whitened": lambda: PCA(0.9, whiten=True),
    "PCA then SelectKBest": lambda: make_pipeline(PCA(), SelectKBest(f_regression, k=2)),
    "RFE": lambda: RFE(linear.LinearRegression(), n_features_to_select=3),
    "RobustScaler": lambda: RobustScaler(),
    "SelectFromModel": lambda: SelectFromModel(linear.LinearRegression()),
    "SelectKBest": lambda: SelectKBest(f_regression, k=4),
    "SelectPercentile": lambda: SelectPercentile(f_regression, percentile=50),
    "SequentialFeatureSelector": lambda: SequentialFeatureSelector(
        linear.LinearRegression(), n_features_to_select=2, cv=2
    ),
    "SimpleImputer": lambda: SimpleImputer(),
    "SimpleImputer constant": lambda: SimpleImputer(strategy="constant", fill_value=3),
    "SparseRandomProjection": lambda: SparseRandomProjection(4, random_state=0),
    "StandardScaler": lambda: StandardScaler(),
    "StandardScaler no mean": lambda: StandardScaler(with_mean=False),
    "StandardScaler no std": lambda: StandardScaler(with_std=False),
    "TruncatedSVD": lambda: TruncatedSVD(3, random_state=0),
    "VarianceThreshold": lambda: VarianceThreshold(1.5),
    "columns": lambda: columns(
        ("a", StandardScaler(), [3, 1]), ("b", RobustScaler(), slice(4, 6)), ("c", "drop", [2])
    ),
    "columns and the rest": lambda: columns(
        ("a", MinMaxScaler(), [5, 0]), ("b", "drop", [1]), remainder="passthrough"
    ),
    "columns and the rest scaled": lambda: columns(
        ("a", "passthrough", [False, True, False, True, False, False]), remainder=StandardScaler()
    ),
    "columns twice": lambda: columns(
        ("a", StandardScaler(), [0, 1, 2]), ("b", MaxAbsScaler(), [2, 1]), ("none", PCA(), [])
    ),
    "columns with weights": lambda: columns(
        ("a", StandardScaler(), [0, 1]), ("b", "passthrough", [4]), transformer_weights={"a": 0.3}
    ),
    "columns with projections": lambda: columns(
        ("a", make_pipeline(SimpleImputer(), StandardScaler(), PCA(2)), [0, 1, 2, 3]),
        ("b", MinMaxScaler(clip=True), [4]),
        ("c", make_pipeline(RobustScaler(), SelectKBest(f_regression, k=1)), [5, 3]),
        ("d", "passthrough", [1]),
    ),
    "columns of columns": lambda: columns(
        ("a", columns(("b", StandardScaler(), [1]), remainder="passthrough"), [5, 4, 0]),
        remainder=make_pipeline(MaxAbsScaler(), "passthrough", VarianceThreshold()),
    ),
    "scaled and selected": lambda: make_pipeline(
        StandardScaler(), SelectKBest(f_regression, k=4), None, MinMaxScaler()
    ),
    "selected after nothing": lambda: make_pipeline(
        make_pipeline("passthrough", None), SelectKBest(f_regression, k=4)
    ),
    "selected twice": lambda: make_pipeline(
        SelectKBest(f_regression, k=5), StandardScaler(), SelectKBest(f_regression, k=2)
    ),
    "without an empty column": lambda: empty_column(SimpleImputer()),
    "without an empty column, constant": lambda: empty_column(SimpleImputer(strategy="constant")),
    "without an empty column, iterative": lambda: empty_column(IterativeImputer(max_iter=2)),
    "without an empty column, neighbours": lambda: empty_column(KNNImputer()),
    "with an empty column": lambda: empty_column(SimpleImputer(keep_empty_features=True)),
}  # fmt: skip


# Imputers with values that don't fit into integers.
FLOATS_ALONE = {
    *("SimpleImputer constant", "with an empty column", "without an empty column, constant"),
}


def piped(transformer, model, kind, dtype):
    """A fitted pipeline of both, and its data."""
    if not isinstance(transformer, Frozen):
        return fit(Pipeline([("t", transformer), ("m", model)]), kind, dtype)
    t, x = transformer.transformer, data(dtype)
    quiet(lambda: model.fit(t.transform(x), targets(kind, x)))
    return Pipeline([("t", t), ("m", model)]), x


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformer(name, dtype):
    for final, kind in (
        (linear.LinearRegression(), "number"),
        (
            MLPClassifier(hidden_layer_sizes=(4,), max_iter=5, random_state=0),
            "three" if "Select" not in name else "labels",
        ),
    ):
        if kind == "labels":
            continue  # their scores take one target of numbers
        model, x = piped(TRANSFORMERS[name](), final, kind, dtype)
        standin = quiet(lambda m=model: fl.from_sklearn(m))
        assert standin.n_features_in_ == 6
        assert standin.verification.bound_share <= 1
        assert_round_trips(standin.network, x)
        for rows in (x, x[:1], 3 * x, x.astype(np.float64), np.rint(x).astype(np.int64)):
            if rows.dtype.kind == "f" or name not in FLOATS_ALONE:
                assert_like(standin, model, rows, dtype)
        assert_like(pickle.loads(pickle.dumps(standin)), model, x, dtype)
        with pytest.raises(ValueError, match=r"\(\.\.\., 6\), got \(2, 7\)"):
            standin.predict(np.ones((2, 7)))


def test_scalings_of_selections_are_folded_into_the_first_layer():
    model, _ = piped(
        TRANSFORMERS["columns"](),
        MLPRegressor(hidden_layer_sizes=(4,), max_iter=5),
        "number",
        np.float64,
    )
    net = fl.from_sklearn(model).network
    assert [type(part).__name__ for part in net] == ["Concat", "BatchNorm", "Layer", "Layer"]
    assert str(net.summary()).count("folded into layer") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SelectKBest", np.nan),
        ("SelectKBest", np.inf),
        ("columns", np.nan),
        ("columns", np.inf),
        ("columns with projections", np.inf),
    ],
)
def test_columns_that_are_not_used_may_hold_anything(name, value):
    model, x = piped(TRANSFORMERS[name](), linear.LinearRegression(), "number", np.float64)
    standin = fl.from_sklearn(model)
    expected = standin.predict(x)
    changes = []
    for column in range(6):
        other = x.copy()
        other[::2, column] = value
        got = standin.predict(other)
        assert_same_bits(got[1::2], expected[1::2])
        changes.append(not np.array_equal(got, expected))
    used = {"SelectKBest": 4, "columns": 4, "columns with projections": 5}[name]
    assert sum(changes) == used


def test_layers_in_branches_are_not_remembered_either():
    model, x = piped(
        TRANSFORMERS["columns with projections"](), linear.Ridge(), "number", np.float32
    )
    standin = fl.from_sklearn(model)
    wide = x.astype(np.float64)
    before = standin.predict(wide)
    projection = standin.network[0].branches[0][-1]
    projection.update(weight=2 * projection.weight)
    assert_close(standin.predict(wide), standin.predict(x).astype(np.float64), np.float32)
    assert np.abs(standin.predict(wide) - before).max() > 0.1


def test_more_columns_than_a_part_has_branches():
    x = np.random.default_rng(0).standard_normal((30, 2600))
    order = np.r_[np.arange(2599, -1, -2), 0:2600:2]
    model = make_pipeline(
        columns(("a", StandardScaler(), order[:1500]), ("b", "passthrough", order[1500:])),
        linear.Ridge(),
    ).fit(x, x[:, 3])
    standin = fl.from_sklearn(model)
    np.testing.assert_allclose(standin.predict(x), model.predict(x), rtol=1e-10, atol=1e-10)
    assert_same_bits(pickle.loads(pickle.dumps(standin)).predict(x), standin.predict(x))


@pytest.mark.parametrize("far", [1.7e9, 5e6])
@pytest.mark.parametrize(
    "make",
    [
        lambda: columns(("a", StandardScaler(), [1, 0]), remainder=MinMaxScaler()),
        lambda: make_pipeline(SimpleImputer(), StandardScaler(), VarianceThreshold()),
        lambda: make_pipeline(SelectKBest(f_regression, k=1), RobustScaler()),
        lambda: make_union(StandardScaler(), RobustScaler()),
    ],
    ids=["columns", "imputer", "selection", "union"],
)
def test_features_far_from_zero_keep_their_digits(make, far):
    x = data()[:, :3]
    x[:, :2] = far + 1e3 * x[:, :2]
    y = np.sin((x[:, 0] - far) / 1e3)
    mlp = MLPRegressor(
        hidden_layer_sizes=(8,), activation="tanh", solver="lbfgs", max_iter=80, random_state=0
    )
    model = quiet(lambda: make_pipeline(make(), mlp).fit(x, y))
    error = np.abs(fl.from_sklearn(model).predict(x) - model.predict(x)).max()
    assert error < 1e-13 * max(1.0, np.abs(model.predict(x)).max())


def test_projections_of_features_far_from_zero_are_not_refused():
    x = data()
    x = x + np.array([1e6, 0, 2e6, 0, 0, 1e3])
    model = make_pipeline(PCA(3, whiten=True), linear.Ridge()).fit(x, targets("number", data()))
    standin = fl.from_sklearn(model)
    # scikit-learn subtracts products of size 2e6
    np.testing.assert_allclose(standin.predict(x), model.predict(x), rtol=0, atol=1e-7)


# ----------------------------------------------------------------------------- missing values


def holes(dtype=np.float64):
    x = data(dtype)
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    return x


IMPUTED = {
    "mean": lambda: SimpleImputer(),
    "constant": lambda: SimpleImputer(strategy="constant", fill_value=-3.0),
    "median, scaled": lambda: make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
    "in columns": lambda: columns(
        ("a", make_pipeline(SimpleImputer(), PCA(2)), [0, 4, 2]),
        ("b", make_pipeline(SimpleImputer(strategy="median"), RobustScaler()), [5, 1]),
        ("c", SimpleImputer(strategy="most_frequent"), [3]),
    ),
    "columns, then imputed": lambda: make_pipeline(
        columns(("a", "passthrough", [4, 3]), remainder=SimpleImputer()), SimpleImputer()
    ),
    "the same twice": lambda: make_union(SimpleImputer(), make_pipeline(SimpleImputer(), PCA(2))),
    "selected": lambda: make_pipeline(VarianceThreshold(1.5), SimpleImputer()),
    "before another": lambda: make_pipeline(SimpleImputer(), KNNImputer()),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("final", [linear.Ridge, LinearSVR])  # the second has float64 in any case
@pytest.mark.parametrize("name", IMPUTED)
def test_missing_values_become_the_value_of_the_imputer(name, final, dtype):
    x = holes(dtype)
    y = targets("number", data())
    model = quiet(lambda: make_pipeline(IMPUTED[name](), final()).fit(x, y))
    standin = fl.from_sklearn(model)
    assert_close(standin.predict(x), model.predict(x), dtype)
    assert_close(standin(x)[:, 0], model.predict(x), dtype)
    assert np.isnan(standin.network(x)).any()  # which is the network alone
    assert_close(pickle.loads(pickle.dumps(standin)).predict(x), model.predict(x), dtype)


class Contrary(SimpleImputer):
    def transform(self, X):
        return np.where(np.isnan(X), 7.0, X)


def test_an_imputer_that_fills_with_something_else_is_refused():
    model = make_pipeline(Contrary(), linear.Ridge()).fit(holes(), data()[:, 0])
    with pytest.raises(fl.ConversionError, match="NaN becomes something else"):
        fl.from_sklearn(model)


REFUSING = {
    "IterativeImputer": lambda: IterativeImputer(max_iter=2),
    "KNNImputer": lambda: KNNImputer(),
    "KNNImputer before another": lambda: make_pipeline(KNNImputer(), SimpleImputer()),
    "after a scaler": lambda: make_pipeline(StandardScaler(), SimpleImputer()),
    "in two ways": lambda: make_union(SimpleImputer(), SimpleImputer(strategy="median")),
    "beside a scaler": lambda: columns(
        ("a", make_pipeline(StandardScaler(), KNNImputer()), [0, 1, 2, 3, 4, 5]),
    ),
}


@pytest.mark.parametrize("name", REFUSING)
def test_missing_values_that_take_more_than_a_value_are_refused(name):
    x, full = holes(), data()
    model = make_pipeline(REFUSING[name](), linear.RidgeClassifier())
    quiet(lambda: model.fit(x, targets("two", full)))
    standin = fl.from_sklearn(model)
    np.testing.assert_array_equal(standin.predict(full), model.predict(full))
    for call in (standin, standin.predict, standin.decision_function):
        with pytest.raises(ValueError, match=r"NaN, which step .*Imputer.* replaces"):
            call(x)
    rest = fl.from_sklearn(model[-1])  # as the message says
    np.testing.assert_array_equal(rest.predict(model[0].transform(x)), model.predict(x))


# ----------------------------------------------------------------------------- targets


def targeted(model=None, **parameters):
    return TransformedTargetRegressor(model or linear.Ridge(), **parameters)


def small():
    return MLPRegressor(hidden_layer_sizes=(5,), max_iter=20, random_state=0)


TARGETS = {
    "StandardScaler": (lambda: targeted(transformer=StandardScaler()), "thousands"),
    "RobustScaler": (lambda: targeted(small(), transformer=RobustScaler()), "thousands"),
    "MaxAbsScaler": (lambda: targeted(transformer=MaxAbsScaler()), "number"),
    "MinMaxScaler": (lambda: targeted(transformer=MinMaxScaler((-3, 1))), "numbers"),
    "none": (lambda: targeted(small()), "number"),
    "two outputs": (lambda: targeted(small(), transformer=StandardScaler()), "numbers"),
    "exp": (lambda: targeted(small(), func=np.log, inverse_func=np.exp), "positive"),
    "expm1": (lambda: targeted(func=np.log1p, inverse_func=np.expm1), "positive"),
    "square": (lambda: targeted(func=np.sqrt, inverse_func=np.square), "positive"),
    "of a pipeline": (
        lambda: targeted(make_pipeline(RobustScaler(), small()), transformer=StandardScaler()),
        "thousands",
    ),
    "in a pipeline": (
        lambda: make_pipeline(StandardScaler(), targeted(transformer=StandardScaler())), "thousands"),
    "log, scaled": (
        lambda: targeted(
            transformer=make_pipeline(
                FunctionTransformer(np.log1p, np.expm1), "passthrough", StandardScaler()
            )
        ),
        "thousands",
    ),
    "scaled exp": (
        lambda: targeted(linear.PoissonRegressor(), transformer=MaxAbsScaler()), "thousands"),
}  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_taken_back(name, dtype):
    make, kind = TARGETS[name]
    model, x = fit(make(), kind, dtype)
    standin = fl.from_sklearn(model)
    assert standin.verification.bound_share <= 1
    for rows in (x, x[:1], x.astype(np.float64)):
        ours, theirs = standin.predict(rows), model.predict(rows)
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        atol = 4000 * np.finfo(dtype).eps * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)
    assert_scores(standin, model, x, targets(kind, x))
    assert_same_bits(pickle.loads(pickle.dumps(standin)).predict(x), standin.predict(x))


def test_small_targets_keep_the_digits_of_expm1():
    x = data()
    y = np.abs(targets("number", x)) * 1e-12
    model = targeted(func=np.log1p, inverse_func=np.expm1).fit(x, y)
    np.testing.assert_allclose(fl.from_sklearn(model).predict(x), model.predict(x), rtol=1e-9)


# ----------------------------------------------------------------------------- refusals


def half(x):
    return x / 2


def in_front(transformer, kind="number"):
    return lambda: piped(transformer, linear.LinearRegression(), kind, np.float64)[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (in_front(Normalizer()), ["step 't' (sklearn Normalizer)", "norm", "pipeline[-1]"]),
        (in_front(PolynomialFeatures()), ["step 't'", "PolynomialFeatures", "multiplies"]),
        (in_front(FunctionTransformer(half)), ["FunctionTransformer", "half", "pipeline[-1]"]),
        (
            in_front(columns(("codes", OneHotEncoder(handle_unknown="ignore"), [0]))),
            ["step 'codes' (sklearn OneHotEncoder)"],
        ),
        (in_front(columns(("all", "drop", [0, 1, 2, 3, 4, 5]), ("n", PCA(), []))), ["no features"]),
        (
            in_front(SimpleImputer(missing_values=-1.0)),
            ["step 't' (sklearn SimpleImputer)", "replaces -1.0"],
        ),
        (
            lambda: make_pipeline(SimpleImputer(add_indicator=True), linear.Ridge()).fit(
                holes(), data()[:, 0]
            ),
            ["step 'simpleimputer'", "add_indicator"],
        ),
        (
            lambda: fit(targeted(func=half, inverse_func=half), "number")[0],
            ["TransformedTargetRegressor", "half", "regressor_"],
        ),
        (
            lambda: fit(targeted(transformer=PCA()), "numbers")[0],
            ["TransformedTargetRegressor", "PCA", "regressor_"],
        ),
        (
            lambda: fit(
                targeted(
                    transformer=make_pipeline(
                        StandardScaler(), FunctionTransformer(np.square, np.sqrt)
                    )
                ),
                "number",
            )[0],
            ["TransformedTargetRegressor", "sqrt", "before something else", "regressor_"],
        ),
        (lambda: make_pipeline(PCA(), linear.Ridge()), ["step 'pca'", "not fitted"]),
        (lambda: make_pipeline(SelectKBest(), linear.Ridge()), ["step 'selectkbest'", "not fitted"]),
        (lambda: targeted(), ["TransformedTargetRegressor", "not fitted"]),
    ],
    ids=lambda v: None if callable(v) else v[0].replace("step ", ""),
)  # fmt: skip
def test_refusals_name_the_step_and_what_to_do(make, words):
    if "no features" in words:
        x = data()
        transformer = columns(("all", "drop", [0, 1, 2, 3, 4, 5]))
        final = linear.LinearRegression().fit(x, x[:, 0])
        model = Pipeline([("t", transformer.fit(x)), ("m", final)])
    else:
        model = quiet(make)
    with pytest.raises(fl.ConversionError) as info:
        fl.from_sklearn(model)
    assert not [word for word in words if word not in str(info.value)]


def test_the_advice_for_a_transformer_works():
    model = in_front(PolynomialFeatures())()
    rest = fl.from_sklearn(model[-1])
    np.testing.assert_allclose(rest.predict(model[:-1].transform(data())), model.predict(data()))


def test_the_advice_for_targets_works():
    model, x = fit(targeted(func=half, inverse_func=half), "number")
    rest = fl.from_sklearn(model.regressor_)
    np.testing.assert_allclose(half(rest.predict(x)), model.predict(x))
