"""Fitting all samples at once: L-BFGS of SciPy on the core's gradients."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize
from sklearn.utils.optimize import _check_optimize_result

from fastlayer import _core
from fastlayer.arrays import declined
from fastlayer.run.ops import IDENTITY
from fastlayer.sklearn.objective import poisson_constants
from fastlayer.train import sums
from fastlayer.train.loss import Loss, check_weights

if TYPE_CHECKING:
    from fastlayer.arrays import Array
    from fastlayer.sklearn.stochastic import Data


def fit_lbfgs(estimator: Any, loss: Any, data: Data) -> None:
    """Minimise the loss over all samples, and give the weights to the estimator."""
    e = estimator
    problem = _Problem(e, loss, data)
    options = {"maxfun": e.max_fun, "maxiter": e.max_iter, "gtol": e.tol}
    found = minimize(
        problem.value_and_gradient,
        np.hstack([a.ravel() for a in [*e.coefs_, *e.intercepts_]]).astype(np.float64),
        method="L-BFGS-B",
        jac=True,
        options=options,
        callback=(lambda x: _tell(e, problem)) if e.verbose else None,
    )
    e.n_iter_ = _check_optimize_result("lbfgs", found, e.max_iter)
    e.loss_ = float(found.fun)
    e.coefs_, e.intercepts_ = problem.unpacked(found.x)


def _tell(e: Any, problem: _Problem) -> None:
    problem.iterations += 1
    print(f"Iteration {problem.iterations}, loss = {problem.last:.8f}")


class _Problem:
    """The loss of all samples as a function of all weights in one vector, float64."""

    def __init__(self, estimator: Any, loss: Any, data: Data) -> None:
        e = estimator
        self.loss, self.iterations, self.last = loss, 0, 0.0
        self.sizes = [e.n_features_in_, *(w.shape[1] for w in e.coefs_)]
        fused = [a._fused or IDENTITY for a in e._layers]
        if isinstance(loss, Loss) and fused[-1][0] in loss._kind.behind:
            fused[-1] = IDENTITY
        self.core = _core.Trainer("float64", self.sizes[0])
        for (k, n), each in zip(pairwise(self.sizes), fused, strict=True):
            self.core.dense(np.zeros((n, k)), np.zeros(n), *each)
        self.core.finish("", 0.0, "sgd")
        self.x = data.x if isinstance(data.x, np.ndarray) else data.x.toarray()
        self.weights = check_weights(data.weights, self.x.shape[0])
        whole = float(self.x.shape[0]) if self.weights is None else sums.total(self.weights)
        self.pull = loss._penalty / whole
        shape = (self.x.shape[0], self.sizes[-1])
        self.t = data.t
        if isinstance(loss, Loss):
            self.t = loss._targets(data.t, shape, np.dtype(np.float64))
        self.constant = 0.0
        if isinstance(e.loss, str) and e.loss == "poisson":
            constants = poisson_constants(data.t)
            self.constant = float(np.average(constants, weights=self.weights))

    def unpacked(self, packed: Array) -> tuple[list[Array], list[Array]]:
        """Return matrices (k, n) and biases (n,) of a vector of all weights."""
        pairs = list(pairwise(self.sizes))
        ends = np.cumsum([k * n for k, n in pairs] + self.sizes[1:])
        parts = np.split(packed, ends[:-1])
        coefs = [a.reshape(pair) for a, pair in zip(parts, pairs, strict=False)]
        return coefs, parts[len(pairs) :]

    def value_and_gradient(self, packed: Array) -> tuple[float, Array]:
        """Return the loss with its penalty, and the gradient by all weights."""
        coefs, biases = self.unpacked(packed)
        for i, (w, b) in enumerate(zip(coefs, biases, strict=True)):
            self.core.set_weights(i, w.T, b)
        y = self.core.forward(self.x)
        if y is None:
            raise declined()
        value, dy = self._loss_of(y)
        self.core.backward(dy, False)
        gradients = [self.core.gradient_weight(i) for i in range(len(coefs))]
        of_biases = [self.core.gradient_bias(i) for i in range(len(coefs))]
        flat = []
        for w, g in zip(coefs, gradients, strict=True):
            assert g is not None
            flat.append((g.T + self.pull * w).ravel())
            if self.pull:
                value += 0.5 * self.pull * sums.dot(w.ravel(), w.ravel())
        self.last = value
        return value, np.hstack([*flat, *(b for b in of_biases if b is not None)])

    def _loss_of(self, y: Array) -> tuple[float, Array]:
        if isinstance(self.loss, Loss):
            value, dy = self.loss._of(y, self.t, self.weights)
            return value + self.constant, dy
        value, dy = self.loss(y, self.t)
        return float(value), np.ascontiguousarray(dy, np.float64)
