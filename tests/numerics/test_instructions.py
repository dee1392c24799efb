"""The guard of the tile kernels (cpp/tests/instructions.py, run by ctest) sees what it is there for."""

import importlib.util
import pathlib
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "cpp/tests/instructions.py"
FMAS = [f"vfmadd231ps %ymm{12 + i % 2},%ymm14,%ymm{i}" for i in range(12)]
STEP = [
    "vmovups (%rdx),%ymm12",
    "vmovups 0x20(%rdx),%ymm13",
    "prefetcht0 (%rdx,%r10,1)",
    *(f"vbroadcastss -0x4(%rax,%r{8 + i},1),%ymm14" for i in range(6)),
    *FMAS,
    "add %rdi,%rdx",
    "add $0x4,%rax",
    "cmp %rcx,%rbx",
]


@pytest.fixture(scope="module")
def guard():
    spec = importlib.util.spec_from_file_location("instructions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["instructions"] = module  # dataclasses look there for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["instructions"]


def disassembly(step, dtype="float", kind="tile"):
    """A tile of 6 rows and 1 panel, as objdump prints it: `step` in a loop, stores after it."""
    space = "fastlayer::avx2::(anonymous namespace)::"
    shape = f"{space}Vec<{dtype}>, 6, 2" if kind == "strip" else "6, 1"
    name = f"void {space}{kind}<{dtype}, {shape}>(TileArgs const&)"
    lines = ["push %rbp", "vmovups %ymm0,0x8(%rsp)", *step, f"jne 102 <{name}+0x2>", "ret"]
    body = [f"  {0x100 + i:x}:\t{line.replace(' ', '   ', 1)}" for i, line in enumerate(lines)]
    return "\n".join([f"0000000000000100 <{name}>:", *body, ""])


def both(step):
    """In every function that the guard looks for; only tiles have the prefetch."""
    others = [line for line in step if not line.startswith("prefetch")]
    return "\n".join(
        disassembly(lines, dtype, kind)
        for kind, lines in (("tile", step), ("strip", others), ("gradient_tile", others))
        for dtype in ("float", "double")
    )


def test_a_good_tile_passes(guard, capsys):
    assert guard.check_loops(both(STEP), "avx2") == []
    printed = capsys.readouterr().out
    assert "avx2 tile<float, 6, 1>: 2.08 instructions per FMA" in printed
    assert "avx2 strip<float, 6, 2>: 2.00 instructions per FMA" in printed


def test_steps_may_be_unrolled(guard):
    assert guard.check_loops(both(STEP[:-1] * 2 + STEP[-1:]), "avx2") == []


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ([*STEP, "vmovups %ymm3,0x40(%rsp)"], "1 vector spills"),
        ([*STEP, "vmovups 0x40(%rsp),%ymm3"], "1 vector spills"),
        ([*STEP, *["mov %rax,%rcx"] * 12], "37 instructions, bound 32"),
        ([*STEP, FMAS[0]], "13 FMAs, not a multiple of 12"),
        (STEP[:9], "0 FMAs"),
    ],
    ids=["spill", "reload", "moves", "odd", "no FMA"],
)
def test_a_worse_tile_fails(guard, step, message):
    problems = guard.check_loops(both(step), "avx2")
    assert any("tile<float" in p and message in p for p in problems)
    assert any("tile<double" in p and message in p for p in problems)


def test_tiles_that_are_not_found_fail(guard):
    for kind in ("::tile<", "strip<", "gradient_tile<"):
        assert kind in both(STEP)
        assert len(guard.check_loops(both(STEP).replace(kind, " other<"), "avx2")) == 2


def test_strips_fetch_nothing(guard):
    problems = guard.check_loops(disassembly([*STEP, *STEP[2:3] * 9], kind="strip"), "avx2")
    assert any("strip<float" in p and "bound" in p for p in problems)


def test_a_missing_tool_is_a_skip(guard, capsys):
    assert guard.main("calls", "no-such-valgrind", "program") == guard.SKIPPED
    assert "no-such-valgrind is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [([], None), (["str q9, [sp, #112]"], "vector spills"), (["ldr x9, [sp, #112]"], None)],
    ids=["good", "spill", "an address"],
)
def test_a_tile_of_neon(guard, more, message):
    name = "void fastlayer::neon::(anonymous namespace)::tile<float, 5, 1>(TileArgs const&)"
    step = [f"fmla v{7 + i}.4s, v{i % 4}.4s, v4.s[0]" for i in range(20)]
    step.append("prfm pldl1keep, [x2]")
    loop = ["ldp q0, q1, [x1]", *(step * 4), "add x1, x1, #0x100", *more, f"b.ne 100 <{name}>"]
    body = [f"  {0x100 + i:x}:\t{line.replace(' ', '  ', 1)}" for i, line in enumerate(loop)]
    problems = guard.check_loops("\n".join([f"0100 <{name}>:", *body, ""]), "neon")
    found = [p for p in problems if "tile<float" in p]
    assert len(found) == bool(message)
    assert all(message in p for p in found)
