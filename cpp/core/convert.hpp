// Moves rows between arrays of any real dtype and strides and the contiguous rows that kernels
// take.
#pragma once

#include "types.hpp"

namespace fastlayer {

// Elements (i, j), i in [first, first + count), of x as T, rows `ld` apart in `to`. Zeros may be
// written behind the last column, within `room` columns.
template <typename T>
void load_rows(const RowsView& x, ptrdiff_t first, ptrdiff_t count, T* to, ptrdiff_t ld,
               ptrdiff_t room);

template <typename T>
void load_rows(const RowsView& x, ptrdiff_t first, ptrdiff_t count, T* to, ptrdiff_t ld) {
  load_rows(x, first, count, to, ld, ld);
}

// The other way; y.dtype is T's.
template <typename T>
void store_rows(const T* from, ptrdiff_t ld, const RowsView& y, ptrdiff_t first, ptrdiff_t count);

}  // namespace fastlayer
