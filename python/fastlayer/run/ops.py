"""What parts of a network lower to: a closed list of operations on rows.

`compile` folds and fuses them; each knows how many features it takes and gives, and how it is
carried out, by the core or by Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from fastlayer.arrays import cast
from fastlayer.run.steps import CallStep, FlattenStep, ResidualStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer import _core
    from fastlayer.arrays import Array, DType
    from fastlayer.run.steps import Step

    Fused: TypeAlias = tuple[str, float, float]
    Watch: TypeAlias = tuple[_core.Version, int]
    Compile: TypeAlias = Callable[["Sequence[Op]", int | None], list[Step]]

IDENTITY: Fused = ("identity", 0.0, 0.0)


class Op:
    """Base of the operations."""

    __slots__ = ()
    where = "core"  # what carries it out, for tables: "core", "view" or "Python"

    @property
    def takes(self) -> int | None:
        """Features that it needs, None for any."""
        return None

    @property
    def passes(self) -> bool:
        """Whether as many features come out as go in, where `gives` says nothing else."""
        return True

    def gives(self, width: int | None) -> int | None:
        """Return the features that come out where `width` go in; None is unknown."""
        return width if self.passes else None

    @property
    def in_core(self) -> bool:
        """Whether the core can run it, once the number of features is known."""
        return True

    def emit(self, program: _core.Program, dtype: DType) -> None:
        """Add it to a program of the core."""
        raise NotImplementedError

    def step(self, dtype: DType, width: int | None, compile_: Compile) -> Step:
        """Return the step of Python that carries it out where the core can't."""
        raise NotImplementedError


class DenseOp(Op):
    """A dense layer and the activation fused into it.

    `watch` holds the versions of the layers whose weights these are, as they were read.
    """

    __slots__ = ("fused", "watch", "weights")

    def __init__(
        self, weights: _core.PackedWeights, fused: Fused, watch: tuple[Watch, ...]
    ) -> None:
        self.weights, self.fused, self.watch = weights, fused, watch

    @property
    def takes(self) -> int:
        return self.weights.in_features

    def gives(self, width: int | None) -> int:
        return self.weights.out_features

    def emit(self, program: _core.Program, dtype: DType) -> None:
        program.dense(self.weights, *self.fused)
        for version, value in self.watch:
            program.watch(version, value)


class RowsOp(Op):
    """An operation on rows: a method of `_core.Program`, and its arguments.

    `width` is None where any number of features will do. `fused` is what a dense layer before it
    can take over, and `call` does the same on arrays whose number of features is not known yet.
    """

    __slots__ = ("args", "call", "fused", "method", "width")

    def __init__(
        self,
        method: str,
        args: tuple[Any, ...],
        width: int | None,
        fused: Fused | None = None,
        call: Callable[[Array], Array] | None = None,
    ) -> None:
        self.method, self.args, self.width = method, args, width
        self.fused, self.call = fused, call

    @property
    def takes(self) -> int | None:
        return self.width

    def emit(self, program: _core.Program, dtype: DType) -> None:
        getattr(program, self.method)(*self.args)

    def step(self, dtype: DType, width: int | None, compile_: Compile) -> Step:
        assert self.call is not None  # else its width is known, and it runs in the core
        return CallStep(self.call, dtype, keeps_shape=True)


class AffineOp(Op):
    """``x * scale + shift`` in float64; `owner` lives as long as both and names their folds."""

    __slots__ = ("owner", "scale", "shift")

    def __init__(self, scale: Array, shift: Array, owner: object) -> None:
        self.scale, self.shift, self.owner = scale, shift, owner

    @property
    def takes(self) -> int:
        return int(self.scale.size)

    def emit(self, program: _core.Program, dtype: DType) -> None:
        program.affine(cast(self.scale, dtype), cast(self.shift, dtype))


class ResidualOp(Op):
    """The operations whose input is added to their output."""

    __slots__ = ("ops",)

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = ops

    @property
    def takes(self) -> int | None:
        return width_in(self.ops)

    @property
    def in_core(self) -> bool:
        return all(op.in_core for op in self.ops)

    def emit(self, program: _core.Program, dtype: DType) -> None:
        program.begin_residual()
        for op in self.ops:
            op.emit(program, dtype)
        program.end_residual()

    def step(self, dtype: DType, width: int | None, compile_: Compile) -> Step:
        return ResidualStep(compile_(self.ops, width), dtype)


class FlattenOp(Op):
    """All axes but the first become features."""

    __slots__ = ()
    where = "view"
    passes = False
    in_core = False

    def step(self, dtype: DType, width: int | None, compile_: Compile) -> Step:
        return FlattenStep()


class CallOp(Op):
    """A function of the user; where `keeps_shape`, it stands for an activation."""

    __slots__ = ("function", "keeps_shape")
    where = "Python"
    in_core = False

    def __init__(self, function: Callable[..., Any], keeps_shape: bool) -> None:
        self.function, self.keeps_shape = function, keeps_shape

    @property
    def passes(self) -> bool:
        return self.keeps_shape

    def step(self, dtype: DType, width: int | None, compile_: Compile) -> Step:
        return CallStep(self.function, dtype, self.keeps_shape)


def width_in(ops: Sequence[Op]) -> int | None:
    """Return the number of features that the first operations need, None for any."""
    for op in ops:
        if op.takes is not None or not op.passes:
            return op.takes
    return None
