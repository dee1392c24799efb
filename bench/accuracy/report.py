"""The Markdown that run.py prints."""

from __future__ import annotations

import argparse
import math
import platform
from pathlib import Path

import implementations as impl
import numpy as np
from judge import Verdict

import fastlayer as fl

Results = dict[tuple[str, str, str], Verdict]  # function, dtype, implementation
FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "asimd", "asimdhp")


def table(columns: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table, with an empty line after it."""
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(row) + " |")
    print()


def processor() -> tuple[str, str]:
    """Its name and those of its flags that matter here."""
    found = {}
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    flags = found.get("flags", found.get("Features", "")).split()
    name = found.get("model name") or platform.processor() or platform.machine()
    return name, " ".join(flag for flag in FLAGS if flag in flags)


def stamp(results: Results, options: argparse.Namespace, compiler: str, seconds: float) -> None:
    """Where the numbers come from."""
    config = fl.show_config(mode="dicts")
    name, flags = processor()
    ours = -(-(1 << 32) // options.stride)
    floats = "2^32" if options.stride == 1 else f"{ours:,}, one in {options.stride}"
    if options.between:
        low, high = options.between
        ours = max(v.count for key, v in results.items() if key[1] == "float32")
        floats = f"{ours:,} with {low:g} <= abs(x) < {high:g}, one in {options.stride}"
    if options.peer_stride > 1:
        step = options.stride * options.peer_stride
        floats += f"; peers {-(-ours // options.peer_stride):,}, one in {step}"
    doubles = max((v.count for key, v in results.items() if key[1] == "float64"), default=0)
    versions = ", ".join(f"{n} {v or 'not installed'}" for n, v in impl.versions().items())
    libc = " ".join(platform.libc_ver())
    table(
        ["measured with", ""],
        [
            ["versions", versions],
            ["Python, reference", f"{platform.python_version()}; {libc}, {compiler}"],
            ["fastlayer built by", config["build"]["compiler"]],
            ["processor", name],
            ["flags", flags],
            ["instruction set", f"{config['isa']['active']} (FASTLAYER_ISA chooses)"],
            ["float32 inputs", floats],
            ["float64 inputs", f"{doubles:,}" if doubles else "not judged"],
            ["time", f"{seconds / 60:.1f} minutes, {options.threads} threads"],
        ],
    )


def ulp(value: float) -> str:
    if value == np.inf:
        return "inf"
    return f"{value:.3f}" if value < 1000 else f"{value:.2g}"


def overview(results: Results) -> None:
    """One table for each dtype: the largest error of everybody. Derivatives have their own."""
    zeros = {f.title for f in impl.DERIVATIVES if not math.isnan(f.zero)}
    slopes = {f.title for f in impl.DERIVATIVES}
    for kind, titles, unit in (
        ("", {f.title for f in impl.FUNCTIONS}, "worst"),
        (" of derivatives", slopes, "worst"),
        (" of derivatives next to their zeros", zeros, "at_zero"),
    ):
        some = {key: getattr(v, unit) for key, v in results.items() if key[0] in titles}
        for dtype in dict.fromkeys(key[1] for key in some):
            eps = "in eps" if unit == "at_zero" else "in ULP"
            print(f"### Largest error{kind} {eps}, {dtype}\n")
            names = [name for name in impl.versions() if any(key[2] == name for key in some)]
            rows = []
            for title in dict.fromkeys(key[0] for key in some):
                found = [some.get((title, dtype, name)) for name in names]
                best = min(error for error in found if error is not None)
                cells = ["-" if error is None else ulp(error) for error in found]
                cells = [
                    f"**{c}**" if error == best else c
                    for c, error in zip(cells, found, strict=True)
                ]
                rows.append([title, *cells])
            table(["function", *names], rows)


def details(results: Results) -> None:
    """Everything that was counted."""
    print("### Everything\n")
    rows = []
    for (title, dtype, name), v in results.items():
        at = "-"
        if v.worst:
            at = f"{v.at:.9g}" if dtype == "float32" else f"{v.at:.17g}"
        numbers = [ulp(v.worst), at, ulp(v.near), ulp(v.mean), f"{100 * v.share:.3f} %"]
        rows.append([title, dtype, name, *numbers, f"{v.nan_lost:,}"])
    columns = ["function", "dtype", "implementation", "max ULP", "where", "max ULP near"]
    table([*columns, "mean ULP", "correctly rounded", "NaN lost"], rows)


def instruction_sets(found: list[tuple[str, str, str]], options: argparse.Namespace) -> bool:
    """The hashes of the outputs; True if all instruction sets have the same."""
    same = len({(floats, doubles) for _, floats, doubles in found}) == 1
    print("### The instruction sets agree\n" if same else "### The instruction sets DIFFER\n")
    print(
        f"SHA-256 of all of fastlayer's results, every function: float32, one pattern in"
        f" {options.hash_stride}, NaN included, and all float64 inputs; the first 16 digits.\n"
    )
    table(["FASTLAYER_ISA", "float32", "float64"], [[i, f[:16], d[:16]] for i, f, d in found])
    return same


def gemm(rows: list[list[str]]) -> None:
    """Information, not a promise: how ONNX Runtime's Gemm compares."""
    print("### float32 Gemm of ONNX Runtime: share of outputs with the bits of fl.linear\n")
    table(["k", "n", "one row", "2 to 64 rows", "2 to 64 rows, weights as input"], rows)


def formulas(functions: list[impl.Function]) -> None:
    """What exactly ran."""
    print("### The formulas\n")
    for kind, last, field in (
        (impl.FUNCTIONS, "ONNX Runtime (TYPE: float or double)", "onnx"),
        (impl.DERIVATIVES, "JAX", "jax"),
    ):
        rows = []
        for f in kind:
            if f in functions:
                cells = (f.fastlayer, f.numpy, f.torch, getattr(f, field))
                rows.append([f.title, *(f"`{cell}`" if cell else "-" for cell in cells)])
        if rows:
            table(["function", "fastlayer", "NumPy", "PyTorch", last], rows)
