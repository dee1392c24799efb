#include "matmul.hpp"

#include <algorithm>
#include <new>

#include "convert.hpp"
#include "cpu.hpp"
#include "elementwise.hpp"
#include "plan.hpp"
#include "threads.hpp"
#include "workspace.hpp"

namespace fastlayer {
namespace {

// Packed weights in flight: at most this much, or one panel for each thread. 4 MiB is an eighth of
// the 32 MiB L3 of Zen 4 and Zen 5, which the rows of x and y pass through as well.
constexpr ptrdiff_t kPackedBytes = 4 * 1024 * 1024;

// Row-major (k, n) weights are read in place for up to this many rows; from there on a packed copy,
// with its adjacent lines, pays for itself.
constexpr ptrdiff_t kDirectRows = 14;

// Up to this many tiles of rows, threads share columns and each packs what it alone needs.
constexpr ptrdiff_t kFewTiles = 2;

template <typename T>
struct Call {
  const MatmulArgs<T>& a;
  const Kernels<T>& kern;
  ptrdiff_t m, n, k, panels;
  bool direct_x, direct_y, direct_w;
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
        direct_w(args.stride_n == 1 && m <= kDirectRows),
        ld_x(k + kLine<T>),
        ld_y(n + kLine<T>) {}

  // Packs panels [p, p + count) with their bias lines, (k + 1) lines each.
  void pack(ptrdiff_t p, ptrdiff_t count, T* to) const {
    constexpr ptrdiff_t L = kLine<T>;
    for (ptrdiff_t i = 0; i < count; ++i, to += (k + 1) * L) {
      const ptrdiff_t j0 = (p + i) * L;
      const ptrdiff_t cols = std::min(L, n - j0);
      for (ptrdiff_t j = 0; j < L; ++j)
        to[j] = a.bias != nullptr && j < cols ? a.bias[j0 + j] : T(0);
      kern.pack_panel(a.w + j0 * a.stride_n, a.stride_n, a.stride_k, cols, k, to + L);
    }
  }

