"""Files of the safetensors format, read and written by the `safetensors` package.

The package refuses headers that don't describe every byte of the file once. Looked at here is what
it lets pass: headers too large, names that are there twice, entries written in another way. A
network's document is in the metadata.
"""

from __future__ import annotations

import mmap as memory
from contextlib import contextmanager
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fastlayer.errors import Damaged
from fastlayer.files.reading import (
    DOCUMENT,
    LARGEST_JSON,
    MOST_AXES,
    Stored,
    check_json,
    from_bytes,
    parse_json,
    read_bytes,
    reading,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlayer.arrays import Array
    from fastlayer.files.model_file import ModelFile
    from fastlayer.files.reading import Find

_HEADER = "header"
# The format's names -> NumPy's, or a name for a message; a dtype that is not here is refused.
_DTYPES = {
    f"{letter}{bits}": f"{kind}{bits}"
    for letter, kind in (("F", "float"), ("BF", "bfloat"), ("I", "int"), ("U", "uint"))
    for bits in (8, 16, 32, 64)
}
_DTYPES["BOOL"] = "bool"


class _Tensors(dict[str, Stored]):
    """The tensors of a file by name."""

    metadata: dict[str, str]

    def __missing__(self, name: str) -> Stored:
        raise Damaged(name, "is missing")


def _package() -> Any:
    try:
        import_module("safetensors.numpy")
    except ImportError:
        raise ImportError(
            "the safetensors package reads and writes .safetensors files: pip install safetensors"
        ) from None
    return import_module("safetensors")


def write(file: BinaryIO, text: bytes, arrays: dict[str, Array]) -> None:
    """Write a document and arrays to an empty file.

    Raises
    ------
    ValueError
        More arrays than `opened` accepts.
    ImportError
        There is no safetensors package.
    """
    plain = {key: np.ascontiguousarray(a).reshape(a.shape) for key, a in arrays.items()}
    # Not its save_file, which puts a new file in the place of the one that is open here.
    file.write(_package().numpy.save(plain, metadata={DOCUMENT: text.decode()}))
    file.flush()
    _header(file)


@contextmanager
def opened(source: str | ModelFile, mmap: bool = False) -> Iterator[tuple[Any, Find]]:
    """Return the document, and what finds an array, to be read while the file is open.

    Raises
    ------
    ModelFileError
        Whatever is wrong with the file.
    ImportError
        There is no safetensors package.
    """
    with stored(source, mmap) as found:
        require(
            DOCUMENT in found.metadata,
            DOCUMENT,
            "is missing from the metadata: these are weights without an architecture. If they "
            "are the state dict of dense layers, "
            "fl.from_state_dict(path, activation=...) makes a network of them",
        )
        yield parse_json(found.metadata[DOCUMENT].encode(), DOCUMENT), found.__getitem__


@contextmanager
def stored(source: str | ModelFile, mmap: bool = False) -> Iterator[_Tensors]:
    """Return what the file holds, to be read while the file is open; raises as `opened` does."""
    package = _package()
    with reading(source) as file:
        text = _header(file)
        try:
            file.seek(0)
            _check(package, source, file)
        except package.SafetensorError as error:
            raise Damaged(_HEADER, str(error)) from error
        content = parse_json(text, _HEADER)
        metadata = content.pop("__metadata__", None) or {}
        whole = memory.mmap(file.fileno(), 0, access=memory.ACCESS_READ) if mmap else None
        data = 8 + len(text)
        found = _Tensors((n, _stored(n, e, file, whole, data)) for n, e in content.items())
        found.metadata = metadata
        yield found


def _check(package: Any, source: str | ModelFile, file: BinaryIO) -> None:
    """Let the package check the header, which it reads from a file with a name, or from bytes."""
    path = source if isinstance(source, str) else source.path()
    if path is None:
        package.deserialize(file.read())
    else:
        with package.safe_open(path, framework="numpy"):
            pass


def _header(file: BinaryIO) -> bytes:
    """Return the text of the header, which the package would read in any size."""
    length = int.from_bytes(read_bytes(file, 0, 8, _HEADER), "little")
    why = f"has {length} bytes, and more than {LARGEST_JSON} are not read"
    require(length <= LARGEST_JSON, _HEADER, why)
    text = read_bytes(file, 8, length, _HEADER)
    require(text[:1] == b"{", _HEADER, "is not a JSON object padded with spaces")
    check_json(text, _HEADER)
    return text


def _stored(name: str, entry: Any, file: BinaryIO, whole: memory.mmap | None, data: int) -> Stored:
    """Return the tensor of an entry that the package has accepted."""
    exact = isinstance(entry, dict) and len(entry) == 3
    require(exact, name, "must have dtype, shape and data_offsets, and nothing else")
    code, shape = entry["dtype"], tuple(entry["shape"])
    if str(code) not in _DTYPES:
        raise Damaged(name, f"has the dtype {code!r:.40}, which is not read")
    if len(shape) > MOST_AXES:
        raise Damaged(name, f"has the impossible shape {entry['shape']!r:.80}")
    dtype = _DTYPES[code]

    def read() -> Array:
        begin, end = entry["data_offsets"]
        if whole is not None:
            return from_bytes(whole, dtype, "<", prod(shape), data + begin).reshape(shape)
        flat = from_bytes(read_bytes(file, data + begin, end - begin, name), dtype, "<")
        # The package has opened the file by name once more.
        require(flat.size == prod(shape), name, "changed while it was read")
        return flat.reshape(shape)

    return Stored(dtype, shape, read)
