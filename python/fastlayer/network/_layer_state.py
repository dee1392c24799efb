"""What a `Layer` holds, and the checks on the way in: packed weights and an activation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from fastlayer import _core
from fastlayer.arrays import as_real
from fastlayer.functions.activation import Activation, resolve_rowwise

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.functions.activation import ActivationLike


class State:
    """Weights and activation, replaced as a whole by an update: no thread sees a mixture."""

    __slots__ = ("_arrays", "activation", "digest", "packed")

    def __init__(
        self, packed: _core.PackedWeights, activation: Activation | Callable[..., Any]
    ) -> None:
        self.packed = packed
        self.activation = activation
        self.digest: str | None = None  # of weight and bias, once someone asks
        # Weak references to the arrays last handed out: no copy of the weights stays behind.
        self._arrays: dict[str, ref[Array]] = {}

    def array(self, name: str) -> Array | None:
        """Return the weight or bias: the same read-only array while someone holds it."""
        known = self._arrays.get(name)
        found = None if known is None else known()
        if found is not None:
            return found
        base = self.packed.weight() if name == "weight" else self.packed.bias()
        if base is None:
            return None
        base.flags.writeable = False
        view: Array = base.view()  # of a read-only base: its flag can't be turned back on
        self._arrays[name] = ref(view)
        return view


def make_state(weight: Array, bias: Array | None, activation: ActivationLike) -> State:
    """Pack arrays of one dtype, (n, k) and (n,)."""
    chosen = check_activation(activation, weight.shape[0])
    return State(_core.PackedWeights(weight, bias), chosen)


def check_activation(activation: ActivationLike, n: int) -> Activation | Callable[..., Any]:
    """Resolve the activation of a layer with `n` neurons."""
    chosen = resolve_rowwise(activation)
    slopes = chosen.parameters.get("weight") if isinstance(chosen, Activation) else None
    if slopes is not None and slopes.size not in (1, n):
        raise ValueError(
            f"prelu: weight of shape {slopes.shape} holds {slopes.size} slopes, "
            f"but the layer has {n} outputs"
        )
    return chosen


def as_bias(bias: object, n: int) -> Array:
    """Return a bias given as (n,), (1, n) or (n, 1) as (n,)."""
    b = as_real(bias, "bias")
    if b.shape not in ((n,), (1, n), (n, 1)):
        raise ValueError(
            f"bias must have shape ({n},), (1, {n}) or ({n}, 1) beside a weight with {n} "
            f"{'row' if n == 1 else 'rows'}, got {b.shape}"
        )
    return b.reshape(n)


def count(name: str, value: object) -> int:
    """Return a number of features as an int, at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = int(value.__index__())
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number
