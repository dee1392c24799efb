"""`Network.profile`: where the time of a network goes."""

from __future__ import annotations

import timeit
from typing import TYPE_CHECKING, Any

from fastlayer import _core
from fastlayer.arrays import as_real
from fastlayer.report.tables import Shown, Table
from fastlayer.report.verification import count_samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array


class Profile(Shown):
    """Where the time of a network goes; see `Network.profile`.

    Attributes
    ----------
    rows : list of dict
        One for each layer, with the keys "layer", "seconds", "share" (of the sum of all layers)
        and "gflops" (thousand million operations a second in matrix products).
    seconds : float
        Time of the network as a whole.
    samples, threads : int
        Number of rows of the input, and of threads that a call might use.
    flops : int
        Floating-point operations of the matrix products of a call.
    plan : str
        How the core cuts the call up; empty where Python steps in between.
    """

    __module__ = "fastlayer"  # where pickles find it

    samples: int
    threads: int
    plan: str
    seconds: float
    flops: int

    def __init__(self, net: Any, x: Any, repeat: int) -> None:
        if repeat < 1:
            raise ValueError(f"repeat must be at least 1, got {repeat}")
        a = as_real(x)
        self.samples = count_samples(net(a))
        self.threads = _core.get_num_threads()
        steps = net._compiled()
        self.plan = steps[0].describe(self.samples) if len(steps) == 1 else ""
        self.seconds = _fastest(net, a, repeat)
        self.flops = net.flops(self.samples)
        self.rows: list[dict[str, Any]] = []
        for i, part in enumerate(net._parts):
            single = net[i : i + 1]
            seconds = _fastest(single, a, repeat)
            flops = single.flops(self.samples)
            self.rows.append(
                {"layer": part._title(), "seconds": seconds, "gflops": flops / seconds / 1e9}
            )
            a = single(a)
        total = sum(row["seconds"] for row in self.rows)
        for row in self.rows:
            row["share"] = row["seconds"] / total

    def _table(self) -> Table:
        header = ["", "Layer", "Time", "Share", "GFLOP/s"]
        rows = [
            [
                str(i),
                row["layer"],
                _duration(row["seconds"]),
                f"{row['share']:.1%}",
                f"{row['gflops']:.1f}" if row["gflops"] else "",
            ]
            for i, row in enumerate(self.rows)
        ]
        whole = f"{self.flops / self.seconds / 1e9:.1f}"
        rows.append(["", "Whole network", _duration(self.seconds), "", whole])
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        plan = (f"Plan: {self.plan}",) if self.plan else ()
        notes = (f"{self.samples} samples, {threads} allowed", *plan)
        return Table(header, rows, 2, total=True, notes=notes)


def _fastest(call: Callable[[Array], Any], x: Array, repeat: int) -> float:
    call(x)  # compiles, and allocates the workspace
    best = min(timeit.repeat(lambda: call(x), number=1, repeat=repeat))
    return max(best, 1e-9)  # a clock may stand still for the shortest calls


def _duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
