"""One peer in a process of its own: JSON commands on stdin, JSON answers on stdout.

    python worker.py PEER THREADS

run.py sets the environment (thread counts) before this starts, because libraries read it once.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
from itertools import repeat

BLOCK = 20e-6  # seconds: shorter calls are timed in blocks, or the clock would be most of it
MOST = 20_000  # samples in a turn
LOG = logging.getLogger(__name__)


class Worker:
    """The peer, and the case that it has at hand."""

    def __init__(self, name: str, threads: int) -> None:
        self.peer = importlib.import_module(f"peers.{name}")
        self.threads = threads
        self.call, self.inputs = None, ()

    def hello(self) -> dict:
        return {"version": self.peer.available()}

    def pools(self) -> dict:
        """What is loaded by now."""
        try:
            from threadpoolctl import threadpool_info
        except ImportError:
            return {"pools": None}
        keep = ("internal_api", "num_threads", "version", "architecture", "threading_layer")
        return {"pools": [{k: p[k] for k in keep if k in p} for p in threadpool_info()]}

    def prepare(self, case: str, dtype: str, reference: str) -> dict:
        """Build the case and compare its output with NumPy's."""
        import numpy as np
        from cases import cases

        self.drop()
        found = self.peer.prepare(cases()[case], dtype, self.threads)
        if found is None:
            return {"applies": False}
        self.call, self.inputs = found
        y = np.asarray(self.call(*self.inputs))
        with np.load(reference) as arrays:
            want, bound = arrays["y"], arrays["bound"]
        if y.dtype != dtype or y.size != want.size:
            raise ValueError(f"{y.dtype} {y.shape} instead of {dtype} {want.shape}")
        # NaN must not pass; a bound of 0 asks for equality
        good = np.abs(y.reshape(want.shape) - want) <= bound
        if not good.all():
            raise ValueError(f"{good.size - int(good.sum())} of {good.size} outputs are wrong")
        return {"applies": True}

    def turn(self, mode: str, seconds: float, calls: int) -> dict:
        """Times of single calls in seconds; in the hot loop those of blocks, divided."""
        call, inputs = self.call, self.inputs
        clock = time.perf_counter
        until = clock() + seconds / 4
        estimate = 1.0
        while True:  # warm up: caches and threads after the others' turns, at least two calls
            start = clock()
            call(*inputs)
            estimate, first = min(estimate, clock() - start), estimate == 1.0
            if clock() > until and not first:
                break
        if mode != "idle":
            inner = max(1, int(BLOCK / estimate))
            return {"times": self._hot(seconds, inner), "inner": inner}
        times = []
        for _ in repeat(None, calls):
            time.sleep(0.02)
            start = clock()
            call(*inputs)
            times.append(clock() - start)
        return {"times": times, "inner": 1}

    def _hot(self, seconds: float, inner: int) -> list[float]:
        call, inputs, clock = self.call, self.inputs, time.perf_counter
        times: list[float] = []
        end = clock() + seconds
        if len(inputs) == 1:  # by far the most; unpacking would cost the tiny ones some percent
            (x,) = inputs
            while len(times) < 3 or (clock() < end and len(times) < MOST):
                start = clock()
                for _ in repeat(None, inner):
                    call(x)
                times.append((clock() - start) / inner)
            return times
        while len(times) < 3 or (clock() < end and len(times) < MOST):
            start = clock()
            for _ in repeat(None, inner):
                call(*inputs)
            times.append((clock() - start) / inner)
        return times

    def drop(self) -> dict:
        self.call, self.inputs = None, ()
        return {}


def main() -> None:
    # libraries print to stdout; the answers go where that was, and the rest to stderr
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    name, threads = sys.argv[1], int(sys.argv[2])
    if name == "jax" and hasattr(os, "sched_setaffinity"):
        # it has as many threads as it may use cores, and no setting for fewer
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    worker = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if worker is None:
                worker = Worker(name, threads)
            answer = getattr(worker, command.pop("op"))(**command)
        except Exception as error:  # a peer that fails must not end the run
            LOG.exception("%s failed", name)
            answer = {"error": f"{type(error).__name__}: {error}"[:400]}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
