"""The operations of a network with their backward pass: the plain path of training.

Each computes with the functions that everybody calls, so that results have their bits. A forward
pass keeps what the backward pass needs; the latter adds to the gradients of the parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import _core
from fastlayer.arrays import FLOAT64, as_real, cast, declined
from fastlayer.functions.activation import Activation
from fastlayer.functions.backward import prelu_backward
from fastlayer.run.ops import (
    IDENTITY,
    AffineOp,
    CallOp,
    DenseOp,
    FlattenOp,
    JoinOp,
    OneRowOp,
    RowsOp,
    SliceOp,
    check_one_row,
)
from fastlayer.train import sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array, DType
    from fastlayer.names import ActivationName
    from fastlayer.run.ops import Fused, Op


class Parameter:
    """An array that is trained: its value, and its gradient once there is one.

    The gradient is kept as it is summed up, which may be in float64, and of a slope that stands for
    every neuron's one for each.
    """

    def __init__(self, owner: Any, name: str, value: Array) -> None:
        self.owner, self.name = owner, name
        self.value = np.array(value, order="C")
        self.gradient: Array | None = None

    def add(self, gradient: Array) -> None:
        """Add to the gradient."""
        self.gradient = gradient if self.gradient is None else self.gradient + gradient

    def reduced(self) -> Array | None:
        """Return the gradient in the shape and dtype of the value."""
        g = self.gradient
        if g is not None and g.shape != self.value.shape:
            g = np.asarray(sums.total(g))
        return None if g is None else cast(g, self.value.dtype)


def _done(y: Array | None) -> Array:
    if y is None:
        raise declined()
    return y


def _activate(fused: Fused, z: Array) -> Array:
    return z if fused == IDENTITY else _done(_core.activation(fused[0], z, *fused[1:], None))


def _activate_backward(fused: Fused, da: Array, z: Array) -> Array:
    if fused == IDENTITY:
        return da
    return _done(_core.activation_backward(fused[0], da, z, *fused[1:], None))


class Node:
    """Base of the operations; it takes and gives matrices of rows."""

    parameters: tuple[Parameter, ...] = ()

    def forward(self, x: Array) -> Array:
        """Return the result, and keep what `backward` needs."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """Return the gradient by what came in, given that by what went out."""
        raise NotImplementedError


class Dense(Node):
    """A dense layer with its activation; the slopes of a prelu are a parameter too."""

    def __init__(self, op: DenseOp) -> None:
        self.owner, self.fused = op.owner, op.fused
        self.weight = Parameter(op.owner, "weight", op.weights.weight())
        bias = op.weights.bias()
        self.bias = None if bias is None else Parameter(op.owner, "bias", bias)
        self.slopes: Parameter | None = None
        slopes = None if op.owner is None else op.owner._slopes
        if slopes is not None:
            n, dtype = self.weight.value.shape[0], self.weight.value.dtype
            self.fused = IDENTITY
            self.slopes = Parameter(op.owner, "slopes", cast(slopes, dtype))
            self.each = (n,)  # a single slope stands for that of every neuron
        found = (self.weight, self.bias, self.slopes)
        self.parameters = tuple(p for p in found if p is not None)
        self.passes_back = True

    def forward(self, x: Array) -> Array:
        bias = None if self.bias is None else self.bias.value
        z = _done(_core.linear(x, self.weight.value, bias, *IDENTITY, None, False))
        self.x, self.z = x, z
        if self.slopes is None:
            return _activate(self.fused, z)
        slopes = np.ascontiguousarray(np.broadcast_to(self.slopes.value, self.each))
        return _done(_core.prelu(z, slopes, None))

    def backward(self, dy: Array) -> Array:
        if self.slopes is None:
            dz = _activate_backward(self.fused, dy, self.z)
        else:
            dz = self._prelu(self.slopes, dy)
        self.weight.add(sums.product(dz.T, self.x))
        if self.bias is not None:
            self.bias.add(sums.column_sums(dz))
        return sums.product(dz, self.weight.value) if self.passes_back else dz

    def _prelu(self, slopes: Parameter, dy: Array) -> Array:
        with np.errstate(all="ignore"):
            below = np.where(self.z > 0, self.z.dtype.type(0), self.z * dy)
        slopes.add(sums.column_sums(below))
        return prelu_backward(dy, self.z, np.broadcast_to(slopes.value, self.each))


class Rows(Node):
    """An activation by itself."""

    def __init__(self, fused: Fused) -> None:
        self.fused = fused

    def forward(self, x: Array) -> Array:
        self.x = x
        return _activate(self.fused, x)

    def backward(self, dy: Array) -> Array:
        return _activate_backward(self.fused, dy, self.x)


class Norm(Node):
    """Layer or root-mean-square normalisation, differentiated in float64."""

    def __init__(self, op: RowsOp) -> None:
        self.method, self.centred = op.method, op.method == "layer_norm"
        names = ("weight", "bias") if self.centred else ("weight",)
        *arrays, self.eps = op.args
        held = zip(names, arrays, strict=True)
        self.held = {name: Parameter(op.owner, name, a) for name, a in held if a is not None}
        self.parameters = tuple(self.held.values())
        self.names = names

    def forward(self, x: Array) -> Array:
        self.x = x
        program = _core.Program(x.dtype.name, x.shape[1])
        arrays = [self.held[name].value if name in self.held else None for name in self.names]
        getattr(program, self.method)(*arrays, self.eps)
        program.finish()
        return _done(program.run(x))

    def backward(self, dy: Array) -> Array:
        dtype, n = self.x.dtype, self.x.shape[1]
        with np.errstate(all="ignore"):
            d, x = cast(dy, FLOAT64), cast(self.x, FLOAT64)
            if self.centred:
                x = x - (sums.row_sums(x) / n)[:, None]
            inverse = 1.0 / np.sqrt(sums.row_dots(x, x) / n + float(dtype.type(self.eps)))
            normal = x * inverse[:, None]
            if "bias" in self.held:
                self.held["bias"].add(sums.column_sums(dy))
            if "weight" in self.held:
                self.held["weight"].add(sums.column_sums(d * normal))
                d = d * cast(self.held["weight"].value, FLOAT64)
            along = (sums.row_dots(d, normal) / n)[:, None]
            if self.centred:
                d = d - (sums.row_sums(d) / n)[:, None]
            return cast((d - normal * along) * inverse[:, None], dtype)


class Affine(Node):
    """A frozen scale and shift of each feature: a BatchNorm, a scaler."""

    def __init__(self, op: AffineOp, dtype: DType) -> None:
        self.scale = cast(op.scale, dtype)
        self.program = _core.Program(dtype.name, op.scale.size)
        self.program.affine(self.scale, cast(op.shift, dtype))
        self.program.finish()

    def forward(self, x: Array) -> Array:
        return _done(self.program.run(x))

    def backward(self, dy: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(dy * self.scale)


class Slice(Node):
    """Some of the features."""

    def __init__(self, op: SliceOp) -> None:
        self.op = op

    def forward(self, x: Array) -> Array:
        self.op.check(x.shape[1])
        self.width = x.shape[1]
        return x[:, self.op.begin : self.op.end]

    def backward(self, dy: Array) -> Array:
        dx = np.zeros((dy.shape[0], self.width), dy.dtype)
        dx[:, self.op.begin : self.op.end] = dy
        return dx


class Call(Node):
    """A function of the user's and its derivative."""

    def __init__(self, op: CallOp) -> None:
        self.op = op
        if op.derivative is None and not isinstance(op.function, Activation):
            name = getattr(op.function, "__name__", type(op.function).__name__)
            raise TypeError(
                f"nobody knows the derivative of {name}: give the pair ({name}, its derivative) "
                f"in the place of {name}"
            )

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.op(x.copy())  # the function may write into what it is given

    def backward(self, dy: Array) -> Array:
        assert self.op.derivative is not None
        slope = as_real(self.op.derivative(self.x.copy()), "the result of the derivative")
        if slope.shape != self.x.shape:
            raise ValueError(
                f"the derivative returned shape {slope.shape} for an array of shape "
                f"{self.x.shape}; it keeps the shape"
            )
        with np.errstate(all="ignore"):
            return np.asarray(dy * cast(slope, dy.dtype))


