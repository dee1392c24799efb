"""The forward pass on somebody else's arrays, as they are at each call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT32, FLOAT64, as_real, is_weak
from fastlayer.convert._numpy.recognise import Oriented
from fastlayer.convert._prove import prove
from fastlayer.errors import ConversionError
from fastlayer.functions.products import linear
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._numpy.objects import Found, Stage
    from fastlayer.functions.activation import Activation

    Step = tuple[Stage, Activation | Callable[..., Any]]
    Arrays = tuple[Array, Array | None]  # weight and bias


class Live:
    """A network that knows where the arrays of a hand-written one are, and holds none of them.

    Parameters
    ----------
    found : Found
        What was found in the hand-written network.
    steps : list of (Stage, activation)
        What comes behind the arrays of each stage; without arrays the activation alone.
    layout : {"out_in", "in_out"}
        Which axis of the weights is which.
    form : {"rows", "columns", "vector"}
        What the samples are in two-dimensional input; or one sample alone.
    """

    def __init__(self, found: Found, steps: list[Step], layout: str, form: str) -> None:
        self.found, self.form = found, form
        self._steps, self._layout = steps, layout
        self._turned, self._columns = layout == "in_out", form == "columns"
        self._dimensions = {1 if form == "vector" else 2}  # of input that is proven
        # Looked up at every call, so what is inside of the named tuples is laid out here.
        self._places = [(stage.weight, stage.bias, activation) for stage, activation in steps]

    def prove(self, original: Callable[[Array], Any], name: str) -> None:
        """Run both on the same samples, where both take them on single vectors too.

        Raises
        ------
        ConversionError
            They differ by more than rounding, or the arrays are of several dtypes.
        """
        net = self.network()
        self.proof = prove(net, Oriented(original, self.form).of_copy, source=name)
        try:
            prove(net, Oriented(original, "vector").of_copy, source=name, rows=8)
        except ConversionError:
            return
        self._dimensions.add(1)

    def __call__(self, x: Array) -> Array | None:
        """Run the forward pass of a plain array, None where it has other dimensions than proven.

        Raises
        ------
        AttributeError, LookupError, TypeError, ValueError
            An array is gone, or is nothing that `linear` takes; or `x` has another width.
        """
        if x.ndim not in self._dimensions:
            return None
        columns = self._columns and x.ndim == 2
        a = x.T if columns else x
        for weight, bias, activation in self._places:
            if weight is None:
                a = activation(a)
                continue
            w, b = weight(), None
            if self._turned:
                w = w.T if type(w) is np.ndarray else np.transpose(w)
            if bias is not None:
                b = bias()
                if b is None:
                    raise LookupError("there is no bias any more")
                if a.ndim == 2:
                    b = self._beside_rows(b)
            a = linear(a, w, b, activation)
        return a.T if columns else a

    def _beside_rows(self, bias: Any) -> Any:
        """Return a bias as one number for each neuron, where it is; the core takes those at once.

        NumPy broadcasts it against columns where those are samples.
        """
        if type(bias) is np.ndarray and bias.ndim == 2:
            b = bias.T if self._columns else bias
            return b[0] if len(b) == 1 else b
        return bias if is_weak(bias) or not self._columns else np.atleast_2d(bias).T

    def network(self) -> Network:
        """Return a network of its own with the weights as they are now.

        Raises
        ------
        ConversionError
            The arrays are not all float32 or all float64.
        """
        arrays, dtype = read_arrays([stage for stage, _ in self._steps])
        parts: list[Any] = []
        for own, (_, activation) in zip(arrays, self._steps, strict=True):
            if own is None:
                parts.append(activation)
                continue
            w, b = own
            if b is not None and b.size == 1:
                b = np.broadcast_to(b.reshape(()), w.shape[1:] if self._turned else w.shape[:1])
            parts.append(Layer.from_arrays(w, b, activation, layout=self._layout, dtype=dtype))
        return Network(parts)


def read_arrays(stages: list[Stage]) -> tuple[list[Arrays | None], DType]:
    """Return the arrays of each stage as they are now, and their dtype.

    Raises
    ------
    ConversionError
        The arrays are not all float32 or all float64.
    """
    arrays: list[Arrays | None] = []
    known: list[tuple[str, DType]] = []
    for name, _, weight, bias, _ in stages:
        if weight is None:
            arrays.append(None)
            continue
        w, b = as_real(weight(), f"the weight of {name}"), None if bias is None else bias()
        b = None if b is None else as_real(b, f"the bias of {name}")
        arrays.append((w, b))
        if w.dtype not in (FLOAT32, FLOAT64):
            raise ConversionError(
                name, f"its weights are {w.dtype}; make them float64 with .astype(np.float64)"
            )
        # A Python number, which is read as an array without dimensions, takes the dtype.
        whole = w.dtype if b is None or b.ndim == 0 else np.result_type(w, b)
        known.append((name, w.dtype))
        first, dtype = known[0]
        if {w.dtype, whole} != {dtype}:
            raise ConversionError(
                name, f"it computes in {whole} and {first} in {dtype}; make all arrays one dtype"
            )
    return arrays, known[0][1]
