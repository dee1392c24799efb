#include "matmul.hpp"

#include <algorithm>
#include <new>

#include "convert.hpp"
#include "cpu.hpp"
#include "elementwise.hpp"
#include "first_touch.hpp"
#include "plan.hpp"
#include "team.hpp"
#include "turns.hpp"
#include "workspace.hpp"

// Which way a product goes; make_product_plan decides it, from shapes and strides alone:
//
//   way          when                           how, and why
//   in place     w (k, n), up to 14 rows, or a  A row of w is a line of neurons already; packing
//                tile where its rows collide    does not pay for so few rows. Threads share the
//                                               columns. A single row times a large w goes along
//                                               whole rows of w (kernels/gemv).
//   lanes        w (n, k), no more rows than    Nothing is packed: lanes are neurons, transposed
//                a tile or a line has, nothing  in registers on the way to the FMAs
//                accumulated                    (kernels/lanes). Threads share the columns.
//   one block    the rest, up to 8 tiles of     Each thread packs the columns that it takes, a
//                rows                           few panels at a time, and nobody waits.
//   many blocks  more rows                      Threads pack a stripe of columns together, then
//                                               take blocks of rows through it: w is packed once.
//                                               Long sums are cut into parts of k, and go on in y.

namespace fastlayer {
namespace {

// So many lines of a panel are packed before the next panel's: as many pages of (k, n) weights are
// in use, a quarter of a small TLB.
constexpr ptrdiff_t kPackedLines = 16;

// Panels that a thread packs at a time of a stripe: 1 KiB of each row of (k, n) weights, 2048
// squares of which take 1.5 ms then, and 2.4 panel by panel (Zen 5).
constexpr ptrdiff_t kPackedPanels = 16;

// Of a single block's columns over all of k, picoseconds: more are cut where turns end.
constexpr double kLongStripe = 5e9;

template <typename T>
struct Call {
  const MatmulArgs<T>& a;
  const Kernels<T>& kern;
  ptrdiff_t m, n, k, panels;
  bool direct_x, direct_y;
  bool apart;            // rows of x collide, and are used often enough to be copied
  ptrdiff_t ld_x, ld_y;  // of converted rows

  explicit Call(const MatmulArgs<T>& args)
      : a(args),
        kern(kernels<T>()),
        m(args.y->rows),
        n(args.n),
        k(args.x->cols),
        panels((args.n + kLine<T> - 1) / kLine<T>),
        direct_x(args.x->template direct<T>()),
        direct_y(args.y->template direct<T>()),
        apart(direct_x && args.n > kLine<T> && args.x->collides()),
        ld_x(k + kLine<T>),
        ld_y(n + kLine<T>) {}

  ProductPlan make_plan() const {
    Product p{};
    p.m = m;
    p.n = n;
    p.k = k;
    p.element = sizeof(T);
    p.lines_in_w = a.stride_n == 1;
    p.lines_collide = a.stride_k * ptrdiff_t(sizeof(T)) % kBadStride == 0;
    p.accumulate = a.accumulate;
    p.tile_rows = kern.max_tile_rows;
    p.max_lane_vectors = kern.max_lane_vectors;
    p.fits_lanes = a.stride_k == 1 && kern.fits_lanes(n, k);
    return make_product_plan(p, caches(), threads_for(matmul_picoseconds(m, n, k, sizeof(T))));
  }

  // Packs panels [p, p + count) of part `d` of k with their bias lines, d.count + 1 lines each.
  void pack(ptrdiff_t p, ptrdiff_t count, Part d, T* to) const {
    constexpr ptrdiff_t L = kLine<T>;
    const ptrdiff_t panel = (d.count + 1) * L;
    for (ptrdiff_t i = 0; i < count; ++i) {
      for (ptrdiff_t j = 0; j < L; ++j) {
        const ptrdiff_t column = (p + i) * L + j;
        to[i * panel + j] = a.bias != nullptr && column < n ? a.bias[column] : T(0);
      }
    }
    // Lines of a (k, n) matrix are read along its rows, through all panels.
    const ptrdiff_t lines = a.stride_n == 1 ? kPackedLines : d.count;
    for (ptrdiff_t k0 = 0; k0 < d.count; k0 += lines) {
      const ptrdiff_t some = std::min(lines, d.count - k0);
      for (ptrdiff_t i = 0; i < count; ++i) {
        const ptrdiff_t j0 = (p + i) * L;
        const T* w = a.w + j0 * a.stride_n + (d.begin + k0) * a.stride_k;
        kern.pack_panel(w, a.stride_n, a.stride_k, std::min(L, n - j0), some,
                        to + i * panel + (k0 + 1) * L, L);
      }
    }
  }

  Part whole() const { return {0, k}; }

