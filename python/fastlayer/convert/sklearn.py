"""Estimators of scikit-learn: `from_sklearn`, and the stand-ins that it returns.

scikit-learn is never imported: estimators are recognised by the names of their classes and read
through their fitted attributes.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT64, as_real
from fastlayer.convert._activations import SKLEARN
from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Draft, Point
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array
    from fastlayer.report.verification import Proof

    # The layers of a model, its stand-in, and what that is made with beside the network.
    Read = tuple[list[Layer], type["Regressor"], dict[str, Any]]

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
    scalers, final = _steps(estimator)
    kind, place = _kind_of(final), _place(final)
    if kind not in _READERS:
        raise ConversionError(place, _INSTEAD.get(kind, f"from_sklearn takes {_MODELS}"))
    steps = [step for name, scaler in scalers for step in _scaler(scaler, _place(scaler, name))]
    layers, standin, options = _fitted(_READERS[kind], final, place)
    draft = Draft(Point().then([*steps, *layers]), layers[0].dtype, place, layers[0].in_features)
    with warnings.catch_warnings():
        # The probe has no column names; scikit-learn says so where the training data had some.
        warnings.simplefilter("ignore")
        reference = partial(_outputs, estimator, options.get("kind"))
        rows = _likely(steps, layers[0].in_features)
        net = draft.proved(reference, inputs=rows) if verify else draft.network()
        made: Regressor = standin(net, floats=bool(scalers), **options)
        if hasattr(estimator, "feature_names_in_"):
            made.feature_names_in_ = np.array(estimator.feature_names_in_, object)
        if verify and isinstance(made, Classifier):
            _verify_labels(made, estimator, place, rows)
    return made


def _likely(steps: list[Any], features: int) -> Array:
    """Return rows where the training data lay: normal ones, scaled back."""
    x: Array = np.random.default_rng(1).standard_normal((64, features))
    for step in reversed(steps):
        if isinstance(step, Affine):
            with np.errstate(all="ignore"):
                back = (x - step.shift) / step.scale
                x = back if step.centre is None else x / step.scale + step.centre
    return np.where(np.isfinite(x), x, 0.0)


def _kind_of(estimator: Any) -> str:
    """Return the name of scikit-learn's class that an object is of, or derived from."""
    kinds = (k.__name__ for k in type(estimator).__mro__ if k.__module__.startswith("sklearn."))
    return next(kinds, "")


def _place(estimator: Any, name: str = "") -> str:
    kind = f"{'sklearn ' if _kind_of(estimator) else ''}{type(estimator).__name__}"
    return f"step {name!r} ({kind})" if name else kind


def _steps(estimator: Any) -> tuple[list[tuple[str, Any]], Any]:
    """Return the transformers of a pipeline with their names, and its model."""
    if _kind_of(estimator) != "Pipeline":
        return [], estimator
    steps = [(n, s) for n, s in estimator.steps if s is not None and s != "passthrough"]
    if not steps:
        raise ConversionError("sklearn Pipeline", "it has no steps")
    inner, final = _steps(steps[-1][1])
    return [*steps[:-1], *inner], final


def _fitted(read: Callable[[Any], Any], estimator: Any, place: str) -> Any:
    """Read the attributes that an estimator has where it is fitted."""
    try:
        return read(estimator)
    except AttributeError as error:
        raise ConversionError(place, f"it is not fitted ({error}); call fit first") from None


def _scaler(scaler: Any, place: str) -> list[Any]:
    """Return what a transformer does, as steps of `_graph`."""
    read = _SCALERS.get(_kind_of(scaler))
    if read is None:
        raise ConversionError(
            place,
            f"from_sklearn takes {_MODELS}; transform the data yourself and convert the rest: "
            "fl.from_sklearn(pipeline[-1])",
        )
    steps = [_fitted(read, scaler, place)]
    if getattr(scaler, "clip", False):
        low, high = getattr(scaler, "feature_range", (-1.0, 1.0))
        steps.append(Activation("hardtanh", min_val=low, max_val=high))
    return steps


def _centred(centre: Any, scale: Any, with_centre: Any = True, with_scale: Any = True) -> Affine:
    factor = 1 / np.asarray(scale, np.float64) if with_scale else 1.0
    return Affine.centred(centre if with_centre else 0.0, factor)


_SCALERS: dict[str, Callable[[Any], Affine]] = {
    "MaxAbsScaler": lambda s: _centred(0.0, s.scale_),
    "MinMaxScaler": lambda s: Affine.of(s.scale_, s.min_),
    "RobustScaler": lambda s: _centred(s.center_, s.scale_, s.with_centering, s.with_scaling),
    "StandardScaler": lambda s: _centred(s.mean_, s.scale_, s.with_mean, s.with_std),
}


def _mlp(model: Any) -> Read:
    names = [model.activation] * (len(model.coefs_) - 1) + [model.out_activation_]
    for name in names:
        if name not in SKLEARN:
            raise ConversionError(_place(model), f"unknown activation {name!r}")
    layers = [
        Layer.from_arrays(w, b, SKLEARN[name].name, layout="in_out")
        for w, b, name in zip(model.coefs_, model.intercepts_, names, strict=True)
    ]
    if _kind_of(model) == "MLPRegressor":
        return layers, Regressor, {"flat": layers[-1].out_features == 1}
    kind = model._label_binarizer.y_type_
    return layers, Classifier, {"classes": np.array(model.classes_), "kind": kind}


