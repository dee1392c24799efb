"""Estimators of scikit-learn: `from_sklearn`, and the stand-ins that it returns.

scikit-learn is never imported: estimators are recognised by the names of their classes and read
through their fitted attributes.
"""

from __future__ import annotations

import warnings
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np

from fastlayer.convert._graph import Draft, Point
from fastlayer.convert._prove import prove
from fastlayer.convert._rounding import rounding_bound
from fastlayer.convert._sklearn.columns import Filled, computes, likely, lowered
from fastlayer.convert._sklearn.estimator import first_of, kind_of, seen
from fastlayer.convert._sklearn.models import model_of
from fastlayer.convert._sklearn.stand_in import Classifier, Regressor
from fastlayer.convert._sklearn.tables import table_of
from fastlayer.convert._sklearn.transformers import named_columns
from fastlayer.errors import ConversionError
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.convert._sklearn.models import Model

    Run = Callable[[str, Array], Array]

    # What tells estimators apart. A pipeline has `classes_`, too, whatever its last step is.
    class _Pipeline(Protocol):
        @property
        def steps(self) -> Any: ...

    class _Classifier(Protocol):
        @property
        def classes_(self) -> Any: ...


__all__ = ["Classifier", "Regressor", "from_sklearn"]


@overload
def from_sklearn(estimator: _Pipeline, *, verify: bool = ...) -> Classifier | Any: ...
@overload
def from_sklearn(estimator: _Classifier, *, verify: bool = ...) -> Classifier: ...
@overload
def from_sklearn(estimator: object, *, verify: bool = ...) -> Regressor: ...
def from_sklearn(estimator: Any, *, verify: bool = True) -> Any:
    """Make a stand-in for a fitted estimator of scikit-learn, or for a Pipeline that ends in one.

    Handles MLPClassifier (two classes, several, several labels) and MLPRegressor, linear models
    and linear support vector machines, and TransformedTargetRegressor. In front of these a
    Pipeline may have transformers that scale, select or project features: the scalers, PCA and
    its kin, feature selection, imputers, and ColumnTransformer, FeatureUnion and Pipeline of such.
    The weights are copied.

    Parameters
    ----------
    estimator : scikit-learn estimator
        A fitted one.
    verify : bool
        Run both on random and edge inputs, and compare probabilities, predictions and labels.

    Returns
    -------
    Classifier or Regressor
        With `predict` and `score`; for classifiers `classes_`, and `predict_proba`,
        `predict_log_proba` and `decision_function` where the estimator has them; and ``network``.
        The network has the dtype of the estimator's weights; results have scikit-learn's, which is
        float64 where the weights or `x` are.

    Raises
    ------
    ConversionError
        Another estimator, one that is not fitted, or results that differ by more than rounding.

    Examples
    --------
    >>> import fastlayer as fl
    >>> from sklearn.linear_model import LinearRegression
    >>> model = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
    >>> fl.from_sklearn(model).predict([[2.0]])
    array([5.])
    """
    if isinstance(estimator, type):
        raise ConversionError(estimator.__name__, "this is the class; give a fitted object of it")
    model = model_of(estimator)
    first, dtype = first_of(estimator), model.dtype
    width = int(seen(first, "n_features_in_") or model.layers[0].in_features)
    names = seen(first, "feature_names_in_")
    steps, features = lowered(model.steps, width, dtype, model.place)
    if not features:
        raise ConversionError(model.place, "the transformers in front of it leave no features")
    draft = Draft(Point().then([*steps, *model.layers]), dtype, model.place, width)
    net = draft.network()
    if model.function is not None:
        net = Network([*net, model.function])
    options = {"floats": computes(model.steps), **model.options}
    made: Regressor = (Classifier if "classes" in options else Regressor)(net, **options)
    made._behind(width, names, named_columns(first), Filled(model.steps, width))
    if verify:
        tables = kind_of(first) in ("ColumnTransformer", "FeatureUnion") and names is not None
        _verify(made, estimator, model, width, names if tables else None)
    return made


def _verify(made: Regressor, estimator: Any, model: Model, width: int, names: Array | None) -> None:
    """Compare with the estimator, which gets tables with columns of these names."""

    def run(method: str, x: Array) -> Array:
        rows = x if names is None else table_of(x, names, model.place)
        return np.asarray(getattr(estimator, method)(rows))

    net, rows = made.network, likely(model.steps, width, np.random.default_rng(1))
    # Rows of the probe may overflow between two steps, which scikit-learn would look for.
    finite = import_module("sklearn").config_context(assume_finite=True)
    with warnings.catch_warnings(), finite:
        # The probe has no column names; scikit-learn says so where the training data had some.
        warnings.simplefilter("ignore")
        reference = partial(_outputs, run, model.options)
        net._verification = prove(net, reference, source=model.place, inputs=rows)
        if made._fills is not None:
            _verify_filling(made, reference, model.place, rows.astype(net.dtype))
        if isinstance(made, Classifier):
            _verify_labels(made, run, model.place, rows.astype(net.dtype))


def _outputs(run: Run, options: dict[str, Any], x: Array) -> Array:
    """Return the network's outputs as the estimator gives them."""
    if "classes" not in options:
        return run("predict", x).reshape(len(x), -1)
    if options.get("link", "network") != "network":
        return run("decision_function", x).reshape(len(x), -1)
    p = run("predict_proba", x)
    return p[:, 1:] if options["kind"] == "binary" else p


def _verify_filling(
    standin: Regressor, reference: Callable[[Array], Array], place: str, x: Array
) -> None:
    """Rows with NaN must give what they give in the estimator, but for rounding."""
    assert standin._fills is not None
    gone = np.random.default_rng(2).random(x.shape) < 0.3
    x[gone & ~np.isnan(standin._fills)] = np.nan
    net, filled = standin.network, standin._filled(x)
    wrong = ~(np.abs(net(filled) - reference(x)) <= rounding_bound(net, filled)).all(axis=1)
    if wrong.any():
        raise ConversionError(
            place, f"NaN becomes something else than {standin._fills} in the estimator"
        )


def _verify_labels(standin: Classifier, run: Run, place: str, x: Array) -> None:
    """Labels, and probabilities that the network does not give, must be the estimator's own.

    Both are compared as far as they are beyond what the scores differ by, which is proven to be
    rounding.
    """
    method = "decision_function" if hasattr(standin, "decision_function") else "predict_proba"
    scores: Array = getattr(standin, method)(x)
    apart = np.abs(scores - run(method, x)).reshape(len(x), -1).max(axis=1)
    size = np.abs(scores).reshape(len(x), -1).max(axis=1).clip(1)
    apart = 8 * apart + 1024 * np.finfo(x.dtype).eps * size
    wrong = {"predict": standin._margins(x) > apart}
    if standin._link not in ("", "network"):
        with np.errstate(divide="ignore"):
            wrong["predict_proba"] = apart / standin._each(x).sum(axis=1).clip(0, 1)
    for method, beyond in wrong.items():
        ours, theirs = getattr(standin, method)(x), run(method, x)
        if method == "predict":
            found = beyond & (ours != theirs).reshape(len(x), -1).any(axis=1)
        else:
            found = np.abs(ours - theirs).max(axis=1) > beyond
        if found.any():
            row = np.argmax(found)
            raise ConversionError(
                place, f"{method} gives {ours[row]!r} here and {theirs[row]!r} in the estimator"
            )
