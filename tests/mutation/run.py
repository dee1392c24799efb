"""Mutation tests: changes the sources one small fault at a time and counts the faults that the
tests find.

    python tests/mutation/run.py run --scratch /somewhere --coverage .coverage --junit junit.xml
    python tests/mutation/run.py again --scratch /somewhere --count 12
    python tests/mutation/run.py report

`run` takes up where results.jsonl ends. `again` repeats found mutants, quickest first, and fails
when one is not found any more; that is what CI does.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterator

import report
from build import SUBJECTS, Build, isa_of
from coverage_map import CoverageMap
from mutants import Mutant, mutants_of

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = pathlib.Path(__file__).with_name("results.jsonl")

# Mutants that compile to something new, by group: what to take, in proportion to the lines.
GROUPS = {
    "python": (55, ["python/fastlayer/*.py"]),
    "core": (62, ["cpp/core/*.cpp"]),
    "kernels": (
        66,
        ["cpp/kernels/*.inc.hpp", "cpp/kernels/vec_avx2.hpp", "cpp/kernels/vec_avx512.hpp"],
    ),
    "bindings": (32, ["cpp/bindings/*.cpp"]),
}
# The tests that C++ mutants meet after the C++ tests, those that find most first.
PYTESTS = [
    f"tests/test_{name}.py"
    for name in (
        "executor modules network functions layer import config sums arrays activations same_bits"
    ).split()
]
SECONDS = {"C++ tests": 60, "pytest": 300}


def quotas() -> Iterator[tuple[str, str, int]]:
    """Group, file and number of mutants of every file."""
    for group, (count, patterns) in GROUPS.items():
        files = sorted({f for pattern in patterns for f in ROOT.glob(pattern)})
        lines = [len(f.read_text().splitlines()) for f in files]
        for file, length in zip(files, lines, strict=True):
            yield group, str(file.relative_to(ROOT)), max(1, round(count * length / sum(lines)))


class Worker:
    """A copy of the tree in which one mutant at a time is tried."""

    def __init__(self, scratch: pathlib.Path, number: int, prefix: list[str]) -> None:
        self.tree = scratch / f"tree{number}"
        shutil.rmtree(self.tree, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__", ".*cache", ".git", "build", "_core*.so")
        shutil.copytree(ROOT, self.tree, ignore=ignored)
        objects = scratch / "objects"
        objects.mkdir(exist_ok=True)
        self.build = Build(self.tree, objects, prefix)
        self.changed_object = self.tree / "changed.o"
        self.isa = ""

    def try_mutant(self, mutant: Mutant, pytests: list[str]) -> dict[str, object]:
        """`status` is found, survived, same code or not compiled; `by` is what found it."""
        path = self.tree / mutant.file
        source = path.read_text()
        path.write_text(mutant.apply(source))
        begun = time.monotonic()
        try:
            python = mutant.file.endswith(".py")
            status, by = self.python(pytests) if python else self.cpp(mutant.file, pytests)
        finally:
            path.write_text(source)
        seconds = round(time.monotonic() - begun, 1)
        return {"status": status, "by": by, "seconds": seconds}

    def python(self, pytests: list[str]) -> tuple[str, str]:
        self.extension({}, "avx2")
        return self.pytest(pytests, "avx2")

    def cpp(self, file: str, pytests: list[str]) -> tuple[str, str]:
        isa = isa_of(file)
        kernels = file.startswith("cpp/kernels/")
        sources = [file]
        if kernels:
            sources = [f for f in self.build.kernels(isa) if isa_of(f) == isa]
            if file.endswith(".inc.hpp"):
                sources.append("cpp/kernels/kernels_scalar.cpp")
        changed = {}
        for source in sources:
            to = self.tree / f"changed{len(changed)}.o"
            if not self.build.compile(source, to, isa):
                return "not compiled", ""
            if to.read_bytes() == self.build.plain(source, isa).read_bytes() and not changed:
                return "same code", ""
            changed[source] = to
            # Against the reference and the hashes one instruction set is enough.
            if len(sources) > 1 and len(changed) == 1:
                found = self.cpp_tests(changed, isa, ("dense", "golden"))
                if found:
                    return "found", found
        if not file.startswith("cpp/bindings/"):
            found = self.cpp_tests(changed, isa, SUBJECTS)
            if found:
                return "found", found
        self.extension(changed, isa)
        return self.pytest(pytests, isa)

    def cpp_tests(
        self, changed: dict[str, pathlib.Path], isa: str, subjects: tuple[str, ...]
    ) -> str:
        self.build.link_tests(changed, isa)
        for subject in subjects:
            golden = ["cpp/tests/golden_hashes.txt"] if subject == "golden" else []
            rc = self.build.run("./cpp_tests", subject, *golden, seconds=SECONDS["C++ tests"])
            if rc:
                return f"C++ {subject}" + (", too long" if rc in (124, 137) else "")
        return ""

    def extension(self, changed: dict[str, pathlib.Path], isa: str) -> None:
        if changed or self.isa != isa:
            self.build.link_extension(changed, isa)
            self.isa = "" if changed else isa

    def pytest(self, tests: list[str], isa: str) -> tuple[str, str]:
        if not tests:
            return "survived", "no test runs it"
        settings = ["PYTHONDONTWRITEBYTECODE=1", f"PYTHONPATH={self.tree / 'python'}"]
        log = self.tree / "pytest.xml"
        log.unlink(missing_ok=True)
        command = [
            "env",
            *settings,
            f"FASTLAYER_ISA={isa}",
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
        ]
        command += ["-p", "no:cacheprovider", f"--junitxml={log}", *tests]
        rc = self.build.run(*command, seconds=SECONDS["pytest"])
        if rc == 0:
            return "survived", ""
        return "found", report.first_failure(log) if log.exists() else f"pytest, status {rc}"


def recorded() -> dict[str, dict[str, object]]:
    if not RESULTS.exists():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {row["id"]: row for row in rows}


def check_that_nothing_is_found(workers: list[Worker]) -> None:
    """Without a mutant every test passes; else the whole count would be worth nothing."""
    for isa in ("avx2", "avx512"):
        found = workers[0].cpp_tests({}, isa, SUBJECTS)
        if found:
            raise SystemExit(f"{found} fails without a mutant")
    workers[0].extension({}, "avx2")
    status, by = workers[0].pytest(PYTESTS, "avx2")
    if status != "survived":
        raise SystemExit(f"{by} fails without a mutant")


def run(options: argparse.Namespace, workers: list[Worker]) -> None:
    coverage = CoverageMap(options.coverage, options.junit)
    if not options.skip_check:
        check_that_nothing_is_found(workers)
    done, free, lock = recorded(), queue.Queue(), threading.Lock()
    for worker in workers:
        free.put(worker)

    def file_of_mutants(group: str, file: str, wanted: int) -> None:
        counted = 0
        for mutant in mutants_of(file, (ROOT / file).read_text()):
            row = done.get(mutant.id)
            if row is None:
                python = file.endswith(".py")
                tests = (
                    coverage.of(file, mutant.line, options.seconds)
                    if python
                    else PYTESTS[: -1 if options.seconds < 60 else None]
                )
                worker = free.get()
                try:
                    outcome = worker.try_mutant(mutant, tests)
                finally:
                    free.put(worker)
                row = {"group": group, **report.fields(mutant), **outcome}
                with lock, RESULTS.open("a") as log:
                    log.write(json.dumps(row) + "\n")
                print(
                    row["status"],
                    row["by"],
                    row["seconds"],
                    file,
                    mutant.line,
                    mutant.after,
                    flush=True,
                )
            counted += row["status"] in ("found", "survived")
            if counted == wanted:
                return

    with concurrent.futures.ThreadPoolExecutor(len(workers)) as pool:
        tasks = [pool.submit(file_of_mutants, *quota) for quota in quotas()]
        for task in concurrent.futures.as_completed(tasks):
            task.result()


def again(options: argparse.Namespace, workers: list[Worker]) -> None:
    """Repeats recorded mutants whose line is still there: the quickest of each file in turn."""
    rows = recorded()
    by_file = []
    for _, file, _ in quotas():
        known = [m for m in mutants_of(file, (ROOT / file).read_text()) if m.id in rows]
        known = [
            m
            for m in known
            if rows[m.id]["status"] == ("survived" if options.survivors else "found")
        ]
        by_file.append(sorted(known, key=lambda m: rows[m.id]["seconds"]))
    turns = [m for row in range(max(map(len, by_file))) for m in report.column(by_file, row)]
    turns.sort(key=lambda m: rows[m.id]["seconds"])
    lost = []
    coverage = CoverageMap(options.coverage, options.junit) if options.survivors else None
    for mutant in turns[: options.count]:
        by = str(rows[mutant.id]["by"])
        tests = [by] if by.startswith("tests/") else PYTESTS
        if coverage and mutant.file.endswith(".py"):
            tests = coverage.of(mutant.file, mutant.line, options.seconds)
        outcome = workers[0].try_mutant(mutant, tests)
        print(
            outcome["status"],
            outcome["by"],
            outcome["seconds"],
            mutant.id,
            mutant.file,
            mutant.line,
            flush=True,
        )
        print("   ", mutant.before, "=>", mutant.after)
        if options.survivors and outcome["status"] == "found":
            rows[mutant.id].update(outcome)
            RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
        if outcome["status"] != "found":
            lost.append(mutant.id)
    if lost and not options.survivors:
        raise SystemExit(f"no longer found: {', '.join(lost)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "again", "report"))
    parser.add_argument("--scratch", type=pathlib.Path, help="a folder for trees and objects")
    parser.add_argument("--coverage", type=pathlib.Path, help="data with a context for each test")
    parser.add_argument("--junit", type=pathlib.Path, help="how long each test took")
    parser.add_argument("--seconds", type=float, default=60, help="of tests, for a Python mutant")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--prefix", default="", help="goes in front of every command")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument(
        "--survivors", action="store_true", help="repeat these, and record what finds them"
    )
    parser.add_argument("--skip-check", action="store_true")
    options = parser.parse_args()
    if options.action == "report":
        print(report.markdown(list(recorded().values())))
        return
    for name in [key for key in os.environ if key.startswith(("OMP_", "FASTLAYER_"))]:
        del os.environ[name]
    options.scratch.mkdir(parents=True, exist_ok=True)
    workers = [Worker(options.scratch, i, options.prefix.split()) for i in range(options.jobs)]
    (run if options.action == "run" else again)(options, workers)


if __name__ == "__main__":
    main()
