"""Fitting an epoch at a time: the solvers ``sgd``, ``adam`` and ``adamw``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastlayer.report.progress import reporting
from fastlayer.sklearn.objective import poisson_constants
from fastlayer.train.schedules import as_schedule
from fastlayer.train.trainer import Trainer

if TYPE_CHECKING:
    from fastlayer.arrays import Array

# Elements of a block of sparse rows that are dense at a time: 8 MiB of float64.
_DENSE = 1 << 20


class Data(NamedTuple):
    """Samples, their targets as the loss takes them, and how much each counts."""

    x: Any
    t: Array
    weights: Array | None


class Rates:
    """The learning rate from epoch to epoch."""

    def __init__(self, estimator: Any, trainer: Trainer) -> None:
        self.estimator, self.trainer = estimator, trainer
        self.schedule = None if estimator.schedule is None else as_schedule(estimator.schedule)

    def of_epoch(self, epoch: int, steps: int) -> list[float]:
        """Return that of each step."""
        lr = self.trainer.lr
        if self.schedule is None:
            return [lr] * steps
        first, epochs = float(self.estimator.learning_rate_init), self.estimator.max_iter
        factors = (float(self.schedule((epoch + i / steps) / epochs)) for i in range(steps))
        return [max(first * factor, 5e-324) for factor in factors]  # positive, for the trainer

    def end_epoch(self, samples: int) -> None:
        """Scale it by the number of samples seen so far, where it is to be."""
        e = self.estimator
        if e.solver == "sgd" and e.learning_rate == "invscaling":
            self.trainer.lr = float(e.learning_rate_init) / (samples + 1) ** e.power_t

    def reduced(self, message: str) -> bool:
        """Go on with a smaller one where that is wanted and possible; tell what happens."""
        e = self.estimator
        if e.solver != "sgd" or e.learning_rate != "adaptive":
            told = "Stopping."
        elif self.trainer.lr <= 1e-6:
            told = "Learning rate too small. Stopping."
        else:
            self.trainer.lr /= 5.0
            told = f"Setting learning rate to {self.trainer.lr:f}"
        if e.verbose:
            print(f"{message} {told}")
        return told.startswith("Setting")


def fit_epochs(
    estimator: Any, trainer: Trainer, data: Data, held: tuple[Any, ...] | None, incremental: bool
) -> None:
    """Run epochs until one of the estimator's parameters, or the user, ends that."""
    e = estimator
    run = _Epochs(e, trainer, data)
    rates = Rates(e, trainer)
    order = np.arange(run.number)
    e.n_iter_ = 0
    best = _values(trainer) if e.early_stopping else None
    try:
        with reporting(False if incremental else e.progress, e.max_iter, "epochs") as report:
            for epoch in range(e.max_iter):
                if e.shuffle:
                    drawn = np.arange(run.number)
                    e._random_state.shuffle(drawn)
                    order = order[drawn]
                e.loss_ = run.epoch(order, rates.of_epoch(epoch, run.steps))
                e.n_iter_ += 1
                e.t_ += run.number
                e.loss_curve_.append(e.loss_)
                if e.verbose:
                    print(f"Iteration {e.n_iter_}, loss = {e.loss_:.8f}")
                if held is not None and _validated(e, trainer, *held):
                    best = _values(trainer)
                _count_epochs_without_progress(e)
                rates.end_epoch(e.t_)
                report(1)
                if e._no_improvement_count > e.n_iter_no_change:
                    what = "Validation score" if e.early_stopping else "Training loss"
                    message = (
                        f"{what} did not improve more than tol={e.tol:f} for "
                        f"{e.n_iter_no_change} consecutive epochs."
                    )
                    if not rates.reduced(message):
                        break
                    e._no_improvement_count = 0
                if e.callback is not None:
                    e._take_over(trainer)
                    answer = e.callback(e)
                    if isinstance(answer, bool | np.bool_) and answer:
                        break
                if incremental:
                    break
                if e.n_iter_ == e.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({e.max_iter}) reached and the "
                        "optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=6,
                    )
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=6)
    if e.early_stopping and best is not None:
        trainer._on_tape()
        for p, value in zip(trainer._trained, best, strict=True):
            p.value = value
        trainer._off_tape()
    e._take_over(trainer)


