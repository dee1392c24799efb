"""What parts of a network lower to: a closed list of operations on rows.

`compile` folds and fuses them and makes steps of them; each knows how many features it takes and
gives, and how it is carried out. A program of the core runs most, and those that only Python can
run are steps themselves.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from fastlayer.arrays import as_real, as_result, cast, check_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer import _core
    from fastlayer.arrays import Array, DType

    Fused: TypeAlias = tuple[str, float, float]
    Watch: TypeAlias = tuple[_core.Version, int]

IDENTITY: Fused = ("identity", 0.0, 0.0)


def decline(x: Any, out: Any = None, /) -> Array | None:
    """Stand in for a program where there is none yet, or not a single one."""
    return None


class Step:
    """Base of the steps: an array in, an array out."""

    run: Callable[..., Array | None] = staticmethod(decline)
    run_parts: Callable[..., Any] = staticmethod(decline)
    flattens = False

    def __call__(self, x: Array) -> Array:
        """Return what the next step gets."""
        raise NotImplementedError

    def last(self, y: Array, x: Array, axis: int, out: Array | None, dtype: DType) -> Array:
        """Take the last step, from `y`, and deliver the result with its features along `axis`.

        `x` is what the first step got, `axis` is negative.
        """
        y = cast(self(y), dtype)
        if axis != -1:
            y = np.moveaxis(y, -1, axis)
        if out is None:
            # The caller owns the result: it must not be the input in another guise.
            fresh = y.copy() if np.may_share_memory(x, y) else np.ascontiguousarray(y)
            return as_result(fresh.reshape(y.shape))
        check_out(out, y.shape, dtype)[...] = y
        return out

    def describe(self, samples: int) -> str:
        """Return how the core cuts a call up, nothing where Python takes the step."""
        return ""


class Op:
    """Base of the operations."""

    where = "core"  # what carries it out, for tables: "core", "view" or "Python"
    in_core = True  # whether the core can run it, once the number of features is known
    takes: int | None = None  # features that it needs, None for any
    passes = True  # whether as many features come out as go in, where `gives` says nothing else

    def gives(self, width: int | None) -> int | None:
        """Return the features that come out where `width` go in; None is unknown."""
        return width if self.passes else None

    def emit(self, program: _core.Program) -> None:
        """Add it to a program of the core."""
        raise NotImplementedError

    def step(self) -> Step:
        """Return the step of Python that carries it out where the core can't."""
        raise NotImplementedError


class DenseOp(Op):
    """A dense layer and the activation fused into it.

    `watch` holds the versions of the layers whose weights these are, as they were read, and `owner`
    is the layer that training gives new ones.
    """

    def __init__(
        self,
        weights: _core.PackedWeights,
        fused: Fused,
        watch: tuple[Watch, ...],
        owner: Any = None,
    ) -> None:
        self.weights, self.fused, self.watch, self.owner = weights, fused, watch, owner
        self.takes = weights.in_features
        self.plain = fused == IDENTITY  # nothing is fused into it yet

    def gives(self, width: int | None) -> int:
        return self.weights.out_features

    def emit(self, program: _core.Program) -> None:
        program.dense(self.weights, *self.fused)
        for version, value in self.watch:
            program.watch(version, value)


class RowsOp(Op):
    """An operation on rows: a method of `_core.Program`, and its arguments.

    `takes` is None where any number of features will do. `fused` is what a dense layer before it
    can take over, and `call` does the same on arrays whose number of features is not known yet.
    `owner` is what training gives new arguments, and `watch` as of a `DenseOp`.
    """

    def __init__(
        self,
        method: str,
        args: tuple[Any, ...],
        takes: int | None,
        fused: Fused | None = None,
        call: CallOp | None = None,
        owner: Any = None,
        watch: tuple[Watch, ...] = (),
    ) -> None:
        self.method, self.args, self.takes = method, args, takes
        self.fused, self.call, self.owner, self.watch = fused, call, owner, watch

    def emit(self, program: _core.Program) -> None:
        getattr(program, self.method)(*self.args)
        for version, value in self.watch:
            program.watch(version, value)

    def step(self) -> Step:
        assert self.call is not None  # else its width is known, and it runs in the core
        return self.call


class AffineOp(Op):
    """``x * scale + shift`` in float64; `owner` lives as long as both and names their folds.

    `summands` is the sum of the absolute values of what the shift was added up from, where that was
    more than one thing.
    """

    def __init__(
        self, scale: Array, shift: Array, owner: object, summands: Array | None = None
    ) -> None:
        self.scale, self.shift, self.owner = scale, shift, owner
        self.summands = np.abs(shift) if summands is None else summands
        self.takes = scale.size

    def emit(self, program: _core.Program) -> None:
        dtype = np.dtype(program.dtype)
        program.affine(cast(self.scale, dtype), cast(self.shift, dtype))


