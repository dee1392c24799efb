"""Memory: out of it, too much of it, none of it lost; references come back.

The long run is ``HYPOTHESIS_PROFILE=long pytest tests/process/test_memory.py``: 10^6 calls and 10^4 loads.
"""

import contextlib
import gc
import os
import sys

import numpy as np
import pytest
from helpers import LONG
from preloaded import SANITIZED, compiled, run_preloaded

import fastlayer as fl

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, preloads a library")


@pytest.fixture
def net():
    return fl.Network([fl.Layer(30, 20, "relu", rng=0), fl.Layer(20, 10, "softmax", rng=1)])


# --- out of memory


@LINUX
@pytest.mark.skipif(SANITIZED, reason="the sanitizer's malloc is preloaded")
def test_every_allocation_that_fails_is_a_memory_error(tmp_path):
    library = compiled("failing_malloc", tmp_path)
    said = run_preloaded(library, "out_of_memory.py", PYTHONMALLOC="malloc")
    assert said.count("failures") == 23


# --- sizes that overflow


def wide(*shape):
    """An array of any size in the memory of one element."""
    return np.broadcast_to(np.float32(1), shape)


HUGE = [2**40 + 1, 2**52, 2**58, 2**60]


@pytest.mark.parametrize("k", HUGE)
def test_rows_that_no_memory_could_hold_are_refused(k):
    calls = [
        lambda: fl.linear(wide(k), wide(3, k)),
        lambda: fl.linear(wide(20, k), wide(1, k)) if k < 2**56 else fl.linear(wide(k), wide(1, k)),
        lambda: fl.matmul(wide(1, k), wide(k, 1)),
        lambda: fl.dot(wide(k), wide(k)),
        lambda: fl.relu(wide(1, k)),
        lambda: fl.softmax(wide(1, k)),
        lambda: fl.Layer.from_arrays(wide(1, k)),
        lambda: fl.Layer.from_arrays(wide(k, 1)),
        lambda: fl.Layer(1, k, init="zeros"),
    ]
    for call in calls:
        with pytest.raises((MemoryError, ValueError)):
            call()


def test_results_that_no_memory_could_hold_are_refused(net):
    many = wide(2**50, 30)
    for call in (net, net.layers[0], net.predict, lambda x: net(x.T, axis=0), lambda x: fl.tanh(x)):
        with pytest.raises(MemoryError):
            call(many)
    for call in (lambda: fl.linear(wide(2**30, 1), wide(2**30, 1)),
                 lambda: fl.matmul(wide(2**30, 1), wide(1, 2**30)),
                 lambda: fl.bias_add(wide(2**30, 1), wide(2**30))):  # fmt: skip
        with pytest.raises(MemoryError):
            call()
    assert net(np.ones((2, 30), np.float32)).shape == (2, 10)


# --- references


class Boom(Exception):
    pass


def boom(z):
    raise Boom


