"""What the mutation run found, as a table and a list of survivors with their explanations."""

from __future__ import annotations

import collections
import json
import pathlib
import xml.etree.ElementTree as ET

from mutants import Mutant

EXPLANATIONS = pathlib.Path(__file__).with_name("explanations.json")


def fields(mutant: Mutant) -> dict[str, object]:
    return {
        name: getattr(mutant, name)
        for name in ("id", "file", "line", "operator", "before", "after")
    }


def column(rows: list[list[Mutant]], number: int) -> list[Mutant]:
    return [row[number] for row in rows if number < len(row)]


def first_failure(log: pathlib.Path) -> str:
    """The first failed test of a pytest run, without its parameters."""
    try:
        cases = ET.parse(log).getroot().iter("testcase")
    except ET.ParseError:
        return "pytest"
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            file = (case.get("classname") or "").replace(".", "/")
            return f"{file}.py::{(case.get('name') or '').split('[')[0]}" if file else "pytest"
    return "pytest"


def explanations() -> dict[str, str]:
    return json.loads(EXPLANATIONS.read_text()) if EXPLANATIONS.exists() else {}


def markdown(rows: list[dict[str, object]]) -> str:
    known = explanations()
    groups = collections.defaultdict(collections.Counter)
    for row in rows:
        status = row["status"]
        if status == "survived":
            status = "explained" if row["id"] in known else "unexplained"
        groups[row["group"]][status] += 1
        groups["all"][status] += 1
    lines = [
        "| part | mutants | found by a test | survived, explained | survived, unexplained | found |",
        "|---|---|---|---|---|---|",
    ]
    for group in ("kernels", "core", "bindings", "python", "all"):
        count = groups[group]
        counted = [count[status] for status in ("found", "explained", "unexplained")]
        total = sum(counted)
        share = f"{100 * counted[0] / total:.1f} %" if total else ""
        lines.append(
            f"| {group} | {total} | {counted[0]} | {counted[1]} | {counted[2]} | {share} |"
        )
    both = groups["all"]
    lines += [
        "",
        f"Left out: {both['not compiled']} that do not compile, {both['same code']} that "
        "compile to the same code.",
    ]
    lines += ["", "| place | before | after | why no test finds it |", "|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["group"], row["file"], row["line"])):
        if row["status"] == "survived":
            before, after = (str(row[key]).replace("|", "\\|") for key in ("before", "after"))
            reason = known.get(row["id"], "**unexplained**")
            lines.append(f"| {row['file']}:{row['line']} | `{before}` | `{after}` | {reason} |")
    return "\n".join(lines)
