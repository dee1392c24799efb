"""Model files: `Network.save` and `load`. The formats live in modules of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import BinaryIO

    from fastlayer.network import Network


class ModelFileError(ValueError):
    """A model file that is damaged, of an unknown version, or not a model.

    Attributes
    ----------
    path : str
        The file.
    key : str
        What in it is wrong.

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
    """Read a network that `Network.save` wrote. Nothing in the file is executed.

    Parameters
    ----------
    path : path
        The suffix chooses the format: .npz, a NumPy archive with the weights as members and the
        layers as a JSON document.
    mmap : bool
        Map the weights instead of reading them; not possible with .npz.

    Returns
    -------
    Network

    Raises
    ------
    ModelFileError
        The file is damaged or not a network; the message names the file and the place.
    ValueError
        Another suffix, or `mmap` with a format that can't be mapped.
    OSError
        The file can't be read.

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
    from fastlayer import _npz

    name = _checked(path)
    if mmap:
        raise ValueError(f"{name}: members of an .npz file can't be mapped; load without mmap")
    return _npz.read(name)


def save(net: Network, path: str | PathLike[str]) -> None:
    """Write a network; see `Network.save`."""
    from fastlayer import _npz
    from fastlayer._schema import to_plain

    name = _checked(path)
    document, arrays = to_plain(net)
    write_atomically(name, lambda file: _npz.write(file, document, arrays))


def _checked(path: str | PathLike[str]) -> str:
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path must be a string or a path of strings, got {path!r}")
    suffix = os.path.splitext(name)[1]
    if suffix.lower() != ".npz":
        raise ValueError(f"{name}: unknown suffix {suffix!r}; model files end in .npz")
    return name


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
