"""
A PyTorch policy steers with NumPy alone
========================================

A policy learns in PyTorch to swing a pendulum up and hold it; on the robot there is no PyTorch, and one row a step.
"""

# %%
# The policy looks at the angle, as cosine and sine, and the speed, and gives a torque from -2 to 2.

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import fastlayer as fl

torch.manual_seed(0)
rng = np.random.default_rng(0)


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.torque = nn.Linear(64, 1)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return 2 * torch.tanh(self.torque(self.body(state)))


# %%
# It learns from a controller that knows more than the three numbers: the energy of the rod, of 1 m and 1 kg, whose angle
# is counted from upright. The torque is too weak to lift the rod at once: it has to swing, and then to be held.


def controller(angle: np.ndarray, speed: np.ndarray) -> np.ndarray:
    energy = speed**2 / 2 + 15 * (np.cos(angle) - 1)  # 0 where the rod stands still, upright
    swing = -2 * np.sign(speed) * np.tanh(energy)
    hold = np.clip(-12 * np.sin(angle) - 3.5 * speed, -2, 2)
    torque: np.ndarray = np.where((np.cos(angle) > 0.95) & (abs(speed) < 1.5), hold, swing)
    return torque


def features(angle: np.ndarray | float, speed: np.ndarray | float) -> np.ndarray:
    state: np.ndarray = np.stack([np.cos(angle), np.sin(angle), speed / 8], axis=-1)
    return state.astype(np.float32)


near = rng.random(20_000) < 0.5  # half of what it sees is close to upright
angles = np.where(near, rng.normal(0, 0.3, 20_000), rng.uniform(-np.pi, np.pi, 20_000))
speeds = np.where(near, rng.normal(0, 1.5, 20_000), rng.uniform(-8, 8, 20_000))
states = torch.from_numpy(features(angles, speeds))
torques = torch.from_numpy(controller(angles, speeds).astype(np.float32)[:, None])

policy = Policy()
optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
for _ in range(1500):
    some = torch.randint(20_000, (256,))
    loss = nn.functional.mse_loss(policy(states[some]), torques[some])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()

# %%
# One line takes it out of PyTorch, ``2 * tanh`` included, and compares the two. What is saved is read with NumPy as the
# only dependency.

net = fl.from_torch(policy.eval())
print(net.verification)
net.save("policy.npz")
steer = fl.load("policy.npz")

# %%
# On the robot: one state in, one torque out, into an array that is made once. 0.05 s a step, from hanging.


def run(act: Callable[[np.ndarray], Any], steps: int = 160) -> np.ndarray:
    angle, speed = np.pi, 0.5
    found: list[tuple[float, float]] = []
    for _ in range(steps):
        torque = float(act(features(angle, speed)))
        speed = float(np.clip(speed + 0.05 * (15 * np.sin(angle) + 3 * torque), -8, 8))
        angle += 0.05 * speed
        found.append((angle, torque))
    return np.array(found).T


out = np.empty(1, np.float32)
angle, torque = run(lambda state: steer(state, out=out)[0])
with torch.no_grad():
    angle_torch, _ = run(lambda state: policy(torch.from_numpy(state)))
assert np.cos(angle[-1]) > 0.99

# %%
# The two drive the same way; what lies between them is rounding.

time = 0.05 * np.arange(1, 161)
figure, (above, below) = plt.subplots(
    2, 1, figsize=(8, 4.6), sharex=True, layout="constrained", height_ratios=[2, 1]
)
above.plot(time, np.cos(angle), label="fastlayer", linewidth=5, alpha=0.4)
above.plot(time, np.cos(angle_torch), label="PyTorch", linewidth=1, color="tab:red")
above.set(ylabel="height of the tip, m", ylim=(-1.1, 1.1))
above.legend(frameon=False, loc="lower right")
below.step(time, torque)
below.set(ylabel="torque, N m", xlabel="seconds")
print(f"largest difference of the angles: {abs(angle - angle_torch).max():.1e}")
