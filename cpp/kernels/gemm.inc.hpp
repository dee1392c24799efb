// y = activation(x @ w.T + bias) on the rows and panels of one thread, written once over Vec.
// Threads and cache blocks of whole networks are not here; see core/executor.cpp.
#pragma once

#include "elements.inc.hpp"
#include "gemv.inc.hpp"
#include "isa.inc.hpp"
#include "lanes.inc.hpp"
#include "strips.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// The widest tile of `rows` rows whose accumulators, weight vectors and one broadcast x stay in
// registers. A single row uses each weight once, straight from memory, and needs no vectors for
// them.
template <typename T>
constexpr int max_panels(int rows) {
  const int room = kShape.registers - 1;
  const int vecs = kLineVecs<T> * (rows == 1 ? 1 : rows + 1);
  const int panels = room / vecs;
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

// How far ahead of the sum weights are fetched. 8 to 64 lines are alike on Zen 4 and gain 2 % on
// 784-512-512-10 at batch 256; a single row gains nothing.
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
  const T* x = t.x;
  const T* w = t.w;
  const ptrdiff_t ldx = t.ldx, panel_stride = t.panel_stride, line_stride = t.line_stride;
  ptrdiff_t kk = 0;
  if constexpr (kSumsByLanes<V, MR, kVecs>) {
    for (; kk + V::kLanes <= t.kc; kk += V::kLanes) {
      for (int p = 0; p < P * V::kLanes; ++p) {
        const ptrdiff_t line = kPrefetchLines + p % V::kLanes;
        __builtin_prefetch(w + p / V::kLanes * panel_stride + line * line_stride);
      }
      V values[MR];
      for (int i = 0; i < MR; ++i) values[i] = V::load(x + i * ldx);
      sum_by_lanes<0>(values, w, panel_stride, line_stride, acc);
      x += V::kLanes;
      w += V::kLanes * line_stride;
    }
  }
  for (; kk < t.kc; ++kk) {
    // The processor's own prefetching stops at the end of a page: one every 64 lines of a panel.
    for (int p = 0; MR > 1 && p < P; ++p) {
      __builtin_prefetch(w + p * panel_stride + kPrefetchLines * line_stride);
    }
    V b[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      b[v] = V::load(w + (v / kLineVecs<T>)*panel_stride + (v % kLineVecs<T>)*V::kLanes);
    }
    for (int i = 0; i < MR; ++i) {
      const V a = V::set1(x[i * ldx]);
      for (int v = 0; v < kVecs; ++v) acc[i][v] = fma(a, b[v], acc[i][v]);
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

// Cuts `total` into the fewest parts of at most `limit`, near-equal: 15 by 14 is 8 + 7, never 14
// + 1.
struct NearEqual {
  ptrdiff_t parts, each, extra;
  NearEqual(ptrdiff_t n, ptrdiff_t limit) : parts((n + limit - 1) / limit), each(n), extra(0) {
    if (parts <= 1) return;  // a single row notices divisions
    each = n / parts;
    extra = n % parts;
  }
  ptrdiff_t begin(ptrdiff_t i) const { return i * each + (i < extra ? i : extra); }
};

template <typename T>
void copy_block(const T* from, ptrdiff_t ld_from, T* to, ptrdiff_t ld_to, ptrdiff_t rows,
                ptrdiff_t cols) {
  for (ptrdiff_t i = 0; i < rows; ++i) {
    for (ptrdiff_t j = 0; j < cols; ++j) to[i * ld_to + j] = from[i * ld_from + j];
  }
}

template <typename T>
alignas(64) constexpr T kZeroLine[kLine<T>] = {};

// The tile at panel `panel` and row `row` over block [k0, k0 + kc) of the sum.
template <typename T>
TileArgs<T> tile_args(const DenseArgs<T>& d, ptrdiff_t row, ptrdiff_t panel, ptrdiff_t k0) {
  TileArgs<T> t;
  t.kc = d.k - k0 < kSumBlock ? d.k - k0 : kSumBlock;
  t.x = d.x + row * d.ldx + k0;
  t.ldx = d.ldx;
  t.w = d.w + panel * d.panel_stride + k0 * d.line_stride;
  t.panel_stride = d.panel_stride;
  t.line_stride = d.line_stride;
  t.y = d.y + row * d.ldy + panel * kLine<T>;
  t.ldy = d.ldy;
  if (k0 > 0 || d.accumulate) {
    t.c = t.y;
    t.c_row = t.ldy;
    t.c_panel = kLine<T>;
  } else {
    t.c = d.bias == nullptr ? kZeroLine<T> : d.bias + panel * d.bias_stride;
    t.c_row = 0;
    t.c_panel = d.bias == nullptr ? 0 : d.bias_stride;
  }
  const bool last = k0 + t.kc == d.k;
  const Activation kind = d.activation.kind;
  t.rectify = kind == Activation::kRelu;
  t.slope = kind == Activation::kLeakyRelu ? d.activation.p0 : T(0);
  const bool kink = kind == Activation::kRelu || kind == Activation::kLeakyRelu;
  t.epilogue = last && kink ? Epilogue::kKink : Epilogue::kStore;
  return t;
}

// A group of panels whose last one is cut off by the edge of y: whole lines go to a buffer, the
// columns that exist go to y.
template <typename T>
void edge_tile(const DenseArgs<T>& d, ptrdiff_t row, int rows, ptrdiff_t panel, int panels) {
  alignas(64) T buffer[kShape.max_rows * kShape.max_panels * kLine<T>];
  const ptrdiff_t ld = panels * kLine<T>;
  const ptrdiff_t cols = d.cols - panel * kLine<T>;
  T* y = d.y + row * d.ldy + panel * kLine<T>;
  if (d.accumulate) {
    for (ptrdiff_t i = 0; i < rows * ld; ++i) buffer[i] = T(0);
    copy_block(y, d.ldy, buffer, ld, rows, cols);
  }
  for (ptrdiff_t k0 = 0; k0 < d.k; k0 += kSumBlock) {
    TileArgs<T> t = tile_args(d, row, panel, k0);
    t.y = buffer;
    t.ldy = ld;
    if (t.c_row != 0) {
      t.c = buffer;
      t.c_row = ld;
    }
    kTiles<T>.at[rows][panels](t);
  }
  copy_block(buffer, ld, y, d.ldy, rows, cols);
}

// k = 0: the sum is the bias alone.
template <typename T>
void fill_with_bias(const DenseArgs<T>& d) {
  if (d.accumulate) return;
  for (ptrdiff_t i = 0; i < d.m; ++i) {
    for (ptrdiff_t j = 0; j < d.cols; ++j) {
      const T* bias = d.bias + (j / kLine<T>)*d.bias_stride + j % kLine<T>;
      d.y[i * d.ldy + j] = d.bias == nullptr ? T(0) : *bias;
    }
  }
}

// How much of k is taken through all panels before the next part, so that the rows of x in use stay
// in L2: 256 KiB of x, a quarter of the 1 MiB L2 of Zen 4 and Zen 5, a half of Skylake-SP's.
constexpr ptrdiff_t kChunkBytes = 256 * 1024;

// Weights read in place lie across a row of memory for each k: a block of the sum at a time keeps
// its pages in the TLB.
template <typename T>
ptrdiff_t chunk_of_k(ptrdiff_t m, ptrdiff_t k, bool packed) {
  if (!packed) return kSumBlock;
  const ptrdiff_t fits = kChunkBytes / (m * static_cast<ptrdiff_t>(sizeof(T)));
  const ptrdiff_t blocks = fits / kSumBlock < 1 ? 1 : fits / kSumBlock;
  return blocks * kSumBlock < k ? blocks * kSumBlock : k;
}

template <typename T>
void dense_sums(const DenseArgs<T>& d) {
  const int widest =
      d.m < kShape.max_rows ? max_panels<T>(static_cast<int>(d.m)) : kShape.min_panels;
  const NearEqual rows(d.m, kShape.max_rows);
  const NearEqual groups((d.cols + kLine<T> - 1) / kLine<T>, widest);
  const ptrdiff_t chunk = chunk_of_k<T>(d.m, d.k, d.line_stride == kLine<T>);
  for (ptrdiff_t k_begin = 0; k_begin < d.k; k_begin += chunk) {
    const ptrdiff_t k_end = k_begin + chunk < d.k ? k_begin + chunk : d.k;
    for (ptrdiff_t g = 0; g < groups.parts; ++g) {
      const ptrdiff_t panel = groups.begin(g);
      const int panels = static_cast<int>(groups.begin(g + 1) - panel);
      if ((panel + panels) * kLine < T >> d.cols && !d.y_padded) {
        if (k_begin > 0) continue;
        for (ptrdiff_t r = 0; r < rows.parts; ++r) {
          const ptrdiff_t row = rows.begin(r);
          edge_tile(d, row, static_cast<int>(rows.begin(r + 1) - row), panel, panels);
        }
        continue;
      }
      for (ptrdiff_t k0 = k_begin; k0 < k_end; k0 += kSumBlock) {
        for (ptrdiff_t r = 0; r < rows.parts; ++r) {
          const ptrdiff_t row = rows.begin(r);
          kTiles<T>.at[rows.begin(r + 1) - row][panels](tile_args(d, row, panel, k0));
        }
      }
    }
  }
}

// So many rows of d from `row` on, and columns from `panel` on.
template <typename T>
DenseArgs<T> part_of(const DenseArgs<T>& d, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t panel,
                     ptrdiff_t cols) {
  DenseArgs<T> part = d;
  part.m = rows;
  part.x += row * d.ldx;
  part.y += row * d.ldy + panel * kLine<T>;
  part.cols = cols;
  part.w += panel * d.panel_stride;
  part.bias += panel * d.bias_stride;
  return part;
}

// Weights of so many bytes stay in L2 between blocks of rows: half of Zen 3's 512 KiB.
constexpr ptrdiff_t kNearWeights = 256 * 1024;

// Fewer rows than two tiles are cut evenly instead: 20 as 10 + 10, not as 14 + 6.
template <typename T>
bool has_strips(const DenseArgs<T>& d) {
  return d.m >= 2 * kShape.max_rows && d.bias != nullptr && !d.accumulate &&
         d.line_stride == kLine<T> && d.activation.kind != Activation::kLeakyRelu;
}

template <typename T>
StripArgs<T> strip_args(const DenseArgs<T>& d) {
  return {d.m,
          d.k,
          d.x,
          d.ldx,
          d.w,
          d.panel_stride,
          d.bias,
          d.bias_stride,
          d.y,
          d.ldy,
          d.activation.kind == Activation::kRelu};
}

// Whole panels, or a padded last one.
template <typename T>
void panels_by_strips(const DenseArgs<T>& d) {
  constexpr int MR = kShape.max_rows, P = kShape.min_panels, N = kLineVecs<T>;
  const ptrdiff_t rows = strip_rows(d.m, MR);
  const ptrdiff_t panels = (d.cols + kLine<T> - 1) / kLine<T>;
  for (ptrdiff_t p = 0; p < panels; p += P) {
    const StripArgs<T> s = strip_args(part_of(d, 0, rows, p, 0));
    (p + P <= panels ? strip<T, Vec<T>, MR, P * N> : strip<T, Vec<T>, MR, N>)(s);
  }
  if (rows < d.m) dense_sums(part_of(d, rows, d.m - rows, 0, d.cols));
}

// One panel of `cols` columns.
template <typename T>
void narrow_panel(const DenseArgs<T>& d) {
  using H = Half<T>;
  const bool half = d.cols <= kHalfColumns<T>;
  const ptrdiff_t tile = half ? H::kRows : kShape.max_rows;
  const auto run = half ? strip<T, typename H::V, H::kRows, H::kVecs>
                        : strip<T, Vec<T>, kShape.max_rows, kLineVecs<T>>;
  const ptrdiff_t rows = d.m < tile ? 0 : strip_rows(d.m, tile);
  StripArgs<T> s = strip_args(d);
  s.rows = rows;
  if (d.y_padded) {
    run(s);
  } else {
    alignas(64) T buffer[2 * kShape.max_rows * kLine<T>];
    s.rows = tile;
    s.y = buffer;
    s.ldy = kLine<T>;
    for (ptrdiff_t row = 0; row < rows; row += tile, s.x += tile * d.ldx) {
      run(s);
      copy_block(buffer, kLine<T>, d.y + row * d.ldy, d.ldy, tile, d.cols);
    }
  }
  if (rows < d.m) dense_sums(part_of(d, rows, d.m - rows, 0, d.cols));
}

template <typename T>
void sums(const DenseArgs<T>& d) {
  if (!has_strips(d)) return dense_sums(d);
  const ptrdiff_t last = d.cols % kLine<T>;
  const DenseArgs<T> whole = part_of(d, 0, d.m, 0, d.cols - last);
  if (d.k <= kSumBlock && d.k * d.cols * ptrdiff_t(sizeof(T)) <= kNearWeights) {
    panels_by_strips(whole);
  } else {
    dense_sums(whole);
  }
  if (last > 0) narrow_panel(part_of(d, 0, d.m, d.cols / kLine<T>, last));
}

// A last panel of at most lane_columns() columns would leave most of its lanes idle.
template <typename T>
bool last_panel_by_lanes(const DenseArgs<T>& d) {
  const ptrdiff_t columns = d.cols % kLine<T>;
  return columns > 0 && columns <= lane_columns<T>() && !d.accumulate && fits_lanes<T>(d.m, d.k);
}

template <typename T>
void last_panel(const DenseArgs<T>& d) {
  const ptrdiff_t panel = d.cols / kLine<T>;
  LaneArgs<T> t;
  t.rows = d.m;
  t.k = d.k;
  t.vectors = d.cols % kLine<T>;
  t.a = d.x;
  t.lda = d.ldx;
  t.b = d.w + panel * d.panel_stride;
  t.b_step = d.line_stride;
  t.bias = d.bias == nullptr ? nullptr : d.bias + panel * d.bias_stride;
  t.bias_row = 0;
  t.bias_vector = 1;
  t.y = d.y + panel * kLine<T>;
  t.y_row = d.ldy;
  t.y_vector = 1;
  t.activation = d.activation;
  lanes<T>(t);
}

// A single row reads so many bytes of weights in place by rows of w; fewer are in L2 and go by
// tiles.
constexpr ptrdiff_t kFarWeights = 512 * 1024;

template <typename T>
bool is_row_times_matrix(const DenseArgs<T>& d) {
  return d.m == 1 && d.panel_stride == kLine<T> && d.bias_stride == kLine<T> &&
         d.k * d.cols * ptrdiff_t(sizeof(T)) > kFarWeights;
}

template <typename T>
void whole_panels(const DenseArgs<T>& d) {
  const Activation kind = d.activation.kind;
  bool done = kind == Activation::kIdentity;
  if (d.k == 0) {
    fill_with_bias(d);
  } else if (is_row_times_matrix(d)) {
    row_times_matrix(d);
  } else {
    sums(d);
    done = done || kind == Activation::kRelu || kind == Activation::kLeakyRelu;
  }
  if (done) return;
  for (ptrdiff_t i = 0; i < d.m; ++i) {
    activation(d.activation, d.y + i * d.ldy, d.y + i * d.ldy, d.cols);
  }
}

template <typename T>
void dense(const DenseArgs<T>& d) {
  if (d.m <= 0 || d.cols <= 0) return;
  if (!last_panel_by_lanes(d)) return whole_panels(d);
  last_panel(d);
  DenseArgs<T> rest = d;
  rest.cols -= d.cols % kLine<T>;
  if (rest.cols > 0) whole_panels(rest);
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
