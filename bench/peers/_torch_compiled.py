"""A network that AOTInductor has compiled, kept in a folder between runs."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
from functools import partial
from pathlib import Path

PATIENCE = 60  # seconds for one network; about 4, and 13 for the first of a process
MOST = 32 << 20  # bytes of weights, which become part of the program
LOG = logging.getLogger(__name__)


def folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fastlayer-bench"


def applies(case, dtype: str) -> bool:
    """Float64 products go to the same BLAS as without it."""
    return dtype == "float32" and case.traffic(dtype)[0] <= MOST


def key(case, dtype: str, threads: int) -> str:
    """Of the numbers, the code that is made from them, and the machine it is made for."""
    import torch

    found = hashlib.sha256()
    for weight, bias, act in case.layers(dtype):
        found.update(weight.tobytes() + bias.tobytes() + str(act).encode())
    facts = (torch.__version__, torch.backends.cpu.get_cpu_capability(), os.uname().machine)
    found.update(repr((*facts, case.sizes, case.batch, threads)).encode())
    return found.hexdigest()[:24]


def compiled(case, dtype: str, threads: int, net, inputs):
    """Takes the arguments of net; None where it does not apply, or is not to be had in time."""
    if not applies(case, dtype):
        return None
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder() / "inductor")
    import torch
    from torch._inductor import aoti_compile_and_package, aoti_load_package, config

    frozen = partial(config.patch, freezing=True, compile_threads=1)  # packs the weights
    path = folder() / f"{key(case, dtype, threads)}.pt2"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}.pt2")
            with limit(PATIENCE), torch.inference_mode(False), torch.no_grad(), frozen():
                exported = torch.export.export(net, inputs)
                aoti_compile_and_package(exported, package_path=str(draft))
            draft.replace(path)
        run = aoti_load_package(str(path), run_single_threaded=True).loader.run
    except Exception as error:  # noqa: BLE001  # no compiler, another version: one form less
        LOG.warning("AOTInductor: %s", error)
        return None
    return lambda x: run([x])[0]


class limit:
    """Raises TimeoutError after some seconds, in the main thread."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        def late(*_):
            raise TimeoutError(f"not compiled in {self.seconds} s")

        self.before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
