"""Sizes that no input fits are refused when a network is made, and what some input fits is not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastlayer as fl


def layer(k, n):
    return fl.Layer.from_arrays(np.ones((n, k), np.float32))


def joins(*branches):
    return [fl.Add([*branches]), fl.Multiply([*branches])]


NEVER = [
    [layer(3, 5), fl.Flatten(), layer(4, 2)],
    [layer(3, 5), fl.Flatten(), layer(12, 2)],
    [layer(3, 5), "relu", fl.Flatten(), "tanh", layer(4, 2)],
    [layer(3, 5), fl.Flatten(), fl.Flatten(), layer(4, 2)],
    [layer(3, 5), fl.Network([fl.Flatten()]), layer(4, 2)],
    [fl.Network([layer(3, 5), fl.Flatten()]), layer(4, 2)],
    [layer(3, 5), fl.Flatten(), fl.BatchNorm(7)],
    [layer(3, 5), fl.Flatten(), fl.Activation("prelu", weight=np.ones(7))],
    [fl.LayerNorm(5), fl.Flatten(), layer(4, 2)],
    [layer(3, 5), fl.Slice(0, 7)],
    [layer(3, 5), fl.Network(["relu", fl.Slice(0, 7)])],
    [fl.Network([layer(3, 5)]), fl.Slice(6, 7), layer(1, 2)],
    [layer(3, 5), fl.Concat([[], fl.Slice(0, 7)])],
    [layer(3, 5), fl.Residual(fl.Slice(0, 2))],
    *([layer(3, 5), join] for join in joins(fl.Slice(0, 2), [])),
    *([layer(3, 5), join] for join in joins("relu", fl.Slice(0, 1))),
]
RUNS = [
    [layer(3, 5), fl.Flatten(), layer(5, 2)],
    [layer(3, 5), fl.Flatten(), layer(20, 2)],
    [layer(3, 5), fl.Network([fl.Flatten()]), layer(10, 2)],
    [layer(3, 5), fl.Flatten(), fl.Slice(0, 7), layer(7, 2)],
    [fl.Flatten(), layer(12, 2)],
    [fl.Slice(0, 2), fl.Flatten(), layer(4, 2)],
    [layer(3, 5), lambda x: x[:, :4], layer(4, 2)],
    [layer(3, 5), fl.Flatten(), lambda x: x[:, :4], layer(4, 2)],
    [layer(3, 5), fl.Slice(0, 5)],
    [layer(3, 5), fl.Residual(fl.Slice(0, 5))],
    [layer(3, 5), fl.Concat([[], fl.Slice(0, 2)]), layer(7, 1)],
    [layer(3, 5), fl.Add([fl.Slice(0, 5), "relu"])],
    [layer(3, 5), fl.Multiply([fl.Slice(0, 1), fl.Slice(4, 5)])],
    [fl.Residual(fl.Slice(0, 3)), fl.Residual("relu"), fl.Residual(lambda x: 2 * x)],
    [fl.Slice(0, 3), layer(3, 5), fl.Slice(0, 5)],
]


def runs(net):
    """Whether it takes any array of up to three axes and no more than 12 features."""
    for axes in range(3):
        for shape in itertools.product(range(1, 13), repeat=axes):
            try:
                net(np.ones((2, *shape), np.float32)[..., :12])
            except ValueError:
                continue
            return True
    return False


@pytest.mark.parametrize("layers", NEVER, ids=str)
def test_what_no_input_fits(layers):
    with pytest.raises(ValueError, match=r"takes|gives"):
        fl.Network(layers)


@pytest.mark.parametrize("layers", RUNS, ids=str)
def test_what_some_input_fits(layers):
    assert runs(fl.Network(layers))


PARTS = [
    lambda: layer(3, 4),
    lambda: layer(4, 3),
    lambda: layer(6, 3),
    lambda: fl.Slice(1, 3),
    lambda: fl.Slice(0, 4),
    lambda: fl.Residual(fl.Slice(0, 3)),
    lambda: fl.Concat([[], fl.Slice(0, 1)]),
    lambda: fl.Network([fl.Flatten(), "relu"]),
    lambda: fl.Flatten(),
]


@pytest.mark.parametrize("first", range(len(PARTS)))
def test_three_parts(first):
    """What is refused never runs, checked with networks of one part each, one after the other."""
    refused = 0
    for others in itertools.product(PARTS, repeat=2):
        parts = [make() for make in (PARTS[first], *others)]
        try:
            fl.Network(parts)
        except ValueError:
            refused += 1
            a, b, c = (fl.Network([part]) for part in parts)
            assert not runs(lambda x, a=a, b=b, c=c: c(b(a(x)))), parts
    assert refused
