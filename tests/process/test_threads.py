"""Calls from many threads, limits that are set, and the end of the interpreter."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from helpers import assert_same_bits, few_or_many
from own_process import PATIENCE, WARM, finish, run_python

import fastlayer as fl
from fastlayer import _core

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no /proc")


# --- many callers


@needs_proc
@pytest.mark.parametrize("calls", few_or_many(3_200, 100_000))
def test_one_network_called_from_64_threads(calls):
    """No call is wrong, and there is one thread of the system for each caller, and one team."""
    code = f"""{WARM}
batches = [1, 2, 7, 33, 64, 256, 512]
right = [net(x[:m]) for m in batches]
assert settled(1 + 3 * _core.config()["openmp"])
alone = os_threads()
start, wrong, most = threading.Barrier(65), [], [0]
def call(first):
    start.wait()
    for i in range(first, first + {calls} // 64):
        which = i % len(batches)
        y = net(x[: batches[which]])
        if y.tobytes() != right[which].tobytes():
            wrong.append(i)
        most[0] = max(most[0], os_threads() if i % 50 == 0 else 0)
callers = [threading.Thread(target=call, args=(7 * t,)) for t in range(64)]
for caller in callers:
    caller.start()
start.wait()
for caller in callers:
    caller.join()
print(len(wrong), alone, most[0])
"""
    wrong, alone, most = map(int, run_python(code, patience=4 * PATIENCE).split())
    assert wrong == 0
    assert most <= alone + 64  # alone: the caller and three helpers


def test_callers_with_numbers_of_their_own_while_layers_change(rng):
    """Threads of every number, layers that are replaced: each result is one of the two there are."""
    layers = [fl.Layer(96, 200, "relu", rng=0), fl.Layer(200, 10, rng=1)]
    net = fl.Network(layers)
    x = rng.standard_normal((300, 96), dtype=np.float32)
    weights = [layers[0].weight.copy(), -layers[0].weight]
    results = []
    for weight in weights:
        layers[0].weight = weight
        results.append(net(x).tobytes())
    wrong, ending = [], threading.Event()

    def call(n):
        with fl.num_threads(n):
            for _ in range(60):
                if net(x).tobytes() not in results:
                    wrong.append(n)

    def update():
        while not ending.is_set():
            for weight in weights:
                layers[0].weight = weight

    callers = [threading.Thread(target=call, args=(n,)) for n in (1, 2, 3, 5)]
    updater = threading.Thread(target=update)
    for thread in (*callers, updater):
        thread.start()
    for thread in callers:
        thread.join()
    ending.set()
    updater.join()
    assert not wrong


def test_an_exception_in_the_caller_leaves_the_network_as_it_was(rng):
    """A function of the user that raises, in the middle of a network, on any thread."""
    raising = True

    def activation(z):
        if raising:
            raise ZeroDivisionError("on purpose")
        return np.maximum(z, 0)

    net = fl.Network([fl.Layer(64, 256, activation, rng=0), fl.Layer(256, 256, rng=1)])
    x = rng.standard_normal((2000, 64), dtype=np.float32)
    caught = []

    def call():
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            net(x)
        caught.append(1)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caught) == 4
    raising = False
    same = fl.Network([fl.Layer(64, 256, "relu", rng=0), fl.Layer(256, 256, rng=1)])
    assert_same_bits(net(x), same(x))


# --- limits


@needs_proc
@pytest.mark.parametrize(
    ("setting", "before", "helpers"),
    [
        ({"FASTLAYER_NUM_THREADS": "1"}, "", 0),
        ({"OMP_NUM_THREADS": "1"}, "", 0),
        ({}, "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})", 0),
        ({"OMP_NUM_THREADS": "1"}, "fl = __import__('fastlayer'); fl.set_num_threads(3)", 2),
    ],
)
def test_no_more_threads_are_started_than_allowed(setting, before, helpers):
    code = f"""
import os
{before}
{WARM.replace("fl.set_num_threads(4)", "")}
for _ in range(100):
    digest()
print(os_threads())
"""
    clean = {"FASTLAYER_NUM_THREADS": None, "OMP_NUM_THREADS": None}
    alone = 1 + helpers * _core.config()["openmp"]
    assert int(run_python(code, env={**clean, **setting})) == alone


def test_threadpoolctl_limits_the_calling_thread():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if not _core.config()["openmp"]:
        pytest.skip("built without OpenMP")
    before = fl.get_num_threads()
    net = fl.Network([fl.Layer(256, 256, "relu", rng=0)])
    x = np.ones((512, 256), np.float32)
    y = net(x)
    fl.set_num_threads(4)
    try:
        with threadpoolctl.threadpool_limits(1):
            assert fl.get_num_threads() == 1
            regions = _core.stats()["parallel_regions"]
            assert_same_bits(net(x), y)
            assert _core.stats()["parallel_regions"] == regions
            assert fl.show_config(mode="dicts")["threads"] == {
                "count": 1,
                "source": "OpenMP's limit of this thread",
            }
            with fl.num_threads(3):  # a limit on top of a limit
                assert fl.get_num_threads() == 1
            seen = []
            thread = threading.Thread(target=lambda: seen.append(fl.get_num_threads()))
            thread.start()
            thread.join()
            assert seen == [4]
        assert fl.get_num_threads() == 4
        with threadpoolctl.threadpool_limits(3, user_api="openmp"):
            assert fl.get_num_threads() == 3
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            assert fl.get_num_threads() == 4
        with threadpoolctl.threadpool_limits(64):  # no invitation to more
            assert fl.get_num_threads() == 4
    finally:
        fl.set_num_threads(before)


def test_one_num_threads_object_in_two_threads():
    """Each thread finds again what it had."""
    before, shared = fl.get_num_threads(), fl.num_threads(5)
    inside, leave, seen = threading.Event(), threading.Event(), []

    def other():
        with fl.num_threads(7):
            with shared:
                inside.set()
                leave.wait()
            seen.append(fl.get_num_threads())

    thread = threading.Thread(target=other)
    with shared:
        thread.start()
        inside.wait()
    assert fl.get_num_threads() == before
    leave.set()
    thread.join()
    assert seen == [7]


# --- the end of the interpreter

EXITS = {
    "tiny calls": "net(x[:1])",
    "calls without the GIL": "net(x)",
    "long calls": "net(big)",
    "functions": "fl.matmul(x, x.T); fl.gelu(x)",
}


@pytest.mark.parametrize("count", few_or_many(1, 50))
@pytest.mark.parametrize("work", EXITS)
def test_exit_with_daemon_threads_inside_calls(work, count):
    code = f"""{WARM}
import random
big = np.broadcast_to(x[0], (20_000, 256))
begun = threading.Barrier(5)
def forever():
    begun.wait()
    while True:
        {EXITS[work]}
for _ in range(4):
    threading.Thread(target=forever, daemon=True).start()
begun.wait()
time.sleep(random.random() / 20)
"""
    for _ in range(count):
        done = finish(code)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_exit_lets_calls_that_have_begun_end():
    """Python waits for them at its end, and calls that come later keep the GIL."""
    code = f"""{WARM}
big = np.broadcast_to(x[0], (200_000, 256))
out = np.full((200_000, 16), np.nan, np.float32)
def check():
    print(not np.isnan(out).any(), digest() == expected)
thread = threading.Thread(target=lambda: net(big, out=out), daemon=True)
thread.start()
while np.isnan(out[0, 0]):
    pass
"""
    # Registered before the package, so that it runs after the package's own function.
    before = "import atexit\natexit.register(lambda: check())\n"
    assert run_python(before + code) == "True True"
