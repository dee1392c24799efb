"""Networks as .npz: a zip archive of .npy members, one of which holds the document as UTF-8 bytes.

`numpy.load` can read it too. What a header says is matched here: NumPy's own readers parse it as
Python.
"""

from __future__ import annotations

import re
import zipfile
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fastlayer.errors import Damaged
from fastlayer.files.reading import DOCUMENT, Stored, ordered_dtype, parse_json, reading, require
from fastlayer.files.zip import members

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlayer.arrays import Array
    from fastlayer.files.model_file import ModelFile
    from fastlayer.files.reading import Find
    from fastlayer.files.zip import Member

_DATE = (1980, 1, 1, 0, 0, 0)  # the same network gives the same bytes
_DIM = rb"(?:0|[1-9][0-9]{0,18})"
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,20})', 'fortran_order': (True|False), "
    rb"'shape': \((|%b,|%b(?:, %b)+)\), \} *\n" % (_DIM, _DIM, _DIM)
)
_DTYPES = {"<f4": "float32", "<f8": "float64", "|u1": "uint8"}


def write(file: BinaryIO, text: bytes, arrays: dict[str, Array]) -> None:
    """Write a document and arrays as an archive, uncompressed and in little-endian order.

    Raises
    ------
    ValueError
        More arrays than `opened` accepts.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {DOCUMENT: np.frombuffer(text, np.uint8), **arrays}.items():
            info = zipfile.ZipInfo(f"{name}.npy", _DATE)
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as member:
                plain = np.ascontiguousarray(array, ordered_dtype(array.dtype.name, "<"))
                np.lib.format.write_array(member, plain.reshape(array.shape), allow_pickle=False)
    members(file)


@contextmanager
def opened(source: str | ModelFile) -> Iterator[tuple[Any, Find]]:
    """Return the document, and what finds an array, to be read while the file is open.

    Raises
    ------
    ModelFileError
        Whatever is wrong with the file.
    """
    with reading(source) as file:
        archive = members(file)
        known = f"{DOCUMENT}.npy" in archive
        require(known, DOCUMENT, "is missing; this is not a network that fastlayer saved")
        found = _find(archive, DOCUMENT)
        plain = found.dtype == "uint8" and len(found.shape) == 1
        require(plain, DOCUMENT, f"has dtype {found.dtype} and shape {found.shape}, not bytes")
        yield parse_json(found.read().tobytes(), DOCUMENT), partial(_find, archive)


def _find(archive: dict[str, Member], name: str) -> Stored:
    """Read the header of a member; what it claims must be there, and nothing else behind it."""
    member = archive.get(f"{name}.npy")
    if member is None:
        raise Damaged(name, "is missing")
    # Magic, version and the header's length; headers too long for version 1 describe records.
    start = 10 + int.from_bytes(member.head(10)[8:], "little")
    head = member.head(start)
    match = _HEADER.fullmatch(head, 10) if head.startswith(b"\x93NUMPY\x01\x00") else None
    if match is None or len(head) != start:
        raise Damaged(name, "has a damaged or unknown .npy header")
    code, fortran, dims = (group.decode("latin-1") for group in match.groups())
    dtype = _DTYPES.get(code, code)
    shape = tuple(int(d) for d in dims.split(",") if d)
    size = member.size - start

    def read() -> Array:
        data = np.frombuffer(member.read(), np.dtype(code), prod(shape), start)
        return data.reshape(shape, order="F" if fortran == "True" else "C")

    if dtype in _DTYPES.values() and size != prod(shape) * np.dtype(dtype).itemsize:
        raise Damaged(name, f"holds {size} bytes of data, which is not what {shape} takes")
    return Stored(dtype, shape, read)
