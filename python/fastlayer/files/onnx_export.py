"""`Network.to_onnx`: the operations of a network as ONNX nodes, opset 20."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fastlayer.arrays import cast
from fastlayer.errors import ConversionError
from fastlayer.files.model_file import ModelFile
from fastlayer.files.save import write_to
from fastlayer.run.ops import (
    AffineOp,
    DenseOp,
    FlattenOp,
    JoinOp,
    OneRowOp,
    RowsOp,
    SliceOp,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array, DType
    from fastlayer.files.model_file import File
    from fastlayer.run.ops import Fused, Op

_OPSET, _IR = 20, 10
# What is one node.
_SAME = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softsign": "Softsign", "exp": "Exp",
    "sin": "Sin", "cos": "Cos", "sqrt": "Sqrt", "mish": "Mish", "hardswish": "HardSwish",
    "gelu": "Gelu", "selu": "Selu", "hardsigmoid": "HardSigmoid",
}  # fmt: skip
# Of these, those that hold numbers or go by a formula in float32.
_NARROW = ("hardswish", "gelu", "selu", "hardsigmoid")


def to_onnx(net: Any, file: File) -> None:
    """Write a network as an ONNX model; see `Network.to_onnx`."""
    try:
        onnx = import_module("onnx")
    except ImportError as error:
        raise ImportError("writing ONNX models needs the onnx package: pip install onnx") from error
    given = ModelFile(file)
    if not given.is_open and given.suffix != ".onnx":
        raise ValueError(f"{given}: ONNX models are saved as .onnx")
    data = _Graph(net, onnx).model().SerializeToString()

    def write(file: BinaryIO) -> None:
        file.write(data)

    write_to(given, write)


class _Graph:
    """Nodes and weights on the way to a model."""

    def __init__(self, net: Any, onnx: Any) -> None:
        self.net, self.onnx, self.dtype = net, onnx, net.dtype
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.count = 0

    def model(self) -> Any:
        helper, net = self.onnx.helper, self.net
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        if net.in_features is None:
            raise ConversionError(
                net._title(), "takes any number of features; an ONNX model needs one"
            )
        inputs, outputs = net._in, net._out
        if any(outputs.classes):
            raise ConversionError(net._title(), "gives labels, which to_onnx does not write")
        names, widths = inputs.names or ("x",), inputs.widths or (net.in_features,)
        if not all(widths):
            raise ConversionError(net._title(), "has inputs whose features are not told apart")
        x = names[0] if len(names) == 1 else self.node("Concat", *names, axis=1)
        y = self.ops(net._lower(self.dtype), x)
        given = [
            helper.make_tensor_value_info(n, kind, ("N", w))
            for n, w in zip(names, widths, strict=True)
        ]
        made = self._outputs(y, outputs, net.out_features)
        told = [helper.make_tensor_value_info(n, kind, ("N", w)) for n, w in made]
        graph = helper.make_graph(self.nodes, "fastlayer", given, told, self.weights)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            producer_name="fastlayer",
            ir_version=_IR,
        )
        self.onnx.checker.check_model(model, full_check=True)
        return model

    def _outputs(self, y: str, outputs: Any, width: int) -> list[tuple[str, int]]:
        if len(outputs.names) < 2:
            name = outputs.names[0] if outputs.names else "y"
            self.node("Identity", y, out=name)
            return [(name, width)]
        ends = np.cumsum([0, *outputs.widths]).tolist()
        for name, (begin, end) in zip(outputs.names, pairwise(ends), strict=True):
            self.slice(y, begin, end, name)
        return list(zip(outputs.names, outputs.widths, strict=True))

    def node(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        if not out:
            self.count += 1
            out = f"_{self.count}"
        self.nodes.append(self.onnx.helper.make_node(kind, [*inputs], [out], **attributes))
        return out

    def weight(self, a: Array | float | list[Any], dtype: DType | None = None) -> str:
        self.count += 1
        array = np.ascontiguousarray(cast(np.asarray(a), dtype or self.dtype))
        array = array.reshape(np.shape(a))  # a number stays one
        self.weights.append(self.onnx.numpy_helper.from_array(array, f"w{self.count}"))
        return f"w{self.count}"

    def slice(self, x: str, begin: int, end: int, out: str = "") -> str:
        whole = np.dtype(np.int64)
        ends = [self.weight([v], whole) for v in (begin, end, 1)]
        return self.node("Slice", x, *ends, out=out)

    def ops(self, ops: Sequence[Op], x: str) -> str:
        """Add operations one after the other; return what holds their result."""
        for op in ops:
            x = self.op(op, x)
        return x

    def op(self, op: Op, x: str) -> str:
        match op:
            case DenseOp():
                bias = op.weights.bias()
                inputs = [x, self.weight(op.weights.weight())]
                inputs += [] if bias is None else [self.weight(bias)]
                return self.activation(op.fused, self.node("Gemm", *inputs, transB=1))
            case RowsOp(method="layer_norm"):
                weight, bias, eps = op.args
                y = self.rms_norm(self.node("Sub", x, self.mean(x)), weight, eps)
                return y if bias is None else self.node("Add", y, self.weight(bias))
            case RowsOp(method="rms_norm"):
                return self.rms_norm(x, *op.args)
            case RowsOp(method="prelu"):
                return self.node("PRelu", x, self.weight(op.args[0]))
            case RowsOp(fused=tuple() as fused):
                return self.activation(fused, x)
            case AffineOp():
                return self.node(
                    "Add", self.node("Mul", x, self.weight(op.scale)), self.weight(op.shift)
                )
            case SliceOp():
                return self.slice(x, op.begin, op.end)
            case JoinOp():
                return self.join(op, x)
            case OneRowOp() | FlattenOp():
                return x  # rows are given
        raise ConversionError(
            self.net._title(), f"{op!r:.60} is computed by Python, which an ONNX model can't hold"
        )

    def join(self, op: JoinOp, x: str) -> str:
        parts = [self.ops(branch, x) for branch in op.branches]
        if op.join == "concat":
            return self.node("Concat", *parts, axis=1)
        y = parts[0]
        for other in parts[1:]:
            y = self.node("Add" if op.join == "add" else "Mul", y, other)
        return y

    def mean(self, x: str) -> str:
        return self.node("ReduceMean", x, self.weight([-1], np.dtype(np.int64)), keepdims=1)

    def rms_norm(self, x: str, weight: Array | None, eps: float) -> str:
        mean = self.mean(self.node("Mul", x, x))
        root = self.node("Sqrt", self.node("Add", mean, self.weight(float(eps))))
        y = self.node("Div", x, root)
        return y if weight is None else self.node("Mul", y, self.weight(weight))

    def activation(self, fused: Fused, x: str) -> str:
        """Add the nodes of an activation and its numbers.

        Attributes of nodes are float32, so in float64 numbers are arrays.
        """
        name, p0, p1 = fused
        node, weight, wide = self.node, self.weight, self.dtype == np.float64
        if name in _SAME and not (wide and name in _NARROW):
            more: dict[str, Any] = {"alpha": 1 / 6} if name == "hardsigmoid" else {}
            return node(_SAME[name], x, **more)
        match name:
            case "identity":
                return x
            case "leaky_relu":
                return node("PRelu", x, weight([p0]))
            case "hardtanh":
                return node("Clip", x, weight(p0), weight(p1))
            case "elu" | "celu" | "selu":
                return self.elu(x, name, p0)
            case "gelu":
                whole = node("Erf", node("Mul", x, weight(0.5**0.5)))
                return node("Mul", node("Mul", x, weight(0.5)), node("Add", whole, weight(1.0)))
            case "gelu_tanh":
                cubed = node("Mul", node("Mul", x, x), node("Mul", x, weight(0.044715)))
                inner = node("Mul", node("Add", x, cubed), weight((2 / np.pi) ** 0.5))
                share = node("Add", node("Tanh", inner), weight(1.0))
                return node("Mul", node("Mul", x, weight(0.5)), share)
            case "silu":
                return node("Mul", x, node("Sigmoid", x))
            case "log_sigmoid":
                return node("Neg", node("Softplus", node("Neg", x)))
            case "hardsigmoid" | "hardswish":
                line = node("Add", node("Mul", x, weight(1 / 6)), weight(0.5))
                y = node("Clip", line, weight(0.0), weight(1.0))
                return y if name == "hardsigmoid" else node("Mul", x, y)
            case "softplus":
                soft = node("Softplus", x if p0 == 1 else node("Mul", x, weight(p0)))
                soft = soft if p0 == 1 else node("Div", soft, weight(p0))
                if not np.isfinite(p1):
                    return soft
                return node("Where", node("Greater", x, weight(p1 / p0)), x, soft)
            case "threshold":
                return node("Where", node("Greater", x, weight(p0)), x, weight(p1))
            case "hardshrink":
                return node("Where", node("Greater", node("Abs", x), weight(p0)), x, weight(0.0))
            case "softshrink":
                return node("Sub", x, node("Clip", x, weight(-p0), weight(p0)))
            case "softmax" | "log_softmax":
                return node("Softmax" if name == "softmax" else "LogSoftmax", x, axis=-1)
        raise ConversionError(self.net._title(), f"{name} has no counterpart in ONNX")

    def elu(self, x: str, name: str, alpha: float) -> str:
        """Add the nodes of scale * (max(x, 0) + alpha * (exp(min(x, 0) / divisor) - 1))."""
        node, weight = self.node, self.weight
        scale, divisor = 1.0, alpha if name == "celu" else 1.0
        if name == "selu":
            scale, alpha = 1.0507009873554805, 1.6732632423543772
        below = node("Min", x, weight(0.0))
        below = below if divisor == 1 else node("Div", below, weight(divisor))
        y = node("Add", node("Relu", x), node("Mul", node("Elu", below), weight(alpha)))
        return y if scale == 1 else node("Mul", y, weight(scale))
