"""The lines of NumPy that `python -m fastlayer bench` races: they compute what the network does."""

from __future__ import annotations

import numpy as np
import pytest

import fastlayer as fl
from fastlayer.cli.plain import _LINES, NotPlain, numpy_forward
from fastlayer.convert._prove import prove

CONFIGURED = {
    "prelu": {"weight": np.linspace(-1, 1, 16)},
    "gelu": {"approximate": "tanh"},
    "leaky_relu": {"negative_slope": 0.3},
    "celu": {"alpha": 0.5},
    "elu": {"alpha": 2.0},
    "hardtanh": {"min_val": -0.3, "max_val": 0.6},
    "softplus": {"beta": 2.0, "threshold": 10.0},
    "threshold": {"threshold": 0.5, "value": -1.0},
}


def check(net):
    reference = numpy_forward(net)
    x = np.random.default_rng(0).standard_normal((5, net.in_features)).astype(net.dtype)
    assert reference(x).dtype == net.dtype
    assert reference(x).shape == net(x).shape
    prove(net, reference, source="NumPy")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", _LINES)
def test_every_activation(name, dtype):
    activation = fl.Activation(name, **CONFIGURED.get(name, {}))
    check(fl.Network([fl.Layer(7, 16, rng=0, dtype=dtype), activation]))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_every_part(rng, dtype):
    def arrays(*names):
        return {name: rng.uniform(0.5, 2, 12) for name in names}

    check(
        fl.Network(
            [
                fl.Layer(7, 12, "relu", rng=0, dtype=dtype),
                fl.BatchNorm(12, dtype=dtype, **arrays("weight", "running_mean", "running_var")),
                fl.Residual(fl.Layer(12, 12, "tanh", bias=False, rng=1, dtype=dtype)),
                fl.LayerNorm(12, dtype=dtype, **arrays("weight", "bias")),
                fl.Network([fl.Layer(12, 12, rng=2, dtype=dtype), "sigmoid"]),
                fl.RMSNorm(12, dtype=dtype, **arrays("weight")),
                fl.Flatten(),
                fl.Layer(12, 3, np.cos, rng=3, dtype=dtype),
            ]
        )
    )


def test_what_numpy_lacks_is_named(monkeypatch):
    with pytest.raises(NotPlain, match="NumPy has no erf, which gelu needs"):
        numpy_forward(fl.Layer(4, 3, "gelu"))
    monkeypatch.delitem(_LINES, "mish")
    with pytest.raises(NotPlain, match="no usual line of NumPy for mish"):
        numpy_forward(fl.Layer(4, 3, "mish"))
