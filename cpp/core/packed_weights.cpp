#include "packed_weights.hpp"

#include <limits>
#include <new>

#include "cpu.hpp"

namespace fastlayer {

template <typename T>
size_t elements_in_panels(ptrdiff_t n, ptrdiff_t k) {
  const size_t lines = static_cast<size_t>(k) + 1;
  const size_t columns = (static_cast<size_t>(n) + kLine<T> - 1) / kLine<T> * kLine<T>;
  if (columns != 0 && lines > std::numeric_limits<ptrdiff_t>::max() / sizeof(T) / columns) {
    throw std::bad_alloc();
  }
  return lines * columns;
}

template <typename T>
void pack_panels(ptrdiff_t n, ptrdiff_t k, const T* w, ptrdiff_t stride_n, ptrdiff_t stride_k,
                 const T* bias, T* panels) {
  constexpr ptrdiff_t L = kLine<T>;
  const Kernels<T>& kern = kernels<T>();
  for (ptrdiff_t j0 = 0; j0 < n; j0 += L, panels += (k + 1) * L) {
    const ptrdiff_t cols = n - j0 < L ? n - j0 : L;
    for (ptrdiff_t j = 0; j < L; ++j) panels[j] = j < cols && bias != nullptr ? bias[j0 + j] : 0;
    kern.pack_panel(w + j0 * stride_n, stride_n, stride_k, cols, k, panels + L, L);
  }
}

// The way back is the same transposition: lines are rows of it, and w has the lines' columns.
template <typename T>
void unpack_panels(ptrdiff_t n, ptrdiff_t k, const T* panels, T* w) {
  constexpr ptrdiff_t L = kLine<T>;
  const Kernels<T>& kern = kernels<T>();
  const ptrdiff_t whole = k / L * L;
  for (ptrdiff_t j0 = 0; j0 < n; j0 += L, panels += (k + 1) * L) {
    const ptrdiff_t cols = n - j0 < L ? n - j0 : L;
    const T* lines = panels + L;
    T* const rows = w + j0 * k;
    for (ptrdiff_t kk = 0; kk < whole; kk += L) {
      kern.pack_panel(lines + kk * L, L, 1, L, cols, rows + kk, k);
    }
    for (ptrdiff_t j = 0; j < cols; ++j) {
      for (ptrdiff_t kk = whole; kk < k; ++kk) rows[j * k + kk] = lines[kk * L + j];
    }
  }
}

template <typename T>
void unpack_bias_lines(ptrdiff_t n, ptrdiff_t k, const T* panels, T* bias) {
  constexpr ptrdiff_t L = kLine<T>;
  for (ptrdiff_t j = 0; j < n; ++j) bias[j] = panels[j / L * (k + 1) * L + j % L];
}

template <typename T>
PackedWeights<T>::PackedWeights(ptrdiff_t n, ptrdiff_t k, const T* w, ptrdiff_t stride_n,
                                ptrdiff_t stride_k, const T* bias)
    : n_(n), k_(k), has_bias_(bias != nullptr), panels_(elements_in_panels<T>(n, k)) {
  pack_panels(n, k, w, stride_n, stride_k, bias, panels_.data());
}

template <typename T>
void PackedWeights<T>::unpack(T* w) const {
  unpack_panels(n_, k_, panels_.data(), w);
}

template <typename T>
void PackedWeights<T>::unpack_bias(T* bias) const {
  unpack_bias_lines(n_, k_, panels_.data(), bias);
}

#define FL_INSTANCES(T)                                                                        \
  template size_t elements_in_panels<T>(ptrdiff_t, ptrdiff_t);                                 \
  template void pack_panels<T>(ptrdiff_t, ptrdiff_t, const T*, ptrdiff_t, ptrdiff_t, const T*, \
                               T*);                                                            \
  template void unpack_panels<T>(ptrdiff_t, ptrdiff_t, const T*, T*);                          \
  template void unpack_bias_lines<T>(ptrdiff_t, ptrdiff_t, const T*, T*);
FL_INSTANCES(float)
FL_INSTANCES(double)
#undef FL_INSTANCES

template class PackedWeights<float>;
template class PackedWeights<double>;

}  // namespace fastlayer
