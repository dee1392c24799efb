// The weights of a dense layer as the kernels read them: panels of one 64-byte line of columns,
// each panel a bias line followed by k lines; columns beyond n are 0. Made once, shared, never
// changed.
#pragma once

#include <memory>

#include "../kernels/table.hpp"
#include "workspace.hpp"

namespace fastlayer {

// Of n neurons with k inputs and their bias lines. Throws std::bad_alloc for more than memory
// holds.
template <typename T>
size_t elements_in_panels(ptrdiff_t n, ptrdiff_t k);
// w (n, k) with strides in elements and bias (n,), or null for zeros, into panels and back:
// row-major (n, k), and (n,).
template <typename T>
void pack_panels(ptrdiff_t n, ptrdiff_t k, const T* w, ptrdiff_t stride_n, ptrdiff_t stride_k,
                 const T* bias, T* panels);
template <typename T>
void unpack_panels(ptrdiff_t n, ptrdiff_t k, const T* panels, T* w);
template <typename T>
void unpack_bias_lines(ptrdiff_t n, ptrdiff_t k, const T* panels, T* bias);

template <typename T>
class PackedWeights {
 public:
  using Scalar = T;

  // w (n, k) with strides in elements; bias (n,) contiguous, or null for none.
  PackedWeights(ptrdiff_t n, ptrdiff_t k, const T* w, ptrdiff_t stride_n, ptrdiff_t stride_k,
                const T* bias);

  ptrdiff_t n() const { return n_; }
  ptrdiff_t k() const { return k_; }
  bool has_bias() const { return has_bias_; }
  size_t nbytes() const { return panels_.size() * sizeof(T); }

  // Where a kernel starts reading at panel p.
  const T* bias_line(ptrdiff_t p) const { return panels_.data() + p * panel_stride(); }
  const T* weight_lines(ptrdiff_t p) const { return bias_line(p) + kLine<T>; }
  ptrdiff_t panel_stride() const { return (k_ + 1) * kLine<T>; }
  ptrdiff_t panels() const { return (n_ + kLine<T> - 1) / kLine<T>; }

  // Back to row-major (n, k) and (n,).
  void unpack(T* w) const;
  void unpack_bias(T* bias) const;

 private:
  ptrdiff_t n_, k_;
  bool has_bias_;
  AlignedArray<T> panels_;
};

}  // namespace fastlayer
