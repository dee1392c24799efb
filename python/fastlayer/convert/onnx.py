"""ONNX models as networks: `from_onnx` and `load_onnx`.

A graph of dense layers, norms and activations, their branches summed, multiplied or joined, is
rebuilt from the parts of this package; anything else is refused by the name of its node. How a file is read is
in `_onnx.file`; how a graph is followed is in `_onnx.network`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from fastlayer.convert._onnx.file import Model, parsed
from fastlayer.errors import Damaged, ModelFileError
from fastlayer.files.model_file import ModelFile
from fastlayer.files.reading import reading

if TYPE_CHECKING:
    from os import PathLike

    from fastlayer.network.network import Made, Names, Network, Several


@overload
def from_onnx(model: Any, *, outputs: None = ..., verify: bool = ...) -> Made: ...
@overload
def from_onnx(model: Any, *, outputs: str, verify: bool = ...) -> Network: ...
@overload
def from_onnx(model: Any, *, outputs: Names, verify: bool = ...) -> Network[Several]: ...
def from_onnx(
    model: Any, *, outputs: str | Names | None = None, verify: bool = True
) -> Network[Any]:
    """Convert an ONNX model to a network; needs the `onnx` package, which reads it and runs it.

    Rows are samples: the first axis of an input of two or more dimensions is the batch, and a batch
    size that the model fixes is opened. Products, norms and activations of opset 6 and later are
    known, also activations that exporters take apart, sums, products and concatenations of
    branches, slices, constants that scale or shift features, which are folded into the layers in
    float64, and reshaping that keeps rows together.
    Both run on random and edge inputs, the model by ``onnx.reference``, and may differ by no more
    than rounding.

    Parameters
    ----------
    model : path, open binary file or onnx.ModelProto
        A file, or a model in memory. Weights in files of their own must lie in the folder of the
        model's file, or of the real file where that is a link: such a model is read by its path.
    outputs : str or list of str, optional
        What is wanted of several outputs; what they don't need, inputs too, is left out. One
        name makes a network that gives one array.
    verify : bool
        Run both and compare, which is most of the time that a small model takes.

    Returns
    -------
    Network
        Called with as many arrays as the model has inputs, or with one that has the features of
        all. A model of several outputs gives a tuple of them, `output_names` says which. In the
        float32 or float64 of the model. Dimensions of length 1 behind the features are
        left out: where the model gives (m, 1, 1) or (m,), the network gives (m, 1). Its
        `verification` tells how far the two were apart; it is None without `verify`, and where a
        comparison would cost far more than the conversion, or there are no rows to try it with.

    Raises
    ------
    ConversionError
        A node that no network can do exactly; the message names it and says what to do. Results
        that differ by more than rounding.
    ModelFileError
        The file is damaged or no ONNX model.
    ImportError
        There is no `onnx` package, or one older than 1.21.
    OSError
        The file can't be read.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import onnx
    >>> model = onnx.parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 17]>
    ...     graph (float[N, 2] x) => (float[N, 1] y) <float[2, 1] w = {1, -1}>
    ...     { h = MatMul(x, w) y = Relu(h) }''')
    >>> fl.from_onnx(model)([[3.0, 1.0]])
    array([[2.]], dtype=float32)
    """
    if isinstance(model, str | os.PathLike) or hasattr(model, "read"):
        return load_onnx(ModelFile(model), outputs, verify)
    if not hasattr(model, "SerializeToString"):
        raise TypeError(
            "from_onnx takes a path, an open binary file or an onnx.ModelProto, got "
            f"{type(model).__name__}"
        )
    try:
        nbytes = model.ByteSize()
    except Exception:  # noqa: BLE001  # protobuf's own, for what is larger than it can write
        nbytes = 1 << 31
    try:
        return _convert(model, None, nbytes, outputs, verify)
    except Damaged as error:
        raise ModelFileError("ONNX model", error.key, error.why) from error


def load_onnx(
    path: str | PathLike[str] | ModelFile,
    outputs: str | Names | None = None,
    verify: bool = True,
) -> Network[Any]:
    """Read a network from an ONNX file; see `from_onnx`."""
    given = path if isinstance(path, ModelFile) else ModelFile(path)
    with reading(given) as file:
        model, nbytes = parsed(file.read())
        return _convert(model, None if given.is_open else given.name, nbytes, outputs, verify)


def _convert(
    model: Any, path: str | None, nbytes: int, outputs: str | Names | None, verify: bool
) -> Network[Any]:
    from fastlayer.convert._onnx.network import to_network

    try:
        with np.errstate(all="ignore"):  # weights may be infinite or NaN, and stay so
            return to_network(Model(model, path, nbytes), outputs, verify)
    except UnicodeDecodeError as error:
        raise Damaged("model", f"has a name that is not UTF-8: {error}") from error
