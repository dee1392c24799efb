// Plain data that crosses between the bindings and the core: arrays as rows of features.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../kernels/table.hpp"

namespace fastlayer {

enum class DType : int32_t {
  kBool,
  kInt8,
  kUint8,
  kInt16,
  kUint16,
  kInt32,
  kUint32,
  kInt64,
  kUint64,
  kFloat16,
  kFloat32,
  kFloat64,
};

template <typename T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::kFloat32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::kFloat64;
}

// NumPy 2 allows 64 dimensions.
constexpr int kMaxDims = 64;

// From so many rows on, copying rows apart that lie kBadStride or a multiple of it apart pays: a
// product of 1024 square went from 71 to 100 GFLOP/s on Zen 4.
constexpr ptrdiff_t kManyRows = 15;

// An array (..., cols) seen as a list of rows. Strides count bytes; leading dimensions that are one
// even stride apart have been merged, so that most arrays have a single one.
struct RowsView {
  char* data;
  DType dtype;
  ptrdiff_t rows, cols;
  ptrdiff_t col_stride;
  int leading;  // number of leading dimensions left
  ptrdiff_t shape[kMaxDims], strides[kMaxDims];

  char* row(ptrdiff_t i) const {
    if (leading == 1) return data + i * strides[0];
    char* p = data;
    for (int d = leading - 1; d >= 0; --d) {
      p += (i % shape[d]) * strides[d];
      i /= shape[d];
    }
    return p;
  }

  // Rows of T that a kernel can read or write in place: aligned, adjacent columns, one row stride.
  template <typename T>
  bool direct() const {
    constexpr ptrdiff_t size = sizeof(T);
    return dtype == dtype_of<T>() && leading == 1 && (col_stride == size || cols <= 1) &&
           strides[0] % size == 0 && reinterpret_cast<uintptr_t>(data) % size == 0;
  }

  bool collides() const { return rows >= kManyRows && strides[0] % kBadStride == 0; }
};

}  // namespace fastlayer
