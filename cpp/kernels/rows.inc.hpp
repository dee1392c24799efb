// Operations over one row: softmax, log_softmax and the two normalisations.
//
// Element i is summed in lane i % kLine of one line of compensated chains, whatever the width of a
// vector, and the lanes are joined by a fixed tree: the sums are the same on every instruction set.
#pragma once

#include "elements.inc.hpp"
#include "isa.inc.hpp"
#include "math.inc.hpp"
#include "pack.inc.hpp"

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
  // As a pair with |l| <= ulp(h).
  FL_INLINE Sum<T> total() const {
    T h[kLine<T>], l[kLine<T>];
    for (int v = 0; v < kLineVecs<T>; ++v) {
      chain[v].h.store(h + v * Vec<T>::kLanes);
      chain[v].l.store(l + v * Vec<T>::kLanes);
    }
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

// The largest element; NaNs are passed over.
template <typename T>
FL_INLINE T row_maximum(const T* x, ptrdiff_t n, Vec<T> lane) {
  constexpr ptrdiff_t kLanes = Vec<T>::kLanes;
  constexpr int kChains = 4;
  const Vec<T> lowest = constant(-kInfinity<T>);
  Vec<T> m[kChains];
  for (Vec<T>& v : m) v = lowest;
  ptrdiff_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes) {
    for (int c = 0; c < kChains; ++c) m[c] = at_least(m[c], Vec<T>::load(x + i + c * kLanes));
  }
  for (; i < n; i += kLanes) m[0] = at_least(m[0], load_filled(x + i, n - i, lowest, lane));
  T lanes[kLanes];
  at_least(at_least(m[0], m[1]), at_least(m[2], m[3])).store(lanes);
  T most = lanes[0];
  for (const T e : lanes) most = most < e ? e : most;
  return most;
}

// x - m as a pair, for x <= m.
template <typename T>
FL_INLINE Pair<T> below_maximum(Vec<T> x, Vec<T> m) {
  return two_sum(x, negate(m));
}

// e^d times kScaleUp, so that it is a normal number; the factor cancels in a quotient.
template <typename T>
FL_INLINE Vec<T> exp_clamped(Pair<T> d) {
  const Vec<T> least = constant(MathConstants<T>::kExpMin);
  const auto clamped = less(d.h, least);
  return exp_scaled_up(select(clamped, least, d.h), select(clamped, Vec<T>::zero(), d.l));
}

// e^(x - m) over its sum.
template <typename T>
FL_INLINE Vec<T> softmax_of(Vec<T> e, Vec<T> sum, Vec<T> inverse) {
  const Vec<T> q = e * inverse;
  return fma(fnma(q, sum, e), inverse, q);
}

// m plus the logarithm of a scaled-up sum that holds the maximum's own 1; without it the logarithm
// keeps its relative accuracy near 0.
template <typename T>
FL_INLINE Pair<T> maximum_and_log(Vec<T> m, Vec<T> h, Vec<T> l) {
  const Vec<T> down = constant(MathConstants<T>::kScaleDown);
  const Pair<T> log_sum = log1p_any(fast_two_sum(h * down - constant(T(1)), l * down));
  const Pair<T> s = two_sum(m, log_sum.h);
  return {s.h, s.l + log_sum.l};
}
// x - c. Where the first difference is rounded it is large beside c.l.
template <typename T>
FL_INLINE Vec<T> log_softmax_of(Vec<T> x, Pair<T> c) {
  return (x - c.h) - c.l;
}

template <typename T, bool kLog>
void softmax_row(const T* x, T* y, ptrdiff_t n) {
  using V = Vec<T>;
  const V lane = lane_numbers<T>();
  const V m = constant(row_maximum(x, n, lane));
  const V offset = constant(MathConstants<T>::kScaleUp);
  LineSum<T> sums(offset);
  for_each_vector<T>(n, [&](ptrdiff_t i, int v) {
    const V e = exp_clamped(below_maximum(load_filled(x + i, n - i, m, lane), m));
    sums.add_small(v, n - i < V::kLanes ? zero_beyond(e, n - i, lane) : e);
    if (!kLog) store_up_to(e, y + i, n - i);
  });
  sums.take_off(offset);
  const Sum<T> total = sums.total();
  if (!(total.h < kInfinity<T>)) return fill_nan(y, n);
  if (kLog) {
    const Pair<T> c = maximum_and_log(m, constant(total.h), constant(total.l));
    map(x, y, n, [=](V e) { return log_softmax_of(e, c); });
  } else {
    const V sum = constant(total.h), inverse = constant(T(1) / total.h);
    map(y, y, n, [=](V e) { return softmax_of(e, sum, inverse); });
  }
}

