"""
Training, with its loss curve
=============================

Three ways to learn the same digits, and the weights of one of them on one thread and on two.
"""

# %%
# scikit-learn's 1,797 images of digits; the last 400 judge.

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fastlayer as fl

data = load_digits()
x = (data.data / 16).astype(np.float32)
teach, judge = (x[:-400], data.target[:-400]), (x[-400:], data.target[-400:])


def make() -> fl.Network:
    return fl.Network([fl.Layer(64, 100, "relu", rng=0), fl.Layer(100, 10, "softmax", rng=1)])


# %%
# ``fit`` takes class numbers as they are; the loss that belongs to a softmax is the cross entropy.

ways: dict[str, dict[str, Any]] = {
    "Adam": {"optimizer": fl.Adam(lr=2e-3)},
    "AdamW, one cycle": {
        "optimizer": fl.AdamW(lr=1e-2, weight_decay=1e-2),
        "schedule": "one_cycle",
    },
    "SGD, momentum": {"optimizer": fl.SGD(lr=0.1, momentum=0.9), "schedule": "cosine"},
}
nets = {name: make() for name in ways}
histories: dict[str, fl.History] = {}
for name, options in ways.items():
    histories[name] = nets[name].fit(
        *teach, validation=judge, epochs=40, batch_size=64, rng=0, **options
    )
    print(f"{name}: {histories[name].val_accuracy[-1]:.1%} of the others are read right")

# %%
# The loss of what is learnt from (dashed) and of what is not (solid):

figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
for color, (name, history) in zip(("C0", "C1", "C2"), histories.items(), strict=True):
    axes.plot(history.val_loss, color=color, label=name)
    axes.plot(history.loss, color=color, linestyle="--", alpha=0.6)
axes.set(yscale="log", xlabel="epoch", ylabel="cross entropy")
axes.legend(frameon=False)

# %%
# The same start, samples and seed give the same weights to the last bit, however many threads compute:

one, two = make(), make()
with fl.num_threads(1):
    one.fit(*teach, epochs=3, batch_size=512, rng=0)
with fl.num_threads(2):
    two.fit(*teach, epochs=3, batch_size=512, rng=0)
assert all(np.array_equal(a.weight, b.weight) for a, b in zip(one, two, strict=True))

# %%
# Which digits are taken for which? The last of the three answers.

answers = nets["SGD, momentum"](judge[0]).argmax(axis=1)
table = np.zeros((10, 10), int)
np.add.at(table, (judge[1], answers), 1)

figure, axes = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
axes.imshow(np.log1p(table), cmap="Blues")
for (i, j), n in np.ndenumerate(table):
    if n:
        axes.text(j, i, str(n), ha="center", va="center", color="white" if n > 15 else "tab:red")
axes.set(xticks=range(10), yticks=range(10), xlabel="taken for", ylabel="digit")
