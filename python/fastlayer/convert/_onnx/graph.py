"""One ONNX graph while it is converted: its values by name, and what the operations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastlayer.convert._affine import Affine
from fastlayer.convert._onnx import terms
from fastlayer.convert._onnx.constants import BATCH, UNKNOWN, Room
from fastlayer.convert._onnx.file import DTYPES
from fastlayer.convert._onnx.values import (
    Branch,
    Data,
    Normalize,
    Taken,
    Value,
    describe,
    running,
    size,
    wide,
    with_features,
)
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._onnx.file import Model, Node
    from fastlayer.convert._onnx.file import Value as Declared
    from fastlayer.convert._onnx.terms import Poly

Given: TypeAlias = "Value | Array | None"

# As many arrays as an activation that was taken apart leaves on the way, and a few more.
_MOST_VIEWS = 6
_DEEPEST = 32
# Room for what small constants become, beside the file itself.
_SPARE = 16 << 20
_LONGEST_WALK = 1 << 16


class Graph:
    """The state of one conversion."""

    def __init__(self, model: Model, nbytes: int) -> None:
        self.opset = model.opset
        self.dtype: DType | None = None  # None until the input is made a float
        self.frozen: int | None = None  # the number of rows, where the model has a fixed one
        self.room = Room(nbytes + _SPARE)
        self._walked = 0
        given = [v for v in model.inputs if v.name not in model.tensors]
        if len(given) != 1:
            names = ", ".join(repr(v.name) for v in given[:8]) or "none"
            raise ConversionError(
                "graph", f"it has {len(given)} inputs ({names}), and a network has one"
            )
        self.input = self._input(given[0])

    def _input(self, declared: Declared) -> Value:
        place = f"input {declared.name!r}"
        kind = DTYPES.get(declared.kind or 1)
        if kind is None:
            raise ConversionError(place, "it is not an array of numbers that NumPy has")
        if kind in ("float32", "float64"):
            self.dtype = np.dtype(kind)
        dims = (None, None) if declared.shape is None else declared.shape
        if not 0 < len(dims) <= 32:
            raise ConversionError(place, f"it has {len(dims)} dimensions; rows have at least one")
        shape = tuple(UNKNOWN if d is None or d < 0 else d for d in dims)
        if len(shape) > 1:
            self.frozen = dims[0]
            shape = (BATCH, *shape[1:])
        held = tuple(d for d in shape if d != BATCH)
        return Value(shape, Data(held), None)

    def floats(self, node: Node, *arrays: Array) -> DType:
        """Return the dtype of the network; constants beside it must have it too."""
        if self.dtype is None:
            raise node.refuse(
                "it computes on an input that is not float32 or float64; a Cast to one of them "
                "must come first"
            )
        for a in arrays:
            if a.dtype != self.dtype:
                raise node.refuse(
                    f"it mixes {a.dtype} constants with {self.dtype}; convert the model to float32 "
                    "or float64 altogether"
                )
        return self.dtype

    def elementwise(
        self,
        node: Node,
        values: list[Value],
        make: Callable[..., Poly],
        *,
        shape: tuple[int, ...] | None = None,
        direct: Callable[[], Data | None] = lambda: None,
    ) -> Value:
        """Return what an elementwise operation makes of some values.

        `make` gets their polynomials over one array; `direct` is tried where no array gives one
        that is known.
        """
        dtype = self.floats(node)
        first = values[0].data
        views: dict[Data, Poly] = {}
        for root in list(first.views)[-_MOST_VIEWS:]:
            if all(root in v.data.views for v in values):
                poly = make(*(v.data.views[root] for v in values))
                if terms.small(poly):
                    views[root] = poly
        data = self._recognised(views, float(np.finfo(dtype).eps)) or direct()
        if data is None:
            if not views:
                for value in values:
                    running(value, node)
                raise node.refuse(
                    "fastlayer has nothing for it, alone or with the operations around it; use an "
                    "activation that fl.Activation knows, or cut the model here"
                )
            data = Data(first.held, runs=False)
        elif data in views or data is first:
            return Value(shape or values[0].shape, data, node)
        data.views = {**views, **data.views}
        return Value(shape or values[0].shape, data, node)

    def _recognised(self, views: dict[Data, Poly], eps: float) -> Data | None:
        for root, poly in views.items():
            steps = terms.recognise(poly, eps)
            if steps is None:
                continue
            data = root
            for step in steps:
                if isinstance(step, terms.Norm):
                    if data.held[-1] == UNKNOWN:
                        return None
                    data = data.then(Normalize(step.name, data.held[-1], step.eps))
                else:
                    data = data.then(step)
            return data
        return None

    def affine(
        self,
        node: Node,
        value: Value,
        scale: Array | np.float64 | None = None,
        shift: Array | np.float64 | None = None,
    ) -> Value:
        """Return ``value * scale + shift`` with constants that broadcast against it."""
        both = [None if c is None else np.asarray(c, np.float64) for c in (scale, shift)]
        for c in both:
            if c is not None:
                value = self._padded(node, value, c)
                if not c.size:
                    raise node.damaged("has a constant without numbers")
        if all(c is None or c.size == 1 for c in both):
            factors = [
                d if c is None else float(c.ravel()[0])
                for c, d in zip(both, (1.0, 0.0), strict=True)
            ]
            return self.elementwise(
                node,
                [value],
                lambda p: terms.add(
                    terms.times(terms.number(factors[0]), p), terms.number(factors[1])
                ),
                direct=lambda: value.data.then(Affine.of(*factors)) if value.data.runs else None,
            )
        if value.columns:
            if value.rank != 2:
                raise node.refuse("it works on columns of more than two dimensions")
            turned = [None if c is None else _turned(c) for c in both]
            result = self.affine(node, value._replace(shape=value.shape[::-1]), *turned)
            return result._replace(shape=result.shape[::-1])
        value, vectors = self.vectors(node, value, both)
        a, b = (d if v is None else v for v, d in zip(vectors, (1.0, 0.0), strict=True))
        n = max(np.size(a), np.size(b))
        data = value.data
        data = data.then(Affine.of(a, b), (*data.held[:-1], n))
        return Value(value.shape, data, node)

    def _padded(self, node: Node, value: Value, c: Array) -> Value:
        shape = (1,) * (c.ndim - value.rank) + value.shape
        if len(shape) > 32:
            raise node.damaged("has more than 32 dimensions")
        return value._replace(shape=shape)

    def vectors(
        self, node: Node, value: Value, constants: list[Array | None]
    ) -> tuple[Value, list[Array | None]]:
        """Return constants as numbers or vectors along the features, and the value with those."""
        shape, aligned = value.shape, []
        for c in constants:
            if c is not None:
                shape, c = self._aligned(node, shape, c)
            aligned.append(c)
        value = value._replace(shape=shape)
        spread = [i for c in aligned if c is not None for i, d in enumerate(c.shape) if d > 1]
        start = min(spread, default=value.rank - 1)
        if wide(value.data.held[:-1]) != wide(tuple(d for d in shape[:start] if d != BATCH)):
            start = next((i for i, d in enumerate(shape) if d not in (1, BATCH)), start)
        value = with_features(value, start, node)
        features = shape[start:]
        if UNKNOWN in features:
            raise node.refuse("the shape of its input is not known; declare it in the model")
        vectors: list[Array | None] = []
        for c in aligned:
            if c is None or c.size == 1:
                vectors.append(None if c is None else c.reshape(()))
                continue
            self.room.take(node, 8 * size(features))
            inner = c.reshape(c.shape[start:])
            vectors.append(np.broadcast_to(inner, features).ravel())
        return value, vectors

    def _aligned(
        self, node: Node, shape: tuple[int, ...], c: Array
    ) -> tuple[tuple[int, ...], Array]:
        """Return the shape made more definite, and a constant of as many dimensions, one row."""
        c = c.reshape((1,) * (len(shape) - c.ndim) + c.shape)
        dims = list(shape)
        for i, d in enumerate(shape):
            m: int = c.shape[i]
            if m in (1, d):
                continue
            if d == BATCH:
                one = c[(slice(None),) * i + (slice(1),)]
                if self.frozen not in (None, m) or not np.array_equal(
                    c, np.broadcast_to(one, c.shape)
                ):
                    raise node.refuse(
                        f"its constant of shape {c.shape} differs from row to row of the batch"
                    )
                c = one
            elif d == UNKNOWN:
                dims[i] = m
            elif d == 1:
                raise node.refuse(
                    f"it spreads {describe(shape)} to the larger shape of its constant, {c.shape}; "
                    "a MatMul can do that"
                )
            else:
                raise node.damaged(f"has a constant of shape {c.shape} beside {describe(shape)}")
        return tuple(dims), c

    def branch(self, node: Node, a: Value, b: Value, sign: float = 1.0) -> Data | None:
        """Return the data of ``a + sign * b`` where `b` is computed from `a`, else None."""
        steps: list[Taken] = []
        data = b.data
        while data is not a.data:
            if data.step is None or data.source is None:
                return None
            steps.append(Taken(data.source.held[-1], data.step))
            data = data.source
            self._walked += 1
            if self._walked > _LONGEST_WALK:
                raise node.damaged("has residual connections around too many layers")
        if sign != 1:
            steps.insert(0, Taken(b.data.held[-1], Affine.of(sign)))
        depth = 1 + max((t.step.depth for t in steps if isinstance(t.step, Branch)), default=0)
        if depth > _DEEPEST:
            raise node.refuse(f"residual connections are nested more than {_DEEPEST} deep")
        return a.data.then(Branch(tuple(reversed(steps)), depth), b.data.held)


def _turned(c: Array) -> Array:
    row: Array = c.reshape(1, -1) if c.ndim < 2 else c
    turned: Array = row.T
    return turned


def common_shape(node: Node, a: Value, b: Value) -> tuple[int, ...]:
    """Return the shape of an elementwise operation on two values.

    Raises
    ------
    ConversionError
        One is spread over the other, but for a mean of rows over its row.
    """
    rank = max(a.rank, b.rank)
    s, t = ((1,) * (rank - v.rank) + v.shape for v in (a, b))
    if s[:-1] == t[:-1] and (s[-1] == t[-1] or 1 in (s[-1], t[-1]) or UNKNOWN in (s[-1], t[-1])):
        return (*s[:-1], t[-1] if s[-1] in (1, UNKNOWN) else s[-1])
    raise node.refuse(
        f"it combines arrays of shapes {describe(a.shape)} and {describe(b.shape)}; both have to "
        "be alike"
    )
