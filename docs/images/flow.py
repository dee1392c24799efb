"""Draws flow.svg, the way of a call through fastlayer: `python docs/images/flow.py`.

All text stands on a ground of its own, so the picture reads alike on light and dark pages.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

PYTHON, CORE, KERNEL, WEIGHTS, SIDE = "#1d4e89", "#1b5e4b", "#6b3fa0", "#9c4221", "#4b5563"
LINE = "#8b949e"
WIDTH, HEIGHT = 960, 588

shapes: list[str] = []


def box(x: int, y: int, w: int, h: int, fill: str, title: str, *lines: str) -> None:
    """A filled box: a title, and smaller lines under it."""
    shapes.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="8" fill="{fill}"/>')
    middle, top = x + w / 2, y + h / 2 - 9 * len(lines) + 5
    shapes.append(f'<text class="title" x="{middle:g}" y="{top:g}">{escape(title)}</text>')
    for i, line in enumerate(lines, 1):
        shapes.append(f'<text x="{middle:g}" y="{top + 18 * i:g}">{escape(line)}</text>')


def frame(x: int, y: int, w: int, h: int) -> None:
    shapes.append(
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="12" fill="{LINE}" '
        f'fill-opacity="0.16" stroke="{LINE}"/>'
    )


def arrow(*points: tuple[int, int], dashed: bool = False) -> None:
    path = " ".join(f"{x},{y}" for x, y in points)
    dash = ' stroke-dasharray="6 5"' if dashed else ""
    shapes.append(f'<polyline points="{path}"{dash} marker-end="url(#head)"/>')


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

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #ffffff; text-anchor: middle; }
.title { font-weight: 600; font-size: 14px; }
polyline { fill: none; stroke: #8b949e; stroke-width: 2; }
"""
SVG = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">
<title>A call borrows the array, is planned, and runs block by block through all layers</title>
<style>{STYLE}</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6"
orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>
"""

if __name__ == "__main__":
    file = Path(__file__).with_suffix(".svg")
    file.write_text(SVG + "\n".join(shapes) + "\n</svg>\n", "utf-8")
