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
from pathlib import Path

from processes import pin

BLOCK = 20e-6  # seconds: shorter calls are timed in blocks, or the clock would be most of it
MOST = 20_000  # samples in a turn
LONG = 0.05  # seconds: of a call's forms, one that takes so long stays only if it is the last
CHECKED = 1 << 20  # outputs that are compared at a time
LOG = logging.getLogger(__name__)


class Worker:
    """The peer, and the case that it has at hand."""

    def __init__(self, name: str, threads: int) -> None:
        self.peer = importlib.import_module(f"peers.{name}")
        self.threads = threads
        self.forms: dict = {}
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

    def prepare(self, case: str, dtype: str, reference: str, bound: float) -> dict:
        """Build the case and compare its output with NumPy's, in each of the peer's forms."""
        from cases import cases
        from peers import _files, _training

        self.drop()
        _files.ABOVE = reference
        chosen = cases()[case]
        if chosen.kind == "train":
            self.forms = _training.forms(self.peer, chosen, dtype, self.threads)
        else:
            self.forms = self.peer.prepare(chosen, dtype, self.threads) or {}
        last, error = next(reversed(self.forms), None), None
        for name in reversed(list(self.forms)):
            call, inputs = self.forms[name]
            start = time.perf_counter()
            y = call(*inputs)
            taken = time.perf_counter() - start
            check(y, dtype, reference, bound)
            error = self._error(y, reference, error)
            del y  # some libraries don't run while their result is held
            if LONG < taken < 10 * LONG and len(self.forms) > 1:
                start = time.perf_counter()  # the first call may have built something
                call(*inputs)
                taken = time.perf_counter() - start
            if taken > LONG:
                if name == last:
                    self.forms = {name: (call, inputs)}
                else:
                    del self.forms[name]  # one that is quicker has been found
                break
        return {"applies": bool(self.forms)} | ({} if error is None else {"ulp": error})

    def _error(self, y, reference: str, before: float | None) -> float | None:
        """The larger of an error and that of y, where the case has exact results to judge by."""
        import numpy as np
        from errors import ulp

        path = Path(reference) / "exact.npy"
        if not path.exists():
            return None
        exact = np.load(path)
        return max(before or 0.0, ulp(np.asarray(y).reshape(-1)[: exact.size], exact))

    def choose(self) -> dict:
        """The fastest of the forms, and how long its call takes: the best of some."""
        best: dict[str, float] = {}
        for _ in range(3):
            for name, (call, inputs) in self.forms.items():
                end = time.perf_counter() + 0.002
                while True:
                    start = time.perf_counter()
                    call(*inputs)
                    now = time.perf_counter()
                    best[name] = min(best.get(name, 1e9), now - start)
                    if now > end:
                        break
            if sum(best.values()) > LONG:
                break
        name = min(best, key=best.__getitem__)
        self.call, self.inputs = self.forms[name]
        self.forms = {}
        return {"form": name, "estimate": best[name]}

    def turn(self, mode: str, warm: float | None, seconds: float, least: int, most: int) -> dict:
        """Times of single calls in seconds; in the hot loop those of blocks, divided.

        At least one call and `warm` seconds of them come first, for caches and threads after the
        others' turns; none where `warm` is None.
        """
        call, inputs = self.call, self.inputs
        clock = time.perf_counter
        until = clock() + (warm or 0)
        estimate = 1.0
        while warm is not None:
            start = clock()
            call(*inputs)
            now = clock()
            estimate = min(estimate, now - start)
            if now > until:
                break
        if not mode.startswith("idle"):
            inner = max(1, int(BLOCK / estimate))
            return {"times": self._hot(seconds, least, inner), "inner": inner}
        times, rest = [], float(mode.removeprefix("idle")) / 1000
        for _ in repeat(None, most):
            time.sleep(rest)
            start = clock()
            call(*inputs)
            times.append(clock() - start)
        return {"times": times, "inner": 1}

    def _hot(self, seconds: float, least: int, inner: int) -> list[float]:
        call, inputs, clock = self.call, self.inputs, time.perf_counter
        times: list[float] = []
        end = clock() + seconds
        if len(inputs) == 1:  # by far the most; unpacking would cost the tiny ones some percent
            (x,) = inputs
            while len(times) < least or (clock() < end and len(times) < MOST):
                start = clock()
                for _ in repeat(None, inner):
                    call(x)
                times.append((clock() - start) / inner)
            return times
        while len(times) < least or (clock() < end and len(times) < MOST):
            start = clock()
            for _ in repeat(None, inner):
                call(*inputs)
            times.append((clock() - start) / inner)
        return times

    def drop(self) -> dict:
        self.call, self.inputs, self.forms = None, (), {}
        return {}


def check(y, dtype: str, reference: str, relative: float) -> None:
    """Raises where y is further from the reference than the larger of the two bounds."""
    import numpy as np

    y = np.asarray(y)
    want = np.load(Path(reference) / "y.npy", mmap_mode="r").reshape(-1)
    absolute = np.load(Path(reference) / "bound.npy", mmap_mode="r").reshape(-1)
    if y.dtype != dtype or y.size != want.size:
        raise ValueError(f"{y.dtype} {y.shape} instead of {dtype} and {want.size} elements")
    y, wrong = y.reshape(-1), 0
    for i in range(0, y.size, CHECKED):
        part = slice(i, i + CHECKED)
        bound = absolute[part] if absolute.size > 1 else absolute
        bound = np.maximum(bound, relative * np.abs(want[part]))
        # NaN must not pass; a bound of 0 asks for equality
        wrong += int((~(np.abs(y[part] - want[part]) <= bound)).sum())
    if wrong:
        raise ValueError(f"{wrong} of {y.size} outputs are wrong")


def main() -> None:
    # the answers go where stdout was; what libraries print there, MNN at every model, nowhere
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    name, threads = sys.argv[1], int(sys.argv[2])
    pin(name, threads)
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
