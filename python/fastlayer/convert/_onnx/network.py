"""From a graph to a network: the operations in order, and the proof that both do the same."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._advice import special
from fastlayer.convert._graph import Dense, Draft, Join, Point, constant, join
from fastlayer.convert._onnx.dense import DENSE
from fastlayer.convert._onnx.dims import describe, known, wide
from fastlayer.convert._onnx.elementwise import ELEMENTWISE
from fastlayer.convert._onnx.evaluator import evaluator, fold
from fastlayer.convert._onnx.file import DTYPES
from fastlayer.convert._onnx.graph import Graph, Value
from fastlayer.convert._onnx.labels import Labels, argmax, moved
from fastlayer.convert._onnx.rows import Rows
from fastlayer.convert._onnx.shapes import SHAPES
from fastlayer.convert._prove import ANY_WIDTH, OTHERS, prove
from fastlayer.errors import ConversionError, Damaged
from fastlayer.functions.activation import Activation
from fastlayer.network.ends import Classes, Ends, selected
from fastlayer.network.part import Flatten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fastlayer.arrays import Array
    from fastlayer.convert._onnx.file import Model, Node
    from fastlayer.convert._onnx.graph import Given
    from fastlayer.network.network import Network
    from fastlayer.report.verification import Proof

_OPERATIONS = {**ELEMENTWISE, **DENSE, **SHAPES, "ArgMax": argmax}
# Operations in which a constant may come first.
_CONDITIONS = {"And", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or"}
_EITHER = {
    *("Add", "Concat", "Div", "Einsum", "Gemm", "MatMul", "Max", "Mean", "Min", "Mul", "Pow"),
    *("Sub", "Sum"),
    *("Where", *_CONDITIONS),
}
# How many inputs an operation has at least, where that is not one.
_INPUTS = {
    **dict.fromkeys(("Add", "Div", "Einsum", "Gemm", "MatMul", "Mul", *_CONDITIONS), 2),
    **dict.fromkeys(("Expand", "Gather", "Pow", "PRelu", "Reshape", "Sub"), 2),
    "Where": 3,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), 2),
    "BatchNormalization": 5,
}
_EXACT = {"Add", "Div", "Mul", "Pow", "Sub", "Where", *_CONDITIONS}  # and no more
_DENSE_ONLY = "fastlayer runs dense networks: rows through Gemm, MatMul, norms and activations"
_TREES = "it is an ensemble of trees, and fastlayer runs dense networks; run it with ONNX Runtime"
_KERNELS = "it is a kernel machine, and fastlayer runs dense networks; run it with ONNX Runtime"
_ADVICE = {
    **dict.fromkeys(("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"), _TREES),
    **dict.fromkeys(("SVMClassifier", "SVMRegressor"), _KERNELS),
    "DequantizeLinear": "export the model before it is quantised",
}
# A layer's weights are copied for the kernels. Layers may share weights in the file, within reason.
_MOST_COPIES = 4
_SPARE = 32 << 20
# Random rows of the proof, and numbers that it may ask for: in one array of its own, of which it
# holds about ten, in one array of the model, and in all arrays of the model together.
_MOST_ROWS = 64
_ARRAY, _HELD, _ALL = 1 << 18, 1 << 21, 1 << 26


def to_network(
    model: Model, outputs: str | Sequence[str] | None = None, verify: bool = True
) -> Network[Any]:
    """Convert a model, or what some of its outputs need of it, and prove that both do the same.

    Raises
    ------
    ConversionError
        Something that a network can't do.
    Damaged
        Something that no ONNX model says.
    """
    wanted = selected(outputs, model.outputs, "graph")
    run = _Run(model, wanted)
    draft = run.draft(outputs is None or isinstance(outputs, str))
    products = list(_products(draft.steps))
    copied = sum(w.size for w in products) * draft.dtype.itemsize
    if copied > _MOST_COPIES * model.nbytes + _SPARE:
        raise Damaged(
            "graph", f"asks for {copied} bytes of weights, and the file has {model.nbytes}"
        )
    net = draft.network()
    if verify:
        run.prove(net, draft.unfolded(draft.dtype), products)
    return net


class _Run:
    """One run through the nodes of a graph: what each name stands for."""

    def __init__(self, model: Model, outputs: Sequence[str]) -> None:
        self.model, self.outputs = model, outputs
        self.nodes, wanted = _needed(model.nodes, outputs)
        used = [v for v in model.inputs if v.name in wanted]
        self.graph = Graph(model, used or _one(model.inputs))
        self.known: dict[str, Given] = {"": None, **self.graph.inputs}
        self._ends = set(outputs)  # names of the results
        for node in reversed(self.nodes):
            if node.op == "Identity" and node.own and node.outputs[0] in self._ends:
                self._ends.update(node.inputs)
        for node in self.nodes:
            given = [self._get(node, name) for name in node.inputs]
            self.graph.follow(node, given)
            results = given[:1] if self._widens(node, given) else self._made(node, given)
            extra = [name for name in node.outputs[len(results) :] if name in wanted]
            if extra:
                raise node.refuse(
                    f"its output {extra[0]!r} is used; only the first one is computed"
                )
            for name, result in zip(node.outputs, results, strict=False):
                if name in self.known or name in model.tensors:
                    raise node.damaged(f"makes {name!r}, which is there already")
                self.known[name] = result

    def _get(self, node: Node, name: str) -> Given:
        if name not in self.known:
            if name not in self.model.tensors:
                raise node.damaged(f"uses {name!r} before anything makes it")
            self.known[name] = self.model.array(self.model.tensors[name])
        return self.known[name]

    def _made(self, node: Node, given: list[Given]) -> list[Given]:
        """Return what a node makes: its first output, or all of them."""
        if any(isinstance(g, Labels) for g in given):
            return [moved(node, given)]
        advice = _ADVICE.get(node.op) or special(node.op)
        if advice and any(isinstance(g, Value) for g in given):
            raise node.refuse(advice)
        if node.proto.domain == "ai.onnx.ml":
            raise node.refuse(
                "it is a step of classical machine learning, and fastlayer runs dense networks; cut the "
                "model behind it, with onnx.utils.extract_model, and compute it with NumPy"
            )
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
            raise node.refuse(_DENSE_ONLY)
        if first is None or (not isinstance(first, Value) and node.op not in _EITHER):
            raise node.damaged("has a constant where its input should be")
        if len(given) < _INPUTS.get(node.op, 1):
            raise node.damaged(f"has {len(given)} inputs, too few")
        if node.op in _EXACT and len(given) > _INPUTS[node.op]:
            raise node.damaged(f"has {len(given)} inputs, too many")
        made = _OPERATIONS[node.op](self.graph, node, first, given[1:])
        return made if isinstance(made, list) else [made]

    def _widens(self, node: Node, given: list[Given]) -> bool:
        """Whether a node makes float64 of the result, which a network gives in its own dtype."""
        last = node.op == "Cast" and node.outputs[0] in self._ends
        moved = len(given) == 1 and isinstance(given[0], Value)
        moved = moved and node.inputs[0] not in self.graph.inputs
        single = self.graph.dtype == np.float32
        return last and moved and single and DTYPES.get(node.integer("to", 0)) == "float64"

    def draft(self, single: bool) -> Draft:
        """Return the network to be made; its rows must be those of the outputs."""
        graph = self.graph
        dtype = graph.dtype or np.dtype(np.float32)
        ends = [self._end(name) for name in self.outputs]
        (first,) = graph.inputs.values() if len(graph.inputs) == 1 else (None,)
        features = graph.root.features if first is None else known(first.held[-1])
        labels = tuple(_classes(self.known.get(name)) for name in self.outputs)
        if single and len(ends) == 1 and labels == (None,):
            return Draft(ends[0], dtype, "graph", features, ends=(graph.ends, Ends()))
        widths = []
        for name, point in zip(self.outputs, ends, strict=True):
            if point.features is None:
                raise ConversionError(
                    f"output {name!r}",
                    "its number of features is not known, which several outputs need; declare the "
                    "shape of the input in the model",
                )
            widths.append(point.features)
        point = join("concat", ends, "graph")
        single = single and len(ends) == 1
        both = (graph.ends, Ends(tuple(self.outputs), tuple(widths), labels, single))
        return Draft(point, dtype, "graph", features, ends=both)

    def _end(self, name: str) -> Point:
        """Return the point of an output, as rows."""
        value = self._output(name)
        if isinstance(value, Labels):
            value = value.scores
        if isinstance(value, np.ndarray) and len(self.outputs) > 1:
            rows = value.reshape(-1, value.shape[-1] if value.ndim else 1)
            if not rows.size or (rows != rows[:1]).any():
                raise ConversionError(f"output {name!r}", "is a constant that is not one row")
            return constant(self.graph.root, rows[0])
        if not isinstance(value, Value):
            raise Damaged("graph", f"its output {name!r} does not come from its input")
        value.point.running()
        node = next((n for n in self.nodes if name in n.outputs), None)
        if node is not None:
            sample, held = value.sample, value.held
            if sample != held and len(wide(sample)) <= 1 and not value.columns:
                value = self.graph.flattened(value, node)
            if value.columns or (wide(sample) != wide(value.held) and len(wide(sample)) > 1):
                raise node.refuse(
                    f"it gives {describe(value.shape)}, and a network gives rows; cut it off with "
                    "onnx.utils.extract_model, and reshape the result"
                )
        point: Point = value.point
        return point

    def _output(self, name: str) -> Given:
        if name not in self.known and name in self.model.tensors:
            return self.model.array(self.model.tensors[name])
        return self.known.get(name)

    def prove(self, net: Network, unfolded: Network | None, products: list[Array]) -> None:
        """Compare a network with the model on rows of all kinds, where that is no great work."""
        single = len(list(takewhile(_is_of_each_element, net.layers)))
        flattens = any(isinstance(part, Flatten) for part in net.layers[single + 1 :])
        shapes = {name: value.shape for name, value in self.graph.inputs.items()}
        if flattens and any(wide(value.sample[:-1]) for value in self.graph.inputs.values()):
            return  # what comes before works on the last of several axes
        usual = products[0].shape[1] if products else ANY_WIDTH
        rows = Rows(net, shapes, self.graph.frozen, usual)
        largest = max(rows.features, *(max(w.shape) for w in products), 1)
        held = largest * max(len(self.nodes), 1)
        array = _ARRAY + self.model.nbytes // 64
        count = min(_MOST_ROWS, array // largest - OTHERS, _ALL // held - OTHERS)
        most = (_HELD + self.model.nbytes // 16) // largest
        if count < 1 or (self.graph.frozen or 1) > min(most, _ALL // held):
            return
        # Labels are judged by what they are the largest of.
        judged = [v.name if isinstance(v := self._output(k), Labels) else k for k in self.outputs]
        nodes = _needed([n for n in self.nodes if n.op != "Constant"], judged)[0]
        compute = evaluator(nodes, self.model.opset, judged)
        constants = {k: v for k, v in self.known.items() if not isinstance(v, Value | Labels)}
        constants.update({k: self._output(k) for k in self.outputs if k not in self.known})

        def run(feeds: dict[str, Array]) -> list[Array]:
            return compute({**constants, **feeds})

        @cache
        def widened_constants() -> dict[str, Given]:
            return {k: _widened(v) for k, v in constants.items()}

        def run_wide(feeds: dict[str, Array]) -> list[Array]:
            return compute({**widened_constants(), **feeds})

        def proof(opened: bool) -> Proof:
            return prove(
                net._plain,
                rows.runner(run, most, opened),
                source="ONNX model",
                features=rows.features,
                rows=count,
                unfolded=unfolded,
                wide=rows.runner(run_wide, most, opened),
            )

        if rows.frozen:
            # A model of one sample takes them together mostly, which is many times faster.
            with suppress(ConversionError):
                net._verification = proof(opened=True)
                return
        net._verification = proof(opened=False)


def _one(inputs: Sequence[Any]) -> Sequence[Any]:
    """Return an input for what needs none."""
    if not inputs:
        raise ConversionError("graph", "it has no inputs, and a network has at least one")
    return inputs[:1]


def _classes(value: Given) -> Classes | None:
    """Return the classes of labels, None for other values."""
    if not isinstance(value, Labels):
        return None
    return Classes(tuple(value.classes.tolist()), value.keepdims)


def _needed(given: Sequence[Node], outputs: Sequence[str]) -> tuple[list[Node], set[str]]:
    """Return the nodes that some outputs depend on, in order, and all names that they use."""
    wanted = set(outputs)
    nodes = []
    for node in reversed(given):
        if any(name and name in wanted for name in node.outputs):
            nodes.append(node)
            wanted.update(node.inputs)
    wanted.discard("")
    return nodes[::-1], wanted


def _is_of_each_element(part: object) -> bool:
    along_features = ("log_softmax", "prelu", "softmax")
    return isinstance(part, Activation) and part.name not in along_features


def _widened(value: Given) -> Given:
    single = isinstance(value, np.ndarray) and value.dtype == np.float32
    return value.astype(np.float64) if single else value


def _products(steps: Iterable[Any]) -> Iterator[Array]:
    """Yield the weights of all matrix products in some steps."""
    for step in steps:
        if isinstance(step, Dense):
            yield step.weight
        elif isinstance(step, Join):
            for branch in step.branches:
                yield from _products(branch)
