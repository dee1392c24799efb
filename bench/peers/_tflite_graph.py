"""A case as a LiteRT model (.tflite), written with the schema's own generated code."""

from __future__ import annotations

import flatbuffers
import numpy as np
import tflite

OPERATORS = tflite.BuiltinOperator
# An activation as operators of one input each, or of the results before: (operator, inputs), where
# "x" is the layer's output and numbers are earlier steps. What needs more is left out.
STEPS = {
    "relu": [(OPERATORS.RELU, ["x"])],
    "relu6": [(OPERATORS.RELU6, ["x"])],
    "hardtanh": [(OPERATORS.RELU_N1_TO_1, ["x"])],
    "hardswish": [(OPERATORS.HARD_SWISH, ["x"])],
    "leaky_relu": [(OPERATORS.LEAKY_RELU, ["x"])],
    "exp": [(OPERATORS.EXP, ["x"])],
    "tanh": [(OPERATORS.TANH, ["x"])],
    "sigmoid": [(OPERATORS.LOGISTIC, ["x"])],
    "silu": [(OPERATORS.LOGISTIC, ["x"]), (OPERATORS.MUL, ["x", 0])],
    "elu": [(OPERATORS.ELU, ["x"])],
    "celu": [(OPERATORS.ELU, ["x"])],
    "gelu": [(OPERATORS.GELU, ["x"])],
    "softmax": [(OPERATORS.SOFTMAX, ["x"])],
    "log_softmax": [(OPERATORS.LOG_SOFTMAX, ["x"])],
}
FUSED = {"relu": 1, "hardtanh": 2, "relu6": 3}  # ActivationFunctionType of a dense layer


