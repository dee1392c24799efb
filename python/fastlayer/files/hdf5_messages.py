"""Messages of HDF5's object headers: shapes and datatypes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastlayer.errors import Damaged

if TYPE_CHECKING:
    from fastlayer.arrays import DType

# Datatype messages of little-endian IEEE numbers, without their version: flags and layout of bits.
_FLOATS = {
    (4, 0, 32, 23, 8, 0, 23, 127): "<f4",
    (8, 0, 64, 52, 11, 0, 52, 1023): "<f8",
    (2, 0, 16, 10, 5, 0, 10, 15): "<f2",
}


def damaged(at: int, why: str) -> Damaged:
    """Return the error for what is wrong at a byte."""
    return Damaged(f"byte {at} of the HDF5 data", why)


class Message(NamedTuple):
    """One message of an object header."""

    kind: int
    at: int
    data: bytes


def shape_of(data: bytes, at: int) -> tuple[int, ...]:
    """Return the shape that a message about space tells."""
    if len(data) < 4 or data[0] not in (1, 2) or data[1] > 32:
        raise damaged(at, "a shape of another version")
    start = 8 if data[0] == 1 else 4
    if data[0] == 2 and data[3] == 2:
        raise damaged(at, "an array without a shape")
    if len(data) < start + 8 * data[1]:
        raise damaged(at, "a shape cut short")
    return struct.unpack_from(f"<{data[1]}Q", data, start)


def dtype_of(data: bytes) -> DType:
    """Return the dtype that a message about datatypes tells.

    Raises
    ------
    TypeError
        Anything but little-endian floating-point numbers.
    """
    if len(data) >= 20 and data[0] & 15 == 1 and not data[1] & 0x41:
        size = int.from_bytes(data[4:8], "little")
        found = _FLOATS.get((size, *struct.unpack_from("<HHBBBBI", data, 8)))
        if found is not None:
            return np.dtype(found)
    raise TypeError("numbers that are not little-endian float32 or float64")
