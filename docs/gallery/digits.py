"""
A tutorial's network, unchanged, reads digits
=============================================

The class that every tutorial writes, trained in its own NumPy lines; then one line makes its forward pass fast.
"""

# %%
# Two layers, rows as samples, every derivative by hand. Nothing in this class knows of fastlayer.

from importlib.resources import files

import matplotlib.pyplot as plt
import numpy as np

import fastlayer as fl

rng = np.random.default_rng(0)


class SimpleNN:
    """Pixels to ten probabilities."""

    def __init__(self) -> None:
        self.W1 = rng.normal(size=(64, 32)) * np.sqrt(2 / 64)
        self.b1 = np.zeros((1, 32))
        self.W2 = rng.normal(size=(32, 10)) * np.sqrt(2 / 32)
        self.b2 = np.zeros((1, 10))

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.a1 = np.maximum(0, x @ self.W1 + self.b1)
        z = self.a1 @ self.W2 + self.b2
        e = np.exp(z - z.max(axis=1, keepdims=True))
        p: np.ndarray = e / e.sum(axis=1, keepdims=True)
        return p

    def backward(self, x: np.ndarray, labels: np.ndarray, lr: float) -> float:
        p = self.forward(x)
        rows = np.arange(len(x))
        loss = -np.log(p[rows, labels]).mean()
        dz = p.copy()
        dz[rows, labels] -= 1
        dz /= len(x)
        dz1 = dz @ self.W2.T * (self.a1 > 0)
        self.W2 -= lr * self.a1.T @ dz
        self.b2 -= lr * dz.sum(axis=0, keepdims=True)
        self.W1 -= lr * x.T @ dz1
        self.b1 -= lr * dz1.sum(axis=0, keepdims=True)
        return float(loss)


# %%
# 360 images of 8 by 8 pixels come with the package: 300 to learn from, 60 to be judged by.

with np.load(str(files("fastlayer") / "data" / "digits.npz")) as data:
    images, labels = data["images"], data["labels"]
x = images.reshape(360, 64) / 16

network = SimpleNN()
losses = [network.backward(x[:300], labels[:300], lr=0.5) for _ in range(200)]
print(f"cross entropy {losses[0]:.2f} -> {losses[-1]:.3f}")

# %%
# :func:`fastlayer.accelerate` gives the same object with a faster ``forward``, after comparing the two on random, edge
# and large inputs. Training may go on: the arrays are read at each call.

fast = fl.accelerate(network)
print(fast)
assert np.allclose(fast.forward(x), network.forward(x))

# %%
# Or its arrays become a network of its own, packed once. ``layout="in_out"`` says that a *column* of ``W`` belongs to a
# neuron here; nothing guesses that.

net = fl.Network(
    [
        fl.Layer.from_arrays(network.W1, network.b1, "relu", layout="in_out"),
        fl.Layer.from_arrays(network.W2, network.b2, "softmax", layout="in_out"),
    ]
)
p = net(x[300:])
print(f"{np.mean(p.argmax(axis=1) == labels[300:]):.0%} of the 60 are read right")

# %%
# What it sees, how sure it is, and in red what it takes for something else:

figure, places = plt.subplots(4, 12, figsize=(9, 3.6), layout="constrained")
for place, image, row, label in zip(places.flat, images[300:], p, labels[300:], strict=False):
    answer = int(row.argmax())
    place.imshow(image, cmap="gray_r")
    color = "tab:blue" if answer == label else "tab:red"
    place.set_title(f"{answer}: {row[answer]:.0%}", fontsize=8, color=color)
    place.set_axis_off()
