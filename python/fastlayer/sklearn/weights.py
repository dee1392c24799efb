"""The network behind ``coefs_`` and ``intercepts_``, and what its training needs from call to call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.network.layer import Layer
from fastlayer.network.network import Network
from fastlayer.train.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array
    from fastlayer.functions.activation import Activation
    from fastlayer.train.optimizers import Optimizer


class Weights:
    """Makes the network anew where somebody has changed the arrays, which are what counts.

    Pickles hold what the optimiser keeps, and no weights: these are the estimator's.
    """

    def __init__(self, kept: dict[str, Any] | None = None) -> None:
        self._net: Network | None = None
        self._trainer: Trainer | None = None
        self._seen: list[Array] = []
        self._activations: list[Activation] = []
        self._kept = kept

    def network(
        self, coefs: Sequence[Array], biases: Sequence[Array], activations: Sequence[Activation]
    ) -> Network:
        """Return the network of these weights."""
        weights = [*coefs, *biases]
        same = len(weights) == len(self._seen) and self._activations == [*activations]
        same = same and all(map(np.array_equal, weights, self._seen))
        if self._net is None or not same:
            layers = [
                Layer.from_arrays(w, b, a, layout="in_out")
                for w, b, a in zip(coefs, biases, activations, strict=True)
            ]
            self._keep()
            self._net, self._trainer = Network(layers), None
            self._seen, self._activations = [np.array(a) for a in weights], [*activations]
        return self._net

    def learned(self, trainer: Trainer) -> tuple[list[Array], list[Array]]:
        """Take over what was learned; return the arrays (n_in, n_out) and (n_out,)."""
        net = trainer.network
        coefs = [np.array(layer.weight.T, order="C") for layer in net]
        biases = [np.array(layer.bias) for layer in net]
        self._seen = [a.copy() for a in (*coefs, *biases)]
        return coefs, biases

    def trainer(self, net: Network, loss: Any, optimizer: Optimizer) -> Trainer:
        """Return the trainer of before where it fits, else one that goes on with its moments."""
        trainer = self._trainer
        if trainer is not None and (trainer.loss, trainer.optimizer) == (loss, optimizer):
            return trainer
        self._keep()
        trainer = Trainer(net, loss, optimizer)
        kept = self._kept
        if kept is not None and type(kept["optimizer"]) is type(optimizer):
            state = trainer.state
            shapes = [[[a.shape for a in each] for each in s["moments"]] for s in (kept, state)]
            if shapes[0] == shapes[1]:
                trainer.state = {**state, **{k: kept[k] for k in ("moments", "progress", "steps")}}
            if kept["optimizer"] == optimizer:
                trainer.lr = kept["lr"]
        self._trainer = trainer
        return trainer

    def _keep(self) -> None:
        """Keep what the optimiser has, for a trainer to come."""
        if self._trainer is not None:
            state = self._trainer.state
            self._kept = {k: state[k] for k in ("moments", "progress", "steps", "lr")}
            self._kept["optimizer"] = self._trainer.optimizer

    def __reduce__(self) -> tuple[Any, ...]:
        self._keep()
        return Weights, (self._kept,)
