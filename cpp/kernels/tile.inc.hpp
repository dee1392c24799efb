// The register tile: some rows of x times some panels of weights over one block of the sum.
#pragma once

#include "isa.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// Few rows keep their broadcast x in registers and load weights one at a time; more rows keep the
// weights. Either way the tile's accumulators stay in registers. 3 rows and 2 panels of AVX2 took
// 47 us at 784-512-512-10 on Zen 5 with the weights kept, as one panel at a time, and 36 this way.
constexpr bool keeps_x(int rows) { return rows <= kShape.rows_of_x; }

// The widest tile of `rows` rows. A single row uses each weight once, straight from memory.
template <typename T>
constexpr int max_panels(int rows) {
  const int panels = rows == 1       ? (kShape.registers - 1) / kLineVecs<T>
                     : keeps_x(rows) ? (kShape.registers - 1 - rows) / (kLineVecs<T> * rows)
                                     : (kShape.registers - 1) / (kLineVecs<T> * (rows + 1));
  return panels < kShape.min_panels   ? kShape.min_panels
         : panels > kShape.max_panels ? kShape.max_panels
                                      : panels;
}

// What the sums become in registers: nothing, or max(v, 0) / slope * v below 0. Every other
// activation needs more registers than a full tile leaves and runs over the finished rows.
enum class Epilogue { kStore, kKink };

template <typename T>
struct TileArgs {
  ptrdiff_t kc;  // 1..kSumBlock: one block of the sum
  const T* x;
  ptrdiff_t ldx;
  const T* w;
  ptrdiff_t panel_stride, line_stride;
  const T* c;  // the sum so far: bias lines or zeros (c_row = 0), or rows of y
  ptrdiff_t c_row, c_panel;
  T* y;
  ptrdiff_t ldy;
  Epilogue epilogue;
  const T* fetch;  // fetched meanwhile, as lines at w lie: so many elements on with each step
  ptrdiff_t fetch_step;
  T slope;       // kKink
  bool rectify;  // kKink: +0 below 0, whatever slope * v is
};

// Unrolled in full, so that the accumulators never leave their registers.
template <typename T, int MR, int P, Epilogue E>
FL_INLINE void finish_tile(const TileArgs<T>& t, Vec<T> (&acc)[MR][P * kLineVecs<T>]) {
  using V = Vec<T>;
  constexpr int kVecs = kLineVecs<T>;
  const V slope = V::set1(t.slope);
  const V keep = V::set1_bits(t.rectify ? 0 : ~typename V::Bits(0));
  const T* c_row = t.c;
  T* y_row = t.y;
  const ptrdiff_t c_step = t.c_row, c_panel = t.c_panel, y_step = t.ldy;
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < P * kVecs; ++v) {
      const int lane = v % kVecs * V::kLanes;
      V c = V::load(c_row + v / kVecs * c_panel + lane) + acc[i][v];
      if (E == Epilogue::kKink) c = select(less(c, V::zero()), bit_and(c * slope, keep), c);
      c.store(y_row + v / kVecs * kLine<T> + lane);
    }
    c_row += c_step;
    y_row += y_step;
  }
}

// Whether a vector of each row of x stays in registers beside the accumulators and two vectors of
// weights. A row alone gains nothing.
template <typename V, int MR, int N>
constexpr bool kSumsByLanes = V::kFmaByLane&& MR > 1 && MR + MR* N + 2 <= kShape.registers;

// acc = fma(x, w, acc) over V::kLanes lines of weights, for vectors of x at lane L and behind it.
template <int L, typename T, typename V, int MR, int N>
FL_INLINE void sum_by_lanes(const V (&x)[MR], const T* w, ptrdiff_t panel_stride,
                            ptrdiff_t line_stride, V (&acc)[MR][N]) {
  constexpr int kVecs = static_cast<int>(kLine<T>) / V::kLanes;
  for (int v = 0; v < N; ++v) {
    const V b = V::load(w + v / kVecs * panel_stride + v % kVecs * V::kLanes);
    for (int i = 0; i < MR; ++i) acc[i][v] = x[i].template fma_lane<L>(b, acc[i][v]);
  }
  if constexpr (L + 1 < V::kLanes) {
    sum_by_lanes<L + 1>(x, w + line_stride, panel_stride, line_stride, acc);
  }
}

