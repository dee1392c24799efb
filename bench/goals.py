"""The goals of the project against a results file: each with what was measured, met or not."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import limits

Row = dict


@dataclass(frozen=True)
class Goal:
    """One line of the summary; `met` is None where the run has no such rows."""

    name: str
    goal: str
    measured: str
    met: bool | None


def time_of(row: Row, peer: str = "fastlayer") -> float | None:
    return row["peers"].get(peer, {}).get("time")


def where(row: Row) -> str:
    """`case, f32, 2T`."""
    return f"{row['case']}, f{row['dtype'][-2:]}, {row['threads']}T"


def lowest(name: str, goal: str, values: list[tuple[float, Row]], least: float, unit: str) -> Goal:
    """A goal that every row has to reach: how many do, and the one furthest from it."""
    if not values:
        return Goal(name, goal, "-", None)
    reached = sum(value >= least for value, _ in values)
    worst, row = min(values, key=lambda pair: pair[0])
    text = f"{reached} of {len(values)}; lowest {worst:{unit}} ({where(row)})"
    return Goal(name, goal, text, reached == len(values))


def goals(results: dict) -> list[Goal]:
    """In the order of the project's list; hot rows, unless a goal says otherwise."""
    rows = [row for row in results["rows"] if time_of(row)]
    hot = [row for row in rows if row["mode"] == "hot"]
    shares = [
        (least[0] / time_of(row), least[1], row)
        for row in hot
        if (least := limits.fastest(results["limits"].get(str(row["threads"])), row))
    ]
    found = [never_behind(hot), *few_rows(hot), *tiny(hot)]
    found += compute_bound(shares)
    found += plain_arrays(hot, shares)
    found += [bandwidth(results, shares), two_threads(hot), *activations(hot)]
    found += memory(results.get("footprint"))
    found += latency(rows)
    seconds = (results.get("footprint") or {}).get("import")
    text = f"{seconds * 1e3:.1f} ms" if seconds else "-"
    return [*found, Goal("import, over NumPy's", "<= 15 ms", text, seconds and seconds <= 0.015)]


def never_behind(hot: list[Row]) -> Goal:
    values = [(row["ratio"], row) for row in hot if row["ratio"]]
    return lowest("every case against the best peer", ">= 1 times", values, 1, ".2f")


def few_rows(hot: list[Row]) -> list[Goal]:
    found = []
    for dtype, threads in groups(hot):
        ratios = [
            row["ratio"]
            for row in hot
            if row["kind"] == "network" and row["batch"] <= 32 and row["ratio"]
            if (row["dtype"], row["threads"]) == (dtype, threads)
        ]
        mean = statistics.geometric_mean(ratios) if ratios else None
        name = f"networks, batch 1 to 32, geometric mean, {dtype}, {threads}T"
        text = f"{mean:.2f} over {len(ratios)} cases" if mean else "-"
        found.append(Goal(name, ">= 2.0 times", text, mean and mean >= 2))
    return found


def groups(rows: list[Row]) -> list[tuple[str, int]]:
    return sorted({(row["dtype"], row["threads"]) for row in rows})


def tiny(hot: list[Row]) -> list[Goal]:
    row = one(hot, "3-8-8-3@1", "float32", 1)
    name = "tiny network, batch 1, whole call"
    if row is None:
        return [Goal(name, "<= 0.5 us, <= 1/10 of ONNX Runtime", "-", None)]
    own, other = time_of(row), time_of(row, "onnxruntime")
    text = f"{own * 1e6:.2f} us"
    text += f", 1/{other / own:.1f} of ONNX Runtime" if other else ""
    met = own <= 0.5e-6 and (other is None or own <= other / 10)
    return [Goal(name, "<= 0.5 us, <= 1/10 of ONNX Runtime", text, met)]


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
    return [*found, against("matmul and linear against NumPy", products, "numpy_")]


def against(name: str, rows: list[Row], *prefixes: str) -> Goal:
    """Against the fastest of some peers."""
    values = []
    for row in rows:
        times = [time_of(row, peer) for peer in row["peers"] if peer.startswith(prefixes)]
        if any(times):
            values.append((min(t for t in times if t) / time_of(row), row))
    return lowest(name, ">= 1 times", values, 1, ".2f")


def bandwidth(results: dict, shares: list) -> Goal:
    values = [
        (share, row)
        for share, what, row in shares
        if row["kind"] == "network" and row["batch"] == 1 and what != "FMA"
        if row["weights"] > results["limits"][str(row["threads"])]["caches"].get("l2", 0)
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
    rows = [row for row in hot if row["kind"] == "activation"]
    peers = {"NumPy": "numpy_", "PyTorch": "torch", "ONNX Runtime": "onnxruntime"}
    return [against(f"activations against {name}", rows, key) for name, key in peers.items()]


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
    names = {"idle": "after 20 ms idle", "busy": "a busy neighbour on each core"}
    keys: dict[str, Callable[[Row], float | None]] = {
        "p50": lambda row: row["ratio"],
        "p99": lambda row: row["ratio_p99"],
    }
    return [
        lowest(
            f"{title}, {key}",
            ">= 1 times",
            [(value(row), row) for row in rows if row["mode"] == mode and value(row)],
            1,
            ".2f",
        )
        for mode, title in names.items()
        for key, value in keys.items()
    ]
