"""The goals of the project against a results file: each with what was measured, met or not."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import limits

Row = dict
LOOSE = 1.5  # times its time may ours be where a peer is less accurate


@dataclass(frozen=True)
class Goal:
    """One line of the summary; `met` is None where the run has no such rows."""

    name: str
    goal: str
    measured: str
    met: bool | None


def time_of(row: Row, peer: str = "fastlayer") -> float | None:
    """Seconds."""
    us = row["us"].get(peer)
    return us * 1e-6 if us else None


def where(row: Row) -> str:
    """`case, f32, 2T`, and the mode where calls don't follow each other."""
    mode = "" if row["mode"] == "hot" else f", {row['mode']}"
    return f"{row['case']}, f{row['dtype'][-2:]}, {row['threads']}T{mode}"


def lowest(name: str, goal: str, values: list[tuple[float, Row]], least: float, unit: str) -> Goal:
    """A goal that every row has to reach: how many do, and the one furthest from it."""
    if not values:
        return Goal(name, goal, "-", None)
    reached = sum(value >= least for value, _ in values)
    worst, row = min(values, key=lambda pair: pair[0])
    text = f"{reached} of {len(values)}; lowest {worst:{unit}} ({where(row)})"
    return Goal(name, goal, text, reached == len(values))


def goals(rows: list[Row], limit: dict, footprint: dict | None) -> list[Goal]:
    """In the order of the project's list; hot rows, unless a goal says otherwise.

    `rows` are expanded ones (`results_file.expanded`), `limit` has what the machine can do, by
    threads.
    """
    rows = [row for row in rows if time_of(row)]
    hot = [row for row in rows if row["mode"] == "hot"]
    shares = [
        (least[0] / time_of(row), least[1], row)
        for row in hot
        if (least := limits.fastest(limit.get(str(row["threads"])), row))
    ]
    found = [never_behind(hot), *few_rows(hot), near_the_limit(shares), *tiny(hot)]
    found += compute_bound(shares)
    found += plain_arrays(hot, shares)
    found += [bandwidth(limit, shares), two_threads(hot), *activations(hot), loading(hot)]
    found += memory(footprint)
    found += latency(rows)
    return [*found, *cost(footprint)]


def never_behind(hot: list[Row]) -> Goal:
    """Of every case but the loading of files, which has a goal of its own."""
    name, goal = "rows behind a peer of our accuracy", "<= 3 %, none below 0.90"
    values = [(row["ratio"], row) for row in hot if row.get("ratio") and row["kind"] != "load"]
    if not values:
        return Goal(name, goal, "-", None)
    behind = sum(value < 1 for value, _ in values)
    worst, row = min(values, key=lambda pair: pair[0])
    share = behind / len(values)
    text = f"{share:.1%} ({behind} of {len(values)}); lowest {worst:.2f} ({where(row)})"
    return Goal(name, goal, text, share <= 0.03 and worst >= 0.9)


def few_rows(hot: list[Row]) -> list[Goal]:
    found = []
    for dtype, threads in groups(hot):
        ratios = [
            row["ratio"]
            for row in hot
            if row["kind"] == "network" and row["batch"] <= 32 and row.get("ratio")
            if (row["dtype"], row["threads"]) == (dtype, threads)
        ]
        least = 1.5 if (dtype, threads) == ("float32", 1) else 2.0
        mean = statistics.geometric_mean(ratios) if ratios else None
        name = f"networks, batch 1 to 32, geometric mean, {dtype}, {threads}T"
        text = f"{mean:.2f} over {len(ratios)} cases" if mean else "-"
        found.append(Goal(name, f">= {least:.1f} times", text, mean and mean >= least))
    return found


def groups(rows: list[Row]) -> list[tuple[str, int]]:
    return sorted({(row["dtype"], row["threads"]) for row in rows})


def near_the_limit(shares: list) -> Goal:
    """Where the best peer leaves no room for twice its speed."""
    values = [
        (share, row)
        for share, _, row in shares
        if row["kind"] == "network" and row["batch"] <= 32 and row.get("best")
        if time_of(row, row["best"]) <= 1.5 * share * time_of(row)
    ]
    name = "networks, batch 1 to 32, best peer within 1.5 times of the limit: share of it"
    return lowest(name, ">= 90%", values, 0.9, ".0%")


def tiny(hot: list[Row]) -> list[Goal]:
    """Whole calls of the smallest: against the quickest of those named."""
    wanted = (
        ("3-8-8-3@1", 0.5, ("onnxruntime",), 10, "<= 1/10 of ONNX Runtime"),
        ("64-100-10@1", 0.8, ("mnn", "litert"), 2.5, "<= 0.4 times MNN and LiteRT"),
    )
    found = []
    for case, most, peers, times, words in wanted:
        row, goal = one(hot, case, "float32", 1), f"<= {most} us, {words}"
        if row is None:
            found.append(Goal(f"{case}, whole call", goal, "-", None))
            continue
        own = row["us"]["fastlayer"]
        others = [row["us"][peer] for peer in peers if peer in row["us"]]
        text = f"{own:.2f} us" + (f", {own / min(others):.2f} times" if others else "")
        met = own <= most and (not others or own <= min(others) / times)
        found.append(Goal(f"{case}, whole call", goal, text, met))
    return found


def one(rows: list[Row], case: str, dtype: str, threads: int) -> Row | None:
    wanted = (case, dtype, threads)
    return next((r for r in rows if (r["case"], r["dtype"], r["threads"]) == wanted), None)


