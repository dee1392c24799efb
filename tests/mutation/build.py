"""Compiles one mutated source at -O1 and links it with the objects of everything else.

Of the kernels only two instruction sets are built: scalar, which the C++ tests compare with, and the
one under test, AVX2 unless the mutant is in a file of another.
"""

from __future__ import annotations

import collections
import os
import pathlib
import subprocess
import sysconfig
import threading
from collections.abc import Sequence
from typing import ClassVar

KERNEL_FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-fno-exceptions", "-fno-rtti"]
ISA_FLAGS = {
    "scalar": (),
    "avx2": ("-mavx2", "-mfma"),
    "avx512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"),
}
FLAGS = ["-std=c++17", "-O1", "-w", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
SUBJECTS = ("plan", "program", "dense", "golden", "threads", "elementwise", "training", "trainer")
TOO_LONG = (124, 137, 152)  # by timeout, killed, by the limit on processor time
EXTENSION = f"python/fastlayer/_core{sysconfig.get_config_var('EXT_SUFFIX')}"


def includes() -> list[str]:
    import pybind11

    return [f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}"]


def sources(root: pathlib.Path, folder: str) -> list[str]:
    return sorted(str(f.relative_to(root)) for f in (root / "cpp" / folder).glob("*.cpp"))


def isa_of(file: str) -> str:
    """The instruction set whose kernels show a mutant of `file`."""
    stem = pathlib.PurePath(file).name.split(".")[0]
    name = stem.partition("_")[2]
    known = (
        stem.startswith(("vec_", "kernels_", "pairs_", "quads_", "backward_")) and name != "pair"
    )
    return name if known else "avx2"


class DoesNotLink(RuntimeError):
    """What is named has no program to run."""


class Build:
    """Objects of an unchanged tree, made on demand, and those of a mutant beside them."""

    locks: ClassVar[dict[pathlib.Path, threading.Lock]] = collections.defaultdict(threading.Lock)

    def __init__(self, tree: pathlib.Path, unchanged: pathlib.Path, prefix: Sequence[str]) -> None:
        self.tree, self.unchanged, self.prefix = tree, unchanged, prefix
        self.processor_seconds = 0.0  # of all commands so far
        # Beside main.cpp, what has a main of its own is another program.
        self.tests = [
            f
            for f in sources(tree, "tests")
            if f.endswith("/main.cpp") or "int main(" not in (tree / f).read_text()
        ]
        self.core = sources(tree, "core")
        self.bindings = sources(tree, "bindings")

    def kernels(self, isa: str) -> list[str]:
        names = [*dict.fromkeys(("scalar", isa, "avx2"))][: 2 if isa != "scalar" else 3]
        files = [f"cpp/kernels/kernels_{name}.cpp" for name in names]
        for group in ("pairs", "quads", "backward"):
            files += [f"cpp/kernels/{group}_{name}.cpp" for name in names if name != "scalar"]
        return files

    def compile(
        self, source: str, to: pathlib.Path, isa: str, tree: pathlib.Path | None = None
    ) -> bool:
        """Compile `source`; only core/cpu.cpp depends on the instruction sets that are built."""
        flags = list(FLAGS)
        if source.startswith("cpp/kernels/"):
            flags += [*KERNEL_FLAGS, *ISA_FLAGS[isa_of(source)]]
        else:
            flags.append("-fopenmp")
            flags += [f"-DFASTLAYER_HAVE_{isa_of(f).upper()}" for f in self.kernels(isa)]
        if source.startswith("cpp/bindings/"):
            flags += [*includes(), '-DFASTLAYER_VERSION="0.1.0"']
        return self.run("g++", *flags, "-c", source, "-o", str(to), seconds=180, tree=tree) == 0

    def run(
        self,
        *command: str,
        seconds: int,
        tree: pathlib.Path | None = None,
        output: pathlib.Path | str = os.devnull,
    ) -> int:
        """The exit status; TOO_LONG are those of a command that took more processor time.

        A process that waits for ever is ended after ten times as long. What it says goes to `output`.
        """
        limit = ["timeout", "-k", "2", str(10 * seconds), "prlimit", f"--cpu={seconds}"]
        with open(output, "w") as log:
            process = subprocess.Popen(
                [*self.prefix, *limit, *command],
                cwd=tree or self.tree,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.processor_seconds += usage.ru_utime + usage.ru_stime
        return process.returncode

    def plain(self, source: str, isa: str) -> pathlib.Path:
        """The object of an unchanged source."""
        variant = isa if source.endswith("/cpu.cpp") else "any"
        to = self.unchanged / f"{source.replace('/', '.')}.{variant}.o"
        with self.locks[to]:
            if not to.exists():
                part = to.with_suffix(".part")
                if not self.compile(source, part, isa, self.unchanged):
                    raise RuntimeError(f"{source} does not compile")
                part.rename(to)
        return to

    def link(
        self, files: Sequence[str], changed: dict[str, pathlib.Path], isa: str, to: str
    ) -> None:
        objects = [str(changed.get(f) or self.plain(f, isa)) for f in files]
        shared = ["-shared"] if to == EXTENSION else []
        if self.run("g++", "-fopenmp", *shared, *objects, "-o", to, seconds=120) != 0:
            raise DoesNotLink(to)

    def link_tests(self, changed: dict[str, pathlib.Path], isa: str) -> None:
        self.link([*self.tests, *self.core, *self.kernels(isa)], changed, isa, "cpp_tests")

    def link_extension(self, changed: dict[str, pathlib.Path], isa: str) -> None:
        self.link([*self.bindings, *self.core, *self.kernels(isa)], changed, isa, EXTENSION)