// Rows of up to so many elements are taken a line of rows at a time: lanes are rows, and the sum's
// chains and tree, the same as above, are steps of whole vectors. A row of 10 took 72 ns by itself
// on Zen 4.
constexpr ptrdiff_t kShortRow = 128;

// One vector of rows: element i of them at columns[i * kLine], in place.
template <typename T, bool kLog>
FL_INLINE void softmax_columns(T* columns, ptrdiff_t n) {
  using V = Vec<T>;
  constexpr ptrdiff_t L = kLine<T>;
  V m = constant(-kInfinity<T>);
  for (ptrdiff_t i = 0; i < n; ++i) {
    const V e = V::load(columns + i * L);
    m = select(less(m, e), e, m);
  }
  const V offset = constant(MathConstants<T>::kScaleUp);
  Pair<T> chains[L];
  for (Pair<T>& c : chains) c = {offset, V::zero()};
  for (ptrdiff_t i = 0; i < n; ++i) {
    T* const at = columns + i * L;
    const V e = exp_clamped(below_maximum(V::load(at), m));
    Pair<T>& chain = chains[i % L];
    chain = LineSum<T>::plus(chain, e);
    if (!kLog) e.store(at);
  }
  for (Pair<T>& c : chains) c.h = c.h - offset;
  for (ptrdiff_t width = L / 2; width > 0; width /= 2) {
    for (ptrdiff_t i = 0; i < width; ++i) {
      const Pair<T> a = chains[i], b = chains[i + width];
      const Pair<T> s = two_sum(a.h, b.h);
      chains[i] = {s.h, s.l + (a.l + b.l)};
    }
  }
  const V sum = chains[0].h + chains[0].l;
  const V low = chains[0].l - (sum - chains[0].h);
  const auto finite = less(sum, constant(kInfinity<T>));
  const V inverse = constant(T(1)) / sum;
  const Pair<T> c = kLog ? maximum_and_log(m, sum, low) : Pair<T>{low, low};
  for (ptrdiff_t i = 0; i < n; ++i) {
    T* const at = columns + i * L;
    const V e = V::load(at);
    const V y = kLog ? log_softmax_of(e, c) : softmax_of(e, sum, inverse);
    select(finite, y, constant(kNan<T>)).store(at);
  }
}

// A line of rows, through a transposed copy.
template <typename T, bool kLog>
void softmax_short_rows(const T* x, ptrdiff_t ldx, T* y, ptrdiff_t ldy, ptrdiff_t n) {
  using V = Vec<T>;
  constexpr ptrdiff_t L = kLine<T>;
  alignas(64) T columns[kShortRow * L], rows[L * L];
  pack_panel(x, ldx, 1, L, n, columns, L);
  for (int v = 0; v < kLineVecs<T>; ++v) softmax_columns<T, kLog>(columns + v * V::kLanes, n);
  for (ptrdiff_t i = 0; i < n; i += L) {
    const ptrdiff_t cols = n - i < L ? n - i : L;
    if (cols == L) {
      pack_panel(columns + i * L, L, 1, L, L, y + i, ldy);
      continue;
    }
    pack_panel(columns + i * L, L, 1, cols, L, rows, L);
    for (ptrdiff_t r = 0; r < L; ++r) {
      map(rows + r * L, y + r * ldy + i, cols, [](V e) { return e; });
    }
  }
}

template <typename T, bool kLog>
void softmax(const T* x, ptrdiff_t ldx, T* y, ptrdiff_t ldy, ptrdiff_t rows, ptrdiff_t n) {
  constexpr ptrdiff_t L = kLine<T>;
  ptrdiff_t r = 0;
  if (n <= kShortRow && Vec<T>::kLanes > 1) {
    for (; r + L <= rows; r += L)
      softmax_short_rows<T, kLog>(x + r * ldx, ldx, y + r * ldy, ldy, n);
  }
  for (; r < rows; ++r) softmax_row<T, kLog>(x + r * ldx, y + r * ldy, n);
}

