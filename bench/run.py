"""Time the named cases in fastlayer and its peers, side by side; README.md tells the rules.

python bench/run.py --publish      all of it, into results-ISA.json and the project's pages
python bench/run.py --quick -o FILE.json | --cases NAME... [--peers NAME...] [--threads 1,2]
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

for _name in [key for key in os.environ if key.startswith("OPENBLAS_")]:
    del os.environ[_name]  # some machines hold NumPy to old kernels; before NumPy is imported

import footprint
import limits
import numpy as np
import pictures
import publish
import report
import results_file
from cases import Case, cases, reference
from errors import exact
from peers import HELD, NAMES
from processes import Peer
from quiet import Quiet
from results_file import MODES, key_of, undisturbed
from tqdm import tqdm
from turns import Settings, expected, judge, rows

import fastlayer as fl

HERE = Path(__file__).parent
PATIENCE = 1800  # seconds of waiting for others, in the whole run


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
        "fastlayer": fl.show_config(mode="dicts"),
    }


def commit() -> str:
    """Of the repository that this file is in; + where files differ from it."""
    sources = ("../cpp", "../python", "../CMakeLists.txt", ".", ":!results-*.json")
    try:
        head = _git("rev-parse", "--short=7", "HEAD")
        return head + "+" * bool(_git("status", "--porcelain", "-uno", "--", *sources))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--quick", action="store_true", help="a few cases, float32, short turns: under 2 minutes")
    add("--list", action="store_true", help="print the names of the cases and why they are here")
    add("--estimate", action="store_true", help="print how long the run would take")
    add("--resume", action="store_true", help="go on where the file ends; disturbed rows anew")
    add("--publish", action="store_true", help="then write the project's pages, as publish.py does")
    add("--cases", nargs="+", metavar="NAME", help="these; * and ? match")
    add("--peers", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    add("--threads", default="1,2")
    add("--dtypes", help="default: float32,float64")
    add("--modes", help=f"of {','.join(MODES)}; default: all")
    add("--rounds", type=int, help="turns of each peer")
    add("--seconds", type=float, help="length of a hot turn")
    add(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds to wait for others; 0: to try it out",
    )
    add("-o", "--output", type=Path, help="default: results-ISA.json beside this file")
    add("--pictures", type=Path, metavar="FOLDER", help="of this run, and its tables as .md there")
    options = parser.parse_args()
    quick = options.quick
    options.threads = [int(part) for part in options.threads.split(",")]
    options.dtypes = (options.dtypes or ("float32" if quick else "float32,float64")).split(",")
    options.modes = (options.modes or ("hot,idle20" if quick else ",".join(MODES))).split(",")
    few = Settings(rounds=3, idle_calls=5) if quick else Settings()
    asked = (options.cases, options.peers, options.rounds, options.seconds)
    wanted = (options.threads, set(options.dtypes), set(options.modes))
    ordinary = wanted == ([1, 2], {"float32", "float64"}, set(MODES))
    held = "FASTLAYER_ISA" in os.environ  # that is no machine of its own: the peers aren't held
    partial = quick or any(asked) or not ordinary or held
    options.whole = not partial
    if options.publish and partial:
        parser.error("only a whole run is published")
    isa = fl.show_config(mode="dicts")["isa"]["active"]
    if partial and options.output is None:
        options.output = Path("results.json")
    options.output = options.output or HERE / f"results-{isa}.json"
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


def start(options) -> dict:
    """An empty results file or the one to resume, without its disturbed rows."""
    settings = asdict(options.settings) | {"threads": options.threads, "modes": options.modes}
    results = {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), "commit": commit()}
    results |= {"machine": machine(), "versions": {}, "pools": {}, "limits": {}, "footprint": None}
    results |= {"settings": settings, "seconds": 0.0, "waited": 0.0, "disturbed": []}
    results |= {"whole": False, "forms": {}, "rows": []}
    if not options.resume or not options.output.exists():
        return results
    old = results_file.read(options.output)
    for key in ("settings", "machine", "commit"):
        now, then = results[key], old[key]
        if key == "machine":
            now, then = ({k: d[k] for k in ("processor", "cores", "python")} for d in (now, then))
        if now != then:
            sys.exit(f"can't resume {options.output}: it has the {key} {then}, this run {now}")
    old["rows"] = undisturbed(old["rows"])
    return old


def write(results: dict, path: Path, quiet: Quiet, before: float) -> None:
    results["waited"] = round(before + quiet.waited, 1)
    results_file.write(results, path)


def alone(what: str, call, results: dict, quiet: Quiet):
    """What `call` measures, undisturbed; noted where it wasn't."""
    found, load, _ = quiet.measure(call)
    results["disturbed"] = [name for name in results["disturbed"] if name != what]
    if load.disturbing:
        results["disturbed"].append(what)
    return found


def measure_limits(results: dict, options, quiet: Quiet) -> None:
    """At the beginning and at the end: clocks vary, and a limit is the most that was seen."""
    sizes = {c.traffic(d)[0] for c in options.cases for d in options.dtypes} - {0}
    for threads in map(str, options.threads):

        def call(threads=threads):
            return limits.measure(int(threads), 0.05 if options.quick else 0.2, sizes)

        now = alone(f"limits, {threads} threads", call, results, quiet)
        before = results["limits"].get(threads)
        if before and now and [n for n, _ in before["rates"]] == [n for n, _ in now["rates"]]:
            now = limits.larger(before, now)
        results["limits"][threads] = limits.rounded(now)


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


