"""Tables in notebooks: what `_repr_html_` gives; their text is tested where the tables are made."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

import fastlayer as fl


class Cells(HTMLParser):
    """The texts of the cells by row, and of what is outside; checks that tags are balanced."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.outside, self._open = [], [], []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        assert tag in ("table", "thead", "tbody", "tr", "th", "td", "div")
        # Colours are the notebook's, light or dark.
        assert all(k == "style" and v.startswith("text-align: ") for k, v in attributes)
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1] in ("th", "td"):
            self.rows[-1][-1] += data
        else:
            self.outside.append(data)


def hostile(a):
    return a


hostile.__name__ = "<script>alert('1 & 2')</script>"


@pytest.fixture
def net():
    return fl.Network(
        [fl.Layer(4, 8, "relu"), fl.BatchNorm(8), fl.Layer(8, 3, hostile), "softmax", hostile]
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda net: net.summary(),
        lambda net: net.profile(np.ones((5, 4)), repeat=1),
        lambda net: net.verify(net, np.ones((5, 4))),
        lambda net: net[:2].profile(np.ones((5, 4)), repeat=1),
    ],
    ids=["summary", "profile", "verify", "profile of one program"],
)
def test_notebooks_show_what_is_printed(net, make):
    shown = make(net)
    text, html = str(shown), Cells(shown._repr_html_())
    assert repr(shown) == text
    lines = text.splitlines()
    assert len(html.rows) + len(html.outside) == len(lines) - 1  # without the rule
    for cells, line in zip(
        [*html.rows, *([n] for n in html.outside)], [lines[0], *lines[2:]], strict=True
    ):
        assert "".join(cells).replace(" ", "") == line.replace(" ", "")


def test_names_are_escaped(net):
    html = net.summary()._repr_html_()
    assert "<script" not in html
    assert any(hostile.__name__ in row for row in Cells(html).rows)


def test_numbers_are_aligned_right_under_their_headings(net):
    header, rule, *rows = str(net.summary()).splitlines()
    ends = [header.index(h) + len(h) for h in ("Parameters", "Bytes", "FLOPs/row")]
    assert all(len(row) == len(rule) for row in rows)
    assert all(row[end - 1].isdigit() for row in rows for end in ends)
