"""Products of arrays that the core doesn't take as given: conversions, odd shapes, messages.

Private half of `functional`; everything public is documented there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import _core
from fastlayer._arrays import (
    FLOAT64,
    as_real,
    as_result,
    cast,
    check_out,
    declined,
    evaluate,
    is_weak,
    promote,
)
from fastlayer.activations import IDENTITY, Activation, resolve

if TYPE_CHECKING:
    from fastlayer._arrays import Array, DType
    from fastlayer.activations import ActivationLike, Fused

_ROWWISE = ("softmax", "log_softmax")


def _dtypes(*pairs: tuple[Array, object]) -> tuple[DType, DType]:
    """Promotion of converted arrays, Python numbers among the originals left out."""
    strong = [a.dtype for a, given in pairs if not is_weak(given)]
    return promote(*strong) if strong else (FLOAT64, FLOAT64)


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether `shape` broadcasts to `target` without enlarging it."""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def linear(
    x_: Any, weight_: Any, bias_: Any, activation: ActivationLike, out: Array | None
) -> Array:
    act = resolve(activation)
    x, w = as_real(x_), as_real(weight_, "weight")
    _check_linear(x, w)
    pairs = [(x, x_), (w, weight_)]
    b = None
    if bias_ is not None:
        b = as_real(bias_, "bias")
        pairs.append((b, bias_))
    shape = x.shape[:-1] + w.shape[:-1]
    if b is not None and not _fits(b.shape, shape):
        raise ValueError(
            f"linear: bias of shape {b.shape} does not broadcast to the result of shape {shape}"
        )
    compute, result = _dtypes(*pairs)
    x, w = cast(x, compute), cast(w, compute)
    b = None if b is None else cast(b, compute)
    fused = act._fused if isinstance(act, Activation) else None
    # The softmax of a single neuron runs over the samples: over the result as the caller sees it.
    if fused is not None and not (w.ndim == 1 and fused[0] in _ROWWISE):
        target = None if out is None else check_out(out, shape, result)
        y = affine(x, w, b, fused, target if compute == result else None)
        return _deliver(y, result, out, target)
    z = affine(x, w, b, IDENTITY, None)
    if isinstance(act, Activation):
        target = None if out is None else check_out(out, shape, result)
        return _deliver(np.asarray(act(z)), result, out, target)
    a = act(as_result(cast(z, result)))
    if out is None:
        return a  # type: ignore[no-any-return]  # the caller's own function
    y = as_real(a, "the result of activation")
    return _deliver(y, result, out, check_out(out, y.shape, result))


def _deliver(y: Array, result: DType, out: Array | None, target: Array | None) -> Array:
    if out is None or target is None:
        return as_result(cast(y, result))
    if y is not target:
        with np.errstate(all="ignore"):
            target[...] = y
    return out


def _check_linear(x: Array, w: Array) -> None:
    if w.ndim not in (1, 2):
        raise ValueError(
            f"linear: weight must be (n, k), one row for each neuron, or (k,); got shape {w.shape}"
        )
    k = w.shape[-1]
    if x.ndim == 0:
        raise ValueError(
            f"linear: x is a scalar, but weight of shape {w.shape} takes x of shape (..., {k})"
        )
    if x.shape[-1] != k:
        hint = "; for weights kept as (inputs, outputs) pass weight.T"
        raise ValueError(
            f"linear: x of shape {x.shape} does not fit weight of shape {w.shape}, which takes "
            f"(..., {k}){hint if x.shape[-1] == w.shape[0] else ''}"
        )


def affine(x: Array, w: Array, b: Array | None, fused: Fused, target: Array | None) -> Array:
    """``fused(x @ w.T + b)`` for arrays of one dtype whose shapes have been checked.

    Returns `target` where that could be written to, else a new array.
    """
    shape = x.shape[:-1] + w.shape[:-1]
    y = target
    if w.ndim == 1:  # a single neuron is a layer with one output, seen without its last axis
        w = w[None, :]
        b = None if b is None else b[..., None]
        y = None if y is None else y[..., None]
    done = _sum(x, w, b, fused, y)
    if done is None and y is not None:
        done = _sum(x, w, b, fused, None)
    if done is None:
        raise declined()
    return target if target is not None and done is y else done.reshape(shape)


def _sum(x: Array, w: Array, b: Array | None, fused: Fused, y: Array | None) -> Array | None:
    if b is None or all(d == 1 for d in b.shape[:-1]):
        vector = None if b is None else b.reshape(-1)
        if vector is not None and vector.size != w.shape[0]:
            vector = vector.repeat(w.shape[0])
        return _core.linear(x, w, vector, *fused, y, False)
    # A bias that differs between rows: the sums start from it.
    if y is None or np.may_share_memory(y, x) or np.may_share_memory(y, w):
        y = np.empty(x.shape[:-1] + w.shape[:1], x.dtype)
    y[...] = b
    if fused[0] not in _ROWWISE:
        return _core.linear(x, w, None, *fused, y, True)
    if _core.linear(x, w, None, *IDENTITY, y, True) is None:
        return None
    return _core.activation(fused[0], y, 0.0, 0.0, y)


