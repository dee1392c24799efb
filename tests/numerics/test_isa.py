"""FASTLAYER_ISA is honoured or an error; and nothing but kernels needs more than plain x86-64."""

import os
import platform
import re
import subprocess
import sys

import pytest
from helpers import ISA_NAMES, available_isas

import fastlayer as fl
from fastlayer import _core


def imported_with(isa):
    code = (
        "import numpy as np, fastlayer as fl;"
        "layer = fl.Layer.from_arrays(np.ones((3, 5)));"
        "assert (layer(np.ones(5)) == 5).all();"
        "print(fl.show_config(mode='dicts')['isa']['active'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "FASTLAYER_ISA"}
    if isa is not None:
        environment["FASTLAYER_ISA"] = isa
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("isa", [None, "", *available_isas()])
def test_a_supported_name_is_active_and_none_is_the_best(isa):
    done = imported_with(isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (isa or available_isas()[0])


UNSUPPORTED = [name for name in ISA_NAMES if name not in available_isas()]
assert UNSUPPORTED  # nobody has NEON and AVX


@pytest.mark.parametrize(
    "isa",
    [
        *UNSUPPORTED,
        "sse42",
        "AVX2",
        "Scalar",
        " scalar",
        "scalar ",
        "scalar,avx2",
        "avx2 scalar",
        "0",
        "none",
        "x" * 5000,
    ],
    ids=lambda isa: isa[:20] or "empty",
)
def test_any_other_value_is_an_error_at_import_that_lists_the_names(isa):
    done = imported_with(isa)
    assert done.returncode == 1, done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert f"FASTLAYER_ISA={isa} is not" in last
    assert last.endswith(f"available: {', '.join(available_isas())}")


def test_the_variable_counts_at_import_and_not_later(monkeypatch):
    active = fl.show_config(mode="dicts")["isa"]["active"]
    monkeypatch.setenv("FASTLAYER_ISA", "sse42")
    assert fl.show_config(mode="dicts")["isa"]["active"] == active
    assert fl.relu(-1.0) == 0


# --- instructions outside the kernels

X86 = platform.machine() in ("x86_64", "AMD64")
VECTOR = re.compile(r"[yz]mm|^v(?!er[rw]\b|mcall|mlaunch|mxo)|%k[0-7]\b")


def instructions(binary):
    """(address, instruction) of everything that objdump finds."""
    command = ["objdump", "-d", "--no-show-raw-insn", binary]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for match in re.finditer(r"^\s*([0-9a-f]+):\s+(\S.*)$", text, re.MULTILINE):
        yield int(match[1], 16), match[2]


def unwind_ranges(binary):
    """(begin, end) of every function with unwind tables: all functions but the kernels."""
    command = ["readelf", "--debug-dump=frames", binary]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [
        (int(begin, 16), int(end, 16))
        for begin, end in re.findall(r"FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)", text)
    ]


def initialisers(binary):
    """The functions that run when the library is loaded, before anybody asks the processor."""
    run = ["readelf", "-W", "-S", "-r", binary]
    text = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    section = re.search(r"\.init_array\s+INIT_ARRAY\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)", text)
    low, size = (int(v, 16) for v in section.groups())
    relocations = re.findall(r"^([0-9a-f]+)\s.*R_X86_64_RELATIVE\s+([0-9a-f]+)", text, re.MULTILINE)
    return [int(to, 16) for at, to in relocations if low <= int(at, 16) < low + size]


@pytest.mark.skipif(not X86 or sys.platform != "linux", reason="x86-64 and ELF only")
def test_no_code_outside_the_kernels_needs_avx():
    """Kernels are compiled without unwind tables, everything else has them."""
    code = list(instructions(_core.__file__))
    ranges = unwind_ranges(_core.__file__)
    assert len(ranges) > 300
    starts = sorted(ranges)
    outside, kernels, i = [], 0, 0
    for address, instruction in code:
        while i < len(starts) and address >= starts[i][1]:
            i += 1
        vector = VECTOR.search(instruction) is not None
        if i < len(starts) and starts[i][0] <= address:
            if vector:
                outside.append(f"{address:x}: {instruction}")
        else:
            kernels += vector
    assert not outside
    assert kernels > 10_000  # else the kernels were not told apart


@pytest.mark.skipif(not X86 or sys.platform != "linux", reason="x86-64 and ELF only")
def test_nothing_that_runs_at_load_needs_avx():
    entries = initialisers(_core.__file__)
    assert entries
    code = list(instructions(_core.__file__))
    at = {address: i for i, (address, _) in enumerate(code)}
    for entry in entries:
        for _, instruction in code[at[entry] :]:
            assert not VECTOR.search(instruction), f"{entry:x}: {instruction}"
            if instruction.split()[0] in ("ret", "retq", "jmp", "jmpq"):
                break
