"""`MLPClassifier`: scikit-learn's, fitted by fastlayer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from fastlayer.sklearn.estimator import BaseMLP
from fastlayer.sklearn.signatures import available_if, fit_context
from fastlayer.train.loss import Loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike

    from fastlayer.arrays import Array
    from fastlayer.names import ActivationName
    from fastlayer.sklearn.signatures import (
        ClassifierLoss,
        ClassWeight,
        Hidden,
        LearningRate,
        RandomState,
        Sizes,
        Solver,
    )
    from fastlayer.train.schedules import ScheduleLike


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multi-layer perceptron for classes, with the interface of scikit-learn's.

    From the same `random_state` it draws the same weights and orders, and its losses follow those of
    ``sklearn.neural_network.MLPClassifier`` to rounding; weights and losses have the same bits on any
    number of threads and any processor.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Neurons of each hidden layer.
    activation : str, Activation or sequence of these
        Of the hidden layers: ``"identity"``, ``"logistic"``, ``"tanh"``, ``"relu"``, any other name of
        fastlayer's or a `fastlayer.Activation`; a list has one for each layer.
    solver : {"adam", "sgd", "lbfgs", "adamw"}
        ``"adam"`` (Kingma & Ba, 2015); ``"sgd"``, steps with momentum; ``"lbfgs"``, SciPy's L-BFGS-B on
        all samples at once; ``"adamw"`` (Loshchilov & Hutter, 2019).
    alpha : float
        Times half the sum of the squares of all weights, divided by the number of samples in a batch
        or the sum of their weights: a part of the loss. With ``"adamw"`` the decay of each step.
    batch_size : int or "auto"
        Samples in a batch; ``"auto"`` is 200, or all if there are fewer.
    learning_rate : {"constant", "invscaling", "adaptive"}
        Of ``"sgd"``: as it is; divided by the samples seen so far to the power `power_t`; or divided
        by 5 when an epoch would end the training.
    learning_rate_init : float
        The learning rate at first.
    power_t : float
        See `learning_rate`.
    max_iter : int
        Epochs, or iterations of ``"lbfgs"``.
    shuffle : bool
        Whether the samples are drawn in another order for each epoch.
    random_state : int, RandomState or None
        Draws the weights at first, the samples that are held back, and the order of the others; the
        same draws as scikit-learn's.
    tol : float
        By how much the loss, or the score of `early_stopping`, has to get better.
    verbose : bool
        Whether to print the loss of each epoch.
    warm_start : bool
        Whether `fit` goes on with the weights, and the moments, of before.
    momentum : float
        Of ``"sgd"``, 0 to 1.
    nesterovs_momentum : bool
        Whether it looks ahead.
    early_stopping : bool
        Whether samples are held back, and training ends when their score gets no better; the weights
        of the best epoch come back.
    validation_fraction : float
        The share of the samples that is held back.
    beta_1, beta_2, epsilon : float
        Of ``"adam"`` and ``"adamw"``.
    n_iter_no_change : int or inf
        So many epochs may pass without getting better.
    max_fun : int
        Of ``"lbfgs"``: how often the loss may be computed.
    loss : "log_loss", Loss or callable
        A `fastlayer.Loss`, such as ``fl.Loss("cross_entropy", label_smoothing=0.1)``, of the outputs; or
        a function ``(y, t) -> (value, dy)``, which gets probabilities.
    class_weight : dict, "balanced" or None
        How much the samples of each class count.
    dtype : {float32, float64}, optional
        What is computed in; by default float32 where `X` is, else float64.
    schedule : str, Schedule or callable, optional
        How the learning rate goes over `max_iter` epochs, in the place of `learning_rate`; see
        `fastlayer.Schedule`.
    callback : callable, optional
        Called with the estimator after each epoch; True ends the training.
    progress : bool or callable
        Whether a bar shows the epochs where tqdm is installed; or a function of how many are done and
        of `max_iter`.
    n_jobs : int, optional
        Threads; -1 is all processors. By default as many as fastlayer uses anyway. Results don't depend
        on it.

    Attributes
    ----------
    classes_ : ndarray
        The labels.
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of each layer. They may be replaced or changed in
        place; what follows uses them.
    loss_, best_loss_ : float
        Of the last epoch, and of the best.
    loss_curve_ : list of float
        The loss of each epoch.
    validation_scores_, best_validation_score_ : list of float, float; or None
        Where samples are held back or given as ``validation_data``.
    n_iter_, t_ : int
        Epochs of the last call; samples seen by all steps.
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.
    network : Network
        What was fitted, for predictions without scikit-learn.

    Examples
    --------
    >>> from fastlayer.sklearn import MLPClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier(random_state=0, max_iter=500).fit(X, y)
    >>> bool(clf.score(X, y) > 0.95)
    True
    >>> clf.network.out_features
    3
    """

    _classifies: ClassVar[bool] = True
    classes_: Array
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions({"log_loss"}), Loss, callable],
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Sizes = (100,),
        activation: Hidden = "relu",
        *,
        solver: Solver = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: LearningRate = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: RandomState = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: ClassifierLoss = "log_loss",
        class_weight: ClassWeight | Literal["balanced"] | None = None,
        dtype: DTypeLike | None = None,
        schedule: ScheduleLike = None,
        callback: Callable[[Any], object] | None = None,
        progress: bool | Callable[[int, int | None], object] = False,
        n_jobs: int | None = None,
    ) -> None:
        self._keep(locals())

    if TYPE_CHECKING:  # which scikit-learn says nothing of

        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...

    def _output(self) -> ActivationName:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _checked(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, reset: bool
    ) -> tuple[Any, Array, Array | None]:
        X, y = self._validated(X, y, reset)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            numbers = self._numbers(y)
        else:
            numbers = self._numbers(y)
            if numbers is None or self.warm_start:
                self._check_classes(unique_labels(y))
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        if self.class_weight is not None:
            of_class = compute_sample_weight(self.class_weight, y)
            sample_weight = of_class if sample_weight is None else sample_weight * of_class
        if numbers is None:
            return X, self._label_binarizer.transform(y).astype(bool), sample_weight
        n = len(self.classes_)
        rows = numbers[:, None] == (np.arange(n) if n > 2 else np.ones(1))
        return X, rows, sample_weight

    def _numbers(self, y: Any) -> Array | None:
        """Return class numbers of labels, sooner than a binarizer would; None where it has to."""
        if self._label_binarizer.y_type_ not in ("binary", "multiclass"):
            return None
        if not isinstance(y, np.ndarray) or y.ndim != 1 or y.dtype.kind not in "biuU":
            return None
        numbers = np.minimum(np.searchsorted(self.classes_, y), len(self.classes_) - 1)
        return numbers if np.array_equal(self.classes_[numbers], y) else None

    def _check_classes(self, found: Array) -> None:
        if self.warm_start:
            if set(found) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous "
                    f"call to fit. Previously got {self.classes_}, `y` has {found}"
                )
        elif len(np.setdiff1d(found, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {found}."
            )

    def _targets(self, y: Array) -> Array:
        """Return class numbers, or a row of 0 and 1 for each sample."""
        if self.out_activation_ == "softmax" and not callable(self.loss):
            numbers: Array = np.argmax(y, axis=1)
            return numbers
        return y.astype(np.float64)

    def _labels(self, y: Array) -> Any:
        """Return the labels of rows of 0 and 1, or of probabilities."""
        if self.out_activation_ == "softmax":
            return self.classes_[np.argmax(y, axis=1)]
        found = (y > 0.5).astype(int)
        if self._label_binarizer.y_type_.startswith("multilabel"):
            return found
        return self.classes_[np.minimum(found[:, 0], len(self.classes_) - 1)]

    def _score_of(self, X: Any, y: Any, sample_weight: Array | None) -> float:
        outputs = self._outputs_of(X, check=False)
        if not np.isfinite(outputs).all():
            return float("nan")
        return float(accuracy_score(y, self._labels(outputs), sample_weight=sample_weight))

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, validation_data: Any = None
    ) -> MLPClassifier:
        """Fit the network to samples and their labels.

        Parameters
        ----------
        X : array_like or sparse matrix
            Shape (n_samples, n_features).
        y : array_like
            Labels (n_samples,), or for each sample a row of 0 and 1, one for each label.
        sample_weight : array_like, optional
            Shape (n_samples,): how much each sample counts; not negative.
        validation_data : tuple, optional
            ``(X, y)`` or ``(X, y, sample_weight)``: samples to be scored after each epoch, in the place of
            those that `early_stopping` would hold back.

        Returns
        -------
        MLPClassifier
            The estimator itself.

        Raises
        ------
        ValueError
            Arrays that are no samples and labels; a parameter out of its range; weights that are not
            finite in the end.
        """
        self._fit(X, y, sample_weight, validation_data)
        return self

    @available_if(lambda self: self._fits_by_epochs)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> MLPClassifier:
        """Go through some samples once, from the weights and moments of before.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array_like, optional
            All labels that there will be; needed in the first call.

        Returns
        -------
        MLPClassifier
            The estimator itself.
        """
        if _check_partial_fit_first_call(self, classes):
            several = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if several else classes)
        self._fit(X, y, sample_weight, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return the label of each sample, or its row of 0 and 1.

        Parameters
        ----------
        X : array_like or sparse matrix
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples,) or (n_samples, n_labels).
        """
        check_is_fitted(self)
        labels: Array = self._labels(self._outputs_of(X))
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class.

        Parameters
        ----------
        X : array_like or sparse matrix
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples, n_classes), in the order of `classes_`.
        """
        check_is_fitted(self)
        found = self._outputs_of(X)
        return np.hstack([1 - found, found]) if self.n_outputs_ == 1 else found

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of the probability of each class.

        Parameters
        ----------
        X : array_like or sparse matrix
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples, n_classes), in the order of `classes_`.
        """
        found = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(found, out=found))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _more_tags(self) -> dict[str, bool]:  # scikit-learn 1.5
        return {"multilabel": True}
