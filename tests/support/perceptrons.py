"""Our perceptrons beside scikit-learn's: samples, pairs, and what is compared."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
import sklearn
import sklearn.neural_network as theirs
from helpers import assert_same_bits
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    make_multilabel_classification,
    make_regression,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale

import fastlayer.sklearn as ours

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
KINDS = ["MLPClassifier", "MLPRegressor"]
REGRESSIONS = ("diabetes", "outputs", "counts")
# What is said of a fitted estimator.
NUMBERS = ["loss_curve_", "loss_", "best_loss_", "validation_scores_", "best_validation_score_"]
WORDS = ["n_iter_", "t_", "n_layers_", "n_outputs_", "n_features_in_", "out_activation_"]


def since(version, what):
    """Skips where scikit-learn has nothing to compare with yet."""
    return pytest.mark.skipif(
        version > VERSION, reason=f"scikit-learn before {version[0]}.{version[1]} has no {what}"
    )


WEIGHED = since((1, 7), "sample_weight")
POISSON = since((1, 7), "poisson")


@cache
def samples(name, dtype=np.float64):
    """Samples and targets; of REGRESSIONS numbers, else labels."""
    rng = np.random.RandomState(3)
    if name in ("cancer", "strings"):
        x, y = load_breast_cancer(return_X_y=True)
        x, y = scale(x)[:300], y[:300]
        if name == "strings":
            y = np.where(y, "benign", "malignant")
    elif name == "diabetes":
        x, y = load_diabetes(return_X_y=True)
        x, y = scale(x), scale(y)
    elif name == "labels":
        x, y = make_multilabel_classification(n_samples=150, n_classes=4, random_state=0)
        x = scale(x)
    elif name == "outputs":
        x, y = make_regression(n_samples=150, n_features=6, n_targets=3, random_state=0)
        y = scale(y)
    elif name == "counts":
        x = rng.uniform(-1, 1, size=(200, 3))
        y = rng.poisson(np.exp(1 + x @ [0.5, -0.25, 1])).astype(float)
    else:
        assert name == "digits"
        x, y = load_digits(return_X_y=True)
        x, y = x[:330] / 16, y[:330]
    x = x.astype(dtype)
    for a in (x, y):  # they are shared
        a.setflags(write=False)
    return x, y


def kind_of(name):
    return KINDS[name in REGRESSIONS]


def made(name, module=ours, **parameters):
    """An estimator for these samples, not fitted; small, with a seed."""
    given = {"hidden_layer_sizes": (12, 7), "random_state": 5, "max_iter": 20, **parameters}
    return getattr(module, kind_of(name))(**given)


def pair(name, **parameters):
    """Ours and theirs."""
    return made(name, **parameters), made(name, theirs, **parameters)


def calm(call, *args, **options):
    """Call, where it is no fault that epochs are few."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return call(*args, **options)


def fitted(estimators, x, y, **options):
    for estimator in estimators:
        calm(estimator.fit, x, y, **options)
    return estimators


def assert_alike(mine, other, x, rtol=1e-9, atol=1e-12):
    """All that a fitted estimator says of itself, and predictions."""
    for name in NUMBERS + WORDS:
        assert hasattr(mine, name) == hasattr(other, name), name
        got, wanted = getattr(mine, name, None), getattr(other, name, None)
        assert type(got) is type(wanted) or isinstance(got, float | int), name
        if name in WORDS or wanted is None:
            assert got == wanted, name
        else:
            np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol, err_msg=name)
    for name in ("coefs_", "intercepts_"):
        assert isinstance(getattr(mine, name), list)
        for got, wanted in zip(getattr(mine, name), getattr(other, name), strict=True):
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
            np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol, err_msg=name)
    for name in ("predict", "predict_proba", "predict_log_proba"):
        assert hasattr(mine, name) == hasattr(other, name), name
        if hasattr(mine, name):
            got, wanted = getattr(mine, name)(x), getattr(other, name)(x)
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
            if hasattr(mine, "classes_") and name == "predict":
                np.testing.assert_array_equal(got, wanted)
                np.testing.assert_array_equal(mine.classes_, other.classes_)
            elif name == "predict_log_proba":  # 1 - p has the rounding of p
                lost = atol * np.exp(-wanted)
                np.testing.assert_array_less(abs(got - wanted), rtol * abs(wanted) + lost)
            else:
                np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol, err_msg=name)


def weights(estimator):
    return [*estimator.coefs_, *estimator.intercepts_]


def assert_same_weights(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        assert_same_bits(a, b)
