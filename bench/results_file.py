"""The results of a run as JSON with a line for each row of measurements, for a diff to show.

A row names its case, of which `cases.py` has the rest, and holds ratios and times in microseconds.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import errors
from cases import cases

MODES = ("hot", "idle1", "idle5", "idle20", "idle100", "busy")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def place(row: dict) -> tuple:
    """Where a row stands: what was measured later goes where it belongs."""
    dtype = ("float32", "float64").index(row["dtype"])
    return dtype, _order().get(row["case"], len(cases())), row["threads"], MODES.index(row["mode"])


@cache
def _order() -> dict[str, int]:
    return {name: i for i, name in enumerate(cases())}


def key_of(row: dict) -> tuple[str, str, int]:
    return row["case"], row["dtype"], row["threads"]


def undisturbed(rows: list[dict]) -> list[dict]:
    """Without those of a case, dtype and number of threads that were disturbed in any mode."""
    anew = {key_of(row) for row in rows if row.get("disturbed")}
    return [row for row in rows if key_of(row) not in anew]


def expanded(results: dict) -> list[dict]:
    """The rows with what their cases say, the best peer and those that are too inaccurate to count;
    without the rows of cases that are no more.
    """
    known = cases()
    found = []
    for row in results["rows"]:
        if row["case"] in known:
            case = known[row["case"]]
            weights, streams = case.traffic(row["dtype"])
            facts = {"kind": case.kind, "batch": case.batch, "flops": case.flops}
            facts |= {"weights": weights, "streams": streams, "best": None}
            facts["loose"] = errors.loose(row, case.hidden, case.width) if "ulp" in row else set()
            peers = {k: v for k, v in row["us"].items() if not k.startswith("fastlayer")}
            equal = [name for name in peers if name not in facts["loose"]]
            facts["best"] = min(equal, key=peers.__getitem__, default=None)
            kept = row
            if facts["best"] is None:  # the limits of accuracy were others when it was measured
                kept = {k: v for k, v in row.items() if k not in ("ratio", "held", "ratio_p99")}
            found.append(facts | kept)
    return found


def text(results: dict) -> str:
    """JSON in which each key has a line, and each row one of its own."""
    return "{\n" + ",\n".join(f"{_line(k)}: {_value(k, v)}" for k, v in results.items()) + "\n}\n"


def write(results: dict, path: Path) -> None:
    """At once or not at all: an interrupted run leaves the last whole file."""
    results["rows"].sort(key=place)
    write_text(results, path)


def write_text(results: dict, path: Path) -> None:
    """The same with the rows as they are."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text(results), encoding="utf-8")
    draft.replace(path)


def _value(key: str, value: object) -> str:
    if key == "rows" and value:
        return "[\n" + ",\n".join(map(_line, value)) + "\n]"
    return _line(value)


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
