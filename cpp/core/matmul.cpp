#include "matmul.hpp"

#include <algorithm>
#include <new>

#include "convert.hpp"
#include "cpu.hpp"
#include "elementwise.hpp"
#include "plan.hpp"
#include "team.hpp"
#include "turns.hpp"
#include "workspace.hpp"

namespace fastlayer {
namespace {

// Packed weights in flight: at most this much, or one panel for each thread. 4 MiB is an eighth of
// the 32 MiB L3 of Zen 4 and Zen 5, which the rows of x and y pass through as well.
constexpr ptrdiff_t kPackedBytes = 4 * 1024 * 1024;

// Row-major (k, n) weights are read in place for up to this many rows; from there on a packed copy,
// with its adjacent lines, pays for itself.
constexpr ptrdiff_t kDirectRows = 14;

// Tiles of rows in a block: 112 rows of 1024 floats are 448 KiB of L2.
constexpr ptrdiff_t kBlockTiles = 8;

// Panels that a thread takes at a time from a single block of rows.
constexpr ptrdiff_t kGroup = 8;

// Many rows are taken through so much of k at a time, for all columns; the sum goes on in y: rows
// copied apart stay in L2, and panels of long sums small. A multiple of kSumBlock.
constexpr ptrdiff_t kDepth = 4 * kSumBlock;

struct Depth {
  ptrdiff_t begin, count;
};

template <typename T>
struct Call {
  const MatmulArgs<T>& a;
  const Kernels<T>& kern;
  ptrdiff_t m, n, k, panels;
  bool direct_x, direct_y, direct_w;
  bool by_lanes;         // few rows times plain (n, k) weights
  ptrdiff_t ld_x, ld_y;  // of converted rows

  explicit Call(const MatmulArgs<T>& args)
      : a(args),
        kern(kernels<T>()),
        m(args.y->rows),
        n(args.n),
        k(args.x->cols),
        panels((args.n + kLine<T> - 1) / kLine<T>),
        direct_x(args.x->template direct<T>() && (args.n <= kLine<T> || !args.x->collides())),
        direct_y(args.y->template direct<T>()),
        direct_w(args.stride_n == 1 && m <= kDirectRows),
        by_lanes(args.stride_k == 1 && !direct_w && !args.accumulate &&
                 m <= kern.max_lane_vectors && kern.fits_lanes(n, k)),
        ld_x(k + kLine<T>),
        ld_y(n + kLine<T>) {}

  // Packs panels [p, p + count) of part `d` of k with their bias lines, d.count + 1 lines each.
  void pack(ptrdiff_t p, ptrdiff_t count, Depth d, T* to) const {
    constexpr ptrdiff_t L = kLine<T>;
    for (ptrdiff_t i = 0; i < count; ++i, to += (d.count + 1) * L) {
      const ptrdiff_t j0 = (p + i) * L;
      const ptrdiff_t cols = std::min(L, n - j0);
      for (ptrdiff_t j = 0; j < L; ++j)
        to[j] = a.bias != nullptr && j < cols ? a.bias[j0 + j] : T(0);
      const T* w = a.w + j0 * a.stride_n + d.begin * a.stride_k;
      kern.pack_panel(w, a.stride_n, a.stride_k, cols, d.count, to + L, L);
    }
  }

  Depth whole() const { return {0, k}; }

  // Rows at x (of part `part` of k) and y (of column 0) times panels [p, p + count), packed at
  // `packed` or in place.
  void dense(const T* x, ptrdiff_t ldx, T* y, ptrdiff_t ldy, ptrdiff_t rows, ptrdiff_t p,
             ptrdiff_t count, Depth part, const T* packed) const {
    constexpr ptrdiff_t L = kLine<T>;
    DenseArgs<T> d;
    d.m = rows;
    d.k = part.count;
    d.cols = std::min(n, (p + count) * L) - p * L;
    d.x = x;
    d.ldx = ldx;
    d.y = y + p * L;
    d.ldy = ldy;
    d.accumulate = a.accumulate || part.begin > 0;
    d.y_padded = false;
    d.activation = element_wise_part(a.activation);
    if (part.begin + part.count < k) d.activation.kind = Activation::kIdentity;
    if (packed != nullptr) {
      d.w = packed + L;
      d.line_stride = L;
      d.panel_stride = d.bias_stride = (part.count + 1) * L;
      d.bias = packed;
    } else {
      d.w = a.w + p * L;
      d.line_stride = a.stride_k;
      d.panel_stride = d.bias_stride = L;
      d.bias = a.bias == nullptr ? nullptr : a.bias + p * L;
    }
    kern.dense(d);
  }

