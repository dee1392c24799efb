"""Where the batches of `Network.fit` come from: arrays in an order drawn anew, or a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.arrays import as_real
from fastlayer.functions.calls import number
from fastlayer.train.batches import rows_of
from fastlayer.train.loss import check_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastlayer.arrays import Array
    from fastlayer.train.batches import Samples
    from fastlayer.train.history import History
    from fastlayer.train.optimizers import OptimizerLike
    from fastlayer.train.schedules import ScheduleLike
    from fastlayer.train.trainer import Trainer


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


class Source:
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


class Arrays(Source):
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


class Stream(Source):
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
