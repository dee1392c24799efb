"""Our readers beside the libraries that the formats come from, on sound and on changed files.

The libraries read in a process of their own, `Reference`, which forks for each few files: a changed
file may end or hang the one that reads it. What a reader finds is a dictionary of arrays, or of
refusals where it refuses one of them, by name; or one refusal of all.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Processor time for one file, and memory of the child that reads: far above what they take.
_SECONDS, _SPARE = 1, 1 << 30


class Refused(NamedTuple):
    """That an array or a file was not read, and what was said."""

    why: str


class Held(NamedTuple):
    """An array, to be compared to the bit."""

    dtype: str
    shape: tuple
    data: bytes


def held(array):
    a = np.asarray(array)
    if a.dtype.hasobject:
        raise TypeError("objects")
    order = a.dtype.newbyteorder("=")
    return Held(str(order), a.shape, np.ascontiguousarray(a.astype(order)).tobytes())


def attempt(read, *errors):
    """Return what `read` returns, or a refusal in place of these errors."""
    try:
        return read()
    except errors as error:
        return Refused(f"{type(error).__name__}: {error}")


# ----------------------------------------------------------------------------- the other side


class Reference:
    """A process that reads with the function "module:function" of a path, whatever comes of it.

    The libraries that it needs are imported once, before there are children.
    """

    def __init__(self, function, *libraries):
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, __file__, function, *libraries],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )

    def read(self, paths):
        """Return what the library found in each file."""
        pickle.dump([str(p) for p in paths], self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def close(self):
        self._process.communicate()


def _child(read, paths, pipe):
    import resource

    pages = Path("/proc/self/statm").read_text("ascii").split()[0]
    limit = int(pages) * os.sysconf("SC_PAGE_SIZE") + _SPARE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with os.fdopen(pipe, "wb") as out:
        for path in paths:
            used = int(time.process_time()) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (used + _SECONDS, used + 10 * _SECONDS))
            pickle.dump(attempt(lambda p=path: read(p), Exception), out)
            out.flush()
    os._exit(0)


def _forked(read, paths):
    """Read in a child; return what it found before it ended, and how it ended."""
    mine, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(mine)
        _child(read, paths, theirs)
    os.close(theirs)
    found = []
    with os.fdopen(mine, "rb") as pipe, contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:
            found.append(pickle.load(pipe))
    return found, os.waitpid(child, 0)[1]


def _serve(function, *libraries):
    for library in libraries:
        importlib.import_module(library)
    module, name = function.split(":")
    read = getattr(importlib.import_module(module), name)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            paths = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        found = []
        while len(found) < len(paths):
            more, status = _forked(read, paths[len(found) :])
            found += more
            if len(found) < len(paths):
                number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
                found.append(
                    Refused(f"ended by {signal.Signals(number).name if number else status}")
                )
        pickle.dump(found, out)
        out.flush()


# ----------------------------------------------------------------------------- comparing


class Tally:
    """How often two readers agreed, and how they did not.

    `ours` and `theirs` are closed lists of why one of them refuses what the other reads: patterns of
    what it says, and the reason. Where only they refuse, what we read must be what was in the file
    before it was changed, or the reason be one of `anew`.
    """

    def __init__(self, ours, theirs, anew=()):
        self.known = {"ours": ours, "theirs": theirs}
        self.anew = anew
        self.counts = Counter()
        self.files = 0
        self.sound = {}

    def add(self, path, ours, theirs, sound=None):
        """Compare what two readers found in a file; `sound` is what one did before it was changed."""
        self.files += 1
        self.sound = sound if isinstance(sound, dict) else {}
        if isinstance(ours, Refused) or isinstance(theirs, Refused):
            self._pair(path, "", ours, theirs)
            return
        for name in sorted({*ours, *theirs}, key=str):
            missing = Refused("no such name")
            self._pair(path, name, ours.get(name, missing), theirs.get(name, missing))

    def _pair(self, path, name, ours, theirs):
        refused = [isinstance(found, Refused) for found in (ours, theirs)]
        if all(refused):
            self.counts["both refuse"] += 1
        elif not any(refused):
            same = ours == theirs
            assert same or not isinstance(ours, Held), (
                f"{path}: {name}: {_short(ours)} is not {_short(theirs)}"
            )
            assert same, f"{path}: {name}: {ours} is not {theirs}"
            self.counts["the same"] += 1
        else:
            side = "ours" if refused[0] else "theirs"
            refusal, found = (ours, theirs) if refused[0] else (theirs, ours)
            # A file in which nothing is read is as good as refused.
            if isinstance(found, dict) and all(isinstance(f, Refused) for f in found.values()):
                self.counts["both refuse"] += 1
                return
            reason = self._reason(side, refusal, path, name)
            read = found if isinstance(found, dict) else {name: found}
            new = [
                n for n, f in read.items() if f != self.sound.get(n) and not isinstance(f, Refused)
            ]
            if side == "theirs" and new:
                assert reason in self.anew, f"{path}: {new}: not what was there, and: {refusal.why}"
                reason = f"{reason}; other numbers"
            self.counts[f"{side} refuse: {reason}"] += 1

    def _reason(self, side, refusal, path, name):
        for pattern, reason in self.known[side].items():
            if re.search(pattern, refusal.why, re.DOTALL):
                return reason
        raise AssertionError(f"{path}: {name}: only {side} refuse: {refusal.why}")

    def __str__(self):
        counts = "".join(f"\n  {count:7d}  {kind}" for kind, count in sorted(self.counts.items()))
        return f"{self.files} files{counts}"


def _short(found):
    return f"{found.dtype}{found.shape} {found.data.hex():.80}"


# ----------------------------------------------------------------------------- changing files


def changes(rng, whole, count, moves=True):
    """Yield `count` changed files: bytes changed, zeroed, there twice or not at all, and cuts.

    Without `moves`, no bytes come to lie elsewhere.
    """
    for i in range(count):
        made = bytearray(whole)
        at = int(rng.integers(len(whole)))
        kind = i % 8
        if kind < 4:
            made[at] ^= 1 << int(rng.integers(8))
        elif kind == 4:
            made[at] = int(rng.choice([0, 1, 127, 128, 255]))
        elif kind == 5:
            del made[at:]
        elif kind == 6:
            size = int(rng.integers(1, 9))
            made[at : at + size] = rng.bytes(size)
        else:
            # A field of another size, or a piece that is there twice or not at all.
            end = min(len(whole), at + int(rng.integers(1, 17)))
            piece = [b"", bytes(made[at:end]) * 2, bytes(end - at)][
                int(rng.integers(3)) if moves else 2
            ]
            made[at:end] = piece
        yield bytes(made)


if __name__ == "__main__":
    # Under its own name, by which the other side knows what comes through the pipe.
    importlib.import_module("differential")._serve(*sys.argv[1:])
