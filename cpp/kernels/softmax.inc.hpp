// softmax and log_softmax over rows.
#pragma once

#include "elements.inc.hpp"
#include "isa.inc.hpp"
#include "math.inc.hpp"
#include "pack.inc.hpp"
#include "rows.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// The largest and the least element in each lane; NaNs are passed over.
template <typename T>
struct Extent {
  Vec<T> most, least;

  static FL_INLINE Extent nothing() { return {constant(-kInfinity<T>), constant(kInfinity<T>)}; }
  FL_INLINE void add(Vec<T> x) {
    most = at_least(most, x);
    least = at_most(least, x);
  }
  FL_INLINE void add(const Extent& e) {
    most = at_least(most, e.most);
    least = at_most(least, e.least);
  }

  static FL_INLINE Extent of(const T* x, ptrdiff_t n, Vec<T> lane) {
    constexpr ptrdiff_t kLanes = Vec<T>::kLanes;
    Extent a = nothing(), b = nothing();
    if (n < kLanes) {
      if (n > 0) a.add(load_filled(x, n, constant(x[0]), lane));
      return a;
    }
    ptrdiff_t i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
      a.add(Vec<T>::load(x + i));
      b.add(Vec<T>::load(x + i + kLanes));
    }
    if (i + kLanes < n) a.add(Vec<T>::load(x + i));
    b.add(Vec<T>::load(x + n - kLanes));  // some elements once more
    a.add(b);
    return a;
  }
};

