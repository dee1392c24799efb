"""Arrays anywhere in memory, for hypothesis: any strides, alignment, byte order and overlap.

All arrays of an example are views into one block of bytes, so that a call that writes where it
should not, or loses what it should write, is seen in the block.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_same_bits, random_values
from hypothesis import strategies as st

KINDS = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
SLACK = 64  # bytes around the arrays


class Subclass(np.ndarray):
    """An array class without a meaning of its own."""


def sides(shape, limit=60):
    """`shape` with its longest sides cut until it holds at most `limit` elements."""
    shape = list(shape)
    while np.prod(shape) > limit:
        shape[int(np.argmax(shape))] -= 1
    return tuple(shape)


def shares_elements(a):
    """Whether two elements of `a` share a byte, found by looking at every one of them."""
    steps = [np.arange(n) * s for n, s in zip(a.shape, a.strides, strict=True)]
    starts = sum(np.ix_(*steps)) if steps else np.zeros(())
    starts = np.sort(np.ravel(starts))
    return bool((np.diff(starts) < a.itemsize).any())


@st.composite
def geometries(draw, shape, itemsize, shared=True):
    """(strides, lowest byte, one past the highest) of an array of this shape.

    With `shared`, elements may lie on top of each other: strides of 0, and overlapping windows.
    """
    steps = [1, 1, 1, -1, 2, -2] + [0, "window"] * shared
    strides, unit = [0] * len(shape), itemsize
    for axis in draw(st.permutations(range(len(shape)))):
        step = draw(st.sampled_from(steps))
        if step == "window":
            strides[axis] = itemsize
            continue
        if shape[axis] < 2 and draw(st.booleans()):
            strides[axis] = draw(st.integers(-9, 9))  # no element depends on it
            continue
        strides[axis] = unit * step
        if step:
            unit = unit * abs(step) * max(shape[axis], 1) + itemsize * draw(st.integers(0, 1))
    spans = [max(n - 1, 0) * s for n, s in zip(shape, strides, strict=True)]
    low, high = sum(s for s in spans if s < 0), sum(s for s in spans if s > 0) + itemsize
    return tuple(strides), low, high


class Memory:
    """The block, and the arrays drawn into it: first `array` for each input, then `check_out`."""

    def __init__(self, data):
        self.draw = data.draw
        self.rng = np.random.default_rng(self.draw(st.integers(0, 2**32 - 1)))
        self.bytes = np.full(SLACK, 0xA5, np.uint8)
        self.places = []  # shape, dtype, offset, strides; of the inputs
        self.starts = []

    def dtype(self, kinds=KINDS):
        order = self.draw(st.sampled_from("<<>"))
        return np.dtype(self.draw(st.sampled_from(kinds))).newbyteorder(order)

    def array(self, shape, dtype=None):
        """Draw an input of random values; `arrays` gives it, once all are drawn."""
        dtype = self.dtype() if dtype is None else np.dtype(dtype)
        strides, low, high = self.draw(geometries(shape, dtype.itemsize))
        start = len(self.bytes) + self.draw(st.sampled_from([0, 0, 1, 3, 4]))
        self.places.append((shape, dtype, start - low, strides))
        self.starts.append(start)
        end = start + high - low
        self.bytes = np.concatenate([self.bytes, np.full(end + 32 - len(self.bytes), 0xA5, "u1")])
        self._view(self.places[-1])[...] = random_values(self.rng, shape, dtype)

    def _view(self, place, block=None):
        shape, dtype, offset, strides = place
        block = self.bytes if block is None else block
        return np.ndarray(shape, dtype, block, offset, strides)

    def arrays(self):
        """Return the inputs, some of them read-only or of a subclass."""
        arrays = []
        for place in self.places:
            view = self._view(place)
            kind = self.draw(st.sampled_from(["plain", "plain", "read-only", "subclass"]))
            if kind == "read-only":
                view.flags.writeable = False
            arrays.append(view.view(Subclass) if kind == "subclass" else view)
        return arrays

    def unchanged(self, call):
        """Return ``call()``, which must leave the block alone."""
        before = self.bytes.copy()
        result = call()
        np.testing.assert_array_equal(self.bytes, before)
        return result

    def _out(self, y):
        """Draw the place of an `out` for `y`, mostly a good one, often on top of an input."""
        wrong = self.draw(st.sampled_from([*[""] * 12, "dtype", "order", "shape", "shared"]))
        shape, dtype = y.shape, y.dtype
        if wrong == "dtype":
            dtype = np.dtype(self.draw(st.sampled_from(KINDS)))
        elif wrong == "order":
            dtype = dtype.newbyteorder()
        elif wrong == "shape":
            shape = self.draw(st.sampled_from([(*shape, 1), shape[1:], (2, *shape), (7,)]))
        strides, low, high = self.draw(geometries(shape, dtype.itemsize, wrong == "shared"))
        start = self.draw(st.sampled_from([SLACK // 2, len(self.bytes), *self.starts]))
        start += self.draw(st.integers(-6, 6)) * dtype.itemsize + self.draw(
            st.sampled_from([0, 0, 1])
        )
        start = max(start, 0)
        missing = start + high - low - len(self.bytes)
        if missing > 0:
            self.bytes = np.concatenate([self.bytes, np.full(missing, 0xA5, "u1")])
        return shape, dtype, start - low, strides

    def check_out(self, call, y):
        """``call(arrays, out)`` writes `y` into `out` and nothing else, or says what is wrong."""
        y = np.asarray(y)
        place = self._out(y)
        arrays, out = [self._view(p) for p in self.places], self._view(place)
        wrong = None
        if out.dtype != y.dtype:
            wrong = TypeError
        elif out.shape != y.shape or shares_elements(out):
            wrong = ValueError
        kind = self.draw(
            st.sampled_from([*["plain"] * 8, "subclass", "read-only", "masked", "list"])
        )
        if kind == "read-only":
            out.flags.writeable = False
            wrong = wrong or ValueError
        elif kind == "subclass":
            out = out.view(Subclass)
        elif kind == "masked":
            out, wrong = np.ma.masked_array(out), TypeError
        elif kind == "list":
            out, wrong = out.tolist(), TypeError
        expected = self.bytes.copy()
        if wrong is None:
            self._view(place, expected)[...] = y
            assert call(arrays, out) is out
            assert_same_bits(np.array(out, subok=False), y)  # also where NaNs differ in payload
        else:
            with pytest.raises(wrong, match="out"):
                call(arrays, out)
        if not np.isnan(y.astype(float)).any():
            np.testing.assert_array_equal(self.bytes, expected)
