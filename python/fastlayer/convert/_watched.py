"""A network whose weights live in somebody else's arrays, and may change between calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer._arrays import FLOAT32, FLOAT64, as_real
from fastlayer.convert._errors import ConversionError
from fastlayer.convert._objects import Dense
from fastlayer.layer import Layer
from fastlayer.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer._arrays import Array, DType
    from fastlayer.activations import Activation

    Chosen = Activation | Callable[..., Any]
    Step = tuple[Dense | None, Chosen]


class Mark:
    """An array as it was: bytes are compared faster than numbers, and NaN equals itself."""

    __slots__ = ("_data", "_dtype", "_fortran", "_shape", "_source", "_view")

    def __init__(self, a: Array) -> None:
        self._source = a
        self._shape, self._dtype = a.shape, a.dtype
        plain, self._fortran = _contiguous(a)
        self._data = bytearray(plain.tobytes())
        # The memory of the array itself, where that can be compared as it lies there.
        self._view = plain if np.may_share_memory(plain, a) else None

    def holds(self, a: Array) -> bool:
        """Whether an array is still the same, bit by bit."""
        # The bytearray has to stand first: its comparison takes any buffer.
        if a is self._source and self._view is not None and a.shape == self._shape:
            return self._data == self._view
        if a.shape != self._shape or a.dtype != self._dtype:
            return False
        plain, fortran = _contiguous(a)
        return fortran == self._fortran and bool(self._data == plain)

    def array(self) -> Array:
        """Return the array that was."""
        order: Any = "F" if self._fortran else "C"
        made: Array = np.ndarray(self._shape, self._dtype, self._data, order=order)
        return made


def _contiguous(a: Array) -> tuple[Array, bool]:
    if a.flags.c_contiguous:
        return a, False
    return (a.T, True) if a.flags.f_contiguous else (np.ascontiguousarray(a), False)


class State(NamedTuple):
    """What the arrays were when the networks were made, float32 inputs and others."""

    marks: list[tuple[Mark, Mark | None]]
    layers: list[Layer]
    network: Network
    wide: Network


class Watched:
    """Builds the network again when an array has changed, in place or for another one.

    Parameters
    ----------
    steps : list of (Dense or None, activation)
        Where the arrays are, and what comes behind each; without arrays the activation alone.
    layout : {"out_in", "in_out"}
        Which axis of the weights is which.
    """

    def __init__(self, steps: list[Step], layout: str) -> None:
        self.steps = steps
        self.layout = layout
        self._state: State | None = None
        self._places = [
            (d.weight.place(), None if d.bias is None else d.bias.place(), d.name)
            for d, _ in steps
            if d is not None
        ]

    def current(self) -> State:
        """Return the networks for what the arrays hold now."""
        state = self._state
        arrays = self._read()
        if state is not None and all(map(_holds, state.marks, arrays)):
            return state
        self._state = state = self._build(arrays, state)
        return state

    def check(self) -> DType:
        """Return the dtype of all arrays, float32 or float64; raise where they have none such."""
        return common_dtype([name for _, _, name in self._places], self._read())

    def _read(self) -> list[tuple[Array, Array | None]]:
        arrays = []
        for (owner, key), bias, name in self._places:
            w, b = owner[key], None if bias is None else bias[0][bias[1]]
            if type(w) is not np.ndarray:
                w = as_real(w, f"the weight of {name}")
            if b is not None and type(b) is not np.ndarray:
                b = as_real(b, f"the bias of {name}")
            arrays.append((w, b))
        return arrays

    def _build(self, arrays: list[tuple[Array, Array | None]], old: State | None) -> State:
        dtype = common_dtype([name for _, _, name in self._places], arrays)
        marks: list[tuple[Mark, Mark | None]] = []
        layers: list[Layer] = []
        parts: list[Any] = []
        for dense, activation in self.steps:
            if dense is None:
                parts.append(activation)
                continue
            i = len(layers)
            if old is not None and old.network.dtype == dtype and _holds(old.marks[i], arrays[i]):
                marks.append(old.marks[i])
                layers.append(old.layers[i])
            else:
                weight, bias = arrays[i]
                marks.append((Mark(weight), None if bias is None else Mark(bias)))
                layers.append(self._layer(marks[i], activation, dtype))
            parts.append(layers[i])
        network = Network(parts)
        wide = network if dtype == FLOAT64 else network.astype(FLOAT64)
        return State(marks, layers, network, wide)

    def _layer(self, mark: tuple[Mark, Mark | None], activation: Chosen, dtype: DType) -> Layer:
        weight = mark[0].array()
        bias = None if mark[1] is None else mark[1].array()
        if bias is not None and bias.size == 1:
            n = weight.shape[self.layout == "in_out"]
            bias = np.broadcast_to(bias.reshape(()), (n,))
        return Layer.from_arrays(weight, bias, activation, layout=self.layout, dtype=dtype)

    def copy(self) -> Network:
        """Return a network of its own."""
        layers = iter(self.current().layers)
        made = []
        for dense, activation in self.steps:
            old = None if dense is None else next(layers)
            made.append(
                activation
                if old is None
                else Layer.from_arrays(old.weight, old.bias, activation, dtype=old.dtype)
            )
        return Network(made)


def _holds(marks: tuple[Mark, Mark | None], arrays: tuple[Array, Array | None]) -> bool:
    (weight, bias), (w, b) = marks, arrays
    if not weight.holds(w):
        return False
    return b is None if bias is None else b is not None and bias.holds(b)


def common_dtype(names: list[str], arrays: list[tuple[Array, Array | None]]) -> DType:
    """Return the dtype of all weights, float32 or float64."""
    first = arrays[0][0].dtype
    for name, (weight, bias) in zip(names, arrays, strict=True):
        if weight.dtype not in (FLOAT32, FLOAT64):
            raise ConversionError(
                name, f"its weights are {weight.dtype}; make them float64 with .astype(np.float64)"
            )
        # A Python number, which is read as an array without dimensions, takes the dtype.
        alone = bias is None or bias.ndim == 0
        whole = weight.dtype if alone else np.result_type(weight, bias)
        if weight.dtype != first or whole != first:
            raise ConversionError(
                name,
                f"it computes in {whole} and {names[0]} in {first}; make all arrays one dtype",
            )
    return first
