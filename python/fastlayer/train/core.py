"""The fast path of training: a chain of dense layers, whose steps the core takes in one call.

The plain path of `tape` gives the same bits. It takes over where anything else is in the chain, and
where a part of a step is wanted by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import _core
from fastlayer.train.tape import Dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array
    from fastlayer.train.loss import Loss
    from fastlayer.train.optimizers import Optimizer
    from fastlayer.train.tape import Parameter, Tape

# Places in the core's array of scalars.
_LR, _POWERS = 0, slice(7, 9)


class CoreSteps:
    """Steps in the core, and the way of weights and moments between it and the tape."""

    def __init__(
        self,
        layers: Sequence[Dense],
        trained: Sequence[Parameter],
        loss: Loss,
        optimizer: Optimizer,
        max_norm: float | None,
    ) -> None:
        self._trained, self._optimizer = trained, optimizer
        chosen = {id(p) for p in trained}
        first = layers[0].weight.value
        self._core = _core.Trainer(first.dtype.name, first.shape[1])
        self._learning = []
        for i, layer in enumerate(layers):
            learns = id(layer.weight) in chosen
            bias = None if layer.bias is None else layer.bias.value
            self._core.dense(layer.weight.value, bias, *layer.fused, learns)
            if learns:
                self._learning.append((i, layer))
        kind, numbers = optimizer._in_core()
        self._core.finish(loss.name, loss._value, kind)
        forms = float(optimizer._other_forms)
        of_loss = [*loss._scales, loss._penalty, forms, *loss._bounds]
        self._scalars = np.array([*numbers, max_norm or 0.0, 1.0, 1.0, *of_loss])

    @classmethod
    def of(
        cls,
        tape: Tape,
        trained: Sequence[Parameter],
        loss: Loss,
        optimizer: Optimizer,
        max_norm: float | None,
    ) -> CoreSteps | None:
        """Return the steps of a chain of dense layers, None where anything else is in it."""
        layers = [node for node in tape.nodes if isinstance(node, Dense) and node.slopes is None]
        if len(layers) < len(tape.nodes):
            return None
        return cls(layers, trained, loss, optimizer, max_norm)

    def step(self, x: Any, t: Any, weights: Array | None, lr: float) -> float | None:
        """Take a step; None where the arguments are not as the core wants them."""
        self._scalars[_LR] = lr
        loss: float | None = self._core.step(x, t, weights, self._scalars)
        return loss

    def steps(
        self, x: Array, t: Array, weights: Array | None, size: int, order: Array, lr: float
    ) -> Array | None:
        """Take a step on each batch; None where the arguments are not as the core wants them."""
        self._scalars[_LR] = lr
        return self._core.steps(x, t, weights, size, order, self._scalars)

    @property
    def steps_done(self) -> int:
        """How many steps the last call of `steps` came to."""
        return self._core.steps_done

    def pull(self, moments: Sequence[list[Array]], progress: dict[str, float]) -> None:
        """Give the tape what the core has."""
        found = {}
        for i, layer in self._learning:
            found[id(layer.weight)] = self._core.weight(i), self._moments(i, "weight")
            if layer.bias is not None:
                bias = self._core.bias(i)
                assert bias is not None
                found[id(layer.bias)] = bias, self._moments(i, "bias")
        for p, kept in zip(self._trained, moments, strict=True):
            p.value, kept[:] = found[id(p)]
        progress.update(zip(progress, self._scalars[_POWERS].tolist(), strict=False))

    def _moments(self, layer: int, name: str) -> list[Array]:
        orders = ("first", "second")[: self._optimizer._moments]
        return [getattr(self._core, f"{order}_moment_{name}")(layer) for order in orders]

    def push(self, moments: Sequence[Sequence[Array]], progress: dict[str, float]) -> None:
        """Take over what the tape has."""
        kept = {id(p): each for p, each in zip(self._trained, moments, strict=True)}
        setters = (self._core.set_first_moments, self._core.set_second_moments)
        for i, layer in self._learning:
            bias = layer.bias
            self._core.set_weights(i, layer.weight.value, None if bias is None else bias.value)
            of_bias = [None, None] if bias is None else kept[id(bias)]
            for put, a, b in zip(setters, kept[id(layer.weight)], of_bias, strict=False):
                put(i, a, b)
        if progress:
            self._scalars[_POWERS] = list(progress.values())
