"""The server of docs/deployment.md under load, for as long as one likes: does it stay as it was?

    python bench/soak.py [--minutes 60] [--rate 50] [--connections 8] [--numpy]

Requests come at a fixed rate, each connection at its own times whatever the answers take, so that a
latency holds the wait in front of a slow one. Batches have 1 to 256 rows and are answered with the bits
of the network; one request in ten is wrong, or its client hangs up. Every ten seconds resident memory,
descriptors and threads of all processes are read, and in the workers what malloc and CPython have in
use. At the end: the slopes after the first tenth of the time with their standard errors, latencies, and
what was not as expected, if anything: then the exit status is 1. With --numpy a network of plain NumPy
answers in place of ours, to tell whose the slopes are. Linux with glibc; needs fastapi and gunicorn.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

import fastlayer as fl

PAGE = Path(__file__).resolve().parents[1] / "docs" / "deployment.md"
ROWS = (1, 1, 1, 2, 4, 16, 64, 256)  # as often as they stand here
BODIES = 32  # different batches
EVERY = 10  # seconds between two looks at the processes
MIB = 2**20

# Bytes that malloc has in use, in all arenas, and blocks of CPython's, to a file of each worker's.
INSIDE = f"""
import ctypes, os, sys, threading, time
class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd",
        "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2
def look():
    while True:
        with open(f"heap.{{os.getpid()}}", "a") as file:
            print(time.monotonic(), mallinfo2().uordblks, sys.getallocatedblocks(), file=file)
        time.sleep({EVERY})
os.register_at_fork(after_in_child=lambda: threading.Thread(target=look, daemon=True).start())
"""
# The same network without fastlayer.
BY_NUMPY = """
class ByNumPy:
    def __init__(self, net):
        self.in_features, self.out_features, self.dtype = 4, 3, net.dtype
        self.parts = [(layer.weight.T.copy(), layer.bias.copy()) for layer in net.layers]
    def __call__(self, x):
        (w0, b0), (w1, b1) = self.parts
        with np.errstate(all="ignore"):
            z = np.maximum(x.astype(self.dtype) @ w0 + b0, 0) @ w1 + b1
            e = np.exp(z - z.max(1, keepdims=True))
            return e / e.sum(1, keepdims=True)
MODELS = {name: ByNumPy(net) for name, net in MODELS.items()}
"""


def tensor(data: list, datatype: str = "FP32", shape: tuple[int, ...] | None = None) -> dict:
    shape = shape or (len(data), 4)
    return {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]}


# Path, body, and the status that it is to be answered with; None: the client hangs up.
INFER = "/v2/models/iris/infer"
ROW = [[5.1, 3.5, 1.4, 0.2]]
WRONG = (
    ("/v2/models/rose/infer", json.dumps(tensor(ROW)), 404),
    (INFER, json.dumps(tensor(ROW, shape=(2, 3))), 400),
    (INFER, json.dumps(tensor(ROW, "BYTES")), 400),
    (INFER, json.dumps(tensor([["a"] * 4])), 400),
    (INFER, json.dumps(tensor([[3.4e38] * 4])), 422),
    (INFER, '{"inputs": [', 400),
    (INFER, json.dumps(tensor(ROW * 64)), None),
)


def start(folder: Path, port: int, by_numpy: bool = False) -> tuple[subprocess.Popen, int]:
    """The page's network, its server.py, and its command, on this port; and how many workers it has."""
    section = PAGE.read_text("utf-8").split("\n## A server\n")[1].split("\n## ")[0]
    network, server, *_ = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (folder / "network.py").write_text(network, "utf-8")
    server += INSIDE + (BY_NUMPY if by_numpy else "")
    (folder / "server.py").write_text(server, "utf-8")
    subprocess.run([sys.executable, "network.py"], cwd=folder, check=True)
    (command,) = re.findall(r"^gunicorn .*$", section, re.MULTILINE)
    words = shlex.split(command.replace("8000", str(port)))
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env={**os.environ, "HOME": str(folder)},
            stdout=log,
            stderr=log,
        )
    return server, int(words[words.index("--workers") + 1])


