// The sum of docs/numerics.md, plainly: what every kernel must equal, bit for bit.
#pragma once

#include <cmath>
#include <cstddef>

namespace fastlayer {

// One output element before its activation: start is the bias, or 0 where there is none.
template <typename T>
T reference_sum(T start, const T* x, ptrdiff_t stride_x, const T* w, ptrdiff_t stride_w,
                ptrdiff_t k) {
  constexpr ptrdiff_t kBlock = 256;
  T c = start;
  for (ptrdiff_t k0 = 0; k0 < k; k0 += kBlock) {
    T a = 0;
    for (ptrdiff_t kk = k0; kk < k && kk < k0 + kBlock; ++kk) {
      a = std::fma(x[kk * stride_x], w[kk * stride_w], a);
    }
    c = c + a;
  }
  return c;
}

}  // namespace fastlayer