  // Columns [j, end) of few rows, at least a vector of them; x is a panel, or a single row.
  void lanes(const T* x, T* y, ptrdiff_t ldy, ptrdiff_t j, ptrdiff_t end) const {
    LaneArgs<T> t;
    t.rows = end - j;
    t.k = k;
    t.vectors = m;
    t.a = a.w + j * a.stride_n;
    t.lda = a.stride_n;
    t.b = x;
    t.b_step = m == 1 ? 1 : kLine<T>;
    t.bias = a.bias == nullptr ? nullptr : a.bias + j;
    t.bias_row = 1;
    t.bias_vector = 0;
    t.y = y + j;
    t.y_row = 1;
    t.y_vector = ldy;
    t.activation = element_wise_part(a.activation);
    kern.lanes(t);
  }
};

// Few rows times weights in place: threads share the columns.
template <typename T>
void in_place(const Call<T>& c, int threads) {
  // A last panel too narrow for a vector of lanes goes with the one before it.
  const ptrdiff_t units = c.by_lanes ? std::max<ptrdiff_t>(1, c.n / kLine<T>) : c.panels;
  const ptrdiff_t full = c.n / kLine<T>;
  // Memory is read best along long stretches of the rows of w.
  const ptrdiff_t pieces = c.direct_w ? std::min<ptrdiff_t>(threads, units)
                                      : std::min(kMaxPieces, (units + kGroup - 1) / kGroup);
  T* const converted_x = static_cast<T*>(
      workspace(static_cast<size_t>((c.direct_x ? 0 : c.m * c.ld_x) +
                                    (c.direct_y ? 0 : c.m * c.ld_y) + (c.k + 1) * kLine<T>) *
                sizeof(T)));
  T* const converted_y = converted_x + (c.direct_x ? 0 : c.m * c.ld_x);
  T* const panel = converted_y + (c.direct_y ? 0 : c.m * c.ld_y);
  const ptrdiff_t size = sizeof(T);
  const T* x = c.direct_x ? reinterpret_cast<const T*>(c.a.x->data) : converted_x;
  T* y = c.direct_y ? reinterpret_cast<T*>(c.a.y->data) : converted_y;
  const ptrdiff_t ldx = c.direct_x ? c.a.x->strides[0] / size : c.ld_x;
  const ptrdiff_t ldy = c.direct_y ? c.a.y->strides[0] / size : c.ld_y;
  if (!c.direct_x) load_rows(*c.a.x, 0, c.m, converted_x, c.ld_x);
  if (!c.direct_y && c.a.accumulate) load_rows(*c.a.y, 0, c.m, converted_y, c.ld_y);
  if (c.by_lanes && c.m > 1) c.kern.pack_panel(x, ldx, 1, c.m, c.k, panel, kLine<T>);

  SharedStep step;
  parallel(static_cast<int>(std::min<ptrdiff_t>(threads, pieces)), [&](int thread) {
    step.run(static_cast<int>(pieces), thread, threads, [&](ptrdiff_t piece) {
      const ptrdiff_t p = units * piece / pieces, end = units * (piece + 1) / pieces;
      const bool last = piece + 1 == pieces;
      if (c.by_lanes) {
        c.lanes(c.m == 1 ? x : panel, y, ldy, p * kLine<T>, last ? c.n : end * kLine<T>);
        return;
      }
      if (p < std::min(end, full)) {
        c.dense(x, ldx, y, ldy, c.m, p, std::min(end, full) - p, c.whole(), nullptr);
      }
      if (last && full < c.panels) {
        c.pack(full, 1, c.whole(), panel);
        c.dense(x, ldx, y, ldy, c.m, full, 1, c.whole(), panel);
      }
    });
  });
  if (!c.direct_y) store_rows(converted_y, c.ld_y, *c.a.y, 0, c.m);
}

// How rows, columns and k are cut up where weights are packed on the way.
template <typename T>
struct Blocking {
  const Call<T>& c;
  ptrdiff_t parts, depth;        // of k; the largest part
  ptrdiff_t panel;               // elements of a packed one
  ptrdiff_t stripe, stripes;     // panels in a stripe
  ptrdiff_t rows, blocks, ld_x;  // rows in a block; of converted x
  ptrdiff_t own;                 // elements of a thread's converted x and y

