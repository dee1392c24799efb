"""Mutation tests: changes the sources one small fault at a time and counts the faults that the
tests find.

    python tests/mutation/run.py run --scratch /somewhere --coverage .coverage --junit junit.xml
    python tests/mutation/run.py again --scratch /somewhere --count 12
    python tests/mutation/run.py update
    python tests/mutation/run.py report > docs/mutation.md

`run` takes up where results.jsonl ends; `survivors` repeats those that nothing explains (by a `why`
in their row), after new tests.
`again` repeats found ones and fails when one is not found any more; that is what CI does.
`update` writes the results with the files and lines of today, without those whose text is gone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import os
import pathlib
import queue
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import records
import report
from build import SUBJECTS, TOO_LONG, Build, DoesNotLink, isa_of
from mutants import Mutant, mutants_of

ROOT = pathlib.Path(__file__).parents[2]

# Mutants that compile to something new, by group: what to take, in proportion to the lines.
GROUPS = {
    "python": (55, ["python/fastlayer/**/*.py"]),
    "core": (62, ["cpp/core/*.cpp"]),
    "kernels": (
        66,
        ["cpp/kernels/*.inc.hpp", "cpp/kernels/vec_avx2.hpp", "cpp/kernels/vec_avx512.hpp"],
    ),
    "bindings": (32, ["cpp/bindings/*.cpp"]),
}
# The tests that C++ mutants meet after the C++ tests, those that find most first.
PYTESTS = [
    "tests/network/test_core.py",
    "tests/network/test_executor.py",
    "tests/network/test_modules.py",
    "tests/network/test_network.py",
    "tests/functions/test_functions.py",
    "tests/network/test_layer.py",
    "tests/numerics/test_sums.py",
    "tests/functions/test_arrays.py",
    "tests/functions/test_activations.py",
    "tests/process/test_config.py",
    "tests/package/test_import.py",
    "tests/numerics/test_same_bits.py",
]
# Of one processor; without a mutant they take 2 and about 40.
SECONDS = {"C++ tests": 40, "pytest": 200}


def quotas() -> Iterator[tuple[str, str, int]]:
    """Group, file and number of mutants of every file."""
    for group, (count, patterns) in GROUPS.items():
        files = sorted({f for pattern in patterns for f in ROOT.glob(pattern)})
        lines = [len(f.read_text().splitlines()) for f in files]
        for file, length in zip(files, lines, strict=True):
            yield group, str(file.relative_to(ROOT)), max(1, round(count * length / sum(lines)))


def copied(tree: pathlib.Path) -> pathlib.Path:
    shutil.rmtree(tree, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", ".*cache", ".git", "build", "_core*.so")
    return shutil.copytree(ROOT, tree, ignore=ignored)


class Worker:
    """A copy of the tree in which one mutant at a time is tried."""

    def __init__(self, scratch: pathlib.Path, number: int, prefix: list[str]) -> None:
        self.tree = copied(scratch / f"tree{number}")
        self.build = Build(self.tree, scratch / "unchanged", prefix)
        self.unchanged = False  # whether the extension in the tree is that of the sources

    def try_mutant(self, mutant: Mutant, pytests: list[str]) -> dict[str, object]:
        """`status` is found, survived, same code or not compiled; `by` is what found it."""
        path = self.tree / mutant.file
        source = path.read_text()
        path.write_text(mutant.apply(source))
        before = self.build.processor_seconds
        try:
            python = mutant.file.endswith(".py")
            status, by = self.python(path, pytests) if python else self.cpp(mutant.file, pytests)
        except DoesNotLink:
            status, by = "not compiled", ""
        finally:
            path.write_text(source)
        seconds = round(self.build.processor_seconds - before, 1)
        return {"status": status, "by": by, "processor_seconds": seconds}

    def python(self, path: pathlib.Path, pytests: list[str]) -> tuple[str, str]:
        try:
            compile(path.read_text(), path, "exec")
        except SyntaxError:
            return "not compiled", ""
        if not self.unchanged:
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
            if to.read_bytes() == self.build.plain(source, isa).read_bytes():
                continue
            changed[source] = to
            # Against the reference and the hashes one instruction set is enough.
            if len(sources) > 1 and len(changed) == 1:
                found = self.cpp_tests(changed, isa, ("dense", "golden"))
                if found:
                    return "found", found
        if not changed:
            return "same code", ""
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
                return f"C++ {subject}" + (", too long" if rc in TOO_LONG else "")
        return ""

    def extension(self, changed: dict[str, pathlib.Path], isa: str) -> None:
        self.build.link_extension(changed, isa)
        self.unchanged = not changed

    def pytest(self, tests: list[str], isa: str) -> tuple[str, str]:
        if not tests:
            return "survived", "no test runs it"
        settings = ["PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", "PYTHONDONTWRITEBYTECODE=1"]
        settings += [f"PYTHONPATH={self.tree / 'python'}", f"FASTLAYER_ISA={isa}"]
        log = self.tree / "pytest.xml"
        log.unlink(missing_ok=True)
        command = ["env", *settings, sys.executable, "-m", "pytest", "-x", "-q"]
        command += ["-p", "no:cacheprovider", f"--junitxml={log}", *tests]
        said = self.tree / "pytest.out"
        for _ in range(2):  # pytest may be kept from beginning by what has nothing to do with tests
            rc = self.build.run(*command, seconds=SECONDS["pytest"], output=said)
            if rc not in (4, 5):
                break
        else:
            raise RuntimeError(f"not begun: {tests}\n{said.read_text(errors='replace')[-2000:]}")
        if rc == 0:
            return "survived", ""
        return "found", report.first_failure(log) if log.exists() else f"pytest, status {rc}"


def recorded() -> dict[str, dict[str, Any]]:
    """The rows of mutants that the tree has, by their names; tells how many it has not."""
    rows, outdated = records.found_again(records.stored(), present())
    if outdated:
        print(f"outdated: {len(outdated)} of {len(rows) + len(outdated)}", file=sys.stderr)
    return rows


def check_the_cpp_tests(worker: Worker, isas: Iterable[str]) -> None:
    """Without a mutant every test passes; else the whole count would be worth nothing."""
    for isa in isas:
        found = worker.cpp_tests({}, isa, SUBJECTS)
        if found:
            raise SystemExit(f"{found} fails without a mutant")


def check_that_nothing_is_found(workers: list[Worker], names: list[str]) -> None:
    check_the_cpp_tests(workers[0], ("avx2", "avx512"))
    # A test that is not there would look like one that fails.
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *names]
    if workers[0].build.run("env", f"PYTHONPATH={ROOT / 'python'}", *command, seconds=300):
        raise SystemExit("the coverage names tests that are not there")
    workers[0].extension({}, "avx2")
    status, by = workers[0].pytest(PYTESTS, "avx2")
    if status != "survived":
        raise SystemExit(f"{by} fails without a mutant")


def tried(
    mutants: list[Mutant], workers: list[Worker], tests_of: Callable[[Mutant], list[str]]
) -> Iterator[tuple[Mutant, dict[str, object]]]:
    """Each mutant with its outcome, in the order in which they end."""
    free: queue.Queue[Worker] = queue.Queue()
    for worker in workers:
        free.put(worker)

    def one(mutant: Mutant) -> tuple[Mutant, dict[str, object]]:
        worker = free.get()
        try:
            return mutant, worker.try_mutant(mutant, tests_of(mutant))
        finally:
            free.put(worker)

    with concurrent.futures.ThreadPoolExecutor(len(workers)) as pool:
        for done in concurrent.futures.as_completed([pool.submit(one, m) for m in mutants]):
            mutant, outcome = done.result()
            print(*outcome.values(), mutant.id, mutant.file, mutant.line, flush=True)
            print("    ", mutant.before, "->", mutant.after, flush=True)
            yield mutant, outcome


def tests_by_coverage(
    options: argparse.Namespace,
) -> tuple[Callable[[Mutant], list[str]], list[str]]:
    """What finds the tests for a mutant, and the names of all of them."""
    from coverage_map import CoverageMap

    coverage = CoverageMap(options.coverage, options.junit)

    def tests_of(mutant: Mutant) -> list[str]:
        if mutant.file.endswith(".py"):
            return coverage.of(mutant.file, mutant.line, options.seconds)
        return PYTESTS if options.seconds >= 60 else PYTESTS[:-3]

    return tests_of, coverage.names()


def run(options: argparse.Namespace, workers: list[Worker]) -> None:
    """Tries mutants until every file has had its number."""
    tests_of, names = tests_by_coverage(options)
    if not options.skip_check:
        check_that_nothing_is_found(workers, names)
    rows = recorded()
    while True:
        batch: dict[str, tuple[str, Mutant]] = {}
        for group, file, wanted in quotas():
            for mutant in mutants_of(file, (ROOT / file).read_text()):
                status = rows.get(mutant.id, {}).get("status")
                if wanted and not status:
                    batch[mutant.id] = group, mutant
                wanted = max(0, wanted - (status in (None, "found", "survived")))
        if not batch:
            return
        mutants = [mutant for _, mutant in batch.values()]
        for mutant, outcome in tried(mutants, workers, tests_of):
            rows[mutant.id] = {"group": batch[mutant.id][0], **records.fields(mutant), **outcome}
            records.append(rows[mutant.id])


def survivors(options: argparse.Namespace, workers: list[Worker]) -> None:
    """Tries survivors without an explanation once more, and records which tests find them now."""
    tests_of, _ = tests_by_coverage(options)
    rows = recorded()
    mutants = {m.id: m for _, m in present()}
    left = [m for m, row in rows.items() if row["status"] == "survived" and "why" not in row]
    for mutant, outcome in tried([mutants[m] for m in left], workers, tests_of):
        rows[mutant.id].update(outcome)
        records.write(rows.values())


def test_of(by: str) -> str:
    """The Python test of a row, wherever its file is today; "" if there is none."""
    file, _, name = by.partition("::")
    if not name:
        return ""
    found = sorted(ROOT.glob(f"tests/*/{pathlib.PurePath(file).name}"))
    if not found or f"def {name}(" not in found[0].read_text():
        return ""
    return f"{found[0].relative_to(ROOT)}::{name}"


def again(options: argparse.Namespace, workers: list[Worker]) -> None:
    """Tries some that were found, the quickest of each group; none needs another extension."""
    rows = recorded()
    groups: dict[str, list[Mutant]] = {group: [] for group in GROUPS}
    tests = {}
    for group, mutant in present():
        row = rows.get(mutant.id, {})
        tests[mutant.id] = test_of(row["by"]) if group == "python" and row else ""
        by_cpp = group != "python" and row.get("by", "").startswith("C++")
        if row.get("status") == "found" and (by_cpp or tests[mutant.id]):
            groups[group].append(mutant)
    for mutants in groups.values():
        mutants.sort(key=lambda m: (rows[m.id].get("processor_seconds", 1e9), m.id))
    turns = [m for turn in itertools.zip_longest(*groups.values()) for m in turn if m]
    turns = turns[: options.count]
    if len(turns) < options.count:
        raise SystemExit(f"only {len(turns)} mutants on file that the tree still has: `run` more")

    check_the_cpp_tests(workers[0], sorted({isa_of(m.file) for m in turns if is_cpp(m)}))
    workers[0].extension({}, "avx2")
    status, by = workers[0].pytest(sorted({tests[m.id] for m in turns if not is_cpp(m)}), "avx2")
    if status != "survived":
        raise SystemExit(f"{by} fails without a mutant")
    outcomes = tried(turns, workers, lambda mutant: [tests[mutant.id]])
    lost = [m.id for m, outcome in outcomes if outcome["status"] != "found"]
    if lost:
        raise SystemExit(f"not found any more: {', '.join(lost)}")


def is_cpp(mutant: Mutant) -> bool:
    return not mutant.file.endswith(".py")


def present() -> list[tuple[str, Mutant]]:
    """All mutants of the sources as they are, each with its group."""
    return [
        (group, mutant)
        for group, file, _ in quotas()
        for mutant in mutants_of(file, (ROOT / file).read_text())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "survivors", "again", "update", "report"))
    parser.add_argument("--scratch", type=pathlib.Path, help="a folder for trees and objects")
    parser.add_argument("--coverage", type=pathlib.Path, help="data with a context for each test")
    parser.add_argument("--junit", type=pathlib.Path, help="how long each test took")
    parser.add_argument("--seconds", type=float, default=60, help="of tests, for a Python mutant")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--prefix", default="", help="goes in front of every command")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--skip-check", action="store_true")
    options = parser.parse_args()
    if options.action == "report":
        print(report.markdown(list(recorded().values())))
        return
    if options.action == "update":
        records.write(recorded().values())
        return
    for name in [key for key in os.environ if key.startswith(("OMP_", "FASTLAYER_"))]:
        del os.environ[name]
    options.scratch.mkdir(parents=True, exist_ok=True)
    copied(options.scratch / "unchanged")
    workers = [Worker(options.scratch, i, options.prefix.split()) for i in range(options.jobs)]
    {"run": run, "survivors": survivors, "again": again}[options.action](options, workers)


if __name__ == "__main__":
    main()