class Join(Node):
    """Branches that take the same rows, and what becomes of their results."""

    def __init__(self, op: JoinOp, dtype: DType) -> None:
        self.join = op.join
        self.branches = [Tape(ops, dtype) for ops in op.branches]
        self.parameters = tuple(p for branch in self.branches for p in branch.parameters)

    def forward(self, x: Array) -> Array:
        self.results = [branch.forward(x) for branch in self.branches]
        if self.join == "concat":
            return np.concatenate(self.results, axis=1)
        with np.errstate(all="ignore"):
            y = self.results[0]
            for other in self.results[1:]:
                y = y + other if self.join == "add" else y * other
        return y

    def backward(self, dy: Array) -> Array:
        with np.errstate(all="ignore"):
            parts = [self._part(i, dy) for i in range(len(self.branches))]
            dx = self.branches[0].backward(parts[0])
            for branch, part in zip(self.branches[1:], parts[1:], strict=True):
                dx = dx + branch.backward(part)
        return dx

    def _part(self, i: int, dy: Array) -> Array:
        """Return the gradient of the result of branch `i`."""
        if self.join == "add":
            return dy
        if self.join == "concat":
            begin = sum(r.shape[1] for r in self.results[:i])
            return np.ascontiguousarray(dy[:, begin : begin + self.results[i].shape[1]])
        for k, other in enumerate(self.results):
            if k != i:
                dy = dy * other
        return dy


