// The functional path: products of arrays as they are, any strides, nothing prepared beforehand.
#pragma once

#include "../kernels/table.hpp"
#include "types.hpp"

namespace fastlayer {

template <typename T>
struct MatmulArgs {
  const RowsView* x;  // (m, k), T's dtype
  const RowsView* y;  // (m, n), T's dtype, does not overlap x or w
  const T* w;         // element (j, kk) of (n, k) at j * stride_n + kk * stride_k, in elements
  ptrdiff_t n, stride_n, stride_k;
  const T* bias;    // (n,) contiguous, or null
  bool accumulate;  // the sums start at what y holds
  ActivationArgs<T> activation;
};

// y = activation(x @ w.T + bias); a row-wise activation runs over the finished rows.
template <typename T>
void matmul(const MatmulArgs<T>& args);

}  // namespace fastlayer
