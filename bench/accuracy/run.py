"""Judge the activations of fastlayer and of its peers, and their derivatives, in ULP, and print Markdown tables.

float32: every input (fastlayer), one in 17 (peers). float64: two million inputs, dense where
polynomial pieces join and in the tails. README.md beside this file tells more.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import implementations as impl
import numpy as np
import report
from judge import Judge, Verdict, build
from report import Results
from tqdm import tqdm

import fastlayer as fl

CHUNK = 1 << 17
EDGES = (1.0, 3.0, 20.0, 21.75, 39.0, 40.0, 64.0, 709.0, 710.0, 745.0, 746.0, 870.0)


def float_ranges(between: tuple[float, float] | None) -> list[tuple[int, int]]:
    """Of the 2^32 float32 patterns, all, or those with magnitudes in a range."""
    if between is None:
        return [(0, 1 << 32)]
    low, high = (int(np.float32(number).view(np.uint32)) for number in between)
    return [(sign + low, sign + high) for sign in (0, 1 << 31)]


def float_inputs(stride: int, between: tuple[float, float] | None = None) -> Iterator[np.ndarray]:
    """Every `stride`-th float32 pattern, in chunks."""
    for low, high in float_ranges(between):
        for start in range(low, high, CHUNK * stride):
            stop = min(start + CHUNK * stride, high)
            yield np.arange(start, stop, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)


def double_inputs(size: int) -> Iterator[np.ndarray]:
    """About `size` float64, in chunks, specials among them.

    Random patterns, the range where the functions bend, their tails, and the places where the
    reduction of exp changes its multiple of log(2) or a branch changes; and next to the zeros of
    sin and cos.
    """
    limits = np.finfo(np.float64)
    special = [0, limits.smallest_subnormal, limits.tiny, limits.max, np.inf, np.nan]
    near = np.outer(EDGES, 1 + np.arange(-50, 51) * 2.0**-52).ravel()
    yield np.concatenate([special, np.negative(special), near, -near])
    turns = np.arange(1, CHUNK // 2, dtype=np.float64) * 1.5707963267948966
    yield np.concatenate([turns, np.ldexp(turns, np.arange(turns.size) % 980)])
    for seed in range(-(-size // CHUNK)):
        rng = np.random.default_rng([1, seed])
        part = CHUNK // 8
        sign = rng.choice([-1.0, 1.0], part)
        joint = rng.integers(0, 60, part) * 0.34657359027997264  # half of log(2)
        off = 1 + rng.uniform(-1, 1, part) * 2.0**-20
        yield np.concatenate(
            [
                rng.integers(0, 1 << 64, part, np.uint64).view(np.float64),
                rng.uniform(-3, 3, 2 * part),
                rng.uniform(-45, 45, part),
                rng.uniform(-760, 715, part),
                sign * np.exp2(rng.uniform(-60, 10, part)),
                sign * joint * off,
                sign * np.sqrt(2 * joint) * off,
            ]
        )


def inputs(dtype: type, options: argparse.Namespace) -> Iterator[np.ndarray]:
    """What is judged, chunk by chunk."""
    if dtype == np.float32:
        return float_inputs(options.stride, options.between)
    return double_inputs(options.samples)


def measure(judge: Judge, functions: list[impl.Function], options: argparse.Namespace) -> Results:
    """Run everything, on `options.threads` threads."""
    known = (np.float32, np.float64) if judge.wide else (np.float32,)
    dtypes = [dtype for dtype in known if options.dtype in (None, dtype.__name__)]
    counts = {
        np.float32: sum(
            -(-(high - low) // (CHUNK * options.stride))
            for low, high in float_ranges(options.between)
        ),
        np.float64: 2 + -(-options.samples // CHUNK),
    }
    total = sum(counts[dtype] for dtype in dtypes) * len(functions)
    results: Results = {}
    with ThreadPoolExecutor(options.threads) as pool, tqdm(total=total, unit="chunk") as bar:
        for dtype in dtypes:
            peer_step = options.peer_stride if dtype == np.float32 else 1
            for function in functions:
                computes = impl.implementations(function, dtype)

                def work(index, x, function=function, computes=computes, peer_step=peer_step):
                    want = judge.refer(function, x)
                    found = {}
                    for name, compute in computes.items():
                        step = 1 if name == "fastlayer" else peer_step
                        first = -index * CHUNK % step
                        with np.errstate(all="ignore"):
                            y = compute(np.ascontiguousarray(x[first::step]))
                        found[name] = judge.score(function, x, want, y, first, step)
                    return found

                bar.set_description(f"{function.title} {np.dtype(dtype)}")
                for found in bounded_map(pool, work, inputs(dtype, options), options.threads):
                    bar.update()
                    for name, verdict in found.items():
                        key = (function.title, str(np.dtype(dtype)), name)
                        results.setdefault(key, Verdict()).add(verdict)
    return results


def bounded_map(pool: ThreadPoolExecutor, work, chunks: Iterator[np.ndarray], threads: int):
    """`pool.map(work, ...)` that makes chunks only a little ahead of the threads."""
    waiting = []
    for item in enumerate(chunks):
        waiting.append(pool.submit(work, *item))
        if len(waiting) > 2 * threads:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def hashes(functions: list[impl.Function], options: argparse.Namespace) -> str:
    """SHA-256 of all of fastlayer's outputs, for float32 and for float64."""
    found = []
    for dtype in (np.float32, np.float64):
        digest = hashlib.sha256()
        for function in functions:
            compute = impl.implementations(function, dtype)["fastlayer"]
            for x in inputs(dtype, options):
                digest.update(compute(x).tobytes())
        found.append(digest.hexdigest())
    return " ".join(found)


