"""Labels at the end of an ONNX graph: the class of the largest score, in whatever steps it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert._onnx.file import DTYPES
from fastlayer.convert._onnx.shapes import along

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.convert._onnx.file import Node
    from fastlayer.convert._onnx.graph import Given, Graph, Value


class Labels(NamedTuple):
    """``classes[argmax(scores)]``; `name` is that of the scores in the graph."""

    scores: Value
    name: str
    classes: Array
    keepdims: bool


def argmax(graph: Graph, node: Node, value: Value, rest: list[Given]) -> Any:
    """Return the labels that ArgMax makes, the numbers of the features.

    Raises
    ------
    ConversionError
        Another axis, or the last of several that are largest.
    """
    value, _, n = along(graph, node, value, node.integer("axis", 0))
    if n < 1 or node.integer("select_last_index", 0):
        raise node.refuse("it takes the last of the largest, or the features are not known")
    graph.take(node, 8 * n)
    return Labels(value, node.inputs[0], np.arange(n), bool(node.integer("keepdims", 1)))


def moved(node: Node, given: list[Given]) -> Labels:
    """Return what a node makes of labels.

    Raises
    ------
    ConversionError
        Something else than labels.
    """
    if node.op not in _MOVES:
        raise node.refuse(
            "it computes with labels; take the other outputs of the model, outputs=..., and compute "
            "with net(x).argmax(axis=-1)"
        )
    return _MOVES[node.op](node, given)


def _chosen(node: Node, given: list[Given]) -> Labels:
    """Return the classes that labels are the numbers of."""
    classes, labels = given[:2]
    taken = isinstance(labels, Labels) and isinstance(classes, np.ndarray)
    if not taken or classes.size != max(classes.shape, default=0):
        raise node.refuse("it is not given a list of classes and the number of one")
    numbers = labels.classes
    if numbers.dtype.kind != "i" or (numbers < 0).any() or (numbers >= classes.size).any():
        raise node.damaged(f"takes classes that are not there, of {classes.size}")
    found: Labels = labels._replace(classes=classes.ravel()[numbers])
    return found


def _cast(node: Node, given: list[Given]) -> Labels:
    labels: Labels = given[0]
    kind = DTYPES.get(node.integer("to", 0))
    if kind is None or labels.classes.dtype.kind == "O":
        return labels  # text stays text
    return labels._replace(classes=labels.classes.astype(kind))


def _reshaped(node: Node, given: list[Given]) -> Labels:
    labels: Labels = given[0]
    shape = given[1] if len(given) > 1 else None
    if not isinstance(shape, np.ndarray) or shape.size not in (1, 2):
        raise node.refuse("its labels get another shape than one for each row")
    return labels._replace(keepdims=shape.size == 2)


_MOVES: dict[str, Callable[[Node, list[Given]], Labels]] = {
    "Cast": _cast,
    "Gather": _chosen,
    "Identity": lambda node, given: given[0],
    "Reshape": _reshaped,
    "Squeeze": lambda node, given: given[0]._replace(keepdims=False),
    "Unsqueeze": lambda node, given: given[0]._replace(keepdims=True),
}
