"""What the machine can do at most: the FMA peak and the read bandwidth, by a small C program."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fastlayer as fl

FLAGS = {  # of the instruction set that fastlayer runs with, and its vector's bytes
    "avx512": (["-mavx512f", "-mfma"], 64),
    "avx2": (["-mavx2", "-mfma"], 32),
    "neon": ([], 16),
}
# Twelve chains hide the latency of two FMA pipes and fit 16 registers. Sums of read vectors are
# integer: one cheap operation a load, and nothing for the compiler to leave out.
SOURCE = r"""
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
typedef long long word __attribute__((vector_size(WIDTH)));
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define MAKE(i) vector c##i = a + (scalar)i;
#define FMA(i) c##i = a * c##i + b;
#define SUM(i) a += c##i;
#define PEAK(TYPE)                                                      \
  double peak_##TYPE(double seconds) {                                  \
    typedef TYPE scalar;                                                \
    typedef TYPE vector __attribute__((vector_size(WIDTH)));            \
    volatile TYPE half = (TYPE)0.5;                                     \
    vector zero = {0}, a = zero + half, b = a;                          \
    EACH(MAKE)                                                          \
    double start = now(), count = 0, end;                               \
    do {                                                                \
      for (int i = 0; i < 20000; i++) { EACH(FMA) }                     \
      count += 20000.0 * 12 * 2 * (WIDTH / sizeof(TYPE));               \
    } while ((end = now()) < start + seconds);                          \
    EACH(SUM)                                                           \
    half = a[0];                                                        \
    return count / (end - start);                                       \
  }
PEAK(float)
PEAK(double)
double bandwidth(double seconds, size_t bytes) {
  size_t n = bytes / sizeof(word) / 8 * 8;
  word *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!p) return 0;
  memset(p, 1, (bytes + 4095) / 4096 * 4096);
  word s[8] = {{0}};
  double start = now(), count = 0, end;
  do {
    for (size_t i = 0; i < n; i += 8) {
      s[0] += p[i]; s[1] += p[i + 1]; s[2] += p[i + 2]; s[3] += p[i + 3];
      s[4] += p[i + 4]; s[5] += p[i + 5]; s[6] += p[i + 6]; s[7] += p[i + 7];
    }
    __asm__ volatile("" : : "r"(s), "r"(p) : "memory");
    count += (double)n * sizeof(word);
  } while ((end = now()) < start + seconds);
  free(p);
  return count / (end - start);
}
"""


def cache_bytes() -> dict[str, int]:
    """Of one core for L1 and L2, of all for L3; what fastlayer found."""
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "B": 1}
    found = {}
    for level, text in fl.show_config(mode="dicts")["caches"].items():
        number, _, unit = str(text).partition(" ")
        if number.isdigit() and unit in units:
            found[level] = int(number) * units[unit]
    return found


def _build(folder: str) -> ctypes.CDLL | None:
    isa = fl.show_config(mode="dicts")["isa"]["active"]
    compiler = next(
        (c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None
    )
    if compiler is None or isa not in FLAGS:
        return None
    flags, width = FLAGS[isa]
    source, target = Path(folder) / "limits.c", Path(folder) / "limits.so"
    source.write_text(SOURCE)
    command = [compiler, "-O2", "-ffp-contract=fast", "-shared", "-fPIC", f"-DWIDTH={width}"]
    command += [*flags, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[:500], file=sys.stderr)
        return None
    library = ctypes.CDLL(str(target))
    for name in ("peak_float", "peak_double", "bandwidth"):
        getattr(library, name).restype = ctypes.c_double
    return library


def _best(call: Callable[[], float], threads: int, repeats: int = 5) -> float:
    """The sum over threads (ctypes lets go of the GIL), the best of some: it is a limit."""
    with ThreadPoolExecutor(threads) as pool:
        return max(
            sum(f.result() for f in [pool.submit(call) for _ in range(threads)])
            for _ in range(repeats)
        )


def measure(threads: int, seconds: float) -> dict | None:
    """FLOP/s by dtype and bytes/s by level, each level with the bytes it holds; None without cc."""
    with tempfile.TemporaryDirectory() as folder:
        library = _build(folder)
    if library is None:
        return None
    t = ctypes.c_double(seconds)
    caches = cache_bytes()
    l2, l3 = caches.get("l2", 1 << 20), caches.get("l3", 0)
    # half of a cache: its own lines and nothing of the next level; L2 is private, L3 is shared
    levels = {"L2": (l2 * threads, l2 // 2)}
    if l3 > 2 * l2 * threads:
        levels["L3"] = (l3, l3 // 2 // threads)
    memory = max(64 << 20, 4 * l3)
    levels["RAM"] = (1 << 62, memory // threads)
    return {
        "flops": {
            "float32": _best(lambda: library.peak_float(t), threads),
            "float64": _best(lambda: library.peak_double(t), threads),
        },
        "bandwidth": {
            name: {
                "holds": holds,
                "rate": _best(
                    lambda size=size: library.bandwidth(t, ctypes.c_size_t(size)), threads
                ),
            }
            for name, (holds, size) in levels.items()
        },
    }


def fastest(limits: dict | None, dtype: str, flops: float, traffic: float):
    """(seconds at least, what decides) of a computation whose data come from one level."""
    if limits is None:
        return None
    compute = flops / limits["flops"][dtype]
    name, level = next(
        (name, v) for name, v in limits["bandwidth"].items() if traffic <= v["holds"]
    )
    memory = traffic / level["rate"]
    return (compute, "FMA") if compute >= memory else (memory, name)
