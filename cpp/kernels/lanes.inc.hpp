// y = activation(x @ w.T + bias) where one side has only a few vectors: lanes are the rows of the
// long side, transposed on the way into the registers, so that no lane idles. A layer of one output
// over many samples is such a product, and so is one sample times plain (n, k) weights.
#pragma once

#include "elements.inc.hpp"
#include "isa.inc.hpp"
#include "pack.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// Vectors of rows at a time, for `count` vectors on the other side: enough sums in flight to hide
// the 4 cycles of an FMA, and all of them in registers.
constexpr int lane_vecs(int count) {
  return count == 1 ? kShape.registers / 8 : count <= kShape.registers / 8 ? 2 : 1;
}

// As many vectors as a register tile has rows, and a line of b holds.
template <typename T>
constexpr int most_lane_vectors() {
  return kShape.max_rows < kLine<T> ? kShape.max_rows : static_cast<int>(kLine<T>);
}

// A panel with up to so many columns in use goes by lanes; a vector of rows costs about 12 FMAs'
// time to transpose on Zen 4, which a panel of more columns does not waste.
template <typename T>
constexpr ptrdiff_t lane_columns() {
  constexpr ptrdiff_t most = kLine<T> * kShape.lane_share / 16;
  return most < most_lane_vectors<T>() ? most : most_lane_vectors<T>();
}

// Rows that come from memory are fetched into L2 so far ahead, in bytes: 1024 and 2048 reach the
// memory's bandwidth on Zen 4 (one row of 4000 by 4096 plain weights: 2.9 ms, 5.0 without).
constexpr ptrdiff_t kLaneAhead = 1024;
// Below this size of all rows, in bytes, they are in L2 and fetching costs a tenth.
constexpr ptrdiff_t kLaneFar = 1024 * 1024;

template <typename T, int P>
FL_INLINE void prefetch_rows(const T* a, ptrdiff_t lda) {
  for (int r = 0; r < P * LaneVec<T>::kLanes; ++r) {
    __builtin_prefetch(a + r * lda + kLaneAhead / ptrdiff_t(sizeof(T)), 0, 2);
  }
}

// Adds columns [first, Q) of the group of Q at `a` and `b`. Each value of b is fetched once for all
// P: loads, not FMAs, would be the limit.
template <typename T, int J, int P, int S>
FL_INLINE void add_quad(const T* a, ptrdiff_t lda, const T* b, int first, LaneVec<T> (&acc)[J][P]) {
  using V = LaneVec<T>;
  V columns[P][V::kQuad];
  for (int p = 0; p < P; ++p) V::load_transposed(a + p * V::kLanes * lda, lda, columns[p]);
#pragma GCC unroll 4
  for (int c = 0; c < V::kQuad; ++c) {
    if (c < first) continue;  // first is 0, a constant, but in the tail
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j) {
      const V value = V::set1(b[c * S + j]);
      for (int p = 0; p < P; ++p) acc[j][p] = fma(value, columns[p][c], acc[j][p]);
    }
  }
}

// Adds `count` columns. Where that is no multiple of Q, up to Q - 1 columns before them are read.
template <typename T, int J, int P, int S>
FL_INLINE void add_columns(const T* a, ptrdiff_t lda, const T* b, ptrdiff_t count, bool far,
                           LaneVec<T> (&acc)[J][P]) {
  constexpr ptrdiff_t Q = LaneVec<T>::kQuad;
  for (; count >= kLine<T>; count -= kLine<T>) {
    if (far) prefetch_rows<T, P>(a, lda);
#pragma GCC unroll 1
    for (ptrdiff_t q = 0; q < kLine<T> / Q; ++q, a += Q, b += Q * S) {
      add_quad<T, J, P, S>(a, lda, b, 0, acc);
    }
  }
#pragma GCC unroll 1
  for (; count >= Q; count -= Q, a += Q, b += Q * S) add_quad<T, J, P, S>(a, lda, b, 0, acc);
  if (count > 0) {
    const ptrdiff_t back = Q - count;
    add_quad<T, J, P, S>(a - back, lda, b - back * S, static_cast<int>(back), acc);
  }
}

