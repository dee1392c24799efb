"""Tables about a network: `Summary`, `Profile` and `Verification`; each prints, and holds data."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import _core
from fastlayer._arrays import as_real
from fastlayer._chain import parameters_of, title
from fastlayer._forward import Forward
from fastlayer._norms import BatchNorm
from fastlayer._steps import ProgramStep
from fastlayer._tables import Shown, Table
from fastlayer.activations import Activation, describe
from fastlayer.layer import Layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer._arrays import Array, DType
    from fastlayer._chain import Part
    from fastlayer.network import Network


class Summary(Shown):
    """What a network is made of; see `Network.summary`.

    Attributes
    ----------
    rows : list of dict
        One for each layer, with the keys "layer", "shape", "activation", "parameters", "bytes",
        "flops" (for one row of input) and "kernel".
    total : dict
        Sums: "parameters", "bytes" and "flops".
    """

    def __init__(self, net: Network) -> None:
        isa = f"{_core.config()['isa_active']} {net.dtype}"
        self.rows: list[dict[str, Any]] = []
        width = net.in_features
        for i, part in enumerate(net.layers):
            width = _width_after(part, width)
            self.rows.append(
                {
                    "layer": title(part),
                    "shape": f"(..., {'?' if width is None else width})",
                    "activation": describe(part.activation) if isinstance(part, Layer) else "",
                    "parameters": parameters_of(part),
                    "bytes": parameters_of(part) * net.dtype.itemsize,
                    "flops": part.flops() if isinstance(part, Forward) else 0,
                    "kernel": _kernel(net, i, isa),
                }
            )
        self.total = {
            key: sum(row[key] for row in self.rows) for key in ("parameters", "bytes", "flops")
        }

    def _table(self) -> Table:
        header = ["", "Layer", "Output", "Activation", "Kernel", "Parameters", "Bytes", "FLOPs/row"]
        keys = ("layer", "shape", "activation", "kernel")
        counts = ("parameters", "bytes", "flops")
        rows = [
            [str(i), *(row[key] for key in keys), *(f"{row[key]:,}" for key in counts)]
            for i, row in enumerate(self.rows)
        ]
        rows.append(["", "Total", "", "", "", *(f"{self.total[key]:,}" for key in counts)])
        return Table(header, rows, 5, total=True)


def _width_after(part: Part, width: int | None) -> int | None:
    if isinstance(part, Activation):
        return width
    if not isinstance(part, Forward):
        # A Flatten in front gives what the network was found to take.
        return width if repr(part) == "Flatten()" else None
    return width if part.out_features is None else part.out_features


def _kernel(net: Network, i: int, isa: str) -> str:
    part = net.layers[i]
    if isinstance(part, BatchNorm):
        before = net.layers[i - 1] if i else None
        after = net.layers[i + 1] if i + 1 < len(net) else None
        if isinstance(before, Layer) and describe(before.activation) == "identity":
            return f"folded into layer {i - 1}"
        if isinstance(after, Layer):
            return f"folded into layer {i + 1}"
    if isinstance(part, Layer):
        return isa if isinstance(part.activation, Activation) else f"{isa} + Python"
    if isinstance(part, Forward | Activation):
        return isa
    return "view" if repr(part) == "Flatten()" else "Python"


def plan_of(net: Network, samples: int) -> str:
    """Return the core's plan for a network that it runs in one go."""
    steps = net._compiled()
    step = steps[0] if len(steps) == 1 else None
    return step.program.describe(samples) if isinstance(step, ProgramStep) else ""


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

    def __init__(self, net: Network, x: Any, repeat: int) -> None:
        if repeat < 1:
            raise ValueError(f"repeat must be at least 1, got {repeat}")
        a = as_real(x)
        self.samples = _samples(net(a))
        self.threads = _core.get_num_threads()
        self.plan = plan_of(net, self.samples)
        self.seconds = _fastest(net, a, repeat)
        self.flops = net.flops(self.samples)
        self.rows: list[dict[str, Any]] = []
        for i, part in enumerate(net.layers):
            single = net[i : i + 1]
            seconds = _fastest(single, a, repeat)
            flops = single.flops(self.samples)
            row = {"layer": title(part), "seconds": seconds, "gflops": flops / seconds / 1e9}
            self.rows.append(row)
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


def _samples(y: Array) -> int:
    return int(np.prod(y.shape[:-1]))


def _fastest(call: Callable[[Array], Any], x: Array, repeat: int) -> float:
    call(x)  # compiles, and allocates the workspace
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        call(x)
        best = min(best, time.perf_counter() - start)
    return max(best, 1e-9)  # a clock may stand still for the shortest calls


def _duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


class Verification(Shown):
    """How far a network is from another implementation; see `Network.verify`.

    Attributes
    ----------
    max_abs, max_rel, max_ulp : float
        Largest error: absolute, relative to the reference, and in units of the last place of
        the network's dtype. An element that is NaN or infinite on one side only counts as inf;
        where both agree it counts as 0.
    argmax_agreement : float
        Share of rows whose largest element is at the same place.
    samples : int
        Number of rows.
    dtype : dtype
        That of the network.
    """

    def __init__(self, net: Network, reference: Callable[[Any], Any], x: Any) -> None:
        self._compare(net(x), as_real(reference(x), "the reference's result"), net.dtype)

    def _compare(self, ours: Array, theirs: Array, dtype: DType) -> None:
        if ours.shape != theirs.shape:
            raise ValueError(
                f"the reference gives shape {theirs.shape} where the network gives {ours.shape}"
            )
        self.dtype = dtype
        self.samples = _samples(ours)
        a, b = ours.astype(np.float64), theirs.astype(np.float64)
        with np.errstate(all="ignore"):
            alike = (a == b) | (np.isnan(a) & np.isnan(b))
            error = np.where(alike, 0.0, np.abs(a - b))
            error[~alike & ~np.isfinite(error)] = np.inf
            size = np.abs(b)
            relative = np.where(alike, 0.0, error / size)
            limits = np.finfo(self.dtype)
            rounded = np.clip(size, limits.tiny, limits.max).astype(self.dtype)
            ulps = np.where(alike, 0.0, error / np.spacing(rounded).astype(np.float64))
        for e in (relative, ulps):
            e[np.isnan(e)] = np.inf  # NaN or infinite in the reference only
        self.max_abs, self.max_rel, self.max_ulp = (
            float(e.max(initial=0.0)) for e in (error, relative, ulps)
        )
        same = np.argmax(a, axis=-1) == np.argmax(b, axis=-1) if a.size else np.ones(1, bool)
        self.argmax_agreement = float(np.mean(same))

    def _rows(self) -> list[list[str]]:
        return [
            ["Largest absolute error", f"{self.max_abs:.3g}"],
            ["Largest relative error", f"{self.max_rel:.3g}"],
            [f"Largest error in ULP of {self.dtype}", f"{self.max_ulp:.3g}"],
            ["Rows with the same argmax", f"{self.argmax_agreement:.2%}"],
        ]

    def _table(self) -> Table:
        return Table([f"{self.samples} samples", ""], self._rows(), 1)
