"""Files of the safetensors format, read and written by the `safetensors` package.

The header is checked here first, more strictly than the package does: it must be small, name
nothing twice, and describe every byte of the file once. A network's document is in the metadata.
"""

from __future__ import annotations

import mmap as memory
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.errors import Damaged
from fastlayer.files.document import DOCUMENT, encode, from_document
from fastlayer.files.reading import (
    LARGEST_JSON,
    Stored,
    check_json,
    ordered_dtype,
    parse_json,
    read_bytes,
    reading,
    size_of,
)
from fastlayer.network.network import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from fastlayer.arrays import Array
    from fastlayer.network.network import Network

_HEADER = "header"
# The format's names -> NumPy's, or a name for a message; a dtype that is not here is refused.
_DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
_MOST_AXES = 8


class _Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    start: int  # in the file
    end: int


def _package() -> Any:
    try:
        import_module("safetensors.numpy")
    except ImportError:
        raise ImportError(
            "the safetensors package reads and writes .safetensors files: "
            "pip install 'fastlayer[safetensors]'"
        ) from None
    return import_module("safetensors")


def write(file: BinaryIO, document: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write a network to an empty file.

    Raises
    ------
    ValueError
        More layers than `read` accepts.
    ImportError
        There is no safetensors package.
    """
    text = encode(document)
    check_json(text, DOCUMENT)
    plain = {key: np.ascontiguousarray(a).reshape(a.shape) for key, a in arrays.items()}
    # Not its save_file, which puts a new file in the place of the one that is open here.
    file.write(_package().numpy.save(plain, metadata={DOCUMENT: text.decode()}))
    file.flush()
    _header(file)


def read(path: str, mmap: bool) -> Network:
    """Read a network.

    Raises
    ------
    ModelFileError
        Whatever is wrong with the file.
    ImportError
        There is no safetensors package.
    """
    with reading(path) as file, _opened(path, file, mmap) as (metadata, tensors):
        if DOCUMENT not in metadata:
            raise Damaged(
                DOCUMENT,
                "is missing from the metadata: these are weights without an architecture. If they "
                "are the state dict of dense layers, "
                "fl.from_state_dict(path, activation=...) makes a network of them",
            )
        document = parse_json(metadata[DOCUMENT].encode(), DOCUMENT)

        def find(name: str) -> Stored:
            if name not in tensors:
                raise Damaged(name, "is missing")
            return tensors[name]

        return from_document(document, find, PARTS)


@contextmanager
def stored(path: str) -> Iterator[dict[str, Stored]]:
    """Return what the file holds, to be read while the file is open."""
    with reading(path) as file, _opened(path, file, False) as (_, tensors):
        yield tensors


@contextmanager
def _opened(
    path: str, file: BinaryIO, mmap: bool
) -> Iterator[tuple[dict[str, str], dict[str, Stored]]]:
    package = _package()
    metadata, tensors = _header(file)
    try:
        package_file = package.safe_open(path, framework="numpy")
    except package.SafetensorError as error:
        raise Damaged(_HEADER, str(error)) from error
    with package_file as held:
        whole = memory.mmap(file.fileno(), 0, access=memory.ACCESS_READ) if mmap else None
        found = {
            name: Stored(
                t.dtype,
                t.shape,
                partial(_copy, held, name, t) if whole is None else partial(_view, whole, t),
            )
            for name, t in tensors.items()
        }
        yield metadata, found


def _copy(held: Any, name: str, t: _Tensor) -> Array:
    """Read a tensor with the package, which has opened the file by name once more."""
    array: Array = held.get_tensor(name)
    if (array.dtype.name, array.shape) != (t.dtype, t.shape):
        raise Damaged(name, "changed while it was read")
    return array


def _view(whole: memory.mmap, t: _Tensor) -> Array:
    """Return a tensor as it lies in the mapped file."""
    dtype = ordered_dtype(t.dtype, "<")
    if t.start == t.end:
        return np.empty(t.shape, dtype)
    return np.frombuffer(whole, dtype, prod(t.shape), t.start).reshape(t.shape)


def _header(file: BinaryIO) -> tuple[dict[str, str], dict[str, _Tensor]]:
    """Read and check the header: the metadata, and where each tensor lies."""
    size = size_of(file)
    if size < 10:
        raise Damaged(_HEADER, f"is missing: the file has {size} bytes")
    length = int.from_bytes(read_bytes(file, 0, 8, _HEADER), "little")
    if length > size - 8:
        raise Damaged(_HEADER, f"claims {length} bytes of a file of {size}")
    if length > LARGEST_JSON:
        raise Damaged(_HEADER, f"has {length} bytes, and more than {LARGEST_JSON} are not read")
    text = read_bytes(file, 8, length, _HEADER)
    if text[:1] != b"{" or text.rstrip(b" ")[-1:] != b"}":
        raise Damaged(_HEADER, "is not a JSON object padded with spaces")
    content = parse_json(text, _HEADER)
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Damaged("__metadata__", "is not an object of strings")
    tensors = {name: _tensor(name, entry, 8 + length) for name, entry in content.items()}
    end = 8 + length
    for name, t in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if t.start != end:
            raise Damaged(name, "overlaps another tensor, or leaves a hole in front of it")
        end = t.end
    if end != size:
        raise Damaged(_HEADER, f"describes {end} bytes of a file of {size}")
    return metadata, tensors


def _tensor(name: str, entry: Any, data: int) -> _Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Damaged(name, "must have dtype, shape and data_offsets, and nothing else")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise Damaged(name, f"has the dtype {code!r:.40}, which is not read")
    if not _sizes(shape) or len(shape) > _MOST_AXES:
        raise Damaged(name, f"has the impossible shape {shape!r:.80}")
    if not _sizes(offsets) or len(offsets) != 2:
        raise Damaged(name, f"has the impossible offsets {offsets!r:.80}")
    dtype, itemsize = _DTYPES[code]
    start, end = offsets
    if end - start != prod(shape) * itemsize:
        raise Damaged(name, f"has {end - start} bytes, which is not what {code} of {shape} takes")
    return _Tensor(dtype, tuple(shape), data + start, data + end)


def _sizes(value: Any) -> bool:
    # Products of at most eight of these stay short enough to print.
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 1 << 62 for v in value)
