"""Model files: `Network.save` and `load`. The formats live in modules of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import BinaryIO

    from fastlayer.network import Network


_OWN = (".npz", ".safetensors")
_FOREIGN = (".onnx", ".keras", ".h5", ".hdf5")
_WEIGHTS = (".pt", ".pth", ".bin")


class ModelFileError(ValueError):
    """A model file that is damaged, of an unknown version, or not a model.

    Parameters
    ----------
    path : str
        The file.
    key : str
        The place in it.
    why : str
        What is wrong there.

    Attributes
    ----------
    path, key, why : str
        As above.

    Examples
    --------
    >>> import fastlayer as fl
    >>> issubclass(fl.ModelFileError, ValueError)
    True
    """

    def __init__(self, path: str, key: str, why: str) -> None:
        super().__init__(f"{path}: {key}: {why}")
        self.path = path
        self.key = key
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:
        return ModelFileError, (self.path, self.key, self.why)


def load(path: str | PathLike[str], *, mmap: bool = False) -> Network:
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

    Returns
    -------
    Network
        The network, in the dtype of the file's weights.

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
    name, suffix = _split(path)
    if suffix in _WEIGHTS:
        raise ValueError(
            f"{name}: {suffix} holds weights without an architecture; "
            "fl.from_state_dict(path, activation=...) makes a network of dense layers from them"
        )
    if suffix not in (*_OWN, *_FOREIGN):
        known = ", ".join((*_OWN, *_FOREIGN))
        raise ValueError(f"{name}: unknown suffix {suffix!r}; model files end in {known}")
    if mmap and suffix != ".safetensors":
        raise ValueError(
            f"{name}: only .safetensors can be mapped; load without mmap, or save the network as "
            ".safetensors"
        )
    if suffix == ".npz":
        from fastlayer import _npz

        return _npz.read(name)
    if suffix == ".safetensors":
        from fastlayer import _safetensors

        return _safetensors.read(name, mmap)
    if suffix == ".onnx":
        from fastlayer.convert.onnx import load_onnx

        return load_onnx(name)
    from fastlayer.convert.keras_files import load_keras

    return load_keras(name)


def save(net: Network, path: str | PathLike[str]) -> None:
    """Write a network; see `Network.save`."""
    from fastlayer._plan import check
    from fastlayer._schema import to_plain

    name, suffix = _split(path)
    if suffix not in _OWN:
        raise ValueError(
            f"{name}: unknown suffix {suffix!r}; networks are saved as {' or '.join(_OWN)}"
        )
    document, arrays = to_plain(net)
    check(document, arrays)
    if suffix == ".npz":
        from fastlayer._npz import write
    else:
        from fastlayer._safetensors import write
    write_atomically(name, lambda file: write(file, document, arrays))


def _split(path: str | PathLike[str]) -> tuple[str, str]:
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path must be a string or a path of strings, got {path!r}")
    return name, os.path.splitext(name)[1].lower()


def write_atomically(path: str, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a new file, then give it the name `path` in one step.

    A reader sees the old file or the whole new one, also after a crash.
    """
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.{os.urandom(6).hex()}.tmp")
    # Not tempfile: its files are private, and a model gets the permissions of any other file.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    number = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(number, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # folders can't be opened on this system
        return
    try:
        os.fsync(number)
    except OSError:  # nor synchronised on this file system; the file itself was
        pass
    finally:
        os.close(number)
