"""`MLPRegressor`: scikit-learn's, fitted by fastlayer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
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
        Hidden,
        LearningRate,
        RandomState,
        RegressorLoss,
        Sizes,
        Solver,
    )
    from fastlayer.train.schedules import ScheduleLike


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multi-layer perceptron for numbers, with the interface of scikit-learn's.

    From the same `random_state` it draws the same weights and orders, and its losses follow those of
    ``sklearn.neural_network.MLPRegressor`` to rounding; weights and losses have the same bits on any
    number of threads and any processor.

    Parameters
    ----------
    loss : str, Loss or callable
        ``"squared_error"``, half the square; ``"poisson"``, half the deviance, of the exponential of the
        output; ``"absolute_error"``, ``"huber"``; a `fastlayer.Loss`, such as
        ``fl.Loss("huber", delta=0.1)``; or a function ``(y, t) -> (value, dy)`` of outputs and targets,
        both (m, n).
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
    >>> from fastlayer.sklearn import MLPRegressor
    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> reg = MLPRegressor(activation="tanh", solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
    >>> bool(reg.score(X, X[:, 0] ** 2) > 0.99)
    True
    """

    _classifies: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "loss": [
            StrOptions({"squared_error", "poisson", "absolute_error", "mae", "huber"}),
            Loss,
            callable,
        ],
    }

    def __init__(
        self,
        loss: RegressorLoss = "squared_error",
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
        return "exp" if getattr(self.loss, "name", self.loss) == "poisson" else "identity"

    def _checked(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, reset: bool
    ) -> tuple[Any, Array, Array | None]:
        X, y = self._validated(X, y, reset)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        return X, y, sample_weight

    def _validated(self, X: Any, y: Any, reset: bool, **more: Any) -> tuple[Any, Any]:
        X, y = super()._validated(X, y, reset, y_numeric=True, **more)
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _targets(self, y: Array) -> Array:
        return y

    def _labels(self, y: Array) -> Array:
        return y[:, 0] if y.shape[1] == 1 else y

    def _score_of(self, X: Any, y: Any, sample_weight: Array | None) -> float:
        found = self._labels(self._outputs_of(X, check=False))
        if not np.isfinite(found).all():
            return float("nan")
        return float(r2_score(y, found, sample_weight=sample_weight))

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, validation_data: Any = None
    ) -> MLPRegressor:
        """Fit the network to samples and their targets.

        Parameters
        ----------
        X : array_like or sparse matrix
            Shape (n_samples, n_features).
        y : array_like
            Shape (n_samples,) or (n_samples, n_outputs).
        sample_weight : array_like, optional
            Shape (n_samples,): how much each sample counts; not negative.
        validation_data : tuple, optional
            ``(X, y)`` or ``(X, y, sample_weight)``: samples to be scored after each epoch, in the place of
            those that `early_stopping` would hold back.

        Returns
        -------
        MLPRegressor
            The estimator itself.

        Raises
        ------
        ValueError
            Arrays that are no samples and targets; a parameter out of its range; weights that are not
            finite in the end.
        """
        self._fit(X, y, sample_weight, validation_data)
        return self

    @available_if(lambda self: self._fits_by_epochs)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Go through some samples once, from the weights and moments of before.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        MLPRegressor
            The estimator itself.
        """
        self._fit(X, y, sample_weight, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return the prediction for each sample.

        Parameters
        ----------
        X : array_like or sparse matrix
            Shape (n_samples, n_features).

        Returns
        -------
        ndarray
            Shape (n_samples,) or (n_samples, n_outputs).
        """
        check_is_fitted(self)
        return self._labels(self._outputs_of(X))
