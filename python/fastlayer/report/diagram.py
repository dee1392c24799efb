"""What a network shows in a notebook: a box for each layer, from the inputs down to the outputs.

Lines and letters have the colour of the text around, and grounds are a tint of what is behind, so a light page
and a dark one do alike. Names may come from a file: all are escaped, and how much is shown has a bound.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.run.part import Part, Sizes

_LAYERS, _INNER, _BRANCHES, _ENDS = 12, 8, 4, 8  # how many are shown; those in the middle are not
_BOXES, _DEPTH = 120, 4  # inside of others: a part for which there is no room is closed, one box
_LONGEST = 40  # letters of a name

_JOINS = {"add": "+", "multiply": "&#215;", "concat": "concat"}
_DOT = " &#183; "
_LINE = '<div class="fl-line"></div>'
_TO = '<div class="fl-line fl-to"></div>'
_STYLE = """
.fl-net{display:inline-block;max-width:100%;overflow-x:auto;font-size:.9em;line-height:1.4;
--fl-line:color-mix(in srgb,currentColor 45%,transparent)}
.fl-net>.fl-col{width:max-content;min-width:100%}
.fl-net .fl-head{padding-bottom:.8em;text-align:center;white-space:nowrap}
.fl-net .fl-col,.fl-net .fl-arm{display:flex;flex-direction:column;align-items:center}
.fl-net .fl-row{display:flex;justify-content:center;align-items:stretch}
.fl-net .fl-arm{position:relative;padding:0 .5em}
.fl-net .fl-arm::before,.fl-net .fl-arm::after{content:"";position:absolute;left:0;right:0;height:1px;
background:var(--fl-line)}
.fl-net .fl-arm::before{top:0}
.fl-net .fl-arm::after{bottom:0}
.fl-net .fl-arm:first-child::before,.fl-net .fl-arm:first-child::after{left:calc(50% - .5px)}
.fl-net .fl-arm:last-child::before,.fl-net .fl-arm:last-child::after{right:calc(50% - .5px)}
.fl-net .fl-in>.fl-arm::before,.fl-net .fl-out>.fl-arm::after{display:none}
.fl-net .fl-line{flex:1 0 .7em;width:1px;background:var(--fl-line)}
.fl-net .fl-to{position:relative;flex:none;height:1.2em}
.fl-net .fl-to::after{content:"";position:absolute;bottom:0;left:-3.5px;border:solid transparent;
border-width:6px 4px 0;border-top-color:currentColor;opacity:.6}
.fl-net .fl-box{display:grid;grid-template-columns:auto auto;justify-content:space-between;
column-gap:1.8em;min-width:17em;padding:.35em .8em;border:1px solid var(--fl-line);border-radius:6px;
background:rgba(128,128,128,.1);white-space:nowrap}
.fl-net .fl-frame .fl-box{min-width:10em;column-gap:1em}
.fl-net .fl-own{border-color:rgba(58,124,235,.7);background:rgba(58,124,235,.13)}
.fl-net .fl-more{display:block;border-style:dashed;background:none;text-align:center}
.fl-net .fl-end,.fl-net .fl-join{padding:.15em 1em;border:1px solid var(--fl-line);border-radius:1em;
white-space:nowrap}
.fl-net .fl-join{padding:0 .6em}
.fl-net .fl-arm:nth-child(2):last-child:has(>.fl-line:only-child){margin-right:-1em}
.fl-net .fl-frame{padding:.35em 1em .6em;border:1px dashed var(--fl-line);border-radius:8px;
background:rgba(128,128,128,.06)}
.fl-net .fl-size{text-align:right}
.fl-net .fl-dim{opacity:.75}
""".strip()


def diagram(whole: Any) -> str:
    """Return a part that has others inside as HTML, well-formed as XML, without scripts or files."""
    k, n = whole.in_features, whole.out_features
    facts = [_sizes(k, n), _several(whole.num_parameters, "parameter"), str(whole.dtype)]
    facts += getattr(whole, "_traits", ())
    parts = (whole,) if whole._join else whole._inside[0]
    return (
        f'<div class="fl-net"><style>{_STYLE}</style><div class="fl-head">'
        f'<b>{_text(type(whole).__name__)}</b> <span class="fl-dim">{_DOT.join(facts)}</span></div>'
        f'<div class="fl-col">{_inputs(getattr(whole, "_in", None), k)}'
        f"{_Boxes().chain(parts, k)}{_outputs(getattr(whole, '_out', None), n)}</div></div>"
    )


class _Boxes:
    """Draws parts, and what is inside of them as long as there is room."""

    def __init__(self) -> None:
        self._room = _BOXES

    def chain(self, parts: Sequence[Part], width: int | None, depth: int = 0) -> str:
        """Draw parts in a row, the first of which is given `width` features."""
        drawn: list[str] = []
        left_out = _middle(len(parts), _INNER if depth else _LAYERS)
        for i, part in enumerate(parts):
            sizes = part._sizes
            takes = sizes.takes if width is None or sizes.flattens else width
            width = _gives(sizes, width)
            if i not in left_out:
                number = "" if depth else f'<span class="fl-dim">{i}</span> '
                title = f"{number}<b>{_name(part)}</b>"
                drawn.append(_TO + self._part(part, title, takes, width, depth))
            elif i == left_out.start:
                count = sum(p._parameter_count for p in parts[i : left_out.stop])
                drawn.append(_TO + _more(len(left_out), "layer", count))
        return "".join(drawn)

    def _part(
        self, part: Part, title: str, takes: int | None, gives: int | None, depth: int
    ) -> str:
        """Draw one part: a frame around what is inside of it, or a box."""
        inside, sizes, count = part._inside, _sizes(takes, gives), part._parameter_count
        left_out = _middle(len(inside), _BRANCHES)
        branches = [branch for i, branch in enumerate(inside) if i not in left_out]
        needed = sum(max(1, min(len(branch), _INNER)) for branch in branches)
        if inside and depth < _DEPTH and needed <= self._room:
            self._room -= needed
            body = (
                self._branches(part, takes, depth + 1)
                if part._join
                else self.chain(inside[0], takes, depth + 1)
            )
            head = f'<div>{title} <span class="fl-dim">{sizes}</span></div>'
            return f'<div class="fl-frame fl-col">{head}{body}</div>'
        if not inside:
            about = _text("" if part._activation_title == "identity" else part._activation_title)
        elif part._join:
            about = _several(len(inside), "branch")
        else:
            about = _several(len(inside[0]), "layer")
        counted = _several(count, "parameter") if count else ""
        below = f'<div class="fl-dim">{about}</div><div class="fl-dim fl-size">{counted}</div>'
        return (
            f'<div class="fl-box{" fl-own" if count else ""}"><div>{title}</div>'
            f'<div class="fl-size">{sizes}</div>{below if about or counted else ""}</div>'
        )

    def _branches(self, part: Part, takes: int | None, depth: int) -> str:
        """Draw branches beside each other, and where they meet."""
        left_out = _middle(len(part._inside), _BRANCHES)
        arms = []
        for i, branch in enumerate(part._inside):
            if i not in left_out:
                arms.append(self.chain(branch, takes, depth) + _LINE)
            elif i == left_out.start:
                inner = [p for b in part._inside[i : left_out.stop] for p in b]
                count = sum(p._parameter_count for p in inner)
                arms.append(_TO + _more(len(left_out), "branch", count) + _LINE)
        return f'{_LINE}{_row(arms)}{_TO}<div class="fl-join">{_JOINS[part._join]}</div>'


def _inputs(ends: Any, features: int | None) -> str:
    return _row([end + _LINE for end in _ends(ends, features)], "fl-in")


def _outputs(ends: Any, features: int | None) -> str:
    return _LINE + _row([_TO + end for end in _ends(ends, features)], "fl-out")


def _ends(ends: Any, features: int | None) -> list[str]:
    """Draw inputs or outputs, `ends` of a network or None; without names they are one row."""
    if not (ends and ends.names):
        return [_end(_several(features, "feature") if features else "features")]
    left_out = _middle(len(ends.names), _ENDS)
    classes = ends.classes or (None,) * len(ends.names)
    drawn = []
    for i, (name, width, labels) in enumerate(zip(ends.names, ends.widths, classes, strict=True)):
        if i not in left_out:
            size = f"label of {width:,}" if labels else f"{width:,}" if width else ""
            drawn.append(_end(f'<b>{_text(name)}</b> <span class="fl-dim">{size}</span>'))
        elif i == left_out.start:
            drawn.append(_end(f"... {len(left_out):,} more"))
    return drawn


def _end(inner: str) -> str:
    return f'<div class="fl-end">{inner}</div>'


def _row(arms: Sequence[str], kind: str = "") -> str:
    drawn = "".join(f'<div class="fl-arm">{arm}</div>' for arm in arms)
    return f'<div class="fl-row {kind}">{drawn}</div>'


def _more(n: int, noun: str, parameters: int) -> str:
    told = f", {_several(parameters, 'parameter')}" if parameters else ""
    return f'<div class="fl-box fl-more">... {_several(n, f"more {noun}")}{told}</div>'


def _middle(n: int, most: int) -> range:
    """Return the numbers of those that are left out of `n`, where more than `most` are."""
    return range(most // 2, n - most // 2) if n > most else range(0)


def _gives(sizes: Sizes, width: int | None) -> int | None:
    """Return the features that a part gives of so many."""
    if sizes.flattens and sizes.out_features is None:
        return width  # in front, where the network knows what comes of it
    return sizes.out_features if width is None else sizes.given(width)


def _name(part: Part) -> str:
    """Return what a part is called; its sizes stand beside it."""
    named = part._inside or part._sizes.dtype is not None or part._sizes.flattens
    return _text(type(part).__name__ if named else part._title())


def _sizes(k: int | None, n: int | None) -> str:
    return f"{'?' if k is None else f'{k:,}'} &#8594; {'?' if n is None else f'{n:,}'}"


def _several(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 'es' if noun.endswith('ch') else 's'}"


def _text(given: object) -> str:
    """Return a name of anybody's: on one line, no longer than others, and nothing but text."""
    letters = "".join(c if c.isprintable() else "\ufffd" for c in str(given)[: _LONGEST + 1])
    return escape(letters if len(letters) <= _LONGEST else letters[: _LONGEST - 1] + "\u2026")
