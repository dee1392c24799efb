"""
The same bits on every worker of a cluster
==========================================

A row's result depends on that row and the weights alone: not on how a cluster cuts the rows, nor on its processors.
"""

# %%
# 2,000 rows through a network of three layers. In NumPy the same lines are three products.

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from dask import array as da
from dask.distributed import Client, LocalCluster

import fastlayer as fl

net = fl.Network(
    [
        fl.Layer(300, 200, "tanh", rng=0),
        fl.Layer(200, 100, "tanh", rng=1),
        fl.Layer(100, 8, "sigmoid", rng=2),
    ]
)
x = np.random.default_rng(3).normal(size=(2000, 300)).astype(np.float32)
whole = net(x)


def numpy_net(x: np.ndarray) -> np.ndarray:
    h = np.tanh(x @ net[0].weight.T + net[0].bias)
    h = np.tanh(h @ net[1].weight.T + net[1].bias)
    y: np.ndarray = 1 / (1 + np.exp(-(h @ net[2].weight.T + net[2].bias)))
    return y


# %%
# Two workers, and three ways to cut the rows. Each gives the bits of one call on one machine.

if __name__ == "__main__":
    workers = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**workers) as cluster, Client(cluster):
        for rows in (50, 333, (1, 1999)):
            y = fl.dask.predict(net, da.from_array(x, chunks=(rows, 300))).compute()
            print(f"blocks of {rows}: {np.array_equal(y, whole)}")
            assert np.array_equal(y, whole)

# %%
# What is special about that? Take the first 48 rows and ask for them alone, in twos, ... up to all at once, and compare
# with the call on all 2,000. Libraries choose their kernel by the shape that they are given, and with it the order in
# which a sum is rounded.

sizes = [1, 2, 3, 4, 6, 8, 12, 16, 24, 48]


def differing(f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The share of each row's outputs that differ, for each size of a batch."""
    reference = f(x)[:48]
    found: list[np.ndarray] = []
    for size in sizes:
        y = np.concatenate([f(x[i : i + size]) for i in range(0, 48, size)])
        found.append((y != reference).mean(axis=1))
    return np.array(found)


shares = {"NumPy": differing(numpy_net), "fastlayer": differing(net)}
assert not shares["fastlayer"].any()

figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
for axes, (name, share) in zip(panels, shares.items(), strict=True):
    axes.imshow(share, aspect="auto", cmap="Reds", vmin=0, vmax=1)
    axes.set_yticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set(title=f"{name}: {np.count_nonzero(share)} of {share.size} rows differ", xlabel="row")
panels[0].set_ylabel("rows in a batch")
figure.colorbar(panels[0].images[0], ax=panels, label="share of the 8 outputs")