class Model:
    """Tensors and operators, in the order in which they were added."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)
        self.buffers: list[bytes] = [b""]
        self.tensors: list[tuple[tuple[int, ...], int]] = []
        self.operators: list[tuple[int, list[int], int, int]] = []

    def tensor(self, shape: tuple[int, ...], values: np.ndarray | None = None) -> int:
        if values is not None:
            self.buffers.append(np.ascontiguousarray(values, np.float32).tobytes())
        self.tensors.append((shape, 0 if values is None else len(self.buffers) - 1))
        return len(self.tensors) - 1

    def add(self, operator: int, inputs: list[int], shape: tuple[int, ...], fused: int = 0) -> int:
        result = self.tensor(shape)
        self.operators.append((operator, inputs, result, fused))
        return result

    def activation(self, name: str, x: int) -> int:
        shape, steps = self.tensors[x][0], []
        for operator, inputs in STEPS[name]:
            steps.append(self.add(operator, [x if i == "x" else steps[i] for i in inputs], shape))
        return steps[-1]

    def _integers(self, values, start) -> int:
        start(self.builder, len(values))
        for value in reversed(values):
            self.builder.PrependInt32(value)
        return self.builder.EndVector()

    def _tables(self, offsets: list[int], start) -> int:
        start(self.builder, len(offsets))
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()

    def _buffer(self, data: bytes) -> int:
        b, vector = self.builder, None
        if data:
            b.StartVector(1, len(data), 16)  # weights are used where they lie: aligned
            b.head = b.Head() - len(data)
            b.Bytes[b.Head() : b.Head() + len(data)] = data
            vector = b.EndVector()
        tflite.BufferStart(b)
        if vector is not None:
            tflite.BufferAddData(b, vector)
        return tflite.BufferEnd(b)

    def _tensor(self, index: int, shape: tuple[int, ...], buffer: int) -> int:
        b = self.builder
        name = b.CreateString(f"t{index}")
        sizes = self._integers(shape, tflite.TensorStartShapeVector)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, sizes)
        tflite.TensorAddType(b, tflite.TensorType.FLOAT32)
        tflite.TensorAddBuffer(b, buffer)
        tflite.TensorAddName(b, name)
        return tflite.TensorEnd(b)

    def _options(self, operator: int, fused: int) -> tuple[int, int] | None:
        b = self.builder
        if operator == OPERATORS.FULLY_CONNECTED:
            tflite.FullyConnectedOptionsStart(b)
            tflite.FullyConnectedOptionsAddFusedActivationFunction(b, fused)
            return tflite.BuiltinOptions.FullyConnectedOptions, tflite.FullyConnectedOptionsEnd(b)
        if operator == OPERATORS.SOFTMAX:
            tflite.SoftmaxOptionsStart(b)
            tflite.SoftmaxOptionsAddBeta(b, 1.0)
            return tflite.BuiltinOptions.SoftmaxOptions, tflite.SoftmaxOptionsEnd(b)
        if operator == OPERATORS.LEAKY_RELU:
            tflite.LeakyReluOptionsStart(b)
            tflite.LeakyReluOptionsAddAlpha(b, 0.01)
            return tflite.BuiltinOptions.LeakyReluOptions, tflite.LeakyReluOptionsEnd(b)
        if operator == OPERATORS.BATCH_MATMUL:
            tflite.BatchMatMulOptionsStart(b)
            tflite.BatchMatMulOptionsAddAdjX(b, bool(fused & 1))
            tflite.BatchMatMulOptionsAddAdjY(b, bool(fused & 2))
            return tflite.BuiltinOptions.BatchMatMulOptions, tflite.BatchMatMulOptionsEnd(b)
        return None

    def _operator(self, code: int, inputs: list[int], result: int, options) -> int:
        b = self.builder
        given = self._integers(inputs, tflite.OperatorStartInputsVector)
        made = self._integers([result], tflite.OperatorStartOutputsVector)
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, code)
        tflite.OperatorAddInputs(b, given)
        tflite.OperatorAddOutputs(b, made)
        if options:
            tflite.OperatorAddBuiltinOptionsType(b, options[0])
            tflite.OperatorAddBuiltinOptions(b, options[1])
        return tflite.OperatorEnd(b)

    def bytes(self, inputs: list[int], result: int) -> bytes:
        b = self.builder
        buffers = [self._buffer(data) for data in self.buffers]
        tensors = [self._tensor(i, *tensor) for i, tensor in enumerate(self.tensors)]
        kinds = list(dict.fromkeys(operator for operator, *_ in self.operators))
        operators = [
            self._operator(kinds.index(op), given, made, self._options(op, fused))
            for op, given, made, fused in self.operators
        ]
        parts = (
            self._tables(tensors, tflite.SubGraphStartTensorsVector),
            self._integers(inputs, tflite.SubGraphStartInputsVector),
            self._integers([result], tflite.SubGraphStartOutputsVector),
            self._tables(operators, tflite.SubGraphStartOperatorsVector),
        )
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, parts[0])
        tflite.SubGraphAddInputs(b, parts[1])
        tflite.SubGraphAddOutputs(b, parts[2])
        tflite.SubGraphAddOperators(b, parts[3])
        graph = tflite.SubGraphEnd(b)
        codes = []
        for kind in kinds:
            tflite.OperatorCodeStart(b)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(kind, 127))
            tflite.OperatorCodeAddBuiltinCode(b, kind)
            tflite.OperatorCodeAddVersion(b, 1)
            codes.append(tflite.OperatorCodeEnd(b))
        parts = (
            self._tables(codes, tflite.ModelStartOperatorCodesVector),
            self._tables([graph], tflite.ModelStartSubgraphsVector),
            self._tables(buffers, tflite.ModelStartBuffersVector),
        )
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, parts[0])
        tflite.ModelAddSubgraphs(b, parts[1])
        tflite.ModelAddBuffers(b, parts[2])
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())


def graph(case) -> tuple[bytes, tuple[np.ndarray, ...]] | None:
    """The model and what to feed it; transposed operands are fed as they lie in memory."""
    arrays = case.inputs("float32")
    model = Model()
    if case.kind == "activation":
        if case.hidden not in STEPS:
            return None
        x = model.tensor(arrays[0].shape)
        return model.bytes([x], model.activation(case.hidden, x)), arrays
    if case.kind == "network":
        h = x = model.tensor(arrays[0].shape)
        for weight, bias, act in case.layers("float32"):
            given = [h, model.tensor(weight.shape, weight), model.tensor(bias.shape, bias)]
            shape = (case.batch, len(bias))
            fused = FUSED.get(act, 0)
            h = model.add(OPERATORS.FULLY_CONNECTED, given, shape, fused)
            if act and not fused:
                h = model.activation(act, h)
        return model.bytes([x], h), arrays
    if case.kind == "matmul":
        turned = [letter == "t" for letter in case.layout]
        arrays = tuple(a.T if t else a for a, t in zip(arrays, turned, strict=True))
        given = [model.tensor(a.shape) for a in arrays]
        flags = turned[0] + 2 * turned[1]
        y = model.add(OPERATORS.BATCH_MATMUL, given, case.sizes[::2], flags)
        return model.bytes(given, y), arrays
    if case.kind == "linear":
        given = [model.tensor(a.shape) for a in arrays]
        return model.bytes(given, model.add(OPERATORS.FULLY_CONNECTED, given, case.sizes[::2])), (
            arrays
        )
    return None
