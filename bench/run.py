"""Time the named cases in fastlayer and its peers, side by side; README.md tells the rules.

python bench/run.py [--quick] [--cases NAME...] [--peers NAME...] [--threads 1,2] [-o results.json]
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

for _name in [key for key in os.environ if key.startswith("OPENBLAS_")]:
    del os.environ[_name]  # some machines hold NumPy to old kernels; before NumPy is imported

import footprint
import limits
import numpy as np
import pictures
import report
import results_file
from cases import cases, reference
from peers import NAMES
from processes import Peer
from tqdm import tqdm
from turns import Settings, expected, rows

import fastlayer as fl

MODES = ("hot", "idle", "busy")


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
    add("--estimate", action="store_true", help="print how long the run would take")
    add("--resume", action="store_true", help="go on where the results file ends")
    add("--cases", nargs="+", metavar="NAME", help="these; * and ? match")
    add("--peers", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    add("--threads", default="1,2")
    add("--dtypes", help="default: float32,float64")
    add("--modes", help="of hot,idle,busy; default: all")
    add("--rounds", type=int, help="turns of each peer")
    add("--seconds", type=float, help="length of a hot turn")
    add("-o", "--output", type=Path, default=Path("results.json"), help="and .md beside it")
    add("--pictures", type=Path, metavar="FOLDER", help="default: beside the results")
    options = parser.parse_args()
    quick = options.quick
    options.threads = [int(part) for part in options.threads.split(",")]
    options.dtypes = (options.dtypes or ("float32" if quick else "float32,float64")).split(",")
    options.modes = (options.modes or ("hot,idle" if quick else "hot,idle,busy")).split(",")
    few = Settings(rounds=3, idle_calls=5) if quick else Settings()
    given = {"rounds": options.rounds, "seconds": options.seconds}
    options.settings = Settings(**asdict(few) | {k: v for k, v in given.items() if v})
    if set(options.modes) - set(MODES) or set(options.dtypes) - {"float32", "float64"}:
        parser.error("unknown mode or dtype")
    every = cases().values()
    names = [c.name for c in every if c.quick] if quick and not options.cases else ["*"]
    names = options.cases or names
    options.cases = [c for c in every if any(fnmatch.fnmatchcase(c.name, n) for n in names)]
    if not options.cases:
        parser.error("no such case; see --list")
    return options


def start(options) -> tuple[dict, set[tuple[str, str]]]:
    """An empty results file or the one to resume, and the (case, dtype) that it has."""
    results = {"machine": machine(), "versions": {}, "pools": {}, "limits": {}, "rows": []}
    results |= {"settings": asdict(options.settings), "seconds": 0.0, "done": []}
    if not options.resume or not options.output.exists():
        return results, set()
    old = results_file.read(options.output)
    for key in ("settings", "machine"):
        now, then = results[key], old[key]
        if key == "machine":
            now, then = ({k: d[k] for k in ("processor", "cores", "python")} for d in (now, then))
        if now != then:
            sys.exit(f"can't resume {options.output}: its {key} are {then}, now they are {now}")
    return old, {tuple(pair) for pair in old["done"]}


def write(results: dict, path: Path) -> None:
    results["machine"]["load_after"] = os.getloadavg()[0]
    results_file.write(results, path)


def measure_limits(results: dict, options) -> None:
    """At the beginning and at the end: clocks vary, and a limit is the most that was seen."""
    sizes = {c.traffic(d)[0] for c in options.cases for d in options.dtypes} - {0}
    for threads in map(str, options.threads):
        now = limits.measure(int(threads), 0.05 if options.quick else 0.2, sizes)
        before = results["limits"].get(threads)
        if before and now and [n for n, _ in before["rates"]] == [n for n, _ in now["rates"]]:
            now = limits.larger(before, now)
        results["limits"][threads] = now


def installed(peers: list[Peer], results: dict) -> list[Peer]:
    found = []
    for peer in peers:
        answer = peer.ask(op="hello")
        version = answer.get("version")
        before = results["versions"].get(peer.name, version)
        if version != before:
            sys.exit(f"can't resume: {peer.name} is {version} now and was {before}")
        results["versions"][peer.name] = version
        if version:
            found.append(peer)
        elif peer.threads == peers[0].threads:
            tqdm.write(f"{peer.name}: {answer.get('error', 'not installed')}: left out", sys.stderr)
    return found


def measure(results: dict, done: set, options, teams: dict[int, list[Peer]]) -> None:
    """Every case, dtype and number of threads, with the results saved after each case."""
    work = [
        (case, dtype)
        for dtype in options.dtypes
        for case in options.cases
        if (case.name, dtype) not in done and case.applies(dtype)
    ]
    cost = {
        (case, dtype, n): expected(case, dtype, results["limits"][str(n)], len(team), options)
        for case, dtype in work
        for n, team in teams.items()
    }
    total = sum(cost.values())
    print(f"{len(cost)} measurements, about {total / 60:.0f} minutes", file=sys.stderr, flush=True)
    if options.estimate:
        return
    form = "{percentage:3.0f}% |{bar}| {elapsed}<{remaining} {desc}"
    before, begun = results["seconds"], time.monotonic()
    with tqdm(total=total, bar_format=form) as bar:
        for case, dtype in work:
            with tempfile.TemporaryDirectory() as folder:
                y, absolute, relative = reference(case, dtype)
                np.save(Path(folder) / "y.npy", y)
                np.save(Path(folder) / "bound.npy", absolute)
                del y, absolute
                for threads, team in teams.items():
                    bar.set_description_str(f"{case.name} {dtype} {threads}")
                    for row in rows(team, case, dtype, folder, relative, options):
                        results["rows"].append(row)
                    for name, error in row["failed"].items():
                        tqdm.write(f"{case.name} {dtype} {name}: {error}", sys.stderr)
                    bar.update(cost[case, dtype, threads])
            results["done"].append((case.name, dtype))
            results["seconds"] = before + time.monotonic() - begun
            write(results, options.output)
    results["pools"] = {
        str(n): {p.name: p.ask(op="pools").get("pools") for p in team} for n, team in teams.items()
    }


def main() -> int:
    options = parse()
    if options.list:
        for case in options.cases:
            print(f"{case.name:34} {case.reason}")
        return 0
    chosen = [n for n in NAMES if n == "fastlayer" or not options.peers or n in options.peers]
    results, done = start(options)
    begun = time.monotonic()
    measure_limits(results, options)
    teams: dict[int, list[Peer]] = {}
    try:
        for threads in options.threads:
            teams[threads] = [Peer(name, threads) for name in chosen]
        ready = {threads: installed(team, results) for threads, team in teams.items()}
        extra = time.monotonic() - begun
        measure(results, done, options, ready)
    finally:
        for team in teams.values():
            for peer in team:
                peer.close()
    if options.estimate:
        return 0
    begun = time.monotonic()
    measure_limits(results, options)
    results["footprint"] = footprint.measure()
    results["seconds"] += extra + time.monotonic() - begun
    write(results, options.output)
    text = report.markdown(results)
    options.output.with_suffix(".md").write_text(text)
    print(text)
    pictures.draw(results, options.pictures or options.output.parent)
    wrong = sorted({r["case"] for r in results["rows"] if "fastlayer" in r["failed"]})
    if wrong:
        print(f"FAILED: fastlayer is wrong or broken in {wrong}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
