// Copies weights of any strides into panels of one 64-byte line of columns per k.
//
//   w (n, k)                      panel p, columns 16p .. 16p+15 (float)
//   w00 w01 w02 ...               w00 w10 w20 ... wF0     line k = 0
//   w10 w11 w12 ...      ->       w01 w11 w21 ... wF1     line k = 1
//   ...                           ...
#pragma once

#include "table.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

template <typename T>
void pack_panel(const T* w, ptrdiff_t stride_n, ptrdiff_t stride_k, ptrdiff_t cols, ptrdiff_t count,
                T* panel) {
  constexpr ptrdiff_t L = kLine<T>;
  // Both loops read w along its short stride; 8 lines at a time keep the written lines in L1.
  if (stride_k == 1 && cols == L) {
    for (ptrdiff_t k0 = 0; k0 < count; k0 += 8) {
      const ptrdiff_t k1 = k0 + 8 < count ? k0 + 8 : count;
      for (ptrdiff_t j = 0; j < L; ++j) {
        for (ptrdiff_t kk = k0; kk < k1; ++kk) panel[kk * L + j] = w[j * stride_n + kk];
      }
    }
    return;
  }
  for (ptrdiff_t kk = 0; kk < count; ++kk) {
    for (ptrdiff_t j = 0; j < cols; ++j) panel[kk * L + j] = w[j * stride_n + kk * stride_k];
    for (ptrdiff_t j = cols; j < L; ++j) panel[kk * L + j] = T(0);
  }
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
