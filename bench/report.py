"""Ratios and the Markdown tables of results files.

    python bench/report.py results.json [FOLDER]

writes the tables and the pictures into FOLDER (or beside the file), without measuring.
"""

from __future__ import annotations

import math
import statistics
import sys
from itertools import zip_longest
from pathlib import Path

import limits
import pictures
import results_file
from goals import goals
from peers import HELD

Row = dict
TITLES = {
    "fastlayer": "fastlayer",
    HELD: "held to AVX2",
    "numpy_plain": "NumPy",
    "numpy_out": "NumPy, out=",
    "torch_eager": "PyTorch",
    "torch_compiled": "PyTorch, compiled",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "litert": "LiteRT",
    "mnn": "MNN",
    "jax": "JAX",
    "sklearn": "scikit-learn",
    "keras": "Keras",
}
PEERS = [name for name in TITLES if not name.startswith("fastlayer")]


def ratios(timed: dict[str, dict], apart: set[str], mode: str) -> dict:
    """A row's ratios and times, in microseconds: the best peer's time over ours, turn by turn, then
    the median. In each turn the fastest peer counts, whoever that is: noise helps the peers.

    `held` is that of fastlayer without AVX-512, `ratio_loose` against the peers in `apart`.
    """
    good = {name: entry for name, entry in timed.items() if "time" in entry}
    others = {k: v for k, v in good.items() if not k.startswith("fastlayer")}
    equal = {k: v for k, v in others.items() if k not in apart}
    found: dict = {}
    for key, ours, peers in (
        ("ratio", "fastlayer", equal),
        ("held", HELD, equal),
        ("ratio_loose", "fastlayer", {k: v for k, v in others.items() if k in apart}),
    ):
        if ours in good and peers:
            # a slow peer takes part in the first turns only
            by_turn = zip_longest(*(v["p50"] for v in peers.values()), fillvalue=math.inf)
            turns = zip(by_turn, good[ours]["p50"], strict=False)
            found[key] = digits(statistics.median(min(times) / own for times, own in turns))
    if mode != "hot" and "fastlayer" in good and equal:
        best = min(v["p99"] for v in equal.values())
        found["ratio_p99"] = digits(best / good["fastlayer"]["p99"])
    found["us"] = {k: digits(v["time"] * 1e6) for k, v in good.items()}
    if mode != "hot":
        found["p99"] = {k: digits(v["p99"] * 1e6) for k, v in good.items()}
    failed = {k: v["error"] for k, v in timed.items() if "error" in v}
    return found | ({"failed": failed} if failed else {})


def digits(value: float) -> float:
    """Four of them, which is more than a measurement has."""
    return float(f"{value:.4g}")


def held(rows: list[Row]) -> list[Row]:
    """The rows as if fastlayer had had no AVX-512."""
    return [
        row | {"us": row["us"] | {"fastlayer": row["us"][HELD]}, "ratio": row.get("held")}
        for row in rows
        if HELD in row["us"]
    ]


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
    """Where the numbers come from, the goals, a summary, and every row."""
    rows = results_file.expanded(results)
    parts = [stamp({"": results}), goal_table({"measured": results}), summary(results)]
    for mode, dtype, threads in dict.fromkeys((r["mode"], r["dtype"], r["threads"]) for r in rows):
        parts.append(f"### {mode}, {dtype}, {threads} thread{'s' * (threads > 1)}\n")
        found = [r for r in rows if (r["mode"], r["dtype"], r["threads"]) == (mode, dtype, threads)]
        limit = results["limits"].get(str(threads))
        with_held = any(HELD in row["us"] for row in found)
        columns = ["case", "fastlayer", *(["held to AVX2"] if with_held else [])]
        columns += ["GFLOP/s", "of the limit"] if mode == "hot" else ["p99"]
        columns += ["ratio", *(["held"] if with_held else []), "ratio, less accurate"]
        columns += [] if mode == "hot" else ["ratio p99"]
        names = [name for name in PEERS if any(name in row["us"] for row in found)]
        body = [line(row, limit, names, with_held) for row in found]
        parts.append(table([*columns, *(TITLES[name] for name in names)], body))
    parts.append(
        "ratio: the time of the best peer (**bold**) over that of fastlayer, so that above 1 "
        "fastlayer is faster; **behind** marks the rows where a peer is. less accurate: the same "
        "against peers whose errors (in ULP, beside their times; in a network, those of its "
        "activation) are beyond the limits that "
        "fastlayer keeps, which the ratio leaves out. of the limit: the time of the FMAs at the "
        "peak, or of moving weights, inputs and results once, whichever is longer, over the time of "
        "fastlayer. -: does not apply. failed: wrong results or an error, see the results file. "
        "again: disturbed by other processes, and repeated.\n"
    )
    return "\n".join(parts)


