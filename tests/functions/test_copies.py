"""Copies in pieces: the bits and the layout of those in one."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_same_bits

from fastlayer import arrays

SHAPES = [(), (0,), (1,), (7,), (1000,), (3, 0, 5), (30, 41), (1, 999), (999, 1), (5, 1, 7, 11)]
VIEWS = {
    "rows": lambda a: a,
    "columns": lambda a: a.T,
    "backwards": lambda a: a[..., ::-1] if a.ndim else a,
    "some": lambda a: a[..., ::3] if a.ndim else a,
    "broadcast": lambda a: np.broadcast_to(a, (3, *a.shape)),
    "axes": lambda a: np.moveaxis(a, 0, -1) if a.ndim else a,
}


@pytest.fixture(autouse=True, params=[1, 3, 64])
def piece(request, monkeypatch):
    monkeypatch.setattr(arrays, "_PIECE", request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("before", "after"), [("f4", "f8"), (">f4", "f4"), ("f8", "f2"), ("i8", "f4")]
)
def test_pieces(rng, shape, view, before, after):
    a = VIEWS[view]((rng.standard_normal(shape) * 1e5).astype(before))
    with np.errstate(all="ignore"):
        expected = a.astype(after)
    y = arrays.copied(a, np.dtype(after))
    assert_same_bits(y, expected)
    assert y.strides == expected.strides


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_into_memory_that_overlaps(rng, shape):
    a = rng.standard_normal(shape)
    expected = a[::-1].copy() if a.ndim else a.copy()
    arrays.put(a, a[::-1] if a.ndim else a)
    assert_same_bits(a, expected)
