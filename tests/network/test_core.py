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
    "branches that were not begun": (
        lambda: program(finished=False).end_branches(), "without begin_branches",
    ),
    "a branch that was not begun": (
        lambda: program(finished=False).next_branch(), "without begin_branches",
    ),
    "another join": (lambda: program(finished=False).begin_branches("max"), "concat, add or mult"),
    "a negative total": (
        lambda: program(finished=False).begin_branches("concat", -1), "too many features",
    ),
    "a huge total": (
        lambda: program(finished=False).begin_branches("concat", 2**41), "too many features",
    ),
    "fewer inputs than features": (
        lambda: program(finished=False).set_inputs((1, 1)), "fewer features",
    ),
    "more inputs than features": (
        lambda: program(finished=False).set_inputs((1, 4)), "more features",
    ),
    "an input of less than nothing": (
        lambda: program(finished=False).set_inputs((-1, 4)), "more features",
    ),
    "fewer outputs than features": (
        lambda: program(finished=False).set_outputs((1, 1)), "fewer features",
    ),
    "a slice before the first": (lambda: program(finished=False).slice(-1, 2), "out of range"),
    "a slice backwards": (lambda: program(finished=False).slice(2, 1), "out of range"),
    "a slice behind the last": (lambda: program(finished=False).slice(0, 4), "out of range"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    call, why = REFUSED[name]
    with pytest.raises(ValueError, match=why):
        call()


@pytest.mark.parametrize("arguments", [(), (np.zeros((1, 3), F4), None, None)], ids=len)
def test_a_program_takes_one_or_two_arguments(arguments):
    with pytest.raises(TypeError, match="one or two positional"):
        program().run(*arguments)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_program_of_each_dtype_refuses(dtype):
    made = program(dtype, finished=False)
    ones, other = np.ones(3, dtype), F8 if dtype == "float32" else F4
    for vector in ([1.0] * 3, np.ones(3, other), np.ones((1, 3), dtype), np.ones(4, dtype)):
        with pytest.raises(ValueError, match="one element for each feature"):
            made.prelu(vector)
    for unfit, why in (
        (weights(k=4, dtype=dtype), "in_features"),
        (weights(k=3, dtype=other), "dtypes"),
    ):
        with pytest.raises(ValueError, match=why):
            made.dense(unfit)
    with pytest.raises(ValueError, match="without begin_branches"):
        made.end_branches()
    with pytest.raises(ValueError, match="unknown activation relo"):
        made.activation("relo")
    version = _core.Version()
    made.watch(version, version.value)
    x = np.ones((5, 4), dtype)
    assert made.run(x) is None
    made.finish()
    expected = made.run(x)
    for declined in (np.ones((), dtype), x.tolist(), x[:, :3]):
        assert made.run(declined) is None
    for later in (
        lambda: made.dense(weights(k=3, dtype=dtype)),
        lambda: made.activation("relu"),
        lambda: made.prelu(ones),
        lambda: made.affine(ones, ones),
        lambda: made.layer_norm(ones, ones, 1e-5),
        lambda: made.rms_norm(ones, 1e-5),
        lambda: made.begin_branches("add"),
        made.next_branch,
        made.end_branches,
        lambda: made.slice(0, 1),
        lambda: made.watch(version, version.value),
        made.finish,
    ):
        with pytest.raises(ValueError, match="is finished"):
            later()
    assert_same_bits(made.run(x), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_program_without_operations_copies(dtype):
    made = _core.Program(dtype, 4)
    made.finish()
    x = np.arange(20, dtype=dtype).reshape(5, 4)
    y = made.run(x)
    assert y is not x
    assert_same_bits(y, x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_branches_begin_and_end_with_as_many_features(dtype):
    for join, total in (("add", 0), ("multiply", 0), ("concat", 6)):
        made = _core.Program(dtype, 4)
        made.begin_branches(join, total)
        with pytest.raises(ValueError, match="begin_branches without end_branches"):
            made.finish()
        made.next_branch()
        made.dense(weights(n=3, k=4, dtype=dtype))
        for end in (made.next_branch, made.end_branches):
            with pytest.raises(ValueError, match="branches: features differ"):
                end()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_program_watches_several_versions(dtype, moved):
    versions = [_core.Version() for _ in range(3)]
    made = program(dtype, finished=False)
    for version in (*versions, versions[0]):
        made.watch(version, version.value)
    made.finish()
    x = np.ones((5, 4), dtype)
    assert_same_bits(made.run(x), np.full((5, 3), 4, dtype))
    versions[moved].advance()
    with pytest.raises(_core.Stale):
        made.run(x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_residuals_around_nothing_and_around_each_other(dtype):
    """What a residual adds is the input or the result so far, once more for each that ends here."""
    x = np.arange(20, dtype=dtype).reshape(5, 4)
    for before in (0, 1):
        made = _core.Program(dtype, 4)
        for _ in range(before):
            made.affine(np.full(4, 2, dtype), np.ones(4, dtype))
        start = 2 * x + 1 if before else x
        made.begin_branches("add")
        made.next_branch()
        made.end_branches()  # 2 start
        made.begin_branches("add")
        made.begin_branches("add")
        made.affine(np.full(4, 3, dtype), np.zeros(4, dtype))  # 6 start
        made.next_branch()
        made.end_branches()  # 8 start
        made.next_branch()
        made.end_branches()  # 10 start
        made.finish()
        assert_same_bits(made.run(x), 10 * start)
        assert_same_bits(made.run(x[:1]), 10 * start[:1])


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
    assert_same_bits(_core.linear(x, w, np.ones((1, 3), F4), *tail), np.full((5, 3), 5, F4))
    for a, b, bias in (
        (x, w.astype(F8), None),
        (x[:, :3], w, None),
        (x, w[0], None),
        (x[0, 0], w, None),
        (x, w, np.ones(4, F4)),
        (x, w, np.ones(3, F8)),
        (x, w, np.ones((3, 1), F4)),
        (x[0], w, np.ones((1, 3), F4)),
        (x, w, [1.0] * 3),
        (x.tolist(), w, None),
        (x, w.tolist(), None),
    ):
        assert _core.linear(a, b, bias, *tail) is None


def misaligned(a):
    moved = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    moved[...] = a
    return moved


@pytest.mark.parametrize("dtype", [F4, F8])
def test_what_functions_decline(dtype):
    other = F8 if dtype is F4 else F4
    x, w, b = np.ones((4, 5), dtype), np.ones((3, 4), dtype), np.ones((3, 1), dtype)
    tail = ("relu", 0.0, 0.0)
    for result in _core.dense_forward(x, w, b, *tail):
        assert_same_bits(result, np.full((3, 5), 5, dtype))
    for name in ("identity", "softmax"):
        assert _core.dense_forward(x, w, b, name, 0.0, 0.0)[0] is None
    for arguments in (
        (x.tolist(), w, b),
        (x, w.tolist(), b),
        (x, w, b.tolist()),
        (x.astype(other), w, b),
        (x, w, b.astype(other)),
        (x, w[0], b),
        (x[0, 0:1].reshape(()), w, b),
        (x[None], w, b),
        (x, w, b[:, 0]),
        (x[:3], w, b),
        (x, w, b[:2]),
        (x, w, np.ones((3, 5), dtype)),
        (x, misaligned(w), b),
    ):
        assert _core.dense_forward(*arguments, *tail) is None
    half = x.astype(np.float16)
    assert _core.dense_forward(half, w.astype(np.float16), b.astype(np.float16), *tail) is None
    with pytest.raises(ValueError, match="unknown activation relo"):
        _core.dense_forward(x, w, b, "relo", 0.0, 0.0)

    y = np.ones((5, 3), dtype)
    assert _core.linear(x.T, w, None, "identity", 0.0, 0.0, y, True) is y
    assert_same_bits(y, np.full((5, 3), 5, dtype))
    accumulated = ("identity", 0.0, 0.0)
    shared = np.ones((5, 4), dtype)
    assert _core.linear(shared, w, None, *accumulated, shared[:, :3], True) is None
    assert _core.linear(x.T, w, None, *accumulated, None, True) is None
    assert _core.linear(x.T, misaligned(w), None, *accumulated, None, False) is None

    stack = np.ones((2, 5, 4), dtype)
    assert_same_bits(_core.matmul(stack, x, None), np.full((2, 5, 5), 4, dtype))
    assert_same_bits(_core.matmul(stack, x[:, 0], None), np.full((2, 5), 4, dtype))
    assert_same_bits(_core.matmul(x[:, 0], x, None), np.full(5, 4, dtype))
    assert_same_bits(_core.dot(x[:, 0], x[:, 0], None), dtype(4))
    assert _core.dot(stack, stack.transpose(0, 2, 1), None) is None
    for left, right, out in (
        (stack, np.ones((3, 4, 5), dtype), None),
        (stack, misaligned(x), None),
        (stack, x.astype(other), None),
        (stack, x[:3], None),
        (stack[0, 0], x[:3], None),
        (stack, x[0], None),
        (np.ones((), dtype), x, None),
        (x[0], x[0].astype(other), None),
        (stack.tolist(), x, None),
        (stack, x.tolist(), None),
        (stack, x, np.empty((2, 5, 4), dtype)),
    ):
        assert _core.matmul(left, right, out) is None

    v = np.ones(5, dtype)
    for f in (_core.prelu, _core.bias_add):
        assert_same_bits(f(x, v, None), x if f is _core.prelu else x + x)
        with pytest.raises(TypeError, match="takes 3 positional arguments, got 2"):
            f(x, v)
        for left, right, out in (
            (x.tolist(), v, None),
            (x, v.tolist(), None),
            (x[0, 0:1].reshape(()), v, None),
            (x, v.astype(other), None),
            *([(x, v[None], None)] if f is _core.prelu else [(v, x, None)]),
            (x, v[:4], None),
            (x, v, np.empty((4, 4), dtype)),
        ):
            assert f(left, right, out) is None
    scalar = np.full((), -1, dtype)
    y = _core.activation("relu", scalar, 0.0, 0.0, None)
    assert type(y) is np.dtype(dtype).type
    assert y == 0
    assert _core.activation("relu", scalar, 0.0, 0.0, scalar) is scalar
    assert _core.activation("softmax", scalar, 0.0, 0.0, None) is None
    assert _core.activation("relu", x.tolist(), 0.0, 0.0, None) is None
    assert _core.activation("relu", x, 0.0, 0.0, x[:3]) is None


def test_activations_check_their_arguments_and_find_any_spelling_of_a_name():
    x = np.array([-1.0, 2.0])
    spelt = b"relu".decode()  # not the interned string
    assert_same_bits(_core.activation(spelt, x, 0, 0, None), np.array([0.0, 2.0]))
    for args in (("relu", x), ("relu", x, "0", 0.0, None), (1, x, 0.0, 0.0, None)):
        with pytest.raises(TypeError):
            _core.activation(*args)
    with pytest.raises(ValueError, match="unknown activation relo"):
        _core.activation("relo", x, 0.0, 0.0, None)


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
