"""Fuzz the readers of model files: bytes that coverage leads, through the doors that users have.

    python tests/fuzz/fuzz.py run                        200,000 runs over all readers
    python tests/fuzz/fuzz.py run onnx h5 --runs 100000000
    python tests/fuzz/fuzz.py replay                     the corpus and some changes to it, without atheris
    python tests/fuzz/fuzz.py replay onnx crash-0123     what was found, once more
    python tests/fuzz/fuzz.py one onnx -runs=1000        a reader with options of libFuzzer
    python tests/fuzz/fuzz.py keep onnx                  what adds coverage, into the tree
    python tests/fuzz/fuzz.py seeds onnx --folder seeds  sound files, and what is in the tree

`run` and `one` need atheris. Inputs that add coverage are kept in build/fuzz for the next time; a finding
ends the run of its reader, and is a file there.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mutators import Mutate

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORPUS, DATA = HERE / "corpus", HERE.parent / "data"
LARGEST = 1 << 14  # bytes of an input
MOST_KEPT, MOST_FILES = 10 << 10, 16  # bytes and inputs of a reader in the tree, about
NAMES = (
    "npz", "document", "safetensors", "pt", "pickle", "legacy", "torchscript", "sb3", "keras", "config",
    "h5", "weights", "onnx",
)  # fmt: skip

# Threads and their stacks would be counted as memory of the reader.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]


def one(name: str, options: list[str]) -> None:
    """Run libFuzzer on a reader; the process ends with it."""
    import atheris

    with atheris.instrument_imports(include=["fastlayer"]):
        from readers import READERS

        from judge import Judge  # isort: skip

        reader = READERS[name]
        judge = Judge(reader)  # which has everything imported that comes late

    def attempt(data: bytes) -> None:
        judge.attempt(data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        def raw(piece: bytes) -> bytes:
            changed: bytes = atheris.Mutate(piece, len(piece) + 64)
            return changed

        changed = reader.mutate(data, Random(seed), raw)
        return changed if len(changed) <= most else changed[:most]

    if all(option.startswith("-") for option in options):
        options = [*options, tempfile.mkdtemp()]  # libFuzzer writes into the first folder
        options.append(seeds(name, Path(tempfile.mkdtemp())))
    fixed = [f"-max_len={LARGEST}", "-len_control=0", "-cross_over=0", "-timeout=60"]
    # libFuzzer starts itself anew where it merges, by what it takes for the name of a program.
    myself = shlex.join([sys.executable, __file__, "one", name])
    program = sys.argv[0] if hasattr(sys, "frozen") else myself
    argv = [program, *fixed, "-rss_limit_mb=2048", *options]
    atheris.Setup(argv, attempt, custom_mutator=mutate)
    atheris.Fuzz()


def replay(name: str, files: list[Path], count: int) -> None:
    """Try files, or the corpus and `count` changes to it, always the same ones."""
    from judge import Finding, Judge
    from readers import READERS

    reader = READERS[name]
    judge = Judge(reader)
    chosen = files or kept(name)
    inputs = [(str(path), path.read_bytes()) for path in chosen]
    if not files:
        inputs += [(f"the seed {key!r}", data) for key, data in reader.seeds().items()]
        inputs += changes(reader.mutate, [data for _, data in inputs], count)
    for stranger in judge.strangers:
        print(stranger)
    taken = 0
    for place, data in inputs:
        try:
            taken += judge.attempt(data) > 0
        except Finding as found:
            if not files:
                place = f"{place}, {data[:LARGEST].hex()}"
            raise SystemExit(f"{name}: {place:.2000}: {found}") from found
    print(f"{name}: {len(inputs)} tried, {taken} are models")


def changes(mutate: Mutate, sound: list[bytes], count: int) -> Iterator[tuple[str, bytes]]:
    """Sound files with changes, and changes to those."""
    from mutators import at_random

    rng = Random(0)
    for number in range(count):
        data = rng.choice(sound)
        for _ in range(rng.randint(1, 4)):
            data = mutate(data, rng, partial(at_random, rng=rng))[:LARGEST]
        yield f"change {number}", data


def kept(name: str) -> list[Path]:
    """The inputs in the tree: what was found, and files that the frameworks wrote."""
    from readers import READERS

    reader = READERS[name]
    whole = reader.wrap is READERS["npz"].wrap
    return sorted([*(CORPUS / name).glob("*"), *(DATA.glob(f"*{reader.suffix}") if whole else [])])


def seeds(name: str, folder: Path) -> str:
    """Write what libFuzzer starts from."""
    from readers import READERS

    for key, data in READERS[name].seeds().items():
        (folder / key.replace(" ", "-")).write_bytes(data)
    for path in kept(name):
        (folder / path.name).write_bytes(path.read_bytes())
    return str(folder)


def run(names: list[str], runs: int, folder: Path, seed: int, jobs: int) -> int:
    """Fuzz each reader in a process of its own; return how many had a finding."""
    from readers import READERS

    total = sum(READERS[name].share for name in names)

    def fuzzed(name: str) -> int:
        corpus = folder / name
        corpus.mkdir(parents=True, exist_ok=True)
        mine = -(-runs * READERS[name].share // total)
        options = [f"-runs={mine}", f"-seed={seed}", f"-artifact_prefix={folder}/{name}-"]
        start = seeds(name, Path(tempfile.mkdtemp()))
        command = [sys.executable, __file__, "one", name, *options, str(corpus), start]
        ended = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        count = re.search(r"^Done (\d+) runs in (\d+) second", ended.stdout, re.MULTILINE)
        if ended.returncode or count is None:
            told = re.sub(r"^(#\d|INFO: ).*\n", "", ended.stdout, flags=re.MULTILINE)
            print(f"{name}: status {ended.returncode}\n{told[-6000:]}", flush=True)
            return 0
        covered = re.findall(r"cov: (\d+)", ended.stdout)[-1]
        print(f"{name}: {count[1]} runs in {count[2]} s, {covered} places covered", flush=True)
        return int(count[1])

    with ThreadPoolExecutor(jobs) as pool:
        counts = list(pool.map(fuzzed, names))
    print(f"{sum(counts)} runs without a finding; {counts.count(0)} readers with one")
    return counts.count(0)


def keep(name: str, folder: Path) -> None:
    """Copy some of the inputs that add coverage from `folder` into the tree."""
    merged = Path(tempfile.mkdtemp())
    known = {path.name for path in Path(seeds(name, merged)).iterdir()}
    both = [str(merged), str(folder / name)]
    subprocess.run([sys.executable, __file__, "one", name, "-merge=1", *both], check=True)
    mine = CORPUS / name
    mine.mkdir(parents=True, exist_ok=True)
    kept = sum(path.stat().st_size for path in mine.iterdir())
    new = [path for path in merged.iterdir() if path.name not in known]
    new.sort(key=lambda path: path.stat().st_size)
    for path in new[:: max(len(new) // MOST_FILES, 1)]:  # small ones and large ones
        kept += path.stat().st_size
        if kept <= MOST_KEPT:
            (mine / path.name).write_bytes(path.read_bytes())


@contextmanager
def scratch() -> Iterator[None]:
    """Have all temporary files in one folder, in memory where that is known: there are many."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        yield


def main(arguments: list[str]) -> None:
    """The command line."""
    if arguments[:1] == ["one"]:
        one(arguments[1], arguments[2:])
        return
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("command", choices=["run", "replay", "keep", "seeds"])
    parser.add_argument("names", nargs="*", metavar="READER", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--runs", type=int, default=200_000, help="of all readers together")
    parser.add_argument("--jobs", type=int, default=1, help="readers at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--changes", type=int, default=200, help="that `replay` makes")
    given = parser.parse_args(arguments)
    names = [name for name in given.names if name in NAMES]
    files = [Path(name) for name in given.names if name not in NAMES]
    with scratch():
        if given.command == "run":
            found = run(names or list(NAMES), given.runs, given.folder, given.seed, given.jobs)
            raise SystemExit(found > 0)
        for name in names or NAMES:
            if given.command == "keep":
                keep(name, given.folder)
            elif given.command == "seeds":
                given.folder.mkdir(parents=True, exist_ok=True)
                seeds(name, given.folder)
            else:
                replay(name, files, given.changes)


if __name__ == "__main__":
    main(sys.argv[1:])
