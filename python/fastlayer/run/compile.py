"""From the operations of a network to its steps: programs of the core, and Python between them.

Every scaling is folded into a neighbouring layer, and every activation fused into the layer before
it; then the list is cut where Python has to step in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastlayer import _core
from fastlayer.arrays import cast, check_out, declined
from fastlayer.errors import ShapeMismatch
from fastlayer.run.ops import (
    AffineOp,
    CallOp,
    DenseOp,
    JoinOp,
    RowsOp,
    Step,
    check_one_row,
    width_in,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from fastlayer.arrays import Array, DType
    from fastlayer.run.ops import Op

    Ends: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
    Folds: TypeAlias = dict[tuple[object, object, str], _core.PackedWeights]


# Arrays that a call of the core may read; more are put together first.
_MOST_INPUTS = 8


class ProgramStep(Step):
    """A stretch of operations that the core runs."""

    def __init__(self, program: _core.Program) -> None:
        self.program, self.run, self.run_parts = program, program.run, program.run_parts
        self.in_features = program.in_features
        self.out_features = program.out_features

    def __call__(self, x: Array) -> Array:
        self._check(x)
        y = self.run(x)
        if y is None:
            raise declined()
        return y

    def last(self, y: Array, x: Array, axis: int, out: Array | None, dtype: DType) -> Array:
        self._check(y)
        lead = y.shape[:-1]
        place = len(lead) + 1 + axis
        shape = (*lead[:place], self.out_features, *lead[place:])
        target = np.empty(shape, dtype) if out is None else check_out(out, shape, dtype)
        rows = np.moveaxis(target, axis, -1) if axis != -1 else target
        if self.run(y, rows) is None:  # the core doesn't write there, e.g. where it is misaligned
            rows[...] = self(y)
        return target if out is None else out

    def _check(self, x: Array) -> None:
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ShapeMismatch(self.in_features, x.shape)
        if self.program.one_row:
            check_one_row(x)

    def describe(self, samples: int) -> str:
        return self.program.describe(samples)


class JoinStep(Step):
    """Branches of steps that take the same array, where Python has to take some."""

    def __init__(self, join: str, branches: list[list[Step]], dtype: DType) -> None:
        self.join, self.branches, self.dtype = join, branches, dtype

    def __call__(self, x: Array) -> Array:
        x = cast(x, self.dtype)
        results = [self._branch(steps, x) for steps in self.branches]
        shapes = [y.shape for y in results]
        if self.join == "concat":
            if any(shape[:-1] != shapes[0][:-1] for shape in shapes):
                raise ValueError(f"Concat: the branches give shapes {shapes} for {x.shape}")
            return np.concatenate(results, axis=-1)
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(
                f"the branches of a sum or product give shapes {', '.join(map(str, shapes))} for an "
                f"input of shape {x.shape}, and have to give the same"
            )
        total: Array = results[0]
        with np.errstate(all="ignore"):
            for y in results[1:]:
                total = total + y if self.join == "add" else total * y
        return total

    @staticmethod
    def _branch(steps: list[Step], x: Array) -> Array:
        # A function of the user's might write into what it is given.
        y = x.copy() if steps and isinstance(steps[0], CallOp) else x
        for step in steps:
            y = step(y)
        return y


def compile_steps(
    ops: Sequence[Op], dtype: DType, folds: Folds, width: int | None, ends: Ends = ((), ())
) -> tuple[list[Step], int | None]:
    """Return the steps that compute `ops`, one program for each stretch that the core can run.

    `folds` keeps the folded weights of earlier compilations and is brought up to date. `width` is
    the number of features that come in; it is also returned where that makes a difference, because
    the operations take any. `ends` are the features of several arrays that may come
    in, and of those that the result may be parted into.
    """
    old = dict(folds)
    folds.clear()
    simple = _simplified(ops, dtype, old, folds)
    needed = width_in(simple)
    made_for = width if needed is None else None
    steps = _steps(simple, dtype, made_for)
    inputs, outputs = ends
    if len(steps) == 1 and isinstance(steps[0], ProgramStep):
        program = steps[0].program
        if len(inputs) <= _MOST_INPUTS:
            program.set_inputs(inputs)
        program.set_outputs(outputs)
    return steps, made_for


def _simplified(ops: Sequence[Op], dtype: DType, old: Folds, new: Folds) -> list[Op]:
    """Fold every `AffineOp` into a neighbouring `DenseOp`, and fuse activations into theirs."""

    def folded(dense: DenseOp, affine: AffineOp, side: str) -> DenseOp:
        key = (dense.weights, affine.owner, side)
        if key not in new:
            new[key] = old.get(key) or _fold(dense.weights, affine, side, dtype)
        return DenseOp(new[key], dense.fused, dense.watch)

    result: list[Op] = []
    for op in ops:
        last = result[-1] if result else None
        plain = isinstance(last, DenseOp) and last.plain
        if isinstance(op, JoinOp):
            inner = [_simplified(ops, dtype, old, new) for ops in op.branches]
            result.append(JoinOp(op.join, inner))
        elif isinstance(op, AffineOp) and isinstance(last, DenseOp) and plain:
            result[-1] = folded(last, op, "after")
        elif isinstance(op, DenseOp) and isinstance(last, AffineOp):
            result[-1] = folded(op, last, "before")
        elif isinstance(op, RowsOp) and op.fused and isinstance(last, DenseOp) and plain:
            result[-1] = DenseOp(last.weights, op.fused, last.watch)
        else:
            result.append(op)
    return result


def _fold(
    weights: _core.PackedWeights, affine: AffineOp, side: str, dtype: DType
) -> _core.PackedWeights:
    """Return weights that do the work of both, computed in float64 and rounded once."""
    w = weights.weight().astype(np.float64)
    given = weights.bias()
    b = np.zeros(w.shape[0]) if given is None else given.astype(np.float64)
    with np.errstate(all="ignore"):
        if side == "after":
            w, b = w * affine.scale[:, None], b * affine.scale + affine.shift
        else:
            # The core's product: NumPy's has other bits on another machine.
            total = _core.linear(affine.shift, w, b, "identity", 0.0, 0.0, None, False)
            if total is None:
                raise declined()
            w, b = w * affine.scale, total
    return _core.PackedWeights(cast(w, dtype), cast(b, dtype))


def _steps(ops: Sequence[Op], dtype: DType, width: int | None) -> list[Step]:
    steps: list[Step] = []
    at = 0
    while at < len(ops):
        width = width if width is not None else width_in(ops[at:])
        end = at
        while end < len(ops) and width is not None and ops[end].in_core:
            end += 1
        if end > at:
            program = _core.Program(dtype.name, width or 0)
            for op in ops[at:end]:
                op.emit(program)
            program.finish()
            steps.append(ProgramStep(program))
            width, at = program.out_features, end
        else:
            op = ops[at]
            if isinstance(op, JoinOp):
                inner = [_steps(ops, dtype, width) for ops in op.branches]
                steps.append(JoinStep(op.join, inner, dtype))
            else:
                steps.append(op.step())
            width, at = op.gives(width), at + 1
    return steps
