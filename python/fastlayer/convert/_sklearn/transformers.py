"""The transformers of scikit-learn that select, scale or project features, as steps."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._affine import Affine
from fastlayer.convert._graph import Dense
from fastlayer.convert._sklearn.columns import Fill, Join, Pick
from fastlayer.convert._sklearn.estimator import fitted, is_skipped, kind_of, place_of, steps_of
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array

_INSTEAD = (
    "transform the data yourself and convert the rest: fl.from_sklearn(pipeline[-1]). Taken are "
    "scalers, selections of features, linear projections such as PCA, imputers, and "
    "ColumnTransformer, FeatureUnion and Pipeline of these"
)
_WHY = {
    "Normalizer": "divides each row by its norm, and leaves rows of zeros as they are",
    "PolynomialFeatures": "multiplies features with each other",
}


def steps_for(transformer: Any, name: str = "") -> list[Any]:
    """Return what a transformer does; `name` is that of the step that it is.

    Raises
    ------
    ConversionError
        It is not fitted, or nothing of this kind can be part of a network.
    """
    if is_skipped(transformer):
        return []
    kind, place = kind_of(transformer), place_of(transformer, name)
    read = _TRANSFORMERS.get(kind)
    if read is None:
        why = f"it {_WHY[kind]}; " if kind in _WHY else ""
        raise ConversionError(place, f"{why}{_INSTEAD}")
    steps: list[Any] = fitted(partial(read, place=place), transformer, place)
    return steps


def scaling(centre: Any, scale: Any, with_centre: Any = True, with_scale: Any = True) -> Affine:
    """Return ``(x - centre) / scale``."""
    factor = 1 / np.asarray(scale, np.float64) if with_scale else 1.0
    return Affine.centred(centre if with_centre else 0.0, factor)


_SCALERS: dict[str, Callable[[Any], Affine]] = {
    "MaxAbsScaler": lambda s: scaling(0.0, s.scale_),
    "MinMaxScaler": lambda s: Affine.of(s.scale_, s.min_),
    "RobustScaler": lambda s: scaling(s.center_, s.scale_, s.with_centering, s.with_scaling),
    "StandardScaler": lambda s: scaling(s.mean_, s.scale_, s.with_mean, s.with_std),
}


def _scaler(s: Any, place: str) -> list[Any]:
    steps: list[Any] = [_SCALERS[kind_of(s)](s)]
    if getattr(s, "clip", False):
        low, high = getattr(s, "feature_range", (-1.0, 1.0))
        steps.append(Activation("hardtanh", min_val=low, max_val=high))
    return steps


def _wide(a: Any) -> Array:
    return np.asarray(a.toarray() if hasattr(a, "toarray") else a, np.float64)


def _projection(t: Any, place: str) -> list[Any]:
    return [Dense(_wide(t.components_))]


def _principal(t: Any, place: str) -> list[Any]:
    # As scikit-learn does it, which subtracts the product of the mean, in the dtype of both.
    mean = t.mean_ @ t.components_.T
    steps: list[Any] = [Dense(_wide(t.components_), -_wide(mean))]
    if t.whiten:
        variance = np.sqrt(t.explained_variance_)
        # Where a direction has none, scikit-learn divides by this.
        steps.append(scaling(0.0, np.maximum(variance, np.finfo(variance.dtype).eps)))
    return steps


def _sources(t: Any, place: str) -> list[Any]:
    return [*([Affine.centred(t.mean_, 1.0)] if t.whiten else []), Dense(_wide(t.components_))]


def _factors(t: Any, place: str) -> list[Any]:
    weighted = t.components_ / t.noise_variance_
    inner = np.linalg.inv(np.eye(len(weighted)) + weighted @ t.components_.T)
    return [Affine.centred(t.mean_, 1.0), Dense(inner.T @ weighted)]


def _selector(t: Any, place: str) -> list[Any]:
    return [Pick(np.asarray(t.get_support(indices=True), np.intp))]


def _imputer(t: Any, place: str) -> list[Any]:
    missing = t.missing_values
    if not (isinstance(missing, float | np.floating) and np.isnan(missing)):
        raise ConversionError(
            place,
            f"it replaces {missing!r}, and a network can't tell that from a number; {_INSTEAD}",
        )
    indicator = getattr(t, "indicator_", None)
    if indicator is not None and len(indicator.features_):
        raise ConversionError(
            place, f"its add_indicator makes features of what is missing; {_INSTEAD}"
        )
    values: Array | None = None
    if kind_of(t) == "KNNImputer":
        kept = t._valid_mask
    else:
        inner = t if kind_of(t) == "SimpleImputer" else t.initial_imputer_
        try:
            values = _wide(inner.statistics_)
        except (TypeError, ValueError):
            raise ConversionError(place, f"it was fitted to text; {_INSTEAD}") from None
        kept = ~np.isnan(values)
        # Later versions of scikit-learn round them to the dtype of the training data.
        rounded = values[kept].astype(getattr(t, "_fill_dtype", np.float64))
        values = _wide(rounded) if inner is t else None
    if not np.all(kept) and t.keep_empty_features:
        raise ConversionError(place, f"features that were empty at fit become zeros; {_INSTEAD}")
    picked = [] if np.all(kept) else [Pick(np.flatnonzero(kept))]
    return [*picked, Fill(values, place)]


def _function(t: Any, place: str) -> list[Any]:
    if t.func is not None:
        raise ConversionError(place, f"calls {t.func!r}; {_INSTEAD}")
    return []


def _weight(weights: Any, name: str) -> list[Any]:
    return [Affine.of(weights[name])] if weights and name in weights else []


def _parts_of(t: Any) -> list[tuple[str, Any, Array]]:
    """Return the transformers of a ColumnTransformer, and the columns that each is given."""
    inputs = t._transformer_to_input_indices  # of names, slices and masks, as they were at fit
    parts = [(name, inner, np.asarray(inputs[name], np.intp)) for name, inner, _ in t.transformers_]
    return [p for p in parts if p[2].size and not (isinstance(p[1], str) and p[1] == "drop")]


def named_columns(first: Any) -> Array | None:
    """Return the columns that an estimator finds by their names in a table; None where it wants all.

    `first` is what gets the rows first.
    """
    if kind_of(first) != "ColumnTransformer":
        return None
    return np.unique(np.concatenate([at for _, _, at in _parts_of(first)]))


def _column_transformer(t: Any, place: str) -> list[Any]:
    branches = [
        [Pick(at), *steps_for(inner, name), *_weight(t.transformer_weights, name)]
        for name, inner, at in _parts_of(t)
    ]
    return [Join(branches or [[Pick(np.arange(0))]])]


def _union(t: Any, place: str) -> list[Any]:
    branches = [
        [*steps_for(inner, name), *_weight(t.transformer_weights, name)]
        for name, inner in t.transformer_list
        if not (isinstance(inner, str) and inner == "drop")
    ]
    return [Join(branches or [[Pick(np.arange(0))]])]


def _pipeline(t: Any, place: str) -> list[Any]:
    return [step for name, inner in steps_of(t) for step in steps_for(inner, name)]


_TRANSFORMERS: dict[str, Callable[..., list[Any]]] = {
    **dict.fromkeys(_SCALERS, _scaler),
    **dict.fromkeys(
        (
            "GaussianRandomProjection",
            "NeighborhoodComponentsAnalysis",
            "SparseRandomProjection",
            "TruncatedSVD",
        ),
        _projection,
    ),
    **dict.fromkeys(
        (
            "GenericUnivariateSelect",
            "RFE",
            "RFECV",
            "SelectFdr",
            "SelectFpr",
            "SelectFromModel",
            "SelectFwe",
            "SelectKBest",
            "SelectPercentile",
            "SequentialFeatureSelector",
            "VarianceThreshold",
        ),
        _selector,
    ),
    **dict.fromkeys(("IterativeImputer", "KNNImputer", "SimpleImputer"), _imputer),
    "ColumnTransformer": _column_transformer,
    "FactorAnalysis": _factors,
    "FastICA": _sources,
    "FeatureUnion": _union,
    "FunctionTransformer": _function,
    "IncrementalPCA": _principal,
    "PCA": _principal,
    "Pipeline": _pipeline,
}
