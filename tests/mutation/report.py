"""What the mutation run found, as the page docs/mutation.md."""

from __future__ import annotations

import collections
import pathlib
import xml.etree.ElementTree as ET
from typing import Any

PAGE = """# Mutation tests: whether the tests can fail

`tests/mutation` changes the sources by one small fault at a time (`<` for `<=`, one more or one less,
a flipped bit of a mask, swapped operands, the wrong stride, a dropped statement, a negated condition)
and runs the tests until one fails. Which faults are tried follows from a seed and the lines themselves.

```sh
tests/mutation/coverage.sh /tmp/coverage           # which Python tests run which lines
python tests/mutation/run.py run --scratch /tmp/mutation --seconds 60 \\
  --coverage /tmp/coverage/coverage.data --junit /tmp/coverage/junit
python tests/mutation/run.py report > docs/mutation.md
```

A C++ mutant is compiled at -O1 and meets the C++ tests first, then pytest; of the instruction sets, AVX2
and scalar are compiled, and AVX-512 for faults of its own vector type. A Python mutant meets the tests
that run its line. Mutants that do not compile, or that compile to the same machine code, do not count.
CI repeats a dozen found ones (`run.py again`). The results are in `tests/mutation/results.jsonl`, with
the explanations. Where code moves, a result goes with the text that was changed; where the text is gone
the result does not count, and `run.py run` tries others.
"""


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


def table(rows: list[dict[str, Any]]) -> list[str]:
    groups: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for row in rows:
        status = row["status"]
        if status == "survived":
            status = "explained" if "why" in row else "unexplained"
        groups[row["group"]][status] += 1
        groups["all"][status] += 1
    lines = [
        "| part | mutants | found by a test | survived, explained | survived, not explained |",
        "|---|---|---|---|---|",
    ]
    for group in ("kernels", "core", "bindings", "python", "all"):
        found, *rest = (groups[group][s] for s in ("found", "explained", "unexplained"))
        total = found + sum(rest)
        share = f" ({100 * found / total:.1f} %)" if total else ""
        lines.append(f"| {group} | {total} | {found}{share} | {rest[0]} | {rest[1]} |")
    both = groups["all"]
    left = f"{both['not compiled']} that do not compile and {both['same code']} with the same code"
    return [*lines, "", f"Left out: {left}."]


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def survivors(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| place | before | after | why no test fails |", "|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["group"], row["file"], row["line"])):
        if row["status"] == "survived":
            place = row["file"].removeprefix("cpp/").removeprefix("python/fastlayer/")
            changed = code(row["after"]) if row["after"] not in (";", "pass") else "dropped"
            why = row.get("why", "**not explained**")
            lines.append(f"| {place}:{row['line']} | {code(row['before'])} | {changed} | {why} |")
    return lines


def markdown(rows: list[dict[str, Any]]) -> str:
    timed = [row for row in rows if row["status"] in ("found", "survived")]
    seconds = [row["processor_seconds"] for row in timed if "processor_seconds" in row]
    mean = (
        f"A mutant takes {sum(seconds) / max(len(seconds), 1):.1f} s of one processor on average."
    )
    parts = ["## Results", "", *table(rows), mean, "", "## Survivors", ""]
    return "\n".join([PAGE, *parts, *survivors(rows)])
