"""The pictures of results files: every ratio to the best peer; that of networks by batch, and the
roofline, float32; training, and the time to read MNIST.
"""

from __future__ import annotations

import sys
from pathlib import Path

import limits
import results_file

INK = "#7a828c"  # legible on white and on black: the ground is the page's
COLORS = ("tab:blue", "tab:orange", "tab:green")
BANDS = (
    *("networks,\n1 to 32 rows", "networks,\nmore rows", "plain\nproducts"),
    *("accelerate", "activations", "training"),
)
DRAWN = ("network", "matmul", "linear")  # in the roofline
SHADES = {1: "tab:blue", 2: "tab:cyan"}  # of fastlayer, by threads
WIDTHS = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 65536)  # ticks


def draw(columns: dict[str, dict], folder: Path) -> None:
    """bench-answer.png and .svg of all results; bench-ratio-1, bench-roofline-1, ... of the first,
    for each number of threads.
    """
    if not ready(folder):
        return
    results = next(iter(columns.values()))
    mark = mark_of([row for found in columns.values() for row in found["rows"]])
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


def draw_training(results: dict, titles: dict[str, str], folder: Path) -> None:
    """bench-training-1, ...: how many times the time of fastlayer others take for a step."""
    if not ready(folder):
        return
    rows = [
        row
        for row in results_file.expanded(results)
        if (row["kind"], row["dtype"], row["mode"]) == ("train", "float32", "hot") and row["best"]
    ]
    for threads in sorted({row["threads"] for row in rows}):
        found = [row for row in rows if row["threads"] == threads]
        save(steps(found, titles, threads), folder, f"bench-training-{threads}", mark_of(rows))


def draw_mnist(results: dict, titles: dict[str, str], folder: Path) -> None:
    """bench-mnist: seconds until the test images are read."""
    rows = [row for row in results["rows"] if row.get("reached")]
    if rows and ready(folder):
        mark = mark_of([run for row in rows for run in row["runs"]])
        save(seconds(rows, titles, results["goal"]), folder, "bench-mnist", mark)


def ready(folder: Path) -> bool:
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no pictures", file=sys.stderr)
        return False
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fastlayer"  # the same picture has the same bytes
    for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"):
        matplotlib.rcParams[name] = INK
    for name in ("figure", "axes", "savefig", "legend"):
        matplotlib.rcParams[f"{name}.facecolor"] = "none"
    folder.mkdir(parents=True, exist_ok=True)
    return True


