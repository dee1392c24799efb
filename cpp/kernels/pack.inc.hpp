// Copies weights of any strides into panels of one 64-byte line of columns per k, and rows of x
// that lie badly into rows: both are the same transposition.
//
//   w (n, k)                      panel p, columns 16p .. 16p+15 (float)
//   w00 w01 w02 ...               w00 w10 w20 ... wF0     line k = 0
//   w10 w11 w12 ...      ->       w01 w11 w21 ... wF1     line k = 1
//   ...                           ...
#pragma once

#include "isa.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// Lines [0, count) from rows that are contiguous in k. Whole groups of 16 bytes go through
// registers, the rest element by element.
template <typename T>
void transpose_line(const T* w, ptrdiff_t stride_n, ptrdiff_t count, T* panel, ptrdiff_t step) {
  using V = LaneVec<T>;
  constexpr ptrdiff_t Q = V::kQuad;
  const ptrdiff_t whole = count / Q * Q;
  for (ptrdiff_t kk = 0; kk < whole; kk += Q) {
    for (int v = 0; v < kLine<T> / V::kLanes; ++v) {
      V columns[Q];
      V::load_transposed(w + v * V::kLanes * stride_n + kk, stride_n, columns);
      for (ptrdiff_t c = 0; c < Q; ++c) columns[c].store(panel + (kk + c) * step + v * V::kLanes);
    }
  }
  for (ptrdiff_t kk = whole; kk < count; ++kk) {
    for (ptrdiff_t j = 0; j < kLine<T>; ++j) panel[kk * step + j] = w[j * stride_n + kk];
  }
}

// So many elements of a row are copied at a time: 16 rows of 512 bytes are a quarter of the
// smallest L1.
template <typename T>
constexpr ptrdiff_t kSideBySide = 512 / static_cast<ptrdiff_t>(sizeof(T));

template <typename T>
constexpr bool is_bad_stride(ptrdiff_t stride) {
  return stride * static_cast<ptrdiff_t>(sizeof(T)) % kBadStride == 0;
}

// Fetched into L2 meanwhile: the next pieces of the same rows.
template <typename T>
constexpr ptrdiff_t kCopyAhead = 1024 / static_cast<ptrdiff_t>(sizeof(T));

// The rest of each row's last vector in `to` becomes 0.
template <typename T>
void copy_rows(const T* from, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t count, T* to,
               ptrdiff_t ld) {
  using V = Vec<T>;
  for (ptrdiff_t j = 0; j < rows; ++j, from += stride, to += ld) {
    ptrdiff_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) {
      __builtin_prefetch(from + i + kCopyAhead<T>, 0, 2);
      V::load(from + i).store(to + i);
    }
    if (i < count) V::load_partial(from + i, static_cast<int>(count - i)).store(to + i);
  }
}

template <typename T>
void pack_panel(const T* w, ptrdiff_t stride_n, ptrdiff_t stride_k, ptrdiff_t cols, ptrdiff_t count,
                T* panel, ptrdiff_t step) {
  using V = Vec<T>;
  constexpr ptrdiff_t L = kLine<T>, S = kSideBySide<T>;
  if (stride_k == 1 && cols == L && !is_bad_stride<T>(stride_n)) {
    transpose_line(w, stride_n, count, panel, step);
    return;
  }
  if (stride_k == 1) {
    // A panel that n does not fill gets rows of zeros.
    constexpr ptrdiff_t ld = S + L;
    alignas(64) T rows[L * ld];
    for (ptrdiff_t i = cols * ld; i < L * ld; i += V::kLanes) V::zero().store(rows + i);
    for (ptrdiff_t k0 = 0; k0 < count; k0 += S) {
      const ptrdiff_t length = count - k0 < S ? count - k0 : S;
      copy_rows(w + k0, stride_n, cols, length, rows, ld);
      transpose_line(rows, ld, length, panel + k0 * step, step);
    }
    return;
  }
  for (ptrdiff_t kk = 0; kk < count; ++kk) {
    T* line = panel + kk * step;
    const T* from = w + kk * stride_k;
    if (stride_n == 1 && cols == L) {
      for (int v = 0; v < kLineVecs<T>; ++v) {
        V::load(from + v * V::kLanes).store(line + v * V::kLanes);
      }
      continue;
    }
    for (ptrdiff_t j = 0; j < cols; ++j) line[j] = from[j * stride_n];
    for (ptrdiff_t j = cols; j < L; ++j) line[j] = T(0);
  }
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