def _values(trainer: Trainer) -> list[Array]:
    trainer._on_tape()
    return [p.value.copy() for p in trainer._trained]


class _Epochs:
    """Samples cut into batches, an epoch after the other."""

    def __init__(self, estimator: Any, trainer: Trainer, data: Data) -> None:
        self.trainer, self.data = trainer, data
        number = self.number = data.x.shape[0]
        size = estimator.batch_size
        if size == "auto":
            size = min(200, number)
        elif size > number:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=7,
            )
        self.size = int(min(size, number))
        self.begins = np.arange(0, number, self.size)
        self.sizes = np.minimum(self.size, number - self.begins)
        self.steps = self.begins.size
        self.samples = None
        if isinstance(data.x, np.ndarray):
            self.samples = trainer._samples(data.x, data.t, data.weights)
        self.constants = None
        if isinstance(estimator.loss, str) and estimator.loss == "poisson":
            self.constants = poisson_constants(data.t)

    def epoch(self, order: Array, rates: list[float]) -> float:
        """Take a step on each batch, and return the mean loss."""
        weights = self.data.weights
        counts = np.arange(self.steps)
        if weights is not None:  # from batches in which no sample counts there is nothing to learn
            counts = np.flatnonzero(np.maximum.reduceat(weights[order], self.begins))
            order = order[np.isin(np.arange(order.size) // self.size, counts)]
        losses = self._steps(order, [rates[i] for i in counts])
        sizes = self.sizes[counts]
        if self.constants is not None:
            losses = losses + self._constants(order, sizes)
        return float(np.sum(losses * sizes) / self.number)

    def _constants(self, order: Array, sizes: Array) -> Array:
        assert self.constants is not None
        begins = np.cumsum(sizes) - sizes
        given = self.data.weights
        weights = np.ones(order.size) if given is None else given[order]
        sums = np.add.reduceat(weights * self.constants[order], begins)
        return np.asarray(sums / np.add.reduceat(weights, begins))

    def _steps(self, order: Array, rates: list[float]) -> Array:
        if self.samples is not None:
            return self.trainer._epoch(self.samples, order, self.size, rates)
        losses = []
        x, t, weights = self.data
        # Whole batches of sparse rows, as many as may be dense at a time.
        some = max(1, _DENSE // (self.size * x.shape[1]))
        for first in range(0, len(rates), some):
            at = order[first * self.size : (first + some) * self.size]
            rows = x[at].toarray()
            part = None if weights is None else weights[at]
            samples = self.trainer._samples(rows, t[at], part)
            own = np.arange(at.size)
            losses.append(self.trainer._epoch(samples, own, self.size, rates[first : first + some]))
        return np.concatenate(losses)


def _validated(e: Any, trainer: Trainer, x: Any, y: Array, weights: Array | None) -> bool:
    """Score the samples that are held back; whether that is the best so far."""
    e._take_over(trainer)
    score = e._score_of(x, y, weights)
    e.validation_scores_.append(score)
    if e.verbose:
        print(f"Validation score: {score:f}")
    if e.early_stopping:
        stays = score < e.best_validation_score_ + e.tol
        e._no_improvement_count = e._no_improvement_count + 1 if stays else 0
    if score > e.best_validation_score_:
        e.best_validation_score_ = score
        return True
    return False


def _count_epochs_without_progress(e: Any) -> None:
    if e.early_stopping:
        return
    stays = e.loss_ > e.best_loss_ - e.tol
    e._no_improvement_count = e._no_improvement_count + 1 if stays else 0
    e.best_loss_ = min(e.best_loss_, e.loss_)
