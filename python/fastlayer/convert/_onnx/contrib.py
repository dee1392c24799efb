"""Operators of other domains, taken apart into ONNX's own: those of ONNX Runtime's optimiser and of
scikit-learn's scalers and regressions.

What they compute is in ONNX Runtime's ContribOperators.md and in ONNX's Operators-ml.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.errors import ConversionError, Damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FLOAT = 1  # of TensorProto.DataType


class _Writer:
    """Writes nodes in the place of one; names that are made up begin with the node's output."""

    def __init__(self, onnx: Any, proto: Any, opset: int) -> None:
        self.opset = opset
        self._make, self._proto = onnx.helper.make_node, proto
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.output = self.outputs[0] if self.outputs else ""
        self.given = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        self.nodes: list[Any] = []
        self._named = 0

    @property
    def place(self) -> str:
        """The node as messages name it."""
        return f"node {self._proto.name!r} (ONNX {self._proto.domain}.{self._proto.op_type})"

    def choose(self, name: str, default: bytes, known: dict[str, str]) -> str:
        """Return what stands for an attribute that is a word.

        Raises
        ------
        ConversionError
            It has none of the words that are known.
        """
        word = self.given.get(name, default).decode(errors="replace")
        if word not in known:
            raise ConversionError(
                self.place,
                f"its {name} is {word!r:.20}; {', '.join(known)} can be converted: cut the model in "
                "front of it, with onnx.utils.extract_model, and compute it with NumPy",
            )
        return known[word]

    def name(self) -> str:
        """Return a name that nothing has yet."""
        self._named += 1
        return f"{self.output} of {self._proto.op_type}, {self._named}"

    def node(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
        """Return a node."""
        return self._make(op, inputs, outputs, name=self._proto.name, **attributes)

    def add(self, op: str, *inputs: str, last: bool = False, **attributes: Any) -> str:
        """Write a node and return its output, that of them all where it is the last one."""
        output = self.output if last else self.name()
        kept = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(self.node(op, list(inputs), [output], **kept))
        return output

    def texts(self, values: list[bytes]) -> str:
        """Write texts."""
        return self.add("Constant", value_strings=values)

    def constant(self, values: Any) -> str:
        """Write float32 numbers."""
        a = np.asarray(values, np.float32)
        if a.ndim == 0:
            return self.add("Constant", value_float=float(a))
        return self.add("Constant", value_floats=a.ravel().tolist())


def _fused_gemm(w: _Writer) -> None:
    own = {k: v for k, v in w.given.items() if not k.startswith("activation")}
    numbers = {k.removeprefix("activation_"): v for k, v in w.given.items() if k not in own}
    activation = numbers.pop("activation", b"Identity").decode()
    w.add(activation, w.add("Gemm", *w.inputs, **own), last=True, **numbers)


def _gelu(w: _Writer, approximate: str | None = None) -> None:
    x = w.inputs[0]
    if len(w.inputs) > 1 and w.inputs[1]:
        x = w.add("Add", *w.inputs[:2])
    w.add("Gelu", x, last=True, approximate=approximate)


def _quick_gelu(w: _Writer) -> None:
    scaled = w.add("Mul", w.inputs[0], w.constant(w.given.get("alpha", 1.702)))
    w.add("Mul", w.inputs[0], w.add("Sigmoid", scaled), last=True)


def _scaler(w: _Writer) -> None:
    x = w.add("Cast", w.inputs[0], to=_FLOAT)
    centred = w.add("Sub", x, w.constant(w.given["offset"]))
    w.add("Mul", centred, w.constant(w.given["scale"]), last=True)


def _linear(w: _Writer) -> None:
    w.choose("post_transform", b"NONE", {"NONE": ""})
    _scores(w, w.given.get("targets", 1), w.output)


def _linear_classifier(w: _Writer) -> None:
    """Write a dense layer for each class, and the label of the largest."""
    texts = w.given.get("classlabels_strings", [])
    numbers = w.given.get("classlabels_ints", [])
    count = len(texts or numbers)
    transform = w.choose("post_transform", b"NONE", _TRANSFORMS)
    if len(w.given.get("intercepts", [])) == 1 < count:
        raise ConversionError(
            w.place, "it has the coefficients of one class of two; export it with those of both"
        )
    label, *others = w.outputs
    scores = others[0] if others and others[0] else w.name()
    last = w.name() if transform else scores
    _scores(w, count, last)
    if transform:
        w.nodes.append(w.node(transform, [last], [scores]))
    if label:
        classes = w.texts(texts) if texts else w.add("Constant", value_ints=numbers)
        largest = w.add("ArgMax", scores, axis=-1, keepdims=0)
        w.nodes.append(w.node("Gather", [classes, largest], [label]))


def _normalizer(w: _Writer) -> None:
    if w.choose("norm", b"MAX", {"L1": "", "L2": "2"}):
        w.add("LpNormalization", w.add("Cast", w.inputs[0], to=_FLOAT), axis=-1, p=2, last=True)
        return
    size = w.add("Abs", w.inputs[0])
    if w.opset < 13:
        total = w.add("ReduceSum", size, axes=[-1], keepdims=1)
    else:
        total = w.add("ReduceSum", size, w.add("Constant", value_ints=[-1]), keepdims=1)
    w.add("Div", w.inputs[0], total, last=True)


def _extractor(w: _Writer) -> None:
    w.add("Gather", *w.inputs, axis=-1, last=True)


def _zip_map(w: _Writer) -> None:
    w.add("Identity", w.inputs[0], last=True)


_TRANSFORMS = {"NONE": "", "LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax"}


def _scores(w: _Writer, targets: int, output: str) -> None:
    """Write the dense layer that the attributes hold."""
    weights = np.asarray(w.given["coefficients"], np.float32).reshape(targets, -1)
    if not weights.size:
        raise ValueError("no coefficients")
    shape = w.add("Constant", value_ints=list(weights.T.shape))
    x = w.add("Cast", w.inputs[0], to=_FLOAT)
    product = w.add("MatMul", x, w.add("Reshape", w.constant(weights.T), shape))
    shift = w.given.get("intercepts", [0.0] * targets)
    w.nodes.append(w.node("Add", [product, w.constant(shift)], [output]))


_OPERATORS: dict[tuple[str, str], Callable[[_Writer], None]] = {
    ("com.microsoft", "BiasGelu"): _gelu,
    ("com.microsoft", "FastGelu"): lambda w: _gelu(w, "tanh"),
    ("com.microsoft", "FusedGemm"): _fused_gemm,
    ("com.microsoft", "Gelu"): _gelu,
    ("com.microsoft", "QuickGelu"): _quick_gelu,
    ("ai.onnx.ml", "ArrayFeatureExtractor"): _extractor,
    ("ai.onnx.ml", "LinearClassifier"): _linear_classifier,
    ("ai.onnx.ml", "LinearRegressor"): _linear,
    ("ai.onnx.ml", "Normalizer"): _normalizer,
    ("ai.onnx.ml", "Scaler"): _scaler,
    # Numbers by the names of their classes.
    ("ai.onnx.ml", "ZipMap"): _zip_map,
}


def plain(onnx: Any, proto: Any, opset: int) -> Iterator[Any]:
    """Yield what stands for a node: ONNX's own operators where they are known, else the node.

    Raises
    ------
    Damaged
        The node lacks what its operator must have.
    """
    write = _OPERATORS.get((proto.domain, proto.op_type))
    if write is None:
        yield proto
        return
    writer = _Writer(onnx, proto, opset)
    try:
        write(writer)
    except ConversionError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise Damaged(writer.place, f"is not as its operator has to be: {error!r:.80}") from error
    yield from writer.nodes
