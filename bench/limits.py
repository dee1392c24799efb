"""What the machine can do at most: the FMA peak and the read bandwidth, by a small C program."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
  word s0 = {0}, s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  double start = now(), count = 0, end;
  do {
    for (size_t pass = 0; pass < (1 << 20) / bytes + 1; pass++) {
      for (size_t i = 0; i < n; i += 8) {
        s0 += p[i]; s1 += p[i + 1]; s2 += p[i + 2]; s3 += p[i + 3];
        s4 += p[i + 4]; s5 += p[i + 5]; s6 += p[i + 6]; s7 += p[i + 7];
      }
      __asm__ volatile("" : : "r"(p) : "memory");
      count += (double)n * sizeof(word);
    }
  } while ((end = now()) < start + seconds);
  s0 += s1 + s2 + s3 + s4 + s5 + s6 + s7;
  volatile long long sink = s0[0];
  (void)sink;
  free(p);
  return count / (end - start);
}
"""


def cache_bytes() -> dict[str, int]:
    """Of one core for L1 and L2, of all for L3; what fastlayer found."""
    import fastlayer as fl

    units = {"KiB": 1 << 10, "MiB": 1 << 20, "B": 1}
    found = {}
    for level, text in fl.show_config(mode="dicts")["caches"].items():
        number, _, unit = str(text).partition(" ")
        if number.isdigit() and unit in units:
            found[level] = int(number) * units[unit]
    return found


def _build(folder: str) -> ctypes.CDLL | None:
    import fastlayer as fl

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


def measure(threads: int, seconds: float, footprints: set[int]) -> dict | None:
    """FLOP/s by dtype, and bytes/s by footprint: what reading so many bytes again and again gives,
    each thread its part. Powers of two, and `footprints`. None without a compiler.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = _build(folder)
    if library is None:
        return None
    caches = cache_bytes()
    most = max(128 << 20, 4 * caches.get("l3", 0))  # beyond that it is memory anyway
    sizes = {1 << i for i in range(13, most.bit_length())} | footprints
    t, short = ctypes.c_double(seconds), ctypes.c_double(seconds / 4)

    def rate(size: int) -> float:
        part = ctypes.c_size_t(size // threads)
        return _best(lambda: library.bandwidth(short, part), threads, 3)

    return {
        "caches": caches,
        "flops": {
            "float32": _best(lambda: library.peak_float(t), threads),
            "float64": _best(lambda: library.peak_double(t), threads),
        },
        "rates": [[size, rate(size)] for size in sorted(sizes) if 4096 <= size <= most],
    }


def larger(a: dict | None, b: dict | None) -> dict | None:
    """Of two measurements of the same: a limit is the most that was seen."""
    if a is None or b is None:
        return a or b
    flops = {k: max(v, b["flops"][k]) for k, v in a["flops"].items()}
    rates = [[n, max(x, y)] for (n, x), (_, y) in zip(a["rates"], b["rates"], strict=True)]
    return a | {"flops": flops, "rates": rates}


def rounded(found: dict | None) -> dict | None:
    """To four digits, which is more than a measurement has."""
    if found is None:
        return None
    flops = {k: float(f"{v:.4g}") for k, v in found["flops"].items()}
    return found | {"flops": flops, "rates": [[n, float(f"{v:.4g}")] for n, v in found["rates"]]}


def rate(limits: dict, size: int) -> float:
    """Bytes/s at a footprint, between the measured ones by a straight line over log(size)."""
    points = limits["rates"]
    after = next((i for i, (n, _) in enumerate(points) if n >= size), len(points) - 1)
    (high, fast) = points[after]
    if after == 0 or high <= size:
        return fast
    low, slow = points[after - 1]
    share = math.log(size / low) / math.log(high / low)
    return slow + share * (fast - slow)


def level(limits: dict, size: int, threads: int) -> str:
    """The name of the smallest cache that holds so much; L1 and L2 are each core's own."""
    caches = limits["caches"]
    for name, count in (("l1", threads), ("l2", threads), ("l3", 1)):
        if size <= caches.get(name, 0) * count:
            return name.upper()
    return "RAM"


def levels(limits: dict, threads: int) -> dict[str, int]:
    """Footprints that show what each level gives: a quarter of a cache, and far beyond all."""
    counts = {"l1": threads, "l2": threads, "l3": 1}
    caches = limits["caches"]
    found = {k.upper(): caches[k] * n // 4 for k, n in counts.items() if caches.get(k)}
    return found | {"RAM": limits["rates"][-1][0]}


def fastest(limits: dict | None, row: dict) -> tuple[float, str] | None:
    """(seconds at least, what decides) of a row in the hot loop.

    Each FMA is done once. The weights are read once a call, at the rate of a loop that reads as
    many bytes again and again, so from the caches that keep them between two calls. Inputs and
    results are moved once, at the rate of all bytes of the call together.
    """
    if limits is None:
        return None
    compute = row["flops"] / limits["flops"][row["dtype"]]
    total = row["weights"] + row["streams"]
    times = {
        row["weights"]: row["weights"] / rate(limits, row["weights"]) if row["weights"] else 0.0,
        total: row["streams"] / rate(limits, total),
    }
    if compute >= sum(times.values()):
        return compute, "FMA"
    decides = max(times, key=times.__getitem__)
    return sum(times.values()), level(limits, decides, row["threads"])
