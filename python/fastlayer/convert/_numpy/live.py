"""The forward pass on somebody else's arrays, as they are at each call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT32, FLOAT64, as_real, is_weak
from fastlayer.errors import ConversionError
from fastlayer.functions.products import linear
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._numpy.stages import Dense
    from fastlayer.functions.activation import Activation

    Chosen = Activation | Callable[..., Any]
    Step = tuple[Dense | None, Chosen]
    Arrays = tuple[str, Array, Array | None]  # of a layer: its name, weight and bias


class Live:
    """A network that holds places of arrays, and nothing of what is in them.

    Parameters
    ----------
    steps : list of (Dense or None, activation)
        Where the arrays are, and what comes behind each; without arrays the activation alone.
    layout : {"out_in", "in_out"}
        Which axis of the weights is which.
    columns : bool
        Whether the biases stand beside columns of samples.
    """

    def __init__(self, steps: list[Step], layout: str, columns: bool) -> None:
        self._steps = steps
        self._turned = layout == "in_out"
        self._columns = columns
        # Looked up at every call, so what is inside of the named tuples is laid out here.
        self._places = [
            (None, None, activation)
            if dense is None
            else (
                dense.weight.place(),
                None if dense.bias is None else dense.bias.place(),
                activation,
            )
            for dense, activation in steps
        ]

    @property
    def in_features(self) -> int:
        """Number of features that the first weights take now."""
        owner, key = next(weight for weight, _, _ in self._places if weight is not None)
        return int(np.shape(owner[key])[0 if self._turned else -1])

    def __call__(self, a: Array) -> Array:
        """Run the forward pass of rows (m, k), or of one sample (k,).

        Raises
        ------
        LookupError, TypeError, ValueError
            An array is gone, or is nothing that `linear` takes.
        """
        for weight, bias, activation in self._places:
            if weight is None:
                a = activation(a)
                continue
            w = weight[0][weight[1]]
            if self._turned:
                w = w.T if type(w) is np.ndarray else np.transpose(w)
            b = None
            if bias is not None:
                b = bias[0][bias[1]]
                if b is None:
                    raise LookupError(bias[1])
                if a.ndim == 2:
                    b = self._beside_rows(b)
            a = linear(a, w, b, activation)
        return a

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
        arrays = [_read(dense) for dense, _ in self._steps if dense is not None]
        dtype = _common_dtype(arrays)
        left = iter(arrays)
        layout = "in_out" if self._turned else "out_in"
        parts: list[Any] = []
        for dense, activation in self._steps:
            if dense is None:
                parts.append(activation)
                continue
            _, w, b = next(left)
            if b is not None and b.size == 1:
                b = np.broadcast_to(b.reshape(()), w.shape[1:] if self._turned else w.shape[:1])
            parts.append(Layer.from_arrays(w, b, activation, layout=layout, dtype=dtype))
        return Network(parts)


def _read(dense: Dense) -> Arrays:
    bias = None if dense.bias is None else dense.bias.read()
    return (
        dense.name,
        as_real(dense.weight.read(), f"the weight of {dense.name}"),
        None if bias is None else as_real(bias, f"the bias of {dense.name}"),
    )


def check_dtypes(found: list[Dense]) -> None:
    """Raise where the arrays are not all float32 or all float64."""
    _common_dtype([_read(dense) for dense in found])


def _common_dtype(arrays: list[Arrays]) -> DType:
    first_name, first, _ = arrays[0]
    for name, weight, bias in arrays:
        if weight.dtype not in (FLOAT32, FLOAT64):
            raise ConversionError(
                name, f"its weights are {weight.dtype}; make them float64 with .astype(np.float64)"
            )
        # A Python number, which is read as an array without dimensions, takes the dtype.
        alone = bias is None or bias.ndim == 0
        whole = weight.dtype if alone else np.result_type(weight, bias)
        if weight.dtype != first.dtype or whole != first.dtype:
            raise ConversionError(
                name,
                f"it computes in {whole} and {first_name} in {first.dtype}; make all arrays one "
                "dtype",
            )
    return first.dtype
