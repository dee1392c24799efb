"""The optimisers: plain parameters, and one step on one array. What they keep is the trainer's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from fastlayer.functions.calls import number

if TYPE_CHECKING:
    from fastlayer.arrays import Array
    from fastlayer.names import OptimizerName

    OptimizerLike: TypeAlias = "OptimizerName | Optimizer"


class Optimizer:
    """Base of the optimisers: named numbers, immutable and picklable."""

    _defaults: ClassVar[dict[str, Any]]
    _parameters: dict[str, Any]
    # Arrays that a step keeps for each trained one, all 0 at first.
    _moments: int = 0
    # Momentum and Adam as scikit-learn has them, see docs/numerics.md.
    _other_forms: ClassVar[bool] = False

    def __init__(self, **given: Any) -> None:
        object.__setattr__(self, "_parameters", given)
        self._check()

    def _check(self) -> None:
        """Refuse parameters out of their range."""
        lr = self._parameters["lr"]
        if not 0 < lr < math.inf:
            raise ValueError(f"lr must be positive, got {lr}")
        decay = self._parameters["weight_decay"]
        if not 0 <= decay < math.inf:
            raise ValueError(f"weight_decay must not be negative, got {decay}")

    @property
    def lr(self) -> float:
        """The learning rate."""
        lr: float = self._parameters["lr"]
        return lr

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by name."""
        return dict(self._parameters)

    def _begin(self) -> dict[str, float]:
        """Return what a trainer keeps beside the moments, as it is before the first step."""
        return {}

    def _advance(self, state: dict[str, float], lr: float) -> tuple[float, ...]:
        """Count a step in `state`, and return the numbers that it takes."""
        raise NotImplementedError

    def _in_core(self) -> tuple[str, list[float]]:
        """Return its name in the core, and lr, momentum, weight decay, betas and eps."""
        raise NotImplementedError

    def _apply(self, w: Array, g: Array, moments: list[Array], scalars: tuple[float, ...]) -> None:
        """Take a step on `w` in place. Products and sums are rounded one by one, in its dtype."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{key}={value!r}"
            for key, value in self._parameters.items()
            if key == "lr" or value != self._defaults.get(key)
        )
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._parameters == vars(other)["_parameters"]

    def __hash__(self) -> int:
        return hash((type(self), *self._parameters.items()))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(self._fixed())

    def __delattr__(self, name: str) -> None:
        raise AttributeError(self._fixed())

    def _fixed(self) -> str:
        return f"{type(self).__name__} can't be changed; make another one, or set the lr of the Trainer"


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak, 1964) if wanted.

    ``g += weight_decay * w``; with momentum ``b = momentum * b + g``, and ``g`` is replaced by `b`, or
    by ``g + momentum * b`` (Nesterov; Sutskever et al., 2013); ``w -= lr * g``.

    Parameters
    ----------
    lr : float
        Learning rate.
    momentum : float
        From 0 to less than 1; 0 is none.
    nesterov : bool
        Whether the step looks ahead.
    weight_decay : float
        Weight of half the sum of squares of all parameters that is added to the loss.

    Raises
    ------
    ValueError
        A number out of its range.
    TypeError
        Something that is no number.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.SGD(lr=0.1, momentum=0.9)
    SGD(lr=0.1, momentum=0.9)
    """

    _defaults: ClassVar[dict[str, Any]] = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            lr=number("lr", lr),
            momentum=number("momentum", momentum),
            nesterov=bool(nesterov),
            weight_decay=number("weight_decay", weight_decay),
        )

    def _check(self) -> None:
        super()._check()
        momentum = self._parameters["momentum"]
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be from 0 to less than 1, got {momentum}")
        if self._parameters["nesterov"] and not momentum:
            raise ValueError("nesterov needs a momentum, such as momentum=0.9")

    @property
    def _moments(self) -> int:  # type: ignore[override]  # a class attribute where it is fixed
        return 1 if self._parameters["momentum"] else 0

    def _in_core(self) -> tuple[str, list[float]]:
        p = self._parameters
        name = "nesterov" if p["nesterov"] else "momentum" if p["momentum"] else "sgd"
        return name, [p["lr"], p["momentum"], p["weight_decay"], 0.0, 0.0, 0.0]

    def _advance(self, state: dict[str, float], lr: float) -> tuple[float, ...]:
        gain, step = (lr, 1.0) if self._other_forms and self._moments else (1.0, lr)
        return (gain, step, self._parameters["momentum"], self._parameters["weight_decay"])

    def _apply(self, w: Array, g: Array, moments: list[Array], scalars: tuple[float, ...]) -> None:
        gain, lr, momentum, decay = map(w.dtype.type, scalars)
        if decay:
            g = g + decay * w
        if moments:
            (b,) = moments
            g = gain * g
            np.multiply(b, momentum, out=b)
            b += g
            g = g + momentum * b if self._parameters["nesterov"] else b
        w -= lr * g