def line(row: Row, limit: dict | None, names: list[str], with_held: bool) -> list[str]:
    """One row of the table."""
    ours, hot = row["us"].get("fastlayer"), row["mode"] == "hot"
    mark = " (disturbed)" if row.get("disturbed") else " (again)" if row.get("again") else ""
    cells = [row["case"] + mark, duration(ours * 1e-6) if ours else "failed"]
    if with_held:
        cells.append(duration(row["us"][HELD] * 1e-6) if HELD in row["us"] else "-")
    if hot:
        flops = f"{row['flops'] / ours / 1e3:.3g}" if row["flops"] and ours else "-"
        least = limits.fastest(limit, row) if ours else None
        cells += [flops, f"{1e8 * least[0] / ours:.0f} % {least[1]}" if least else "-"]
    else:
        cells.append(duration(row["p99"]["fastlayer"] * 1e-6) if ours else "-")
    cells.append(verdict(row.get("ratio")))
    if with_held:
        cells.append(verdict(row.get("held")))
    cells.append(f"{row['ratio_loose']:.2f}" if row.get("ratio_loose") else "-")
    if not hot:
        cells.append(verdict(row.get("ratio_p99")))
    for name in names:
        cell = duration(row["us"][name] * 1e-6) if name in row["us"] else "-"
        cell = "failed" if name in row.get("failed", {}) else cell
        cell = f"**{cell}**" if name == row["best"] else cell
        error = row.get("ulp", {}).get(name, 0)
        cells.append(f"{cell} ({error:.2g})" if error > 0.5 and name in row["us"] else cell)
    return cells


def verdict(value: float | None) -> str:
    if not value:
        return "-"
    return f"{value:.2f}" + (" **behind**" if value < 1 else "")


def goal_table(columns: dict[str, dict]) -> str:
    """The goals against one or more results; a title ending in `held` takes those rows."""
    words, found = {True: "", False: "**no:** ", None: ""}, {}
    for title, results in columns.items():
        rows = results_file.expanded(results)
        limit, footprint = results["limits"], results.get("footprint")
        if title.endswith("held to AVX2"):  # the limits are those of AVX-512
            rows, limit, footprint = held(rows), {}, None
        reached = goals(rows, limit, footprint)
        found[title] = {g.name: g for g in reached if footprint or g.met is not None}
    names = {name: goal.goal for column in found.values() for name, goal in column.items()}
    body = []
    for name, goal in names.items():
        cells = [column.get(name) for column in found.values()]
        texts = [words[cell.met] + cell.measured if cell else "-" for cell in cells]
        body.append([name, goal, *texts])
    return table(["goal", "to reach", *found], body)


def stamp(columns: dict[str, dict]) -> str:
    """Where the numbers of one or more results come from."""
    facts = [facts_of(results) for results in columns.values()]
    keys = dict.fromkeys(key for found in facts for key in found)
    body = [[key, *(found.get(key, "-") for found in facts)] for key in keys]
    return table(["measured with", *columns], body)


