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

// Whether the sums of `vecs` vectors of rows and `count` of the other side leave registers for a
// group of columns of each of the latter.
template <typename T>
constexpr bool holds_values(int count, int vecs) {
  return (count + 1) * LaneVec<T>::kQuad + count * vecs + 4 <= kShape.registers;
}

// Vectors of rows at a time, for `count` vectors on the other side: enough sums in flight to hide
// the 4 cycles of an FMA, and all of them in registers.
template <typename T>
constexpr int lane_vecs(int count) {
  for (int vecs = 4; vecs > 1; --vecs) {
    if (holds_values<T>(count, vecs)) return vecs;
  }
  return count <= kShape.registers / 5 ? 2 : 1;
}

// Blocks of the sum at a time where only `sums` are in flight otherwise. They are independent of
// each other until they are added, in their order.
constexpr int lane_blocks(int sums) { return sums == 1 ? 4 : sums <= 3 ? 2 : 1; }

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

// Rows whose lines share the sets of L1 at stride `lda` stay in its 8 ways, if so many are read at
// a time.
template <typename T>
constexpr ptrdiff_t lane_rows_at_once(ptrdiff_t lda) {
  return !is_bad_stride<T>(lda) ? 32 : is_bad_stride<T>(lda / 2) ? 8 : 16;
}

// Rows that come from memory are read two vectors at a time, and what is read next is fetched into
// L2, in memory's own order. On Zen 5 one row times 4096 by 4096 plain weights reads 37 GB/s with
// that, 17 to 27 without. Fetching like this from L3 gains nothing, and from L2 it costs a quarter.
template <typename T>
bool is_far(const LaneArgs<T>& t) {
  return t.lda == t.k && (t.far || t.rows * t.k * ptrdiff_t(sizeof(T)) > kFarBytes);
}

// One vector times rows of four blocks and more that drive each other out of L1: one vector of rows
// at a time, and several blocks of it beside each other. Three blocks are too few to hide the FMAs'
// latency, and gain nothing.
template <typename T>
bool is_beside(const LaneArgs<T>& t) {
  return t.k > 3 * kSumBlock && is_bad_stride<T>(t.lda);
}

// Adds columns [first, Q) of the group of Q at `at`. Each value of b is fetched once for all P:
// loads, not FMAs, would be the limit.
template <typename T, int J, int P, int S>
FL_INLINE void add_quad(const T* const (&a)[P], ptrdiff_t lda, ptrdiff_t at, const T* b, int first,
                        LaneVec<T> (&acc)[J][P]) {
  using V = LaneVec<T>;
  constexpr int Q = V::kQuad;
  if constexpr (holds_values<T>(J, P)) {
    V value[Q][J];
    for (int c = 0; c < Q; ++c) {
      for (int j = 0; j < J; ++j) value[c][j] = V::set1(b[(at + c) * S + j]);
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      V columns[Q];
      V::load_transposed(a[p] + at, lda, columns);
#pragma GCC unroll 4
      for (int c = 0; c < Q; ++c) {
        if (c < first) continue;  // first is 0, a constant, but in the tail
#pragma GCC unroll 16
        for (int j = 0; j < J; ++j) acc[j][p] = fma(value[c][j], columns[c], acc[j][p]);
      }
    }
    return;
  }
  V columns[P][Q];
  for (int p = 0; p < P; ++p) V::load_transposed(a[p] + at, lda, columns[p]);
#pragma GCC unroll 4
  for (int c = 0; c < Q; ++c) {
    if (c < first) continue;
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j) {
      const V value = V::set1(b[(at + c) * S + j]);
      for (int p = 0; p < P; ++p) acc[j][p] = fma(value, columns[p][c], acc[j][p]);
    }
  }
}

// B blocks of the sum, of `count` columns each, for the rows at `a`, P times kLanes of them, and J
// vectors; total = c + a. Where `count` is no multiple of Q, up to Q - 1 columns before them are
// read. `next` is what will be read after these rows, in the order of memory; fetched where Far.
template <typename T, int J, int P, int B, int S, bool Far>
FL_INLINE void lane_sums(const T* const (&rows)[P], ptrdiff_t lda, const T* b, ptrdiff_t count,
                         const char*& next, T* total) {
  using V = LaneVec<T>;
  constexpr ptrdiff_t Q = V::kQuad, lines = P * V::kLanes * 16 / kLineBytes;
  V acc[B][J][P];
  for (int i = 0; i < B; ++i) {
    for (int j = 0; j < J; ++j) {
      for (int p = 0; p < P; ++p) acc[i][j][p] = V::zero();
    }
  }
  const T* a[P];
  for (int p = 0; p < P; ++p) a[p] = rows[p];
  const auto step = [&] {
    for (int p = 0; p < P; ++p) a[p] += Q;
    b += Q * S;
  };
  for (; count >= kLine<T>; count -= kLine<T>) {
#pragma GCC unroll 1
    for (ptrdiff_t q = 0; q < kLine<T> / Q; ++q) {
#pragma GCC unroll 4
      for (int i = 0; i < B; ++i) {
        for (int l = 0; Far && l < lines; ++l) __builtin_prefetch(next + l * kLineBytes, 0, 2);
        if (Far) next += lines * kLineBytes;
        add_quad<T, J, P, S>(a, lda, i * kSumBlock, b, 0, acc[i]);
      }
      step();
    }
  }
#pragma GCC unroll 1
  for (; count >= Q; count -= Q) {
#pragma GCC unroll 4
    for (int i = 0; i < B; ++i) add_quad<T, J, P, S>(a, lda, i * kSumBlock, b, 0, acc[i]);
    step();
  }
  if (count > 0) {
    const ptrdiff_t back = Q - count;
    add_quad<T, J, P, S>(a, lda, -back, b, static_cast<int>(back), acc[0]);
  }
  for (int j = 0; j < J; ++j) {
    for (int p = 0; p < P; ++p) {
      T* const sum = total + (j * P + p) * V::kLanes;
      V c = V::load(sum);
      for (int i = 0; i < B; ++i) c = c + acc[i][j][p];
      c.store(sum);
    }
  }
}

