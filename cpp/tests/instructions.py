"""Counts the instructions of the tile kernels, so that a slower tile is seen without a clock.

    python instructions.py loops OBJDUMP OBJECT...       inner loops, as compiled
    python instructions.py calls VALGRIND PROGRAM        whole calls of AVX2 kernels, as executed

loops: the innermost loop of each tile<T, MR, P>, gradient_tile<T, MR, P> and strip<T, V, MR, N>
spills no vector, and has no more instructions than `bound` says. calls: what callgrind counts for a call is at most what CALLS
and ACTIVATIONS say; valgrind knows no AVX-512, so the core takes its AVX2 kernels there. Exits 1
where a bound is broken, and 77 where valgrind is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

REGISTERS = {"avx2": (16, 32), "avx512": (32, 64), "neon": (32, 16)}  # how many, and their bytes
LINE = 64  # bytes of a panel's line
SKIPPED = 77  # what ctest takes for a skipped test

# Batch, widths of a network, and the most instructions that a call may take: 5 % above what gcc 12
# makes of it. The call itself; single rows; narrow layers; the tile, which needs 2.2 for an FMA.
CALLS = (
    (1, (3, 8, 8, 3), 2_120),
    (1, (256, 256, 10), 18_200),
    (32, (64, 100, 10), 85_600),
    (56, (16, 64, 32, 32, 5), 84_100),
    (84, (256, 256, 256), 2_950_000),
)

# Rows, an activation, elements of a row, and the most instructions as above: rows that are lanes, rows that are taken a
# line at a time, a row by itself; pairs of vectors.
ACTIVATIONS = (
    (32, "softmax", 10, 8_150),
    (32, "softmax", 128, 32_900),
    (1, "softmax", 1024, 7_650),
    (32, "log_softmax", 128, 32_400),
    (1, "tanh", 4096, 31_900),
    (1, "gelu", 4096, 51_300),
    (1, "mish", 4096, 61_500),
)

FUNCTION = re.compile(r"[0-9a-f]+ <(.+)>:")
TILE = re.compile(
    r"fastlayer::(\w+)::\(anonymous namespace\)::"
    r"(tile|strip|gradient_tile)<(float|double), (?:fastlayer::[^,]+, )?(\d+), (\d+)"
)
INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)")
TARGET = re.compile(r"([0-9a-f]+) <")
FMA = re.compile(r"(vfn?m(add|sub)\d+p[sd]|fmla)$")
STACK = re.compile(r"\(%r[sb]p|\[sp")
VECTOR = re.compile(r"%[xyz]mm\d|\b[qds]\d")

Instruction = tuple[int, str, str]  # address, mnemonic, operands


@dataclass(frozen=True)
class Loop:
    """The innermost loop of a tile of `rows` rows, and so many panels, or vectors of a strip."""

    isa: str
    kind: str
    dtype: str
    rows: int
    width: int
    body: tuple[Instruction, ...]

    @property
    def fmas(self) -> int:
        return sum(bool(FMA.match(mnemonic)) for _, mnemonic, _ in self.body)

    @property
    def accumulators(self) -> int:
        """The FMAs that one step of the sum needs; the compiler may unroll several steps."""
        return self.rows * self.vectors

    @property
    def held(self) -> int:
        """Vectors that stay in registers for several steps."""
        if self.kind == "gradient_tile":
            return self.accumulators + self.vectors
        return self.accumulators + (self.rows if self.isa == "neon" else 0)

    @property
    def vectors(self) -> int:
        """Weight vectors of one step."""
        return self.width * (1 if self.kind == "strip" else LINE // REGISTERS[self.isa][1])

    @property
    def bound(self) -> int:
        """Instructions of one step.

        Each weight vector is loaded once and each x is broadcast once; each panel of a tile is
        prefetched, of a strip none; each row and each panel may need its address computed, as there
        are fewer general registers than those; two to advance, a counter and a branch are left. A
        single row has its weights as operands of the FMAs, but for NEON, which has none in memory.
        There several rows are read a vector at a time, as one lane of it is an operand. In the tile
        of a gradient x lies beside each other, and its panels are one run of vectors.
        """
        neon = self.isa == "neon" and self.kind != "gradient_tile"
        if self.rows == 1 and self.kind != "gradient_tile":
            return self.accumulators + self.width + 5 + (self.vectors if neon else 0)
        addresses = self.rows + self.width
        around = self.rows + addresses + 4
        if neon:
            around = -(-around // (4 if self.dtype == "float" else 2)) + 2 * self.width
        return self.accumulators + self.vectors + self.fetches + around

    @property
    def fetches(self) -> int:
        """Lines of weights that a step fetches ahead."""
        return self.width if self.kind == "tile" and self.rows > 1 else 0

    def problems(self) -> list[str]:
        steps, rest = divmod(self.fmas, self.accumulators)
        if rest or not steps:
            return [f"{self.fmas} FMAs, not a multiple of {self.accumulators}: not unrolled?"]
        found = []
        spills = [f"{op} {args}" for _, op, args in self.body if _touches_stack(args)]
        if spills:
            found.append(f"{len(spills)} vector spills, such as '{spills[0]}'")
        fetches = sum(mnemonic.startswith(("prefetch", "prfm")) for _, mnemonic, _ in self.body)
        if fetches != steps * self.fetches:
            found.append(f"{fetches} prefetches instead of {steps * self.fetches}")
        if len(self.body) > steps * self.bound:
            found.append(f"{len(self.body)} instructions, bound {steps * self.bound}")
        return found

    def __str__(self) -> str:
        share = f"{len(self.body) / self.fmas:.2f} instructions per FMA" if self.fmas else "no FMA"
        return f"{self.isa} {self.kind}<{self.dtype}, {self.rows}, {self.width}>: {share}"


def _touches_stack(operands: str) -> bool:
    return bool(STACK.search(operands) and VECTOR.search(operands))


def loops(disassembly: str) -> Iterator[Loop]:
    """The innermost loop with FMAs of each tile; of several the one with the most."""
    tile, body = None, []
    for line in [*disassembly.splitlines(), "0 <end>:"]:
        begins = FUNCTION.match(line)
        if begins:
            if tile:
                yield Loop(*tile.group(1, 2, 3), int(tile[4]), int(tile[5]), _innermost(body))
            tile, body = TILE.search(begins[1]), []
        elif tile and (found := INSTRUCTION.match(line)):
            body.append((int(found[1], 16), found[2], found[3]))


def _innermost(body: list[Instruction]) -> tuple[Instruction, ...]:
    index = {address: i for i, (address, _, _) in enumerate(body)}
    spans = []
    for i, (address, mnemonic, operands) in enumerate(body):
        jumps = mnemonic.startswith(("j", "b.", "cb", "tb"))
        target = TARGET.search(operands) if jumps else None
        begin = int(target[1], 16) if target else None
        if begin in index and begin <= address:
            span = (index[begin], i + 1)
            if any(FMA.match(op) for _, op, _ in body[slice(*span)]):
                spans.append(span)
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    count = {a: sum(bool(FMA.match(op)) for _, op, _ in body[slice(*a)]) for a in inner}
    return tuple(body[slice(*max(inner, key=count.__getitem__))]) if inner else ()


def check_loops(disassembly: str, isa: str) -> list[str]:
    """What is wrong with the tiles of one kernel file."""
    found = list(loops(disassembly))
    problems = [f"{loop}: {problem}" for loop in found for problem in loop.problems()]
    for kind, dtype in product(("tile", "strip", "gradient_tile"), ("float", "double")):
        same = [t for t in found if (t.kind, t.dtype) == (kind, dtype)]
        widest = max(same, key=lambda t: t.fmas, default=None)
        # else the search above has missed the tiles, or they leave a quarter of the registers
        if widest is None or widest.held < 0.75 * REGISTERS[isa][0]:
            problems.append(f"{isa}, {dtype}: no {kind} that fills the registers, but {widest}")
        else:
            print(f"{isa}, {dtype}: {len(same)} {kind}s; {widest}")
    return problems


def check_calls(valgrind: str, program: str) -> list[str]:
    problems = []
    for rows, activation, n, most in ACTIVATIONS:
        count = _of_one_call(valgrind, program, rows, activation, n)
        name = f"{activation} of {rows} x {n}"
        print(f"{name}: {count} instructions, {count / rows / n:.2f} an element; bound {most}")
        if not 0 < count <= most:
            problems.append(f"{name}: {count} instructions, bound {most}")
    for batch, sizes, most in CALLS:
        count = _of_one_call(valgrind, program, batch, *sizes)
        fmas = batch * sum(k * n for k, n in pairwise(sizes)) / 8
        name = f"{'-'.join(map(str, sizes))}, batch {batch}"
        print(f"{name}: {count} instructions, {count / fmas:.2f} for 8 products; bound {most}")
        if not 0 < count <= most:
            problems.append(f"{name}: {count} instructions, bound {most}")
    return problems


def _of_one_call(valgrind: str, program: str, *call: int | str) -> int:
    few, many = (_executed(valgrind, program, calls, *call) for calls in (2, 3))
    return many - few


def _executed(valgrind: str, program: str, calls: int, *call: int | str) -> int:
    command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", program]
    command += map(str, (calls, *call))
    # The bounds are those of AVX2, whatever the rest of the suite is told to run with.
    environment = os.environ | {"FASTLAYER_ISA": "avx2"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return int(found[1])


def main(task: str, tool: str, *files: str) -> int:
    if shutil.which(tool) is None:
        print(f"skipped: {tool} is missing")
        return SKIPPED
    problems = []
    if task == "calls":
        problems = check_calls(tool, *files)
    else:
        for file in files:
            command = [tool, "--disassemble", "--demangle", "--no-show-raw-insn", file]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            tiles = "fastlayer::{}::(anonymous namespace)::tile<"
            isa = next((name for name in REGISTERS if tiles.format(name) in text), None)
            problems += check_loops(text, isa) if isa else []
    for problem in problems:
        print(problem, file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
