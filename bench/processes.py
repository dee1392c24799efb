"""The processes of a run: a worker for each peer, and the neighbours that keep the cores busy."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from peers import HELD

THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "FASTLAYER_NUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
PATIENCE = 300  # seconds that a peer may take for one answer


def environment_of(threads: int) -> dict[str, str]:
    """For a process that is to compute with so many threads: libraries read it once."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    return kept | dict.fromkeys(THREAD_VARIABLES, str(threads))


def pin(peer: str, threads: int) -> None:
    """JAX has as many threads as it may use cores, and no setting for fewer."""
    if peer == "jax" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Peer:
    """A worker process. It is stopped (SIGSTOP) while others are at work: pools spin on."""

    worker = Path(__file__).with_name("worker.py")

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.start()

    def start(self) -> None:
        environment = environment_of(self.threads)
        module = self.name
        if module == HELD:
            module, environment["FASTLAYER_ISA"] = module.split("_")
        command = [sys.executable, str(self.worker), module, str(self.threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        self.stopped = False

    def send(self, **command) -> None:
        self.signal(False)
        with contextlib.suppress(OSError):  # a dead process: `receive` says so
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()

    def receive(self) -> dict:
        """The answer; {"error": ...} from a peer that fails, dies or hangs (then a new one)."""
        try:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            line = self.process.stdout.readline() if ready else b""
        except OSError:
            ready, line = True, b""
        if not line:
            self.close()
            self.start()
            return {"error": "the process ended" if ready else f"no answer in {PATIENCE} s"}
        self.signal(True)
        return json.loads(line)

    def ask(self, **command) -> dict:
        self.send(**command)
        return self.receive()

    def signal(self, stop: bool) -> None:
        if stop != self.stopped and self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP if stop else signal.SIGCONT)
            self.stopped = stop

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # it flushes what a dead process didn't read
            self.process.stdin.close()
        self.process.stdout.close()


def ask_all(peers: list[Peer], **command) -> dict[str, dict]:
    """All at once, on all cores; for work that isn't timed."""
    for peer in peers:
        peer.send(**command)
    return {peer.name: peer.receive() for peer in peers}


class Neighbours:
    """A busy process on each core, at work only between `with` and its end."""

    def __enter__(self) -> None:
        command = [sys.executable, "-c", "while True: pass"]
        self.processes = []
        for core in sorted(os.sched_getaffinity(0)):
            self.processes.append(subprocess.Popen(command))
            os.sched_setaffinity(self.processes[-1].pid, [core])
        time.sleep(0.2)

    def __exit__(self, *_) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