// The rest of the sum from k0 on, B blocks at a time while there are as many.
template <typename T, int J, int P, int B, int S, bool Far>
FL_INLINE void add_blocks(const LaneArgs<T>& t, const T* (&a)[P], ptrdiff_t k0, const char*& next,
                          T* total) {
  const auto add = [&](ptrdiff_t count) {
    const T* at[P];
    for (int p = 0; p < P; ++p) at[p] = a[p] + k0;
    const ptrdiff_t each = B == 1 ? count : kSumBlock;
    lane_sums<T, J, P, B, S, Far>(at, t.lda, t.b + k0 * S, each, next, total);
    k0 += count;
  };
  while (t.k - k0 >= B * kSumBlock) add(B * kSumBlock);
  if constexpr (B > 1) {
    add_blocks<T, J, P, B / 2, S, Far>(t, a, k0, next, total);
  } else if (k0 < t.k) {
    add(t.k - k0);
  }
}

// Where several blocks of a row are read beside each other, the next piece of each of them, so
// long, is fetched into L1 row by row meanwhile: 16 KiB of 8 lanes and 4 blocks, which neither
// drives out what is being read nor is driven out. On Zen 5 one row times 1024 by 1024 plain
// weights in L3 reads 80 to 84 GB/s with that and 70 without, 2048 by 2048 73 and 55. Pieces of 128
// or 256 bytes gain half as much, 1024 bytes and L2 in place of L1 nothing.
template <typename T>
constexpr ptrdiff_t kLaneAhead = 512 / static_cast<ptrdiff_t>(sizeof(T));

// Columns [from, to) of N blocks of the sum, for the vector of rows at `a`; `after` is what is read
// after them.
template <typename T, int B, int N>
FL_INLINE void add_beside(const T* a, ptrdiff_t lda, const T* b, size_t from, size_t to,
                          const T* after, LaneVec<T> (&acc)[B][1][1]) {
  using V = LaneVec<T>;
  constexpr size_t L = V::kLanes, Q = V::kQuad, A = kLaneAhead<T>;
  constexpr size_t lines = A / kLine<T>;  // of one block of one row
  while (from < to) {
    const size_t chunk = from / A * A + A, end = to < chunk ? to : chunk;
    const T* const next = chunk < kSumBlock ? a + chunk : after;
    // Every step fetches L lines: all of them before A columns are over.
    size_t line = (from - (chunk - A)) / Q * L;
#pragma GCC unroll 1
    for (; from < end; from += Q, line += L) {
      const size_t stretch = line / lines;
      if (stretch < L * N) {
        const T* const p =
            next + ptrdiff_t(stretch / N) * lda + stretch % N * kSumBlock + line % lines * kLine<T>;
#pragma GCC unroll 8
        for (size_t l = 0; l < L; ++l) __builtin_prefetch(p + l * kLine<T>);
      }
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const size_t at = i * kSumBlock + from;
        V columns[Q], value[Q];
        V::load_transposed(a + at, lda, columns);
        V::splat(b + at, value);
#pragma GCC unroll 4
        for (size_t c = 0; c < Q; ++c) acc[i][0][0] = fma(value[c], columns[c], acc[i][0][0]);
      }
    }
  }
}

// B blocks of the sum, the last one of `last` columns, for a vector of rows; total = c + a.
template <typename T, int B>
FL_INLINE void sums_beside(const T* a, ptrdiff_t lda, const T* b, ptrdiff_t last, const T* after,
                           T* total) {
  using V = LaneVec<T>;
  constexpr ptrdiff_t Q = V::kQuad, end = (B - 1) * kSumBlock;
  V acc[B][1][1];
  for (int i = 0; i < B; ++i) acc[i][0][0] = V::zero();
  const ptrdiff_t whole = last / Q * Q;
  add_beside<T, B, B>(a, lda, b, 0, whole, after, acc);
  if (whole < last) {
    const T* const row[1] = {a + end + last - Q};
    add_quad<T, 1, 1, 1>(row, lda, 0, b + end + last - Q, static_cast<int>(Q - (last - whole)),
                         acc[B - 1]);
  }
  if constexpr (B > 1) add_beside<T, B, B - 1>(a, lda, b, whole, kSumBlock, after, acc);
  V c = V::load(total);
  for (int i = 0; i < B; ++i) c = c + acc[i][0][0];
  c.store(total);
}

