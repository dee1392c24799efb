"""Boxes, frames and arrows as SVG, for the scripts beside it.

All text stands on a ground of its own, so the pictures read alike on light and dark pages.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

PYTHON, CORE, KERNEL, WEIGHTS, SIDE = "#1d4e89", "#1b5e4b", "#6b3fa0", "#9c4221", "#4b5563"
LINE = "#8b949e"
INK = "#7a828c"
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #ffffff; text-anchor: middle; }
.title { font-weight: 600; font-size: 14px; }
polyline { fill: none; stroke: #8b949e; stroke-width: 2; }
"""


def on_any_ground() -> None:
    """Have matplotlib leave the ground to the page, and write in a grey that is legible on all."""
    from matplotlib import rcParams

    for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"):
        rcParams[name] = INK
    for name in ("figure", "axes", "savefig", "legend"):
        rcParams[f"{name}.facecolor"] = "none"


class Drawing:
    """A picture of so many pixels; `title` is what it says to those who can't see it."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size, self.title = (width, height), title
        self.shapes: list[str] = []

    def box(self, x: int, y: int, w: int, h: int, fill: str, title: str, *lines: str) -> None:
        """A filled box: a title, and smaller lines under it."""
        self.shapes.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="8" fill="{fill}"/>')
        middle, top = x + w / 2, y + h / 2 - 9 * len(lines) + 5
        self.shapes.append(f'<text class="title" x="{middle:g}" y="{top:g}">{escape(title)}</text>')
        for i, line in enumerate(lines, 1):
            self.shapes.append(f'<text x="{middle:g}" y="{top + 18 * i:g}">{escape(line)}</text>')

    def frame(self, x: int, y: int, w: int, h: int) -> None:
        """A pale ground with a border."""
        self.shapes.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="12" fill="{LINE}" '
            f'fill-opacity="0.16" stroke="{LINE}"/>'
        )

    def arrow(self, *points: tuple[int, int], dashed: bool = False) -> None:
        """A line through points, with a head at the last."""
        path = " ".join(f"{x},{y}" for x, y in points)
        dash = ' stroke-dasharray="6 5"' if dashed else ""
        self.shapes.append(f'<polyline points="{path}"{dash} marker-end="url(#head)"/>')

    def write(self, script: str) -> None:
        """Write the picture beside the script that drew it, under the same name."""
        width, height = self.size
        head = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>{escape(self.title)}</title>
<style>{STYLE}</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6"
orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>
"""
        file = Path(script).with_suffix(".svg")
        file.write_text(head + "\n".join(self.shapes) + "\n</svg>\n", "utf-8")
