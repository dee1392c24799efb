"""The models of scikit-learn that are dense networks, and what their outputs mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert._activations import SKLEARN
from fastlayer.convert._affine import Affine
from fastlayer.convert._sklearn.estimator import fitted, kind_of, place_of, steps_of
from fastlayer.convert._sklearn.transformers import scaling, steps_for
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation
from fastlayer.network.layer import Layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.names import ActivationName

_MODELS = (
    "MLPClassifier, MLPRegressor, the linear models and linear support vector machines of "
    "scikit-learn, TransformedTargetRegressor of such a regressor, and a Pipeline of transformers "
    "and one of these"
)
_INSTEAD = {
    "GridSearchCV": "convert the estimator that it found, its best_estimator_",
    "RandomizedSearchCV": "convert the estimator that it found, its best_estimator_",
}
_BY_HAND = "convert its regressor_, and transform the predictions yourself"


class Model(NamedTuple):
    """A fitted estimator: transformers, the layers behind them, and how to make a stand-in.

    `place` is what messages call it. `options` are the stand-in's; those of a classifier have
    `classes`. `function` is applied to the outputs.
    """

    place: str
    steps: list[Any]  # of `columns`
    layers: list[Any]
    options: dict[str, Any]
    function: np.ufunc | None = None

    @property
    def dtype(self) -> Any:
        """Return that of the weights."""
        return self.layers[0].dtype


def model_of(estimator: Any, name: str = "") -> Model:
    """Read a fitted estimator, which may be a Pipeline.

    Raises
    ------
    ConversionError
        It is not fitted, or is nothing that a network computes.
    """
    kind, place = kind_of(estimator), place_of(estimator, name)
    if kind == "Pipeline":
        return _pipeline(estimator)
    if kind == "TransformedTargetRegressor":
        return fitted(_targets, estimator, place)  # type: ignore[no-any-return]
    if kind == "RANSACRegressor":
        inner: Model = fitted(lambda e: model_of(e.estimator_), estimator, place)
        return inner._replace(place=place)
    if kind not in _READERS:
        raise ConversionError(place, _INSTEAD.get(kind, f"from_sklearn takes {_MODELS}"))
    layers, options = fitted(_READERS[kind], estimator, place)
    return Model(place, [], layers, options)


def _pipeline(pipeline: Any) -> Model:
    steps = steps_of(pipeline)
    if not steps:
        raise ConversionError("sklearn Pipeline", "it has no steps")
    *before, (_, final) = steps
    found = [step for name, transformer in before for step in steps_for(transformer, name)]
    model = model_of(final)
    return model._replace(steps=[*found, *model.steps])


def _targets(estimator: Any) -> Model:
    """Read a regressor whose predictions are transformed back."""
    model = model_of(estimator.regressor_)
    back, function = _inverse(estimator.transformer_), None
    if back and isinstance(back[-1], np.ufunc):
        *back, function = back
    inner = [step for step in (*back, model.function) if isinstance(step, np.ufunc)]
    if inner:
        raise ConversionError(
            place_of(estimator),
            f"its predictions go through {inner[0]!r} before something else; {_BY_HAND}",
        )
    outputs = [part.out_features for part in model.layers if isinstance(part, Layer)][-1]
    return model._replace(
        place=place_of(estimator),
        layers=[*model.layers, *back],
        options={"flat": estimator._training_dim == 1 and outputs == 1},
        function=function,
    )


_INVERSES: dict[str, Callable[[Any], Affine]] = {
    "MaxAbsScaler": lambda s: Affine.of(s.scale_),
    "MinMaxScaler": lambda s: scaling(s.min_, s.scale_),
    "RobustScaler": lambda s: _unscaled(s.center_, s.scale_, s.with_centering, s.with_scaling),
    "StandardScaler": lambda s: _unscaled(s.mean_, s.scale_, s.with_mean, s.with_std),
}


def _unscaled(centre: Any, scale: Any, with_centre: bool, with_scale: bool) -> Affine:
    return Affine.of(scale if with_scale else 1.0, centre if with_centre else 0.0)


def _inverse(transformer: Any) -> list[Any]:
    """Return what takes scaled targets back: scalings and functions of NumPy."""
    kind = kind_of(transformer)
    if kind == "Pipeline":
        return [s for _, inner in reversed(steps_of(transformer)) for s in _inverse(inner)]
    function = getattr(transformer, "inverse_func", None)
    if kind == "FunctionTransformer" and function is None:
        return []
    if isinstance(function, np.ufunc) and function.nargs == 2 and not transformer.inv_kw_args:
        return [Activation("exp") if function is np.exp else function]
    if kind not in _INVERSES:
        what = place_of(transformer) if function is None else repr(function)
        raise ConversionError(
            "sklearn TransformedTargetRegressor",
            f"its targets come from {what}, and can come from a scaler or a function of NumPy, such "
            f"as np.exp; {_BY_HAND}",
        )
    return [_INVERSES[kind](transformer)]


Read = tuple[list[Any], dict[str, Any]]


def _mlp(model: Any) -> Read:
    used = getattr(model, "_layers", None)  # of fastlayer.sklearn
    if used is None:
        names = [model.activation] * (len(model.coefs_) - 1) + [model.out_activation_]
        for name in names:
            if name not in SKLEARN:
                raise ConversionError(place_of(model), f"unknown activation {name!r}")
        used = [SKLEARN[name].name for name in names]
    layers = [
        Layer.from_arrays(w, b, activation, layout="in_out")
        for w, b, activation in zip(model.coefs_, model.intercepts_, used, strict=True)
    ]
    if kind_of(model) == "MLPRegressor":
        return layers, {"flat": layers[-1].out_features == 1}
    kind = model._label_binarizer.y_type_
    return layers, {"classes": np.array(model.classes_), "kind": kind}


def _dense(model: Any, activation: ActivationName | None = None, factor: int = 1) -> Layer:
    weight, bias = model.coef_, model.intercept_
    w = np.atleast_2d(weight.toarray() if hasattr(weight, "toarray") else weight)
    dtype = np.result_type(w, bias)  # that of their sum: SGD has float64 beside float32
    b = np.broadcast_to(np.asarray(bias, dtype), (len(w),))
    return Layer.from_arrays(factor * w.astype(dtype), factor * b, activation)


def _linear(model: Any) -> Read:
    return [_dense(model)], {"flat": np.ndim(model.coef_) == 1}


def _generalised(model: Any) -> Read:
    """Read a model with a link; `power` is that of the Tweedie deviance, which is its score."""
    power = {"PoissonRegressor": 1, "GammaRegressor": 2}.get(kind_of(model))
    link = "log"
    if power is None:
        power, link = model.power, model.link
        link = ("log" if power > 0 else "identity") if link == "auto" else link
    layer = _dense(model, "exp" if link == "log" else None)
    return [layer], {"flat": True, "floats": True, "power": power}


def _scores(model: Any) -> Read:
    """Read a classifier whose labels come from scores; `link` makes probabilities of those."""
    classes = np.array(model.classes_)
    binarizer = getattr(model, "_label_binarizer", None)  # RidgeClassifier's
    kind = "binary" if len(classes) <= 2 else "multiclass"
    if getattr(binarizer, "y_type_", "").startswith("multilabel"):
        kind = "multilabel-indicator"
    options = {"classes": classes, "kind": kind, "scores": True, "link": ""}
    loss = getattr(model, "loss", "") if kind_of(model) == "SGDClassifier" else ""
    if loss == "log_loss":
        return _one_versus_rest(model, options)
    if loss == "modified_huber":
        options["link"] = loss
    return [_dense(model)], options


def _one_versus_rest(model: Any, options: dict[str, Any]) -> Read:
    if options["kind"] == "binary":
        return [_dense(model, "sigmoid")], {**options, "link": "network"}
    return [_dense(model)], {**options, "link": "sigmoids"}


def _logistic(model: Any) -> Read:
    classes = np.array(model.classes_)
    options = {"classes": classes, "kind": "binary", "scores": True}
    scheme = getattr(model, "multi_class", "auto")  # before scikit-learn 1.8
    if len(classes) > 2:
        options["kind"] = "multiclass"
        if scheme == "ovr" or getattr(model, "solver", "") == "liblinear":
            return _one_versus_rest(model, options)
        return [_dense(model, "softmax")], options
    if scheme == "multinomial":  # softmax over (-z, z) is sigmoid(2 z); the 2 is exact
        return [_dense(model, "sigmoid", 2)], {**options, "doubled": True}
    return _one_versus_rest(model, options)


def _discriminant(model: Any) -> Read:
    classes = np.array(model.classes_)
    options = {"classes": classes, "kind": "binary", "scores": True, "floor": True}
    if len(classes) <= 2:
        return _one_versus_rest(model, options)
    return [_dense(model, "softmax")], {**options, "kind": "multiclass"}


_READERS: dict[str, Callable[[Any], Read]] = {
    **dict.fromkeys(
        (
            "ARDRegression",
            "BayesianRidge",
            "ElasticNet",
            "ElasticNetCV",
            "HuberRegressor",
            "Lars",
            "LarsCV",
            "Lasso",
            "LassoCV",
            "LassoLars",
            "LassoLarsCV",
            "LassoLarsIC",
            "LinearRegression",
            "LinearSVR",
            "MultiTaskElasticNet",
            "MultiTaskElasticNetCV",
            "MultiTaskLasso",
            "MultiTaskLassoCV",
            "OrthogonalMatchingPursuit",
            "OrthogonalMatchingPursuitCV",
            "PassiveAggressiveRegressor",
            "QuantileRegressor",
            "Ridge",
            "RidgeCV",
            "SGDRegressor",
            "TheilSenRegressor",
        ),
        _linear,
    ),
    **dict.fromkeys(("GammaRegressor", "PoissonRegressor", "TweedieRegressor"), _generalised),
    "LinearDiscriminantAnalysis": _discriminant,
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), _logistic),
    **dict.fromkeys(("MLPClassifier", "MLPRegressor"), _mlp),
    **dict.fromkeys(
        (
            "LinearSVC",
            "PassiveAggressiveClassifier",
            "Perceptron",
            "RidgeClassifier",
            "RidgeClassifierCV",
            "SGDClassifier",
        ),
        _scores,
    ),
}
