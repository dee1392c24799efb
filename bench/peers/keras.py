"""Keras on PyTorch, where networks are trained: `train_on_batch`."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

from peers._training import BETAS, EPS, Learner


def available() -> str | None:
    try:
        version("torch")  # what it computes with here
        return version("keras")
    except PackageNotFoundError:
        return None


def prepare(case, dtype: str, threads: int):
    return None  # a trained network of it is one of PyTorch's


def learners(task):
    """Tensors in, and no metrics but the loss."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import numpy as np
    import torch

    torch.set_num_threads(task.threads)
    keras.config.set_floatx(task.x.dtype.name)
    keras.config.set_dtype_policy(task.x.dtype.name)
    x, t = torch.from_numpy(task.x), torch.from_numpy(task.t)
    layers = [keras.layers.Dense(len(b), activation=act) for _, b, act in task.layers]
    model = keras.Sequential([keras.Input(task.sizes[:1]), *layers])
    for layer, (weight, bias, _) in zip(layers, task.layers, strict=True):
        layer.set_weights([weight.T, bias])
    optimizer = keras.optimizers.SGD(task.rate)
    if task.optimizer == "adam":
        b1, b2 = BETAS
        optimizer = keras.optimizers.Adam(task.rate, beta_1=b1, beta_2=b2, epsilon=EPS)
    measure = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if task.regression:
        measure = keras.losses.MeanSquaredError()
    model.compile(optimizer, measure, jit_compile=False)

    def epoch(order):
        losses = [model.train_on_batch(x[at], t[at]) for at in order.split(task.batch)]
        return np.array(losses, task.x.dtype)

    def answers(rows):
        return model.predict_on_batch(rows).argmax(axis=1)

    # Of a network in float64, too, it tells losses in float32.
    mean = 1.0 if task.x.dtype == "float64" else 0.0
    return {"train_on_batch": Learner(epoch, answers, torch.from_numpy, mean=mean)}
