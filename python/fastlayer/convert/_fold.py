"""Sums that are linear in what goes into them become part of the dense layers in front of them.

Computed in float64. Nothing else is touched: what was loaded before keeps its bits, and two dense
layers in a row, which somebody may have meant, stay two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._affine import Affine
from fastlayer.convert._assemble import Dense, Join, Mix

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from fastlayer.arrays import Array

    Linear: TypeAlias = tuple[Sequence[Any], Array, Array]

# Features that are mixed by a matrix of as many rows: 32 MB.
_MOST_MIXED = 1 << 11
# Weights that a sum of layers may have beyond theirs.
_MOST_GROWN = 1 << 20


def fold(steps: Sequence[Any]) -> list[Any]:
    """Return the steps with each `Mix`, and each sum of dense layers, in one dense layer."""
    result: list[Any] = []
    for given in steps:
        step = given
        if isinstance(step, Join):
            step = _inside(step)
            tails = [_linear(branch) for branch in step.branches]
            linear = [tail for tail in tails if tail is not None]
            if step.kind == "add" and len(linear) == len(tails) and not _grows(linear):
                result += _summed(linear)
                continue
        tail = _linear(result) if _mixes(step) else None
        matrix = None if tail is None else _matrix([step], len(tail[1]))
        grown = 0 if tail is None or matrix is None else len(matrix[0]) * tail[1].shape[1]
        if tail is None or matrix is None or grown > _MOST_GROWN + 4 * tail[1].size:
            result.append(step)
        else:
            head, w, b = tail
            m, shift = matrix
            result = [*head, Dense(m @ w, m @ b + shift)]
    return result


def _mixes(step: Any) -> bool:
    """Whether a step has a `Mix` in it."""
    inner = [s for branch in step.branches for s in branch] if isinstance(step, Join) else ()
    return isinstance(step, Mix) or any(map(_mixes, inner))


def _matrix(steps: Sequence[Any], n: int) -> tuple[Array, Array] | None:
    """Return what steps do to `n` features as a matrix and a shift, None where that isn't all."""
    if n > _MOST_MIXED:
        return None
    m, shift = np.eye(n), np.zeros(n)
    for step in steps:
        if isinstance(step, Mix):
            w = step.matrix(len(m))
            m, shift = w @ m, w @ shift
        elif isinstance(step, Affine):
            scale = np.broadcast_to(step.scale, shift.shape)
            m, shift = scale[:, None] * m, scale * shift + step.shift
        elif isinstance(step, Join) and step.kind == "add":
            parts = [_matrix(branch, len(m)) for branch in step.branches]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                return None
            rows = max(len(w) for w, _ in known)
            w = np.sum([np.broadcast_to(w, (rows, len(m))) for w, _ in known], axis=0)
            c = np.sum([np.broadcast_to(c, rows) for _, c in known], axis=0)
            m, shift = w @ m, w @ shift + c
        else:
            return None
    return m, shift


def _inside(step: Join) -> Join:
    folded = [fold(branch) for branch in step.branches]
    same = all(map(alike, folded, step.branches))
    return step if same else Join.of(step.kind, folded)


def alike(steps: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether steps are the same ones, not only equal."""
    return len(steps) == len(others) and all(a is b for a, b in zip(steps, others, strict=True))


def _linear(steps: Sequence[Any]) -> Linear | None:
    """Return steps, and the weight and bias of the dense layer that ends them, if one does."""
    at = len(steps) - 1
    while at >= 0 and isinstance(steps[at], Affine):
        at -= 1
    if at < 0 or not isinstance(steps[at], Dense):
        return None
    w = steps[at].weight.astype(np.float64)
    given = steps[at].bias
    b = np.zeros(len(w)) if given is None else given.astype(np.float64).ravel()
    with np.errstate(all="ignore"):
        for affine in steps[at + 1 :]:
            scale = np.broadcast_to(affine.scale, b.shape)
            w, b = w * scale[:, None], b * scale + affine.shift
    return steps[:at], w, b


def _grows(branches: Sequence[Linear]) -> bool:
    """Whether one layer would be far larger than those it is made of: one number for many."""
    k = sum(w.shape[1] for _, w, _ in branches)
    together = max(len(w) for _, w, _ in branches) * k
    return bool(together > _MOST_GROWN + 4 * sum(w.size for _, w, _ in branches))


def _summed(branches: Sequence[Linear]) -> list[Any]:
    """Return the steps of a sum of dense layers: one, over all that they take."""
    n = max(len(w) for _, w, _ in branches)
    weights = [np.broadcast_to(w, (n, w.shape[1])) for _, w, _ in branches]  # one for all or each
    bias = np.sum([np.broadcast_to(b, n) for _, _, b in branches], axis=0)
    heads = [head for head, _, _ in branches]
    given = bias if bias.any() else None  # else what is added behind becomes the bias
    if not any(heads):
        return [Dense(np.sum(weights, axis=0), given)]
    return [Join.of("concat", heads), Dense(np.concatenate(weights, axis=1), given)]