def keep(folder: str, case: Case, dtype: str) -> float:
    """Write what outputs are compared with; the relative bound."""
    y, absolute, relative = reference(case, dtype)
    np.save(Path(folder) / "y.npy", y)
    np.save(Path(folder) / "bound.npy", absolute)
    if case.kind == "activation":
        np.save(Path(folder) / "exact.npy", exact(case.hidden, *case.inputs(dtype)).reshape(-1))
    return relative


def note(row: dict, forms: dict[str, str], results: dict) -> None:
    """Count the forms that were fastest, and say what failed."""
    for name, form in forms.items():
        tally = results["forms"].setdefault(name, {})
        tally[form] = tally.get(form, 0) + 1
    for name, error in row.get("failed", {}).items():
        tqdm.write(f"{row['case']} {row['dtype']} {name}: {error}", sys.stderr)


def blas(team: list[Peer]) -> str:
    """threadpoolctl's word on what NumPy multiplies with."""
    pools = next((p.ask(op="pools").get("pools") for p in team if p.name == "numpy_plain"), None)
    return " ".join(str(v) for v in pools[0].values()) if pools else "unknown"


def measure(results: dict, options, teams: dict[int, list[Peer]], quiet: Quiet) -> None:
    """Every case, dtype and number of threads, with the results saved after each case."""
    done = {key_of(row) for row in results["rows"]}
    work = [
        (case, dtype, threads)
        for dtype in options.dtypes
        for case in options.cases
        for threads in teams
        if (case.name, dtype, threads) not in done and case.applies(dtype, threads)
    ]
    cost = {
        (case, dtype, n): expected(case, dtype, results["limits"][str(n)], len(teams[n]), options)
        for case, dtype, n in work
    }
    total = sum(cost.values())
    print(f"{len(cost)} measurements, about {total / 60:.0f} minutes", file=sys.stderr, flush=True)
    if options.estimate:
        return
    judged: dict[tuple, dict[str, float]] = {}

    def errors(case: Case, dtype: str, threads: int) -> dict[str, float]:
        key = (case.judged, dtype, threads)
        if case.judged and key not in judged:
            activation = cases()[case.judged]
            with tempfile.TemporaryDirectory() as folder:
                bound = keep(folder, activation, dtype)
                judged[key] = judge(teams[threads], activation, dtype, folder, bound)
        return judged.get(key, {})

    form = "{percentage:3.0f}% |{bar}| {elapsed}<{remaining} {desc}"
    begun, before, waited = time.monotonic(), results["seconds"], results["waited"]
    with tqdm(total=total, bar_format=form) as bar:
        for case, dtype in dict.fromkeys((case, dtype) for case, dtype, _ in work):
            with tempfile.TemporaryDirectory() as folder:
                relative = keep(folder, case, dtype)
                for threads, team in teams.items():
                    if (case, dtype, threads) not in cost:
                        continue
                    bar.set_description_str(f"{case.name} {dtype} {threads}")
                    known = errors(case, dtype, threads)
                    found = rows(team, case, dtype, folder, relative, known, options, quiet)
                    for row, forms in found:
                        results["rows"].append(row)
                        if row["mode"] == "hot":
                            note(row, forms, results)
                    bar.update(cost[case, dtype, threads])
            results["seconds"] = round(before + time.monotonic() - begun)
            write(results, options.output, quiet, waited)
    results["pools"] = {str(n): blas(team) for n, team in teams.items()}
    write(results, options.output, quiet, waited)


def main() -> int:
    options = parse()
    if options.list:
        for case in options.cases:
            print(f"{case.name:40} {case.reason}")
        return 0
    chosen = [n for n in NAMES if n == "fastlayer" or not options.peers or n in options.peers]
    if fl.show_config(mode="dicts")["isa"]["active"] == "avx512":
        chosen.insert(1, HELD)
    quiet = Quiet(options.patience, say=lambda text: tqdm.write(text, sys.stderr))
    results = start(options)
    begun = time.monotonic()
    if options.estimate:
        quiet.patience = 0
    elif options.patience and not quiet.wait():
        sys.exit("others are at work on this machine: nothing was measured")
    measure_limits(results, options, quiet)
    teams: dict[int, list[Peer]] = {}
    try:
        for threads in options.threads:
            teams[threads] = [Peer(name, threads) for name in chosen]
        ready = {threads: installed(team, results) for threads, team in teams.items()}
        extra = time.monotonic() - begun
        measure(results, options, ready, quiet)
    finally:
        for team in teams.values():
            for peer in team:
                peer.close()
    if options.estimate:
        return 0
    begun = time.monotonic()
    measure_limits(results, options, quiet)
    if options.whole:
        results["footprint"] = alone("import and memory", footprint.measure, results, quiet)
        results["footprint"]["build"] = footprint.build()
    results["whole"] = options.whole
    results["seconds"] = round(results["seconds"] + extra + time.monotonic() - begun)
    results_file.write(results, options.output)
    print(report.summary(results))
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        text = report.markdown(results)
        (options.pictures / options.output.with_suffix(".md").name).write_text(text)
        pictures.draw({"": results}, options.pictures)
    wrong = sorted({r["case"] for r in results["rows"] if "fastlayer" in r.get("failed", {})})
    if wrong:
        print(f"FAILED: fastlayer is wrong or broken in {wrong}", file=sys.stderr)
        return 1
    return publish.publish() if options.publish else 0


if __name__ == "__main__":
    sys.exit(main())
