// y = activation(x @ w.T + bias) on the rows and panels of one thread, written once over Vec.
// Threads and cache blocks of whole networks are not here; see core/executor.cpp.
#pragma once

#include "elements.inc.hpp"
#include "gemv.inc.hpp"
#include "isa.inc.hpp"
#include "lanes.inc.hpp"
#include "pack.inc.hpp"
#include "strips.inc.hpp"
#include "tile.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

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
  t.fetch = t.w + kPrefetchLines * d.line_stride;
  t.fetch_step = d.line_stride;
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

// How much of k is taken through all panels before the next part. Weights read in place lie across
// a row of memory for each k: a block of the sum at a time keeps its pages in the TLB.
template <typename T>
ptrdiff_t chunk_of_k(const DenseArgs<T>& d) {
  if (d.k <= kSumBlock || d.line_stride != kLine<T>) return kSumBlock;
  const ptrdiff_t fits = d.x_bytes / (d.m * static_cast<ptrdiff_t>(sizeof(T)));
  const ptrdiff_t blocks = fits / kSumBlock < 1 ? 1 : fits / kSumBlock;
  return blocks * kSumBlock < d.k ? blocks * kSumBlock : d.k;
}

// Where a tile of far weights or of copied rows stands among the others of a product.
struct TilePlace {
  ptrdiff_t panel, panels, row, rows;
  ptrdiff_t k_begin, k_end, k0;  // its chunk, and its block of the sum
  ptrdiff_t r, tiles;            // of the rows
};

// Rows of x are copied by the tiles of the first panels. Each tile fetches its share of the weights
// that are a block of the sum ahead.
//
// The first tile of rows would wait for each piece of weights from beyond L2 while the others find
// it in L1 and leave memory idle. On Zen 5, 4096-4096-4096 at 32 rows takes 11.1 ms like this and
// 14.7 without (AVX2 17.9 and 22.0); fetching into L2 instead is up to a tenth slower.
//
// Sums that go on are kept tile by tile, and y is written once: its lines are fetched while those
// beside them on the left are computed. Rows of y that drive each other out of L1 cost 1024 squares
// 2 % (float32) and 6 % (float64) otherwise, on Zen 5 with 16 bytes between y and a line.
//
// A function of its own: dense_sums would spill, and the call of a tiny network would notice.
template <typename T>
__attribute__((noinline)) void prepare(const DenseArgs<T>& d, const TilePlace& at, TileArgs<T>& t) {
  if (d.x_copy != nullptr) {
    T* const copy = d.x_copy + (at.k0 - at.k_begin) * d.m + at.row * kSumBlock;
    if (at.panel == 0) copy_rows(t.x, t.ldx, at.rows, t.kc, copy, kSumBlock);
    t.x = copy;
    t.ldx = kSumBlock;
  }
  if (!d.far) return;
  const ptrdiff_t width = at.panels * kLine<T>;
  if (d.sums != nullptr) {
    T* const sums = d.sums + at.panel * d.m * kLine<T> + at.row * width;
    if (at.k0 > 0) {
      t.c = sums;
      t.c_row = width;
    }
    if (at.k0 + t.kc < d.k) {
      t.y = sums;
      t.ldy = width;
    } else if ((at.panel + at.panels) * kLine<T> < d.cols) {
      const T* next = t.y + width;
      for (ptrdiff_t i = 0; i < at.rows; ++i, next += d.ldy) {
        for (ptrdiff_t p = 0; p < width; p += kLine<T>) FL_PREFETCH_WRITE(next + p);
      }
    }
  }
  if (at.tiles == 1) return;
  ptrdiff_t line = at.k0 + kSumBlock + t.kc * at.r / at.tiles, panel = at.panel;
  if (line >= at.k_end) {
    const bool last = (panel + at.panels) * kLine<T> >= d.cols;
    line += last ? 0 : at.k_begin - at.k_end;
    panel = last ? 0 : panel + at.panels;
  }
  if (line >= d.k) return;
  t.fetch = d.w + panel * d.panel_stride + line * kLine<T>;
  t.fetch_step = (kLine<T> + at.tiles - 1) / at.tiles;
}

template <typename T>
void dense_sums(const DenseArgs<T>& d) {
  const int widest =
      d.m < kShape.max_rows ? max_panels<T>(static_cast<int>(d.m)) : kShape.min_panels;
  const NearEqual rows(d.m, kShape.max_rows);
  const NearEqual groups((d.cols + kLine<T> - 1) / kLine<T>, widest);
  const ptrdiff_t chunk = chunk_of_k(d);
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
          const ptrdiff_t row = rows.begin(r), count = rows.begin(r + 1) - row;
          TileArgs<T> t = tile_args(d, row, panel, k0);
          if (d.far || d.x_copy != nullptr) {
            prepare(d, {panel, panels, row, count, k_begin, k_end, k0, r, rows.parts}, t);
          }
          kTiles<T>.at[count][panels](t);
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
  // Rows without a gap are one long row; what lies beyond the columns of a padded one is not read.
  const bool together = d.ldy == d.cols || (d.y_padded && d.ldy - d.cols < kLine<T>);
  const ptrdiff_t rows = together ? 1 : d.m;
  const ptrdiff_t n = together ? (d.m - 1) * d.ldy + d.cols : d.cols;
  for (ptrdiff_t i = 0; i < rows; ++i) {
    activation(d.activation, d.y + i * d.ldy, d.y + i * d.ldy, n);
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