def compute_bound(shares: list) -> list[Goal]:
    """Networks with ReLU: other activations are work that the FMA peak doesn't count."""
    found = []
    for threads, least in ((1, 0.93), (2, 0.90)):
        values = [
            (share, row)
            for share, what, row in shares
            if row["kind"] == "network" and ":" not in row["case"] and row["batch"] >= 256
            if what == "FMA" and row["threads"] == threads
        ]
        name = f"networks, batch >= 256, share of the FMA peak, {threads}T"
        found.append(lowest(name, f">= {least:.0%}", values, least, ".0%"))
    return found


def plain_arrays(hot: list[Row], shares: list) -> list[Goal]:
    square = ("matmul:1024", "matmul:2048", "matmul:4096", "linear:1024x1024x1024")
    values = [(share, row) for share, _, row in shares if row["case"].startswith(square)]
    found = [lowest("matmul and linear, 1024 to 4096 square", ">= 90%", values, 0.9, ".0%")]
    products = [row for row in hot if row["kind"] in ("matmul", "linear")]
    handmade = [row for row in hot if row["kind"] == "accelerate"]
    return [
        *found,
        against("matmul and linear against NumPy", products, "numpy_"),
        against("accelerate against the NumPy that it replaces", handmade, "numpy_"),
    ]


def against(name: str, rows: list[Row], *prefixes: str) -> Goal:
    """Against the fastest of some peers."""
    values = []
    for row in rows:
        times = [time_of(row, peer) for peer in row["us"] if peer.startswith(prefixes)]
        if times:
            values.append((min(times) / time_of(row), row))
    return lowest(name, ">= 1 times", values, 1, ".2f")


def bandwidth(limit: dict, shares: list) -> Goal:
    values = [
        (share, row)
        for share, what, row in shares
        if row["kind"] == "network" and row["batch"] == 1 and what != "FMA"
        if row["weights"] > limit[str(row["threads"])]["caches"].get("l2", 0)
    ]
    name = "networks, batch 1, weights beyond a core's L2, share of the read bandwidth"
    return lowest(name, ">= 90%", values, 0.9, ".0%")


def two_threads(hot: list[Row]) -> Goal:
    values = []
    for row in hot:
        alone = one(hot, row["case"], row["dtype"], 1) if row["threads"] == 2 else None
        if alone and time_of(alone) > 200e-6:
            values.append((time_of(alone) / time_of(row), row))
    return lowest("two threads over one, work above 200 us", ">= 1.9 times", values, 1.9, ".2f")


def activations(hot: list[Row]) -> list[Goal]:
    """NumPy and PyTorch count whatever their error; the others where they keep our accuracy, else
    less.
    """
    rows = [row for row in hot if row["kind"] == "activation"]
    found = [against("activations against NumPy", rows, "numpy_")]
    found.append(against("activations against PyTorch", rows, "torch"))
    for name, peer in (("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")):
        equal, loose = [], []
        for row in rows:
            if peer in row["us"]:
                kind = loose if peer in row.get("loose", ()) else equal
                kind.append((time_of(row, peer) / time_of(row), row))
        title = f"activations against {name}"
        goal = f"<= {LOOSE} times its time"
        found.append(lowest(f"{title}, where as accurate", ">= 1 times", equal, 1, ".2f"))
        found.append(lowest(f"{title}, where less accurate", goal, loose, 1 / LOOSE, ".2f"))
    return found


def loading(hot: list[Row]) -> Goal:
    rows = [row for row in hot if row["case"] == "load:onnx"]
    return against("loading a model file, to the first result", rows, "onnxruntime")


def memory(footprint: dict | None) -> list[Goal]:
    call, weights = "memory of a call: the result and a constant per thread", "weights held once"
    if footprint is None:
        return [
            Goal(call, "<= 4 MiB a thread", "-", None),
            Goal(weights, "<= 1.05 times", "-", None),
        ]
    found = []
    for threads, sizes in footprint["call"].items():
        beyond = [max(0, s["resident"] - s["result"]) for s in sizes.values()]
        text = ", ".join(
            f"{v / 2**20:.1f} MiB at {m} rows" for v, m in zip(beyond, sizes, strict=True)
        )
        met = max(beyond) <= int(threads) * (4 << 20)
        found.append(Goal(f"{call}, {threads}T", "beyond the result <= 4 MiB a thread", text, met))
    share = footprint["weights"]["resident"] / footprint["weights"]["weights"]
    return [*found, Goal(weights, "<= 1.05 times their bytes", f"{share:.2f} times", share <= 1.05)]


def latency(rows: list[Row]) -> list[Goal]:
    titles = {
        "after 20 ms idle": ("idle20",),
        "after 1, 5 and 100 ms idle": ("idle1", "idle5", "idle100"),
        "a busy neighbour on each core": ("busy",),
    }
    keys: dict[str, Callable[[Row], float | None]] = {
        "p50": lambda row: row.get("ratio"),
        "p99": lambda row: row.get("ratio_p99"),
    }
    return [
        lowest(
            f"{title}, {key}",
            ">= 1 times",
            [(value(row), row) for row in rows if row["mode"] in modes and value(row)],
            1,
            ".2f",
        )
        for title, modes in titles.items()
        for key, value in keys.items()
    ]


def cost(footprint: dict | None) -> list[Goal]:
    found = []
    for key, name, most, unit in (
        ("import", "import, over NumPy's", 0.015, "ms"),
        ("build", "`pip install .`, processor time", 90, "s"),
    ):
        seconds, scale = (footprint or {}).get(key), 1e3 if unit == "ms" else 1
        text = f"{seconds * scale:.1f} {unit}" if seconds else "-"
        met = seconds <= most if seconds else None
        found.append(Goal(name, f"<= {most * scale:g} {unit}", text, met))
    return found