  // Rows at x (of part `part` of k) and y (of column 0) times panels [p, p + count), packed at
  // `packed` or in place.
  void dense(const ProductPlan& plan, const T* x, ptrdiff_t ldx, T* y, ptrdiff_t ldy,
             ptrdiff_t rows, ptrdiff_t p, ptrdiff_t count, Part part, const T* packed,
             T* x_copy = nullptr, T* sums = nullptr) const {
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
    d.far = plan.far;
    d.x_copy = x_copy;
    d.sums = sums;
    d.x_bytes = plan.x_bytes;
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
    t.far = n * k * ptrdiff_t(sizeof(T)) > kFarBytes;
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
void in_place(const Call<T>& c, const ProductPlan& plan) {
  const bool by_lanes = plan.way == ProductWay::kLanes;
  const ptrdiff_t full = c.n / kLine<T>;
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
  if (by_lanes && c.m > 1) c.kern.pack_panel(x, ldx, 1, c.m, c.k, panel, kLine<T>);

  SharedStep step(plan.pieces);
  parallel(plan.threads, [&](int thread) {
    step.run(static_cast<int>(plan.pieces), thread, plan.threads, [&](ptrdiff_t piece) {
      const ptrdiff_t p = plan.panels * piece / plan.pieces;
      const ptrdiff_t end = plan.panels * (piece + 1) / plan.pieces;
      const bool last = piece + 1 == plan.pieces;
      if (by_lanes) {
        c.lanes(c.m == 1 ? x : panel, y, ldy, p * kLine<T>, last ? c.n : end * kLine<T>);
        return;
      }
      if (p < std::min(end, full)) {
        c.dense(plan, x, ldx, y, ldy, c.m, p, std::min(end, full) - p, c.whole(), nullptr);
      }
      if (last && full < c.panels) {
        c.pack(full, 1, c.whole(), panel);
        c.dense(plan, x, ldx, y, ldy, c.m, full, 1, c.whole(), panel);
      }
    });
  });
  if (!c.direct_y) store_rows(converted_y, c.ld_y, *c.a.y, 0, c.m);
}

// One block of rows, and the memory that a plan with packed weights needs.
template <typename T>
struct Blocks {
  const Call<T>& c;
  const ProductPlan& plan;
  ptrdiff_t stripe;  // elements of a packed one
  ptrdiff_t ld_x;    // of converted x: whole blocks of the sum, as a copy has them
  ptrdiff_t sums;    // of far weights that go on
  ptrdiff_t own;     // elements of a thread's sums, converted x and y

  Blocks(const Call<T>& call, const ProductPlan& p)
      : c(call),
        plan(p),
        stripe(plan.stripe * (plan.depth + 1) * kLine<T>),
        ld_x((plan.depth + kSumBlock - 1) / kSumBlock * kSumBlock + kLine<T>),
        sums(plan.far && plan.depth > kSumBlock ? plan.row_block * plan.stripe * kLine<T> : 0),
        own(sums + (c.direct_x && !c.apart ? 0 : plan.row_block * ld_x) +
            (c.direct_y ? 0 : plan.row_block * c.ld_y)) {}

  // Block `b` of the rows times panels [p, p + count) over part `d` of k.
  void run(ptrdiff_t b, ptrdiff_t p, ptrdiff_t count, Part d, const T* packed, T* mine) const {
    constexpr ptrdiff_t size = sizeof(T);
    T* const kept = sums > 0 ? mine : nullptr;
    T* const converted_y = mine + own - (c.direct_y ? 0 : plan.row_block * c.ld_y);
    T* const copied = mine + sums;
    T* const x_copy = c.apart ? copied : nullptr;
    const ptrdiff_t first = b * plan.row_block, m = std::min(plan.row_block, c.m - first);
    const T* x = copied;
    ptrdiff_t ldx = ld_x;
    if (c.direct_x) {
      x = reinterpret_cast<const T*>(c.a.x->row(first)) + d.begin;
      ldx = c.a.x->strides[0] / size;
    } else {
      RowsView view = *c.a.x;
      view.data += d.begin * view.col_stride;
      view.cols = d.count;
      load_rows(view, first, m, copied, ld_x);
    }
    if (c.direct_y) {
      T* const y = reinterpret_cast<T*>(c.a.y->row(first));
      c.dense(plan, x, ldx, y, c.a.y->strides[0] / size, m, p, count, d, packed, x_copy, kept);
      return;
    }
    // Only this stripe's columns of the block are read and written.
    RowsView view = *c.a.y;
    view.data += p * kLine<T> * view.col_stride;
    view.cols = std::min(c.n, (p + count) * kLine<T>) - p * kLine<T>;
    T* const y = converted_y + p * kLine<T>;
    if (c.a.accumulate || d.begin > 0) load_rows(view, first, m, y, c.ld_y);
    c.dense(plan, x, ldx, converted_y, c.ld_y, m, p, count, d, packed, x_copy, kept);
    store_rows(y, c.ld_y, view, first, m);
  }
};

// One block of rows: each thread packs the columns that it takes, and nobody waits. Where turns end
// and a stripe takes long, all stripes go through some parts of k before the next ones.
template <typename T>
void one_block(const Call<T>& c, const ProductPlan& plan) {
  const Blocks<T> blocks(c, plan);
  const ptrdiff_t each = blocks.stripe + blocks.own;
  ptrdiff_t count = 1;
  if (lookout() != nullptr) {
    const double stripe = matmul_picoseconds(c.m, plan.stripe * kLine<T>, c.k, sizeof(T));
    count = std::clamp<ptrdiff_t>(static_cast<ptrdiff_t>(stripe / kLongStripe), 1, plan.parts);
  }
  const size_t header = static_cast<size_t>(count) * sizeof(Step);
  char* const memory =
      static_cast<char*>(workspace(header + static_cast<size_t>(plan.threads * each) * sizeof(T)));
  Step* const steps = reinterpret_cast<Step*>(memory);
  for (ptrdiff_t i = 0; i < count; ++i) new (steps + i) Step;
  T* const buffers = reinterpret_cast<T*>(memory + header);
  parallel_in_turns(plan.threads, [&](int thread, Turn& turn) {
    T* const packed = buffers + thread * each;
    T* const mine = packed + blocks.stripe;
    for (ptrdiff_t s = 0; s < count; ++s) {
      const auto go = [&](ptrdiff_t stripe) {
        const ptrdiff_t p = stripe * plan.stripe, panels = std::min(plan.stripe, c.panels - p);
        for (ptrdiff_t i = plan.parts * s / count; i < plan.parts * (s + 1) / count; ++i) {
          const Part d = plan.part(i);
          c.pack(p, panels, d, packed);
          blocks.run(0, p, panels, d, packed, mine);
        }
      };
      if (!steps[s].run(plan.stripes, turn, go)) return;
    }
  });
}

// Many: for each part of k, threads pack a stripe of columns together, then take blocks of rows
// through it.
template <typename T>
void many_blocks(const Call<T>& c, const ProductPlan& plan) {
  const Blocks<T> blocks(c, plan);
  const ptrdiff_t tasks = plan.parts * plan.stripes;
  const size_t header = static_cast<size_t>(2 * tasks) * sizeof(Step);
  char* const memory = static_cast<char*>(workspace(
      header + static_cast<size_t>(blocks.stripe + plan.threads * blocks.own) * sizeof(T)));
  Step* const steps = reinterpret_cast<Step*>(memory);
  for (ptrdiff_t i = 0; i < 2 * tasks; ++i) new (steps + i) Step;
  T* const packed = reinterpret_cast<T*>(memory + header);

  parallel_in_turns(plan.threads, [&](int thread, Turn& turn) {
    T* const mine = packed + blocks.stripe + thread * blocks.own;
    for (ptrdiff_t i = 0; i < tasks; ++i) {
      const Part d = plan.part(i / plan.stripes);
      const ptrdiff_t p = i % plan.stripes * plan.stripe;
      const ptrdiff_t count = std::min(plan.stripe, c.panels - p);
      const ptrdiff_t panel = (d.count + 1) * kLine<T>;
      // Enough pieces for all threads.
      const ptrdiff_t some = std::min(kPackedPanels, (count - 1) / (2 * plan.threads) + 1);
      const auto pack = [&](ptrdiff_t piece) {
        const ptrdiff_t j = piece * some;
        c.pack(p + j, std::min(some, count - j), d, packed + j * panel);
      };
      const auto block = [&](ptrdiff_t b) { blocks.run(b, p, count, d, packed, mine); };
      if (!steps[2 * i].run((count - 1) / some + 1, turn, pack)) return;
      if (!steps[2 * i + 1].run(plan.blocks, turn, block)) return;
    }
  });
}

}  // namespace

template <typename T>
void matmul(const MatmulArgs<T>& args) {
  const Call<T> call(args);
  if (call.m == 0 || call.n == 0) return;
  const ProductPlan plan = call.make_plan();
  switch (plan.way) {
    case ProductWay::kInPlace:
    case ProductWay::kLanes:
      in_place(call, plan);
      break;
    case ProductWay::kOneBlock:
      touch_in_turns(*args.y, plan.threads);
      one_block(call, plan);
      break;
    case ProductWay::kManyBlocks:
      touch_in_turns(*args.y, plan.threads);
      many_blocks(call, plan);
      break;
  }
  if (is_row_wise(args.activation.kind)) {
    softmax_rows<T>(*args.y, *args.y, args.activation.kind == Activation::kLogSoftmax);
  }
}

template void matmul<float>(const MatmulArgs<float>&);
template void matmul<double>(const MatmulArgs<double>&);

}  // namespace fastlayer
