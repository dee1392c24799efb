"""Draw images/training.svg: the first example of training.md, its losses and its mistakes.

python docs/images/training.py
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from drawing import on_any_ground

import fastlayer as fl

WRONG = 4  # of the digits that are taken for others


def main() -> None:
    with np.load(files("fastlayer") / "data" / "digits.npz") as data:
        images, labels = data["images"], data["labels"]
    x = images.reshape(360, 64) / 16
    net = fl.Network([fl.Layer(64, 32, "relu", rng=0), fl.Layer(32, 10, "softmax", rng=1)])
    rest = (x[300:], labels[300:])
    history = net.fit(
        x[:300], labels[:300], optimizer=fl.Adam(lr=0.01), epochs=30, rng=0, validation=rest
    )
    answers = net(rest[0]).argmax(axis=1)
    wrong = np.flatnonzero(answers != rest[1])[:WRONG]

    on_any_ground()
    mpl.rcParams.update({"svg.hashsalt": "fastlayer", "font.size": 9})
    figure = plt.figure(figsize=(7.2, 2.8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.6, 1])
    axes = left.subplots()
    axes.plot(history.loss, label="the 300 that teach", color="#2a8fb0")
    axes.plot(history.val_loss, label="the 60 that judge", color="#c8553d", linestyle="--")
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross entropy")
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for place, at in zip(right.subplots(2, 2).flat, wrong, strict=True):
        place.imshow(images[300 + at], cmap="gray_r")
        place.set_title(f"{rest[1][at]} taken for {answers[at]}", fontsize=9)
        place.set_axis_off()
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
