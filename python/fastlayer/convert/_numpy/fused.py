"""Operations of a forward pass that fastlayer computes, several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer import _core
from fastlayer.convert._numpy.operations import refs
from fastlayer.convert._numpy.recognise import beside_rows
from fastlayer.convert._numpy.trace import Ref
from fastlayer.functions.products import linear
from fastlayer.run.ops import IDENTITY

if TYPE_CHECKING:
    from fastlayer.convert._numpy.operations import Code, Values
    from fastlayer.functions.activation import Activation


class Summed(NamedTuple):
    """The code of a layer."""

    source: int
    weight: Ref
    bias: Any
    turned: bool  # whether the weight is (k, n)
    columns: bool
    activation: Activation | None = None

    @property
    def reads(self) -> list[int]:
        """The nodes that it needs."""
        return [self.source, *refs((self.weight, self.bias))]

    def code(self) -> Code:
        """Return what computes it."""
        source, (weight,), bias, turned, columns, activation = self
        fused = IDENTITY if activation is None else activation._fused
        at = bias.node if type(bias) is Ref else None

        def run(values: Values, samples: int | None) -> Any:
            a, w, b = values[source], values[weight], bias if at is None else values[at]
            if turned:
                w = w.T  # that of a vector is itself
            beside = columns and a.ndim == 2
            if beside:
                a, b = a.T, None if b is None else beside_rows(b)
            y = None if fused is None else _core.linear(a, w, b, *fused, None, False)
            if y is None:
                y = linear(a, w, b, activation)
            return y.T if beside else y

        return run


class Activated(NamedTuple):
    """The code of an activation that is apart from its layer."""

    source: int
    activation: Activation
    turned: bool

    @property
    def reads(self) -> list[int]:
        """The nodes that it needs."""
        return [self.source]

    def code(self) -> Code:
        """Return what computes it."""
        source, activation, turned = self
        if turned:
            return lambda values, samples: activation(values[source].T).T
        return lambda values, samples: activation(values[source])
