"""The operations of a traced forward pass, as a graph that can be run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._numpy.trace import Batch, Count, Fill, Method, Ref, mapped, name_of
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fastlayer.arrays import Array
    from fastlayer.convert._numpy.trace import Node

    Values = list[Any]
    Code = Callable[[Values, int | None], Any]

PLAIN_PRODUCTS = (np.matmul, np.dot, Method("dot"))
_PRODUCTS = (*PLAIN_PRODUCTS, np.inner, np.einsum, np.tensordot)


class Operations:
    """The nodes of a trace, and which of them lead from the input to the result.

    Parameters
    ----------
    nodes : list of Node
        What was done.
    places : list of callable
        They give the arrays that the first nodes, after the input, stand for.
    result : int
        The node that is the result.
    samples : int or None
        How many there were when it was noted; None for a vector.

    Attributes
    ----------
    needed, moving : set of int
        The nodes behind the result; those of them that depend on the input.
    """

    def __init__(
        self, nodes: list[Node], places: Sequence[Any], result: int, samples: int | None
    ) -> None:
        self.nodes, self.places, self.samples = nodes, places, samples
        self.uses: list[list[int]] = [refs((n.args, n.kwargs)) for n in nodes]
        self.result = result
        self.needed = behind([result], self.uses)
        self.moving = {0}
        for i in sorted(self.needed):
            if self.moving.intersection(self.uses[i]):
                self.moving.add(i)
        # With them, those that have the number of samples in them, and are made anew for others.
        self._counting = set(self.moving)
        for i in sorted(self.needed):
            if _counts((nodes[i].args, nodes[i].kwargs)) or self._counting & set(self.uses[i]):
                self._counting.add(i)
        if result not in self.moving:
            raise refused("gives a result that does not depend on its input")
        if samples is not None and self.form(result) is None:
            shape = nodes[result].value.shape
            raise refused(f"gives shape {shape} for {samples} samples, which is not one row each")

    def rerun(self, x: Any, samples: int | None, which: Iterable[int]) -> Values:
        """Run some nodes as they were noted."""
        values: Values = [None] * len(self.nodes)
        values[0] = x
        for i in sorted(which):
            values[i] = self.replay(i)(values, samples)
        return values

    def replay(self, i: int) -> Code:
        """Return what runs a node as it was noted."""
        node = self.nodes[i]
        if node.call is None:
            place = self.places[i - 1]
            return lambda values, samples: place()
        call, args, kwargs = node.call, node.args, node.kwargs
        if not kwargs and all(type(a) is Ref for a in args):
            at = [a.node for a in args]
            if len(at) == 2:
                i, j = at
                return lambda values, samples: call(values[i], values[j])
            return lambda values, samples: call(*[values[j] for j in at])

        def run(values: Values, samples: int | None) -> Any:
            def now(v: Any) -> Any:
                if type(v) is Ref:
                    return values[v.node]
                if type(v) is Batch:
                    return samples
                if type(v) is Count:
                    return np.arange(samples or 0)
                return np.full(mapped(v.shape, now), v.value) if type(v) is Fill else v

            return call(*mapped(args, now), **mapped(kwargs, now))

        return run

    def is_product(self, i: int) -> bool:
        """Whether a node multiplies what depends on the input by what does not."""
        node = self.nodes[i]
        moving = [j in self.moving for j in self.uses[i]]
        if node.call in PLAIN_PRODUCTS and (node.kwargs or len(node.args) != 2):
            return False
        return node.call in _PRODUCTS and sum(moving) == 1 and len(moving) < 3

    def inside(self, a: int, b: int) -> set[int]:
        """Return the nodes on the way from one to another, the last among them."""
        return {i for i in behind([b], self.uses) & self.moving if a < i <= b} - behind(
            [a], self.uses
        )

    def region(self, a: int, b: int, constants: Values | None = None) -> Callable[[Any], Any]:
        """Return what the operations between two nodes make of an array.

        Other arrays in it are as they are at the call, or have the values of `constants`.
        """
        # Arrays may be read before and in the region.
        inside = behind([b], self.uses) - (behind([a], self.uses) & self.moving)
        axis = None if self.samples is None else int(self.form(a) == "columns")

        def run(z: Any) -> Any:
            values = [None] * len(self.nodes) if constants is None else list(constants)
            values[a] = z
            for i in sorted(inside if constants is None else inside & self._counting):
                values[i] = self.replay(i)(values, None if axis is None else z.shape[axis])
            return values[b]

        return run

    def form(self, i: int) -> str | None:
        """Return what the samples are in a node: rows, columns, single numbers, one vector."""
        shape, m = self.nodes[i].value.shape, self.samples
        if m is None:
            forms = {0: "vector", 1: "vector", 2: "rows" if shape[:1] == (1,) else "columns"}
            return forms.get(len(shape))
        if shape == (m,):
            return "single"
        if len(shape) != 2 or m not in shape:
            return None
        return "rows" if shape[0] == m else "columns"

    def rows(self, i: int) -> Array:
        """Return the value of a node, as rows."""
        return as_rows(self.nodes[i].value, self.form(i))

    def named(self, i: int) -> str:
        """Return what a node is called in messages."""
        return f"step {i} of forward, {name_of(self.nodes[i].call)},"


def behind(ends: list[int], uses: list[list[int]]) -> set[int]:
    """Return these nodes and all that they are made of."""
    found, left = set(), list(ends)
    while left:
        i = left.pop()
        if i not in found:
            found.add(i)
            left += uses[i]
    return found


def _counts(tree: Any) -> bool:
    found: list[Any] = []
    mapped(tree, lambda v: found.append(v) if isinstance(v, Batch | Count | Fill) else None)
    return bool(found)


def as_rows(value: Array, form: str | None) -> Array:
    """Return an array of a form as rows."""
    if form == "columns":
        return value.T
    if form == "single":
        return value[:, None]
    return value.reshape(1, -1) if form == "vector" else value


def refs(tree: Any) -> list[int]:
    """Return the nodes in arguments."""
    found: list[int] = []
    mapped(tree, lambda v: found.append(v.node) if isinstance(v, Ref) else None)
    return found


def refused(why: str) -> ConversionError:
    """Return the error of a forward pass that is not understood."""
    return ConversionError("forward pass", why)
