"""
A scikit-learn pipeline, folded into one network
================================================

A scaler, an encoder of columns and a perceptron, fitted as ever; what serves it is one network on NumPy arrays.
"""

# %%
# Two moons in units that don't fit: metres and kelvin.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastlayer as fl

moons, labels = make_moons(600, noise=0.18, random_state=0)
x = moons * [120.0, 4.0] + [5000.0, 293.0]
names = np.array(["north", "south"])[labels]

pipeline = make_pipeline(
    StandardScaler(), MLPClassifier((32, 32), max_iter=400, alpha=1e-3, random_state=0)
)
pipeline.fit(x, names)

# %%
# One line. The scaler's centre and scale become a part of the network, and what comes out is compared with the pipeline
# on rows that lie where the data lie.

model = fl.from_sklearn(pipeline)
print(model.network.summary())
print(model.network.verification)

# %%
# It answers as the pipeline does: labels from ``predict``, probabilities, a score. scikit-learn is not needed where it
# runs: ``model.network.save("moons.npz")`` there, ``fl.load("moons.npz")`` here.

print(model.predict(x[:4]), model.score(x, names))
assert np.array_equal(model.predict(x), pipeline.predict(x))

# %%
# The probability of "south" over the plane, 160,000 rows in one call:

across, up = np.meshgrid(
    np.linspace(float(x[:, 0].min()) - 40, float(x[:, 0].max()) + 40, 400),
    np.linspace(float(x[:, 1].min()) - 2, float(x[:, 1].max()) + 2, 400),
)
p = model.predict_proba(np.stack([across.ravel(), up.ravel()], axis=1))[:, 1].reshape(400, 400)

figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
shown = axes.pcolormesh(across, up, p, cmap="RdBu_r", vmin=0, vmax=1, rasterized=True)
for name, color in (("north", "navy"), ("south", "darkred")):
    chosen = names == name
    axes.scatter(x[chosen, 0], x[chosen, 1], s=9, color=color, edgecolors="white", linewidths=0.4)
axes.set(xlabel="metres", ylabel="kelvin")
figure.colorbar(shown, label='probability of "south"')
