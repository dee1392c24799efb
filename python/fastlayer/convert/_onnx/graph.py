"""One ONNX graph while it is converted: its values, and what the operations share.

A value depends on the input, and has the shape that ONNX sees. Reshaping changes that shape and
leaves the array that the network holds as it is, until an operation needs the features along the
last axis.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from fastlayer.convert._graph import Cut, Flat, Point, elementwise
from fastlayer.convert._onnx.dims import BATCH, UNKNOWN, describe, known, size, wide
from fastlayer.convert._onnx.file import DTYPES
from fastlayer.errors import ConversionError
from fastlayer.network.ends import Ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._onnx.file import Model, Node
    from fastlayer.convert._recognise import Poly

# A `Value`, an array where it is constant, None where it is left out.
Given: TypeAlias = Any

NOTHING = (
    "fastlayer has nothing for it, alone or with the elementwise operations around it; use an "
    "activation that fl.Activation knows, or cut the model here"
)
_HALF = "export it again before it is made half, or convert its numbers and casts to float32"
# Room for what small constants become, beside the file itself, and for formulas with them.
_SPARE = 16 << 20
_FORMULAS = 40 << 20
# Nodes on the way from the input that are no products: each is followed as formulas.
_MOST_FOLLOWED = 1 << 12


class Value(NamedTuple):
    """A point of the network, in the shape that ONNX sees, where `BATCH` stands for the rows."""

    shape: tuple[int, ...]
    point: Point
    held: tuple[int, ...]  # the shape of a sample as the network holds it

    @property
    def rank(self) -> int:
        """Number of dimensions that ONNX sees."""
        return len(self.shape)

    @property
    def sample(self) -> tuple[int, ...]:
        """The shape of one sample that ONNX sees."""
        return tuple(d for d in self.shape if d != BATCH)

    @property
    def columns(self) -> bool:
        """Whether samples are columns."""
        return BATCH in wide(self.shape)[1:]

    def then(self, steps: Iterable[object], features: int | None = None) -> Value:
        """Return what some steps make of it, with another number of features where it is given."""
        return self.at(self.point.then(steps), features)

    def at(self, point: Point, features: int | None = None) -> Value:
        """Return it at another point."""
        held = self.held if features is None else (*self.held[:-1], features)
        return self._replace(point=point, held=held)


# What a node makes of its first input and the others; one that is not commutative may have a
# constant first.
Operation: TypeAlias = "Callable[[Graph, Node, Any, list[Given]], Value | Array | list[Value]]"


class Graph:
    """The state of one conversion."""

    def __init__(self, model: Model, inputs: Sequence[Any]) -> None:
        self.opset = model.opset
        self.dtype: DType | None = None  # None until the input is made a float
        self.frozen: int | None = None  # the number of rows, where the model has a fixed one
        self._room = model.nbytes + _SPARE  # bytes that what comes of constants may take
        self._most_kept, self._followed = model.nbytes + _FORMULAS, 0
        self._flat: dict[Point, Point] = {}
        self.conditions: set[Point] = set()  # what is true or false
        shapes = [self._declared(declared) for declared in inputs]
        samples = [tuple(d for d in shape if d != BATCH) for shape in shapes]
        self.ends = Ends()
        if len(inputs) == 1:
            (sample,) = samples
            self.root = Point(
                eps=self._eps, features=known(sample[0]) if len(sample) == 1 else None
            )
            points = [self.root]
        else:
            points, samples = self._beside(inputs, shapes, samples)
        names = [declared.name for declared in inputs]
        values = map(Value, shapes, points, samples)
        self.inputs = dict(zip(names, values, strict=True))
        self._points = set(points)

    def _beside(
        self,
        inputs: Sequence[Any],
        shapes: Sequence[tuple[int, ...]],
        samples: Sequence[tuple[int, ...]],
    ) -> tuple[list[Point], list[tuple[int, ...]]]:
        """Return the points of several inputs, which lie beside each other in the rows."""
        widths = []
        batched = [len(sample) < len(shape) for shape, sample in zip(shapes, samples, strict=True)]
        if len(set(batched)) > 1:
            raise ConversionError(
                f"input {inputs[batched.index(False)].name!r}",
                "it is one array for all samples, and another input has one row for each; give it "
                "a row for each sample in the model",
            )
        for declared, sample in zip(inputs, samples, strict=True):
            width = size(sample)
            if width < 1:
                raise ConversionError(
                    f"input {declared.name!r}",
                    f"it has shape {describe(sample)} for each sample, and the features of several "
                    "inputs must be known; declare them in the model",
                )
            widths.append(width)
        self.ends = Ends(tuple(declared.name for declared in inputs), tuple(widths))
        self.root = Point(eps=self._eps, features=sum(widths))
        cuts = [Cut(end - n, end) for n, end in zip(widths, accumulate(widths), strict=True)]
        return [Point(self.root, cut) for cut in cuts], [(n,) for n in widths]

    def _declared(self, declared: Any) -> tuple[int, ...]:
        """Return the shape of an input, and note its type and number of rows."""
        place = f"input {declared.name!r}"
        tensor = declared.type.tensor_type
        other = declared.type.WhichOneof("value") not in (None, "tensor_type")
        kind = self._kind = None if other else DTYPES.get(tensor.elem_type or 1)
        if kind is None:
            raise ConversionError(place, "it is not an array of numbers that NumPy has")
        if kind in ("float32", "float64"):
            if self.dtype not in (None, np.dtype(kind)):
                raise ConversionError(
                    place, f"it is {kind}, and another input {self.dtype}; a network has one dtype"
                )
            self.dtype = np.dtype(kind)
        shape: tuple[int, ...] = (UNKNOWN, UNKNOWN)
        if tensor.HasField("shape"):
            dims = [d.dim_value if d.HasField("dim_value") else UNKNOWN for d in tensor.shape.dim]
            shape = tuple(d if d >= 0 else UNKNOWN for d in dims)
        if not 0 < len(shape) <= 32:
            raise ConversionError(place, f"it has {len(shape)} dimensions; rows have at least one")
        if len(shape) == 1:
            return shape
        rows = shape[0] if shape[0] > 0 else None
        if rows is not None and self.frozen not in (None, rows):
            raise ConversionError(
                place, f"it has {rows} rows, and another input {self.frozen}; samples are rows here"
            )
        self.frozen = self.frozen or rows
        return (BATCH, *shape[1:])

    @property
    def _eps(self) -> float:
        return 0.0 if self.dtype is None else float(np.finfo(self.dtype).eps)

    def cast(self, node: Node, value: Value, wanted: str | None) -> Value:
        """Return the value as numbers of another type; only an input may change it.

        Raises
        ------
        ConversionError
            Another value changes it.
        """
        if wanted is not None and wanted == self.dtype:
            return value
        if wanted == "bool" and value.point in self.conditions:
            return value
        if value.point in self._points and wanted in ("float32", "float64"):
            self.dtype = np.dtype(wanted)
            self.root.start.eps = self._eps
            return value
        if wanted == "float16":
            raise node.refuse(f"the model computes in float16, a network in {self.dtype}: {_HALF}")
        raise node.refuse(
            f"it casts to {wanted or 'a type that NumPy lacks'} in the midst of a network, which "
            f"has one dtype, here {self.dtype}; convert the model to one float type, and cast the "
            "result"
        )

    def floats(self, node: Node, *arrays: Array) -> DType:
        """Return the dtype of the network; constants beside it must have it too."""
        if self.dtype is None:
            raise node.refuse(
                f"it computes on an input of {self._kind}; fastlayer computes in float32 or float64: "
                + (_HALF if self._kind == "float16" else "a Cast to one of them must come first")
            )
        for a in arrays:
            if a.dtype != self.dtype:
                raise node.refuse(
                    f"it mixes {a.dtype} constants with {self.dtype}; convert the model to float32 "
                    "or float64 altogether"
                )
        return self.dtype

    def follow(self, node: Node, given: Sequence[Given]) -> None:
        """Bound the work and memory of following formulas of the input.

        Raises
        ------
        ConversionError, Damaged
            Too many nodes are followed, or too large constants.
        """
        moved = any(isinstance(g, Value) for g in given)
        self._followed += moved and node.op not in ("Gemm", "MatMul")
        if self._followed > _MOST_FOLLOWED:
            raise node.refuse(
                f"more than {_MOST_FOLLOWED} nodes before it are no products, which no known model "
                "has; cut the model in two with onnx.utils.extract_model"
            )
        if self.root.start.kept > self._most_kept:
            raise node.damaged("makes far more numbers out of the file than are in it")

    def take(self, node: Node, nbytes: int) -> None:
        """Take room for what comes of constants, before it is made.

        Raises
        ------
        Damaged
            There isn't as much left.
        """
        self._room -= nbytes
        if self._room < 0:
            raise node.damaged("makes far more numbers out of the file than are in it")

    def flattened(self, value: Value, node: Node) -> Value:
        """Return a value with one axis for each sample; the same point however often it is asked."""
        if len(value.held) == 1:
            return value
        n = size(value.held)
        if value.point not in self._flat:
            self._flat[value.point] = value.point.then([Flat(node.place, known(n))])
        return value._replace(point=self._flat[value.point], held=(n,))

    def with_features(self, value: Value, start: int, node: Node) -> Value:
        """Return the value as the network has to hold it for an operation on features.

        Those are the dimensions from `start` on, together.

        Raises
        ------
        ConversionError
            The rows of the operation are not rows of the array that the network holds.
        """
        if value.columns or BATCH in value.shape[start:]:
            raise node.refuse(
                f"it works along the batch of an array of shape {describe(value.shape)}; "
                "fastlayer's samples are rows: export the model with the batch as the first axis"
            )
        leading = tuple(d for d in value.shape[:start] if d != BATCH)
        if leading != value.held[:-1] and not wide(leading):
            return self.flattened(value, node)
        features, held = size(value.shape[start:]), value.held
        same = UNKNOWN in (held[-1], features) or held[-1] == features
        if same and wide(leading) == wide(held[:-1]):
            return value
        raise node.refuse(
            f"it works on the last of the dimensions {describe(value.shape)}, which reshaping has "
            f"made of {describe((BATCH, *held))}; fastlayer can't take features apart again"
        )

    def elementwise(
        self,
        node: Node,
        values: list[Value],
        make: Callable[..., Poly],
        shape: tuple[int, ...],
        direct: Callable[[], Point | None] = lambda: None,
    ) -> Value:
        """Return what an elementwise operation makes of some values; see `_graph.elementwise`."""
        self.floats(node)
        point = elementwise([v.point for v in values], make, node.refuse(NOTHING), direct)
        return values[0]._replace(shape=shape, point=point)

    def axes(
        self, node: Node, value: Value, rest: list[Given], since: int, grown: bool = False
    ) -> list[int] | None:
        """Return axes from the front, which moved from an attribute to an input at some opset.

        They are those of the value, or where it is `grown`, of that with them put in.
        """
        if self.opset < since:
            axes = node.integers("axes")
        else:
            listed = rest[0] if rest else None
            if isinstance(listed, Value):
                raise node.refuse("its axes are computed from the input")
            axes = None if listed is None else [int(v) for v in listed.ravel()]
        if axes is None:
            return None
        rank = value.rank + (len(axes) if grown else 0)
        result = [a % rank for a in axes if -rank <= a < rank]
        if len(set(result)) != len(axes) or rank > 32:
            raise node.damaged(f"axes {axes[:8]} of {rank} dimensions")
        return result

    def beside(
        self, node: Node, value: Value, constants: Sequence[Array]
    ) -> tuple[Value, list[Array]]:
        """Return constants as float64 numbers or vectors along the features, and the value there."""
        self.floats(node)
        given = [c.astype(np.float64) for c in constants]
        rank = max(value.rank, *(c.ndim for c in given))
        if rank > 32:
            raise node.damaged("has more than 32 dimensions")
        if not all(c.size for c in given):
            raise node.damaged("has a constant without numbers")
        value = value._replace(shape=(1,) * (rank - value.rank) + value.shape)
        if all(c.size == 1 for c in given):
            return value, [c.reshape(()) for c in given]
        if not value.columns:
            return self.vectors(node, value, given)
        if value.rank != 2:
            raise node.refuse("it works on columns of more than two dimensions")
        rows = [np.atleast_2d(c).T for c in given]
        value, vectors = self.vectors(node, value._replace(shape=value.shape[::-1]), rows)
        return value._replace(shape=value.shape[::-1]), vectors

    def vectors(
        self, node: Node, value: Value, constants: Sequence[Array]
    ) -> tuple[Value, list[Array]]:
        """Return constants as numbers or vectors along the features, and the value with those."""
        shape, aligned = value.shape, []
        for constant in constants:
            shape, c = self._aligned(node, shape, constant)
            aligned.append(c)
        value = value._replace(shape=shape)
        spread = [i for c in aligned for i, d in enumerate(c.shape) if d > 1]
        start = min(spread, default=value.rank - 1)
        if wide(value.held[:-1]) != wide(tuple(d for d in shape[:start] if d != BATCH)):
            start = next((i for i, d in enumerate(shape) if d not in (1, BATCH)), start)
        value = self.with_features(value, start, node)
        features = shape[start:]
        if UNKNOWN in features:
            raise node.refuse("the shape of its input is not known; declare it in the model")
        vectors = []
        for c in aligned:
            if c.size > 1:
                self.take(node, 8 * size(features))
                c = np.broadcast_to(c.reshape(c.shape[start:]), features).ravel()
            vectors.append(c if c.size > 1 else c.reshape(()))
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


def common_shape(node: Node, a: Value, b: Value) -> tuple[int, ...]:
    """Return the shape of an elementwise operation on two values.

    Raises
    ------
    ConversionError
        One is spread over the other, but for one feature over those of a row.
    """
    rank = max(a.rank, b.rank)
    s, t = ((1,) * (rank - v.rank) + v.shape for v in (a, b))
    if s[:-1] == t[:-1] and (s[-1] == t[-1] or 1 in (s[-1], t[-1]) or UNKNOWN in (s[-1], t[-1])):
        return (*s[:-1], t[-1] if s[-1] in (1, UNKNOWN) else s[-1])
    raise node.refuse(
        f"it combines arrays of shapes {describe(a.shape)} and {describe(b.shape)}; both have to "
        "be alike"
    )
