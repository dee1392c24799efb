"""Estimators of scikit-learn: `from_sklearn`; the stand-ins that it returns are in `_standins`.

scikit-learn is never imported: estimators are recognised by the names of their classes and read
through their fitted attributes.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._activations import SKLEARN
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Draft, Point
from fastlayer.convert._prove import prove
from fastlayer.convert._standins import Classifier, Regressor
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType

_MODELS = (
    "MLPClassifier, MLPRegressor, LinearRegression, Ridge, LogisticRegression, and a Pipeline of "
    "StandardScaler, MinMaxScaler, MaxAbsScaler or RobustScaler and one of these"
)
_INSTEAD = {
    "GridSearchCV": "convert the estimator that it found, its best_estimator_",
    "RandomizedSearchCV": "convert the estimator that it found, its best_estimator_",
    "TransformedTargetRegressor": "convert its regressor_, and transform the targets yourself",
}


def from_sklearn(estimator: Any, *, verify: bool = True) -> Classifier | Regressor:
    """Make a stand-in for a fitted estimator of scikit-learn, or for a Pipeline that ends in one.

    Handles MLPClassifier (two classes, several, several labels), MLPRegressor, LinearRegression,
    Ridge and LogisticRegression; in front of these a Pipeline may have StandardScaler,
    MinMaxScaler, MaxAbsScaler and RobustScaler, which are folded into the first layer. The weights
    are copied.

    Parameters
    ----------
    estimator : scikit-learn estimator
        A fitted one.
    verify : bool
        Run both on random and edge inputs, and compare probabilities, predictions and labels.

    Returns
    -------
    Classifier or Regressor
        With `predict`, for classifiers `predict_proba` and `classes_`, and ``network``. The network
        has the dtype of the estimator's weights; results have scikit-learn's, which is float64
        where the weights or `x` are.

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
    steps, final = _steps(estimator)
    place = _place(final)
    reader = _READERS.get(_kind_of(final))
    if reader is None:
        raise ConversionError(place, _INSTEAD.get(_kind_of(final), f"from_sklearn takes {_MODELS}"))
    affines = [_scaler(name, step) for name, step in steps]
    try:
        parts, dtype = reader(final)
    except AttributeError as error:
        raise ConversionError(place, f"it is not fitted ({error}); call fit first") from None
    point = Point().then(part for group in (*affines, parts) for part in group)
    net = Draft(point, dtype, place, parts[0].in_features).network()
    standin = _standin(final, net, bool(steps))
    if verify:
        _verify(standin, estimator, place)
    return standin


def _kind_of(estimator: Any) -> str:
    """Return the name of scikit-learn's class that an object is of, or derived from."""
    for kind in type(estimator).__mro__:
        if kind.__module__.split(".")[0] == "sklearn":
            return kind.__name__
    return ""


def _place(estimator: Any, name: str = "") -> str:
    kind = f"{'sklearn ' if _kind_of(estimator) else ''}{type(estimator).__name__}"
    return f"step {name!r} ({kind})" if name else kind


def _steps(estimator: Any) -> tuple[list[tuple[str, Any]], Any]:
    if _kind_of(estimator) != "Pipeline":
        return [], estimator
    steps = [(n, s) for n, s in estimator.steps if s is not None and s != "passthrough"]
    if not steps:
        raise ConversionError("sklearn Pipeline", "it has no steps")
    inner, final = _steps(steps[-1][1])
    return [*steps[:-1], *inner], final


def _scaler(name: str, step: Any) -> list[Any]:
    """Return what a transformer does, as steps of `_graph`."""
    kind, place = _kind_of(step), _place(step, name)
    try:
        if kind == "StandardScaler":
            return [_centred(step.with_mean, step.mean_, step.with_std, step.scale_)]
        if kind == "RobustScaler":
            return [_centred(step.with_centering, step.center_, step.with_scaling, step.scale_)]
        if kind == "MaxAbsScaler":
            scaled: list[Any] = [_centred(False, None, True, step.scale_)]
            limits = (-1.0, 1.0)
        elif kind == "MinMaxScaler":
            scaled, limits = [Affine.of(step.scale_, step.min_)], step.feature_range
        else:
            raise ConversionError(
                place,
                f"from_sklearn takes {_MODELS}; transform the data yourself and convert the rest: "
                "fl.from_sklearn(pipeline[-1])",
            )
    except AttributeError as error:
        raise ConversionError(place, f"it is not fitted ({error}); call fit first") from None
    if getattr(step, "clip", False):
        scaled.append(Activation("hardtanh", min_val=limits[0], max_val=limits[1]))
    return scaled


