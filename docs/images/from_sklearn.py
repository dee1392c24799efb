"""Draw images/from_sklearn.svg: loss curves of fastlayer.sklearn on those of scikit-learn.

python docs/images/from_sklearn.py
"""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from drawing import on_any_ground
from sklearn import datasets, neural_network
from sklearn.preprocessing import StandardScaler

import fastlayer.sklearn

SHOWN = {
    "digits": ("MLPClassifier", {}),
    "breast_cancer": ("MLPClassifier", {"solver": "sgd", "learning_rate_init": 0.01}),
    "diabetes": ("MLPRegressor", {"learning_rate_init": 0.01, "activation": "tanh"}),
}
EPOCHS = 100
APART = 1e-12  # relative; measured: 4e-15 at most


def curves(name: str, kind: str, options: dict) -> list[list[float]]:
    """The losses of scikit-learn and of fastlayer."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    y = y / y.std() if kind == "MLPRegressor" else y
    found = []
    for library in (neural_network, fastlayer.sklearn):
        model = getattr(library, kind)(random_state=0, max_iter=EPOCHS, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it did not converge
            found.append(model.fit(x, y).loss_curve_)
    return found


def main() -> None:
    on_any_ground()
    mpl.rcParams.update({"svg.hashsalt": "fastlayer", "font.size": 9})
    figure, places = plt.subplots(1, 3, figsize=(7.2, 2.6), layout="constrained")
    for place, (name, (kind, options)) in zip(places, SHOWN.items(), strict=True):
        theirs, ours = curves(name, kind, options)
        apart = np.max(np.abs(np.subtract(theirs, ours) / theirs))
        place.plot(theirs, color="#e9c46a", linewidth=5, label="scikit-learn")
        place.plot(ours, color="#2f7fc1", linewidth=1.2, label="fastlayer")
        place.set_yscale("log")
        place.set_title(name.replace("_", " "), fontsize=9)
        if apart > APART:
            raise SystemExit(f"{name}: the losses differ by {apart}")
        place.set_xlabel("epoch")
        for side in ("top", "right"):
            place.spines[side].set_visible(False)
    places[0].set_ylabel("loss")
    places[0].legend(frameon=False, fontsize=8)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
