"""Forked children of a process that has computed on threads: same bits, threads of their own, no hang."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from helpers import few_or_many
from own_process import PATIENCE, WARM, run_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

# Python 3.12 warns of every fork of a process with threads, which these are.
QUIET = ("-W", "error", "-W", "ignore::DeprecationWarning")

CHILDREN = f"""{WARM}
def right():
    "Same bits, and on a team of threads of this process where there are teams."
    before = _core.stats()["parallel_regions"]
    same = digest() == expected
    helped = _core.stats()["parallel_regions"] > before and os_threads() > 1
    return same and helped == _core.config()["openmp"]

def child(work):
    "The exit status of a fork that does `work`; SIGALRM ends one that hangs."
    pid = os.fork()
    if pid == 0:
        signal.alarm({PATIENCE // 5})
        os._exit(0 if work() else 1)
    return os.waitpid(pid, 0)[1]

assert right()
"""


@pytest.mark.parametrize("count", few_or_many(25, 1000))
def test_forks(count):
    run_python(
        f"{CHILDREN}\nfor _ in range({count}):\n    assert child(right) == 0\n    assert right()",
        options=QUIET,
        patience=PATIENCE * max(1, count // 100),
    )


def test_nested_forks():
    code = """
def descend(depth):
    return right() and (depth == 0 or child(lambda: descend(depth - 1)) == 0) and right()
assert descend(4)
"""
    run_python(CHILDREN + code, options=QUIET)


def test_a_child_that_computes_for_the_first_time():
    code = CHILDREN.replace("assert right()", "fl.set_num_threads(3)")
    run_python(f"{code}\nassert child(right) == 0", options=QUIET)


@pytest.mark.parametrize("count", few_or_many(10, 300))
@pytest.mark.parametrize("forking", ["main thread", "other thread"])
def test_fork_while_other_threads_compute(count, forking):
    code = f"""
ending = threading.Event()
wrong = []
def compute():
    while not ending.is_set():
        if digest() != expected:
            wrong.append(1)
threads = [threading.Thread(target=compute) for _ in range(3)]
for thread in threads:
    thread.start()
states = []
def fork():
    for _ in range({count}):
        states.append(child(right))
if {forking!r} == "main thread":
    fork()
else:
    forker = threading.Thread(target=fork)
    forker.start()
    forker.join()
ending.set()
for thread in threads:
    thread.join()
assert states == [0] * {count} and not wrong, (states, wrong)
"""
    run_python(CHILDREN + code, options=QUIET, patience=PATIENCE * max(1, count // 100))


def test_update_in_a_child_forked_during_an_update():
    code = """
ending = threading.Event()
weight = net[0].weight
def update():
    while not ending.is_set():
        net[0].update(weight=weight)
threads = [threading.Thread(target=update) for _ in range(3)]
for thread in threads:
    thread.start()
def work():
    net[0].update(weight=weight)
    return digest() == expected
states = [child(work) for _ in range(20)]
ending.set()
for thread in threads:
    thread.join()
assert states == [0] * 20, states
"""
    run_python(CHILDREN + code, options=QUIET)


def test_multiprocessing_pool():
    code = """
import multiprocessing
def task(i):
    return right()
with multiprocessing.get_context("fork").Pool(4) as pool:
    assert pool.map(task, range(16), chunksize=1) == [True] * 16
assert right()
"""
    run_python(CHILDREN + code, options=QUIET)


APP = f"""{WARM}
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{os.getpid()}} {{digest() == expected}} {{os_threads()}}".encode()]
"""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


def get(path):
    connection = UnixConnection(path)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode().split()
    finally:
        connection.close()


@pytest.mark.parametrize("requests", few_or_many(200, 2000))
def test_gunicorn_with_preload(tmp_path, requests):
    """The parent has computed before it forks four workers; each computes on threads of its own."""
    pytest.importorskip("gunicorn")
    (tmp_path / "app.py").write_text(APP)
    path = str(tmp_path / "socket")
    log = tmp_path / "log"
    command = [sys.executable, *QUIET, "-m", "gunicorn", "--preload", "--workers=4", "--timeout=60"]
    command += [f"--bind=unix:{path}", f"--chdir={tmp_path}", "app:app"]
    with log.open("w") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "HOME": str(tmp_path)}
        )
    try:
        while not os.path.exists(path):
            assert server.poll() is None, log.read_text()
            time.sleep(0.01)
        answers = [get(path) for _ in range(requests)]
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(PATIENCE)
    assert status == 0, log.read_text()
    assert [status for status, _ in answers] == [200] * requests
    assert {right for _, (_, right, _) in answers} == {"True"}
    assert all(1 <= int(threads) <= 8 for _, (_, _, threads) in answers)
    assert str(server.pid) not in {pid for _, (pid, _, _) in answers}
    assert "TIMEOUT" not in log.read_text()
