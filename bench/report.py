"""Ratios and the Markdown tables of a results file.

    python bench/report.py results.json [FOLDER]

writes the tables again, and the pictures into FOLDER (or beside the file), without measuring.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import limits
import pictures
import results_file
from goals import goals

TITLES = {
    "fastlayer": "fastlayer",
    "numpy_plain": "NumPy",
    "numpy_out": "NumPy, out=",
    "torch_eager": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "jax": "JAX",
    "sklearn": "scikit-learn",
}


def ratio(timed: dict[str, dict]) -> dict:
    """The best peer's time over ours, turn by turn, then the median; the same for p99.

    In each turn the fastest peer counts, whoever that is: noise helps the peers, never us.
    """
    ours = timed.get("fastlayer", {})
    others = {k: v for k, v in timed.items() if k != "fastlayer" and "time" in v}
    if "time" not in ours or not others:
        return {"ratio": None, "ratio_p99": None, "best": None}
    # a slow peer takes part in the first turns only
    by_turn = zip_longest(*(v["p50"] for v in others.values()), fillvalue=math.inf)
    ratios = [min(times) / own for times, own in zip(by_turn, ours["p50"], strict=False)]
    return {
        "ratio": statistics.median(ratios),
        "ratio_p99": min(v["p99"] for v in others.values()) / ours["p99"],
        "best": min(others, key=lambda name: others[name]["time"]),
    }


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def table(columns: list[str], body: list[list[str]]) -> str:
    lines = (columns, ["---"] * len(columns), *body)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def geometric(values: list[float]) -> str:
    return f"{statistics.geometric_mean(values):.2f}" if values else "-"


def markdown(results: dict) -> str:
    """Where the numbers come from, a summary, and every row."""
    rows = results["rows"]
    parts = [stamp(results), goal_table(results), summary(rows)]
    groups = dict.fromkeys((r["mode"], r["dtype"], r["threads"]) for r in rows)
    for mode, dtype, threads in groups:
        parts.append(f"### {mode}, {dtype}, {threads} thread{'s' * (threads > 1)}\n")
        body = [
            line(row, results["limits"].get(str(row["threads"])))
            for row in rows
            if (row["mode"], row["dtype"], row["threads"]) == (mode, dtype, threads)
        ]
        peers = [TITLES[name] for name in TITLES if name != "fastlayer"]
        columns = ["case", "fastlayer", "p99", "GFLOP/s", "of the limit", "ratio", "ratio p99"]
        parts.append(table([*columns, *peers], body))
    parts.append(
        "ratio: the time of the best peer (**bold**) over that of fastlayer, so that above 1 "
        "fastlayer is faster; **behind** marks the rows where a peer is. of the limit: the time of "
        "the FMAs at the peak, or of moving weights, inputs and results once, whichever is longer, "
        "over the time of fastlayer. -: does not apply. failed: wrong results or an error, see the "
        "JSON file.\n"
    )
    return "\n".join(parts)


def goal_table(results: dict) -> str:
    words = {True: "yes", False: "**no**", None: "not in this run"}
    body = [[g.name, g.goal, g.measured, words[g.met]] for g in goals(results)]
    return table(["goal", "to reach", "measured", "met"], body)


def stamp(results: dict) -> str:
    machine = results["machine"]
    versions = [f"{TITLES[k]} {v or 'not installed'}" for k, v in results["versions"].items()]
    body = [
        ["processor", f"{machine['processor']}, {machine['cores']} cores"],
        ["flags", " ".join(machine["flags"])],
        ["system", f"{machine['system']}, Python {machine['python']}"],
        ["versions", ", ".join(versions)],
        ["fastlayer", str(machine["fastlayer"]["isa"]["active"])],
        ["load average", f"{machine['load_before']:.2f} before, {machine['load_after']:.2f} after"],
        ["time", f"{results['seconds'] / 60:.1f} minutes"],
    ]
    if machine["load_before"] > 0.5:
        body.append(["**warning**", "**the machine was busy: these times mean little**"])
    forms = Counter(
        (name, entry["form"])
        for row in results["rows"]
        for name, entry in row["peers"].items()
        if row["mode"] == "hot"
    )
    several = Counter(name for name, _ in forms)
    text = [f"{TITLES[k]} {form} {n}" for (k, form), n in sorted(forms.items()) if several[k] > 1]
    body.append(["rows by fastest form", ", ".join(text)])
    for threads, found in results["limits"].items():
        if found is None:
            body.append([f"limits, {threads}", "not measured: no C compiler, or no vectors"])
            continue
        flops = [f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in found["flops"].items()]
        sizes = limits.levels(found, int(threads))
        rates = [f"{k} {limits.rate(found, v) / 1e9:.0f} GB/s" for k, v in sizes.items()]
        body.append([f"limits, {threads} threads", ", ".join(flops + rates)])
    for threads, pools in results["pools"].items():
        numpy = (pools.get("numpy_plain") or [{}])[0]
        text = " ".join(str(v) for v in numpy.values())
        body.append([f"NumPy's BLAS, {threads} threads", text or "threadpoolctl is missing"])
    return table(["measured with", ""], body)


def summary(rows: list[dict]) -> str:
    """Rows behind a peer, and geometric means by batch."""
    body = []
    for key in dict.fromkeys((r["mode"], r["dtype"], r["threads"]) for r in rows):
        group = [r for r in rows if (r["mode"], r["dtype"], r["threads"]) == key and r["ratio"]]
        nets = [r for r in group if r["kind"] == "network"]
        small = [r["ratio"] for r in nets if r["batch"] <= 32]
        large = [r["ratio"] for r in nets if r["batch"] > 32]
        behind = sum(r["ratio"] < 1 for r in group)
        cells = [str(part) for part in key] + [f"{behind} of {len(group)}"]
        cells += [geometric(small), geometric(large), geometric([r["ratio"] for r in group])]
        body.append(cells)
    columns = ["mode", "dtype", "threads", "rows behind a peer"]
    return table([*columns, "networks, batch <= 32", "batch > 32", "geometric mean of all"], body)


def line(row: dict, limit: dict | None) -> list[str]:
    """One row of the table."""
    cells = []
    for name in TITLES:
        entry = row["peers"].get(name, {})
        cell = duration(entry["time"]) if "time" in entry else "-"
        if "error" in entry or name in row["failed"]:
            cell = "failed"
        cells.append(f"**{cell}**" if name == row["best"] else cell)
    ours = row["peers"].get("fastlayer", {})
    if "time" not in ours:
        return [row["case"], cells[0], *["-"] * 5, *cells[1:]]
    rate = f"{row['flops'] / ours['time'] / 1e9:.3g}" if row["flops"] else "-"
    least = limits.fastest(limit, row) if row["mode"] == "hot" else None
    share = f"{100 * least[0] / ours['time']:.0f} % {least[1]}" if least else "-"
    ratios = ["-", "-"]
    if row["ratio"]:
        ratios = [f"{row[key]:.2f}" for key in ("ratio", "ratio_p99")]
        if row["ratio"] < 1:
            ratios[0] += " **behind**"
    return [row["case"], cells[0], duration(ours["p99"]), rate, share, *ratios, *cells[1:]]


def main() -> None:
    path = Path(sys.argv[1])
    results = results_file.read(path)
    path.with_suffix(".md").write_text(markdown(results))
    pictures.draw(results, Path(sys.argv[2]) if len(sys.argv) > 2 else path.parent)


if __name__ == "__main__":
    main()
