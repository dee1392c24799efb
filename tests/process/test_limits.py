"""fastlayer.num_threads in tasks, greenlets, generators and copies of the context."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import sys
import threading

import numpy as np
import pytest

import fastlayer as fl
from fastlayer import _core

EVERYWHERE = 6
NET = fl.Network([fl.Layer(256, 256, "relu", rng=0), fl.Layer(256, 16, rng=1)])
ROWS = np.linspace(-1, 1, 8192 * 256, dtype=np.float32).reshape(8192, 256)


@pytest.fixture(autouse=True)
def six_threads():
    before = fl.get_num_threads()
    fl.set_num_threads(EVERYWHERE)
    yield
    assert fl.get_num_threads() == EVERYWHERE
    fl.set_num_threads(before)


def orders(blocks):
    """Every order in which so many blocks can begin and end: block i twice in each."""
    return sorted(set(itertools.permutations(sorted([*range(blocks)] * 2))))


@pytest.mark.parametrize("order", orders(3), ids=lambda order: "".join(map(str, order)))
def test_tasks_in_every_order(order):
    """Each of three tasks has its own limit, whichever begins or ends first."""
    turns = {(task, nth): asyncio.Event() for task in range(3) for nth in range(2)}
    seen = {task: [] for task in range(3)}

    async def run(task):
        await turns[task, 0].wait()
        seen[task].append(fl.get_num_threads())
        with fl.num_threads(task + 1):
            await turns[task, 1].wait()
            seen[task].append(fl.get_num_threads())
        seen[task].append(fl.get_num_threads())

    async def conduct():
        tasks = [asyncio.create_task(run(task)) for task in range(3)]
        begun = set()
        for task in order:
            turns[task, int(task in begun)].set()
            begun.add(task)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert fl.get_num_threads() == EVERYWHERE
        await asyncio.gather(*tasks)

    asyncio.run(conduct())
    assert seen == {task: [EVERYWHERE, task + 1, EVERYWHERE] for task in range(3)}


@pytest.mark.parametrize("order", orders(3), ids=lambda order: "".join(map(str, order)))
def test_generators_in_every_order(order):
    """They share the context of who runs them: the limit begun last of those open holds."""

    @contextlib.contextmanager
    def block(n):
        with fl.num_threads(n):
            yield

    blocks, open_ = [block(n) for n in range(3, 6)], []
    for i in order:
        if i in open_:
            blocks[i].__exit__(None, None, None)
            open_.remove(i)
        else:
            blocks[i].__enter__()
            open_.append(i)
        assert fl.get_num_threads() == (open_[-1] + 3 if open_ else EVERYWHERE)


def test_one_object_in_tasks_that_take_turns():
    shared = fl.num_threads(2)

    async def run(rounds):
        for _ in range(rounds):
            with shared:
                await asyncio.sleep(0)
                with fl.num_threads(3):
                    await asyncio.sleep(0)
                    assert fl.get_num_threads() == 3
                    with shared:
                        assert fl.get_num_threads() == 2
                    assert fl.get_num_threads() == 3
                assert fl.get_num_threads() == 2
            await asyncio.sleep(0)
            assert fl.get_num_threads() == EVERYWHERE

    async def both():
        await asyncio.gather(run(3), run(4), run(5))

    asyncio.run(both())


def test_a_task_keeps_the_limit_that_it_began_with():
    async def child(go):
        await go.wait()
        return fl.get_num_threads()

    async def parent():
        go = asyncio.Event()
        with fl.num_threads(2):
            task = asyncio.create_task(child(go))
            aside = await asyncio.to_thread(fl.get_num_threads)
        go.set()
        return aside, await task, fl.get_num_threads()

    assert asyncio.run(parent()) == (2, 2, EVERYWHERE)


def test_a_copied_context():
    with fl.num_threads(2):
        copied = contextvars.copy_context()
    assert fl.get_num_threads() == EVERYWHERE
    assert copied.run(fl.get_num_threads) == 2
    with fl.num_threads(3):
        assert contextvars.Context().run(fl.get_num_threads) == EVERYWHERE
        assert copied.run(fl.get_num_threads) == 2


def test_a_block_that_ends_in_another_context_leaves_it_alone():
    block = fl.num_threads(2)
    other = contextvars.copy_context()
    other.run(block.__enter__)
    with fl.num_threads(3):
        block.__exit__(None, None, None)
        assert fl.get_num_threads() == 3


def test_a_cancelled_task_takes_its_limit_along():
    async def run():
        with fl.num_threads(2):
            await asyncio.sleep(1000)

    async def cancel():
        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return fl.get_num_threads()

    assert asyncio.run(cancel()) == EVERYWHERE


def test_other_threads_have_no_limit():
    seen = []
    with fl.num_threads(2):
        thread = threading.Thread(target=lambda: seen.append(fl.get_num_threads()))
        thread.start()
        thread.join()
    inherits = getattr(sys.flags, "thread_inherit_context", False)
    assert seen == [2 if inherits else EVERYWHERE]


def test_greenlets():
    greenlet = pytest.importorskip("greenlet")
    seen = []

    def run(n):
        with fl.num_threads(n):
            main.switch()
            seen.append(fl.get_num_threads())
        main.switch()

    main = greenlet.getcurrent()
    first, second = greenlet.greenlet(run), greenlet.greenlet(run)
    for green, n in ((first, 1), (second, 2), (first, None), (second, None)):
        green.switch(n)
        assert fl.get_num_threads() == EVERYWHERE
    assert seen == [1, 2]


CALLS = {
    "network": lambda: NET(ROWS),
    "linear": lambda: fl.linear(ROWS, NET.layers[0].weight),
    "matmul": lambda: fl.matmul(ROWS, ROWS[:64].T),
    "dense_forward": lambda: fl.dense_forward(ROWS.T, NET.layers[0].weight, ROWS[:1].T, "relu"),
    "activation": lambda: fl.gelu(ROWS),
    "softmax": lambda: fl.softmax(ROWS),
    "bias_add": lambda: fl.bias_add(ROWS, ROWS[0]),
    "activation_backward": lambda: fl.activation_backward(ROWS, ROWS, "gelu"),
    "linear_backward": lambda: fl.linear_backward(ROWS, ROWS, ROWS[: ROWS.shape[1]]),
}


@pytest.mark.thread_unsafe(reason="counts what the whole process does")
@pytest.mark.skipif(not _core.config()["openmp"], reason="built without OpenMP")
@pytest.mark.parametrize("name", CALLS)
def test_calls_keep_to_the_limit_of_their_task(name):
    """Alternating tasks: one of them works on threads, the other never."""

    async def regions(n):
        found = 0
        with fl.num_threads(n):
            for _ in range(5):
                await asyncio.sleep(0)
                before = _core.stats()["parallel_regions"]
                CALLS[name]()
                found += _core.stats()["parallel_regions"] - before
        return found

    async def both():
        return await asyncio.gather(regions(1), regions(2))

    alone, together = asyncio.run(both())
    assert alone == 0
    assert together > 0