def _centred(with_centre: bool, centre: Any, with_scale: bool, scale: Any) -> Affine:
    factor = 1 / np.asarray(scale, np.float64) if with_scale else np.ones(())
    offset = np.asarray(centre, np.float64) if with_centre else np.zeros(())
    return Affine.of(factor, -offset * factor)


def _mlp(model: Any) -> tuple[list[Any], DType]:
    names = [model.activation] * (len(model.coefs_) - 1) + [model.out_activation_]
    for name in names:
        if name not in SKLEARN:
            raise ConversionError(_place(model), f"unknown activation {name!r}")
    layers = [
        Layer.from_arrays(w, b, SKLEARN[name].make(lambda _, default: default), layout="in_out")
        for w, b, name in zip(model.coefs_, model.intercepts_, names, strict=True)
    ]
    return list(layers), layers[0].dtype


def _linear(model: Any) -> tuple[list[Any], DType]:
    layer = _dense(model.coef_, model.intercept_, None)
    return [layer], layer.dtype


def _logistic(model: Any) -> tuple[list[Any], DType]:
    weight, bias, classes = model.coef_, model.intercept_, model.classes_
    scheme = getattr(model, "multi_class", "auto")  # before scikit-learn 1.8
    if len(classes) > 2:
        if scheme == "ovr" or getattr(model, "solver", "") == "liblinear":
            raise ConversionError(
                _place(model),
                "one-versus-rest probabilities, sigmoids divided by their sum, are no activation "
                "of a network; fit it with multi_class='multinomial' (another solver than "
                "liblinear), or take the scores: fl.Layer.from_arrays(coef_, intercept_)",
            )
        layer = _dense(weight, bias, "softmax")
    elif scheme == "multinomial":  # softmax over (-z, z) is sigmoid(2 z); the 2 is exact
        layer = _dense(2 * weight, 2 * np.asarray(bias), "sigmoid")
    else:
        layer = _dense(weight, bias, "sigmoid")
    return [layer], layer.dtype


def _dense(weight: Any, bias: Any, activation: str | None) -> Layer:
    w = np.atleast_2d(weight.toarray() if hasattr(weight, "toarray") else weight)
    b = np.asarray(bias)
    return Layer.from_arrays(w, np.broadcast_to(b, (len(w),)).astype(w.dtype), activation)


_READERS: dict[str, Callable[[Any], tuple[list[Any], DType]]] = {
    "MLPClassifier": _mlp,
    "MLPRegressor": _mlp,
    "LinearRegression": _linear,
    "Ridge": _linear,
    "LogisticRegression": _logistic,
}


def _standin(model: Any, net: Network, floats: bool) -> Classifier | Regressor:
    kind = _kind_of(model)
    if kind == "MLPRegressor":
        return Regressor(net, net.out_features == 1, floats)
    if kind != "MLPClassifier" and kind != "LogisticRegression":
        return Regressor(net, np.ndim(model.coef_) == 1, floats)
    classes = np.array(model.classes_)
    if kind == "LogisticRegression":
        return Classifier(
            net, floats, classes, "multiclass" if len(classes) > 2 else "binary", True
        )
    return Classifier(net, floats, classes, model._label_binarizer.y_type_, False)


def _verify(standin: Classifier | Regressor, estimator: Any, place: str) -> None:
    """Compare the network with the estimator, and then the labels of both."""

    def reference(x: Array) -> Array:
        if not isinstance(standin, Classifier):
            return np.asarray(estimator.predict(x)).reshape(len(x), -1)
        p = np.asarray(estimator.predict_proba(x))
        if standin._kind != "binary":
            return p
        return p[:, 1:]

    with warnings.catch_warnings():
        # The probe has no column names; scikit-learn says so where the training data had some.
        warnings.simplefilter("ignore")
        net = standin.network
        net._verification = prove(net, reference, source=place)
        if isinstance(standin, Classifier):
            _verify_labels(standin, estimator, place)


def _verify_labels(standin: Classifier, estimator: Any, place: str) -> None:
    """The labels of a few rows must be the estimator's own, away from ties."""
    x = np.random.default_rng(1).standard_normal((64, standin.n_features_in_))
    x = x.astype(standin.network.dtype)
    p = standin.predict_proba(x)
    if standin._kind == "multilabel-indicator":
        margin = np.abs(p - 0.5).min(axis=-1)
    else:
        top = np.sort(p, axis=-1)[:, -2:]
        margin = top[:, 1] - top[:, 0]
    clear = margin > 1024 * np.finfo(p.dtype).eps
    ours, theirs = standin.predict(x)[clear], np.asarray(estimator.predict(x))[clear]
    if not np.array_equal(ours, theirs):
        row = int(np.flatnonzero((ours != theirs).reshape(len(ours), -1).any(axis=1))[0])
        raise ConversionError(
            place, f"predict gives {ours[row]!r} here and {theirs[row]!r} in the estimator"
        )
