"""Mutation tests: changes the sources one small fault at a time and counts the faults that the
tests find.

    python tests/mutation/run.py run --scratch /somewhere --coverage .coverage --junit junit.xml
    python tests/mutation/run.py again --scratch /somewhere --count 12
    python tests/mutation/run.py report > docs/mutation.md

`run` takes up where results.jsonl ends; `survivors` repeats those that nothing explains, after new
tests.
`again` repeats found ones and fails when one is not found any more; that is what CI does.
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
from collections.abc import Callable, Iterator

import report
from build import EXTENSION, SUBJECTS, TOO_LONG, Build, DoesNotLink, isa_of
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
        self.isa = ""  # of the extension in the tree

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
        if self.isa != "all":  # what is installed does for changes of Python
            from fastlayer import _core

            shutil.copy(_core.__file__, self.tree / EXTENSION)
            self.isa = "all"
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
                return f"C++ {subject}" + (", too long" if rc in TOO_LONG else "")
        return ""

    def extension(self, changed: dict[str, pathlib.Path], isa: str) -> None:
        self.build.link_extension(changed, isa)
        self.isa = isa

    def pytest(self, tests: list[str], isa: str) -> tuple[str, str]:
        if not tests:
            return "survived", "no test runs it"
        settings = ["PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", "PYTHONDONTWRITEBYTECODE=1"]
        settings += [f"PYTHONPATH={self.tree / 'python'}", f"FASTLAYER_ISA={isa}"]
        log = self.tree / "pytest.xml"
        log.unlink(missing_ok=True)
        command = ["env", *settings, sys.executable, "-m", "pytest", "-x", "-q"]
        command += ["-p", "no:cacheprovider", f"--junitxml={log}", *tests]
        rc = self.build.run(*command, seconds=SECONDS["pytest"])
        if rc == 0:
            return "survived", ""
        if rc == 5:
            raise RuntimeError(f"no tests: {tests}")
        return "found", report.first_failure(log) if log.exists() else f"pytest, status {rc}"


def recorded() -> dict[str, dict[str, object]]:
    if not RESULTS.exists():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {row["id"]: row for row in rows}


def check_that_nothing_is_found(workers: list[Worker], names: list[str]) -> None:
    """Without a mutant every test passes; else the whole count would be worth nothing."""
    for isa in ("avx2", "avx512"):
        found = workers[0].cpp_tests({}, isa, SUBJECTS)
        if found:
            raise SystemExit(f"{found} fails without a mutant")
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
            rows[mutant.id] = {"group": batch[mutant.id][0], **report.fields(mutant), **outcome}
            with RESULTS.open("a") as log:
                log.write(json.dumps(rows[mutant.id]) + "\n")


def survivors(options: argparse.Namespace, workers: list[Worker]) -> None:
    """Tries survivors without an explanation once more, and records which tests find them now."""
    tests_of, _ = tests_by_coverage(options)
    rows, explained = recorded(), report.explanations()
    left = [m for m in present() if rows.get(m.id, {}).get("status") == "survived"]
    left = [m for m in left if m.id not in explained]
    for mutant, outcome in tried(left, workers, tests_of):
        rows[mutant.id].update(outcome)
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))


def again(options: argparse.Namespace, workers: list[Worker]) -> None:
    """Tries some that were found, the quickest of each group; none needs another extension."""
    rows = recorded()
    groups = []
    for group in GROUPS:
        found = [m for m in present() if rows.get(m.id, {}).get("status") == "found"]
        found = [m for m in found if rows[m.id]["group"] == group]
        by = ("tests/", "C++") if group == "python" else ("C++",)
        found = [m for m in found if str(rows[m.id]["by"]).startswith(by)]
        groups.append(sorted(found, key=lambda m: (rows[m.id].get("processor_seconds", 1e9), m.id)))
    turns = [m for row in range(max(map(len, groups))) for m in report.column(groups, row)]
    outcomes = tried(turns[: options.count], workers, lambda m: [str(rows[m.id]["by"])])
    lost = [m.id for m, outcome in outcomes if outcome["status"] != "found"]
    if lost or len(turns) < options.count:
        raise SystemExit(f"not found any more, of {len(turns)}: {', '.join(lost)}")


def present() -> list[Mutant]:
    """All mutants of the sources as they are."""
    return [m for _, file, _ in quotas() for m in mutants_of(file, (ROOT / file).read_text())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "survivors", "again", "report"))
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
    for name in [key for key in os.environ if key.startswith(("OMP_", "FASTLAYER_"))]:
        del os.environ[name]
    options.scratch.mkdir(parents=True, exist_ok=True)
    copied(options.scratch / "unchanged")
    workers = [Worker(options.scratch, i, options.prefix.split()) for i in range(options.jobs)]
    {"run": run, "survivors": survivors, "again": again}[options.action](options, workers)


if __name__ == "__main__":
    main()
