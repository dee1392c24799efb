// The element-wise kernels of the table: an activation, an addition or a copy over a whole array.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "activations.inc.hpp"
#include "table.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// Up to kLanes elements; the lanes beyond `count` are 0 and are not stored.
template <typename T>
FL_INLINE Vec<T> load_up_to(const T* p, ptrdiff_t count) {
  if (count >= Vec<T>::kLanes) return Vec<T>::load(p);
  return Vec<T>::load_partial(p, static_cast<int>(count));
}
template <typename T>
FL_INLINE void store_up_to(Vec<T> v, T* p, ptrdiff_t count) {
  if (count >= Vec<T>::kLanes) return v.store(p);
  v.store_partial(p, static_cast<int>(count));
}

// y[i] = f(x[i]); y may be x. One place calls f, so that it is always inlined, tail included.
template <typename T, typename F>
FL_INLINE void map(const T* x, T* y, ptrdiff_t n, F f) {
  for (ptrdiff_t i = 0; i < n; i += Vec<T>::kLanes) {
    store_up_to(f(load_up_to(x + i, n - i)), y + i, n - i);
  }
}

template <typename T>
void activation(const ActivationArgs<T>& act, const T* x, T* y, ptrdiff_t n) {
  using V = Vec<T>;
  const V p0 = constant(act.p0);
  const V p1 = constant(act.p1);
  switch (act.kind) {
    case Activation::kIdentity:
      if (x != y) map(x, y, n, [](V v) { return v; });
      return;
    case Activation::kRelu:
      return map(x, y, n, [](V v) { return relu(v); });
    case Activation::kLeakyRelu:
      return map(x, y, n, [=](V v) { return leaky_relu(v, p0); });
    case Activation::kHardtanh:
      return map(x, y, n, [=](V v) { return hardtanh(v, p0, p1); });
    case Activation::kElu:
      return map(x, y, n, [=](V v) { return elu(v, p0); });
    case Activation::kCelu: {
      const V inverse = constant(T(1) / act.p0);
      return map(x, y, n, [=](V v) { return celu(v, p0, inverse); });
    }
    case Activation::kSelu:
      return map(x, y, n, [](V v) { return selu(v); });
    case Activation::kGelu:
      return map(x, y, n, [](V v) { return gelu(v); });
    case Activation::kGeluTanh:
      return map(x, y, n, [](V v) { return gelu_tanh(v); });
    case Activation::kSilu:
      return map(x, y, n, [](V v) { return silu(v); });
    case Activation::kMish:
      return map(x, y, n, [](V v) { return mish(v); });
    case Activation::kSigmoid:
      return map(x, y, n, [](V v) { return sigmoid(v); });
    case Activation::kLogSigmoid: {
      const auto softplus = Softplus<T, true>::of(T(1), MathConstants<T>::kLinearArg);
      return map(x, y, n, [=](V v) { return negate(softplus(negate(v))); });
    }
    case Activation::kHardsigmoid:
      return map(x, y, n, [](V v) { return hardsigmoid(v); });
    case Activation::kHardswish:
      return map(x, y, n, [](V v) { return hardswish(v); });
    case Activation::kTanh:
      return map(x, y, n, [](V v) { return tanh(v); });
    case Activation::kSoftplus:
      if (act.p0 == T(1)) return map(x, y, n, Softplus<T, true>::of(act.p0, act.p1));
      return map(x, y, n, Softplus<T, false>::of(act.p0, act.p1));
    case Activation::kSoftsign:
      return map(x, y, n, [](V v) { return softsign(v); });
    case Activation::kExp:
      return map(x, y, n, [](V v) { return exp(v); });
    case Activation::kSoftmax:
    case Activation::kLogSoftmax:
      return;  // rows.inc.hpp
  }
}

template <typename T>
void stream(const T* x, T* y, ptrdiff_t n) {
  if constexpr (Vec<T>::kStreams) {
    constexpr ptrdiff_t kLanes = Vec<T>::kLanes;
    const uintptr_t beyond = reinterpret_cast<uintptr_t>(y) % sizeof(Vec<T>);
    ptrdiff_t i = beyond ? static_cast<ptrdiff_t>((sizeof(Vec<T>) - beyond) / sizeof(T)) : 0;
    if (i > n) i = n;
    map(x, y, i, [](Vec<T> v) { return v; });
    for (; i + kLanes <= n; i += kLanes) Vec<T>::load(x + i).stream(y + i);
    map(x + i, y + i, n - i, [](Vec<T> v) { return v; });
    Vec<T>::end_stream();
  }
}

template <typename T>
void prelu(const T* x, const T* slope, T* y, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i += Vec<T>::kLanes) {
    const Vec<T> v = load_up_to(x + i, n - i);
    store_up_to(leaky_relu(v, load_up_to(slope + i, n - i)), y + i, n - i);
  }
}

template <typename T>
void add(const T* x, const T* b, T* y, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i += Vec<T>::kLanes) {
    store_up_to(load_up_to(x + i, n - i) + load_up_to(b + i, n - i), y + i, n - i);
  }
}

template <typename T>
void affine(const T* x, const T* scale, const T* shift, T* y, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i += Vec<T>::kLanes) {
    const Vec<T> v = load_up_to(x + i, n - i);
    const Vec<T> result = fma(v, load_up_to(scale + i, n - i), load_up_to(shift + i, n - i));
    store_up_to(result, y + i, n - i);
  }
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
