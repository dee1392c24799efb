"""
A surface that a network holds
==============================

Layers with sines learn how far each point is from a shape; rays then walk along that distance to make a picture of it.
"""

# %%
# The shape is a tube along a trefoil knot. A *signed distance* is negative inside, and 0 on the surface.

import matplotlib.pyplot as plt
import numpy as np

import fastlayer as fl
from fastlayer.names import ActivationName

t = np.linspace(0, 2 * np.pi, 240, endpoint=False)
ring = 2 + np.cos(3 * t)
knot = np.stack([ring * np.cos(2 * t), ring * np.sin(2 * t), 1.3 * np.sin(3 * t)]) / 3.5


def distance(p: np.ndarray) -> np.ndarray:
    """Of the points (m, 3) to a tube of radius 0.15 around the knot."""
    squares = (p**2).sum(axis=1, keepdims=True) - 2 * p @ knot + (knot**2).sum(axis=0)
    found: np.ndarray = np.sqrt(squares.min(axis=1).clip(0)) - 0.15
    return found


# %%
# Sines as activations follow detail where ReLUs cut corners (`Sitzmann et al., 2020
# <https://arxiv.org/abs/2006.09661>`_). Each layer starts with weights of a fitting size, given as arrays.

rng = np.random.default_rng(0)


def layer(k: int, n: int, bound: float, activation: ActivationName | None) -> fl.Layer:
    weight = rng.uniform(-bound, bound, (n, k)).astype(np.float32)
    return fl.Layer.from_arrays(weight, rng.uniform(-1, 1, n).astype(np.float32), activation)


net = fl.Network(
    [
        layer(3, 64, 3.0, "sin"),
        layer(64, 64, np.sqrt(6 / 64), "sin"),
        layer(64, 64, np.sqrt(6 / 64), "sin"),
        layer(64, 1, np.sqrt(6 / 64) / 8, None),
    ]
)
points = rng.uniform(-1.1, 1.1, (60_000, 3)).astype(np.float32)
history = net.fit(
    points,
    distance(points)[:, None],
    optimizer=fl.Adam(lr=2e-3),
    epochs=60,
    batch_size=256,
    schedule="cosine",
    rng=0,
)
print(f"typical error of a distance: {np.sqrt(history.loss[-1]):.4f}")

# %%
# A ray from the eye steps as far as the network says that nothing is in its way. All 90,000 rays go at once, as the
# rows of one array; those that have arrived or left are not asked again.

size = 300
eye = np.array([0.8, -1.2, 2.6])
forward = -eye / np.linalg.norm(eye)
right = np.cross(forward, [0, 1, 0])
right /= np.linalg.norm(right)
up = np.cross(right, forward)
v, u = np.meshgrid(np.linspace(0.38, -0.38, size), np.linspace(-0.38, 0.38, size), indexing="ij")
rays = (forward + u[..., None] * right + v[..., None] * up).reshape(-1, 3)
rays /= np.linalg.norm(rays, axis=1, keepdims=True)

depth = np.full(size * size, 1.8)
asked = np.arange(size * size)
for _ in range(120):
    p = eye + depth[asked, None] * rays[asked]
    d = net(p)[:, 0]
    depth[asked] += 0.7 * d
    asked = asked[(d > 1e-3) & (depth[asked] < 4.5)]
hit = depth < 4.5
hit[asked] = False

# %%
# The slope of the distance is the direction of the light's bounce: six more points around each.

p = (eye + depth[:, None] * rays)[hit]
step = 2e-3 * np.eye(3)
normal = np.stack([net(p + s)[:, 0] - net(p - s)[:, 0] for s in step], axis=1)
normal /= np.linalg.norm(normal, axis=1, keepdims=True)

light = np.array([0.3, 0.9, 0.35]) / np.linalg.norm([0.3, 0.9, 0.35])
shade = 0.45 + 0.7 * np.clip(normal @ light, 0, 1)
shine = np.clip(normal @ (light - forward) / np.linalg.norm(light - forward), 0, 1) ** 40
color = shade[:, None] * (0.55 + 0.35 * normal * [1, 0.4, -0.8]) + 0.5 * shine[:, None]
picture = np.zeros((size * size, 4))
picture[hit] = np.column_stack([np.clip(color, 0, 1), np.ones(len(color))])

figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
axes.imshow(picture.reshape(size, size, 4))
axes.set_axis_off()
