"""Python in a process of its own, with a limit on its time: a hang is a failure, not a hang."""

from __future__ import annotations

import os
import subprocess
import sys

# Long enough for any machine under any load: only a hang reaches it.
PATIENCE = 300

# A network that has run on four threads, a batch, and the digest that every process must find.
WARM = """
import hashlib, os, signal, sys, threading, time
import numpy as np
import fastlayer as fl
from fastlayer import _core

fl.set_num_threads(4)
net = fl.Network([fl.Layer(256, 256, "relu", rng=0), fl.Layer(256, 16, "softmax", rng=1)])
x = np.random.default_rng(0).standard_normal((512, 256), dtype=np.float32)

def digest():
    return hashlib.sha256(net(x).tobytes()).hexdigest()

def os_threads():
    return len(os.listdir("/proc/self/task"))

def settled(count):
    "Whether there come to be so many threads: they start and end while others go on."
    for _ in range(10_000):
        if os_threads() == count:
            return True
        time.sleep(0.001)
    return False

expected = digest()
"""


def finish(code, *, env=None, options=(), patience=PATIENCE):
    """Run `code` to its end, whatever that is; a variable of `env` that is None is not set."""
    # NumPy's own threads would be counted with ours.
    merged = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={name: value for name, value in merged.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )


def run_python(code, **keywords):
    """Run `code`, which has to succeed and to say nothing on stderr; returns what it printed."""
    done = finish(code, **keywords)
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stdout, done.stderr)
    return done.stdout.strip()
