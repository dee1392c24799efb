"""What is trained on, how a peer offers to do it, and the losses that come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from cases import LEARNING_RATE, STEPS

BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Task:
    """The same for every peer."""

    layers: list  # (weight (n, k), bias (n,), "relu" or None) of each, where all start
    x: np.ndarray  # (N, k)
    t: np.ndarray  # class numbers; of a single output, targets (N, 1)
    batch: int
    optimizer: str  # adam or sgd
    rate: float
    threads: int

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.x.shape[1], *(len(bias) for _, bias, _ in self.layers))

    @property
    def regression(self) -> bool:
        return self.sizes[-1] == 1


class Learner(NamedTuple):
    """One way of a peer to train; a peer's `learners(task)` gives these by name."""

    epoch: Callable[
        [Any], Any
    ]  # takes an order of rows, returns the losses of its steps, or their mean
    answers: Callable[[np.ndarray], np.ndarray]  # the classes of rows
    own: Callable[[np.ndarray], Any] = lambda order: order  # what `epoch` takes for an order
    ready: Callable[[Any], Any] = lambda order: None  # compiles what `epoch` of such an order needs
    mean: float = (
        0.0  # where only the mean of its losses can be checked: that many times the others'
    )


def samples(case, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, class numbers or, of a single output, targets (N, 1), and the order of an epoch."""
    rng = np.random.default_rng(1)
    n = STEPS * case.batch
    x = rng.standard_normal((n, case.sizes[0])).astype(dtype)
    labels = rng.integers(0, case.sizes[-1], n)
    t = x[:, :1] * x[:, 1:2] if case.sizes[-1] == 1 else labels
    return x, t, rng.permutation(n)


def task_of(case, dtype: str, threads: int = 1) -> tuple[Task, np.ndarray]:
    """And the order of the epoch that is trained again and again."""
    x, t, order = samples(case, dtype)
    rate = LEARNING_RATE[case.layout]
    return Task(case.layers(dtype), x, t, case.batch, case.layout, rate, threads), order


def forms(peer, case, dtype: str, threads: int) -> dict:
    """What a peer's `prepare` gives for other cases."""
    task, order = task_of(case, dtype, threads)
    learners = peer.learners(task) if hasattr(peer, "learners") else None
    found = {}
    for name, way in (learners or {}).items():
        own = way.own(order)
        found[name] = (partial(way.epoch, own), ())
        if way.mean:
            losses = reference(case).astype(dtype)
            mean, wanted = np.mean(way.epoch(own)), losses.mean() * way.mean
            if not abs(mean - wanted) <= 1e-3 * wanted:
                raise ValueError(f"a mean loss of {mean} instead of {wanted}")
            found[name] = (partial(_known, way.epoch, own, losses), ())
    return found


def _known(epoch: Callable[[Any], Any], order, losses: np.ndarray) -> np.ndarray:
    epoch(order)
    return losses


class ByHand:
    """NumPy as one writes it with care: everything goes to arrays that were made before."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.x, self.t = task.x, task.t
        self.weights = [w.copy() for w, _, _ in task.layers]
        self.biases = [b.copy() for _, b, _ in task.layers]
        m, dtype = task.batch, task.x.dtype
        self.rows = np.empty((m, task.sizes[0]), dtype)
        self.sums = [np.empty((m, n), dtype) for n in task.sizes[1:]]
        self.slopes = [np.empty_like(z) for z in self.sums]
        self.parameters = [*self.weights, *self.biases]
        self.gradients = [np.empty_like(p) for p in self.parameters]
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.parameters]
        self.scratch = [np.empty_like(p) for p in self.parameters]
        self.step = 0

    def epoch(self, order: np.ndarray) -> np.ndarray:
        m = self.task.batch
        losses = [self.one(order[i : i + m]) for i in range(0, len(order), m)]
        return np.array(losses, self.x.dtype)

    def answers(self, x: np.ndarray) -> np.ndarray:
        for w, b in zip(self.weights, self.biases, strict=True):
            z = x @ w.T + b
            x = np.maximum(z, 0)
        return z.argmax(axis=1)

    def one(self, at: np.ndarray) -> float:
        np.take(self.x, at, axis=0, out=self.rows)
        h = self.rows
        for i, (w, b, z) in enumerate(zip(self.weights, self.biases, self.sums, strict=True)):
            np.matmul(h, w.T, out=z)
            np.add(z, b, out=z)
            if i < len(self.sums) - 1:
                np.maximum(z, 0, out=z)
            h = z
        loss = self._loss(self.t[at], self.sums[-1], self.slopes[-1])
        half = len(self.weights)
        for i in reversed(range(half)):
            d = self.slopes[i]
            below = self.sums[i - 1] if i else self.rows
            np.matmul(d.T, below, out=self.gradients[i])
            np.sum(d, axis=0, out=self.gradients[half + i])
            if i:
                np.matmul(d, self.weights[i], out=self.slopes[i - 1])
                np.multiply(self.slopes[i - 1], below > 0, out=self.slopes[i - 1])
        self.step += 1
        for p, g, mv, s in zip(
            self.parameters, self.gradients, self.moments, self.scratch, strict=True
        ):
            self._update(p, g, mv, s)
        return loss

    def _loss(self, t: np.ndarray, z: np.ndarray, d: np.ndarray) -> float:
        m = len(t)
        if z.shape[1] == 1:
            np.subtract(z, t, out=d)
            loss = float(np.mean(d * d))
            np.multiply(d, 2 / m, out=d)
            return loss
        np.subtract(z, z.max(axis=1, keepdims=True), out=d)
        picked = d[np.arange(m), t]
        np.exp(d, out=d)
        whole = d.sum(axis=1, keepdims=True)
        loss = float(np.mean(np.log(whole[:, 0]) - picked))
        np.divide(d, whole, out=d)
        d[np.arange(m), t] -= 1
        np.divide(d, m, out=d)
        return loss

    def _update(self, p, g, moments, s) -> None:
        lr = self.task.rate
        if self.task.optimizer == "sgd":
            np.multiply(g, lr, out=s)
            np.subtract(p, s, out=p)
            return
        m, v = moments
        b1, b2 = BETAS
        np.multiply(m, b1, out=m)
        np.multiply(g, 1 - b1, out=s)
        np.add(m, s, out=m)
        np.multiply(v, b2, out=v)
        np.multiply(g, g, out=s)
        np.multiply(s, 1 - b2, out=s)
        np.add(v, s, out=v)
        np.multiply(v, 1 / (1 - b2**self.step), out=s)
        np.sqrt(s, out=s)
        np.add(s, EPS, out=s)
        np.divide(m, s, out=s)
        np.multiply(s, lr / (1 - b1**self.step), out=s)
        np.subtract(p, s, out=p)


def reference(case) -> np.ndarray:
    """The losses of the first epoch, in float64 from the float32 weights that all start from."""
    task, order = task_of(case, "float64")
    return ByHand(task).epoch(order)
