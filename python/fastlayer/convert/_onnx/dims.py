"""Dimensions as ONNX sees them while a graph is converted: numbers, the rows, and what is not known."""

from __future__ import annotations

from math import prod

# Dimensions that aren't numbers yet; no arithmetic is done on them. They fit 32 bits, in which
# some exporters compute shapes.
BATCH = -(1 << 30)
UNKNOWN = BATCH - 1


def wide(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its dimensions of length 1."""
    return tuple(d for d in shape if d != 1)


def size(shape: tuple[int, ...]) -> int:
    """Return the number of elements, `UNKNOWN` where it is."""
    return UNKNOWN if UNKNOWN in shape else prod(shape)


def known(n: int) -> int | None:
    """Return a number of features, None where it is `UNKNOWN`."""
    return None if n == UNKNOWN else n


def describe(shape: tuple[int, ...]) -> str:
    """Return a shape for messages."""
    names = {BATCH: "batch", UNKNOWN: "?"}
    comma = "," if len(shape) == 1 else ""
    return f"({', '.join(names.get(d, str(d)) for d in shape)}{comma})"
