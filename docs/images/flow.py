"""Draws flow.svg, the way of a call through fastlayer: `python docs/images/flow.py`."""

from __future__ import annotations

from drawing import CORE, KERNEL, PYTHON, SIDE, WEIGHTS, Drawing

picture = Drawing(
    960, 588, "A call borrows the array, is planned, and runs block by block through all layers"
)
box, frame, arrow = picture.box, picture.frame, picture.arrow


def thread(y: int, name: str, rows: str) -> None:
    """One thread: a block of rows through all layers."""
    box(40, y, 130, 56, CORE, name, rows)
    for i, layer in enumerate(("layer 1", "layer 2", "layer 3")):
        x = 216 + 196 * i
        box(x, y, 150, 56, KERNEL, layer, "sum, bias, activation")
        arrow((x - 46, y + 28), (x - 3, y + 28))
    arrow((758, y + 28), (805, y + 28))


box(20, 24, 150, 64, PYTHON, "net(x)", "a NumPy array")
box(216, 24, 196, 64, PYTHON, "bindings", "borrow x, allocate y")
box(458, 24, 220, 64, CORE, "plan", "blocks of rows, threads")
box(724, 24, 216, 64, CORE, "one invitation", "to the team of threads")
arrow((170, 56), (213, 56))
arrow((412, 56), (455, 56))
arrow((678, 56), (721, 56))

box(206, 120, 216, 60, SIDE, "“not mine”", "Python converts, or explains")
arrow((290, 88), (290, 117), dashed=True)
arrow((338, 120), (338, 91), dashed=True)

frame(20, 232, 758, 200)
box(216, 216, 480, 32, SIDE, "what lies between the layers stays in each core's L2 cache")
arrow((832, 88), (832, 200), (105, 200), (105, 261))
thread(264, "thread 1", "a block of rows")
thread(356, "thread 2", "the next block")

box(808, 264, 132, 148, PYTHON, "y", "a NumPy array,", "stored once, by", "the last layer")

box(20, 496, 150, 72, PYTHON, "Layer(W, b)", "once, when made")
box(
    216,
    496,
    542,
    72,
    WEIGHTS,
    "packed panels",
    "a line of biases, then a line of weights for each input:",
    "the order in which the kernels read",
)
arrow((170, 532), (213, 532))
for x in (291, 487, 683):
    arrow((x, 496), (x, 415))

if __name__ == "__main__":
    picture.write(__file__)