def mark_of(measured: list[dict]) -> str:
    """What stands across a picture of numbers that others may have disturbed."""
    quiet = all("load" in one and not one.get("disturbed") for one in measured)
    return "" if quiet else "a busy machine: no results"


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
    if row["kind"] in ("network", "critic"):
        few = "1 to 32 rows" if row["batch"] <= 32 else "more rows"
        return f"networks,\n{few}"
    names = {"matmul": "plain\nproducts", "linear": "plain\nproducts", "column": "plain\nproducts"}
    names |= {"activation": "activations", "accelerate": "accelerate", "train": "training"}
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
            axes.plot([median] * 2, [middle - 0.45 * step, middle + 0.45 * step], color=INK)
            label = None
    axes.axvline(1, color=INK, linewidth=1)
    axes.axvspan(low, 1, color="tab:red", alpha=0.07, linewidth=0)
    axes.set(xscale="log", xlim=(low, high), ylim=(len(bands) - 0.4, -0.6))
    axes.set_yticks(range(len(bands)), bands)
    ticks = [t for t in (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50) if low <= t <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("time of the fastest peer of equal accuracy / time of fastlayer")
    axes.grid(axis="x", color=INK, alpha=0.25)
    axes.set_axisbelow(True)
    axes.set_title("Every row measured: right of 1x fastlayer is ahead of every peer; medians grey")
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
    axes.axhline(1, color=INK, linewidth=1)
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
    axes.grid(color=INK, alpha=0.25)
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
    axes.grid(color=INK, alpha=0.25)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set_title(
        f"Networks and products, float32, {plural(threads)}: FMA peak {peak / 1e9:.0f} GFLOP/s"
    )
    axes.legend(fontsize="small", loc="lower right")
    return figure


def steps(rows: list[dict], titles: dict[str, str], threads: int):
    """A bar to the fastest peer, and a dot for each of the others, by optimiser and network."""
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    parts = [r["case"].removeprefix("train:").rpartition(":") for r in rows]
    kinds = list(dict.fromkeys(kind for _, _, kind in parts))
    nets = list(dict.fromkeys(net for net, _, _ in parts))
    peers = [name for name in titles if any(name in r["us"] for r in rows)]
    peers = [name for name in peers if not name.startswith("fastlayer")]
    style = {name: ("osD^vPX*"[i % 8], f"C{i + 1}") for i, name in enumerate(peers)}
    low = min(0.8, *(r["ratio"] / 1.1 for r in rows))
    high = 1.3 * max(r["us"][name] / r["us"]["fastlayer"] for r in rows for name in r["us"])
    size = (9, 1.6 + 0.32 * len(nets))
    figure, panels = pyplot.subplots(
        1, len(kinds), figsize=size, layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    for axes, kind in zip(panels[0], kinds, strict=True):
        for (net, _, of), row in zip(parts, rows, strict=True):
            if of != kind:
                continue
            at, own = nets.index(net), row["us"]["fastlayer"]
            color = "tab:blue" if row["ratio"] >= 1 else "tab:red"
            axes.barh(at, row["ratio"] - 1, left=1, height=0.62, color=color, alpha=0.35)
            for name in peers:
                if name in row["us"]:
                    marker, shade = style[name]
                    axes.plot(row["us"][name] / own, at, marker, color=shade, markersize=4.5)
        axes.axvline(1, color=INK, linewidth=1)
        axes.axvspan(low, 1, color="tab:red", alpha=0.07, linewidth=0)
        axes.set(xscale="log", xlim=(low, high))
        axes.set_title({"adam": "Adam", "sgd": "SGD"}.get(kind, kind), fontsize="medium")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
        axes.grid(axis="x", color=INK, alpha=0.25)
        axes.set_axisbelow(True)
        axes.set_xlabel("time of a step / that of fastlayer")
    panels[0, 0].set_yticks(range(len(nets)), [net.replace("@", ", ") for net in nets])
    panels[0, 0].set_ylim(len(nets) - 0.4, -0.6)
    panels[0, 0].set_ylabel("network, batch")
    figure.suptitle(
        f"Training, float32, {plural(threads)}: right of 1x fastlayer is faster; bars: the fastest peer",
        fontsize="large",
    )
    for name, (marker, shade) in style.items():
        axes.plot([], [], marker, color=shade, label=titles[name])
    figure.legend(fontsize="small", loc="outside lower center", ncols=len(peers))
    return figure


def seconds(rows: list[dict], titles: dict[str, str], goal: float):
    """A bar for each peer and number of threads, the quickest first."""
    from matplotlib import pyplot

    counts = sorted({row["threads"] for row in rows})
    by_peer = {name: [r for r in rows if r["peer"] == name] for name in titles}
    names = sorted(
        (name for name, found in by_peer.items() if found),
        key=lambda name: min(r["seconds"] for r in by_peer[name]),
    )
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.5 * len(names)), layout="constrained")
    height = 0.8 / len(counts)
    for j, threads in enumerate(counts):
        shade = ("0.55", "0.75")[j % 2]
        for i, name in enumerate(names):
            for row in by_peer[name]:
                if row["threads"] != threads:
                    continue
                color = SHADES.get(threads, "tab:blue") if name == "fastlayer" else shade
                at = i + height * (j - (len(counts) - 1) / 2)
                axes.barh(at, row["seconds"], height=height * 0.92, color=color)
                epochs = sorted(set(row["epochs"]))
                span = "-".join(map(str, (epochs[0], epochs[-1])[: len(epochs)]))
                word = f" {row['seconds']:.3g} s, {span} epochs, {plural(threads)}"
                axes.annotate(word, (row["seconds"], at), va="center", fontsize="small")
    axes.set_yticks(range(len(names)), [titles[name] for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.35 * max(row["seconds"] for row in rows))
    axes.set_xlabel("seconds of training")
    axes.grid(axis="x", color=INK, alpha=0.25)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(
        f"MNIST: seconds until {goal:.0%} of the test images are read, same start, same batches"
    )
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