// e^(x - m) times kScaleUp, so that it is a normal number, for x <= m; the factor cancels in a
// quotient. kPlain: no x lies below m by more than -kExpMin.
template <bool kPlain, typename T>
FL_INLINE Vec<T> exp_below(Vec<T> x, Vec<T> minus_m) {
  // The larger of the two in magnitude is the one below: their sum is not above 0.
  const Pair<T> d = fast_two_sum(at_most(x, minus_m), at_least(x, minus_m));
  if constexpr (kPlain) return exp_scaled_up(d.h, d.l);
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

// Vectors of a row that are taken side by side: one by itself waits for its results.
template <typename T>
constexpr int kTogether = kLineVecs < T >> 1 ? kLineVecs<T> : 2;

// Where the last vectors of a row begin, which are not kTogether whole ones, and what they hold.
template <typename T>
struct RowEnd {
  using Mask = decltype(less(Vec<T>::zero(), Vec<T>::zero()));
  ptrdiff_t begin;
  int count[kTogether<T>];
  Mask inside[kTogether<T>];

  FL_INLINE RowEnd(ptrdiff_t n, Vec<T> lane) {
    constexpr ptrdiff_t kLanes = Vec<T>::kLanes;
    begin = n - n % (kTogether<T> * kLanes);
    for (int v = 0; v < kTogether<T>; ++v) {
      const ptrdiff_t left = n - begin - v * kLanes;
      count[v] = static_cast<int>(left > kLanes ? kLanes : left > 0 ? left : 0);
      inside[v] = less(lane, constant(static_cast<T>(count[v])));
    }
  }
};

// Where the next line of rows is read and, where it lies far, written, in elements from this one; 0
// where it is not fetched.
struct Ahead {
  ptrdiff_t x, y;
};

// The vectors of the next line of rows in the place of kTogether vectors of this one.
template <typename T>
FL_INLINE void fetch(const T* x, T* y, Ahead ahead) {
  for (ptrdiff_t i = 0; i < kTogether<T> * Vec<T>::kLanes; i += kLine<T>) {
    if (ahead.x != 0) FL_PREFETCH(x + ahead.x + i);
    if (ahead.y != 0) FL_PREFETCH_WRITE_L2(y + ahead.y + i);
  }
}

// The sum of e^(x - m), and where not kLog the terms in y. A row of the next line is
// fetched meanwhile.
template <bool kLog, bool kPlain, typename T>
FL_INLINE LineSum<T> sum_of_exps(const T* x, T* y, ptrdiff_t n, T m, const RowEnd<T>& end,
                                 Ahead ahead) {
  using V = Vec<T>;
  const V minus_m = constant(-m);
  const V offset = constant(MathConstants<T>::kScaleUp);
  LineSum<T> sums(offset);
  ptrdiff_t i = 0;
  for (; i < end.begin; i += kTogether<T> * V::kLanes) {
    fetch(x + i, y + i, ahead);
    V e[kTogether<T>];
    for (int v = 0; v < kTogether<T>; ++v) {
      e[v] = exp_below<kPlain>(V::load(x + i + v * V::kLanes), minus_m);
    }
    for (int v = 0; v < kTogether<T>; ++v) {
      sums.add_small(v % kLineVecs<T>, e[v]);
      if (!kLog) e[v].store(y + i + v * V::kLanes);
    }
  }
  // Whole and part by the same masks: a branch between them for each takes longer.
  if (i < n) {
    fetch(x + i, y + i, ahead);
    for (int v = 0; v < kTogether<T>; ++v, i += V::kLanes) {
      if (v > 0 && end.count[v] == 0) break;
      const V from = select(end.inside[v], V::load_partial(x + i, end.count[v]), constant(m));
      const V e = exp_below<kPlain>(from, minus_m);
      sums.add_small(v % kLineVecs<T>, select(end.inside[v], e, V::zero()));
      if (!kLog) e.store_partial(y + i, end.count[v]);
    }
  }
  sums.take_off(offset);
  return sums;
}

// Whether no element lies so far below its maximum that its exponent must be clamped.
template <typename T>
FL_INLINE bool is_plain(T most, Vec<T> least) {
  return most + largest_lane(negate(least)) < -MathConstants<T>::kExpMin;
}

// y[i] = f(x[i]) over a row; y may be x. The last vector is a whole one where there is one: part of
// a vector that is stored holds up a load of what lies beyond it.
template <typename T, typename F>
FL_INLINE void map_row(const T* x, T* y, ptrdiff_t n, F f) {
  using V = Vec<T>;
  if (n < V::kLanes) return map(x, y, n, f);
  const V last = f(V::load(x + n - V::kLanes));
  for (ptrdiff_t i = 0; i < n - V::kLanes; i += V::kLanes) f(V::load(x + i)).store(y + i);
  last.store(y + n - V::kLanes);
}

// x, or y where not kLog, to the result, with the sum of the row.
template <bool kLog, typename T>
FL_INLINE void softmax_result(const T* x, T* y, ptrdiff_t n, T sum, T inverse, Pair<T> c) {
  if (!(sum < kInfinity<T>)) return fill_nan(y, n);
  if (kLog) {
    map_row(x, y, n, [=](Vec<T> e) { return log_softmax_of(e, c); });
  } else {
    const Vec<T> s = constant(sum), i = constant(inverse);
    map_row(y, y, n, [=](Vec<T> e) { return softmax_of(e, s, i); });
  }
}

template <typename T, bool kLog>
void softmax_row(const T* x, T* y, ptrdiff_t n) {
  const Vec<T> lane = lane_numbers<T>();
  const RowEnd<T> end(n, lane);
  const Extent<T> extent = Extent<T>::of(x, n, lane);
  const T m = largest_lane(extent.most);
  const Sum<T> total = is_plain(m, extent.least)
                           ? sum_of_exps<kLog, true>(x, y, n, m, end, Ahead{}).total()
                           : sum_of_exps<kLog, false>(x, y, n, m, end, Ahead{}).total();
  Pair<T> c{};
  if (kLog) c = maximum_and_log(constant(m), constant(total.h), constant(total.l));
  softmax_result<kLog>(x, y, n, total.h, T(1) / total.h, c);
}

// Node of the tree that joins a sum's chains, of columns: chain i of one vector of rows stands at
// h[i * kLine] and l[i * kLine].
template <int kWidth, typename T>
FL_INLINE Pair<T> joined(const T* h, const T* l) {
  constexpr ptrdiff_t L = kLine<T>;
  if constexpr (kWidth == L) {
    return {Vec<T>::load(h), Vec<T>::load(l)};
  } else {
    const Pair<T> a = joined<2 * kWidth>(h, l);
    const Pair<T> b = joined<2 * kWidth>(h + kWidth * L, l + kWidth * L);
    const Pair<T> s = two_sum(a.h, b.h);
    return {s.h, s.l + (a.l + b.l)};
  }
}

// A line of rows as columns, in vectors as they are about to be loaded: halves of one that have
// just been stored would have to reach the cache first. `count` is a multiple of LaneVec's kQuad.
template <typename T>
FL_INLINE void to_columns(const T* rows, ptrdiff_t ld, ptrdiff_t count, T* columns) {
  using V = LaneVec<T>;
  constexpr int kVecs = static_cast<int>(kLine<T>) / V::kLanes;
  for (ptrdiff_t i = 0; i < count; i += V::kQuad) {
    V part[kVecs][V::kQuad];
    for (int v = 0; v < kVecs; ++v) {
      V::load_transposed(rows + v * V::kLanes * ld + i, ld, part[v]);
    }
    for (int c = 0; c < V::kQuad; ++c) {
      T* const to = columns + (i + c) * kLine<T>;
      for (int v = 0; v < kVecs; ++v) {
        if constexpr (V::kLanes == Vec<T>::kLanes) {
          part[v][c].store(to + v * V::kLanes);
        } else {
          Vec<T>::joined(part[v][c], part[v + 1][c]).store(to + v * V::kLanes);
          ++v;
        }
      }
    }
  }
}

// What the results of a line of rows are made of.
template <typename T>
struct LineOfRows {
  alignas(64) T m[kLine<T>], sum[kLine<T>], factor[kLine<T>], rest[kLine<T>];

  // From the chains of its sums as columns, for rows [at, at + kLanes).
  template <bool kLog>
  FL_INLINE void finish(const T* h, const T* l, ptrdiff_t at) {
    const Pair<T> s = joined<1>(h + at, l + at);
    const Vec<T> total = s.h + s.l;
    total.store(sum + at);
    if (kLog) {
      const Pair<T> c = maximum_and_log(Vec<T>::load(m + at), total, s.l - (total - s.h));
      c.h.store(factor + at);
      c.l.store(rest + at);
    } else {
      (constant(T(1)) / total).store(factor + at);
    }
  }
};

// A line of rows. What is done across lanes is done for all rows at once, on columns: the steps
// are the same.
template <typename T, bool kLog>
void softmax_line_of_rows(const T* x, ptrdiff_t ldx, T* y, ptrdiff_t ldy, ptrdiff_t n, bool far) {
  using V = Vec<T>;
  constexpr ptrdiff_t L = kLine<T>;
  const V lane = lane_numbers<T>();
  const RowEnd<T> end(n, lane);
  alignas(64) T h[L * L], l[L * L], columns_h[L * L], columns_l[L * L];
  LineOfRows<T> line;
  Extent<T> all = Extent<T>::nothing();
  for (ptrdiff_t r = 0; r < L; ++r) {
    const Extent<T> extent = Extent<T>::of(x + r * ldx, n, lane);
    extent.most.store(h + r * V::kLanes);
    all.add(extent);
  }
  to_columns(h, V::kLanes, V::kLanes, columns_h);
  for (int v = 0; v < kLineVecs<T>; ++v) {
    V most = constant(-kInfinity<T>);
    for (int i = 0; i < V::kLanes; ++i) {
      most = at_least(most, V::load(columns_h + i * L + v * V::kLanes));
    }
    most.store(line.m + v * V::kLanes);
  }
  const bool plain = is_plain(largest_lane(all.most), all.least);
  // x: 2 to 4 % of rows in L2 and 16 % of rows in memory, y: 10 % of rows in memory, on Zen 5.
  const Ahead ahead = {n <= kFetchedRow ? L * ldx : 0, n <= kFetchedRow && far ? L * ldy : 0};
  for (ptrdiff_t r = 0; r < L; ++r) {
    const T* const from = x + r * ldx;
    T* const to = y + r * ldy;
    const LineSum<T> sums = plain ? sum_of_exps<kLog, true>(from, to, n, line.m[r], end, ahead)
                                  : sum_of_exps<kLog, false>(from, to, n, line.m[r], end, ahead);
    sums.store(h + r * L, l + r * L);
  }
  to_columns(h, L, L, columns_h);
  to_columns(l, L, L, columns_l);
  for (int v = 0; v < kLineVecs<T>; ++v) {
    line.template finish<kLog>(columns_h, columns_l, v * V::kLanes);
  }
  for (ptrdiff_t r = 0; r < L; ++r) {
    Pair<T> c{};
    if (kLog) c = {constant(line.factor[r]), constant(line.rest[r])};
    softmax_result<kLog>(x + r * ldx, y + r * ldy, n, line.sum[r], line.factor[r], c);
  }
}

// Up to so many elements, rows are transposed whole: 24 elements take 0.7 (AVX-512) and 1.1 (AVX2)
// of the time that they take lane by lane, 32 elements 1.0, on Zen 5.
template <typename T>
constexpr ptrdiff_t kNarrowRow = 2 * kLine<T>;

// The same for narrow rows, each lane a row. A row of 10 took 72 ns by itself on Zen 4.
template <typename T, bool kLog>
void softmax_narrow_rows(const T* x, ptrdiff_t ldx, T* y, ptrdiff_t ldy, ptrdiff_t n) {
  using V = Vec<T>;
  constexpr ptrdiff_t L = kLine<T>, ld = kNarrowRow<T>;
  alignas(64) T rows[L * ld], columns[L * ld], h[L * L], l[L * L];
  LineOfRows<T> line;
  // Rows of whole lines, where they lie within these rows: the next row's part is written over.
  const ptrdiff_t width = (n + L - 1) / L * L;
  const ptrdiff_t whole = n * L < width ? 0 : (n * L - width) / n + 1;
  if (n == width) {
    to_columns(x, ldx, n, columns);
  } else {
    for (ptrdiff_t r = 0; r < L; ++r) {
      const ptrdiff_t count = ldx == n && r < whole ? width : n;
      map(x + r * ldx, rows + r * ld, count, [](V e) { return e; });
    }
    to_columns(rows, ld, width, columns);
  }
  const V offset = constant(MathConstants<T>::kScaleUp);
  for (int v = 0; v < kLineVecs<T>; ++v) {
    const ptrdiff_t at = v * V::kLanes;
    Extent<T> extent = Extent<T>::nothing();
    for (ptrdiff_t i = 0; i < n; ++i) extent.add(V::load(columns + i * L + at));
    extent.most.store(line.m + at);
    const V minus_m = negate(extent.most);
    const auto add_exps = [&](auto exp) {
      const auto add = [&](Pair<T> chain, ptrdiff_t k) {
        const V e = exp(V::load(columns + k));
        if (!kLog) e.store(columns + k);
        return LineSum<T>::plus(chain, e);
      };
      ptrdiff_t i = at;
      for (; i < L * (n < L ? n : L); i += L) {
        Pair<T> chain = add({offset, V::zero()}, i);
        if (i + L * L < L * n) chain = add(chain, i + L * L);
        (chain.h - offset).store(h + i);
        chain.l.store(l + i);
      }
      for (; i < L * L; i += L) {
        V::zero().store(h + i);
        V::zero().store(l + i);
      }
    };
    if (is_plain(largest_lane(extent.most), extent.least)) {
      add_exps([=](V e) { return exp_below<true>(e, minus_m); });
    } else {
      add_exps([=](V e) { return exp_below<false>(e, minus_m); });
    }
    line.template finish<kLog>(h, l, at);
    const V sum = V::load(line.sum + at), factor = V::load(line.factor + at);
    const Pair<T> c = {factor, kLog ? V::load(line.rest + at) : V::zero()};
    const auto finite = less(sum, constant(kInfinity<T>));
    for (ptrdiff_t i = at; i < n * L; i += L) {
      const V e = V::load(columns + i);
      const V result = kLog ? log_softmax_of(e, c) : softmax_of(e, sum, factor);
      select(finite, result, constant(kNan<T>)).store(columns + i);
    }
  }
  for (ptrdiff_t i = 0; i < width; i += L) {
    const bool direct = n == width;
    transpose_line(columns + i * L, L, L, direct ? y + i : rows + i, direct ? ldy : ld);
  }
  if (n == width) return;
  for (ptrdiff_t r = 0; r < L; ++r) {
    const ptrdiff_t count = ldy == n && r < whole ? width : n;
    map(rows + r * ld, y + r * ldy, count, [](V e) { return e; });
  }
}

// Longer rows are taken one by one. A line of these takes 64 KB, and still gains 4 to 16 % from L2
// (1000 elements, Zen 5).
constexpr ptrdiff_t kShortRow = 64 * 1024 / kLineBytes;

template <typename T, bool kLog>
void softmax(const T* x, ptrdiff_t ldx, T* y, ptrdiff_t ldy, ptrdiff_t rows, ptrdiff_t n,
             bool far) {
  constexpr ptrdiff_t L = kLine<T>;
  ptrdiff_t r = 0;
  if (n > 0 && n <= kShortRow && Vec<T>::kLanes > 1) {
    for (; r + L <= rows; r += L) {
      const T* const from = x + r * ldx;
      T* const to = y + r * ldy;
      if (n <= kNarrowRow<T>) {
        softmax_narrow_rows<T, kLog>(from, ldx, to, ldy, n);
      } else {
        softmax_line_of_rows<T, kLog>(from, ldx, to, ldy, n, far);
      }
    }
  }
  for (; r < rows; ++r) softmax_row<T, kLog>(x + r * ldx, y + r * ldy, n);
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
