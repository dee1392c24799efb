"""`Network.summary`: what a network is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlayer import _core
from fastlayer.report.tables import Shown, Table
from fastlayer.run.ops import AffineOp, DenseOp, JoinOp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.run.ops import Op


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

    __module__ = "fastlayer"  # where pickles find it

    def __init__(self, net: Any) -> None:
        isa = f"{_core.config()['isa_active']} {net.dtype}"
        lowered = [part._lower(net.dtype) for part in net._parts]
        self.rows: list[dict[str, Any]] = []
        width = net.in_features
        for i, part in enumerate(net._parts):
            sizes, count = part._sizes, part._parameter_count
            # A Flatten in front gives what the network was found to take.
            if not (sizes.keeps and sizes.out_features is None) and not sizes.flattens:
                width = sizes.out_features
            self.rows.append(
                {
                    "layer": part._title(),
                    "shape": f"(..., {'?' if width is None else width})",
                    "activation": part._activation_title,
                    "parameters": count,
                    "bytes": count * net.dtype.itemsize,
                    "flops": part._flops(1),
                    "kernel": _folded(lowered, i) or " + ".join(_where(lowered[i], isa)),
                }
            )
        self.total: dict[str, int] = {
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


def _where(ops: Sequence[Op], isa: str) -> list[str]:
    """Return what carries out some operations, each once: a kernel, a view, or Python."""
    found: list[str] = []
    for op in ops:
        if isinstance(op, JoinOp):
            found += _where([inner for ops in op.branches for inner in ops], isa)
        else:
            found.append(isa if op.where == "core" else op.where)
    return list(dict.fromkeys(found))


def _folded(lowered: Sequence[Sequence[Op]], i: int) -> str:
    """Return which layer a scaling is folded into, nothing for other parts."""
    if not isinstance(lowered[i][0], AffineOp):
        return ""
    before = lowered[i - 1][-1] if i else None
    after = lowered[i + 1][0] if i + 1 < len(lowered) else None
    if isinstance(before, DenseOp) and before.plain:
        return f"folded into layer {i - 1}"
    return f"folded into layer {i + 1}" if isinstance(after, DenseOp) else ""
