"""The results on file, and the mutants of the tree that they are about.

A mutant's name depends on its file. Where a file has moved, a record is about the mutant that
changes the same text in the same way; where the text is gone, the record is outdated.
"""

from __future__ import annotations

import collections
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from mutants import Mutant

RESULTS = pathlib.Path(__file__).with_name("results.jsonl")


def fields(mutant: Mutant) -> dict[str, object]:
    names = ("id", "file", "line", "operator", "before", "after")
    return {name: getattr(mutant, name) for name in names}


def append(row: dict[str, Any]) -> None:
    with RESULTS.open("a") as log:
        log.write(json.dumps(row) + "\n")


def write(rows: Iterable[dict[str, Any]]) -> None:
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _change(group: str, row: dict[str, Any]) -> tuple[str, ...]:
    return (group, row["operator"], row["before"], row["after"])


def _word(file: str) -> str:
    return pathlib.PurePath(file).name.split(".")[0].strip("_")


def found_again(
    rows: Iterable[dict[str, Any]], present: Iterable[tuple[str, Mutant]]
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Rows by the name of the mutant in the tree, with its place there; and the outdated ones.

    `present` has the mutants of the tree with their groups.
    """
    here = {mutant.id: mutant for _, mutant in present}
    groups = {mutant.id: group for group, mutant in present}
    by_change: dict[tuple[str, ...], list[Mutant]] = collections.defaultdict(list)
    for mutant in here.values():
        by_change[_change(groups[mutant.id], fields(mutant))].append(mutant)

    latest = {row["id"]: row for row in rows}
    matched = {name: {**row, **fields(here[name])} for name, row in latest.items() if name in here}
    outdated = []
    for name, row in latest.items():
        if name in here:
            continue
        twins = [m for m in by_change[_change(row["group"], row)] if m.id not in matched]
        # Of several, the one in a file of that name, as when _norms.py became network/norms.py.
        twins.sort(key=lambda mutant: _word(mutant.file) != _word(row["file"]))
        if twins:
            matched[twins[0].id] = {**row, **fields(twins[0])}
        else:
            outdated.append(row)
    return matched, outdated


def stored() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]
