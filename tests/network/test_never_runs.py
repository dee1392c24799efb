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
    [layer(4, 3), fl.Concat([[], []]), layer(5, 2)],
    [layer(4, 3), "tanh", fl.Network([fl.Concat(["relu", fl.Slice(0, 1)])]), layer(3, 2)],
    [layer(4, 3), fl.Concat([[], fl.Concat([[], []])]), fl.Slice(0, 10)],
    [fl.Concat([[], fl.Slice(0, 1)]), layer(1, 2)],
    [fl.Concat([[], []]), layer(3, 2)],
    [fl.Concat([[], []]), "relu", fl.Concat([[], fl.Slice(3, 4)]), layer(4, 2)],
    [layer(4, 3), fl.Concat([[], []]), fl.Flatten(), layer(9, 2)],
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
    [layer(4, 3), fl.Concat([[], []]), layer(6, 2)],
    [fl.Concat([[], []]), "relu", fl.Concat([[], fl.Slice(3, 4)]), layer(5, 2)],
    [fl.Flatten(), fl.Concat([[], fl.Slice(0, 1)]), layer(5, 2)],
    [fl.Residual(fl.Concat([[]]))],
    [fl.Add([fl.Concat([[], []]), fl.Concat(["relu", fl.Slice(0, 3)])]), layer(6, 1)],
]
# Parts that never fit their own, and networks that never have so many inputs and outputs.
NEVER_MADE = {
    "a sum of one and two": lambda: fl.Add([[], fl.Concat([[], []])]),
    "a sum of one and one more": lambda: fl.Add([[], fl.Concat([[], fl.Slice(0, 1)])]),
    "a product of half": lambda: fl.Multiply([fl.Slice(0, 3), fl.Concat([[], []])]),
    "twice beside once": lambda: fl.Residual(fl.Concat([[], []])),
    "inputs and outputs": lambda: fl.Network([fl.Concat([[]])], inputs=[1, 2], outputs=[2, 2]),
    "an odd output": lambda: fl.Network([fl.Concat([[], []])], outputs=[5]),
    "a slice of inputs": lambda: fl.Network([fl.Slice(0, 5)], inputs=[3]),
    "slices of inputs": lambda: fl.Network(
        [fl.Concat([fl.Slice(0, 1), fl.Slice(2, 3)])], inputs=[2]
    ),
    "a sum of inputs": lambda: fl.Network([fl.Add([[], fl.Slice(0, 3)])], inputs=[2]),
}


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


@pytest.mark.parametrize("name", NEVER_MADE)
def test_ends_and_branches_that_no_input_fits(name):
    with pytest.raises(ValueError, match=r"takes|give|features"):
        NEVER_MADE[name]()


def test_several_ends_that_fit():
    net = fl.Network([fl.Concat([[], fl.Slice(0, 1)])], inputs=[1, 2], outputs=[2, 2])
    assert net.out_features == 4
    first, second = net([1.0], [2.0, 3.0])
    assert [*first, *second] == [1, 2, 3, 1]


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
    lambda: fl.Concat([[], []]),
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
