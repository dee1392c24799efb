"""Model files: `Network.save` and `load`. The formats live in modules of their own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fastlayer.files.save import OWN, split_suffix
from fastlayer.network.network import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from fastlayer.network.network import Network


# Suffix -> the source in `convert` that has a function to load it.
_CONVERTERS = {".onnx": "onnx", ".keras": "keras", ".h5": "keras", ".hdf5": "keras"}
_WEIGHTS = (".pt", ".pth", ".bin")


def load(
    path: str | PathLike[str], *, mmap: bool = False, outputs: str | Sequence[str] | None = None
) -> Network:
    """Read a network from a file. Nothing in the file is executed.

    Parameters
    ----------
    path : path
        The suffix chooses the format. Of `Network.save`: .npz, a NumPy archive, and .safetensors,
        for which the safetensors package must be there; docs/model_files.md describes both.
        Trained elsewhere: .onnx, for which the onnx package must be there, and .keras, .h5 and
        .hdf5, which need nothing.
    mmap : bool
        Map a .safetensors file instead of reading it: the weights go from the page cache, which
        all processes share, straight into the layers' panels. Those are copies of each process,
        or of the process that others were forked from; nothing else is copied, and nothing
        stays mapped. Not possible with the other formats.
    outputs : str or list of str, optional
        What is wanted of several outputs of an .onnx, .keras or .h5 file; what they don't need is
        left out, inputs too. One name makes a network that gives one array.

    Returns
    -------
    Network
        The network, in the dtype of the file's weights. It gives a tuple where the model has
        several outputs, and takes several inputs one after the other: ``net(x, u)``.

    Raises
    ------
    ModelFileError
        The file is damaged or not a model; the message names the file and the place.
    ConversionError
        A model trained elsewhere that can't be converted exactly.
    ValueError
        Another suffix, or ``mmap=True`` with a format that can't be mapped.
    ImportError
        The package that reads the format is not there.
    OSError
        The file can't be read.

    See Also
    --------
    from_state_dict : Read weights without an architecture, .pt and .safetensors of PyTorch.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import os, tempfile
    >>> net = fl.Network([fl.Layer(4, 2, "relu", rng=0)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     net.save(os.path.join(folder, "model.npz"))
    ...     fl.load(os.path.join(folder, "model.npz"))
    Network([
        Layer(4, 2, activation='relu', dtype=float32),
    ])
    """
    name, suffix = split_suffix(path)
    if suffix in _WEIGHTS:
        raise ValueError(
            f"{name}: {suffix} holds weights without an architecture; "
            "fl.from_state_dict(path, activation=...) makes a network of dense layers from them"
        )
    if suffix not in (*OWN, *_CONVERTERS):
        known = ", ".join((*OWN, *_CONVERTERS))
        raise ValueError(f"{name}: unknown suffix {suffix!r}; model files end in {known}")
    if mmap and suffix != ".safetensors":
        raise ValueError(
            f"{name}: only .safetensors can be mapped; load without mmap, or save the network as "
            ".safetensors"
        )
    if suffix in _CONVERTERS:
        source = _CONVERTERS[suffix]
        module = import_module(f"fastlayer.convert.{source}")
        chosen = {} if outputs is None else {"outputs": outputs}
        net: Network = getattr(module, f"load_{source}")(name, **chosen)
        return net
    if outputs is not None:
        raise ValueError(
            f"{name}: outputs= is for models trained elsewhere; this network gives all that it has: "
            "take those of net(x) that you want"
        )
    from fastlayer.files.document import from_document

    opened = import_module(OWN[suffix]).opened
    with opened(name, **({"mmap": True} if mmap else {})) as (document, find):
        own: Network = from_document(document, find, PARTS)
        return own
