"""The pictures of a results file: ratio to the best peer by batch, and roofline, float32."""

from __future__ import annotations

import sys
from pathlib import Path

import limits

WIDTHS = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 65536)  # ticks


def draw(results: dict, folder: Path) -> None:
    """bench-ratio-1.png and .svg, bench-roofline-1..., for each number of threads."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no pictures", file=sys.stderr)
        return
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fastlayer"  # the same picture has the same bytes
    folder.mkdir(parents=True, exist_ok=True)
    hot = [r for r in results["rows"] if r["mode"] == "hot" and r["dtype"] == "float32"]
    for threads in sorted({r["threads"] for r in hot}):
        rows = [r for r in hot if r["threads"] == threads and r["ratio"]]
        nets = [r for r in rows if r["kind"] == "network" and ":" not in r["case"]]
        if nets:
            save(by_batch(nets, threads), folder, f"bench-ratio-{threads}")
        limit = results["limits"][str(threads)]
        products = [r for r in rows if r["flops"] and r["kind"] != "column" and simple(r)]
        if limit and products:
            save(roofline(products, limit, threads), folder, f"bench-roofline-{threads}")


def simple(row: dict) -> bool:
    """Without the variants of a network, which would lie on the same point."""
    return row["kind"] != "network" or ":" not in row["case"]


def by_batch(rows: list[dict], threads: int):
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure, axes = pyplot.subplots(figsize=(9, 5.2), layout="constrained")
    names = list(dict.fromkeys(r["case"].split("@")[0] for r in rows))
    colors = pyplot.get_cmap("tab10").colors
    markers = "osD^vP*X"
    for i, name in enumerate(names):
        found = sorted((r["batch"], r["ratio"]) for r in rows if r["case"].startswith(name + "@"))
        style = {"marker": markers[i % 8], "color": colors[i % 10], "markersize": 6}
        axes.plot(*zip(*found, strict=True), label=name, linewidth=1.6, **style)
    axes.axhline(1, color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="rows in a call (batch)")
    axes.set_ylabel("time of the fastest peer / time of fastlayer")
    top = max(r["ratio"] for r in rows) * 1.3
    low = min(0.8, min(r["ratio"] for r in rows) / 1.1)
    axes.set_ylim(low, max(top, 2.5))
    ticks = [t for t in (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50) if low <= t <= max(top, 2.5)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
    axes.yaxis.set_minor_locator(NullLocator())
    batches = {r["batch"] for r in rows}
    axes.xaxis.set_major_locator(
        FixedLocator([w for w in WIDTHS if min(batches) <= w <= max(batches)])
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=45)
    axes.grid(color="0.9")
    axes.set_title(
        f"Networks, float32, {plural(threads)}: above 1x fastlayer is faster than every peer"
    )
    axes.legend(title="widths of the layers", fontsize="small", loc="upper right")
    return figure


def roofline(rows: list[dict], limit: dict, threads: int):
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    figure, axes = pyplot.subplots(figsize=(9, 5.2), layout="constrained")
    points = [(r["flops"] / (r["weights"] + r["streams"]), r) for r in rows]
    low, high = min(p[0] for p in points) / 1.5, max(p[0] for p in points) * 1.5
    peak = limit["flops"]["float32"]
    found = limits.levels(limit, threads)
    for name, grey in (("RAM", "0.75"), ("L3", "0.55"), ("L2", "0.35")):
        if name not in found:
            continue
        speed = limits.rate(limit, found[name])
        knee = min(max(peak / speed, low), high)
        xs = [low, knee, high]
        ys = [min(x * speed, peak) / 1e9 for x in xs]
        label = f"{name} {speed / 1e9:.0f} GB/s"
        axes.plot(xs, ys, color=grey, linewidth=1.5, label=label, zorder=1)
    for who, marker, color in (("best peer", "x", "tab:red"), ("fastlayer", "o", "tab:blue")):
        names = ["fastlayer" if who == "fastlayer" else r["best"] for _, r in points]
        ys = [
            r["flops"] / r["peers"][name]["time"] / 1e9
            for name, (_, r) in zip(names, points, strict=True)
        ]
        xs = [x for x, _ in points]
        face = {"markerfacecolor": "none"} if marker == "o" else {}
        axes.plot(xs, ys, marker, color=color, label=who, markersize=7, **face)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte of weights, inputs and results")
    axes.set_ylabel("GFLOP/s")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set_title(
        f"Networks and products, float32, {plural(threads)}: FMA peak {peak / 1e9:.0f} GFLOP/s"
    )
    axes.legend(fontsize="small", loc="lower right")
    return figure


def plural(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def save(figure, folder: Path, name: str) -> None:
    from matplotlib import pyplot

    for kind, extra in (("png", {}), ("svg", {"Date": None})):
        figure.savefig(folder / f"{name}.{kind}", dpi=120, metadata=extra)
    pyplot.close(figure)