// A row whose sums or squares overflow is done again with its elements scaled by this.
template <typename T>
constexpr T kRowScale = sizeof(T) == 4 ? T(0x1p-80) : T(0x1p-600);

// sum(f(x[i])), the lanes beyond the row left out.
template <typename T, typename F>
FL_INLINE Sum<T> row_sum(const T* x, ptrdiff_t n, Vec<T> lane, F f) {
  LineSum<T> sums(Vec<T>::zero());
  for_each_vector<T>(n, [&](ptrdiff_t i, int v) {
    const Vec<T> e = f(load_up_to(x + i, n - i));
    sums.add(v, n - i < Vec<T>::kLanes ? zero_beyond(e, n - i, lane) : e);
  });
  return sums.total();
}

template <typename T>
bool layer_norm_scaled(const T* x, const T* weight, const T* bias, T eps, T* y, ptrdiff_t n,
                       T row_scale) {
  using V = Vec<T>;
  const V scale = constant(row_scale);
  const V lane = lane_numbers<T>();
  const T count = static_cast<T>(n);
  const Sum<T> sum = row_sum(x, n, lane, [=](V e) { return e * scale; });
  // As a pair: where the mean is large its rounding would show in what is left of the elements.
  const Pair<T> mean =
      divide(Pair<T>{constant(sum.h), constant(sum.l)}, Pair<T>{constant(count), V::zero()});
  const auto centred = [=](V e) { return fma(e, scale, negate(mean.h)) - mean.l; };
  const T squares = row_sum(x, n, lane, [=](V e) {
                      const V d = centred(e);
                      return d * d;
                    }).h;
  if (!(squares < kInfinity<T>)) return false;
  const T variance = squares / count + eps * row_scale * row_scale;
  const V inverse = constant(T(1)) / sqrt(constant(variance));
  for (ptrdiff_t i = 0; i < n; i += V::kLanes) {
    const V d = centred(load_up_to(x + i, n - i)) * inverse;
    const V w = weight ? load_up_to(weight + i, n - i) : constant(T(1));
    const V b = bias ? load_up_to(bias + i, n - i) : constant(T(-0.0));
    store_up_to(fma(d, w, b), y + i, n - i);
  }
  if (!(variance > T(0))) unify_nans(y, n);  // 0 / 0, where eps is 0
  return true;
}

template <typename T>
void layer_norm(const T* x, const T* weight, const T* bias, T eps, T* y, ptrdiff_t n) {
  if (layer_norm_scaled(x, weight, bias, eps, y, n, T(1))) return;
  if (!layer_norm_scaled(x, weight, bias, eps, y, n, kRowScale<T>)) fill_nan(y, n);
}

template <typename T>
bool rms_norm_scaled(const T* x, const T* weight, T eps, T* y, ptrdiff_t n, T row_scale) {
  using V = Vec<T>;
  const V scale = constant(row_scale);
  const T squares = row_sum(x, n, lane_numbers<T>(), [=](V e) {
                      const V s = e * scale;
                      return s * s;
                    }).h;
  if (!(squares < kInfinity<T>)) return false;
  const T variance = squares / static_cast<T>(n) + eps * row_scale * row_scale;
  const V inverse = constant(T(1)) / sqrt(constant(variance));
  for (ptrdiff_t i = 0; i < n; i += V::kLanes) {
    const V e = load_up_to(x + i, n - i) * scale * inverse;
    const V w = weight ? load_up_to(weight + i, n - i) : constant(T(1));
    store_up_to(e * w, y + i, n - i);
  }
  if (!(variance > T(0))) unify_nans(y, n);  // 0 / 0, where eps is 0
  return true;
}

template <typename T>
void rms_norm(const T* x, const T* weight, T eps, T* y, ptrdiff_t n) {
  if (rms_norm_scaled(x, weight, eps, y, n, T(1))) return;
  if (!rms_norm_scaled(x, weight, eps, y, n, kRowScale<T>)) fill_nan(y, n);
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
