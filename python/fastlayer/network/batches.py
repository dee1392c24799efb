"""`Network.predict`: arrays, memmaps and streams of arrays, a batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import as_real, check_out, copied, is_array, may_share
from fastlayer.report.progress import reporting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastlayer.arrays import Array, DType
    from fastlayer.network.module import Module
    from fastlayer.report.progress import Progress


# Without a batch_size, progress is told this many times at most, and no batch is smaller than 256
# rows: below that the batch no longer fills the kernels.
_REPORTS = 100
_SMALLEST_BATCH = 256


def predict(
    net: Module, x: Any, batch_size: int | None, out: Array | None, progress: bool | Progress
) -> Array:
    if batch_size is not None and (not hasattr(batch_size, "__index__") or batch_size < 1):
        raise ValueError(f"batch_size must be a positive integer or None, got {batch_size!r}")
    if is_stream(x):
        return _stream(net, x, batch_size, out, progress)
    a = as_real(x)
    m = len(a) if a.ndim else 1
    size = batch_size or (max(_SMALLEST_BATCH, -(-m // _REPORTS)) if progress else m)
    if a.ndim < 2 or (m <= size and not progress):
        return net(a, out=out)
    check_features(net, a.shape, a.dtype)
    if isinstance(out, np.ndarray) and np.may_share_memory(a, out):
        a = copied(a, a.dtype)  # the first batches would overwrite what the last ones read
    with reporting(progress, m) as report:
        # The first batch tells the shape of a result that Flatten or a function may shape.
        first = net(a[:size])
        shape = (m, *first.shape[1:])
        result = np.empty(shape, net.dtype) if out is None else check_out(out, shape, net.dtype)
        result[:size] = first
        report(min(m, size))
        for low in range(size, m, size):
            batch = a[low : low + size]
            net(batch, out=result[low : low + size])
            report(len(batch))
    return result if out is None else out


def check_features(net: Module, shape: tuple[int, ...], dtype: DType) -> None:
    """Raise the error of ``net(x)`` for a whole `x` of this shape, before any of it is there."""
    if not shape or net._sizes.takes not in (None, shape[-1]):
        net(np.broadcast_to(np.zeros((), dtype), shape))


def is_stream(x: object) -> bool:
    """Whether `x` is several arrays one after the other, rather than one array or nested lists."""
    if isinstance(x, list | tuple):
        return len(x) > 0 and all(np.ndim(item) > 1 and hasattr(item, "dtype") for item in x)
    return hasattr(x, "__iter__") and not is_array(x) and not isinstance(x, str | bytes)


def _batches(x: Iterable[Any], size: int | None) -> Iterator[Array]:
    for item in x:
        a = as_real(item)
        a = a[None, :] if a.ndim == 1 else a
        step = size or max(1, a.shape[0])
        for low in range(0, max(1, a.shape[0]), step):
            yield a[low : low + step]


def _stream(
    net: Module, x: Iterable[Any], size: int | None, out: Array | None, progress: bool | Progress
) -> Array:
    parts: list[Array] = []
    done = 0
    total = sum(len(item) for item in x) if isinstance(x, list | tuple) else None
    if out is not None:
        check_out(out, np.shape(out), net.dtype)
        if isinstance(x, list | tuple):
            x = [np.array(item) if _shared(item, out) else item for item in x]
    with reporting(progress, total) as report:
        for batch in _batches(x, size):
            m = batch.shape[0]
            if out is None:
                parts.append(net(batch))
            elif done + m > len(out):
                raise ValueError(f"out has {len(out)} rows, but x has more")
            elif _shared(batch, out[:done]):
                raise ValueError("out has overwritten a part of x before its turn; copy x or out")
            else:
                net(batch, out=out[done : done + m])
            done += m
            report(m)
    if out is not None:
        if done != len(out):
            raise ValueError(f"out has {len(out)} rows, but x has {done}")
        return out
    if not parts:
        return np.empty((0, net.out_features or 0), net.dtype)
    return np.concatenate(parts)


def _shared(x: Any, out: Array) -> bool:
    return may_share(as_real(x), out)