class Adam(Optimizer):
    """Adam (Kingma & Ba, 2015).

    ``m += (1 - beta1) * (g - m)``, ``v = beta2 * v + (1 - beta2) * g**2`` and
    ``w -= lr / (1 - beta1**t) * m / (sqrt(v / (1 - beta2**t)) + eps)`` in step t.

    Parameters
    ----------
    lr : float
        Learning rate.
    betas : tuple of float
        How much of the means of gradients and of their squares stays from step to step.
    eps : float
        Added to the root.
    weight_decay : float
        Weight of half the sum of squares of all parameters that is added to the loss; `AdamW`
        decays them in another way.

    Raises
    ------
    ValueError
        A number out of its range.
    TypeError
        Something that is no number.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.Adam(lr=0.01)
    Adam(lr=0.01)
    """

    _defaults: ClassVar[dict[str, Any]] = {
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
    }
    _moments = 2
    _core_name = "adam"

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        try:
            first, second = betas
        except (TypeError, ValueError):
            raise TypeError(f"betas must be two numbers, got {betas!r}") from None
        super().__init__(
            lr=number("lr", lr),
            betas=(number("betas", first), number("betas", second)),
            eps=number("eps", eps),
            weight_decay=number("weight_decay", weight_decay),
        )

    def _check(self) -> None:
        super()._check()
        betas, eps = self._parameters["betas"], self._parameters["eps"]
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be from 0 to less than 1, got {betas}")
        if not 0 <= eps < math.inf:
            raise ValueError(f"eps must not be negative, got {eps}")

    def _in_core(self) -> tuple[str, list[float]]:
        p = self._parameters
        return self._core_name, [p["lr"], 0.0, p["weight_decay"], *p["betas"], p["eps"]]

    def _begin(self) -> dict[str, float]:
        return {"beta1_power": 1.0, "beta2_power": 1.0}

    def _advance(self, state: dict[str, float], lr: float) -> tuple[float, ...]:
        beta1, beta2 = self._parameters["betas"]
        state["beta1_power"] *= beta1
        state["beta2_power"] *= beta2
        step = lr / (1.0 - state["beta1_power"])
        scale = 1.0 / math.sqrt(1.0 - state["beta2_power"])
        eps = self._parameters["eps"] * (scale if self._other_forms else 1.0)
        return (step, 1.0 - beta1, beta2, 1.0 - beta2, scale, eps, self._decay(lr))

    def _decay(self, lr: float) -> float:
        decay: float = self._parameters["weight_decay"]
        return decay

    def _decayed(self, w: Array, g: Array, decay: Any) -> Array:
        """Return the gradient with the decay that belongs to it."""
        return g + decay * w if decay else g

    def _apply(self, w: Array, g: Array, moments: list[Array], scalars: tuple[float, ...]) -> None:
        step, c1, beta2, c2, scale, eps, decay = map(w.dtype.type, scalars)
        g = self._decayed(w, g, decay)
        m, v = moments
        m += c1 * (g - m)
        np.multiply(v, beta2, out=v)
        v += c2 * (g * g)
        w -= step * (m / (np.sqrt(v) * scale + eps))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019).

    ``w -= lr * weight_decay * w`` before the step of `Adam`, of weights and biases alike.

    Parameters
    ----------
    lr : float
        Learning rate.
    betas : tuple of float
        How much of the means of gradients and of their squares stays from step to step.
    eps : float
        Added to the root.
    weight_decay : float
        Share of a parameter that goes in each step, times `lr`.

    Raises
    ------
    ValueError
        A number out of its range.
    TypeError
        Something that is no number.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.AdamW(lr=0.001, weight_decay=0.1)
    AdamW(lr=0.001, weight_decay=0.1)
    """

    _defaults: ClassVar[dict[str, Any]] = {**Adam._defaults, "weight_decay": 0.01}
    _core_name = "adamw"

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)

    def _decay(self, lr: float) -> float:
        return lr * super()._decay(lr)

    def _decayed(self, w: Array, g: Array, decay: Any) -> Array:
        if decay:
            w -= decay * w
        return g


_BY_NAME: dict[str, type[Adam]] = {"adam": Adam, "adamw": AdamW}


def as_optimizer(optimizer: Any) -> Optimizer:
    """Return an optimiser given by name or as an object."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if optimizer == "sgd":
        raise ValueError("sgd has no learning rate of its own: pass fl.SGD(lr=...)")
    if isinstance(optimizer, str):
        if optimizer not in _BY_NAME:
            raise ValueError(f"unknown optimizer {optimizer!r}; known: adam, adamw, fl.SGD(lr=...)")
        return _BY_NAME[optimizer]()
    hint = f"; make one: fl.{optimizer.__name__}(...)" if isinstance(optimizer, type) else ""
    raise TypeError(
        "optimizer must be a name or fl.SGD, fl.Adam or fl.AdamW, got "
        f"{type(optimizer).__name__}{hint}"
    )
