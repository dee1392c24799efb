"""Ratios, the Markdown table and the pictures of a results file.

    python bench/report.py results.json

writes the table and the pictures again, without measuring.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

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
    by_turn = zip(*(v["p50"] for v in others.values()), strict=True)
    ratios = [min(peer) / own for peer, own in zip(by_turn, ours["p50"], strict=True)]
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
    parts = [stamp(results), summary(rows)]
    groups = dict.fromkeys((r["mode"], r["dtype"], r["threads"]) for r in rows)
    for mode, dtype, threads in groups:
        parts.append(f"### {mode}, {dtype}, {threads} thread{'s' * (threads > 1)}\n")
        body = [
            line(row)
            for row in rows
            if (row["mode"], row["dtype"], row["threads"]) == (mode, dtype, threads)
        ]
        peers = [TITLES[name] for name in TITLES if name != "fastlayer"]
        columns = ["case", "fastlayer", "p99", "GFLOP/s", "of the limit", "ratio", "ratio p99"]
        parts.append(table([*columns, *peers], body))
    parts.append(
        "ratio: the time of the best peer (**bold**) over that of fastlayer, so that above 1 "
        "fastlayer is faster; **behind** marks the rows where a peer is. of the limit: the share "
        "of the FMA peak, or of the read bandwidth of the level that holds the data, whichever "
        "takes longer. -: does not apply. failed: wrong results or an error, see the JSON file.\n"
    )
    return "\n".join(parts)


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
    for threads, found in results["limits"].items():
        if found is None:
            body.append([f"limits, {threads}", "not measured: no C compiler, or no vectors"])
            continue
        flops = [f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in found["flops"].items()]
        rates = [f"{k} {v['rate'] / 1e9:.0f} GB/s" for k, v in found["bandwidth"].items()]
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


def line(row: dict) -> list[str]:
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
    share = f"{100 * row['least'] / ours['time']:.0f} % {row['limit']}" if row["least"] else "-"
    ratios = ["-", "-"]
    if row["ratio"]:
        ratios = [f"{row[key]:.2f}" for key in ("ratio", "ratio_p99")]
        if row["ratio"] < 1:
            ratios[0] += " **behind**"
    return [row["case"], cells[0], duration(ours["p99"]), rate, share, *ratios, *cells[1:]]


def pictures(results: dict, output: Path) -> None:
    """Ratio by batch and roofline, each as PNG and SVG beside the results file."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no pictures", file=sys.stderr)
        return
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fastlayer"  # the same picture has the same bytes
    hot = [r for r in results["rows"] if r["mode"] == "hot" and r["ratio"]]
    for threads in sorted({r["threads"] for r in hot}):
        rows = [r for r in hot if r["threads"] == threads and r["dtype"] == "float32"]
        nets = [r for r in rows if r["kind"] == "network" and ":" not in r["case"]]
        if nets:
            save(by_batch(nets, threads), output, f"ratio-{threads}")
        limit = results["limits"][str(threads)]
        products = [r for r in rows if r["flops"]]
        if limit and products:
            save(roofline(products, limit, threads), output, f"roofline-{threads}")


def by_batch(rows: list[dict], threads: int):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name in dict.fromkeys(r["case"].split("@")[0] for r in rows):
        found = sorted((r["batch"], r["ratio"]) for r in rows if r["case"].startswith(name + "@"))
        axes.plot(*zip(*found, strict=True), marker="o", label=name)
    axes.axhline(1, color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="batch", ylabel="best peer's time / fastlayer's")
    axes.set_title(f"Ratio to the best peer, float32, {plural(threads)}; above 1 is faster")
    axes.legend(fontsize="small")
    return figure


def roofline(rows: list[dict], limit: dict, threads: int):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    points = [(r["flops"] / r["traffic"], r) for r in rows]
    low, high = min(p[0] for p in points) / 2, max(p[0] for p in points) * 2
    peak = limit["flops"]["float32"]
    for name, level in limit["bandwidth"].items():
        knee = min(max(peak / level["rate"], low), high)
        xs = [low, knee, high]
        ys = [min(x * level["rate"], peak) / 1e9 for x in xs]
        axes.plot(xs, ys, linewidth=1, label=f"{name} {level['rate'] / 1e9:.0f} GB/s")
    for who, marker in (("fastlayer", "o"), ("best peer", "x")):
        xs = [x for x, _ in points]
        names = ["fastlayer" if who == "fastlayer" else r["best"] for _, r in points]
        times = [r["peers"][name]["time"] for name, (_, r) in zip(names, points, strict=True)]
        ys = [r["flops"] / t / 1e9 for t, (_, r) in zip(times, points, strict=True)]
        axes.plot(xs, ys, marker, label=who)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte that must be read")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"Roofline, float32, {plural(threads)}: peak {peak / 1e9:.0f} GFLOP/s")
    axes.legend(fontsize="small")
    return figure


def plural(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def save(figure, output: Path, name: str) -> None:
    from matplotlib import pyplot

    for kind, extra in (("png", {}), ("svg", {"Date": None})):
        figure.savefig(output.with_name(f"{output.stem}-{name}.{kind}"), dpi=120, metadata=extra)
    pyplot.close(figure)


def main() -> None:
    path = Path(sys.argv[1])
    results = json.loads(path.read_text())
    path.with_suffix(".md").write_text(markdown(results))
    pictures(results, path)


if __name__ == "__main__":
    main()
