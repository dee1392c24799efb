// Activations, softmax and vectors broadcast over rows, on arrays of any strides and on several
// threads where the array is large. x and y have one shape and are the same array or do not
// overlap.
#pragma once

#include "../kernels/table.hpp"
#include "types.hpp"

namespace fastlayer {

template <typename T>
void activate(const ActivationArgs<T>& act, const RowsView& x, const RowsView& y);

// Over the last axis.
template <typename T>
void softmax_rows(const RowsView& x, const RowsView& y, bool log);

// slope and bias: (cols,) contiguous.
template <typename T>
void prelu_rows(const RowsView& x, const T* slope, const RowsView& y);
template <typename T>
void add_rows(const RowsView& x, const T* bias, const RowsView& y);

// Estimated time of any of them on one thread.
double elementwise_picoseconds(ptrdiff_t elements);

}  // namespace fastlayer
