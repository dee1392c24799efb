// The classes behind _core.PackedWeights and _core.Version: the weights of a layer, and how often
// they have changed.
#pragma once

#include <atomic>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <variant>

#include "../core/packed_weights.hpp"
#include "arrays.hpp"

namespace fastlayer {

[[noreturn]] inline void refuse(const char* what) { throw std::invalid_argument(what); }

// Elements of a 1-D array of dtype T, any stride.
template <typename T>
AlignedArray<T> vector_of(py::handle object, ptrdiff_t size) {
  ArrayView a;
  if (!borrow(object, a) || a.dtype != dtype_of<T>() || a.ndim != 1 || a.shape[0] != size) {
    refuse("expected a 1-D array of the program's dtype, one element for each feature");
  }
  AlignedArray<T> copy(static_cast<size_t>(size));
  for (ptrdiff_t i = 0; i < size; ++i)
    std::memcpy(&copy.data()[i], a.data + i * a.strides[0], sizeof(T));
  return copy;
}

template <typename T>
const char* dtype_name(const T&) {
  return sizeof(typename T::Scalar) == 4 ? "float32" : "float64";
}

class PyPackedWeights {
 public:
  PyPackedWeights(py::handle weight, py::handle bias) {
    ArrayView w;
    if (!borrow(weight, w) || w.ndim != 2) refuse("weight: expected a 2-D array");
    if (w.dtype == DType::kFloat32) {
      pack<float>(w, bias);
    } else if (w.dtype == DType::kFloat64) {
      pack<double>(w, bias);
    } else {
      refuse("weight: expected float32 or float64");
    }
  }

  template <typename T>
  std::shared_ptr<const PackedWeights<T>> get() const {
    const auto* p = std::get_if<std::shared_ptr<const PackedWeights<T>>>(&packed_);
    if (p == nullptr) refuse("weights and program have different dtypes");
    return *p;
  }

  template <typename F>
  auto visit(F f) const {
    return std::visit([&](const auto& p) { return f(*p); }, packed_);
  }

 private:
  template <typename T>
  void pack(const ArrayView& w, py::handle bias) {
    constexpr ptrdiff_t size = sizeof(T);
    const ptrdiff_t n = w.shape[0], k = w.shape[1];
    AlignedArray<T> b;
    if (!bias.is_none()) b = vector_of<T>(bias, n);
    const T* const bias_data = bias.is_none() ? nullptr : b.data();
    if (!whole_strides<T>(w)) refuse("weight: misaligned");
    packed_ = std::make_shared<const PackedWeights<T>>(n, k, reinterpret_cast<const T*>(w.data),
                                                       w.strides[0] / size, w.strides[1] / size,
                                                       bias_data);
  }

  std::variant<std::shared_ptr<const PackedWeights<float>>,
               std::shared_ptr<const PackedWeights<double>>>
      packed_;
};

// Counts the changes of something that programs are made from. They share the counter itself, and
// find out about a change without asking Python.
class PyVersion {
 public:
  using Counter = std::atomic<uint64_t>;

  uint64_t value() const { return counter_->load(); }
  void advance() { counter_->fetch_add(1); }
  std::shared_ptr<const Counter> counter() const { return counter_; }

 private:
  std::shared_ptr<Counter> counter_ = std::make_shared<Counter>(0);
};

}  // namespace fastlayer
