"""The results of a run as a JSON file with a line for each row of measurements."""

from __future__ import annotations

import json
from pathlib import Path


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def text(results: dict) -> str:
    """JSON in which each key has a line, and each row one of its own."""
    return "{\n" + ",\n".join(f"{_line(k)}: {_value(k, v)}" for k, v in results.items()) + "\n}\n"


def write(results: dict, path: Path) -> None:
    """At once or not at all: an interrupted run leaves the last whole file."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text(results), encoding="utf-8")
    draft.replace(path)


def _value(key: str, value: object) -> str:
    if key == "rows" and value:
        return "[\n" + ",\n".join(map(_line, value)) + "\n]"
    return _line(value)


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