// All of the sum for one vector of rows: three or four blocks at a time, two at the end of five.
template <typename T>
FL_INLINE void add_all_beside(const LaneArgs<T>& t, const T* a, T* total) {
  constexpr ptrdiff_t L = LaneVec<T>::kLanes;
  for (ptrdiff_t k0 = 0; k0 < t.k;) {
    const ptrdiff_t blocks = (t.k - k0 + kSumBlock - 1) / kSumBlock;
    const ptrdiff_t some = blocks <= 4 ? blocks : blocks == 5 || blocks == 6 ? 3 : 4;
    const ptrdiff_t left = t.k - k0 - (some - 1) * kSumBlock;
    const ptrdiff_t last = left < kSumBlock ? left : kSumBlock;
    const T* const at = a + k0;
    k0 += some * kSumBlock;
    const T* const after = k0 < t.k ? a + k0 : a + L * t.lda;
    if (some == 4) {
      sums_beside<T, 4>(at, t.lda, t.b + (at - a), last, after, total);
    } else if (some == 3) {
      sums_beside<T, 3>(at, t.lda, t.b + (at - a), last, after, total);
    } else {
      sums_beside<T, 2>(at, t.lda, t.b + (at - a), last, after, total);
    }
  }
}

// P vectors of rows from vector `first` on, of which the last one ends with the last row: bias, all
// blocks of the sum, activation, store.
template <typename T, int J, int P, int B, int S, bool Far, bool Beside = false>
void lane_rows(const LaneArgs<T>& t, ptrdiff_t first) {
  using V = LaneVec<T>;
  constexpr ptrdiff_t L = V::kLanes;
  alignas(64) T total[J * P * L];
  ptrdiff_t row[P];
  const T* a[P];
  for (int p = 0; p < P; ++p) {
    const ptrdiff_t r = (first + p) * L;
    row[p] = r + L <= t.rows ? r : t.rows - L;
    a[p] = t.a + row[p] * t.lda;
  }
  for (int j = 0; j < J; ++j) {
    for (int p = 0; p < P; ++p) {
      T* const sum = total + (j * P + p) * L;
      const T* const bias = t.bias + row[p] * t.bias_row + j * t.bias_vector;
      if (t.bias == nullptr) {
        V::zero().store(sum);
      } else if (t.bias_row == 1) {
        V::load(bias).store(sum);
      } else {
        V::set1(*bias).store(sum);
      }
    }
  }
  if constexpr (Beside) {
    add_all_beside(t, a[0], total);
  } else {
    const char* next = reinterpret_cast<const char*>(a[P - 1] + L * t.lda);
    add_blocks<T, J, P, B, S, Far>(t, a, 0, next, total);
  }
  activation(t.activation, total, total, J * P * L);
  for (int j = 0; j < J; ++j) {
    for (int p = 0; p < P; ++p) {
      const T* const sum = total + (j * P + p) * L;
      T* const y = t.y + row[p] * t.y_row + j * t.y_vector;
      if (t.y_row == 1) {
        V::load(sum).store(y);
      } else {
        for (ptrdiff_t r = 0; r < L; ++r) y[r * t.y_row] = sum[r];
      }
    }
  }
}

template <typename T, int J, int P, int S>
void lane_group(const LaneArgs<T>& t, ptrdiff_t first, ptrdiff_t count) {
  if (P == 1 || count == P) {
    lane_rows<T, J, P, lane_blocks(J * P), S, false>(t, first);
  } else {
    lane_group<T, J, (P > 1 ? P - 1 : 1), S>(t, first, count);
  }
}

template <typename T, int J, int S>
void lane_groups(const LaneArgs<T>& t) {
  constexpr ptrdiff_t L = LaneVec<T>::kLanes;
  constexpr int P = lane_vecs<T>(J);
  const bool far = is_far(t);
  const ptrdiff_t fits = far ? 2 : lane_rows_at_once<T>(t.lda) / L;
  const ptrdiff_t most = fits < 1 ? 1 : fits < P ? fits : P;
  const ptrdiff_t vecs = (t.rows + L - 1) / L;
  if constexpr (S == 1) {
    if (!far && is_beside(t)) {
      for (ptrdiff_t v = 0; v < vecs; ++v) lane_rows<T, 1, 1, 1, 1, false, true>(t, v);
      return;
    }
  }
  for (ptrdiff_t v = 0, count; v < vecs; v += count) {
    const ptrdiff_t left = vecs - v;
    // Never one alone at the end.
    count = left < most ? left : left == most + 1 && most > 2 ? most - 1 : most;
    if constexpr (P > 1) {
      if (far && count == 2) {
        lane_rows<T, J, 2, 1, S, true>(t, v);
        continue;
      }
    }
    lane_group<T, J, P, S>(t, v, count);
  }
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
