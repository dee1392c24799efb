"""From a graph to a network: the operations in order, and the proof that both do the same."""

from __future__ import annotations

from contextlib import suppress
from itertools import takewhile
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._graph import Dense, Draft, Join
from fastlayer.convert._onnx.dense import DENSE
from fastlayer.convert._onnx.elementwise import ELEMENTWISE
from fastlayer.convert._onnx.evaluator import evaluator, fold
from fastlayer.convert._onnx.file import DTYPES
from fastlayer.convert._onnx.graph import BATCH, UNKNOWN, Graph, Value, describe, known, size, wide
from fastlayer.convert._onnx.shapes import SHAPES
from fastlayer.convert._prove import ANY_WIDTH, OTHERS, prove
from fastlayer.errors import ConversionError, Damaged
from fastlayer.functions.activation import Activation
from fastlayer.network.part import Flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fastlayer.arrays import Array
    from fastlayer.convert._onnx.file import Model, Node
    from fastlayer.convert._onnx.graph import Given
    from fastlayer.network.network import Network
    from fastlayer.report.verification import Proof

_OPERATIONS = {**ELEMENTWISE, **DENSE, **SHAPES}
# Operations in which a constant may come first.
_EITHER = {"Add", "Div", "Einsum", "Gemm", "MatMul", "Max", "Min", "Mul", "Pow", "Sub", "Sum"}
# How many inputs an operation has at least, where that is not one.
_INPUTS = {
    **dict.fromkeys(("Add", "Div", "Einsum", "Gemm", "MatMul", "Mul"), 2),
    **dict.fromkeys(("Pow", "PRelu", "Reshape", "Sub"), 2),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), 2),
    "BatchNormalization": 5,
}
_DENSE_ONLY = "fastlayer runs dense networks: rows through Gemm, MatMul, norms and activations"
_ADVICE = {
    "ArgMax": "cut it off with onnx.utils.extract_model, and take net(x).argmax(axis=-1)",
    "ArrayFeatureExtractor": "use fl.from_sklearn for a model of scikit-learn",
    "Concat": "the parts of a network follow one another; only residual sums branch",
    "DequantizeLinear": "export the model before it is quantised",
    "Split": "the parts of a network follow one another; only residual sums branch",
    "ZipMap": "use fl.from_sklearn, or export with the option zipmap=False and cut off the labels",
}
# A layer's weights are copied for the kernels. Layers may share weights in the file, within reason.
_MOST_COPIES = 4
_SPARE = 32 << 20
# Random rows of the proof, and numbers that it may ask for: in one array of its own, of which it
# holds about ten, in one array of the model, and in all arrays of the model together.
_MOST_ROWS = 64
_ARRAY, _HELD, _ALL = 1 << 18, 1 << 21, 1 << 26


def to_network(model: Model) -> Network:
    """Convert a model, and prove that the network does the same.

    Raises
    ------
    ConversionError
        Something that a network can't do.
    Damaged
        Something that no ONNX model says.
    """
    if len(model.outputs) != 1:
        names = ", ".join(map(repr, model.outputs[:8])) or "none"
        raise ConversionError(
            "graph",
            f"it has {len(model.outputs)} outputs ({names}), and a network has one; cut the model "
            "with onnx.utils.extract_model",
        )
    graph = Graph(model)
    run = _Run(graph, model)
    draft = run.draft()
    products = list(_products(draft.steps))
    copied = sum(w.size for w in products) * draft.dtype.itemsize
    if copied > _MOST_COPIES * model.nbytes + _SPARE:
        raise Damaged(
            "graph", f"asks for {copied} bytes of weights, and the file has {model.nbytes}"
        )
    net = draft.network()
    run.prove(net, products)
    return net