def facts_of(results: dict) -> dict[str, str]:
    machine = results["machine"]
    versions = [f"{TITLES[k]} {v or 'not installed'}" for k, v in results["versions"].items()]
    found = {
        "date, commit": f"{results['date']}, {results['commit']}",
        "processor": f"{machine['processor']}, {machine['cores']} cores",
        "flags": " ".join(machine["flags"]),
        "system": f"{machine['system']}, Python {machine['python']}",
        "versions": ", ".join(v for v in versions if not v.startswith(TITLES[HELD])),
        "instruction set": str(machine["fastlayer"]["isa"]["active"]),
        "other processes": quietness(results),
        "time": f"{results['seconds'] / 60:.0f} minutes",
    }
    several = {k: v for k, v in results["forms"].items() if len(v) > 1 and k != HELD}
    found["rows by fastest form"] = "; ".join(
        f"{TITLES[name]}: " + ", ".join(f"{form} {n}" for form, n in sorted(forms.items()))
        for name, forms in several.items()
    )
    for threads, limit in results["limits"].items():
        key = f"limits, {threads} thread{'s' * (threads != '1')}"
        if limit is None:
            found[key] = "not measured: no C compiler, or no vectors"
            continue
        flops = [f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in limit["flops"].items()]
        sizes = limits.levels(limit, int(threads))
        rates = [f"{k} {limits.rate(limit, v) / 1e9:.0f} GB/s" for k, v in sizes.items()]
        found[key] = ", ".join(flops + rates)
    if results["pools"]:
        found["NumPy's BLAS"] = next(iter(results["pools"].values()))
    return found


def quietness(results: dict) -> str:
    """What other processes took, how often a row was repeated, and what stayed disturbed."""
    loads = [row["load"] for row in results["rows"] if "load" in row]
    if not loads:
        return "**not measured: these are no results**"
    again = [row.get("again", 0) for row in results["rows"]]
    left = sum(bool(row.get("disturbed")) for row in results["rows"])
    text = f"{statistics.median(loads):.1%} of a core in the median row, {max(loads):.1%} at most; "
    text += (
        f"{sum(n > 0 for n in again)} of {len(again)} rows measured again ({sum(again)} times), "
    )
    text += f"{results['waited']:.0f} s waited; "
    left_over = [f"{left} rows"] * bool(left) + results["disturbed"]
    return text + ("**disturbed: " + ", ".join(left_over) + "**" if left_over else "none disturbed")


def summary(results: dict) -> str:
    """Rows behind a peer, and geometric means by batch."""
    rows, body = results_file.expanded(results), []
    for key in dict.fromkeys((r["mode"], r["dtype"], r["threads"]) for r in rows):
        group = [r for r in rows if (r["mode"], r["dtype"], r["threads"]) == key and r.get("ratio")]
        nets = [r for r in group if r["kind"] == "network"]
        small = [r["ratio"] for r in nets if r["batch"] <= 32]
        large = [r["ratio"] for r in nets if r["batch"] > 32]
        behind = sum(r["ratio"] < 1 for r in group)
        under = [r["held"] for r in group if r.get("held")]
        cells = [str(part) for part in key] + [f"{behind} of {len(group)}"]
        cells += [f"{sum(v < 1 for v in under)} of {len(under)}" if under else "-"]
        cells += [geometric(small), geometric(large), geometric([r["ratio"] for r in group])]
        body.append(cells)
    columns = ["mode", "dtype", "threads", "rows behind a peer", "held to AVX2"]
    return table([*columns, "networks, batch <= 32", "batch > 32", "geometric mean of all"], body)


def main() -> None:
    path = Path(sys.argv[1])
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else path.parent
    results = results_file.read(path)
    (folder / path.with_suffix(".md").name).write_text(markdown(results))
    pictures.draw({"": results}, folder)


if __name__ == "__main__":
    main()
