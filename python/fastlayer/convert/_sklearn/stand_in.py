"""What `from_sklearn` returns: predicts as the estimator does, with NumPy alone."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from fastlayer.arrays import FLOAT64, as_real
from fastlayer.convert._sklearn.tables import by_name, check_names, names_of
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array
    from fastlayer.convert._sklearn.columns import Filled
    from fastlayer.report.verification import Proof

F = TypeVar("F")


class _Where:
    """A method that only some objects have: the others answer as if it were not there."""

    def __init__(self, has: Callable[[Any], bool], method: Any) -> None:
        self.has, self.__func__, self.__doc__ = has, method, method.__doc__

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None and not self.has(instance):
            raise AttributeError(
                f"this {owner.__name__} has no {self.__func__.__name__}, as the estimator has none"
            )
        return self.__func__.__get__(instance, owner)


def _where(has: Callable[[Any], bool]) -> Callable[[F], F]:
    def decorate(method: F) -> F:
        return cast("F", _Where(has, method))

    return decorate


class Regressor:
    """Stand-in for a fitted regressor; calling it runs `network`.

    Attributes
    ----------
    network : Network
        The forward pass, transformers included: (..., n_features) to (..., n_outputs).
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the columns, where the estimator was fitted to a table that had them.
    verification : Proof or None
        How far it was from the estimator on the probe, where it was verified.
    """

    __module__ = "fastlayer"  # where pickles find it
    feature_names_in_: Array
    _estimator_type = "regressor"  # scikit-learn before 1.6 asks for it
    _power: float = 0
    _width = 0
    _used: Array | None = None  # columns that a ColumnTransformer in front finds by their names
    _fills: Array | None = None  # what NaN in each feature becomes
    _lost = ""  # an imputer that does more than that
    _as_it_is = True  # none of these, and the network knows its features

    def __init__(self, network: Network, flat: bool, floats: bool, power: float = 0) -> None:
        self.network = network
        self._flat = flat  # one output, and no axis for it
        self._floats = floats  # a transformer makes integers float64
        self._power = power  # of the Tweedie deviance that `score` compares; 0 is least squares
        # Networks made of it, and the versions of the layers that they were made from.
        self._made: dict[tuple[bool, bool], tuple[list[int], Network]] = {}

    def _behind(self, width: int, names: Array | None, used: Array | None, filled: Filled) -> None:
        """Keep what is done to a table before the network runs."""
        self._width, self._used = width, used
        if names is not None:
            self.feature_names_in_ = np.array(names, object)
        if not np.isnan(filled.values).all():
            self._fills = filled.values
        self._lost = " and ".join(dict.fromkeys(filled.lost))
        self._as_it_is = (
            used is None
            and self._fills is None
            and not self._lost
            and self.network.in_features is not None
        )

    @property
    def verification(self) -> Proof | None:
        """How far `network` was from the estimator on the probe, where it was verified."""
        return self.network.verification

    @property
    def n_features_in_(self) -> int:
        """Number of features that a row has."""
        return self.network.in_features or self._width

    def __call__(self, x: ArrayLike) -> Array:
        """Run the network, in the dtype of the estimator's weights.

        Parameters
        ----------
        x : array_like or table
            Shape (..., n_features).

        Returns
        -------
        ndarray
            Shape (..., n_outputs): values, probabilities, or the scores of a classifier whose
            probabilities are no activation of a network.

        Raises
        ------
        ValueError
            Another number of features, or columns of other names.
        """
        a = self._rows(x)
        y = self.network(a)
        return self._found(a, y) if self._lost else y

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a stand-in is fitted; scikit-learn's tools look for this method.

        Parameters
        ----------
        *args, **kwargs : object
            What `fit` of the estimator takes.

        Returns
        -------
        object
            Nothing.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError(
            f"this {type(self).__name__} stands in for a fitted estimator and can't be fitted: fit "
            "the estimator, and convert it with fl.from_sklearn"
        )

    def predict(self, x: ArrayLike) -> Array:
        """Return the predictions of the estimator.

        Parameters
        ----------
        x : array_like or table
            Shape (n_samples, n_features). float64 beside float32 weights gives float64, as in
            scikit-learn.

        Returns
        -------
        ndarray
            Shape (n_samples,) or (n_samples, n_outputs).

        Raises
        ------
        ValueError
            Another number of features, or NaN that an imputer of the estimator would replace
            by more than a fixed value.
        TypeError
            A sparse matrix, strings or objects.
        """
        y = self._run(x)
        return y[..., 0] if self._flat else y

    def score(self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of the variance of `y` that is explained, the R^2 of scikit-learn.

        Generalised linear models compare their deviance instead, as in scikit-learn: D^2.

        Parameters
        ----------
        x : array_like or table
            Shape (n_samples, n_features).
        y : array_like
            The true values, shape (n_samples,) or (n_samples, n_outputs).
        sample_weight : array_like, optional
            Shape (n_samples,).

        Returns
        -------
        float
            1 for predictions without an error; the mean over the outputs.

        Raises
        ------
        ValueError
            Another number of values in `y`.
        """
        predicted = self.predict(x)
        true, predicted = (
            v.reshape(len(predicted), -1).astype(np.float64)
            for v in (_like(y, predicted), predicted)
        )
        if len(true) < 2:
            warnings.warn("R^2 is not defined for fewer than two samples", stacklevel=2)
            return float("nan")
        weights = None if sample_weight is None else np.asarray(sample_weight)
        mean = np.average(true, axis=0, weights=weights)
        found, spread = (
            np.average(_deviance(true, m, self._power), axis=0, weights=weights)
            for m in (predicted, mean)
        )
        with np.errstate(all="ignore"):
            constant = np.where(found == 0, 1.0, 0.0)  # nothing to explain
            return float(np.where(spread == 0, constant, 1 - found / spread).mean())

    def _rows(self, x: ArrayLike) -> Any:
        """Return what the network gets: the columns checked or found, and NaN filled."""
        known = getattr(self, "feature_names_in_", None)
        if self._as_it_is:
            check_names(known, x, type(self).__name__)
            return x
        if self._used is not None and known is not None and names_of(x) is not None:
            a = by_name(known, self._used, x)
        else:
            check_names(known, x, type(self).__name__)
            a = as_real(x)
        if self.network.in_features is None and a.ndim and a.shape[-1] != self._width:
            raise ValueError(
                f"{type(self).__name__}: expected x of shape (..., {self._width}), got {a.shape}"
            )
        return self._filled(a)

    def _filled(self, a: Array) -> Array:
        """Return rows with what imputers make of NaN."""
        if self._fills is None or a.dtype.kind != "f" or a.shape[-1:] != self._fills.shape:
            return a
        return np.where(np.isnan(a), self._fills.astype(a.dtype), a)

    def _found(self, a: Array, y: Array) -> Array:
        """Return the result for `a`, unless `_lost` would have had to replace NaN."""
        if (np.isnan(y).any(axis=-1) & np.isnan(a).any(axis=-1)).any():
            raise ValueError(
                f"x has NaN, which {self._lost} replaces, and the network does not: transform x with "
                "the estimator's own steps, and convert the rest, fl.from_sklearn(pipeline[-1])"
            )
        return y

    def _run(self, x: ArrayLike, scores: bool = False) -> Array:
        """Run the network in the dtype of scikit-learn; `scores` are without the last activation."""
        a, net = as_real(self._rows(x)), self.network
        given = a.dtype if a.dtype.kind == "f" or not self._floats else FLOAT64
        wide = given != net.dtype and not np.can_cast(given, net.dtype)
        if wide or scores:
            net = self._variant(wide, scores)
        y = net(a)
        return self._found(a, y) if self._lost else y

    def _variant(self, wide: bool, scores: bool) -> Network:
        """Return the network in float64, or without its last activation; it is kept while it holds."""
        net: Any = self.network
        versions = [layer._version.value for layer in _layers(net)]
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

    # What scikit-learn asks its estimators.
    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> Any:
        raise TypeError(
            f"this {type(self).__name__} can't be cloned, as a clone is there to be fitted; give "
            "sklearn.frozen.FrozenEstimator(it) where it is to be used as it is"
        )

    def __sklearn_tags__(self) -> Any:
        from importlib import import_module

        utils = import_module("sklearn.utils")  # which calls this

        kind, multilabel = self._estimator_type, getattr(self, "_kind", "").startswith("multilabel")
        return utils.Tags(
            estimator_type=kind,
            target_tags=utils.TargetTags(required=True, multi_output=self._many()),
            classifier_tags=(
                utils.ClassifierTags(multi_label=multilabel) if kind == "classifier" else None
            ),
            regressor_tags=utils.RegressorTags() if kind == "regressor" else None,
        )

    def _many(self) -> bool:
        """Whether a sample has several targets."""
        return not self._flat


