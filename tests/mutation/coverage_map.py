"""Which tests run which lines of Python, from a coverage file with a context for each test."""

from __future__ import annotations

import collections
import pathlib
import re
import sqlite3
import xml.etree.ElementTree as ET

from coverage.numbits import numbits_to_nums

# What starts other processes: the tests of lines that no test runs in its own.
OUTSIDE = [
    "tests/package/test_import.py",
    "tests/package/test_demo.py",
    "tests/process/test_config.py",
]


class CoverageMap:
    def __init__(self, data: pathlib.Path, junit: pathlib.Path) -> None:
        self.tests: dict[str, dict[int, set[str]]] = collections.defaultdict(dict)
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.files: dict[str, str] = {}
        cases = [c for f in junit.glob("*.xml") for c in ET.parse(f).getroot().iter("testcase")]
        for case in cases:
            place = case.get("classname", "")
            module = place.split(".")[-1]
            self.files[module] = place.replace(".", "/") + ".py"
            name = f"{module}.{case.get('name', '').split('[')[0]}"
            self.seconds[name] += float(case.get("time") or 0)
        with sqlite3.connect(data) as database:
            contexts = dict(database.execute("select id, context from context"))
            files = dict(database.execute("select id, path from file"))
            for file, context, arcs in database.execute(
                "select file_id, context_id, fromno || ',' || tono from arc"
            ):
                self._add(files[file], contexts[context], map(int, arcs.split(",")))
            for file, context, bits in database.execute(
                "select file_id, context_id, numbits from line_bits"
            ):
                self._add(files[file], contexts[context], numbits_to_nums(bits))

    def _add(self, path: str, context: str, lines: object) -> None:
        file = "python/fastlayer" + path.rpartition("/fastlayer")[2]
        name = context.removeprefix("tests.")
        if name in self.seconds:
            for line in lines:
                self.tests[file].setdefault(abs(line), set()).add(name)

    @staticmethod
    def _slow_to_import(name: str) -> bool:
        """Whether a test's file imports a framework, which takes longer than the test."""
        return bool(
            re.match("test_(from|onnx|sklearn|pt|prove|accelerate|state|tutorial|readme)", name)
        )

    def of(self, file: str, line: int, most_seconds: float) -> list[str]:
        """The tests that run a line, quickest first; any of the file's for what runs at import."""
        lines = self.tests[file]
        names = lines.get(line) or set().union(*lines.values())
        chosen, seconds = [] if line in lines else list(OUTSIDE), 0.0
        for name in sorted(
            names, key=lambda name: (self._slow_to_import(name), self.seconds[name], name)
        ):
            seconds += self.seconds[name]
            if chosen and seconds > most_seconds:
                break
            chosen.append(self._node(name))
        return chosen

    def names(self) -> list[str]:
        return sorted(self._node(name) for name in self.seconds)

    def _node(self, name: str) -> str:
        module, _, function = name.partition(".")
        return f"{self.files[module]}::{function}"
