"""Networks as .npz: a zip archive of .npy members, one of which holds the document as UTF-8 bytes.

`numpy.load` can read it too. Reading checks every size against the document before it allocates.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer._schema import SchemaError, from_plain
from fastlayer.io import ModelFileError

if TYPE_CHECKING:
    from typing import IO, BinaryIO

    from fastlayer._arrays import Array, DType
    from fastlayer.network import Network

DOCUMENT = "fastlayer"
# Far above any real document: hundreds of layers take some tens of KiB.
_LARGEST_DOCUMENT = 16 << 20
# What zipfile and json raise for damaged input; an OSError is a seek to an impossible place.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,  # encrypted members; RecursionError, NotImplementedError
    ValueError,
)
_DATE = (1980, 1, 1, 0, 0, 0)  # the same network gives the same bytes


def write(file: BinaryIO, document: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write an archive, uncompressed."""
    text = np.frombuffer(json.dumps(document).encode(), np.uint8)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {DOCUMENT: text, **arrays}.items():
            info = zipfile.ZipInfo(f"{name}.npy", _DATE)
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(
                    member, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False
                )


def read(path: str) -> Network:
    """Read an archive.

    Raises
    ------
    ModelFileError
        Whatever is wrong with it.
    """
    with open(path, "rb") as file:
        return _read(path, file)


def _read(path: str, file: BinaryIO) -> Network:
    key = "archive"
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, file.seek(0, 2))
            key = DOCUMENT
            text = _read_member(archive, members, DOCUMENT, None, np.dtype(np.uint8))
            document = json.loads(text.tobytes().decode())

            def fetch(name: str, shape: tuple[int, ...], dtype: DType) -> Array:
                nonlocal key
                key = name
                return _read_member(archive, members, name, shape, dtype)

            return from_plain(document, fetch)
    except SchemaError as error:
        raise ModelFileError(path, error.key, str(error).removeprefix(f"{error.key}: ")) from error
    except _DAMAGE as error:
        raise ModelFileError(path, key, str(error) or type(error).__name__) from error


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise SchemaError(name, "is there twice")
        if info.compress_type != zipfile.ZIP_STORED:
            raise SchemaError(name, "is compressed; fastlayer writes and reads stored members")
        if info.file_size > size or info.compress_size != info.file_size:
            raise SchemaError(name, "claims more bytes than the file has")
        members[name] = info
    if DOCUMENT not in members:
        raise SchemaError(DOCUMENT, "is missing; this is not a network that fastlayer saved")
    return members


def _read_member(
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    name: str,
    shape: tuple[int, ...] | None,
    dtype: DType,
) -> Array:
    """Read one array; `shape` None is for the document, a vector of any length."""
    if name not in members:
        raise SchemaError(name, "is missing")
    info = members[name]
    with archive.open(info) as member:
        held, fortran, kind = _header(member, name)
        if kind.hasobject or kind != dtype:
            raise SchemaError(name, f"has dtype {kind}, expected {dtype}")
        if shape is None and (len(held) != 1 or held[0] > _LARGEST_DOCUMENT):
            raise SchemaError(name, f"has shape {held}, expected a short vector of bytes")
        if shape is not None and held != shape:
            raise SchemaError(name, f"has shape {held}, expected {shape}")
        size = prod(held) * dtype.itemsize
        # Checked before reading: what a header claims must be there, and nothing else behind it.
        if size > info.file_size:
            raise SchemaError(name, f"is cut short: {info.file_size} bytes for {size}")
        data = member.read(size)
        if len(data) != size or member.read(1):
            raise SchemaError(name, f"does not hold {size} bytes of data")
    return np.frombuffer(data, dtype).reshape(held, order="F" if fortran else "C")


def _header(member: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, DType]:
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(member)
        if version not in readers:
            raise ValueError(f"unknown version {version} of the .npy format")
        shape, fortran, dtype = readers[version](member)
    except (zipfile.BadZipFile, zlib.error):
        raise
    except Exception as error:  # a header is parsed as Python, and fails in as many ways
        raise SchemaError(name, f"has a damaged header ({error})") from error
    return tuple(shape), bool(fortran), dtype