  // Rows at x and y (of column 0) times panels [p, p + count), packed at `packed` or in place.
  void dense(const T* x, ptrdiff_t ldx, T* y, ptrdiff_t ldy, ptrdiff_t rows, ptrdiff_t p,
             ptrdiff_t count, const T* packed) const {
    constexpr ptrdiff_t L = kLine<T>;
    DenseArgs<T> d;
    d.m = rows;
    d.k = k;
    d.cols = std::min(n, (p + count) * L) - p * L;
    d.x = x;
    d.ldx = ldx;
    d.y = y + p * L;
    d.ldy = ldy;
    d.accumulate = a.accumulate;
    d.y_padded = false;
    d.activation = element_wise_part(a.activation);
    if (packed != nullptr) {
      d.w = packed + L;
      d.line_stride = L;
      d.panel_stride = d.bias_stride = (k + 1) * L;
      d.bias = packed;
    } else {
      d.w = a.w + p * L;
      d.line_stride = a.stride_k;
      d.panel_stride = d.bias_stride = L;
      d.bias = a.bias == nullptr ? nullptr : a.bias + p * L;
    }
    kern.dense(d);
  }
};

// Few rows: threads share the columns, a group of panels at a time.
template <typename T>
void few_rows(const Call<T>& c, int threads) {
  const ptrdiff_t panel = (c.k + 1) * kLine<T>;
  const ptrdiff_t l2 = static_cast<ptrdiff_t>(caches().l2 / 2 / sizeof(T));
  const ptrdiff_t group = std::clamp<ptrdiff_t>(l2 / panel, 1, 8);
  const ptrdiff_t full = c.n % kLine<T> == 0 ? c.panels : c.panels - 1;
  T* const converted_x = static_cast<T*>(
      workspace(static_cast<size_t>((c.direct_x ? 0 : c.m * c.ld_x) +
                                    (c.direct_y ? 0 : c.m * c.ld_y) + threads * (group * panel)) *
                sizeof(T)));
  T* const converted_y = converted_x + (c.direct_x ? 0 : c.m * c.ld_x);
  T* const packs = converted_y + (c.direct_y ? 0 : c.m * c.ld_y);
  const ptrdiff_t size = sizeof(T);
  const T* x = c.direct_x ? reinterpret_cast<const T*>(c.a.x->data) : converted_x;
  T* y = c.direct_y ? reinterpret_cast<T*>(c.a.y->data) : converted_y;
  const ptrdiff_t ldx = c.direct_x ? c.a.x->strides[0] / size : c.ld_x;
  const ptrdiff_t ldy = c.direct_y ? c.a.y->strides[0] / size : c.ld_y;
  if (!c.direct_x) load_rows(*c.a.x, 0, c.m, converted_x, c.ld_x);
  if (!c.direct_y && c.a.accumulate) load_rows(*c.a.y, 0, c.m, converted_y, c.ld_y);

  const ptrdiff_t pieces = std::min(kMaxPieces, (c.panels + group - 1) / group);
  SharedStep step;
  parallel(threads, [&](int thread) {
    T* const pack = packs + thread * (group * panel);
    step.run(static_cast<int>(pieces), thread, threads, [&](ptrdiff_t piece) {
      const ptrdiff_t end = c.panels * (piece + 1) / pieces;
      ptrdiff_t p = c.panels * piece / pieces;
      if (c.direct_w && p < std::min(end, full)) {
        c.dense(x, ldx, y, ldy, c.m, p, std::min(end, full) - p, nullptr);
        p = std::min(end, full);
      }
      for (; p < end; p += group) {
        const ptrdiff_t count = std::min(group, end - p);
        c.pack(p, count, pack);
        c.dense(x, ldx, y, ldy, c.m, p, count, pack);
      }
    });
  });
  if (!c.direct_y) store_rows(converted_y, c.ld_y, *c.a.y, 0, c.m);
}

// Many rows: threads pack a stripe of columns together, then take blocks of rows through it.
template <typename T>
void many_rows(const Call<T>& c, int threads) {
  const ptrdiff_t panel = (c.k + 1) * kLine<T>;
  const ptrdiff_t stripe =
      std::clamp<ptrdiff_t>(kPackedBytes / (panel * static_cast<ptrdiff_t>(sizeof(T))),
                            std::min<ptrdiff_t>(threads, c.panels), c.panels);
  const ptrdiff_t tile = c.kern.max_tile_rows;
  const ptrdiff_t wanted = std::min<ptrdiff_t>(8 * tile, (c.m + threads - 1) / threads);
  const ptrdiff_t rows = (wanted + tile - 1) / tile * tile;
  const ptrdiff_t blocks = (c.m + rows - 1) / rows;
  const ptrdiff_t own = (c.direct_x ? 0 : rows * c.ld_x) + (c.direct_y ? 0 : rows * c.ld_y);
  const ptrdiff_t stripes = (c.panels + stripe - 1) / stripe;
  const size_t header = static_cast<size_t>(2 * stripes) * sizeof(Step);
  char* const memory = static_cast<char*>(
      workspace(header + static_cast<size_t>(stripe * panel + threads * own) * sizeof(T)));
  Step* const steps = reinterpret_cast<Step*>(memory);
  for (ptrdiff_t i = 0; i < 2 * stripes; ++i) new (steps + i) Step;
  T* const packed = reinterpret_cast<T*>(memory + header);
  const ptrdiff_t size = sizeof(T);

  parallel(threads, [&](int thread) {
    T* const converted_x = packed + stripe * panel + thread * own;
    T* const converted_y = converted_x + (c.direct_x ? 0 : rows * c.ld_x);
    for (ptrdiff_t s = 0; s < stripes; ++s) {
      const ptrdiff_t p0 = s * stripe;
      const ptrdiff_t count = std::min(stripe, c.panels - p0);
      steps[2 * s].run(count, [&](ptrdiff_t i) { c.pack(p0 + i, 1, packed + i * panel); });
      steps[2 * s + 1].run(blocks, [&](ptrdiff_t b) {
        const ptrdiff_t first = b * rows;
        const ptrdiff_t block = std::min(rows, c.m - first);
        const T* x = converted_x;
        ptrdiff_t ldx = c.ld_x;
        if (c.direct_x) {
          x = reinterpret_cast<const T*>(c.a.x->row(first));
          ldx = c.a.x->strides[0] / size;
        } else {
          load_rows(*c.a.x, first, block, converted_x, c.ld_x);
        }
        if (c.direct_y) {
          T* const y = reinterpret_cast<T*>(c.a.y->row(first));
          c.dense(x, ldx, y, c.a.y->strides[0] / size, block, p0, count, packed);
          return;
        }
        // Only this stripe's columns of the block are read and written.
        RowsView part = *c.a.y;
        part.data += p0 * kLine<T> * part.col_stride;
        part.cols = std::min(c.n, (p0 + count) * kLine<T>) - p0 * kLine<T>;
        T* const y = converted_y + p0 * kLine<T>;
        if (c.a.accumulate) load_rows(part, first, block, y, c.ld_y);
        c.dense(x, ldx, converted_y, c.ld_y, block, p0, count, packed);
        store_rows(y, c.ld_y, part, first, block);
      });
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
  if (call.m <= kFewTiles * call.kern.max_tile_rows) {
    few_rows(call, static_cast<int>(std::min<ptrdiff_t>(threads, call.panels)));
  } else {
    many_rows(call, threads);
  }
  if (is_row_wise(args.activation.kind)) {
    softmax_rows<T>(*args.y, *args.y, args.activation.kind == Activation::kLogSoftmax);
  }
}

template void matmul<float>(const MatmulArgs<float>&);
template void matmul<double>(const MatmulArgs<double>&);

}  // namespace fastlayer
