"""The half of `Layer` that holds weights: reading, replacing and pickling them."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Any

from fastlayer import _core
from fastlayer.arrays import as_real, cast
from fastlayer.functions.activation import Activation
from fastlayer.network._layer_state import State, as_bias, check_activation, make_state
from fastlayer.network.module import Module

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array
    from fastlayer.functions.activation import ActivationLike


class _Keep:
    """Stands for an argument that was not given, where None means something."""

    def __repr__(self) -> str:
        return "<as it is>"


_KEEP: Any = _Keep()
_updating = Lock()


def _renew_lock() -> None:
    # A process forked during an update has nobody left to release the lock.
    global _updating
    _updating = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Weights(Module):
    """Weight, bias and activation of a dense layer; `Layer` adds the ways to make and run it."""

    _state: State

    @property
    def in_features(self) -> int:
        """Number of inputs, k."""
        return self._state.packed.in_features

    @property
    def out_features(self) -> int:
        """Number of neurons, n."""
        return self._state.packed.out_features

    @property
    def weight(self) -> Array:
        """Read-only array (n, k), one row for each neuron. Assign to replace it."""
        weight = self._state.array("weight")
        assert weight is not None
        return weight

    @weight.setter
    def weight(self, weight: Any) -> None:
        self.update(weight=weight)

    @property
    def bias(self) -> Array | None:
        """Read-only array (n,), or None. Assign to replace it."""
        return self._state.array("bias")

    @bias.setter
    def bias(self, bias: Any) -> None:
        self.update(bias=bias)

    @property
    def activation(self) -> Activation | Callable[..., Any]:
        """The `Activation`, or the callable that was given. Assign to replace it."""
        return self._state.activation

    @activation.setter
    def activation(self, activation: Any) -> None:
        self.update(activation=activation)

    @property
    def num_parameters(self) -> int:
        """Number of weights and biases, and of the slopes of a prelu."""
        n, k = self.out_features, self.in_features
        activation = self.activation
        slopes = activation.num_parameters if isinstance(activation, Activation) else 0
        return n * k + n * self._state.packed.has_bias + slopes

    def flops(self, batch: int = 1) -> int:
        """Return the floating-point operations of the product, ``2 * batch * n * k``.

        A product and a sum count as two. The bias and the activation are not counted.

        Parameters
        ----------
        batch : int
            Number of rows.

        Returns
        -------
        int
            Number of operations.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Layer(4, 3).flops(batch=10)
        240
        """
        return 2 * batch * self.out_features * self.in_features

    def update(
        self,
        *,
        weight: ArrayLike = _KEEP,
        bias: ArrayLike | None = _KEEP,
        activation: ActivationLike = _KEEP,
    ) -> None:
        """Replace weights, bias or activation, in every network that holds the layer.

        Parameters
        ----------
        weight : array_like, optional
            Shape (n, k) as before; converted to the layer's dtype.
        bias : array_like or None, optional
            Shape (n,), (1, n) or (n, 1); None takes the bias away.
        activation : str, Activation, function, callable or None, optional
            See `Layer`.

        Raises
        ------
        ValueError
            Other shapes.
        TypeError
            Complex, masked or non-numeric arrays.

        Examples
        --------
        >>> import fastlayer as fl
        >>> layer = fl.Layer(2, 1, init="zeros")
        >>> layer.update(weight=[[1.0, 2.0]], bias=[0.5])
        >>> layer([1.0, 1.0])
        array([3.5], dtype=float32)
        """
        with _updating:
            state = self._state
            shape = (self.out_features, self.in_features)
            packed = state.packed
            if weight is not _KEEP or bias is not _KEEP:
                w = packed.weight() if weight is _KEEP else as_real(weight, "weight")
                if w.shape != shape:
                    raise ValueError(f"weight of {self} has shape {shape}, got {w.shape}")
                b = packed.bias() if bias is _KEEP else bias
                b = None if b is None else cast(as_bias(b, shape[0]), self._dtype)
                packed = _core.PackedWeights(cast(w, self._dtype), b)
            chosen = state.activation if activation is _KEEP else activation
            self._state = State(packed, check_activation(chosen, shape[0]))
            _core.bump_epoch()

    def __getstate__(self) -> dict[str, Any]:
        # Plain arrays: the packed form belongs to the version of the package that made it.
        state = self._uncompiled()
        held = state.pop("_state")
        plain = {key: held.array(key) for key in ("weight", "bias")}
        return {**state, **plain, "activation": held.activation}

    def __setstate__(self, state: dict[str, Any]) -> None:
        weight, bias, activation = (state.pop(key) for key in ("weight", "bias", "activation"))
        self.__dict__.update(state)
        # Buffers out of band (PEP 574) may lie anywhere in a message: as_real aligns them.
        bias = None if bias is None else as_real(bias, "bias")
        self._state = make_state(as_real(weight, "weight"), bias, activation)
