// Sums over one row, for softmax, log_softmax and the two normalisations.
//
// Element i is summed in lane i % kLine of one line of compensated chains, whatever the width of a
// vector, and the lanes are joined by a fixed tree: the sums are the same on every instruction set.
#pragma once

#include "elements.inc.hpp"
#include "isa.inc.hpp"
#include "math.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

template <typename T>
struct Sum {
  T h, l;
};

template <typename T>
FL_INLINE Sum<T> join(Sum<T> a, Sum<T> b) {
  const T h = a.h + b.h;
  const T v = h - a.h;
  return {h, ((a.h - (h - v)) + (b.h - v)) + (a.l + b.l)};
}

// One compensated sum for each lane of a line, from `offset` on.
template <typename T>
struct LineSum {
  Pair<T> chain[kLineVecs<T>];

  explicit FL_INLINE LineSum(Vec<T> offset) {
    for (Pair<T>& c : chain) c = {offset, Vec<T>::zero()};
  }
  FL_INLINE void add(int vector, Vec<T> x) {
    const Pair<T> s = two_sum(chain[vector].h, x);
    chain[vector] = {s.h, chain[vector].l + s.l};
  }
  // For 0 <= x <= offset: the sum so far is never the smaller term.
  FL_INLINE void add_small(int vector, Vec<T> x) { chain[vector] = plus(chain[vector], x); }
  static FL_INLINE Pair<T> plus(Pair<T> sum, Vec<T> x) {
    const Pair<T> s = fast_two_sum(sum.h, x);
    return {s.h, sum.l + s.l};
  }
  // Exact: a sum is a multiple of the last place of its offset.
  FL_INLINE void take_off(Vec<T> offset) {
    for (Pair<T>& c : chain) c.h = c.h - offset;
  }
  FL_INLINE void store(T* h, T* l) const {
    for (int v = 0; v < kLineVecs<T>; ++v) {
      chain[v].h.store(h + v * Vec<T>::kLanes);
      chain[v].l.store(l + v * Vec<T>::kLanes);
    }
  }
  // As a pair with |l| <= ulp(h).
  FL_INLINE Sum<T> total() const {
    T h[kLine<T>], l[kLine<T>];
    store(h, l);
    for (int width = kLine<T> / 2; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) {
        const Sum<T> s = join(Sum<T>{h[i], l[i]}, Sum<T>{h[i + width], l[i + width]});
        h[i] = s.h;
        l[i] = s.l;
      }
    }
    const T sum = h[0] + l[0];
    return {sum, l[0] - (sum - h[0])};
  }
};

// Calls body(i, vector) for each vector of a row, `vector` counting within its line.
template <typename T, typename F>
FL_INLINE void for_each_vector(ptrdiff_t n, F body) {
  for (ptrdiff_t line = 0; line < n; line += kLine<T>) {
    for (int v = 0; v < kLineVecs<T>; ++v) {
      const ptrdiff_t i = line + v * Vec<T>::kLanes;
      if (i < n) body(i, v);
    }
  }
}

// x[i, n) with the lanes beyond the row holding `filler`.
template <typename T>
FL_INLINE Vec<T> load_filled(const T* x, ptrdiff_t count, Vec<T> filler, Vec<T> lane) {
  if (count >= Vec<T>::kLanes) return Vec<T>::load(x);
  const int rest = static_cast<int>(count);
  return select(less(lane, constant(static_cast<T>(rest))), Vec<T>::load_partial(x, rest), filler);
}
template <typename T>
FL_INLINE Vec<T> zero_beyond(Vec<T> x, ptrdiff_t count, Vec<T> lane) {
  return select(less(lane, constant(static_cast<T>(count))), x, Vec<T>::zero());
}
template <typename T>
FL_INLINE Vec<T> lane_numbers() {
  T numbers[Vec<T>::kLanes];
  for (int i = 0; i < Vec<T>::kLanes; ++i) numbers[i] = static_cast<T>(i);
  return Vec<T>::load(numbers);
}

// One NaN for all: the sign of one that arithmetic makes up differs between processors.
template <typename T>
constexpr T kNan = static_cast<T>(__builtin_nan(""));

template <typename T>
FL_INLINE void fill_nan(T* y, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; ++i) y[i] = kNan<T>;
}
template <typename T>
FL_INLINE void unify_nans(T* y, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; ++i) y[i] = y[i] == y[i] ? y[i] : kNan<T>;
}

template <typename T>
constexpr T kInfinity = static_cast<T>(__builtin_inf());

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
