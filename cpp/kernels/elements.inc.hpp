// The element-wise kernels of the table: an activation, an addition or a copy over a whole array.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "activations.inc.hpp"
#include "isa.inc.hpp"
#include "math.inc.hpp"

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

constexpr bool any(Activation) { return true; }

template <typename T>
void activation(const ActivationArgs<T>& act, const T* x, T* y, ptrdiff_t n) {
  if (act.kind == Activation::kIdentity && x == y) return;
#ifdef FL_PAIR
  // Shorter rows gain nothing by the second way in; gelu, which counts first, loses a sixth at 100.
  if (n >= (act.kind == Activation::kGelu ? 256 : 128)) {
    return by_fours(act.kind) ? FL_QUAD::activation(act, x, y, n)
                              : FL_PAIR::activation(act, x, y, n);
  }
#endif
  with_function<any>(act, [=](auto f) { map(x, y, n, f); });
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
  }
}
template <typename T>
void end_stream() {
  if constexpr (Vec<T>::kStreams) Vec<T>::end_stream();
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
void multiply(const T* x, const T* b, T* y, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i += Vec<T>::kLanes) {
    store_up_to(load_up_to(x + i, n - i) * load_up_to(b + i, n - i), y + i, n - i);
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
