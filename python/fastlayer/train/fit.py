"""What `Network.fit` does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.arrays import as_real, count
from fastlayer.functions.elementwise import number
from fastlayer.report.progress import reporting
from fastlayer.train import sums
from fastlayer.train.batches import rows_of
from fastlayer.train.history import History
from fastlayer.train.loss import Loss, as_loss, check_weights
from fastlayer.train.schedules import as_schedule
from fastlayer.train.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastlayer.arrays import Array
    from fastlayer.train.batches import Samples
    from fastlayer.train.loss import LossLike
    from fastlayer.train.optimizers import OptimizerLike
    from fastlayer.train.schedules import ScheduleLike

# Samples that are evaluated at a time.
_EVALUATED = 1024

_LOSS_BEHIND = {
    "softmax": "cross_entropy",
    "log_softmax": "cross_entropy",
    "sigmoid": "binary_cross_entropy",
    "exp": "poisson",
}


class Options(NamedTuple):
    """The arguments of `Network.fit` that are about how it goes on."""

    optimizer: OptimizerLike
    epochs: int
    batch_size: int
    rng: Any
    validation: Any
    patience: int | None
    sample_weight: Any
    class_weight: Any
    schedule: ScheduleLike
    callback: Callable[[Any, History], Any] | None
    progress: Any
    train: Any
    max_norm: float | None


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
        source: _Source = _Stream(x, t, epochs, options)
    else:
        source = _Arrays(x, t, options)
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

    def go(self, source: _Source) -> History:
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

    def _go_on(self, source: _Source, epoch: int) -> str:
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


class _Source:
    """Where batches come from."""

    validation: tuple[Any, Any, Any] | None = None
    held: Samples | None = None

    def sample_targets(self) -> Any:
        """Return targets to guess a loss from."""
        raise NotImplementedError

    def check(self, trainer: Trainer) -> None:
        """Refuse what does not fit, before the first step."""
        if self.validation is not None:
            try:
                self.held = trainer._samples(*self.validation)
            except (TypeError, ValueError) as error:
                raise type(error)(f"validation: {error}") from None

    def epoch(self, trainer: Trainer, rate: Callable[[float], float]) -> tuple[Array, Array]:
        """Take the steps of one epoch; return the loss and the number of samples of each.

        `rate` gives the learning rate at a part of the epoch, from 0 to less than 1.
        """
        raise NotImplementedError


class _Arrays(_Source):
    """Arrays, shuffled before each epoch."""

    def __init__(self, x: Any, t: Any, options: Options) -> None:
        if t is None:
            raise ValueError("t is missing: the targets of the samples")
        self.x = tuple(rows_of(a) for a in x) if isinstance(x, tuple) else rows_of(x)
        self.t = as_real(t, "t")
        self.size = options.batch_size
        self.bits = raw_bits(options.rng)
        number = self.t.shape[0] if self.t.ndim else 0
        first = self.x[0] if isinstance(self.x, tuple) else self.x
        if first.ndim == 0 or first.shape[0] != number:
            raise ValueError(f"x has shape {first.shape}, but t has shape {self.t.shape}")
        weights = check_weights(options.sample_weight, number)
        if options.class_weight is not None:
            of_class = class_weights(self.t, options.class_weight)
            weights = of_class if weights is None else weights * of_class
        self.weights = weights
        self.kept = np.arange(number)
        if options.validation is not None:
            self.validation = self._held_back(options.validation)

    def _held_back(self, validation: Any) -> tuple[Any, Any, Any]:
        if isinstance(validation, tuple):
            if len(validation) not in (2, 3):
                raise ValueError("validation is a fraction or a tuple (x, t) or (x, t, weights)")
            x, t, *rest = validation
            return x, t, rest[0] if rest else None
        share = number("validation", validation)
        held = round(self.kept.size * share)
        if not 0 < share < 1 or not 0 < held < self.kept.size:
            raise ValueError(
                f"validation={share} of {self.kept.size} samples leaves none on one side"
            )
        order = shuffled(self.kept.size, self.bits)
        at, self.kept = np.sort(order[:held]), np.sort(order[held:])
        return self._part(at)

    def _part(self, at: Array) -> tuple[Any, Any, Any]:
        x = tuple(a[at] for a in self.x) if isinstance(self.x, tuple) else self.x[at]
        return x, self.t[at], None if self.weights is None else self.weights[at]

    def sample_targets(self) -> Any:
        return self.t

    def check(self, trainer: Trainer) -> None:
        self.samples = trainer._samples(self.x, self.t, self.weights)
        super().check(trainer)

    def epoch(self, trainer: Trainer, rate: Callable[[float], float]) -> tuple[Array, Array]:
        order = self.kept[shuffled(self.kept.size, self.bits)]
        begins = np.arange(0, order.size, self.size)
        sizes = np.minimum(self.size, order.size - begins)
        counts = np.arange(begins.size)
        if self.weights is not None:  # from batches that don't count there is nothing to learn
            counts = np.flatnonzero(np.maximum.reduceat(self.weights[order], begins))
            order = order[np.isin(np.arange(order.size) // self.size, counts)]
        rates = [rate(step / begins.size) for step in counts.tolist()]
        losses = trainer._epoch(self.samples, order, self.size, rates)
        return losses, sizes[counts].astype(float)


class _Stream(_Source):
    """A callable that returns the batches of an epoch, or one generator for a single epoch."""

    def __init__(self, source: Any, t: Any, epochs: int, options: Options) -> None:
        if t is not None:
            raise ValueError("a stream of batches brings its targets: leave t out")
        for name in ("sample_weight", "class_weight"):
            if getattr(options, name) is not None:
                raise ValueError(f"{name} goes into the batches of a stream: (x, t, sample_weight)")
        if not callable(source) and epochs > 1:
            raise ValueError(
                "a generator can be used for one epoch only: pass a function that returns a new one"
            )
        self.source = source
        given = options.validation
        if given is not None:
            if not isinstance(given, tuple):
                raise ValueError("nothing can be held back of a stream: pass validation=(x, t)")
            self.validation = (*given, None)[:3]

    def sample_targets(self) -> Any:
        return None

    def epoch(self, trainer: Trainer, rate: Callable[[float], float]) -> tuple[Array, Array]:
        # Nobody knows how long it is: the rate changes from epoch to epoch.
        trainer.lr = rate(0.0)
        losses, weights = [], []
        found: Iterable[Any] = self.source() if callable(self.source) else self.source
        for batch in found:
            if not isinstance(batch, tuple) or len(batch) not in (2, 3):
                raise TypeError("a stream yields tuples (x, t) or (x, t, sample_weight)")
            if len(batch) == 3 and batch[2] is not None and not np.any(batch[2]):
                continue  # nothing to learn from it
            losses.append(trainer.step(*batch))
            weights.append(_number_of(batch[0]))
        return np.array(losses), np.array(weights)


def _number_of(x: Any) -> float:
    """Return how many samples a batch has."""
    first = x[0] if isinstance(x, tuple) else x
    return float(len(first)) if np.ndim(first) > 1 else 1.0


def raw_bits(rng: Any) -> Any:
    """Return a bit generator: what it gives stays the same in all versions of NumPy."""
    if isinstance(rng, np.random.Generator):
        return rng.bit_generator
    if rng is None or hasattr(rng, "__index__"):
        return np.random.PCG64(None if rng is None else rng.__index__())
    raise TypeError(f"rng must be an int or a numpy.random.Generator, got {type(rng).__name__}")


def shuffled(n: int, bits: Any) -> Array:
    """Return the numbers below `n` in an order drawn from raw bits: sorted by 64-bit keys."""
    return np.argsort(bits.random_raw(n), kind="stable")


def class_weights(t: Array, given: Any) -> Array:
    """Return a weight for each sample from that of its class."""
    if t.ndim != 1 or t.dtype.kind not in "biu":
        raise ValueError("class_weight needs class numbers (m,) as targets")
    numbers, at, counts = np.unique(t, return_inverse=True, return_counts=True)
    if isinstance(given, str):
        if given != "balanced":
            raise ValueError(f"class_weight must be a dict or 'balanced', got {given!r}")
        balanced: Array = t.size / (numbers.size * counts)
        return balanced[at]
    if not isinstance(given, Mapping):
        raise TypeError(f"class_weight must be a dict or 'balanced', got {type(given).__name__}")
    of_class = np.ones(numbers.size)
    for key, value in given.items():
        place = np.flatnonzero(numbers == key)
        if not place.size:
            raise ValueError(f"class_weight has a class {key!r}, and no target is of it")
        of_class[place] = number("class_weight", value)
    found: Array = of_class[at]
    return found


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
