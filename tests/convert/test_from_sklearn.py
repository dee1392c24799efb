"""Estimators of scikit-learn, fitted here, against the stand-ins that `from_sklearn` makes."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import assert_round_trips

import fastlayer as fl

pytest.importorskip("sklearn")
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVR

FLOATS = [np.float32, np.float64]


def data(dtype=np.float64, rows=60):
    rng = np.random.default_rng(3)
    return (rng.standard_normal((rows, 4)) * [1, 5, 0.1, 2] + [0, 3, 1, -2]).astype(dtype)


def targets(kind, x):
    score = x @ np.array([1.0, 0.3, 4.0, -1.0])
    return {
        "binary": np.where(score > np.median(score), "yes", "no"),
        "multiclass": np.digitize(score, np.quantile(score, [0.3, 0.7])) * 10 - 7,
        "multilabel": np.stack([score > 4, x[:, 1] > 3, x[:, 3] > -2], axis=1).astype(int),
        "number": score,
        "column": score[:, None],
        "numbers": np.stack([score, -2 * score + 1], axis=1),
        "count": np.floor(np.abs(score)),
    }[kind]


def fit(model, kind, dtype=np.float64):
    x = data(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", DataConversionWarning)
        return model.fit(x, targets(kind, x)), x


def mlp(kind, activation="relu", hidden=(8, 6), **parameters):
    cls = MLPRegressor if kind in ("number", "column", "numbers", "count") else MLPClassifier
    return cls(
        hidden_layer_sizes=hidden, activation=activation, max_iter=5, random_state=0, **parameters
    )


MODELS = {
    **{f"MLPClassifier {a}": (lambda a=a: mlp("multiclass", a), "multiclass")
       for a in ("identity", "logistic", "tanh", "relu")},
    "MLPClassifier binary": (lambda: mlp("binary"), "binary"),
    "MLPClassifier multilabel": (lambda: mlp("multilabel"), "multilabel"),
    "MLPRegressor": (lambda: mlp("number"), "number"),
    "MLPRegressor column": (lambda: mlp("column"), "column"),
    "MLPRegressor two outputs": (lambda: mlp("numbers", "tanh"), "numbers"),
    "MLPRegressor poisson": (lambda: mlp("count", loss="poisson"), "count"),
    "LinearRegression": (LinearRegression, "number"),
    "LinearRegression two outputs": (LinearRegression, "numbers"),
    "LinearRegression no intercept": (lambda: LinearRegression(fit_intercept=False), "number"),
    "Ridge": (Ridge, "number"),
    "Ridge column": (Ridge, "column"),
    "LogisticRegression binary": (LogisticRegression, "binary"),
    "LogisticRegression multinomial": (LogisticRegression, "multiclass"),
    "LogisticRegression no intercept": (lambda: LogisticRegression(fit_intercept=False), "binary"),
}  # fmt: skip


def unlike(kind):
    """Skip what this version of scikit-learn does not have."""
    if "poisson" in kind:
        from inspect import signature

        if "loss" not in signature(MLPRegressor).parameters:
            pytest.skip("MLPRegressor has no loss='poisson' before scikit-learn 1.7")


def assert_like(standin, model, x):
    """Same dtypes, shapes and labels; numbers but for rounding."""
    ours, theirs = standin.predict(x), model.predict(x)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    if hasattr(model, "predict_proba"):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(standin.classes_, model.classes_)
        ours, theirs = standin.predict_proba(x), model.predict_proba(x)
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
    # 50 terms at most in two sums and a softmax, sums of magnitude below 100
    np.testing.assert_allclose(ours, theirs, atol=100 * 50 * np.finfo(ours.dtype).eps)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", MODELS)
def test_model(name, dtype):
    unlike(name)
    make, kind = MODELS[name]
    model, x = fit(make(), kind, dtype)
    standin = fl.from_sklearn(model)
    assert standin.verification is standin.network.verification
    assert standin.verification.bound_share <= 1
    assert standin.network.dtype == dtype
    assert_round_trips(standin.network, x)
    assert_like(standin, model, x)
    assert_like(standin, model, x[:1])


@pytest.mark.parametrize("x_dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8, bool])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_result_has_the_dtype_that_scikit_learn_gives(scaled, dtype, x_dtype):
    steps = [StandardScaler()] if scaled else []
    model, _ = fit(make_pipeline(*steps, mlp("multiclass")), "multiclass", dtype)
    x = np.array([[0, 1, 2, 3], [1, 0, 0, 9]]).astype(x_dtype)
    theirs = model.predict_proba(x)
    ours = fl.from_sklearn(model).predict_proba(x)
    assert ours.dtype == theirs.dtype or x_dtype == np.float16  # which a scaler keeps
    coarse = np.float16 if x_dtype == np.float16 and scaled else np.float32
    np.testing.assert_allclose(ours, theirs, atol=100 * 50 * np.finfo(coarse).eps)


SCALERS = {
    "StandardScaler": lambda: StandardScaler(),
    "StandardScaler no mean": lambda: StandardScaler(with_mean=False),
    "StandardScaler no std": lambda: StandardScaler(with_std=False),
    "MinMaxScaler": lambda: MinMaxScaler((-1, 2)),
    "MinMaxScaler clip": lambda: MinMaxScaler(clip=True),
    "MaxAbsScaler": lambda: MaxAbsScaler(),
    "RobustScaler": lambda: RobustScaler(),
    "two of them": lambda: make_pipeline(MinMaxScaler(), "passthrough", StandardScaler()),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SCALERS)
def test_pipeline(name, dtype):
    model, x = fit(make_pipeline(SCALERS[name](), mlp("binary")), "binary", dtype)
    if name == "two of them":
        model = make_pipeline(*model[0], model[1])  # the fitted steps in one row
    standin = fl.from_sklearn(model)
    assert_round_trips(standin.network, x)
    assert_like(standin, model, x)
    assert_like(standin, model, 3 * x)  # outside of the range of the training data
    layers = [type(part).__name__ for part in standin.network]
    assert layers[-3:] == ["Layer"] * 3
    folded = str(standin.network.summary()).count("folded into layer")
    assert folded == ("clip" not in name)  # where nothing is in between


@pytest.mark.parametrize("dtype", FLOATS)
def test_features_far_from_zero_lose_no_accuracy(dtype):
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(1990, 2030, 300), rng.integers(0, 9, 300) + 1_000_000], axis=1)
    x = x.astype(dtype)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, x[:, 0] > 2010)
    standin = fl.from_sklearn(model)
    # two terms and a sigmoid, sums of size below 10
    bound = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(standin.predict_proba(x), model.predict_proba(x), rtol=0, atol=bound)
    assert standin.network.out_features == 1


def test_constant_feature_in_a_scaler():
    x = data()
    x[:, 2] = 7
    model = make_pipeline(StandardScaler(), Ridge()).fit(x, targets("number", x))
    np.testing.assert_allclose(fl.from_sklearn(model).predict(x), model.predict(x), rtol=1e-12)


def test_calling_runs_the_network():
    model, x = fit(mlp("binary"), "binary")
    standin = fl.from_sklearn(model)
    p = standin(x)
    assert p.shape == (len(x), 1)
    np.testing.assert_array_equal(standin.network(x), p)
    np.testing.assert_array_equal(standin.predict_proba(x), np.concatenate([1 - p, p], axis=1))
    assert standin.n_features_in_ == 4
    assert standin.predict(x[0]).shape == ()


def test_later_training_does_not_change_the_standin():
    model, x = fit(mlp("number"), "number")
    standin = fl.from_sklearn(model)
    before = standin.predict(x)
    model.coefs_[0][:] = 0
    np.testing.assert_array_equal(standin.predict(x), before)


def test_pickle():
    model, x = fit(make_pipeline(StandardScaler(), mlp("multiclass")), "multiclass")
    standin = fl.from_sklearn(model)
    again = pickle.loads(pickle.dumps(standin))
    np.testing.assert_array_equal(again.predict_proba(x), standin.predict_proba(x))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_pickles_name_no_private_module():
    """Wherever the module was imported first: here nobody has asked fastlayer for the class."""
    code = (
        "import pickle, pickletools\n"
        "from fastlayer.convert.sklearn import Classifier, Regressor\n"
        "import fastlayer as fl\n"
        "net = fl.Network([fl.Layer(3, 1, 'sigmoid', rng=0)])\n"
        "for made in (Classifier(net, False, [3, 4], 'binary', True), Regressor(net, True, False)):\n"
        "    data = pickle.dumps(made)\n"
        "    named = {text for _, text, _ in pickletools.genops(data) if isinstance(text, str)}\n"
        "    print(type(made).__module__, *[n for n in named if n.startswith('fastlayer.convert')])\n"
        "    assert type(pickle.loads(data)) is type(made) is getattr(fl, type(made).__name__)\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["fastlayer", "fastlayer"]


def test_what_predict_keeps_is_neither_stale_nor_pickled():
    model, x = fit(make_pipeline(StandardScaler(), LogisticRegression()), "binary", np.float32)
    standin = fl.from_sklearn(model)
    before = pickle.dumps(standin)
    for rows in (x, x.astype(np.float64), x):
        np.testing.assert_array_equal(standin.predict(rows), model.predict(rows))
    assert len(pickle.dumps(standin)) == len(before)
    layer = standin.network[-1]
    layer.update(weight=-layer.weight, bias=-layer.bias)
    other = np.where(model.predict(x) == "yes", "no", "yes")
    for rows in (x, x.astype(np.float64)):
        np.testing.assert_array_equal(standin.predict(rows), other)
        np.testing.assert_array_equal(standin.predict_proba(rows)[:, 0] > 0.5, other == "no")


def test_labels_at_a_tie_are_those_of_scikit_learn():
    model, _ = fit(LogisticRegression(fit_intercept=False), "binary")
    standin = fl.from_sklearn(model)
    tiny = 1e-17 * np.sign(model.coef_)  # sigmoid rounds to 0.5, and the score is positive
    assert standin.predict_proba(tiny)[0, 1] == 0.5
    for x in (tiny, -tiny, 0 * tiny):
        assert standin.predict(x) == model.predict(x)


def test_a_row_of_nan_has_no_label():
    model, x = fit(mlp("multiclass"), "multiclass")
    standin = fl.from_sklearn(model)
    x[2, 1] = np.nan
    assert np.isnan(standin.predict_proba(x)[2]).all()
    with pytest.raises(ValueError, match="1 of 60 rows give NaN"):
        standin.predict(x)


def test_sparse_coefficients():
    model, x = fit(LogisticRegression(), "multiclass")
    expected = fl.from_sklearn(model).predict_proba(x)
    np.testing.assert_array_equal(fl.from_sklearn(model.sparsify()).predict_proba(x), expected)


# ----------------------------------------------------------------------------- tables

NAMES = ["age", "pay", "city_a", "city_b"]


def table(library, columns):
    """A data frame of pandas or polars, or a table of Arrow."""
    module = pytest.importorskip(library)
    return (module.table if library == "pyarrow" else module.DataFrame)(columns)


@pytest.fixture(params=["pandas", "polars"])
def fitted(request):
    """A pipeline fitted to a table of integers, floats and bools, and the table."""
    rng = np.random.default_rng(4)
    x = table(
        request.param,
        {
            "age": rng.integers(20, 60, 80),
            "pay": rng.normal(3e4, 1e4, 80),
            "city_a": rng.integers(0, 2, 80) > 0,
            "city_b": rng.integers(0, 2, 80) > 0,
        },
    )
    y = rng.integers(0, 2, 80)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), mlp("binary")).fit(x, y), x


def test_columns_of_several_types(fitted):
    model, x = fitted
    fast = fl.from_sklearn(model)
    assert list(fast.feature_names_in_) == list(model.feature_names_in_) == NAMES
    np.testing.assert_allclose(fast.predict_proba(x), model.predict_proba(x), rtol=1e-12)
    np.testing.assert_array_equal(fast.predict(x), model.predict(x))
    assert_same_bits(fast(x), fast.predict_proba(x)[:, 1:])
    assert_same_bits(pickle.loads(pickle.dumps(fast)).predict(x), fast.predict(x))


@pytest.mark.parametrize("call", ["predict", "predict_proba", "__call__"])
def test_columns_in_another_order_are_no_guess(fitted, call):
    model, x = fitted
    fast = fl.from_sklearn(model)
    turned = x[NAMES[::-1]]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(turned)
    with pytest.raises(
        ValueError, match=r"feature names.*another order, 'city_b'.*feature_names_in_"
    ):
        getattr(fast, call)(turned)
    assert_same_bits(fast.predict(turned[list(fast.feature_names_in_)]), fast.predict(x))
    renamed = x.rename(**{"columns" if hasattr(x, "iloc") else "mapping": {"pay": "wage"}})
    with pytest.raises(ValueError, match="missing 'pay'; not seen at fit 'wage'"):
        getattr(fast, call)(renamed)
    with pytest.raises(ValueError, match="missing 'city_b'"):
        getattr(fast, call)(x[NAMES[:3]])


def test_an_array_for_a_table_is_taken_with_a_warning(fitted):
    model, x = fitted
    fast = fl.from_sklearn(model)  # without one, of the probe
    plain = np.asarray(x, float)
    for one in (model, fast):
        with pytest.warns(UserWarning, match="feature names"):
            np.testing.assert_array_equal(one.predict(plain), model.predict(x))


def test_a_table_for_an_array_is_taken_with_a_warning():
    model, x = fit(mlp("number"), "number")
    frame = table("pandas", dict(zip(NAMES, x.T, strict=True)))
    fast = fl.from_sklearn(model)
    assert not hasattr(fast, "feature_names_in_")
    for one in (model, fast):
        with pytest.warns(UserWarning, match="has feature names, but .* without feature names"):
            one.predict(frame)
    frame.columns = range(4)  # no names
    assert_same_bits(fast.predict(frame), fast.predict(x))
    frame.columns = ["a", 1, "b", 2]
    for one in (model, fast):
        with pytest.raises(TypeError, match=r"[Ff]eature names"):
            one.predict(frame)


def test_scalers_keep_the_digits_of_features_far_from_zero():
    for far, spread in ((1.7e9, 86400.0), (1e12, 1.0), (5e6, 1e3)):
        for scaler in (StandardScaler(), RobustScaler(), StandardScaler(with_std=False)):
            x = far + spread * np.random.default_rng(0).standard_normal((80, 2))
            y = np.sin((x[:, 0] - far) / spread)
            scaled = make_pipeline(scaler, mlp("number", "tanh", solver="lbfgs"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model = scaled.fit(x, y)
            error = np.abs(fl.from_sklearn(model).predict(x) - model.predict(x)).max()
            assert error < 1e-13 * max(1.0, np.abs(model.predict(x)).max())


class Contrary(MLPClassifier):
    def predict(self, X):
        found = super().predict(X)
        return np.where(found == "yes", "no", "yes")


def no_steps():
    model = make_pipeline(StandardScaler())
    model.steps = [("one", None), ("other", "passthrough")]
    return model


def of_another_activation():
    model, _ = fit(mlp("number"), "number")
    model.activation = "sine"
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: fit(SVR(), "number")[0], ["sklearn SVR", "MLPClassifier", "linear models"]),
        (lambda: MLPClassifier(), ["MLPClassifier", "not fitted", "call fit"]),
        (lambda: make_pipeline(StandardScaler(), Ridge()), ["'standardscaler'", "not fitted"]),
        (
            lambda: fit(make_pipeline(PolynomialFeatures(), Ridge()), "number")[0],
            ["step 'polynomialfeatures'", "PolynomialFeatures", "pipeline[-1]"],
        ),
        (lambda: GridSearchCV(Ridge(), {"alpha": [1.0]}), ["GridSearchCV", "best_estimator_"]),
        (lambda: no_steps(), ["Pipeline", "it has no steps"]),
        (lambda: of_another_activation(), ["MLPRegressor", "unknown activation 'sine'"]),
        (lambda: fit(Contrary(max_iter=5), "binary")[0], ["Contrary", "predict gives", "here and"]),
        (lambda: object(), ["object", "MLPClassifier"]),
        (lambda: Ridge, ["Ridge", "the class", "fitted object"]),
    ],
    ids=[
        "model",
        "not fitted",
        "scaler not fitted",
        "transformer",
        "search",
        "no steps",
        "activation",
        "other labels",
        "object",
        "class",
    ],
)
def test_refusals_name_the_estimator_and_what_to_do(model, words):
    with pytest.raises(fl.ConversionError) as info:
        fl.from_sklearn(model())
    assert not [word for word in words if word not in str(info.value)]


def test_one_versus_rest_of_older_versions():
    model, x = fit(LogisticRegression(), "multiclass")
    model.multi_class = "ovr"  # as in scikit-learn before 1.8; later ones don't look at it
    standin = fl.from_sklearn(model, verify=False)
    np.testing.assert_allclose(standin(x), model.decision_function(x), rtol=1e-12)
    each = 1 / (1 + np.exp(-model.decision_function(x)))
    expected = each / each.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(standin.predict_proba(x), expected, rtol=1e-12)
    if not np.allclose(model.predict_proba(x), expected):
        with pytest.raises(fl.ConversionError, match="predict_proba gives"):
            fl.from_sklearn(model)


def test_binary_multinomial_of_older_versions():
    model, x = fit(LogisticRegression(), "binary")
    p = fl.from_sklearn(model).predict_proba(x)
    model.multi_class = "multinomial"  # softmax over (-z, z): the odds are squared
    squared = fl.from_sklearn(model, verify=False).predict_proba(x)
    odds = np.divide(*p.T[::-1]) ** 2
    np.testing.assert_allclose(squared[:, 1], odds / (1 + odds), rtol=1e-12)


class Doubled(MLPRegressor):
    def predict(self, X):
        return 2 * super().predict(X)


def test_a_subclass_that_predicts_otherwise_is_refused():
    model, _ = fit(Doubled(hidden_layer_sizes=(4,), max_iter=5, random_state=0), "number")
    with pytest.raises(fl.ConversionError, match="more than rounding"):
        fl.from_sklearn(model)
    assert fl.from_sklearn(model, verify=False).verification is None
