"""Time the named cases in fastlayer and its peers, side by side; README.md tells the rules.

python bench/run.py [--quick] [--cases NAME...] [--peers NAME...] [--threads 1,2] [-o results.json]
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for _name in [key for key in os.environ if key.startswith("OPENBLAS_")]:
    del os.environ[_name]  # some machines hold NumPy to old kernels; before NumPy is imported

import limits
import numpy as np
import report
from cases import cases, reference
from peers import NAMES
from tqdm import tqdm

import fastlayer as fl

HERE = Path(__file__).parent
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "FASTLAYER_NUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
MODES = ("hot", "idle", "busy")
PATIENCE = 120  # seconds that a peer may take for one answer


class Peer:
    """A worker process. It is stopped (SIGSTOP) while others are at work: pools spin on."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.start()

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
        environment |= dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        command = [sys.executable, str(HERE / "worker.py"), self.name, str(self.threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        self.stopped, self.version = False, None

    def ask(self, **command) -> dict:
        """The answer; {"error": ...} from a peer that fails, dies or hangs (then a new one)."""
        self.signal(False)
        try:
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()
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


def turns(peers: list[Peer], mode: str, options) -> dict[str, dict]:
    """A B C, A B C, ...: for each peer what each of its turns took."""
    found: dict[str, dict] = {peer.name: {"p50": [], "all": []} for peer in peers}
    for _ in range(options.rounds):
        for peer in peers:
            entry = found[peer.name]
            if "error" in entry:
                continue
            answer = peer.ask(op="turn", mode=mode, seconds=options.seconds, calls=options.calls)
            if "error" in answer:
                entry["error"] = answer["error"]
                continue
            entry["p50"].append(float(np.median(answer["times"])))
            entry["all"] += answer["times"]
            entry["inner"] = answer["inner"]
    for entry in found.values():
        times = entry.pop("all")
        if "error" not in entry:
            entry["time"] = float(np.median(entry["p50"]))
            entry["p99"] = float(np.quantile(times, 0.99))
            entry["samples"] = len(times)
    return found


def rows(peers: list[Peer], case, dtype: str, threads: int, limit: dict | None, options):
    """Check all peers, then time those that compute the case; one row for each mode."""
    failed, ready = {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.npz"
        y, bound = reference(case, dtype)
        np.savez(path, y=y, bound=bound)
        del y, bound
        for peer in peers:
            answer = peer.ask(op="prepare", case=case.name, dtype=dtype, reference=str(path))
            if "error" in answer:
                failed[peer.name] = answer["error"]
            elif answer["applies"]:
                ready.append(peer)
    least = limits.fastest(limit, dtype, case.flops, case.traffic(dtype))
    for mode in options.modes:
        if mode != "hot" and not case.latency:
            continue
        if mode == "busy":
            with Neighbours():
                timed = turns(ready, mode, options)
        else:
            timed = turns(ready, mode, options)
        row = {"case": case.name, "kind": case.kind, "reason": case.reason, "dtype": dtype}
        row |= {"batch": case.batch, "threads": threads, "mode": mode, "flops": case.flops}
        row |= {"traffic": case.traffic(dtype), "least": least and least[0]}
        row |= {"limit": least and least[1], "peers": timed, "failed": failed}
        yield row | report.ratio(timed)
    for peer in ready:
        peer.ask(op="drop")


def machine() -> dict:
    """Where the numbers come from."""
    info = Path("/proc/cpuinfo")
    found = {}
    for line in info.read_text().splitlines() if info.exists() else []:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    flags = found.get("flags", found.get("Features", "")).split()
    return {
        "processor": found.get("model name") or platform.processor() or platform.machine(),
        "flags": [f for f in flags if f.startswith(("avx", "fma", "asimd", "sve"))],
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "fastlayer": fl.show_config(mode="dicts"),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--quick", action="store_true", help="a few cases, float32, short turns: under 2 minutes")
    add("--list", action="store_true", help="print the names of the cases and why they are here")
    add("--cases", nargs="+", metavar="NAME", help="these; * and ? match")
    add("--peers", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    add("--threads", default="1,2")
    add("--dtypes", help="default: float32,float64")
    add("--modes", help="of hot,idle,busy; default: all")
    add("--rounds", type=int, help="turns of each peer")
    add("--seconds", type=float, help="length of a turn")
    add("-o", "--output", type=Path, default=Path("results.json"), help="and .md, .png, .svg")
    options = parser.parse_args()
    quick = options.quick
    options.threads = [int(part) for part in options.threads.split(",")]
    options.dtypes = (options.dtypes or ("float32" if quick else "float32,float64")).split(",")
    options.modes = (options.modes or ("hot,idle" if quick else "hot,idle,busy")).split(",")
    options.rounds = options.rounds or (3 if quick else 5)
    options.seconds = options.seconds or (0.02 if quick else 0.1)
    options.calls = 5 if quick else 30  # after idle: 20 ms each
    if set(options.modes) - set(MODES) or set(options.dtypes) - {"float32", "float64"}:
        parser.error("unknown mode or dtype")
    every = cases().values()
    names = [c.name for c in every if c.quick] if quick and not options.cases else ["*"]
    names = options.cases or names
    options.cases = [c for c in every if any(fnmatch.fnmatchcase(c.name, n) for n in names)]
    if not options.cases:
        parser.error("no such case; see --list")
    return options


def main() -> int:
    options = parse()
    if options.list:
        for case in options.cases:
            print(f"{case.name:34} {case.reason}")
        return 0
    chosen = [n for n in NAMES if n == "fastlayer" or not options.peers or n in options.peers]
    results = {"machine": machine(), "versions": {}, "pools": {}, "limits": {}, "rows": []}
    results["settings"] = {k: getattr(options, k) for k in ("quick", "rounds", "seconds", "calls")}
    begun = time.monotonic()
    total = len(options.cases) * len(options.threads) * len(options.dtypes)
    with tqdm(total=total, unit="case") as bar:
        for threads in options.threads:
            limit = limits.measure(threads, 0.05 if options.quick else 0.3)
            results["limits"][str(threads)] = limit
            started = [Peer(name, threads) for name in chosen]
            try:
                one_team(started, threads, limit, options, results, bar)
                write(results, options.output, begun)  # a full run takes hours
            finally:
                for peer in started:
                    peer.close()
    write(results, options.output, begun)
    text = report.markdown(results)
    options.output.with_suffix(".md").write_text(text)
    print(text)
    report.pictures(results, options.output)
    wrong = [r["case"] for r in results["rows"] if "fastlayer" in r["failed"]]
    if wrong:
        print(f"FAILED: fastlayer is wrong or broken in {wrong}", file=sys.stderr)
    return bool(wrong)


def write(results: dict, path: Path, begun: float) -> None:
    results["machine"]["load_after"] = os.getloadavg()[0]
    results["seconds"] = time.monotonic() - begun
    path.write_text(json.dumps(results, indent=1) + "\n")


def one_team(started: list[Peer], threads: int, limit, options, results: dict, bar: tqdm) -> None:
    """All cases at one number of threads."""
    peers = []
    for peer in started:
        answer = peer.ask(op="hello")
        version = answer.get("version")
        results["versions"][peer.name] = version
        if version:
            peers.append(peer)
        else:
            tqdm.write(f"{peer.name}: {answer.get('error', 'not installed')}: left out", sys.stderr)
    for dtype in options.dtypes:
        for case in options.cases:
            bar.set_description(f"{case.name} {dtype} {threads}")
            for row in rows(peers, case, dtype, threads, limit, options):
                results["rows"].append(row)
                for name, error in row["failed"].items():
                    tqdm.write(f"{case.name} {dtype} {name}: {error}", sys.stderr)
            bar.update()
    results["pools"][str(threads)] = {p.name: p.ask(op="pools").get("pools") for p in peers}


if __name__ == "__main__":
    sys.exit(main())