// How far ahead of the sum near weights are fetched, since the processor's own prefetching stops at
// the end of a page: one every 64 lines of a panel. 8 to 64 lines are alike on Zen 4 and gain 2 %
// on 784-512-512-10 at batch 256; a single row gains nothing.
constexpr ptrdiff_t kPrefetchLines = 24;

// One block of the sum for MR rows and P panels: a = fma(x, w, a) over kc, then y = c + a.
template <typename T, int MR, int P>
void tile(const TileArgs<T>& t) {
  using V = Vec<T>;
  constexpr int kVecs = P * kLineVecs<T>;
  V acc[MR][kVecs];
  for (int i = 0; i < MR; ++i) {
    for (int v = 0; v < kVecs; ++v) acc[i][v] = V::zero();
  }
  // The sums so far may have left L1 since the last block: 4096-4096 at 256 in float64 gains 3 to
  // 7 % on Zen 5.
  if (MR > 1 && t.c_row != 0) {
    for (int i = 0; i < MR; ++i) {
      for (int p = 0; p < P; ++p) FL_PREFETCH_WRITE(t.c + i * t.c_row + p * kLine<T>);
    }
  }
  const T* x = t.x;
  const T* w = t.w;
  const T* fetch = t.fetch;
  const ptrdiff_t fetch_step = t.fetch_step;
  const ptrdiff_t ldx = t.ldx, panel_stride = t.panel_stride, line_stride = t.line_stride;
  const auto fetch_line = [&] {
    for (int p = 0; MR > 1 && p < P; ++p) FL_PREFETCH(fetch + p * panel_stride);
    if (MR > 1) fetch += fetch_step;
  };
  ptrdiff_t kk = 0;
  if constexpr (kSumsByLanes<V, MR, kVecs>) {
    for (; kk + V::kLanes <= t.kc; kk += V::kLanes) {
      for (int l = 0; l < V::kLanes; ++l) fetch_line();
      V values[MR];
      for (int i = 0; i < MR; ++i) values[i] = V::load(x + i * ldx);
      sum_by_lanes<0>(values, w, panel_stride, line_stride, acc);
      x += V::kLanes;
      w += V::kLanes * line_stride;
    }
  }
  for (; kk < t.kc; ++kk) {
    fetch_line();
    const auto weights = [&](int v) {
      return V::load(w + (v / kLineVecs<T>)*panel_stride + (v % kLineVecs<T>)*V::kLanes);
    };
    if constexpr (keeps_x(MR)) {
      V a[MR];
      for (int i = 0; i < MR; ++i) a[i] = V::set1(x[i * ldx]);
      for (int v = 0; v < kVecs; ++v) {
        const V b = weights(v);
        for (int i = 0; i < MR; ++i) acc[i][v] = fma(a[i], b, acc[i][v]);
      }
    } else {
      V b[kVecs];
      for (int v = 0; v < kVecs; ++v) b[v] = weights(v);
      for (int i = 0; i < MR; ++i) {
        const V a = V::set1(x[i * ldx]);
        for (int v = 0; v < kVecs; ++v) acc[i][v] = fma(a, b[v], acc[i][v]);
      }
    }
    x += 1;
    w += line_stride;
  }
  if (t.epilogue == Epilogue::kKink) {
    finish_tile<T, MR, P, Epilogue::kKink>(t, acc);
  } else {
    finish_tile<T, MR, P, Epilogue::kStore>(t, acc);
  }
}

template <typename T>
using TileFunction = void (*)(const TileArgs<T>&);

template <typename T>
struct TileTable {
  TileFunction<T> at[kShape.max_rows + 1][kShape.max_panels + 1];
};

template <typename T, int MR, int P>
constexpr void fill_tiles(TileTable<T>& tiles) {
  if constexpr (P <= max_panels<T>(MR)) tiles.at[MR][P] = &tile<T, MR, P>;
  if constexpr (P < kShape.max_panels) {
    fill_tiles<T, MR, P + 1>(tiles);
  } else if constexpr (MR < kShape.max_rows) {
    fill_tiles<T, MR + 1, 1>(tiles);
  }
}

template <typename T>
constexpr TileTable<T> make_tiles() {
  TileTable<T> tiles{};
  fill_tiles<T, 1, 1>(tiles);
  return tiles;
}

template <typename T>
constexpr TileTable<T> kTiles = make_tiles<T>();

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