def _linear(model: Any) -> Read:
    layer = _dense(model.coef_, model.intercept_, None)
    return [layer], Regressor, {"flat": np.ndim(model.coef_) == 1}


def _logistic(model: Any) -> Read:
    weight, bias, classes = model.coef_, np.asarray(model.intercept_), np.array(model.classes_)
    scheme = getattr(model, "multi_class", "auto")  # before scikit-learn 1.8
    kind, activation = "binary", "sigmoid"
    if len(classes) > 2:
        kind, activation = "multiclass", "softmax"
        if scheme == "ovr" or getattr(model, "solver", "") == "liblinear":
            raise ConversionError(
                _place(model),
                "one-versus-rest probabilities, sigmoids divided by their sum, are no activation "
                "of a network; fit it with multi_class='multinomial' (another solver than "
                "liblinear), or take the scores: fl.Layer.from_arrays(coef_, intercept_)",
            )
    elif scheme == "multinomial":  # softmax over (-z, z) is sigmoid(2 z); the 2 is exact
        weight, bias = 2 * weight, 2 * bias
    layer = _dense(weight, bias, activation)
    return [layer], Classifier, {"classes": classes, "kind": kind, "scores": True}


def _dense(weight: Any, bias: Any, activation: str | None) -> Layer:
    w = np.atleast_2d(weight.toarray() if hasattr(weight, "toarray") else weight)
    b = np.asarray(bias)
    return Layer.from_arrays(w, np.broadcast_to(b, (len(w),)).astype(w.dtype), activation)


_READERS: dict[str, Callable[[Any], Read]] = {
    "LinearRegression": _linear,
    "LogisticRegression": _logistic,
    "MLPClassifier": _mlp,
    "MLPRegressor": _mlp,
    "Ridge": _linear,
}


def _names(x: Any) -> Array | None:
    """Return the names of a table's columns, None where they are no names or `x` is no table."""
    names = getattr(x, "column_names", getattr(x, "columns", None))
    if names is None or isinstance(x, np.ndarray):
        return None
    names = np.asarray(names, object)
    text = [isinstance(name, str) for name in names]
    if any(text) and not all(text):
        raise TypeError(
            "feature names are used where all of them are text; here some are not: give the columns "
            "names with x.columns = x.columns.astype(str)"
        )
    return names if text and all(text) else None


def _check_names(standin: Regressor, x: Any) -> None:
    """Refuse a table whose columns are not those of the training data, in their order."""
    known, names = getattr(standin, "feature_names_in_", None), _names(x)
    kind = type(standin).__name__
    if known is None and names is None:
        return
    if known is None or names is None:
        here, there = ("no ", "with") if names is None else ("", "without")
        warnings.warn(
            f"x has {here}feature names, but this {kind} was fitted {there} feature names",
            UserWarning,
            stacklevel=4,
        )
        return
    if len(names) == len(known) and (names == known).all():
        return
    missing, unseen = [n for n in known if n not in names], [n for n in names if n not in known]
    parts = [
        f"{title} {', '.join(map(repr, found[:5]))}{', ...' if len(found) > 5 else ''}"
        for title, found in (("missing", missing), ("not seen at fit", unseen))
        if found
    ]
    what = "; ".join(parts) or (
        f"they are the same in another order, {', '.join(map(repr, names[:8]))}; take "
        "x[list(model.feature_names_in_)]"
    )
    raise ValueError(
        f"the feature names of x must be those of the training data, "
        f"{', '.join(map(repr, known[:8]))}{', ...' if len(known) > 8 else ''}: {what}"
    )


def _outputs(estimator: Any, kind: str | None, x: Array) -> Array:
    """Return the network's outputs as the estimator gives them; `kind` is that of a classifier."""
    if kind is None:
        return np.asarray(estimator.predict(x)).reshape(len(x), -1)
    p = np.asarray(estimator.predict_proba(x))
    return p[:, 1:] if kind == "binary" else p


def _verify_labels(standin: Classifier, estimator: Any, place: str, rows: Array) -> None:
    """The labels of a few rows must be the estimator's own, away from ties."""
    x = rows.astype(standin.network.dtype)
    p = standin.predict_proba(x)
    if standin._kind == "multilabel-indicator":
        margin = np.abs(p - 0.5).min(axis=-1)
    else:
        margin = np.ptp(np.sort(p, axis=-1)[:, -2:], axis=-1)
    clear = margin > 1024 * np.finfo(p.dtype).eps
    ours, theirs = standin.predict(x), np.asarray(estimator.predict(x))
    wrong = np.flatnonzero(clear & (ours != theirs).reshape(len(x), -1).any(axis=1))
    if wrong.size:
        row = wrong[0]
        raise ConversionError(
            place, f"predict gives {ours[row]!r} here and {theirs[row]!r} in the estimator"
        )


