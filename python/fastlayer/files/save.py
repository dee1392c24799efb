"""`Network.save`: the network as a document and arrays, written to a file in one step."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from fastlayer.files.document import Table


OWN = {".npz": "fastlayer.files.npz", ".safetensors": "fastlayer.files.safetensors"}


def save(net: Any, path: str | PathLike[str], table: Table) -> None:
    """Write a network; see `Network.save`. `table` has the classes that a file may name."""
    from fastlayer.files.document import check, encode, to_document
    from fastlayer.files.reading import DOCUMENT, check_json

    name, suffix = split_suffix(path)
    if suffix not in OWN:
        raise ValueError(
            f"{name}: unknown suffix {suffix!r}; networks are saved as {' or '.join(OWN)}"
        )
    document, arrays = to_document(net)
    check(document, arrays, table)
    text = encode(document)
    check_json(text, DOCUMENT)
    write = import_module(OWN[suffix]).write
    write_atomically(name, lambda file: write(file, text, arrays))


def write_atomically(path: str, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a new file, then give it the name `path` in one step.

    A reader sees the old file or the whole new one, also after a crash.
    """
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.{os.urandom(6).hex()}.tmp")
    # Not tempfile: its files are private, and a model gets the permissions of any other file.
    with ExitStack() as undo:
        with open(temporary, "x+b") as file:
            undo.callback(os.unlink, temporary)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        undo.pop_all()
    # Some systems can't open folders, some file systems can't synchronise them; the file itself was.
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def split_suffix(path: str | PathLike[str]) -> tuple[str, str]:
    """Return the path as text and its suffix in lower case."""
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path must be a string or a path of strings, got {path!r}")
    return name, os.path.splitext(name)[1].lower()