class Classifier(Regressor):
    """Stand-in for a fitted classifier; calling it runs `network`.

    Attributes
    ----------
    network : Network
        The forward pass, transformers included: (..., n_features) to probabilities. Two classes
        have one output, the probability of ``classes_[1]``. Where the estimator has no
        probabilities, or makes them one-versus-rest, to the scores of `decision_function`.
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
    _estimator_type = "classifier"
    _link = "network"
    _doubled = False
    _floor = False

    def __init__(
        self,
        network: Network,
        floats: bool,
        classes: Array,
        kind: str,
        scores: bool = False,
        link: str = "network",
        doubled: bool = False,
        floor: bool = False,
    ) -> None:
        super().__init__(network, False, floats)
        self.classes_ = classes
        self._kind = kind  # "binary", "multiclass" or "multilabel-indicator"
        self._by_scores = scores  # labels come from the sums, before sigmoid or softmax
        # What makes probabilities: the network; of its scores, "sigmoids" or "modified_huber"; or
        # nothing, "".
        self._link = link
        self._floor = floor  # the logarithm of 0 is that of the smallest normal number
        self._doubled = doubled  # the sums of the network are twice the scores

    def _many(self) -> bool:
        return self._kind == "multilabel-indicator"

    def _sums(self, x: ArrayLike) -> Array:
        """Return what labels come from: scores, or else probabilities."""
        return self._run(x, self._by_scores and self._link == "network")

    @_where(lambda self: bool(self._link))
    def predict_proba(self, x: ArrayLike) -> Array:
        """Return the probability of every class; of every label where there can be several.

        Parameters
        ----------
        x : array_like or table
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples, n_classes).
        """
        p = self._each(x)
        if self._kind == "binary":
            return np.concatenate([1 - p, p], axis=-1)
        if self._link != "network":  # of one class against the rest each
            p = np.where((p == 0).all(axis=-1, keepdims=True), p.dtype.type(1), p)
            p = p / p.sum(axis=-1, keepdims=True)
        return p

    def _each(self, x: ArrayLike) -> Array:
        """Return probabilities, where they are of one class against the rest before they add to 1."""
        y = self._run(x)
        if self._link == "sigmoids":
            with np.errstate(over="ignore"):
                y = 1 / (1 + np.exp(-y))  # 0 where SciPy's is, which decides about sums of 0
        elif self._link == "modified_huber":
            y = (np.clip(y, -1, 1) + 1) / 2
        return y

    @_where(lambda self: bool(self._link))
    def predict_log_proba(self, x: ArrayLike) -> Array:
        """Return the logarithm of the probabilities.

        Parameters
        ----------
        x : array_like or table
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples, n_classes).
        """
        p = self.predict_proba(x)
        if self._floor:
            p = np.where(p == 0, np.finfo(p.dtype).tiny, p)
        with np.errstate(divide="ignore"):
            logs: Array = np.log(p)
        return logs

    @_where(lambda self: self._by_scores)
    def decision_function(self, x: ArrayLike) -> Array:
        """Return the scores that labels come from, where the estimator has them.

        Parameters
        ----------
        x : array_like or table
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples,) for two classes, above 0 for ``classes_[1]``, or
            (n_samples, n_classes).
        """
        y = self._sums(x)
        y = y / 2 if self._doubled else y
        return y[..., 0] if y.shape[-1] == 1 else y

    def predict(self, x: ArrayLike) -> Array:
        """Return the labels, as the estimator does.

        Parameters
        ----------
        x : array_like or table
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
        y = self._sums(x)
        lost = np.isnan(y).any(axis=-1)
        if lost.any():
            raise ValueError(
                f"predict: {int(lost.sum())} of {lost.size} rows give NaN, which is no class; look "
                "for NaN or infinity in x"
            )
        if self._kind == "multiclass":
            labels: Array = self.classes_[np.argmax(y, axis=-1)]
            return labels
        above = (y > self._threshold).astype(np.int64)
        if self._kind == "binary":
            return self.classes_[np.minimum(above[..., 0], len(self.classes_) - 1)]
        return above

    @property
    def _threshold(self) -> float:
        return 0.0 if self._by_scores else 0.5

    def _margins(self, x: ArrayLike) -> Array:
        """Return how far each row is from having another label."""
        y = self._sums(x)
        gaps: Array = np.abs(y - self._threshold).min(axis=-1)
        return np.ptp(np.sort(y, axis=-1)[:, -2:], axis=-1) if self._kind == "multiclass" else gaps

    def score(self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of the labels that are predicted, all labels of a sample together.

        Parameters
        ----------
        x : array_like or table
            Shape (n_samples, n_features).
        y : array_like
            The true labels, shape (n_samples,) or (n_samples, n_classes).
        sample_weight : array_like, optional
            Shape (n_samples,).

        Returns
        -------
        float
            The accuracy.

        Raises
        ------
        ValueError
            Another number of labels in `y`.
        """
        predicted = self.predict(x)
        right = (predicted == _like(y, predicted)).reshape(len(predicted), -1).all(axis=-1)
        weights = None if sample_weight is None else np.asarray(sample_weight)
        return float(np.average(right, weights=weights))


def _layers(parts: Iterable[Any]) -> Iterator[Layer]:
    """Yield the layers of a network, those in its branches too."""
    for part in parts:
        if isinstance(part, Layer):
            yield part
        for branch in getattr(part, "branches", ()):
            yield from _layers(branch)


def _like(y: ArrayLike, predicted: Array) -> Array:
    """Return what `score` is given in the shape of the predictions: one target may be a column."""
    true = np.asarray(y)
    if true.size != predicted.size or len(true) != len(predicted):
        raise ValueError(
            f"score: y has shape {true.shape}, and the predictions have shape {predicted.shape}"
        )
    return true.reshape(predicted.shape)


def _deviance(y: Array, mean: Array, power: float) -> Array:
    """Return the Tweedie deviance of each prediction; that of power 0 is its squared error."""
    if power == 0:
        squares: Array = (y - mean) ** 2
        return squares
    with np.errstate(all="ignore"):
        if power == 1:
            found = np.where(y == 0, 0.0, y * np.log(y / mean)) - y + mean
        elif power == 2:
            found = np.log(mean / y) + y / mean - 1
        else:
            p, q = 1 - power, 2 - power
            found = np.maximum(y, 0) ** q / (p * q) - y * mean**p / p + mean**q / q
    return 2 * found
