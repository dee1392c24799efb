"""Training runs of 300 steps whose bits are the same everywhere, and their digests."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
from helpers import numbers

import fastlayer as fl

STEPS = 300
ROWS = 1600


def layer(rng, k, n, dtype, act=None):
    weight = numbers(rng, (n, k), dtype, 1 / np.sqrt(k))
    return fl.Layer.from_arrays(weight, numbers(rng, n, dtype, 0.25), act)


def classifier(dtype, loss="cross_entropy"):
    """A classifier with Adam; batches of more rows than a block of the sum."""
    rng = np.random.RandomState(1)
    parts = [
        layer(rng, 17, 33, dtype, "gelu"),
        layer(rng, 33, 24, dtype, "relu"),
        layer(rng, 24, 10, dtype),
    ]
    trainer = fl.Trainer(fl.Network(parts), loss, fl.Adam(lr=0.002))
    return trainer, numbers(rng, (ROWS, 17), dtype, 1.0), rng.randint(0, 10, ROWS), None, 260


def regressor(dtype):
    """All that a classifier has not: norms, branches, slopes, momentum, weights, clipping."""
    rng = np.random.RandomState(2)
    slopes = fl.Activation("prelu", weight=numbers(rng, 33, dtype, 0.25))
    gates = [layer(rng, 33, 24, dtype), layer(rng, 33, 24, dtype, "sigmoid")]
    parts = [
        layer(rng, 7, 33, dtype, slopes),
        fl.LayerNorm(33, weight=np.ones(33), bias=np.zeros(33), dtype=dtype),
        fl.Residual(layer(rng, 33, 33, dtype, "tanh")),
        fl.Multiply(gates),
        fl.RMSNorm(24, weight=np.ones(24), dtype=dtype),
        layer(rng, 24, 3, dtype, "softplus"),
    ]
    optimizer = fl.SGD(lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    trainer = fl.Trainer(fl.Network(parts), fl.Loss("huber", delta=0.5), optimizer, max_norm=0.5)
    x, t = numbers(rng, (ROWS, 7), dtype, 1.0), numbers(rng, (ROWS, 3), dtype, 1.0)
    return trainer, x, t, np.ldexp(rng.randint(0, 2**20, ROWS).astype(float), -20), 37


def tiny(dtype):
    """The narrowest layers, single rows, decoupled decay."""
    rng = np.random.RandomState(3)
    parts = [layer(rng, 4, 8, dtype, "silu"), layer(rng, 8, 1, dtype, "sigmoid")]
    trainer = fl.Trainer(fl.Network(parts), "binary_cross_entropy", fl.AdamW(weight_decay=0.1))
    return trainer, numbers(rng, (ROWS, 4), dtype, 1.0), rng.randint(0, 2, ROWS), None, 1


def wide(dtype):
    """Layers large enough for several threads; a few steps, for the sake of plain C++."""
    rng = np.random.RandomState(5)
    parts = [layer(rng, 300, 150, dtype, "relu"), layer(rng, 150, 50, dtype, "softmax")]
    trainer = fl.Trainer(fl.Network(parts), "cross_entropy", "adam")
    return trainer, numbers(rng, (ROWS, 300), dtype, 1.0), rng.randint(0, 50, ROWS), None, 600


MADE = {"classifier": classifier, "regressor": regressor, "tiny": tiny, "wide": wide}
CASES = [f"{name}-{dtype}" for name in MADE for dtype in ("float32", "float64")]


def made(case):
    """A fresh trainer, samples, targets, weights, and the batches of the whole run."""
    name, dtype = case.split("-")
    trainer, x, t, w, size = MADE[name](np.dtype(dtype).type)
    rng = np.random.RandomState(4)
    order = [rng.randint(0, ROWS, size) for _ in range(3 if name == "wide" else STEPS)]
    return trainer, x, t, w, np.array(order)


def digest_of(trainer, losses):
    """SHA-256 of the weights, the moments, what is beside them, and the losses of all steps."""
    found = hashlib.sha256()
    state = trainer.state
    arrays = [*state["values"], *(a for each in state["moments"] for a in each)]
    extra = [state["lr"], state["steps"], *state["progress"].values(), *losses]
    for a in [*arrays, np.array(extra, np.float64)]:
        assert np.isfinite(a).all()
        found.update(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes())
    assert state["steps"] == len(losses)
    return found.hexdigest()


def in_steps(case):
    """The whole run in one call."""
    trainer, x, t, w, order = made(case)
    return digest_of(trainer, trainer.steps(x, t, order.shape[1], order.reshape(-1), w))


def step_by_step(case):
    trainer, x, t, w, order = made(case)
    losses = [trainer.step(x[at], t[at], None if w is None else w[at]) for at in order]
    return digest_of(trainer, losses)


def pickled(case):
    """Cut in four, with a new trainer each time: of a pickle, and of a state."""
    trainer, x, t, w, order = made(case)
    losses = []
    for part, at in enumerate(np.split(order, [1, len(order) // 2, len(order) // 2 + 1])):
        losses += [*trainer.steps(x, t, at.shape[1], at.reshape(-1), w)]
        if part % 2:
            trainer, other = made(case)[0], trainer
            trainer.state = other.state
        else:
            trainer = pickle.loads(pickle.dumps(trainer))
    return digest_of(trainer, losses)


def interrupted(case, at=137):
    """By Ctrl-C in the midst of a step, of the classifier: its loss is a function here."""
    own = fl.Loss("cross_entropy")
    calls, losses = [], []

    def loss(y, t):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        losses.append(own(y, t))
        return losses[-1], own.gradient(y, t)

    _, x, t, _, order = made(case)
    trainer = classifier(x.dtype.type, loss)[0]
    size = order.shape[1]
    try:
        trainer.steps(x, t, size, order.reshape(-1))
    except KeyboardInterrupt:
        assert trainer.steps_done == at - 1
    trainer.steps(x, t, size, order[trainer.steps_done :].reshape(-1))
    return digest_of(trainer, losses)


def fitted():
    """Of `fit`, with all that draws or schedules."""
    trainer, x, t, _, _ = made("classifier-float32")
    net = trainer.network
    history = net.fit(
        x, t, "cross_entropy", epochs=6, batch_size=64, rng=9, validation=0.2, patience=4,
        schedule=fl.Schedule("one_cycle", warmup=0.2), class_weight="balanced",
    )  # fmt: skip
    found = hashlib.sha256()
    arrays = [a for part in net.layers for a in (part.weight, part.bias)]
    for a in [*arrays, np.array([*history.loss, *history.val_loss, *history.lr])]:
        found.update(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes())
    return found.hexdigest()
