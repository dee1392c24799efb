"""The compiled core by itself: what it refuses to build, what it declines to compute."""

import gc
import mmap
import os
import sys
import time
import weakref

import numpy as np
import pytest
from helpers import assert_same_bits

import fastlayer as fl
from fastlayer import _core

F4, F8 = np.float32, np.float64


def weights(n=3, k=4, dtype=F4):
    return _core.PackedWeights(np.ones((n, k), dtype), None)


def program(dtype="float32", k=4, finished=True):
    made = _core.Program(dtype, k)
    made.dense(weights(k=k, dtype=dtype))
    if finished:
        made.finish()
    return made


MISALIGNED = np.zeros(4 * 3 * 4 + 1, np.uint8)[1:].view(F4).reshape(3, 4)

REFUSED = {
    "a vector as weights": (lambda: _core.PackedWeights(np.ones(4, F4), None), "a 2-D array"),
    "a list as weights": (lambda: _core.PackedWeights([[1.0]], None), "a 2-D array"),
    "integer weights": (lambda: _core.PackedWeights(np.ones((3, 4), int), None), "expected float32"),
    "misaligned weights": (lambda: _core.PackedWeights(MISALIGNED, None), "misaligned"),
    "a bias of another size": (
        lambda: _core.PackedWeights(np.ones((3, 4), F4), np.ones(4, F4)), "one element for each",
    ),
    "a bias of another dtype": (
        lambda: _core.PackedWeights(np.ones((3, 4), F4), np.ones(3, F8)), "one element for each",
    ),
    "float16": (lambda: _core.Program("float16", 4), "expected float32 or float64"),
    "no such dtype": (lambda: _core.Program("float", 4), "expected float32 or float64"),
    "negative features": (lambda: _core.Program("float32", -1), "expected 0 or more"),
    "other weights": (lambda: program(finished=False).dense(weights(k=4)), "in_features differ"),
    "weights of another dtype": (
        lambda: program(finished=False).dense(weights(k=3, dtype=F8)), "different dtypes",
    ),
    "an operation after the end": (lambda: program().activation("relu"), "is finished"),
    "slopes of another size": (
        lambda: program(finished=False).prelu(np.ones(4, F4)), "one element for each feature",
    ),
    "a residual that was not begun": (
        lambda: program(finished=False).end_residual(), "without begin_residual",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    call, why = REFUSED[name]
    with pytest.raises(ValueError, match=why):
        call()


def test_residuals_begin_and_end_with_as_many_features():
    made = _core.Program("float32", 4)
    made.begin_residual()
    with pytest.raises(ValueError, match="begin_residual without end_residual"):
        made.finish()
    made.dense(weights(n=3, k=4))
    with pytest.raises(ValueError, match="residual: features differ"):
        made.end_residual()


def test_what_a_program_declines():
    run = program().run
    x = np.ones((5, 4), F4)
    assert_same_bits(run(x), np.full((5, 3), 4, F4))
    out = np.empty((5, 3), F4)
    assert run(x, out) is out
    assert program(finished=False).run(x) is None
    for declined in (x[:, :3], x.astype(F8).tolist(), np.float32(1), x.byteswap().view(">f4")):
        assert run(declined) is None
    for target in (out[:4], out.astype(F8), np.empty((5, 4), F4), out.T):
        assert run(x, target) is None
    for arguments in ((), (x, out, None)):
        with pytest.raises(TypeError, match="one or two positional arguments"):
            run(*arguments)


def test_a_program_is_stale_once_a_version_that_it_watches_has_moved():
    version, other = _core.Version(), _core.Version()
    made = program(finished=False)
    made.watch(version, version.value)
    made.watch(version, version.value)
    made.finish()
    run, x = made.run, np.ones((5, 4), F4)
    other.advance()
    expected = run(x)
    assert run("not mine") is None
    version.advance()
    for argument in (x, "not mine"):
        with pytest.raises(_core.Stale):
            run(argument)
    assert_same_bits(program().run(x), expected)


def test_a_version_that_moved_before_the_program_was_finished():
    version = _core.Version()
    seen = version.value
    version.advance()
    assert version.value != seen
    made = program(finished=False)
    made.watch(version, seen)
    made.finish()
    with pytest.raises(_core.Stale):
        made.run(np.ones((5, 4), F4))


def test_what_linear_declines():
    x, w = np.ones((5, 4), F4), np.ones((3, 4), F4)
    tail = ("identity", 0.0, 0.0, None, False)
    assert_same_bits(_core.linear(x, w, None, *tail), np.full((5, 3), 4, F4))
    for a, b, bias in (
        (x, w.astype(F8), None),
        (x[:, :3], w, None),
        (x, w[0], None),
        (x[0, 0], w, None),
        (x, w, np.ones(4, F4)),
        (x, w, np.ones(3, F8)),
        (x, w, np.ones((1, 3), F4)),
    ):
        assert _core.linear(a, b, bias, *tail) is None


def test_a_program_lives_as_long_as_its_function_and_no_longer():
    made = program()
    before = sys.getrefcount(made)
    run = made.run
    assert sys.getrefcount(made) == before + 1
    del run
    gc.collect()
    assert sys.getrefcount(made) == before


def test_a_network_that_is_dropped_is_freed():
    net = fl.Network([fl.Layer(4, 3)])
    net(np.ones((2, 4), F4))
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(sys.platform != "linux", reason="sizes of caches are read as Linux gives them")
def test_sizes_of_caches_are_the_system_s():
    folder = "/sys/devices/system/cpu/cpu0/cache"
    if not os.path.exists(f"{folder}/index0/size"):
        pytest.skip("the system does not say")

    def read(index, name):
        with open(f"{folder}/{index}/{name}", encoding="ascii") as file:
            return file.read().strip()

    sizes = {}
    for index in sorted(name for name in os.listdir(folder) if name.startswith("index")):
        if read(index, "type") != "Instruction":
            text = read(index, "size")
            sizes[f"l{read(index, 'level')}"] = int(text[:-1]) << (20 if text[-1] == "M" else 10)
    found = _core.config()["caches"]
    assert {level: found[level] for level in sizes if level in found} == sizes


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("m", [1, 3, 40])
def test_inputs_may_lie_in_memory_that_cannot_be_written(threads, tmp_path, dtype, m):
    """As a file that is mapped for reading: a write, even of the same bytes, ends the process."""
    rng = np.random.default_rng(3)
    k, n = 700, 1500  # enough to share the columns of a few rows among threads
    net = fl.Network(
        [fl.Layer(k, n, "relu", rng=1, dtype=dtype), fl.Layer(n, 5, rng=2, dtype=dtype)]
    )
    x = rng.standard_normal((m, k)).astype(dtype)
    path = tmp_path / "x"
    path.write_bytes(x.tobytes())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), x.nbytes, access=mmap.ACCESS_READ)
    locked = np.frombuffer(mapped, dtype).reshape(m, k)
    for _ in range(3):
        assert_same_bits(net(locked), net(x))
        assert_same_bits(net[0](locked), net[0](x))
        assert_same_bits(fl.linear(locked, net[0].weight), fl.linear(x, net[0].weight))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_helpers_may_run_anywhere_after_a_call(threads):
    """A sleeping helper is woken off the caller's core, and gets that core back when it is done."""
    net = fl.Network([fl.Layer(512, 512, "relu", rng=0)])
    x = np.ones((2000, 512), F4)
    for _ in range(3):
        net(x)
        time.sleep(0.005)  # helpers fall asleep
    allowed = os.sched_getaffinity(0)
    for _ in range(400):
        others = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
        if all(cores == allowed for cores in others):
            return
        time.sleep(0.01)
    pytest.fail(f"threads are bound to {others}, and the process to {allowed}")