def wait_until_ready(port: int, server: subprocess.Popen, workers: int) -> None:
    for _ in range(300):
        if server.poll() is not None:
            sys.exit("the server ended")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200 and len(look(server.pid)) > workers:
                return
        time.sleep(0.1)
    sys.exit("the server does not answer")


class Client(threading.Thread):
    """One connection at a time, requests at times of its own."""

    def __init__(
        self, port: int, number: int, interval: float, end: float, right: list, same_bits: bool
    ) -> None:
        super().__init__()
        self.same_bits = same_bits
        self.port, self.interval, self.end, self.right = port, interval, end, right
        self.random = random.Random(number)
        self.latencies: list[float] = []
        self.seen: Counter[str] = Counter()
        self.connection = self.connect()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def run(self) -> None:
        due = time.monotonic() + self.random.random() * self.interval
        while due < self.end:
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self.one(due)
            except (OSError, http.client.HTTPException) as error:
                self.seen[f"unexpected: {type(error).__name__}"] += 1
                self.connection = self.connect()
            due += self.interval

    def one(self, due: float) -> None:
        if self.random.random() < 0.1:
            path, body, status = self.random.choice(WRONG)
            if status is None:
                self.hang_up(path, body)
                return
            expected = None
        else:
            path, status = INFER, 200
            body, expected = self.random.choice(self.right)
        answer, content = self.ask(path, body)
        self.latencies.append(time.monotonic() - due)
        found = "as expected" if answer == status else f"unexpected: status {answer} for {status}"
        if answer == status == 200:
            y = np.float32(json.loads(content)["outputs"][0]["data"])
            if self.same_bits and y.tobytes() != expected.tobytes():
                found = "unexpected: other bits"
            elif not np.allclose(y, expected.ravel(), atol=1e-6):
                found = "unexpected: other numbers"
        self.seen[found] += 1

    def ask(self, path: str, body: str) -> tuple[int, bytes]:
        """A server may close a connection between two requests: then once more, on a new one."""
        headers = {"Content-Type": "application/json"}
        for again in (True, False):
            try:
                self.connection.request("POST", path, body, headers)
                answer = self.connection.getresponse()
                return answer.status, answer.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self.connection = self.connect()
                self.seen["connections made again"] += 1
                if not again:
                    raise
        raise AssertionError

    def hang_up(self, path: str, body: str) -> None:
        """In the middle of a request, or before its answer."""
        sent = body if self.random.random() < 0.5 else body[: len(body) // 2]
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall((head + sent).encode())
        self.seen["hung up"] += 1


def look(pid: int) -> dict[int, tuple[int, int, int]]:
    """Resident bytes, descriptors and threads of a process and its children, by number."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = {}
    for process in (pid, *map(int, children)):
        status = Path(f"/proc/{process}/status").read_text()
        resident, threads = (
            int(re.search(rf"^{key}:\s+(\d+)", status, re.MULTILINE)[1])
            for key in ("VmRSS", "Threads")
        )
        found[process] = (resident * 1024, len(os.listdir(f"/proc/{process}/fd")), threads)
    return found


def slope(times: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Least squares through means of neighbours, which hang together less, and its standard error."""
    count = min(30, len(times))
    if count < 3:
        return np.nan, np.nan
    t, v = (np.array([c.mean() for c in np.array_split(a, count)]) for a in (times, values))
    t = t - t.mean()
    fitted = (t @ v) / (t @ t)
    rest = v - v.mean() - fitted * t
    return fitted, np.sqrt(rest @ rest / max(1, count - 2) / (t @ t))


def report_heaps(folder: Path, begin: float) -> None:
    """What the workers have in use, from INSIDE, added up and as a slope."""
    looks = [np.loadtxt(path, ndmin=2) for path in sorted(folder.glob("heap.*"))]
    count = min(map(len, looks))
    times = looks[0][:count, 0]
    later = times >= min(begin, times[-1])  # at least one of them
    for name, column, unit, scale in (("malloc", 1, "MiB", MIB), ("CPython", 2, "blocks", 1)):
        total = sum(look[:count, column] for look in looks)[later] / scale
        fitted, error = slope(times[later] / 3600, total)
        print(f"in use by {name}: {total.min():.1f} to {total.max():.1f} {unit}", end=", ")
        print(f"{fitted:+.2f} +- {error:.2f} {unit} an hour, all workers together")


def report(samples: list[tuple[float, dict]], clients: list[Client], folder: Path) -> bool:
    """Print the figures; whether all was as expected."""
    first, last = samples[0][1], samples[-1][1]
    begin = samples[0][0] + (samples[-1][0] - samples[0][0]) / 10
    later = [(t, s) for t, s in samples if t >= begin]
    hours = np.array([t for t, _ in later]) / 3600
    total = np.array([sum(p[0] for p in s.values()) for _, s in later]) / MIB
    fitted, error = slope(hours, total)
    print(f"{len(samples)} looks at {len(first)} processes, {len(later)} of them for the slope")
    print(
        f"resident: {total[0]:.1f} MiB, at the end {total[-1]:.1f} MiB, at most {total.max():.1f}"
    )
    print(f"slope: {fitted:+.2f} +- {error:.2f} MiB an hour, all processes together")
    report_heaps(folder, begin)
    for name, place in (("descriptors", 1), ("threads", 2)):
        counts = [sum(p[place] for p in s.values()) for _, s in later]
        print(f"{name}: {min(counts)} to {max(counts)}, at the end {counts[-1]}")
    latencies = 1000 * np.concatenate([c.latencies for c in clients])
    p50, p99 = np.quantile(latencies, [0.5, 0.99])
    print(f"latency: p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {latencies.max():.1f} ms")
    seen: Counter[str] = sum((c.seen for c in clients), Counter())
    for what, count in sorted(seen.items()):
        print(f"{what}: {count}")
    same = first.keys() == last.keys()
    print("processes:", "the same all the time" if same else "some ended, others took their place")
    return same and not any(what.startswith("unexpected") for what in seen)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50, help="requests a second, all together")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--numpy", action="store_true", help="NumPy answers in place of fastlayer")
    chosen = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        server, workers = start(folder, port, chosen.numpy)
        try:
            wait_until_ready(port, server, workers)
            net = fl.load(folder / "iris.npz")
            rng = np.random.default_rng(0)
            right = []
            for i in range(BODIES):
                x = rng.normal(size=(ROWS[i % len(ROWS)], 4)).astype(np.float32)
                right.append((json.dumps(tensor(x.tolist())), net(x)))
            end = time.monotonic() + 60 * chosen.minutes
            interval = chosen.connections / chosen.rate
            clients = [
                Client(port, i, interval, end, right, not chosen.numpy)
                for i in range(chosen.connections)
            ]
            for client in clients:
                client.start()
            samples: list[tuple[float, dict]] = []
            while time.monotonic() < end and server.poll() is None:
                samples.append((time.monotonic(), look(server.pid)))
                if len(samples) % 30 == 1:
                    resident = sum(p[0] for p in samples[-1][1].values()) / MIB
                    print(f"{resident:.1f} MiB, load {os.getloadavg()[0]:.1f}", flush=True)
                time.sleep(min(EVERY, max(0.0, end - time.monotonic())))
            for client in clients:
                client.join()
        finally:
            server.terminate()
            status = server.wait(timeout=60)
        good = report(samples, clients, folder)
        print(f"the server ended with status {status}")
        return 0 if good and status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