class JoinOp(Op):
    """Branches of operations that take the same rows, and what becomes of their results.

    An empty branch hands its rows on; a residual connection is a sum with one.
    """

    def __init__(
        self, join: Literal["concat", "add", "multiply"], branches: Sequence[Sequence[Op]]
    ) -> None:
        self.join, self.branches = join, branches
        self.takes = next((n for ops in branches if (n := width_in(ops)) is not None), None)
        self.in_core = all(op.in_core for ops in branches for op in ops)
        self.passes = join != "concat" and all(op.passes for ops in branches for op in ops)

    def gives(self, width: int | None) -> int | None:
        outs = [width_out(ops, width) for ops in self.branches]
        if self.join != "concat":
            return next((n for n in outs if n is not None), None)
        return None if None in outs else sum(n for n in outs if n is not None)

    def emit(self, program: _core.Program) -> None:
        total = self.gives(program.out_features) if self.join == "concat" else 0
        assert total is not None  # else it isn't in the core
        program.begin_branches(self.join, total)
        for i, ops in enumerate(self.branches):
            if i:
                program.next_branch()
            for op in ops:
                op.emit(program)
        program.end_branches()


class SliceOp(Op):
    """Features `begin` to `end` alone."""

    passes = False

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = begin, end

    def gives(self, width: int | None) -> int:
        return self.end - self.begin

    def check(self, features: int) -> None:
        """Refuse fewer features than there must be."""
        if features < self.end:
            raise ValueError(
                f"Slice({self.begin}, {self.end}) needs {self.end} features, and gets {features}"
            )

    def emit(self, program: _core.Program) -> None:
        self.check(program.out_features)
        program.slice(self.begin, self.end)

    def step(self) -> Step:
        return _Slice(self)


class _Slice(Step):
    def __init__(self, op: SliceOp) -> None:
        self.op = op

    def __call__(self, x: Array) -> Array:
        self.op.check(x.shape[-1] if x.ndim else 0)
        return x[..., self.op.begin : self.op.end]


def check_one_row(x: Array) -> None:
    """Refuse samples of more axes than one.

    Raises
    ------
    ValueError
        An array of more than two dimensions.
    """
    if x.ndim > 2:
        raise ValueError(
            f"x has shape {x.shape}, and this network takes rows (m, k): the model that it was "
            "converted from works along axis 1, which is the last one in rows alone"
        )


class OneRowOp(Op):
    """Each sample is one row: what comes works along axis 1 in the network's source."""

    def emit(self, program: _core.Program) -> None:
        program.set_one_row()

    def step(self) -> Step:
        return _OneRow()


class _OneRow(Step):
    def __call__(self, x: Array) -> Array:
        check_one_row(x)
        return x


class PythonOp(Op, Step):
    """Base of the operations that are steps of Python's themselves."""

    in_core = False

    def step(self) -> Step:
        return self


class FlattenOp(PythonOp):
    """All axes but the first become features, in C order."""

    where = "view"
    passes = False
    flattens = True

    def __call__(self, x: Array) -> Array:
        """Return `x` as (m, features); arrays of one or two dimensions are that already."""
        return x.reshape(x.shape[0], prod(x.shape[1:])) if x.ndim > 2 else x


class CallOp(PythonOp):
    """A function of the user's, or an activation before the number of features is known.

    Where it `passes` the number of features on, it stands for an activation, and may have a
    derivative.
    """

    where = "Python"

    def __init__(
        self,
        function: Callable[..., Any],
        dtype: DType,
        passes: bool,
        derivative: Callable[..., Any] | None = None,
    ) -> None:
        self.function, self.dtype, self.passes = function, dtype, passes
        self.derivative = derivative

    def __call__(self, x: Array) -> Array:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        y = as_real(self.function(cast(x, self.dtype)), f"the result of {name}")
        if self.passes and y.shape != x.shape:
            raise ValueError(
                f"activation {name} returned shape {y.shape} for an array of shape {x.shape}; "
                "an activation keeps the shape"
            )
        return cast(y, self.dtype)


def width_in(ops: Sequence[Op]) -> int | None:
    """Return the number of features that the first operations need, None for any."""
    for op in ops:
        if op.takes is not None or not op.passes:
            return op.takes
    return None


def width_out(ops: Sequence[Op], width: int | None) -> int | None:
    """Return the number of features that come out of operations where `width` go in."""
    for op in ops:
        width = op.gives(width if width is not None else op.takes)
    return width
