"""Seconds until a network reads 98 % of MNIST's test images: fastlayer and its peers, from the same
weights, with the same batches; in each round from others, for chance has a part in it.

    python bench/mnist.py --data mnist.npz [-o FILE.json] [--peers NAME...] [--threads 1,2]

The archive holds x_train, y_train, x_test and y_test, as Keras has them. Only training is timed: not
imports, compiling, or the reading of the test images after each epoch. Each run has a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np
import report
import results_file
from processes import environment_of, pin
from quiet import Quiet

HERE = Path(__file__).parent
SIZES = (784, 512, 512, 10)
BATCH, RATE = 128, 5e-4
GOAL, MOST = 0.98, 30  # of the test images, and of epochs
PEERS = {  # the form of each that is the fastest with this network
    "fastlayer": "steps",
    "numpy_out": "out=",
    "torch_eager": "fused",
    "torch_compiled": "compiled loss",
    "jax": "scan",
    "sklearn": "partial_fit",
    "keras": "train_on_batch",
}


def start(rng: np.random.Generator) -> list:
    """(weight, bias, activation) of each layer, as He et al. (2015) draw them."""
    found = []
    for k, n in pairwise(SIZES):
        weight = rng.normal(0, np.sqrt(2 / k), (n, k)).astype(np.float32)
        found.append((weight, np.zeros(n, np.float32), "relu"))
    return [*found[:-1], (*found[-1][:2], None)]


def one(name: str, data: Path, threads: int, seed: int) -> dict:
    """Train here; seconds and accuracies epoch by epoch."""
    pin(name, threads)
    with np.load(data) as archive:
        x, t, test, truth = (archive[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    x, test = (np.float32(images.reshape(len(images), -1)) / 255 for images in (x, test))
    peer = importlib.import_module(f"peers.{name}")
    version = peer.available()
    if version is None:
        return {"version": None}
    from peers._training import Task

    rng = np.random.default_rng(seed)
    task = Task(start(rng), x, t.astype(np.int64), BATCH, "adam", RATE, threads)
    way = (peer.learners(task) or {})[PEERS[name]]
    whole = len(x) // BATCH * BATCH  # the rest differs from epoch to epoch
    seconds, accuracies = [], []
    while len(seconds) < MOST and not (accuracies and accuracies[-1] >= GOAL):
        order = way.own(rng.permutation(len(x))[:whole])
        if not seconds:
            way.ready(order)
        begun = time.perf_counter()
        way.epoch(order)
        seconds.append(round(time.perf_counter() - begun, 4))
        accuracies.append(float(np.mean(way.answers(test) == truth)))
    return {"version": version, "seconds": seconds, "accuracies": accuracies}


def apart(name: str, data: Path, threads: int, seed: int) -> dict:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--data", str(data), "--one", name]
    command += ["--threads", str(threads), "--seed", str(seed)]
    done = subprocess.run(
        command, env=environment_of(threads), stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        return {"version": None, "error": f"exit status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace, quiet: Quiet) -> list[dict]:
    """A B C, A B C, ...; the runs of each peer and number of threads."""
    found: dict[tuple[int, str], dict] = {}
    for turn in range(options.rounds):
        for threads in options.threads:
            for name in options.peers:
                row = found.setdefault((threads, name), {"peer": name, "threads": threads})
                if turn and "runs" not in row:
                    continue

                def call(name=name, threads=threads, seed=options.seed + turn):
                    return apart(name, options.data, threads, seed)

                run, load, again = quiet.measure(call)
                if "seconds" not in run:
                    row["error"] = run.get("error", "not installed")
                    print(f"{name}: {row['error']}: left out", file=sys.stderr)
                    continue
                row["version"] = run.pop("version")
                run |= {"load": round(load.share, 3)} | ({"again": again} if again else {})
                if load.disturbing:
                    run["disturbed"] = True
                row.setdefault("runs", []).append(run)
                took, epochs = sum(run["seconds"]), len(run["seconds"])
                said = f"{name}, {threads} threads: {took:.2f} s, {epochs} epochs"
                print(f"{said}, {run['accuracies'][-1]:.2%}", file=sys.stderr)
    return [summed(row) for row in found.values()]


def summed(row: dict) -> dict:
    """With the medians of its runs."""
    runs = row.get("runs")
    if not runs:
        return row
    reached = all(run["accuracies"][-1] >= GOAL for run in runs)
    totals = [sum(run["seconds"]) for run in runs]
    each = statistics.median(s for run in runs for s in run["seconds"])
    facts = {"seconds": round(statistics.median(totals), 3), "epoch": round(each, 4)}
    facts |= {"epochs": [len(run["seconds"]) for run in runs], "reached": reached}
    return {k: v for k, v in row.items() if k != "runs"} | facts | {"runs": runs}


def table(rows: list[dict]) -> str:
    """Seconds and epochs of each peer, by threads."""
    counts = list(dict.fromkeys(row["threads"] for row in rows))
    body = []
    for name in dict.fromkeys(row["peer"] for row in rows):
        cells = [report.TITLES[name]]
        for threads in counts:
            row = next(r for r in rows if (r["peer"], r["threads"]) == (name, threads))
            if "runs" not in row:
                cells += ["-", "-", "-"]
                continue
            span = sorted(set(row["epochs"]))
            epochs = "-".join(str(n) for n in (span[0], span[-1])[: len(span)])
            total = f"{row['seconds']:.3g} s" if row["reached"] else "not reached"
            cells += [total, epochs, report.duration(row["epoch"])]
        body.append(cells)
    columns = [""]
    for threads in counts:
        columns += [f"{threads} thread{'s' * (threads > 1)}", "epochs", "an epoch"]
    return report.table(columns, body)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FILE", help="mnist.npz")
    add("--peers", nargs="+", choices=PEERS, metavar="NAME", default=list(PEERS))
    add("--threads", default="1,2")
    add("--rounds", type=int, default=5, help="runs of each, of which the median counts")
    add("--seed", type=int, default=0, help="of the first round; the next ones count on")
    add("--patience", type=float, default=600, help="seconds to wait for others; 0: to try it out")
    add("-o", "--output", type=Path, help="default: results-mnist-ISA.json beside this file")
    add("--one", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.threads = [int(part) for part in options.threads.split(",")]
    if not options.data.is_file():
        parser.error(f"there is no file {options.data}")
    if options.one:
        print(json.dumps(one(options.one, options.data, *options.threads, options.seed)))
        return 0
    from run import commit, machine

    found = {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), "commit": commit()}
    found |= {"machine": machine(), "sizes": SIZES, "batch": BATCH, "rate": RATE, "goal": GOAL}
    quiet = Quiet(options.patience, say=lambda text: print(text, file=sys.stderr))
    begun = time.monotonic()
    found["rows"] = measure(options, quiet)
    found |= {"seconds": round(time.monotonic() - begun), "waited": round(quiet.waited, 1)}
    isa = found["machine"]["fastlayer"]["isa"]["active"]
    path = options.output or HERE / f"results-mnist-{isa}.json"
    results_file.write_text(found, path)
    print(table(found["rows"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
