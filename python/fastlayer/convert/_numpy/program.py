"""A traced forward pass as a network that reads its arrays at each call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._assemble import IDENTITY, Assembly
from fastlayer.convert._numpy.operations import Operations, as_rows, behind
from fastlayer.convert._numpy.steps import Reading, written
from fastlayer.convert._numpy.trace import mapped
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._numpy.operations import Values
    from fastlayer.convert._numpy.trace import Node


class Program:
    """The operations of a forward pass, as a network that reads its arrays at each call.

    Parameters
    ----------
    nodes : list of Node
        What it does.
    places : list of callable
        They give the arrays that the first nodes, after the input, stand for.
    result : int
        The node that is its result.
    samples : int or None
        How many there were when it was noted; None for a vector.

    Raises
    ------
    ConversionError
        Operations that no network does.
    """

    def __init__(
        self, nodes: list[Node], places: Sequence[Any], result: int, samples: int | None
    ) -> None:
        self.ops = Operations(nodes, places, result, samples)
        reading = Reading(self.ops)
        self._steps, self._end, self._result = reading.steps, reading.end, result
        fused = reading.fused
        uses = [fused[i].reads if i in fused else uses for i, uses in enumerate(self.ops.uses)]
        read = behind([result, self._end], uses) - {0}
        self._code = [
            (i, fused[i].code() if i in fused else self.ops.replay(i)) for i in sorted(read)
        ]

    @property
    def arrays(self) -> list[int]:
        """Which of the object's arrays it reads."""
        return [i - 1 for i in sorted(self.ops.needed) if 0 < i <= len(self.ops.places)]

    @property
    def dtypes(self) -> set[DType]:
        """Those of its weights."""
        products = [self.ops.uses[i] for i in self.ops.moving if self.ops.is_product(i)]
        return {
            self.ops.nodes[j].value.dtype for p in products for j in p if j not in self.ops.moving
        }

    @property
    def numbers(self) -> set[Any]:
        """The numbers that it calculates with."""
        found: set[Any] = set()

        def see(value: Any) -> None:
            if isinstance(value, int | float | np.generic):
                found.add(value)

        for i in self.ops.needed:
            mapped((self.ops.nodes[i].args, self.ops.nodes[i].kwargs), see)
        return found

    @property
    def ends_in_rows(self) -> bool:
        """Whether the network gives its result; what comes behind it is NumPy's."""
        return self._end == self._result

    def __call__(self, x: Any, samples: int | None, *, scores: bool = False) -> Any:
        """Run it: layers by fastlayer, and the rest as it was noted; or the network alone."""
        end = self._end if scores else self._result
        values: Values = [None] * len(self.ops.nodes)
        values[0] = x
        for i, code in self._code:
            if i > end:
                break
            values[i] = code(values, samples)
        return values[end]

    def replayed(self, x: Any, samples: int | None, *, scores: bool = False) -> Any:
        """Run it as it was noted, with NumPy alone."""
        end = self._end if scores else self._result
        return self.ops.rerun(x, samples, behind([end], self.ops.uses) - {0})[end]

    def gives(self, y: Any, samples: int | None) -> bool:
        """Whether a result has that many samples."""
        axis = self.ops.form(self._result) == "columns"
        return samples is None or np.shape(y)[axis : axis + 1] == (samples,)

    def rows(self, run: Callable[..., Any], x: Array) -> Array:
        """Return as rows what a function like these makes of the rows `x`, the way that it has it."""
        if self.ops.samples is None:
            return np.stack([np.reshape(run(row.copy(), None), -1) for row in x])
        turned = self.ops.form(0) == "columns"
        y = run(np.ascontiguousarray(x.T) if turned else x.copy(), len(x))
        return as_rows(np.asarray(y), self.ops.form(self._end))

    def network(self, features: int, dtype: DType, source: str) -> Network:
        """Return a network with the arrays as they are now."""
        constant = self.ops.needed - self.ops.moving
        now = [
            v.copy() if isinstance(v, np.ndarray) else v
            for v in self.ops.rerun(None, self.ops.samples, constant)
        ]
        assembly = Assembly(dtype, features, source)
        return Network._of(assembly.run(written(self._steps, now)) or [IDENTITY], dtype)
