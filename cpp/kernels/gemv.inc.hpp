// One row times row-major (k, n) weights in place: y += x[kk] * w[kk] along whole rows of w, four
// at a time, so that memory is read in its own order. The tile kernels would touch a page for every
// k.
#pragma once

#include "isa.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// Columns whose sums are kept in L1 meanwhile: 16 KiB.
template <typename T>
constexpr ptrdiff_t kRowSums = 16 * 1024 / static_cast<ptrdiff_t>(sizeof(T));

// Adds R rows of w to the sums, in their order.
template <typename T, int R>
void add_rows(const T* x, const T* w, ptrdiff_t stride, T* sums, ptrdiff_t cols) {
  using V = Vec<T>;
  V value[R];
  for (int r = 0; r < R; ++r) value[r] = V::set1(x[r]);
  for (ptrdiff_t j = 0; j < cols; j += V::kLanes) {
    V sum = V::load(sums + j);
    for (int r = 0; r < R; ++r) sum = fma(value[r], V::load(w + r * stride + j), sum);
    sum.store(sums + j);
  }
}

// All but the activation of a single row; w is in place, bias and y are vectors.
template <typename T>
void row_times_matrix(const DenseArgs<T>& d) {
  using V = Vec<T>;
  constexpr ptrdiff_t most = kRowSums<T>;
  alignas(64) T sums[most];
  for (ptrdiff_t j0 = 0; j0 < d.cols; j0 += most) {
    const ptrdiff_t cols = d.cols - j0 < most ? d.cols - j0 : most;
    for (ptrdiff_t k0 = 0; k0 < d.k; k0 += kSumBlock) {
      const ptrdiff_t kc = d.k - k0 < kSumBlock ? d.k - k0 : kSumBlock;
      const T* w = d.w + k0 * d.line_stride + j0;
      for (ptrdiff_t j = 0; j < cols; j += V::kLanes) V::zero().store(sums + j);
      ptrdiff_t kk = 0;
      for (; kk + 4 <= kc; kk += 4) {
        add_rows<T, 4>(d.x + k0 + kk, w + kk * d.line_stride, d.line_stride, sums, cols);
      }
      for (; kk < kc; ++kk) {
        add_rows<T, 1>(d.x + k0 + kk, w + kk * d.line_stride, d.line_stride, sums, cols);
      }
      T* y = d.y + j0;
      const bool first = k0 == 0 && !d.accumulate;
      const T* c = !first ? y : d.bias == nullptr ? nullptr : d.bias + j0;
      for (ptrdiff_t j = 0; j < cols; ++j) y[j] = (c == nullptr ? T(0) : c[j]) + sums[j];
    }
  }
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
