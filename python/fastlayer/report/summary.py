"""`Network.summary`: what a network is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlayer import _core
from fastlayer.functions.activation import Activation, describe
from fastlayer.network.chain import parameters_of, title
from fastlayer.network.layer import Layer
from fastlayer.network.module import Module
from fastlayer.network.norms import BatchNorm
from fastlayer.report.tables import Shown, Table

if TYPE_CHECKING:
    from fastlayer.network.chain import Part
    from fastlayer.network.network import Network


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
                    "flops": part.flops() if isinstance(part, Module) else 0,
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
    if not isinstance(part, Module):
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
    if isinstance(part, Module | Activation):
        return isa
    return "view" if repr(part) == "Flatten()" else "Python"
