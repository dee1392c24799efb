"""200 random networks have the bits that they had when network_digests.txt was written.

The file changes only with the contract of docs/numerics.md. To write it anew:
``PYTHONPATH=tests/support python tests/numerics/test_digest.py > tests/numerics/network_digests.txt``.
"""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import numbers

import fastlayer as fl

COUNT = 200
WRITTEN = Path(__file__).with_name("network_digests.txt")
ACTIVATIONS = [
    *("identity", "relu", "leaky_relu", "relu6", "hardtanh", "hardsigmoid", "hardswish"),
    *("softsign", "exp", "tanh", "sigmoid", "log_sigmoid", "silu", "softplus", "elu", "selu"),
    *("celu", "gelu", "mish", "softmax", "log_softmax"),
    fl.Activation("gelu", approximate="tanh"),
]
WIDTHS = [1, 2, 3, 5, 8, 10, 15, 16, 17, 31, 32, 33, 50, 64, 100, 128, 200, 255, 256, 257, 512, 700]


def one(seed):
    """The digest of network `seed`: its result, and that of its first layer on plain arrays."""
    rng = np.random.RandomState(seed)
    dtype = [np.float32, np.float64][seed % 2]
    sizes = [WIDTHS[i] for i in rng.randint(len(WIDTHS), size=rng.randint(2, 6))]
    batch = [1, 2, 3, 7, 16, 33, 67, 130][rng.randint(8)]
    spread = [0.25, 1.0, 4.0, 16.0][rng.randint(4)]
    parts = []
    for k, n in pairwise(sizes):
        weight = numbers(rng, (n, k), dtype, 1 / np.sqrt(k))
        bias = numbers(rng, n, dtype, 0.25)
        parts.append(fl.Layer.from_arrays(weight, bias, ACTIVATIONS[rng.randint(len(ACTIVATIONS))]))
    x = numbers(rng, (batch, sizes[0]), dtype, spread)
    with np.errstate(all="ignore"):
        results = fl.Network(parts)(x), fl.linear(x, parts[0].weight, parts[0].bias)
    digest = hashlib.sha256()
    for y in results:
        y = np.where(np.isnan(y), dtype(0), y)  # the sign of a NaN is nobody's promise
        digest.update(np.ascontiguousarray(y, y.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("first", range(0, COUNT, 20))
def test_networks_have_the_bits_that_were_written(first):
    written = WRITTEN.read_text().split()
    assert len(written) == COUNT
    assert [one(i) for i in range(first, first + 20)] == written[first : first + 20]


if __name__ == "__main__":
    print("\n".join(one(i) for i in range(COUNT)))
