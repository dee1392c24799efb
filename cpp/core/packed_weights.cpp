#include "packed_weights.hpp"

#include <limits>
#include <new>

#include "cpu.hpp"

namespace fastlayer {
namespace {

template <typename T>
size_t checked_size(ptrdiff_t n, ptrdiff_t k) {
  const size_t lines = static_cast<size_t>(k) + 1;
  const size_t columns = (static_cast<size_t>(n) + kLine<T> - 1) / kLine<T> * kLine<T>;
  if (columns != 0 && lines > std::numeric_limits<ptrdiff_t>::max() / sizeof(T) / columns) {
    throw std::bad_alloc();
  }
  return lines * columns;
}

}  // namespace

template <typename T>
PackedWeights<T>::PackedWeights(ptrdiff_t n, ptrdiff_t k, const T* w, ptrdiff_t stride_n,
                                ptrdiff_t stride_k, const T* bias)
    : n_(n), k_(k), has_bias_(bias != nullptr), panels_(checked_size<T>(n, k)) {
  constexpr ptrdiff_t L = kLine<T>;
  const Kernels<T>& kern = kernels<T>();
  for (ptrdiff_t p = 0; p < panels(); ++p) {
    const ptrdiff_t cols = n - p * L < L ? n - p * L : L;
    T* panel = panels_.data() + p * panel_stride();
    for (ptrdiff_t j = 0; j < L; ++j) panel[j] = j < cols && bias != nullptr ? bias[p * L + j] : 0;
    kern.pack_panel(w + p * L * stride_n, stride_n, stride_k, cols, k, panel + L, L);
  }
}

// The way back is the same transposition: lines are rows of it, and w has the lines' columns.
template <typename T>
void PackedWeights<T>::unpack(T* w) const {
  constexpr ptrdiff_t L = kLine<T>;
  const Kernels<T>& kern = kernels<T>();
  const ptrdiff_t whole = k_ / L * L;
  for (ptrdiff_t p = 0; p < panels(); ++p) {
    const ptrdiff_t cols = n_ - p * L < L ? n_ - p * L : L;
    const T* lines = weight_lines(p);
    T* const rows = w + p * L * k_;
    for (ptrdiff_t kk = 0; kk < whole; kk += L) {
      kern.pack_panel(lines + kk * L, L, 1, L, cols, rows + kk, k_);
    }
    for (ptrdiff_t j = 0; j < cols; ++j) {
      for (ptrdiff_t kk = whole; kk < k_; ++kk) rows[j * k_ + kk] = lines[kk * L + j];
    }
  }
}

template <typename T>
void PackedWeights<T>::unpack_bias(T* bias) const {
  for (ptrdiff_t j = 0; j < n_; ++j) bias[j] = bias_line(j / kLine<T>)[j % kLine<T>];
}

template class PackedWeights<float>;
template class PackedWeights<double>;

}  // namespace fastlayer
