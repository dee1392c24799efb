"""Losses and optimisers in the form in which scikit-learn's perceptrons count them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastlayer.train.loss import Loss
from fastlayer.train.optimizers import SGD, Adam, AdamW

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.names import LossName
    from fastlayer.train.optimizers import Optimizer


class Objective(Loss):
    """A loss whose value and gradient count `scales` times, with a penalty of the weights.

    The penalty, times half the sum of the squares of all weights, is divided by the number of samples
    in the batch, or by the sum of their weights. Cross entropies are those of probabilities from `eps`
    to ``1 - eps``, their gradients those of all.
    """

    __slots__ = ("_bounds", "_eps", "_penalty", "_scales")
    _eps: float

    def __init__(
        self, loss: Loss, scales: tuple[float, float], penalty: float, eps: float = 0.0
    ) -> None:
        super().__init__(loss.name, **loss.parameters)
        object.__setattr__(self, "_scales", scales)
        object.__setattr__(self, "_penalty", penalty)
        object.__setattr__(self, "_eps", eps)
        bounds = (-math.log1p(-eps), -math.log(eps)) if eps else Loss._bounds
        object.__setattr__(self, "_bounds", bounds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Objective) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self._name, self._value, self._scales, self._penalty, self._eps))

    def __reduce__(self) -> tuple[Any, ...]:
        plain = Loss(self.name, **self.parameters)
        return Objective, (plain, self._scales, self._penalty, self._eps)


class OwnObjective:
    """A function of the user's, ``(y, t) -> (value, dy)``, with a penalty of the weights."""

    def __init__(self, function: Callable[[Array, Array], Any], penalty: float) -> None:
        self.function, self._penalty = function, penalty

    def __call__(self, y: Array, t: Array) -> Any:
        return self.function(y, t)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnObjective) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.function, self._penalty))


# What scikit-learn's names stand for; of the first three values and gradients are not means over the
# outputs there, but sums, and the value of the squares is half their mean.
_NAMED: dict[str, LossName] = {
    "squared_error": "mse",
    "log_loss": "cross_entropy",
    "poisson": "poisson",
    "absolute_error": "mae",
    "mae": "mae",
    "huber": "huber",
}


def objective(
    loss: Any, outputs: int, out_activation: str, alpha: float, eps: float, consistent: bool
) -> Objective | OwnObjective:
    """Return the loss of `outputs` outputs that a parameter ``loss`` stands for.

    `eps` is that of the dtype. `consistent` asks for a value that the gradient is that of, also for the
    squares of several outputs.
    """
    if isinstance(loss, str):
        name = _NAMED[loss]
        if loss == "log_loss" and out_activation == "logistic":
            name = "binary_cross_entropy"
        scales = {
            "mse": (outputs / 2 if consistent else 0.5, outputs / 2),
            "binary_cross_entropy": (outputs, outputs),
            "poisson": (outputs, outputs),
        }.get(name, (1.0, 1.0))
        value, slope = map(float, scales)
        return Objective(Loss(name), (value, slope), alpha, eps if loss == "log_loss" else 0.0)
    if isinstance(loss, Loss):
        return Objective(loss, (1.0, 1.0), alpha)
    return OwnObjective(loss, alpha)


def poisson_constants(y: Array) -> Array:
    """Return what half the Poisson deviance of each sample has beside ``exp(z) - y * z``."""
    wide = y.astype(np.float64)
    logarithms = np.log(wide, where=wide > 0, out=np.zeros_like(wide))
    constants: Array = np.sum(wide * logarithms - wide, axis=1)
    return constants


class Velocity(SGD):
    """Momentum whose velocity holds the learning rate; it may be 1, and Nesterov's without one."""

    _other_forms: ClassVar[bool] = True

    def _check(self) -> None:
        lr, momentum = self._parameters["lr"], self._parameters["momentum"]
        if not 0 < lr < math.inf or not 0 <= momentum <= 1:
            raise ValueError(f"learning_rate_init={lr} or momentum={momentum} is out of range")


class LateAdam(Adam):
    """Adam with eps added to the root before it is corrected."""

    _other_forms: ClassVar[bool] = True


def optimizer(estimator: Any) -> Optimizer:
    """Return the optimiser that the parameters of an estimator ask for."""
    lr = float(estimator.learning_rate_init)
    if estimator.solver == "sgd":
        momentum = float(estimator.momentum)
        nesterov = bool(estimator.nesterovs_momentum) and momentum > 0
        return Velocity(lr, momentum, nesterov)
    betas = (float(estimator.beta_1), float(estimator.beta_2))
    if estimator.solver == "adam":
        return LateAdam(lr, betas, float(estimator.epsilon))
    return AdamW(lr, betas, float(estimator.epsilon), weight_decay=float(estimator.alpha))
