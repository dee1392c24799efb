"""A network on the blocks of a Dask array, and training on the workers of a cluster.

Dask itself is imported when a function is called.
"""

from __future__ import annotations

from importlib import import_module
from math import isnan
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastlayer.arrays import as_real
from fastlayer.network.batches import check_features
from fastlayer.network.module import Module
from fastlayer.network.network import Network
from fastlayer.threads import num_threads
from fastlayer.train.fit import fit as run
from fastlayer.train.loss import Loss, check_weights
from fastlayer.train.optimizers import SGD
from fastlayer.train.sources import Options
from fastlayer.train.sums import total
from fastlayer.train.trainer import OnTape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fastlayer.arrays import Array
    from fastlayer.network.ends import Classes
    from fastlayer.train.history import History
    from fastlayer.train.loss import LossLike
    from fastlayer.train.optimizers import OptimizerLike
    from fastlayer.train.schedules import ScheduleLike

__all__ = ["fit", "predict"]


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


# Rows of a block of the sums over a batch, which are a part of the results.
_BLOCK = 256


def fit(
    net: Network,
    x: Any,
    t: Any,
    loss: LossLike | None = None,
    *,
    optimizer: OptimizerLike = "adam",
    epochs: int = 10,
    batch_size: int = 4096,
    rng: int | np.random.Generator | None = None,
    validation: Any = None,
    patience: int | None = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
    schedule: ScheduleLike = None,
    callback: Callable[[Network, History], Any] | None = None,
    progress: bool | Callable[[int, int | None], object] = False,
    train: Network | Iterable[Any] | None = None,
    max_norm: float | None = None,
) -> History:
    """Train a network on the workers of a Dask cluster, as `fastlayer.Network.fit` does on one machine.

    Each step cuts its batch into blocks of 256 rows, has the workers compute their gradients, and
    adds these up in the order of the blocks. So the weights have the bits of ``net.fit`` with the
    same arguments, however many workers there are and whichever of them are lost on the way.

    Parameters
    ----------
    net : Network
        Its layers have the new weights after each epoch.
    x : dask.array.Array or array_like
        Shape (N, in_features). Of a Dask array, workers compute the rows that a batch needs.
    t : array_like
        The targets.
    loss : str or Loss, optional
        As for `fastlayer.Network.fit`; no loss of your own.
    optimizer, epochs, rng, validation, patience, sample_weight, class_weight, schedule, callback, \
progress, train, max_norm
        As for `fastlayer.Network.fit`.
    batch_size : int
        Samples in a step. Each 256 of them are a task, so a multiple of 256 for each core makes good
        use of a cluster.

    Returns
    -------
    History
        The losses, epoch by epoch.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As for `fastlayer.Network.fit`.
    ImportError
        Without Dask.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import numpy as np
    >>> from fastlayer.dask import fit
    >>> x = np.random.default_rng(0).normal(size=(2000, 8))
    >>> net = fl.Network([fl.Layer(8, 16, "tanh", rng=0), fl.Layer(16, 1, rng=1)])
    >>> history = fit(net, x, x.sum(axis=1), epochs=5, batch_size=512, rng=0)
    >>> again = fl.Network([fl.Layer(8, 16, "tanh", rng=0), fl.Layer(16, 1, rng=1)])
    >>> history.loss == again.fit(x, x.sum(axis=1), epochs=5, batch_size=512, rng=0).loss
    True
    """
    try:
        import_module("dask")
    except ImportError as error:
        raise ImportError("fastlayer.dask needs Dask: pip install 'dask[array]'") from error
    options = Options(
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        rng=rng,
        validation=validation,
        patience=patience,
        sample_weight=sample_weight,
        class_weight=class_weight,
        schedule=schedule,
        callback=callback,
        progress=progress,
        train=train,
        max_norm=max_norm,
    )
    return run(net, x, t, loss, options, make=_OnWorkers)


class _OnWorkers(OnTape):
    """A trainer whose gradients are computed by workers, 256 rows at a time."""

    def _gradients(self, x: Any, t: Any, sample_weight: Any) -> tuple[float, Array]:
        dask = import_module("dask")
        if not isinstance(self._loss, Loss):
            raise TypeError("a loss of one's own can't be computed on a cluster: name one")
        m = len(t)
        weights = check_weights(sample_weight, m)
        whole = float(m) if weights is None else total(weights)
        # As tasks: a worker that takes the place of a lost one gets them again.
        held = dask.delayed(self._net._snapshot(), pure=True, traverse=False)
        arrays = dask.delayed([p.value for p in self._tape.parameters], traverse=False)
        call = dask.delayed(_block, pure=False, traverse=False)
        parts = []
        for begin in range(0, m, _BLOCK):
            at = slice(begin, begin + _BLOCK)
            rows = dask.delayed(x[at]) if hasattr(x, "dask") else x[at]
            some = None if weights is None else weights[at]
            parts.append(call(held, self._loss, arrays, rows, t[at], some, whole))
        self._clear()
        value = 0.0
        for of_block, gradients in dask.compute(*parts):
            value += of_block
            for p, g in zip(self._tape.parameters, gradients, strict=True):
                p.add(g)
        return value / whole, np.empty(0)


def _block(
    net: Network,
    loss: Loss,
    arrays: list[Array],
    x: Any,
    t: Array,
    weights: Array | None,
    whole: float,
) -> tuple[float, list[Array]]:
    """Compute the loss and the gradients of up to 256 rows of a batch, on a worker."""
    with num_threads(1):
        trainer = OnTape(net, loss, SGD(lr=1.0))
        for p, array in zip(trainer._tape.parameters, arrays, strict=True):
            p.value = as_real(array)  # a message may hold it anywhere
        z = trainer._tape.forward(trainer._rows(x))
        targets = loss._targets(t, (z.shape[0], z.shape[1]), z.dtype)
        some = None if weights is None else as_real(weights)
        value, dy = loss._part(z, targets, some, whole)
        trainer._tape.backward(dy)
        found = [p.gradient for p in trainer._tape.parameters]
    return value, [g for g in found if g is not None]
