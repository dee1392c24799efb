// Arrays by the type of their elements.
#pragma once

#include <cstring>

#include "../core/workspace.hpp"
#include "arrays.hpp"

namespace fastlayer {

// Calls f with a null T* of the array's element type, unless that is another dtype.
template <typename F>
void with_float(DType dtype, F f) {
  if (dtype == DType::kFloat32) f(static_cast<float*>(nullptr));
  if (dtype == DType::kFloat64) f(static_cast<double*>(nullptr));
}

// The last axis as a contiguous vector of n elements, copied where it is not one already.
template <typename T>
const T* vector_in(const ArrayView& a, AlignedArray<T>& copy) {
  if (whole_strides<T>(a) && (a.shape[0] <= 1 || a.strides[0] == ptrdiff_t(sizeof(T)))) {
    return reinterpret_cast<const T*>(a.data);
  }
  copy = AlignedArray<T>(static_cast<size_t>(a.shape[0]));
  for (ptrdiff_t i = 0; i < a.shape[0]; ++i) {
    std::memcpy(&copy.data()[i], a.data + i * a.strides[0], sizeof(T));
  }
  return copy.data();
}

}  // namespace fastlayer
