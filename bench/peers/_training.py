"""What is trained on, and the losses that come out."""

from __future__ import annotations

import numpy as np
from cases import LEARNING_RATE, STEPS

BETAS, EPS = (0.9, 0.999), 1e-8


def samples(case, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, class numbers or, of a single output, targets (N, 1), and the order of an epoch."""
    rng = np.random.default_rng(1)
    n = STEPS * case.batch
    x = rng.standard_normal((n, case.sizes[0])).astype(dtype)
    labels = rng.integers(0, case.sizes[-1], n)
    t = x[:, :1] * x[:, 1:2] if case.sizes[-1] == 1 else labels
    return x, t, rng.permutation(n)


class ByHand:
    """NumPy as one writes it with care: everything goes to arrays that were made before."""

    def __init__(self, case, dtype: str) -> None:
        self.case = case
        self.x, self.t, self.order = samples(case, dtype)
        self.weights = [w.copy() for w, _, _ in case.layers(dtype)]
        self.biases = [b.copy() for _, b, _ in case.layers(dtype)]
        m = case.batch
        self.rows = np.empty((m, case.sizes[0]), dtype)
        self.sums = [np.empty((m, n), dtype) for n in case.sizes[1:]]
        self.slopes = [np.empty_like(z) for z in self.sums]
        self.parameters = [*self.weights, *self.biases]
        self.gradients = [np.empty_like(p) for p in self.parameters]
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.parameters]
        self.scratch = [np.empty_like(p) for p in self.parameters]
        self.step = 0

    def epoch(self) -> np.ndarray:
        m = self.case.batch
        starts = range(0, STEPS * m, m)
        return np.array([self.one(self.order[i : i + m]) for i in starts])

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
        lr = LEARNING_RATE[self.case.layout]
        if self.case.layout == "sgd":
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
    return ByHand(case, "float64").epoch()
