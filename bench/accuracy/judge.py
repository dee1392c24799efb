"""judge.cpp from Python: built with the C++ compiler at hand, called through ctypes."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from implementations import Function

HERE = Path(__file__).parent
FLAGS = ["-std=gnu++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC"]
QUAD = (["-DFASTLAYER_QUADMATH"], ["-lquadmath"])


class Verdict(ctypes.Structure):
    """How an implementation did; as in judge.cpp."""

    _fields_ = (
        ("worst", ctypes.c_double),
        ("near", ctypes.c_double),
        ("at", ctypes.c_double),
        ("sum", ctypes.c_double),
        ("at_zero", ctypes.c_double),
        ("count", ctypes.c_uint64),
        ("exact", ctypes.c_uint64),
        ("nan_lost", ctypes.c_uint64),
    )

    def add(self, other: Verdict) -> None:
        """Take in what another thread has found."""
        if other.worst > self.worst:
            self.worst, self.at = other.worst, other.at
        self.near = max(self.near, other.near)
        self.at_zero = max(self.at_zero, other.at_zero)
        for name in ("sum", "count", "exact", "nan_lost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else math.nan

    @property
    def share(self) -> float:
        return self.exact / self.count if self.count else math.nan


@dataclass
class Judge:
    """The loaded library; `wide` says whether it can judge float64 too."""

    library: ctypes.CDLL
    compiler: str
    wide: bool

    def refer(self, function: Function, x: np.ndarray) -> np.ndarray:
        """The exact values for x: float64 for float32, else bytes that only judge.cpp reads."""
        want = np.empty(x.size * 2, np.float64 if x.dtype == np.float64 else np.float32)
        call = getattr(self.library, f"refer_{x.dtype}")
        parameters = map(ctypes.c_double, function.parameters)
        name = function.reference.encode()
        if call(name, *parameters, pointer(x), pointer(want), ctypes.c_size_t(x.size)):
            raise ValueError(f"judge.cpp does not know {function.reference}")
        return want

    def score(
        self,
        function: Function,
        x: np.ndarray,
        want: np.ndarray,
        y: np.ndarray,
        first: int = 0,
        step: int = 1,
    ) -> Verdict:
        """Judge y, the results for x[first::step]."""
        expected = len(range(first, x.size, step))
        if y.dtype != x.dtype or y.shape != (expected,) or not y.flags.c_contiguous:
            raise ValueError(f"a result of {y.dtype} {y.shape} for {expected} inputs of {x.dtype}")
        verdict = Verdict()
        sizes = (ctypes.c_size_t(number) for number in (first, step, x.size))
        call = getattr(self.library, f"judge_{x.dtype}")
        zero = ctypes.c_double(function.zero)
        call(pointer(x), pointer(want), zero, *sizes, pointer(y), ctypes.byref(verdict))
        return verdict


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def build() -> Judge:
    """Compile judge.cpp into a temporary folder and load it."""
    compiler = next(
        (c for c in (os.environ.get("CXX"), "g++", "c++", "clang++") if c and shutil.which(c)), None
    )
    if compiler is None:
        sys.exit("no C++ compiler found; set CXX")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "judge.so"
        for define, link in (QUAD, ([], [])):
            command = [compiler, *FLAGS, *define, str(HERE / "judge.cpp"), "-o", str(target), *link]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                library = ctypes.CDLL(str(target))
                version = subprocess.run(
                    [compiler, "--version"], capture_output=True, text=True, check=False
                )
                wide = hasattr(library, "refer_float64")
                return Judge(library, version.stdout.splitlines()[0], wide)
    sys.exit(f"{compiler} cannot build judge.cpp:\n{done.stderr}")
