"""Tables: aligned text on a terminal, HTML in a notebook."""

from __future__ import annotations

from html import escape
from typing import NamedTuple


class Table(NamedTuple):
    """Cells of text, with what is needed to show them."""

    header: list[str]
    rows: list[list[str]]
    left: int  # columns aligned to the left; the others are numbers
    total: bool = False  # whether the last row is about all others
    notes: tuple[str, ...] = ()  # lines below

    def text(self) -> str:
        """Return aligned columns, lines without trailing spaces."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        rule = ["-" * w for w in widths]
        lines = []
        for row in (self.header, rule, *self.rows):
            cells = [
                cell.ljust(w) if i < self.left else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *self.notes])

    def html(self) -> str:
        """Return the same as HTML, in whatever colours the page has."""
        last = len(self.rows) - 1
        body = "".join(
            self._row(row, "th" if self.total and i == last else "td")
            for i, row in enumerate(self.rows)
        )
        notes = "".join(f"<div>{escape(note)}</div>" for note in self.notes)
        head = self._row(self.header, "th")
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{notes}"

    def _row(self, row: list[str], tag: str) -> str:
        cells = (
            f'<{tag} style="text-align: {"left" if i < self.left else "right"}">{escape(cell)}</{tag}>'
            for i, cell in enumerate(row)
        )
        return f"<tr>{''.join(cells)}</tr>"


class Shown:
    """Base of what is shown as a table: printed, and in notebooks."""

    def _table(self) -> Table:
        raise NotImplementedError

    def __str__(self) -> str:
        return self._table().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table().html()