  Blocking(const Call<T>& call, int threads) : c(call) {
    parts = std::max<ptrdiff_t>(1, (c.k + kDepth / 2) / kDepth);
    depth = 0;
    for (ptrdiff_t i = 0; i < parts; ++i) depth = std::max(depth, part(i).count);
    panel = (depth + 1) * kLine<T>;
    // Near-equal blocks, as many as threads can share evenly.
    const ptrdiff_t most = kBlockTiles * c.kern.max_tile_rows;
    blocks = (c.m + most - 1) / most;
    if (blocks > 1 && blocks < 8 * threads) blocks = (blocks + threads - 1) / threads * threads;
    blocks = std::min(blocks, c.m);
    rows = (c.m + blocks - 1) / blocks;
    blocks = (c.m + rows - 1) / rows;
    ld_x = depth + kLine<T>;
    own = (c.direct_x ? 0 : rows * ld_x) + (c.direct_y ? 0 : rows * c.ld_y);

    constexpr ptrdiff_t size = sizeof(T);
    if (blocks == 1) {
      const auto fits = static_cast<ptrdiff_t>(caches().l2) / 2 / (panel * size);
      stripe = std::clamp<ptrdiff_t>(std::min((c.panels + threads - 1) / threads, fits), 1, kGroup);
    } else {
      stripe = std::clamp<ptrdiff_t>(kPackedBytes / (panel * size),
                                     std::min<ptrdiff_t>(threads, c.panels), c.panels);
    }
    stripes = (c.panels + stripe - 1) / stripe;
  }

  // Near-equal parts of whole blocks of the sum.
  Depth part(ptrdiff_t i) const {
    const ptrdiff_t sums = (c.k + kSumBlock - 1) / kSumBlock;
    const ptrdiff_t begin = sums * i / parts * kSumBlock;
    return {begin, std::min(c.k, sums * (i + 1) / parts * kSumBlock) - begin};
  }

