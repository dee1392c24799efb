#include "convert.hpp"

#include <algorithm>
#include <cstring>

#include "cpu.hpp"

namespace fastlayer {
namespace {

struct Half {
  uint16_t bits;
};

// IEEE binary16 to binary32, exact for every pattern; NaN payloads move up with the mantissa.
float to_float(Half h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000u) << 16;
  const uint32_t magnitude = h.bits & 0x7fffu;
  float value;
  if (magnitude >= 0x7c00u) {
    const uint32_t bits = sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13);
    std::memcpy(&value, &bits, sizeof value);
  } else if (magnitude < 0x400u) {
    value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;  // 2^-24
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits |= sign;
    std::memcpy(&value, &bits, sizeof value);
  } else {
    const uint32_t bits = sign | ((magnitude << 13) + 0x38000000u);
    std::memcpy(&value, &bits, sizeof value);
  }
  return value;
}

template <typename T, typename S>
T convert(S s) {
  return static_cast<T>(s);
}
template <>
float convert<float, Half>(Half h) {
  return to_float(h);
}
template <>
double convert<double, Half>(Half h) {
  return to_float(h);
}
// NumPy keeps booleans as bytes that are 0 or 1, but a view may hold any byte.
struct Boolean {
  uint8_t byte;
};
template <>
float convert<float, Boolean>(Boolean b) {
  return b.byte != 0 ? 1.0f : 0.0f;
}
template <>
double convert<double, Boolean>(Boolean b) {
  return b.byte != 0 ? 1.0 : 0.0;
}

// memcpy because user arrays may be misaligned.
template <typename T, typename S>
void load_row(const char* from, ptrdiff_t stride, ptrdiff_t cols, T* to) {
  constexpr ptrdiff_t size = sizeof(S);
  if (stride == size) {
    for (ptrdiff_t j = 0; j < cols; ++j) {
      S s;
      std::memcpy(&s, from + j * size, sizeof s);
      to[j] = convert<T>(s);
    }
    return;
  }
  for (ptrdiff_t j = 0; j < cols; ++j) {
    S s;
    std::memcpy(&s, from + j * stride, sizeof s);
    to[j] = convert<T>(s);
  }
}

template <typename T>
using LoadRow = void (*)(const char*, ptrdiff_t, ptrdiff_t, T*);

template <typename T>
LoadRow<T> row_loader(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return &load_row<T, Boolean>;
    case DType::kInt8:
      return &load_row<T, int8_t>;
    case DType::kUint8:
      return &load_row<T, uint8_t>;
    case DType::kInt16:
      return &load_row<T, int16_t>;
    case DType::kUint16:
      return &load_row<T, uint16_t>;
    case DType::kInt32:
      return &load_row<T, int32_t>;
    case DType::kUint32:
      return &load_row<T, uint32_t>;
    case DType::kInt64:
      return &load_row<T, int64_t>;
    case DType::kUint64:
      return &load_row<T, uint64_t>;
    case DType::kFloat16:
      return &load_row<T, Half>;
    case DType::kFloat32:
      return &load_row<T, float>;
    case DType::kFloat64:
      break;
  }
  return &load_row<T, double>;
}

// Rows lie one element apart: columns are samples. The kernels transpose such arrays.
template <typename T>
bool is_transposed(const RowsView& v) {
  constexpr ptrdiff_t size = sizeof(T);
  return v.dtype == dtype_of<T>() && v.leading == 1 && v.strides[0] == size && v.cols > 1 &&
         v.col_stride % size == 0 && reinterpret_cast<uintptr_t>(v.data) % size == 0;
}

}  // namespace

template <typename T>
void load_rows(const RowsView& x, ptrdiff_t first, ptrdiff_t count, T* to, ptrdiff_t ld,
               ptrdiff_t room) {
  constexpr ptrdiff_t L = kLine<T>;
  ptrdiff_t done = 0;  // columns
  if (is_transposed<T>(x)) {
    const ptrdiff_t stride = x.col_stride / ptrdiff_t(sizeof(T));
    const T* from = reinterpret_cast<const T*>(x.row(first));
    // Whole lines are written: zeros behind the last column, where a row has room for them.
    for (; done < x.cols && done + L <= room; done += L) {
      kernels<T>().pack_panel(from + done * stride, stride, 1, std::min(L, x.cols - done), count,
                              to + done, ld);
    }
  }
  if (done >= x.cols) return;
  const LoadRow<T> load = row_loader<T>(x.dtype);
  for (ptrdiff_t i = 0; i < count; ++i) {
    const char* from = x.row(first + i) + done * x.col_stride;
    load(from, x.col_stride, x.cols - done, to + i * ld + done);
  }
}

template <typename T>
void store_rows(const T* from, ptrdiff_t ld, const RowsView& y, ptrdiff_t first, ptrdiff_t count) {
  constexpr ptrdiff_t size = sizeof(T), L = kLine<T>;
  ptrdiff_t i = 0;
  if (is_transposed<T>(y)) {
    T* to = reinterpret_cast<T*>(y.row(first));
    for (; i + L <= count; i += L) {
      kernels<T>().pack_panel(from + i * ld, ld, 1, L, y.cols, to + i, y.col_stride / size);
    }
  }
  for (; i < count; ++i) {
    char* to = y.row(first + i);
    const T* row = from + i * ld;
    if (y.col_stride == size) {
      std::memcpy(to, row, static_cast<size_t>(y.cols) * sizeof(T));
    } else {
      for (ptrdiff_t j = 0; j < y.cols; ++j) std::memcpy(to + j * y.col_stride, row + j, sizeof(T));
    }
  }
}

template void load_rows<float>(const RowsView&, ptrdiff_t, ptrdiff_t, float*, ptrdiff_t, ptrdiff_t);
template void load_rows<double>(const RowsView&, ptrdiff_t, ptrdiff_t, double*, ptrdiff_t,
                                ptrdiff_t);
template void store_rows<float>(const float*, ptrdiff_t, const RowsView&, ptrdiff_t, ptrdiff_t);
template void store_rows<double>(const double*, ptrdiff_t, const RowsView&, ptrdiff_t, ptrdiff_t);

}  // namespace fastlayer
