"""From the parts of a network to programs of the core.

Parts lower themselves to a list of operations (`Dense`, `Rows`, `Affine`, `Residual`, `Flat`,
`Call`); `compile_steps` folds and fuses those and cuts the list where Python has to step in. Parts
are in `layer` and `modules`; running the steps is `_forward`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer import _core
from fastlayer.arrays import cast, declined
from fastlayer.functions.activation import IDENTITY, Activation
from fastlayer.run.steps import CallStep, FlattenStep, ProgramStep, ResidualStep

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from fastlayer._core import PackedWeights
    from fastlayer.arrays import Array, DType
    from fastlayer.functions.activation import Fused
    from fastlayer.run.steps import Step


class Dense(NamedTuple):
    """A dense layer and the activation fused into it."""

    weights: PackedWeights
    fused: Fused


class Rows(NamedTuple):
    """An operation on rows: a method of `_core.Program`; `width` is None where any will do."""

    method: str
    args: tuple[Any, ...]
    width: int | None
    activation: Activation | None = None


class Affine(NamedTuple):
    """``x * scale + shift`` in float64; `owner` lives as long as both and names their folds."""

    scale: Array
    shift: Array
    owner: object


class Residual(NamedTuple):
    """The operations whose input is added to their output."""

    ops: list[Op]


class Flat(NamedTuple):
    """All axes but the first become features."""


class Call(NamedTuple):
    """A function of the user; where `keeps_shape`, it stands for an activation."""

    function: Callable[..., Any]
    keeps_shape: bool


if TYPE_CHECKING:
    Op: TypeAlias = Dense | Rows | Affine | Residual | Flat | Call
    Folds: TypeAlias = dict[tuple[object, object, str], PackedWeights]


def lower_activation(activation: Activation | Callable[..., Any], dtype: DType) -> list[Op]:
    """Return the operations of an activation that stands on its own."""
    if not isinstance(activation, Activation):
        return [Call(activation, keeps_shape=True)]
    if activation._fused is not None:
        return [Rows("activation", activation._fused, None, activation)]
    slopes = activation._slopes(dtype)
    if slopes is None:
        raise TypeError(f"{activation!r} can't be part of a layer")
    return [Rows("prelu", (slopes,), slopes.size)]


def compile_steps(
    ops: list[Op], dtype: DType, width: int | None, epoch: int, folds: Folds
) -> list[Step]:
    """Return the steps that compute `ops`, one program for each stretch that the core can run.

    `width` is the number of features that come in, None where only the call will tell. `folds`
    keeps the folded weights of earlier compilations and is brought up to date.
    """
    old = dict(folds)
    folds.clear()
    return _steps(_simplify(ops, dtype, old, folds), dtype, width, epoch)


def _simplify(ops: list[Op], dtype: DType, old: Folds, new: Folds) -> list[Op]:
    """Fold every `Affine` into a neighbouring `Dense`, and fuse activations into theirs."""

    def folded(dense: Dense, affine: Affine, side: str) -> Dense:
        key = (dense.weights, affine.owner, side)
        if key not in new:
            new[key] = old.get(key) or _fold(dense.weights, affine, side, dtype)
        return Dense(new[key], dense.fused)

    result: list[Op] = []
    for op in ops:
        last = result[-1] if result else None
        plain = isinstance(last, Dense) and last.fused == IDENTITY
        if isinstance(op, Residual):
            result.append(Residual(_simplify(op.ops, dtype, old, new)))
        elif isinstance(op, Affine) and isinstance(last, Dense) and plain:
            result[-1] = folded(last, op, "after")
        elif isinstance(op, Dense) and isinstance(last, Affine):
            result[-1] = folded(op, last, "before")
        elif isinstance(op, Rows) and op.activation and isinstance(last, Dense) and plain:
            result[-1] = Dense(last.weights, op.args)
        else:
            result.append(op)
    return result


def _fold(weights: PackedWeights, affine: Affine, side: str, dtype: DType) -> PackedWeights:
    """Return weights that do the work of both, computed in float64 and rounded once."""
    w = weights.weight().astype(np.float64)
    given = weights.bias()
    b = np.zeros(w.shape[0]) if given is None else given.astype(np.float64)
    with np.errstate(all="ignore"):
        if side == "after":
            w, b = w * affine.scale[:, None], b * affine.scale + affine.shift
        else:
            # The core's product: NumPy's has other bits on another machine.
            total = _core.linear(affine.shift, w, b, *IDENTITY, None, False)
            if total is None:
                raise declined()
            w, b = w * affine.scale, total
    return _core.PackedWeights(cast(w, dtype), cast(b, dtype))


def _in_core(op: Op) -> bool:
    if isinstance(op, Residual):
        return all(_in_core(inner) for inner in op.ops)
    return not isinstance(op, Flat | Call)


def _width_in(ops: list[Op]) -> int | None:
    """Return the number of features that the first operations need, None for any."""
    for op in ops:
        if isinstance(op, Dense):
            return op.weights.in_features
        width = None
        if isinstance(op, Rows):
            width = op.width
        elif isinstance(op, Affine):
            width = op.scale.size
        elif isinstance(op, Residual):
            width = _width_in(op.ops)
        elif isinstance(op, Flat) or not op.keeps_shape:
            return None
        if width is not None:
            return width
    return None


def _width_out(op: Op, width: int | None) -> int | None:
    if isinstance(op, Dense):
        return op.weights.out_features
    if isinstance(op, Flat) or (isinstance(op, Call) and not op.keeps_shape):
        return None
    return width


def _steps(ops: list[Op], dtype: DType, width: int | None, epoch: int) -> list[Step]:
    steps: list[Step] = []
    at = 0
    while at < len(ops):
        width = width if width is not None else _width_in(ops[at:])
        op = ops[at]
        end = at
        while end < len(ops) and width is not None and _in_core(ops[end]):
            end += 1
        if end > at:
            program = _core.Program(dtype.name, width or 0)
            _emit(program, ops[at:end], dtype)
            program.finish(epoch)
            steps.append(ProgramStep(program))
            width, at = program.out_features, end
            continue
        if isinstance(op, Residual):
            steps.append(ResidualStep(_steps(op.ops, dtype, width, epoch), dtype))
        elif isinstance(op, Flat):
            steps.append(FlattenStep())
        elif isinstance(op, Call):
            steps.append(CallStep(op.function, dtype, op.keeps_shape))
        elif isinstance(op, Rows) and op.activation:
            steps.append(CallStep(op.activation, dtype, keeps_shape=True))
        width, at = _width_out(op, width), at + 1
    return steps


def _emit(program: _core.Program, ops: list[Op], dtype: DType) -> None:
    for op in ops:
        if isinstance(op, Dense):
            program.dense(op.weights, *op.fused)
        elif isinstance(op, Rows):
            getattr(program, op.method)(*op.args)
        elif isinstance(op, Affine):
            program.affine(cast(op.scale, dtype), cast(op.shift, dtype))
        elif isinstance(op, Residual):
            program.begin_residual()
            _emit(program, op.ops, dtype)
            program.end_residual()