def with_vector(a: Any, b: Any) -> Array | None:
    """``a @ b`` where one is a vector and nothing needs converting, else None.

    A product is the same sum in either order, so the vector can be the row that `linear` takes.
    """
    if type(a) is not np.ndarray or type(b) is not np.ndarray:
        return None
    if b.ndim == 1 and a.ndim == 2:
        return _core.linear(b, a, None, *IDENTITY, None, False)
    if a.ndim == 1 and b.ndim == 2:
        return _core.linear(a, b.T, None, *IDENTITY, None, False)
    if a.ndim == 1 and b.ndim == 1:
        y = _core.linear(a, b[None, :], None, *IDENTITY, None, False)
        return None if y is None else y[0]
    return None


def matmul(a_: Any, b_: Any, out: Array | None, who: str) -> Array:
    a, b = as_real(a_, "a"), as_real(b_, "b")
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(
            f"{who}: a has shape {a.shape} and b has shape {b.shape}; both need at least one "
            "dimension (use numpy.multiply for scalars)"
        )
    k, rows = a.shape[-1], b.shape[-2] if b.ndim > 1 else b.shape[0]
    try:
        if k != rows:
            raise ValueError
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        why = f"{k} is not {rows}" if k != rows else "the leading axes do not broadcast"
        raise ValueError(
            f"{who}: a of shape {a.shape} and b of shape {b.shape} do not fit: {why}"
        ) from None
    dtypes = promote(a.dtype, b.dtype)
    full = cast(b, dtypes[0])
    full = full[:, None] if b.ndim == 1 else full
    shape = stack + a.shape[-2:-1] + (b.shape[-1:] if b.ndim > 1 else ())

    def run(a: Array, target: Array | None) -> Array | None:
        y = target
        if y is not None and b.ndim == 1:
            y = y[..., None]
        if y is not None and a.ndim == 1:
            y = y[..., None, :]
        done = _core.matmul(a[None, :] if a.ndim == 1 else a, full, y)
        return done if done is None else done.reshape(shape)

    return evaluate(run, a, dtypes, shape, out)


def dot(a_: Any, b_: Any, out: Array | None) -> Array:
    a, b = as_real(a_, "a"), as_real(b_, "b")
    if a.ndim > 1 and b.ndim > 2:
        raise ValueError(
            f"dot: a of shape {a.shape} with b of shape {b.shape} is a product for which np.dot "
            "and np.matmul differ; use matmul"
        )
    return matmul(a, b, out, "dot")


def bias_add(z_: Any, bias_: Any, out: Array | None) -> Array:
    z, b = as_real(z_, "z"), as_real(bias_, "bias")
    try:
        shape = np.broadcast_shapes(z.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"bias_add: bias of shape {b.shape} does not broadcast against z of shape {z.shape}"
        ) from None
    compute, result = _dtypes((z, z_), (b, bias_))
    target = None if out is None else check_out(out, shape, result)
    with np.errstate(all="ignore"):
        total = np.asarray(np.add(cast(z, compute), cast(b, compute)))
    return _deliver(total, result, out, target)


def dense_forward(
    inputs: Any, weights: Any, biases: Any, activation: ActivationLike
) -> tuple[Any, Array]:
    act = resolve(activation)
    x, w, b = as_real(inputs, "inputs"), as_real(weights, "weights"), as_real(biases, "biases")
    if x.ndim not in (1, 2) or w.ndim not in (1, 2) or x.shape[0] != w.shape[-1]:
        raise ValueError(
            f"dense_forward: weights of shape {w.shape} do not fit inputs of shape {x.shape}; "
            "weights are (k, n), one row for each neuron, inputs (n,) or (n, m), columns being "
            "samples"
        )
    shape = w.shape[:-1] + x.shape[1:]
    if not _fits(b.shape, shape):  # larger than the product, as in NumPy's sum; or an error
        z = bias_add(matmul(w, x, None, "dense_forward"), biases, None)
        return act(z), z
    compute, result = _dtypes((x, inputs), (w, weights), (b, biases))
    # Rows of samples are the views that the core computes on: z.T = x.T @ w.T + b.T.
    b = cast(b, compute)
    if len(shape) == 2:
        b = b.reshape((1,) * (2 - b.ndim) + b.shape).T
    z = np.empty(shape, compute)
    columns = z.T
    y = affine(cast(x, compute).T, cast(w, compute), b, IDENTITY, columns)
    if y is not columns:
        columns[...] = y
    z = as_result(cast(z, result))
    return act(z), z
