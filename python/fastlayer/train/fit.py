"""What `Network.fit` does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import as_real, count
from fastlayer.report.progress import reporting
from fastlayer.train import sums
from fastlayer.train.history import History
from fastlayer.train.loss import Loss, as_loss
from fastlayer.train.schedules import as_schedule
from fastlayer.train.sources import Arrays, Options, Source, Stream
from fastlayer.train.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.names import LossName
    from fastlayer.train.batches import Samples
    from fastlayer.train.loss import LossLike

# Samples that are evaluated at a time.
_EVALUATED = 1024

_LOSS_BEHIND: dict[str, LossName] = {
    "softmax": "cross_entropy",
    "log_softmax": "cross_entropy",
    "sigmoid": "binary_cross_entropy",
    "exp": "poisson",
}


def fit(
    net: Any,
    x: Any,
    t: Any,
    loss: LossLike | None,
    options: Options,
    make: Callable[..., Trainer] = Trainer,
) -> History:
    """Train `net` with the trainer that `make` makes, and return the history."""
    epochs = count("epochs", options.epochs)
    count("batch_size", options.batch_size)
    if options.callback is not None and not callable(options.callback):
        raise TypeError(
            f"callback must be a function of the network and the history, got {options.callback!r}"
        )
    patience = None if options.patience is None else count("patience", options.patience)
    if patience is not None and options.validation is None:
        raise ValueError(
            "patience waits for the validation loss to fall: pass validation=0.1 or (x, t)"
        )
    if callable(x) or hasattr(x, "__next__"):
        source: Source = Stream(x, t, epochs, options)
    else:
        source = Arrays(x, t, options)
    chosen = as_loss(loss) or _loss_of(net, source.sample_targets())
    trainer = make(net, chosen, options.optimizer, train=options.train, max_norm=options.max_norm)
    source.check(trainer)
    run = _Run(net, trainer, epochs, patience, options)
    return run.go(source)


class _Run:
    """One run of `fit`."""

    def __init__(
        self, net: Any, trainer: Trainer, epochs: int, patience: int | None, options: Options
    ) -> None:
        self.net, self.trainer, self.epochs, self.patience = net, trainer, epochs, patience
        self.options = options
        self.history = History()
        self.best: list[Array] | None = None
        self.schedule = as_schedule(options.schedule)
        self.rate = trainer.lr

    def go(self, source: Source) -> History:
        history, trainer = self.history, self.trainer
        with reporting(self.options.progress, self.epochs, "epochs") as report:
            for epoch in range(self.epochs):
                ended = self._go_on(source, epoch)
                report(1)
                if ended:
                    history.stopped_by = ended
                    break
        if self.best is not None:
            for p, value in zip(trainer._trained, self.best, strict=True):
                p.value = value
            trainer._publish()
        return history

    def _go_on(self, source: Source, epoch: int) -> str:
        """Run one epoch; return what ends the run, nothing where it goes on."""
        history, trainer = self.history, self.trainer

        def rate(part: float) -> float:
            # A step of 0 leaves everything as it is, but Trainer.lr is positive.
            return max(self.rate * self._factor((epoch + part) / self.epochs), 5e-324)

        losses, weights = source.epoch(trainer, rate)
        if not losses.size:
            raise ValueError(f"epoch {epoch} had no batches; a generator can be used once only")
        trainer._on_tape()
        history.loss.append(sums.dot(losses, weights) / sums.total(weights))
        history.lr.append(trainer.lr)
        wrong = np.flatnonzero(~np.isfinite(losses))
        if wrong.size or not all(np.isfinite(p.value).all() for p in trainer._trained):
            what = f"loss is {losses[wrong[0]]} in step {wrong[0]}" if wrong.size else "weights"
            raise FloatingPointError(
                f"the {what} of epoch {epoch}{'' if wrong.size else ' are not finite'}; the "
                "network has the weights from before that epoch. A smaller lr, or max_norm=1.0, "
                "may help"
            )
        trainer._publish()
        if source.held is not None:
            self._validate(source.held)
        waited = self._waited(epoch)
        callback = self.options.callback
        if callback is not None:
            answer = callback(self.net, history)
            if isinstance(answer, bool | np.bool_) and answer:
                return "callback"
        return "patience" if waited else ""

    def _factor(self, fraction: float) -> float:
        factor = float(self.schedule(fraction))
        if not 0 <= factor < math.inf:
            raise ValueError(f"the schedule gave {factor} at {fraction:.3f} of the run")
        return factor

    def _validate(self, samples: Samples) -> None:
        value, right = evaluate(self.trainer, samples)
        self.history.val_loss.append(value)
        if right is not None:
            self.history.val_accuracy.append(right)

    def _waited(self, epoch: int) -> bool:
        """Keep the weights of the best epoch; whether it is `patience` epochs ago."""
        if self.patience is None:
            return False
        history = self.history
        best = history.best_epoch
        now = history.val_loss[-1]
        # Anything is better than NaN.
        if best is None or now < history.val_loss[best] or math.isnan(history.val_loss[best]):
            history.best_epoch = epoch
            self.best = [p.value.copy() for p in self.trainer._trained]
            return False
        return epoch - best >= self.patience


def evaluate(trainer: Trainer, samples: Samples) -> tuple[float, float | None]:
    """Return the mean loss of some samples and, of classes, the share that is right."""
    total, weight, right = 0.0, 0.0, 0
    classes = isinstance(trainer.loss, Loss) and trainer.loss.name.endswith("cross_entropy")
    for x, t, w in samples.batches(np.arange(samples.number), _EVALUATED):
        rows = trainer._rows(x)
        share = float(rows.shape[0]) if w is None else sums.total(w)
        # The mean of samples that don't count is none.
        value, _ = trainer._value_and_gradient(rows, t, w if share else None)
        total += value * share if share else 0.0
        weight += share
        if classes:
            right += int(np.sum(_right(trainer._z, t)))
    return total / weight, right / samples.number if classes else None


def _right(z: Array, t: Array) -> Array:
    """Whether each row of sums is of the class that its target says."""
    if z.shape[1] == 1:
        found: Array = (z[:, 0] > 0) == (t.reshape(-1) > 0.5)
        return found
    if t.ndim == 2 and t.shape[1] == z.shape[1]:
        t = np.argmax(t, axis=1)
    return np.asarray(np.argmax(z, axis=1) == t.reshape(-1))


def _loss_of(net: Any, t: Any) -> Loss:
    """Return the loss that belongs to the last activation."""
    ops = net._lower(net.dtype)
    fused = getattr(ops[-1], "fused", None) or ("identity",)
    name = _LOSS_BEHIND.get(fused[0], "mse")
    if name == "mse" and t is not None:
        target = as_real(t, "t")
        n = net.out_features
        if target.ndim == 1 and n not in (None, 1):
            raise ValueError(
                f"say which loss: t of shape {target.shape} may be class numbers "
                f"(loss='cross_entropy'), and the network gives {n} outputs"
            )
    return Loss(name)