class Regressor:
    """Stand-in for a fitted regressor; calling it runs `network`.

    Attributes
    ----------
    network : Network
        The forward pass, scalers included: (..., n_features) to (..., n_outputs).
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the columns, where the estimator was fitted to a table that had them.
    verification : Proof or None
        How far it was from the estimator on the probe, where it was verified.
    """

    __module__ = "fastlayer"  # where pickles find it
    feature_names_in_: Array

    def __init__(self, network: Network, flat: bool, floats: bool) -> None:
        self.network = network
        self._flat = flat  # one output, and no axis for it
        self._floats = floats  # a scaler makes integers float64
        # Networks made of it, and the versions of the layers that they were made from.
        self._made: dict[tuple[bool, bool], tuple[list[int], Network]] = {}

    @property
    def verification(self) -> Proof | None:
        """How far `network` was from the estimator on the probe, where it was verified."""
        return self.network.verification

    @property
    def n_features_in_(self) -> int:
        """Number of features that a row has."""
        return self.network.in_features or 0

    def __call__(self, x: ArrayLike) -> Array:
        """Run the network, in the dtype of the estimator's weights.

        Parameters
        ----------
        x : array_like or table
            Shape (..., n_features).

        Returns
        -------
        ndarray
            Shape (..., n_outputs): values, or probabilities.

        Raises
        ------
        ValueError
            Another number of features, or columns of other names.
        """
        _check_names(self, x)
        return self.network(x)

    def predict(self, x: ArrayLike) -> Array:
        """Return the predictions of the estimator.

        Parameters
        ----------
        x : array_like
            Shape (n_samples, n_features). float64 beside float32 weights gives float64, as in
            scikit-learn.

        Returns
        -------
        ndarray
            Shape (n_samples,) or (n_samples, n_outputs).

        Raises
        ------
        ValueError
            Another number of features.
        TypeError
            A sparse matrix, strings or objects.
        """
        y = self._run(x)
        return y[..., 0] if self._flat else y

    def _run(self, x: ArrayLike, scores: bool = False) -> Array:
        """Run the network in the dtype of scikit-learn; `scores` are without the last activation."""
        _check_names(self, x)
        a, net = as_real(x), self.network
        given = a.dtype if a.dtype.kind == "f" or not self._floats else FLOAT64
        wide = given != net.dtype and not np.can_cast(given, net.dtype)
        if wide or scores:
            net = self._variant(wide, scores)
        return net(a)

    def _variant(self, wide: bool, scores: bool) -> Network:
        """Return the network in float64, or without its last activation; it is kept while it holds."""
        net: Any = self.network
        versions = [part._version.value for part in net if isinstance(part, Layer)]
        known, made = self._made.get((wide, scores), (None, net))
        if known != versions:
            *parts, last = net
            if scores:
                last = Layer.from_arrays(last.weight, last.bias, dtype=last.dtype)
            made = Network([*parts, last]).astype(FLOAT64 if wide else net.dtype)
            self._made[wide, scores] = versions, made
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_made": {}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.network!r})"


class Classifier(Regressor):
    """Stand-in for a fitted classifier; calling it runs `network`.

    Attributes
    ----------
    network : Network
        The forward pass, scalers included: (..., n_features) to probabilities. Two classes have
        one output, the probability of ``classes_[1]``.
    classes_ : ndarray
        The labels, in the order of the probabilities.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the columns, where the estimator was fitted to a table that had them.
    verification : Proof or None
        How far it was from the estimator on the probe, where it was verified.
    """

    __module__ = "fastlayer"

    def __init__(
        self, network: Network, floats: bool, classes: Array, kind: str, scores: bool = False
    ) -> None:
        super().__init__(network, False, floats)
        self.classes_ = classes
        self._kind = kind  # "binary", "multiclass" or "multilabel-indicator"
        self._by_scores = scores  # labels come from the sums, before sigmoid or softmax

    def predict_proba(self, x: ArrayLike) -> Array:
        """Return the probability of every class; of every label where there can be several.

        Parameters
        ----------
        x : array_like
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples, n_classes).
        """
        p = self._run(x)
        return np.concatenate([1 - p, p], axis=-1) if self._kind == "binary" else p

    def predict(self, x: ArrayLike) -> Array:
        """Return the labels, as the estimator does.

        Parameters
        ----------
        x : array_like
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples,), elements of `classes_`; where a sample can have several labels,
            (n_samples, n_classes) of 0 and 1.

        Raises
        ------
        ValueError
            Another number of features, or NaN in a result, which belongs to no class.
        """
        y = self._run(x, self._by_scores)
        lost = np.isnan(y).any(axis=-1)
        if lost.any():
            raise ValueError(
                f"predict: {int(lost.sum())} of {lost.size} rows give NaN, which is no class; look "
                "for NaN or infinity in x"
            )
        if self._kind == "multiclass":
            labels: Array = self.classes_[np.argmax(y, axis=-1)]
            return labels
        above = (y > (0.0 if self._by_scores else 0.5)).astype(np.int64)
        if self._kind == "binary":
            return self.classes_[np.minimum(above[..., 0], len(self.classes_) - 1)]
        return above
