"""Run by test_faults.py with failing_calls.c preloaded: saves and loads whose n-th call fails.

``failing_saves.py LIBRARY SUFFIX KIND FOLDER`` saves with the first call to the system failing, then
with the second, and so on until none fails: once with each errno, with all calls behind it failing
too, and with a write that is cut. ``... record`` instead prints the calls of one that succeeds.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import re
import sys
from collections import Counter
from pathlib import Path

import fastlayer as fl
from fastlayer.files import save

LIBRARY = ctypes.CDLL(sys.argv[1])
ERRORS = ("ENOSPC", "EIO", "EINTR", "EDQUOT", "EACCES")
WAYS = (
    *((name, 0, False) for name in ERRORS),
    ("EIO", errno.EROFS, False),  # as where a file system mounts itself read-only
    ("ENOSPC", errno.ENOSPC, False),
    ("", 0, True),
    ("", errno.ENOSPC, True),  # the last bytes of a disk
)
# What may fail and the save go on: why, the call and what it was given, and with which errors.
ANY = ".*"
SURVIVED = {
    "a file with a name is taken": (r"stat /proc/self/fd|open unnamed {folder}", ANY),
    "leftovers stay for the next save": (r"opendir {folder}|readdir .*", ANY),
    "without a lock": (r"flock .*", ANY),
    "Python asks only for the size of blocks": (r"fstat .*", ANY),
    "the folder can't be synchronised": (r"open {folder}|fsync .*|close .*", "EACCES"),
    "Python makes the call again": (r"(open|read|write|fsync|fstat|flock) .*", "EINTR"),
}


def number(name, kind=ctypes.c_long):
    return kind.in_dll(LIBRARY, name)


until, failed, recorded = map(number, ("calls_until_failure", "calls_failed", "recorded"))
watching, failure, after, cut = (
    number(name, ctypes.c_int) for name in ("watching", "failure", "failure_after", "cut")
)


def text(name, size):
    return (ctypes.c_char * size).in_dll(LIBRARY, name)


def lines():
    return text("record", 1 << 20)[: recorded.value].decode().splitlines()


def watched(call, nth=0, way=("", 0, False)):
    """Make a call whose n-th call to the system fails; return what it raised."""
    name, after.value, cut.value = way
    failure.value = getattr(errno, name, 0)
    failed.value = recorded.value = 0
    until.value, watching.value = nth, 1
    try:
        call()
    except BaseException as error:  # noqa: BLE001  # which one it is, is the result
        watching.value = 0
        return error.with_traceback(None)
    finally:
        watching.value = 0
    return None


def numbers():
    return sorted(os.listdir("/proc/self/fd"))


class Saves:
    """Saves of one network over another, or over nothing."""

    def __init__(self, suffix, kind, folder):
        self.kind = kind
        self.path = Path(folder, f"m{suffix}")
        self.left = re.compile(rf"\.m{re.escape(suffix)}\.[0-9a-f]{{12}}\.tmp")
        self.nets = [fl.Network([fl.Layer(9, 7, rng=seed)]) for seed in (0, 1)]
        self.files = [self._saved(net) for net in self.nets]
        assert self.files[0] != self.files[1]
        self.outcomes = Counter()
        if kind == "named":
            save._unnamed = lambda folder, name: None

    def _saved(self, net):
        net.save(self.path)
        return self.path.read_bytes()

    def holds(self):
        return self.path.read_bytes() if self.path.exists() else None

    def put(self, old):
        for name in os.listdir(self.path.parent):
            os.unlink(self.path.parent / name)
        if old is not None:
            self.path.write_bytes(old)

    def sweep(self, old, way):
        """Save with each call failing in its turn, in this way."""
        nth = 0
        while True:
            nth += 1
            self.put(old)
            if not self.try_one(nth, old, way):
                return nth - 1

    def try_one(self, nth, old, way):
        before = numbers()
        error = watched(lambda: self.nets[1].save(self.path), nth, way)
        gc.collect()  # what holds a file open for want of a collection is no leak
        if failed.value == 0:
            assert error is None, error
            assert self.holds() == self.files[1]
            return False
        where = f"call {nth}, {text('failed_call', 512).value.decode()}, {way}"
        assert numbers() == before, f"{where}: open files {numbers()} and not {before}"
        renamed = any(re.match(rf"rename\t0\t.*\t{re.escape(str(self.path))}$", x) for x in lines())
        assert self.holds() == (self.files[1] if renamed else old), where
        why = self.survived(way)
        if error is None:
            assert renamed, where
            assert why, f"{where}: an error that nobody heard of"
            outcome = f"saved: {why}"
        else:
            # Where the first is survived, or only cut a write, one behind it is not.
            numbered = {getattr(errno, way[0], way[1]), way[1] if why else 0}
            assert isinstance(error, OSError), f"{where}: {error!r}"
            assert error.errno in numbered - {0}, f"{where}: {error!r}"
            assert error.filename == str(self.path), f"{where}: {error!r}"
            outcome = f"an error, {'new' if renamed else 'old'} file"
        left = set(os.listdir(self.path.parent)) - {self.path.name}
        assert all(self.left.fullmatch(name) for name in left), f"{where}: {left}"
        if left and not way[1]:
            # The call that should have removed it, or opened it for us.
            assert len(left) == 1, where
            assert re.search(r"call \d+, unlink", where), f"{where}: {left}"
        self.outcomes[outcome + (", something left behind" if left else "")] += 1
        self.nets[1].save(self.path)
        assert os.listdir(self.path.parent) == [self.path.name], where
        assert self.holds() == self.files[1], where
        return True

    def survived(self, way):
        """Return why a save goes on without the call that failed, None where it must not."""
        if way[2]:
            return "the rest is written"
        call = text("failed_call", 512).value.decode().replace("64 ", " ", 1)
        for why, (calls, errors) in SURVIVED.items():
            calls = calls.format(folder=re.escape(str(self.path.parent)))
            if re.fullmatch(calls, call) and re.fullmatch(errors, way[0]):
                return why
        return None


def loads(suffix, folder):
    """Load with each call failing in its turn: an OSError, and no damaged file."""
    path = Path(folder, f"m{suffix}")
    fl.Network([fl.Layer(9, 7, rng=0)]).save(path)
    fl.load(path)
    tally = Counter()
    for name in ("EIO", "EACCES", "EINTR"):
        nth = 0
        while True:
            nth += 1
            before = numbers()
            error = watched(lambda: fl.load(path), nth, (name, 0, False))
            gc.collect()
            where = f"call {nth}, {text('failed_call', 512).value.decode()}, {name}"
            assert numbers() == before, where
            if failed.value == 0:
                break
            assert error is None or isinstance(error, OSError), f"{where}: {error!r}"
            # What the safetensors package can't open, it calls not found, without a number.
            known = (getattr(errno, name), *[None] * (suffix == ".safetensors"))
            assert error is None or error.errno in known, f"{where}: {error!r}"
            named = error is None or error.errno is None or error.filename == str(path)
            assert named, f"{where}: {error!r}"
            tally["loaded" if error is None else "an error"] += 1
    return tally


def main(suffix, kind, folder, *options):
    gc.freeze()
    if kind == "load":
        print("loads", dict(loads(suffix, folder)))
        return
    saves = Saves(suffix, kind, folder)
    if "record" in options:
        saves.put(saves.files[0])
        watched(lambda: saves.nets[1].save(saves.path))
        print("old", saves.files[0].hex(), sep="\t")
        print(*lines(), sep="\n")
        return
    for old in (saves.files[0], None):
        for way in WAYS:
            saves.put(old)
            print(*way, "new" if old is None else "over", saves.sweep(old, way), sep="\t")
    for outcome, count in sorted(saves.outcomes.items()):
        print(outcome, count, sep="\t")


if __name__ == "__main__":
    main(*sys.argv[2:])
