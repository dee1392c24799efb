"""fastlayer: `net(x)` where weights stay the same, the functions on plain arrays elsewhere.

A network gives a new array at every call. The functions are timed with and without `out=`, as NumPy
and PyTorch are.
"""

from __future__ import annotations

from functools import partial

import numpy as np

import fastlayer as fl
from peers._files import Handwritten, folder, state_dict_file
from peers._onnx_graph import file_of


def available() -> str | None:
    return fl.__version__


def prepare(case, dtype: str, threads: int):
    fl.set_num_threads(threads)
    inputs = case.inputs(dtype)
    if case.kind == "network":
        net = fl.Network([fl.Layer.from_arrays(*layer) for layer in case.layers(dtype)])
        return {"net(x)": (net, inputs)}
    if case.kind == "critic":
        first, *others = [fl.Layer.from_arrays(*layer) for layer in case.layers(dtype)]
        k, joined = case.sizes[0], case.joined
        both = fl.Concat([[fl.Slice(0, k), first], fl.Slice(k, k + joined)])
        return {"net(x, u)": (fl.Network([both, *others], inputs=[k, joined]), inputs)}
    if case.kind == "accelerate":
        return {"accelerate": (fl.accelerate(Handwritten(case, dtype)), inputs)}
    if case.kind == "load":
        return {"load": (_load(case, dtype), inputs)}
    if case.kind == "column":
        layers = [(w, b[:, None], act) for w, b, act in case.layers(dtype)]

        def forward(a):
            for weight, bias, act in layers:
                a, _ = fl.dense_forward(a, weight, bias, act)
            return a

        return {"dense_forward": (forward, inputs)}
    function = getattr(fl, case.hidden if case.kind == "activation" else case.kind)
    shape = inputs[0].shape if case.kind == "activation" else (case.sizes[0], case.sizes[2])
    into = partial(function, out=np.empty(shape, dtype))
    return {"plain": (function, inputs), "out=": (into, inputs)}


def _load(case, dtype: str):
    """From the file to the first result."""
    if case.layout == "onnx":
        path = file_of(case, dtype)
        return lambda x: fl.from_onnx(path)(x)
    if case.layout == "npz":
        path = folder() / "model.npz"
        fl.Network([fl.Layer.from_arrays(*layer) for layer in case.layers(dtype)]).save(path)
        return lambda x: fl.load(path)(x)
    path = state_dict_file(case, dtype)
    return None if path is None else lambda x: fl.from_state_dict(path, activation="relu")(x)


def learners(task):
    """An epoch in one call."""
    from peers._training import Learner

    fl.set_num_threads(task.threads)
    optimizer = (fl.Adam if task.optimizer == "adam" else fl.SGD)(lr=task.rate)
    net = fl.Network([fl.Layer.from_arrays(*layer) for layer in task.layers])
    trainer = fl.Trainer(net, "mse" if task.regression else "cross_entropy", optimizer)

    def epoch(order):
        return trainer.steps(task.x, task.t, task.batch, order).astype(task.x.dtype)

    return {"steps": Learner(epoch, lambda x: trainer.network(x).argmax(axis=1))}