def test_references_come_back(net):
    """After calls that work and calls that raise, every argument is held by as many as before."""
    x, w, b = np.ones((4, 30), np.float32), np.ones((20, 30), np.float32), np.ones(20, np.float32)
    out, small = np.empty((4, 20), np.float32), np.empty((4, 10), np.float32)
    wrong, turned = np.empty((3, 3)), np.empty((20, 4), np.float32).T
    dtype, name = x.dtype, "softplus"
    layer = net.layers[0]
    failing = fl.Network([layer, boom])

    calls = [
        lambda: fl.linear(x, w, b, name),
        lambda: fl.linear(x, w, b, out=out),
        lambda: fl.linear(x, w, b, out=turned),
        lambda: fl.linear(x, w, b, out=wrong),
        lambda: fl.linear(x, b),
        lambda: fl.linear(x, w, b, boom),
        lambda: fl.linear(x.astype(complex), w),
        lambda: fl.matmul(x, w.T, out=out),
        lambda: fl.matmul(x, w),
        lambda: fl.matmul(x[:, :20], w[:, :20].copy(), out=out),
        lambda: fl.dot(x, w[0]),
        lambda: fl.dense_forward(x.T, w, b, name),
        lambda: fl.dense_forward(x.T, w, b[:, None], name),
        lambda: fl.bias_add(out, b, out=out),
        lambda: fl.relu(x, out=x),
        lambda: fl.softmax(x, out=wrong),
        lambda: fl.activation_backward(x, x, name, out=x),
        lambda: fl.activation_backward(1.0, x, "softmax"),
        lambda: fl.activation_backward(1.0, x, boom),
        lambda: fl.activation_backward(1.0, x, (boom, boom)),
        lambda: fl.linear_backward(out, x, w),
        lambda: fl.linear_backward(out, x, w, out=(None, wrong, None)),
        lambda: fl.dense_backward(out.T, x.T, w, out=(None, None, b[:, None])),
        lambda: layer(x),
        lambda: layer(x, out=out),
        lambda: layer(x, out=wrong),
        lambda: layer(x.astype(int)),
        lambda: layer.update(weight=w, bias=b),
        lambda: layer.update(weight=x),
        lambda: net(x, out=small),
        lambda: net(x, out=x),
        lambda: net(x.T, axis=0),
        lambda: net(w.T),
        lambda: failing(x),
        lambda: net.predict([x, x]),
        lambda: net.predict(x, batch_size=3, out=small),
        lambda: fl.Layer.from_arrays(w, b),
        lambda: fl.Layer.from_arrays(w, x),
    ]
    held = [x, w, b, out, small, wrong, turned, dtype, name, layer, net, failing, None, boom]

    def counts():
        gc.collect()
        return [sys.getrefcount(v) for v in held]

    gc.collect()
    gc.freeze()  # what other tests left need not be looked through each time

    for call in calls:
        for warm in (True, False):
            before = counts()
            for _ in range(100):
                with contextlib.suppress(ValueError, TypeError, Boom):
                    call()
            after = counts()
            if not warm:  # the first time fills caches
                # None and the dtype are everybody's: a few more or less are not ours.
                assert max(abs(a - b) for a, b in zip(after, before, strict=True)) < 50
    gc.unfreeze()


# --- nothing is lost


def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def growth(call, count):
    """How many bytes `count` calls left behind, after a tenth of them to warm up."""
    for _ in range(count // 10):
        call()
    before = resident()
    for _ in range(count):
        call()
    return resident() - before


@LINUX
@pytest.mark.skipif(SANITIZED, reason="the sanitizer keeps what is freed for a while")
def test_calls_leave_nothing_behind(net):
    x = np.ones((3, 30), np.float32)
    w = np.ones((20, 30), np.float32)
    wrong = np.ones((3, 31), np.float32)

    def refused(call, *arrays):
        with pytest.raises(ValueError, match=r"\("):
            call(*arrays)

    count = 1_000_000 if LONG else 20_000
    assert growth(lambda: net(x), count) < 1 << 20
    assert growth(lambda: fl.linear(x, w, None, "tanh"), count) < 1 << 20
    assert growth(lambda: net(x.astype(np.int64)), count // 10) < 1 << 20
    assert growth(lambda: refused(net, wrong), count // 10) < 1 << 20
    assert growth(lambda: refused(fl.linear, x, wrong), count // 10) < 1 << 20


@LINUX
@pytest.mark.skipif(SANITIZED, reason="the sanitizer keeps what is freed for a while")
def test_loading_and_building_leave_nothing_behind(net, tmp_path):
    path = tmp_path / "net.npz"
    net.save(path)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(path.read_bytes()[:-100])
    x = np.ones((3, 30), np.float32)

    def refused():
        with pytest.raises(fl.ModelFileError):
            fl.load(damaged)

    count = 10_000 if LONG else 200
    assert growth(lambda: fl.load(path)(x), count) < 1 << 20
    assert growth(refused, count) < 1 << 20
    assert growth(lambda: fl.Network([fl.Layer(300, 200, rng=0)])(np.ones(300)), count) < 1 << 20
