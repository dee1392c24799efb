"""A case as an ONNX model, for the peers that read such files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from peers._files import folder

OPERATORS = {
    "relu": "{y} = Relu({x})",
    "leaky_relu": "{y} = LeakyRelu<alpha: float = 0.01>({x})",
    "relu6": "{y} = Clip({x}, low0, high6)",
    "hardtanh": "{y} = Clip({x}, low1, high1)",
    "hardsigmoid": "{y} = HardSigmoid<alpha: float = 0.16666666666666666, beta: float = 0.5>({x})",
    "hardswish": "{y} = HardSwish({x})",
    "softsign": "{y} = Softsign({x})",
    "exp": "{y} = Exp({x})",
    "sin": "{y} = Sin({x})",
    "cos": "{y} = Cos({x})",
    "tanh": "{y} = Tanh({x})",
    "sigmoid": "{y} = Sigmoid({x})",
    "log_sigmoid": "{y}s = Sigmoid({x}) {y} = Log({y}s)",
    "silu": "{y}s = Sigmoid({x}) {y} = Mul({x}, {y}s)",
    "softplus": "{y} = Softplus({x})",
    "elu": "{y} = Elu({x})",
    "selu": "{y} = Selu({x})",
    "celu": "{y} = Celu({x})",
    "gelu": "{y} = Gelu({x})",
    "mish": "{y} = Mish({x})",
    "softmax": "{y} = Softmax<axis: int = -1>({x})",
    "log_softmax": "{y} = LogSoftmax<axis: int = -1>({x})",
}
LIMITS = {"low0": 0, "high6": 6, "low1": -1, "high1": 1}


def graph(case, dtype: str) -> tuple[bytes, dict[str, np.ndarray]] | None:
    """The model and what to feed it; transposed operands are fed as they lie in memory."""
    import onnx.numpy_helper
    import onnx.parser

    arrays = case.inputs(dtype)
    constants: dict[str, np.ndarray] = {}
    if case.kind in ("column", "accelerate", "load"):
        return None  # a column: the same numbers as a batch of one, which is a case of its own
    if case.kind == "activation":
        feed = {"x": arrays[0]}
        nodes = OPERATORS[case.hidden].format(x="x", y="y")
    elif case.kind == "linear":
        feed = dict(zip(("x", "w", "b"), arrays, strict=True))
        nodes = "y = Gemm<transB: int = 1>(x, w, b)"
    elif case.kind == "matmul":
        turned = [letter == "t" for letter in case.layout]
        stored = [a.T if t else a for a, t in zip(arrays, turned, strict=True)]
        feed = dict(zip("ab", stored, strict=True))
        nodes = "y = MatMul(a, b)"
        if any(turned):
            nodes = f"y = Gemm<transA: int = {turned[0]:d}, transB: int = {turned[1]:d}>(a, b)"
    else:
        feed, nodes, name = dict(zip("xu", arrays, strict=False)), "", "x"
        layers = case.layers(dtype)
        for i, (weight, bias, act) in enumerate(layers):
            last = "y" if i == len(layers) - 1 else f"h{i}"
            z = f"z{i}" if act else last
            nodes += f" {z} = Gemm<transB: int = 1>({name}, w{i}, b{i}) "
            if act:
                nodes += OPERATORS[act].format(x=z, y=last)
            name = last
            if i == 0 and case.joined:
                nodes, name = f"{nodes} joined = Concat<axis: int = 1>({last}, u) ", "joined"
            constants |= {f"w{i}": weight, f"b{i}": bias}
    kind = "double" if dtype == "float64" else "float"
    given = ", ".join(f"{kind}{list(array.shape)} {name}" for name, array in feed.items())
    rank = 1 if arrays[0].ndim == 1 else 2
    shape = ", ".join(f"d{i}" for i in range(rank))
    text = f'<ir_version: 9, opset_import: ["": 20]> g ({given}) => ({kind}[{shape}] y)'
    model = onnx.parser.parse_model(f"{text} {{ {nodes} }}")
    constants |= {key: np.array(v, dtype) for key, v in LIMITS.items() if key in nodes}
    for key, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    return model.SerializeToString(), feed


def file_of(case, dtype: str) -> Path:
    """The network as a file."""
    path = folder() / "model.onnx"
    path.write_bytes(graph(replace(case, kind="network"), dtype)[0])
    return path


def result_shape(case, arrays: tuple[np.ndarray, ...]) -> tuple[int, ...]:
    if case.kind == "activation":
        return arrays[0].shape
    return (case.batch, case.sizes[-1]) if case.layered else case.sizes[::2]