class Tape(Node):
    """Operations in a row."""

    def __init__(self, ops: Sequence[Op], dtype: DType) -> None:
        self.nodes: list[Node] = []
        for op in ops:
            node = self._node(op, dtype)
            if node is not None:
                self.nodes.append(node)
        self.parameters = tuple(p for node in self.nodes for p in node.parameters)

    def _node(self, op: Op, dtype: DType) -> Node | None:
        last = self.nodes[-1] if self.nodes else None
        match op:
            case DenseOp():
                return Dense(op)
            case RowsOp(method="layer_norm" | "rms_norm"):
                return Norm(op)
            case RowsOp(method="prelu"):
                if isinstance(last, Dense) and last.slopes is not None and last.owner is op.owner:
                    return None
                raise TypeError(
                    "the slopes of a prelu that stands by itself can't be trained: give it to the "
                    "layer before it, fl.Layer(..., activation=fl.Activation('prelu', weight=...))"
                )
            case RowsOp(fused=tuple() as fused):
                return Rows(fused)
            case AffineOp():
                return Affine(op, dtype)
            case SliceOp():
                return Slice(op)
            case JoinOp():
                return Join(op, dtype)
            case CallOp():
                return Call(op)
            case OneRowOp() | FlattenOp():
                return None  # of rows, nothing is left to do
        raise TypeError(f"{type(op).__name__} can't be trained")

    def forward(self, x: Array) -> Array:
        for node in self.nodes:
            x = node.forward(x)
        return x

    def backward(self, dy: Array) -> Array:
        for node in reversed(self.nodes):
            dy = node.backward(dy)
        return dy

    def look_behind(self, names: tuple[ActivationName, ...]) -> ActivationName | None:
        """Take off a final activation that a loss has itself, and return its name."""
        last = self.nodes[-1] if self.nodes else None
        fused = getattr(last, "fused", IDENTITY)
        if not isinstance(last, Dense | Rows) or fused[0] not in names:
            return None
        last.fused = IDENTITY
        return names[names.index(fused[0])]


def as_rows(ops: Sequence[Op], x: Array) -> Array:
    """Return the samples as a matrix of rows, flattened where the network does so first."""
    flattens = False
    for op in ops:
        if isinstance(op, OneRowOp):
            check_one_row(x)
        elif isinstance(op, FlattenOp):
            flattens = True
    if flattens:
        return x.reshape(x.shape[0], -1) if x.ndim > 1 else x[None]
    return x.reshape(-1, x.shape[-1])