  // Block `b` of the rows times panels [p, p + count) over part `d` of k.
  void block(ptrdiff_t b, ptrdiff_t p, ptrdiff_t count, Depth d, const T* packed, T* mine) const {
    constexpr ptrdiff_t size = sizeof(T);
    T* const converted_y = mine + (c.direct_x ? 0 : rows * ld_x);
    const ptrdiff_t first = b * rows, m = std::min(rows, c.m - first);
    const T* x = mine;
    ptrdiff_t ldx = ld_x;
    if (c.direct_x) {
      x = reinterpret_cast<const T*>(c.a.x->row(first)) + d.begin;
      ldx = c.a.x->strides[0] / size;
    } else {
      RowsView view = *c.a.x;
      view.data += d.begin * view.col_stride;
      view.cols = d.count;
      load_rows(view, first, m, mine, ld_x);
    }
    if (c.direct_y) {
      T* const y = reinterpret_cast<T*>(c.a.y->row(first));
      c.dense(x, ldx, y, c.a.y->strides[0] / size, m, p, count, d, packed);
      return;
    }
    // Only this stripe's columns of the block are read and written.
    RowsView view = *c.a.y;
    view.data += p * kLine<T> * view.col_stride;
    view.cols = std::min(c.n, (p + count) * kLine<T>) - p * kLine<T>;
    T* const y = converted_y + p * kLine<T>;
    if (c.a.accumulate || d.begin > 0) load_rows(view, first, m, y, c.ld_y);
    c.dense(x, ldx, converted_y, c.ld_y, m, p, count, d, packed);
    store_rows(y, c.ld_y, view, first, m);
  }
};

// One block of rows: each thread packs the columns that it takes, and nobody waits.
template <typename T>
void one_block(const Call<T>& c, const Blocking<T>& plan, int threads) {
  const ptrdiff_t each = plan.stripe * plan.panel + plan.own;
  T* const memory = static_cast<T*>(workspace(static_cast<size_t>(threads * each) * sizeof(T)));
  Step step;
  parallel_in_turns(threads, [&](int thread, Turn& turn) {
    T* const packed = memory + thread * each;
    T* const mine = packed + plan.stripe * plan.panel;
    step.run(plan.stripes, turn, [&](ptrdiff_t stripe) {
      const ptrdiff_t p = stripe * plan.stripe, count = std::min(plan.stripe, c.panels - p);
      for (ptrdiff_t i = 0; i < plan.parts; ++i) {
        const Depth d = plan.part(i);
        c.pack(p, count, d, packed);
        plan.block(0, p, count, d, packed, mine);
      }
    });
  });
}

// Many: for each part of k, threads pack a stripe of columns together, then take blocks of rows
// through it.
template <typename T>
void many_blocks(const Call<T>& c, const Blocking<T>& plan, int threads) {
  const ptrdiff_t tasks = plan.parts * plan.stripes;
  const size_t header = static_cast<size_t>(2 * tasks) * sizeof(Step);
  char* const memory = static_cast<char*>(workspace(
      header + static_cast<size_t>(plan.stripe * plan.panel + threads * plan.own) * sizeof(T)));
  Step* const steps = reinterpret_cast<Step*>(memory);
  for (ptrdiff_t i = 0; i < 2 * tasks; ++i) new (steps + i) Step;
  T* const packed = reinterpret_cast<T*>(memory + header);

  parallel_in_turns(threads, [&](int thread, Turn& turn) {
    T* const mine = packed + plan.stripe * plan.panel + thread * plan.own;
    for (ptrdiff_t i = 0; i < tasks; ++i) {
      const Depth d = plan.part(i / plan.stripes);
      const ptrdiff_t p = i % plan.stripes * plan.stripe;
      const ptrdiff_t count = std::min(plan.stripe, c.panels - p);
      const ptrdiff_t panel = (d.count + 1) * kLine<T>;
      const auto pack = [&](ptrdiff_t j) { c.pack(p + j, 1, d, packed + j * panel); };
      const auto block = [&](ptrdiff_t b) { plan.block(b, p, count, d, packed, mine); };
      if (!steps[2 * i].run(count, turn, pack)) return;
      if (!steps[2 * i + 1].run(plan.blocks, turn, block)) return;
    }
  });
}

}  // namespace

double matmul_picoseconds(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, size_t element) {
  Work work{};
  work.macs_per_row = n * k;
  work.weight_bytes = static_cast<size_t>(n * k) * element;
  work.element = element;
  return estimate(m, work);
}

template <typename T>
void matmul(const MatmulArgs<T>& args) {
  const Call<T> call(args);
  if (call.m == 0 || call.n == 0) return;
  const double cost = matmul_picoseconds(call.m, call.n, call.k, sizeof(T));
  const int threads = threads_for(cost);
  if (call.direct_w || call.by_lanes) {
    in_place(call, threads);
  } else {
    const Blocking<T> plan(call, threads);
    if (plan.blocks == 1) {
      one_block(call, plan, static_cast<int>(std::min<ptrdiff_t>(threads, plan.stripes)));
    } else {
      many_blocks(call, plan, threads);
    }
  }
  if (is_row_wise(args.activation.kind)) {
    softmax_rows<T>(*args.y, *args.y, args.activation.kind == Activation::kLogSoftmax);
  }
}

template void matmul<float>(const MatmulArgs<float>&);
template void matmul<double>(const MatmulArgs<double>&);

}  // namespace fastlayer
