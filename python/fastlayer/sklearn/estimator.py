"""What the two perceptrons have in common: parameters, the network, fitting and predicting."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from numbers import Integral, Real
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, validation
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from fastlayer.functions.activation import _ALIASES, _KINDS, Activation, resolve
from fastlayer.sklearn.lbfgs import fit_lbfgs
from fastlayer.sklearn.objective import objective, optimizer
from fastlayer.sklearn.stochastic import Data, fit_epochs
from fastlayer.sklearn.weights import Weights
from fastlayer.threads import num_threads, processors

if TYPE_CHECKING:
    from os import PathLike
    from typing import IO

    from fastlayer.arrays import Array
    from fastlayer.names import ActivationName
    from fastlayer.network.network import Network
    from fastlayer.sklearn.signatures import Hidden, Sizes, Solver
    from fastlayer.train.trainer import Trainer

_STOCHASTIC = ("sgd", "adam", "adamw")
_DTYPES: Any = (np.float64, np.float32)
# Sparse rows that are dense at a time in a prediction.
_ROWS = 4096


class BaseMLP(BaseEstimator):
    """Base of `MLPClassifier` and `MLPRegressor`."""

    _classifies: ClassVar[bool]
    hidden_layer_sizes: Sizes
    activation: Hidden
    solver: Solver
    loss: Any
    coefs_: list[Array]
    intercepts_: list[Array]
    n_layers_: int
    n_outputs_: int
    out_activation_: ActivationName
    best_validation_score_: float | None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [
            StrOptions({"logistic", *_KINDS, *_ALIASES} - {"prelu"}),
            Activation,
            list,
            tuple,
        ],
        "solver": [StrOptions({"lbfgs", *_STOCHASTIC})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dtype": "no_validation",
        "n_jobs": [None, Integral],
        "schedule": [None, str, callable],
        "callback": [None, callable],
        "progress": ["boolean", callable],
    }

    def _keep(self, given: dict[str, Any]) -> None:
        """Keep the arguments of the constructor, as scikit-learn wants them: untouched."""
        for name, value in given.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    # --- sizes and activations

    def _hidden(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        return [index(n) for n in (sizes if hasattr(sizes, "__iter__") else [sizes])]

    def _activations(self) -> list[Activation]:
        """Return the activation of each layer, that of the output last."""
        hidden, given = self._hidden(), self.activation
        each = [given] * len(hidden) if isinstance(given, str | Activation) else list(given)
        if len(each) != len(hidden):
            raise ValueError(
                f"activation has {len(each)} entries, but there are {len(hidden)} hidden layers "
                f"of {hidden} neurons: give one name for all, or one for each"
            )
        names = [*each, self.out_activation_]
        found = []
        for name in names:
            a = resolve("sigmoid" if name == "logistic" else name)
            if not isinstance(a, Activation) or a._fused is None:
                raise ValueError(f"{a!r} can't be used here; names and fl.Activation can")
            found.append(a)
        return found

    # --- weights: coefs_ and intercepts_ are what counts, the network follows them

    def _initialize(self, y: Array, dtype: Any) -> None:
        self.n_iter_ = 0
        self.t_ = 0
        sizes = [self.n_features_in_, *self._hidden(), self.n_outputs_]
        self.n_layers_ = len(sizes)
        self.out_activation_ = self._output()
        names: list[str] = [a.name for a in self._activations()[:-1]]
        draw = self._random_state.uniform
        self.coefs_, self.intercepts_ = [], []
        for (k, n), name in zip(pairwise(sizes), [*names, *(names or [""])[-1:]], strict=True):
            # Glorot & Bengio (2010); the output layer is drawn as the hidden one before it.
            bound = np.sqrt((2.0 if name == "sigmoid" else 6.0) / (k + n))
            self.coefs_.append(draw(-bound, bound, (k, n)).astype(dtype, copy=False))
            self.intercepts_.append(draw(-bound, bound, n).astype(dtype, copy=False))
        self._weights = Weights()
        if self.solver in _STOCHASTIC:
            self._begin_curve()

    def _follow(self) -> Network:
        return self._weights.network(self.coefs_, self.intercepts_, self._layers)

    def _begin_curve(self) -> None:
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.best_loss_: float | None = None if self.early_stopping else np.inf

    def _check_sizes(self) -> None:
        found = [a.shape for a in self.coefs_]
        wanted = list(pairwise([self.n_features_in_, *self._hidden(), self.n_outputs_]))
        if found != wanted:
            raise ValueError(
                f"the weights of before have shapes {found}, and now {wanted} are asked for: fit "
                "with warm_start=False begins anew"
            )

    def _take_over(self, trainer: Trainer) -> None:
        self.coefs_, self.intercepts_ = self._weights.learned(trainer)

    @property
    def network(self) -> Network:
        """The fitted network, a `fastlayer.Network` in the dtype of the weights.

        It takes rows of features. Classifiers give probabilities: of two classes that of the second,
        and of several labels that of each.
        """
        check_is_fitted(self)
        return self._follow()

    def save(self, path: str | PathLike[str] | IO[bytes], *, format: str | None = None) -> None:
        """Write the fitted network to a file, which `fastlayer.load` reads.

        Parameters
        ----------
        path : path-like or open binary file
            With the suffix ``.npz`` or ``.safetensors``.
        format : {"npz", "safetensors"}, optional
            The format where the name does not tell it.
        """
        self.network.save(path, format=format)

    # --- fitting

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        validation_data: Any = None,
        incremental: bool = False,
    ) -> Any:
        hidden = self._hidden()
        if min(hidden, default=1) <= 0:
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        X, y, weights = self._checked(X, y, sample_weight, incremental, first)
        y = y.reshape(-1, 1) if y.ndim == 1 else y
        self.n_outputs_ = y.shape[1]
        self._random_state = check_random_state(self.random_state)
        if first:
            self._initialize(y, X.dtype)
        self._check_sizes()
        self._layers = self._activations()
        stochastic = self.solver in _STOCHASTIC
        if validation_data is not None and not stochastic:
            raise ValueError(
                "validation_data is scored after each epoch, and lbfgs has none; adam, sgd and "
                "adamw have"
            )
        loss = objective(
            self.loss,
            self.n_outputs_,
            self.out_activation_,
            0.0 if self.solver == "adamw" else float(self.alpha),
            float(np.finfo(X.dtype).eps),
            consistent=not stochastic,
        )
        with nullcontext() if self.n_jobs is None else num_threads(_threads(self.n_jobs)):
            if stochastic:
                self._fit_stochastic(X, y, weights, validation_data, loss, incremental)
            else:
                fit_lbfgs(self, loss, Data(X, self._targets(y), weights))
                self._follow()
        if not all(np.isfinite(w).all() for w in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )
        return self

    def _fit_stochastic(
        self,
        X: Any,
        y: Array,
        weights: Array | None,
        validation_data: Any,
        loss: Any,
        incremental: bool,
    ) -> None:
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        held = self._validation(validation_data)
        if self.early_stopping and held is None:
            stratify = y if self._classifies and self.n_outputs_ == 1 else None
            parts = train_test_split(
                *([X, y] if weights is None else [X, y, weights]),
                random_state=self._random_state,
                test_size=self.validation_fraction,
                stratify=stratify,
            )
            X, y = parts[0], parts[2]
            weights, held_weights = (None, None) if weights is None else parts[4:]
            held = (parts[1], self._labels(parts[3]), held_weights)
            if held[0].shape[0] < 2:
                raise ValueError(
                    "The validation set is too small. Increase 'validation_fraction' or the size "
                    "of your dataset."
                )
        if getattr(self, "validation_scores_", None) is None or not self.warm_start:
            self.validation_scores_: list[float] | None = None if held is None else []
            self.best_validation_score_ = None if held is None else -np.inf
        if not hasattr(self, "loss_curve_"):  # another solver was at work before
            self._begin_curve()
        if self.best_loss_ is None and not self.early_stopping:
            self.best_loss_ = np.inf
        trainer = self._weights.trainer(self._follow(), loss, optimizer(self))
        if not incremental:
            trainer.lr = float(self.learning_rate_init)  # the moments stay, the rate begins anew
        fit_epochs(self, trainer, Data(X, self._targets(y), weights), held, incremental)

    def _validation(self, given: Any) -> tuple[Any, ...] | None:
        if given is None:
            return None
        if not isinstance(given, tuple) or len(given) not in (2, 3):
            raise ValueError(
                "validation_data is a tuple (X, y) or (X, y, sample_weight), got "
                f"{type(given).__name__}"
            )
        X, y, *rest = given
        X, y = self._validated(X, y, reset=False)
        return X, y, _check_sample_weight(rest[0], X) if rest and rest[0] is not None else None

    def _validated(self, X: Any, y: Any, reset: bool, **more: Any) -> tuple[Any, Any]:
        dtypes = _DTYPES if self.dtype is None else _one_dtype(self.dtype)
        X, y = _validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            dtype=dtypes,
            reset=reset,
            **more,
        )
        return X.tocsr() if hasattr(X, "tocsr") else X, y

    @property
    def _fits_by_epochs(self) -> bool:
        if self.solver not in _STOCHASTIC:
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

    # --- predicting

    def _outputs_of(self, X: Any, check: bool = True) -> Array:
        """Return what the network gives for some samples, shape (n_samples, n_outputs)."""
        if check:
            X = _validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        net = self._follow()
        with nullcontext() if self.n_jobs is None else num_threads(_threads(self.n_jobs)):
            if isinstance(X, np.ndarray):
                found = net(X)
            else:
                rows = X.tocsr()
                begins = range(0, X.shape[0], _ROWS)
                found = np.concatenate([net(rows[i : i + _ROWS].toarray()) for i in begins])
        wanted = np.result_type(X.dtype, net.dtype)
        return np.asarray(found if found.dtype == wanted else found.astype(wanted))

    # --- what scikit-learn asks about an estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _validate_data(estimator: Any, *args: Any, **options: Any) -> Any:
    since_1_6 = getattr(validation, "validate_data", None)
    if since_1_6 is None:
        return estimator._validate_data(*args, **options)
    return since_1_6(estimator, *args, **options)


def _one_dtype(given: Any) -> tuple[Any]:
    dtype = np.dtype(given)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype}")
    return (dtype.type,)


def _threads(n_jobs: int) -> int:
    """Return a number of threads for scikit-learn's n_jobs, of which -1 is all processors."""
    if n_jobs == 0:
        raise ValueError("n_jobs == 0 has no meaning")
    return n_jobs if n_jobs > 0 else max(1, processors() + 1 + n_jobs)
