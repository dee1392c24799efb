"""`fastlayer.dask.predict`: a network on the blocks of a Dask array.

Dask itself is imported when the function is called.
"""

from __future__ import annotations

from importlib import import_module
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import as_real
from fastlayer.network.batches import check_features
from fastlayer.network.module import Module
from fastlayer.network.network import Network
from fastlayer.threads import num_threads

if TYPE_CHECKING:
    from fastlayer.arrays import Array
    from fastlayer.network.ends import Classes

__all__ = ["predict"]


def predict(net: Module, x: Any) -> Any:
    """Run the forward pass on a Dask array, lazily, a block at a time.

    The result has the bits of ``net(x.compute())``, however `x` is cut into blocks and wherever
    they are computed. Each task runs on one thread: a worker has a slot for each of its cores.

    Parameters
    ----------
    net : Network or Layer
        It is taken as it is now; later updates of its weights do not reach the result. The graph
        holds it once, in a task of its own, so that each worker gets it once.
    x : dask.array.Array
        Shape (..., in_features), or (in_features,) for one sample, of any real dtype. Any blocks
        will do, also of unknown sizes: features in several blocks are brought together first.
        With a `Flatten` or a Python function among the layers, so are all axes but the first;
        these networks run once on a row of zeros, for the shape of their result. Several inputs
        lie beside each other along the last axis.

    Returns
    -------
    dask.array.Array
        Shape (..., out_features), dtype ``net.dtype``, in the blocks of `x` but for the features.
        A tuple of these, or labels, where ``net(x)`` gives a tuple or labels.

    Raises
    ------
    ValueError
        A wrong shape of `x`, or an unknown number of features.
    TypeError
        `net` is not of fastlayer, `x` not a Dask array of NumPy blocks, or not of a real dtype.
    ImportError
        Without Dask.

    Examples
    --------
    >>> import dask.array as da
    >>> import fastlayer as fl
    >>> from fastlayer.dask import predict
    >>> net = fl.Network([fl.Layer(64, 10, "softmax", rng=0)])
    >>> y = predict(net, da.ones((1000, 64), chunks=(250, 64)))
    >>> y.shape, y.chunks[0], y.dtype
    ((1000, 10), (250, 250, 250, 250), dtype('float32'))
    """
    try:
        da, dask = import_module("dask.array"), import_module("dask")
    except ImportError as error:
        raise ImportError("fastlayer.dask needs Dask: pip install 'dask[array]'") from error
    _check(net, x, da)
    if isinstance(net, Network) and net.output_names:
        rows = predict(net._plain, x)
        parts = [_labels(da, part, classes) for part, classes in net._out.parts(rows)]
        return parts[0] if net._out.single else tuple(parts)
    held = net._snapshot()
    if x.ndim == 0:
        check_features(held, x.shape, x.dtype)
    # Axes that a block has to hold whole.
    whole = range(x.ndim - 1 if held._rowwise else min(1, x.ndim - 1), x.ndim)
    if any(isnan(x.shape[axis]) for axis in whole):
        raise ValueError(
            f"x of shape {x.shape}: the sizes of axes {list(whole)} must be known; call "
            "x.compute_chunk_sizes() first"
        )
    check_features(held, tuple(0 if isnan(n) else n for n in x.shape), x.dtype)
    rows = whole.start
    sample = held(np.zeros((1,) * rows + x.shape[rows:], x.dtype))
    if sample.shape[:rows] != (1,) * rows:
        raise ValueError(
            f"net gives shape {sample.shape} for one row, so its rows can't be told apart"
        )
    split = {axis: -1 for axis in whole if x.numblocks[axis] > 1}
    chunks = (*x.chunks[:rows], *((n,) for n in sample.shape[rows:]))
    name = f"fastlayer-network-{dask.base.tokenize(held)}"
    return da.map_blocks(
        _fastlayer_predict,
        x.rechunk(split) if split else x,
        dask.delayed(held, name=name, pure=True, traverse=False),
        dtype=held.dtype,
        chunks=chunks,
        drop_axis=list(range(len(chunks), x.ndim)),
        new_axis=list(range(x.ndim, len(chunks))),
        meta=np.empty((0,) * len(chunks), held.dtype),
    )


def _labels(da: Any, scores: Any, classes: Classes | None) -> Any:
    """Return the labels of scores, where that is what they are."""
    if classes is None:
        return scores
    one = classes.of(np.zeros((1,) * scores.ndim, scores.dtype), -1)
    last = {"chunks": (*scores.chunks[:-1], (1,))} if classes.keepdims else {"drop_axis": -1}
    return da.map_blocks(
        classes.of, scores.rechunk({-1: -1}), axis=-1, dtype=one.dtype, meta=one[:0], **last
    )


def _check(net: object, x: Any, da: Any) -> None:
    if not isinstance(net, Module):
        hint = "; pass its .network" if isinstance(getattr(net, "network", None), Module) else ""
        raise TypeError(f"net must be a fastlayer Network or Layer, got {type(net).__name__}{hint}")
    if not isinstance(x, da.Array):
        raise TypeError(
            f"x must be a dask.array.Array, got {type(x).__name__}; net.predict(x) takes the others"
        )
    if not isinstance(x._meta, np.ndarray):
        raise TypeError(f"x must have blocks of NumPy arrays, not {type(x._meta).__name__}")
    as_real(x._meta)


def _fastlayer_predict(block: Array, net: Module) -> Array:  # the dashboard shows the name
    with num_threads(1):
        return net(block)
