"""The pictures of results files: every ratio to the best peer; that of networks by batch, and the
roofline, float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import limits
import results_file

COLORS = ("tab:blue", "tab:orange", "tab:green")
BANDS = (
    *("networks,\n1 to 32 rows", "networks,\nmore rows", "plain\nproducts"),
    *("accelerate", "activations"),
)
DRAWN = ("network", "matmul", "linear")  # in the roofline
WIDTHS = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 65536)  # ticks


def draw(columns: dict[str, dict], folder: Path) -> None:
    """bench-answer.png and .svg of all results; bench-ratio-1, bench-roofline-1, ... of the first,
    for each number of threads.
    """
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no pictures", file=sys.stderr)
        return
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fastlayer"  # the same picture has the same bytes
    folder.mkdir(parents=True, exist_ok=True)
    results = next(iter(columns.values()))
    quiet = all("load" in r and not r.get("disturbed") for c in columns.values() for r in c["rows"])
    mark = "" if quiet else "a busy machine: no results"
    save(answer(series(columns)), folder, "bench-answer", mark)
    rows = results_file.expanded(results)
    hot = [r for r in rows if r["mode"] == "hot" and r["dtype"] == "float32"]
    for threads in sorted({r["threads"] for r in hot}):
        rows = [r for r in hot if r["threads"] == threads and r.get("ratio")]
        nets = [r for r in rows if r["kind"] == "network" and ":" not in r["case"]]
        if nets:
            save(by_batch(nets, threads), folder, f"bench-ratio-{threads}", mark)
        limit = results["limits"][str(threads)]
        products = [r for r in rows if r["flops"] and r["kind"] in DRAWN and simple(r)]
        if limit and products:
            save(roofline(products, limit, threads), folder, f"bench-roofline-{threads}", mark)


def series(columns: dict[str, dict]) -> dict[str, list[tuple[str, float]]]:
    """(group, ratio) of the hot rows, by the title of the machine."""
    found: dict[str, list[tuple[str, float]]] = {}
    for title, results in columns.items():
        key = "held" if title.endswith("held to AVX2") else "ratio"
        found[title] = [
            (band(row), row[key])
            for row in results_file.expanded(results)
            if row["mode"] == "hot" and row.get(key) and row["kind"] != "load"
        ]
    return found


def band(row: dict) -> str:
    """Of the first picture."""
    if row["kind"] == "network":
        few = "1 to 32 rows" if row["batch"] <= 32 else "more rows"
        return f"networks,\n{few}"
    names = {"matmul": "plain\nproducts", "linear": "plain\nproducts", "column": "plain\nproducts"}
    names |= {"activation": "activations", "accelerate": "accelerate"}
    return names[row["kind"]]


def answer(found: dict[str, list[tuple[str, float]]]):
    """A point for each row: right of the line, fastlayer is ahead."""
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure, axes = pyplot.subplots(figsize=(9, 5.2), layout="constrained")
    bands = [b for b in BANDS if any(b == name for points in found.values() for name, _ in points)]
    everything = [ratio for points in found.values() for _, ratio in points]
    low, high = min(0.8, *everything) / 1.1, max(2.5, *everything) * 1.2
    step = 0.72 / max(1, len(found))
    for i, (title, points) in enumerate(found.items()):
        if not points:
            continue
        behind = sum(ratio < 1 for _, ratio in points)
        words = f"{title}: " if title else ""
        label = f"{words}{behind} of {len(points)} rows behind"
        for j, name in enumerate(bands):
            values = sorted(ratio for group, ratio in points if group == name)
            if not values:
                continue
            middle = j + step * (i - (len(found) - 1) / 2)
            # neighbours in size at different heights, so that they don't hide each other
            heights = [middle + 0.7 * step * ((k * 0.618) % 1 - 0.5) for k in range(len(values))]
            color = COLORS[i % len(COLORS)]
            axes.plot(values, heights, ".", color=color, alpha=0.55, markersize=6, label=label)
            median = values[len(values) // 2]
            axes.plot([median] * 2, [middle - 0.45 * step, middle + 0.45 * step], color="black")
            label = None
    axes.axvline(1, color="black", linewidth=1)
    axes.axvspan(low, 1, color="tab:red", alpha=0.07, linewidth=0)
    axes.set(xscale="log", xlim=(low, high), ylim=(len(bands) - 0.4, -0.6))
    axes.set_yticks(range(len(bands)), bands)
    ticks = [t for t in (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50) if low <= t <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("time of the fastest peer of equal accuracy / time of fastlayer")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set_title(
        "Every row measured: right of 1x fastlayer is ahead of every peer; medians black"
    )
    figure.legend(fontsize="small", loc="outside lower center")
    return figure


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
        ys = [r["flops"] / r["us"][name] / 1e3 for name, (_, r) in zip(names, points, strict=True)]
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


def save(figure, folder: Path, name: str, mark: str) -> None:
    from matplotlib import pyplot

    style = {"color": "tab:red", "alpha": 0.35, "fontsize": 30, "rotation": 20}
    figure.text(0.5, 0.5, mark, ha="center", va="center", **style)
    for kind, extra in (("png", {}), ("svg", {"Date": None})):
        figure.savefig(folder / f"{name}.{kind}", dpi=120, metadata=extra)
    pyplot.close(figure)
