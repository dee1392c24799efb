"""What fastlayer costs beside time: import, memory of a call, memory of the weights, building it. Each
in a process of its own; medians where it is time.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

IMPORT = """
import time, numpy
start = time.perf_counter()
import fastlayer
print(time.perf_counter() - start)
"""
# VmHWM is the most that was resident; writing 5 to clear_refs starts it anew. The first call also
# brings the threads and their scratch memory, which stay. The kernel counts to about 0.25 MiB.
MEMORY = """
import json, sys, tracemalloc
import numpy as np
import fastlayer as fl

def resident(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def most(call):
    before = resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    call()
    return resident("VmHWM") - before

threads, widths = int(sys.argv[1]), (784, 512, 512, 256)
fl.set_num_threads(threads)
layers = [fl.Layer(k, n, "relu", rng=0) for k, n in zip(widths, widths[1:])]
net = fl.Network(layers)
found = {}
for rows in (16384, 65536):
    x = np.ones((rows, widths[0]), np.float32)
    found[str(rows)] = {"result": rows * widths[-1] * 4, "resident": most(lambda: net(x))}
    tracemalloc.start()
    net(x)
    found[str(rows)]["traced"] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
print(json.dumps(found))
"""
WEIGHTS = """
import json
import numpy as np
import fastlayer as fl

def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

n = 4096
fl.Network([fl.Layer(64, 64, rng=0)])(np.ones((1, 64), np.float32))
x = np.ones((1, n), np.float32)
before = resident()
weight = np.ones((n, n), np.float32)
net = fl.Network([fl.Layer.from_arrays(weight)])
del weight
net(x)
print(json.dumps({"weights": n * n * 4, "resident": resident() - before}))
"""


def _run(code: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def measure() -> dict:
    """Seconds and bytes; the memory is Linux's /proc."""
    with tempfile.TemporaryDirectory() as folder:
        # compiled, as an installed package is, whatever the settings here; the first import does it
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        times = [float(_run(IMPORT, environment=environment)) for _ in range(12)][1:]
    return {
        "import": statistics.median(times),
        "call": {str(threads): json.loads(_run(MEMORY, str(threads))) for threads in (1, 2)},
        "weights": json.loads(_run(WEIGHTS)),
    }


def build() -> float | None:
    """Seconds of processor time that `pip install .` compiles for; None without what it needs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
        settings += ["--wheel-dir", folder, "--config-settings", f"build-dir={folder}/build"]
        command = [sys.executable, "-m", "pip", "wheel", *settings, str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"not built: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
