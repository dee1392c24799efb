"""Sums whose order is a part of the results: that of `fastlayer.matmul`, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastlayer import _core
from fastlayer.arrays import FLOAT64, cast, declined

if TYPE_CHECKING:
    from fastlayer.arrays import Array


def product(a: Array, b: Array) -> Array:
    """``a @ b`` of arrays that the core takes."""
    y = _core.matmul(a, b, None)
    if y is None:
        raise declined()
    return y


def dot(a: Array, b: Array) -> float:
    """Sum the products of two vectors in float64, in blocks of 256."""
    return float(product(cast(a, FLOAT64)[None], cast(b, FLOAT64)[:, None])[0, 0])


def total(a: Array) -> float:
    """Sum a vector in float64, in blocks of 256."""
    return dot(a, np.ones(a.size))


def row_sums(a: Array) -> Array:
    """Sum each row of a matrix in float64, in blocks of 256."""
    return product(cast(a, FLOAT64), np.ones((a.shape[1], 1)))[:, 0]


def row_dots(a: Array, b: Array) -> Array:
    """Sum the products along each row of two matrices in float64, in blocks of 256."""
    return product(cast(a, FLOAT64)[:, None], cast(b, FLOAT64)[:, :, None])[:, 0, 0]


def column_sums(a: Array) -> Array:
    """Sum each column of a matrix in its own dtype, in blocks of 256 rows."""
    return product(a.T, np.ones((a.shape[0], 1), a.dtype))[:, 0]
