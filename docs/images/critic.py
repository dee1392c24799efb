"""Draws critic.svg, a network with branches: `python docs/images/critic.py`."""

from __future__ import annotations

from drawing import CORE, KERNEL, PYTHON, SIDE, WEIGHTS, Drawing

picture = Drawing(
    960,
    300,
    "A critic: a state goes through a layer, an action joins it, and a second layer makes a value",
)
box, arrow = picture.box, picture.arrow

box(20, 60, 130, 56, PYTHON, "state", "8 features")
box(20, 180, 130, 56, PYTHON, "action", "2 features")
picture.frame(190, 20, 560, 260)
box(206, 6, 340, 30, SIDE, "Concat: the same row for both branches")
box(214, 60, 140, 56, SIDE, "Slice(0, 8)", "nothing is copied")
box(214, 180, 140, 56, SIDE, "Slice(8, 10)", "nothing is copied")
box(400, 60, 150, 56, KERNEL, "Layer(8, 64)", "sum, bias, relu")
box(
    596,
    60,
    130,
    176,
    CORE,
    "one row",
    "64 features and 2,",
    "written once,",
    "by the layer and",
    "by the slice",
)
box(790, 20, 150, 100, WEIGHTS, "Layer(66, 1)", "sums over the joined", "features in their order")
box(790, 180, 150, 56, PYTHON, "value", "a NumPy array")
arrow((150, 88), (211, 88))
arrow((150, 208), (211, 208))
arrow((354, 88), (397, 88))
arrow((550, 88), (593, 88))
arrow((354, 208), (593, 208))
arrow((726, 88), (787, 70))
arrow((865, 120), (865, 177))

if __name__ == "__main__":
    picture.write(__file__)