def agreement(options: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """(instruction set, float32 hash, float64 hash), each from a process of its own."""
    command = [sys.executable, __file__, "--hash", "--stride", str(options.hash_stride)]
    command += ["--samples", str(options.samples)]
    if options.kind:
        command += ["--kind", options.kind]
    for name in options.only:
        command += ["--only", name]
    for isa in fl.show_config(mode="dicts")["isa"]["supported"]:
        environment = {**os.environ, "FASTLAYER_ISA": isa}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        float_hash, double_hash = done.stdout.split()
        yield isa, float_hash, double_hash


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--stride", type=int, default=1, help="take every N-th float32")
    add("--between", type=float, nargs=2, metavar="X", help="float32 of these magnitudes alone")
    add("--peer-stride", type=int, default=17, help="and of these every N-th for the peers")
    add("--hash-stride", type=int, default=1021, help="every N-th float32 for the hashes")
    add("--samples", type=int, default=2_000_000, help="number of float64 inputs")
    add("--quick", action="store_true", help="--stride 4099 --peer-stride 1 --samples 200000")
    add("--threads", type=int, default=min(os.cpu_count() or 1, 16))
    add("--only", action="append", default=[], metavar="NAME", help="this function (repeatable)")
    add("--kind", choices=("functions", "derivatives"), help="these alone")
    add("--dtype", choices=("float32", "float64"), help="this dtype alone")
    add("--hash", action="store_true", help="print the hashes for this instruction set, no tables")
    options = parser.parse_args()
    if options.quick:
        options.stride, options.peer_stride, options.samples = 4099, 1, 200_000
        options.hash_stride = 16411
    known = {"functions": impl.FUNCTIONS, "derivatives": impl.DERIVATIVES}
    kinds = [known[options.kind]] if options.kind else known.values()
    every = [function for kind in kinds for function in kind]
    titles = [function.title for function in every]
    if unknown := set(options.only) - set(titles):
        parser.error(f"no function {', '.join(unknown)}; there are: {'; '.join(titles)}")
    if min(options.stride, options.peer_stride, options.samples, options.threads) < 1:
        parser.error("strides, samples and threads are at least 1")
    functions = [f for f in every if not options.only or f.title in options.only]
    if options.hash:
        impl.versions()
        print(hashes(functions, options))
        return 0

    for name, version in impl.versions().items():
        if not version:
            print(f"{name} is not installed: left out", file=sys.stderr)
    judge = build()
    if not judge.wide:
        print("the C++ compiler lacks __float128 and libquadmath: no float64", file=sys.stderr)

    begun = time.monotonic()
    results = measure(judge, functions, options)
    seconds = time.monotonic() - begun
    report.stamp(results, options, judge.compiler, seconds)
    report.overview(results)
    same = report.instruction_sets(list(agreement(options)), options)
    if impl.versions()["ONNX Runtime"] and options.kind != "derivatives":
        report.gemm(impl.gemm_agreement())
    report.details(results)
    report.formulas(functions)
    lost = [key for key, v in results.items() if key[2] == "fastlayer" and v.nan_lost]
    if lost or not same:
        print(f"FAILED: NaN lost in {lost}, instruction sets agree: {same}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