class _Run:
    """One run through the nodes of a graph: what each name stands for."""

    def __init__(self, graph: Graph, model: Model) -> None:
        self.graph, self.model = graph, model
        self.known: dict[str, Given] = {"": None, model.inputs[0].name: graph.input}
        self.nodes, wanted = _needed(model)
        self._ends = {model.outputs[0]}  # names of the result
        for node in reversed(self.nodes):
            if node.op == "Identity" and node.own and node.outputs[0] in self._ends:
                self._ends.update(node.inputs)
        for node in self.nodes:
            given = [self._get(node, name) for name in node.inputs]
            result = given[0] if self._widens(node, given) else self._one(node, given)
            extra = [name for name in node.outputs[1:] if name in wanted]
            if extra:
                raise node.refuse(
                    f"its output {extra[0]!r} is used; only the first one is computed"
                )
            if node.outputs[0] in self.known or node.outputs[0] in model.tensors:
                raise node.damaged(f"makes {node.outputs[0]!r}, which is there already")
            self.known[node.outputs[0]] = result

    def _get(self, node: Node, name: str) -> Given:
        if name not in self.known:
            if name not in self.model.tensors:
                raise node.damaged(f"uses {name!r} before anything makes it")
            self.known[name] = self.model.array(self.model.tensors[name])
        return self.known[name]

    def _one(self, node: Node, given: list[Given]) -> Given:
        if not node.own:
            raise node.refuse(
                "it is not one of ONNX's own operators; export the model without custom or fused "
                "ones. Functions: onnx.inliner.inline_local_functions. A file of ONNX Runtime's "
                "optimiser: write it again with graph_optimization_level = ORT_ENABLE_BASIC"
            )
        first = given[0] if given else None
        if not any(isinstance(g, Value) for g in given):
            return fold(self.graph, node, given, self.model)
        if node.op not in _OPERATIONS:
            raise node.refuse(_ADVICE.get(node.op, _DENSE_ONLY))
        if first is None or (not isinstance(first, Value) and node.op not in _EITHER):
            raise node.damaged("has a constant where its input should be")
        if len(given) < _INPUTS.get(node.op, 1):
            raise node.damaged(f"has {len(given)} inputs, too few")
        return _OPERATIONS[node.op](self.graph, node, first, given[1:])

    def _widens(self, node: Node, given: list[Given]) -> bool:
        """Whether a node makes float64 of the result, which a network gives in its own dtype."""
        last = node.op == "Cast" and node.outputs[0] in self._ends
        moved = len(given) == 1 and isinstance(given[0], Value) and given[0] is not self.graph.input
        single = self.graph.dtype == np.float32
        return last and moved and single and DTYPES.get(node.integer("to", 0)) == "float64"

    def draft(self) -> Draft:
        """Return the network to be made; its rows must be those of the output."""
        name = self.model.outputs[0]
        value = self.known.get(name)
        if not isinstance(value, Value):
            raise Damaged("graph", f"its output {name!r} does not come from its input")
        value.point.running()
        if self.nodes:
            node = self.nodes[-1]
            sample, held = value.sample, value.held
            if sample != held and len(wide(sample)) <= 1 and not value.columns:
                value = self.graph.flattened(value, node)
            if value.columns or (wide(sample) != wide(value.held) and len(wide(sample)) > 1):
                raise node.refuse(
                    f"it gives {describe(value.shape)}, and a network gives rows; cut it off with "
                    "onnx.utils.extract_model, and reshape the result"
                )
        dtype = self.graph.dtype or np.dtype(np.float32)
        return Draft(value.point, dtype, "graph", known(self.graph.input.held[-1]))

    def prove(self, net: Network, products: list[Array]) -> None:
        """Compare a network with the model on rows of all kinds, where that is no great work."""
        single = len(list(takewhile(_is_of_each_element, net.layers)))
        flattens = any(isinstance(part, Flatten) for part in net.layers[single + 1 :])
        if flattens and wide(self.graph.input.sample[:-1]):
            return  # what comes before works on the last of several axes
        usual = products[0].shape[1] if products else ANY_WIDTH
        rows = _Rows(net, self.graph.input.shape, self.graph.frozen, usual)
        largest = max(rows.features, *(max(w.shape) for w in products), 1)
        held = largest * max(len(self.nodes), 1)
        array = _ARRAY + self.model.nbytes // 64
        count = min(_MOST_ROWS, array // largest - OTHERS, _ALL // held - OTHERS)
        most = (_HELD + self.model.nbytes // 16) // largest
        if count < 1 or (self.graph.frozen or 1) > min(most, _ALL // held):
            return
        compute = evaluator(self.nodes, self.model.opset)
        name = self.model.inputs[0].name
        constants = {k: v for k, v in self.known.items() if not isinstance(v, Value)}

        def run(x: Array) -> Array:
            return compute({**constants, name: x})

        def proof(opened: bool) -> Proof:
            reference = rows.runner(run, most, opened)
            return prove(net, reference, source="ONNX model", features=rows.features, rows=count)

        if rows.frozen:
            # A model of one sample takes them together mostly, which is many times faster.
            with suppress(ConversionError):
                net._verification = proof(opened=True)
                return
        net._verification = proof(opened=False)


class _Rows:
    """Rows of a network as samples of a model, whatever the shape of its input."""

    def __init__(
        self, net: Network, shape: tuple[int, ...], frozen: int | None, usual: int
    ) -> None:
        self.frozen = frozen
        self.one = BATCH not in shape  # the model takes a single sample
        sample = [d for d in shape if d != BATCH]
        given = prod(d for d in sample if d != UNKNOWN) or 1
        flat = any(isinstance(part, Flatten) for part in net.layers)
        features = size(tuple(sample)) if flat else sample[-1]
        self.features = net.in_features or known(features) or usual
        if UNKNOWN in sample:
            at = len(sample) - 1 - sample[::-1].index(UNKNOWN)
            sample[at] = max(self.features // given, 1)
        self.sample = [1 if d == UNKNOWN else d for d in sample]

    def runner(
        self, run: Callable[[Array], Array], most: int, opened: bool
    ) -> Callable[[Array], Array]:
        """Return what runs a model on rows, no more than `most` samples at once.

        A model with a fixed number of samples gets that many, or where it is `opened`, the first
        ones so and the others together.
        """
        # Where the network works on the last of several axes, a sample has several rows.
        rows = max(prod(self.sample) // self.features, 1)

        def samples(x: Array, step: int) -> Array:
            padded = np.concatenate([x, np.repeat(x[:1], -len(x) % (rows * step), axis=0)])
            shape = self.sample if self.one else [step, *self.sample]
            parts = padded.reshape(-1, *shape)
            results = [np.asarray(run(part)).reshape(rows * step, -1) for part in parts]
            return np.concatenate(results)[: len(x)]

        def reference(x: Array) -> Array:
            together = min(most, -(-len(x) // rows))
            step = 1 if self.one else self.frozen or together
            if not opened or step >= together:
                return samples(x, step)
            first = rows * step
            return np.concatenate([samples(x[:first], step), samples(x, together)[first:]])

        return reference


def _needed(model: Model) -> tuple[list[Node], set[str]]:
    """Return the nodes that the output depends on, in order, and all names that they use."""
    wanted = {model.outputs[0]}
    nodes = []
    for node in reversed(model.nodes):
        if any(name and name in wanted for name in node.outputs):
            nodes.append(node)
            wanted.update(node.inputs)
    wanted.discard("")
    return nodes[::-1], wanted


def _is_of_each_element(part: object) -> bool:
    along_features = ("log_softmax", "prelu", "softmax")
    return isinstance(part, Activation) and part.name not in along_features


def _products(steps: Iterable[Any]) -> Iterator[Array]:
    """Yield the weights of all matrix products in some steps."""
    for step in steps:
        if isinstance(step, Dense):
            yield step.weight
        elif isinstance(step, Join):
            for branch in step.branches:
                yield from _products(branch)