// One block of the sum for P * kLanes rows from `row` on and J vectors; total = c + a.
template <typename T, int J, int P, int S>
void lane_tile(const LaneArgs<T>& t, ptrdiff_t row, ptrdiff_t k0, T* total) {
  using V = LaneVec<T>;
  V acc[J][P];
  for (int j = 0; j < J; ++j) {
    for (int p = 0; p < P; ++p) acc[j][p] = V::zero();
  }
  const ptrdiff_t kc = t.k - k0 < kSumBlock ? t.k - k0 : kSumBlock;
  const T* a = t.a + row * t.lda + k0;
  const T* b = t.b + k0 * S;
  if (is_bad_stride<T>(t.lda)) {
    constexpr ptrdiff_t rows = P * V::kLanes, C = kSideBySide<T>, lead = kLine<T>;
    constexpr ptrdiff_t ld = lead + C + kLine<T>;
    alignas(64) T copy[rows * ld];
    for (ptrdiff_t at = 0; at < kc; at += C) {
      const ptrdiff_t count = kc - at < C ? kc - at : C;
      const ptrdiff_t before = k0 + at == 0 ? 0 : lead;
      copy_rows(a + at - before, t.lda, rows, before + count, copy + lead - before, ld);
      add_columns<T, J, P, S>(copy + lead, ld, b + at * S, count, false, acc);
    }
  } else {
    const bool far = t.rows * t.k * ptrdiff_t(sizeof(T)) > kLaneFar;
    add_columns<T, J, P, S>(a, t.lda, b, kc, far, acc);
  }
  for (int j = 0; j < J; ++j) {
    for (int p = 0; p < P; ++p) {
      T* sum = total + (j * P + p) * V::kLanes;
      (V::load(sum) + acc[j][p]).store(sum);
    }
  }
}

// Rows [row, row + P * kLanes): bias, all blocks of the sum, activation, store.
template <typename T, int J, int P, int S>
void lane_rows(const LaneArgs<T>& t, ptrdiff_t row) {
  using V = LaneVec<T>;
  constexpr ptrdiff_t rows = P * V::kLanes;
  alignas(64) T total[J * rows];
  for (ptrdiff_t j = 0; j < J; ++j) {
    for (ptrdiff_t r = 0; r < rows; ++r) {
      total[j * rows + r] =
          t.bias == nullptr ? T(0) : t.bias[(row + r) * t.bias_row + j * t.bias_vector];
    }
  }
  for (ptrdiff_t k0 = 0; k0 < t.k; k0 += kSumBlock) lane_tile<T, J, P, S>(t, row, k0, total);
  activation(t.activation, total, total, J * rows);
  T* y = t.y + row * t.y_row;
  if (t.y_row == 1) {
    for (ptrdiff_t j = 0; j < J; ++j) {
      for (ptrdiff_t r = 0; r < rows; r += V::kLanes) {
        V::load(total + j * rows + r).store(y + j * t.y_vector + r);
      }
    }
    return;
  }
  for (ptrdiff_t r = 0; r < rows; ++r) {
    for (ptrdiff_t j = 0; j < J; ++j) y[r * t.y_row + j * t.y_vector] = total[j * rows + r];
  }
}

template <typename T, int J, int S>
void lane_groups(const LaneArgs<T>& t) {
  constexpr ptrdiff_t lanes = LaneVec<T>::kLanes;
  constexpr int P = lane_vecs(J);
  ptrdiff_t row = 0;
  for (; row + P * lanes <= t.rows; row += P * lanes) lane_rows<T, J, P, S>(t, row);
  for (; row + lanes <= t.rows; row += lanes) lane_rows<T, J, 1, S>(t, row);
  // The last rows once more with their predecessors: the same values, stored twice.
  if (row < t.rows) lane_rows<T, J, 1, S>(t, t.rows - lanes);
}

template <typename T, int J = 1>
void lanes(const LaneArgs<T>& t) {
  if (J == 1 && t.b_step == 1) {
    lane_groups<T, 1, 1>(t);
  } else if (t.vectors == J) {
    lane_groups<T, J, kLine<T>>(t);
  } else if constexpr (J < most_lane_vectors<T>()) {
    lanes<T, J + 1>(t);
  }
}

// Whole vectors of rows, and groups of columns, are read.
template <typename T>
constexpr bool fits_lanes(ptrdiff_t rows, ptrdiff_t k) {
  return rows >= LaneVec<T>::kLanes && k >= LaneVec<T>::kQuad;
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
