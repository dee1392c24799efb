// Activations over whole arrays, two or four vectors, a group, at a time, and gelu's two formulas
// each on the elements that are its own.
//
// An object of its own, as it is scheduled in another way than the tiles: see cpp/cmake/isa.cmake.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "activations.inc.hpp"
#include "isa.inc.hpp"
#include "math.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

#ifdef FL_QUADS
constexpr bool takes(Activation kind) { return by_fours(kind); }
#else
constexpr bool takes(Activation kind) { return !by_fours(kind); }
#endif
constexpr bool takes_whole(Activation kind) { return takes(kind) && kind != Activation::kGelu; }

// Up to a whole group beyond x and y.
template <typename T, typename F>
FL_INLINE void for_each_group(const T* x, T* y, ptrdiff_t n, F f) {
  for (ptrdiff_t i = 0; i < n; i += Vec<T>::kLanes) f(Vec<T>::load(x + i)).store(y + i);
}

// For at least one group: what is left over ends a last group, which computes its other elements
// once more. y may be x, so that one is read first.
template <typename T, typename F>
FL_INLINE void map_groups(const T* x, T* y, ptrdiff_t n, F f) {
  constexpr ptrdiff_t kLanes = Vec<T>::kLanes;
  alignas(64) T last[kLanes];
  Vec<T>::load(x + n - kLanes).store(last);
  const T* from = x;
  T* to = y;
  for (ptrdiff_t count = n - n % kLanes, rest = n % kLanes;; count = kLanes, rest = 0) {
    for_each_group(from, to, count, f);
    if (rest == 0) return;
    from = last;
    to = y + n - kLanes;
  }
}

// Elements of gelu that are taken together: with both their sorts, in L1.
constexpr ptrdiff_t kTogether = 1024;
// Few of them are found one by one: so many take as long as sorting, on Zen 5.
constexpr ptrdiff_t kFewOf = 16;

template <typename T>
FL_INLINE auto is_near(Vec<T> x) {
  return less(abs(x), constant(MathConstants<T>::kNearGelu));
}

// Near formula everywhere, then the far one on the `count` elements whose bits are not in `near`.
template <typename T>
void gelu_few_far(const T* x, T* y, ptrdiff_t n, const uint64_t* near, ptrdiff_t count) {
  using V = Vec<T>;
  constexpr uint64_t kAll = ~uint64_t(0) >> (64 - V::kLanes);
  alignas(64) T far[kTogether / kFewOf + V::kLanes];
  int place[kTogether / kFewOf];
  ptrdiff_t found = 0;
  for (int i = 0; i < n; i += V::kLanes) {
    for (uint64_t rest = near[i / V::kLanes] ^ kAll; rest != 0; rest &= rest - 1) {
      place[found] = i + __builtin_ctzll(rest);
      far[found] = x[place[found]];
      ++found;
    }
  }
  V::zero().store(far + count);
  for_each_group(x, y, n, [](V v) FL_INLINED { return near_gelu(v); });
  for_each_group(far, far, count, [](V v) FL_INLINED { return far_gelu(v); });
  for (ptrdiff_t k = 0; k < count; ++k) y[place[k]] = far[k];
}

// Each formula on the elements that need it, side by side.
template <typename T>
void gelu_sorted(const T* x, T* y, ptrdiff_t n) {
  using V = Vec<T>;
  using C = MathConstants<T>;
  alignas(64) T near[kTogether + V::kLanes], far[kTogether + V::kLanes];
  ptrdiff_t near_count = 0, far_count = 0;
  for (ptrdiff_t i = 0; i < n; i += V::kLanes) {
    const V from = V::load(x + i);
    const V v = select(less(from, constant(-C::kGeluMax)), sign_bit<T>(), from);
    const auto is_curved = less(v, constant(C::kGeluOne));
    const auto a = is_near(v);
    const auto b = but_not(a, is_curved);
    store_selected(a, v, near + near_count);
    store_selected(b, v, far + far_count);
    near_count += __builtin_popcountll(bits_of(a));
    far_count += __builtin_popcountll(bits_of(b));
    v.store(y + i);  // where neither is true, the result
  }
  V::zero().store(near + near_count);
  V::zero().store(far + far_count);
  for_each_group(near, near, near_count, [](V v) FL_INLINED { return near_gelu(v); });
  for_each_group(far, far, far_count, [](V v) FL_INLINED { return far_gelu(v); });
  near_count = far_count = 0;
  for (ptrdiff_t i = 0; i < n; i += V::kLanes) {
    const V v = V::load(y + i);
    const auto a = is_near(v);
    const auto b = but_not(a, less(v, constant(C::kGeluOne)));
    load_selected(b, far + far_count, load_selected(a, near + near_count, v)).store(y + i);
    near_count += __builtin_popcountll(bits_of(a));
    far_count += __builtin_popcountll(bits_of(b));
  }
}

// Of whole groups.
template <typename T>
void gelu_groups(const T* x, T* y, ptrdiff_t n) {
  using V = Vec<T>;
  uint64_t near[kTogether / V::kLanes];
  for (ptrdiff_t begin = 0; begin < n; begin += kTogether) {
    const T* const from = x + begin;
    T* const to = y + begin;
    const ptrdiff_t some = n - begin < kTogether ? n - begin : kTogether;
    ptrdiff_t far = some;
    for (ptrdiff_t i = 0; i < some; i += V::kLanes) {
      near[i / V::kLanes] = bits_of(is_near(V::load(from + i)));
      far -= __builtin_popcountll(near[i / V::kLanes]);
    }
    if (far == 0) {
      for_each_group(from, to, some, [](V v) FL_INLINED { return near_gelu(v); });
    } else if (far <= some / kFewOf) {
      gelu_few_far(from, to, some, near, far);
    } else {
      gelu_sorted(from, to, some);
    }
  }
}

template <typename T>
void gelu_array(const T* x, T* y, ptrdiff_t n) {
  constexpr ptrdiff_t kLanes = Vec<T>::kLanes;
  alignas(64) T last[kLanes];
  Vec<T>::load(x + n - kLanes).store(last);
  gelu_groups(x, y, n - n % kLanes);
  if (n % kLanes > 0) gelu_groups(last, y + n - kLanes, kLanes);
}

template <typename T>
FL_INLINE void activation_of_groups(const ActivationArgs<T>& act, const T* x, T* y, ptrdiff_t n) {
  if constexpr (takes(Activation::kGelu)) {
    if (act.kind == Activation::kGelu) return gelu_array(x, y, n);
  }
  with_function<takes_whole>(act, [=](auto f) FL_INLINED { map_groups(x, y, n, f); });
}

}  // namespace

void activation(const ActivationArgs<float>& act, const float* x, float* y, ptrdiff_t n) {
  activation_of_groups(act, x, y, n);
}
void activation(const ActivationArgs<double>& act, const double* x, double* y, ptrdiff_t n) {
  activation_of_groups(act, x, y, n);
}

}  // namespace FL_ISA
}  // namespace fastlayer
