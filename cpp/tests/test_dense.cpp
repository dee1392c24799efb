// Packing and the dense kernel of every instruction set against reference_sum, bit for bit, with
// all operands against inaccessible pages.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../core/packed_weights.hpp"
#include "../core/reference.hpp"
#include "check.hpp"
#include "tests.hpp"

namespace fastlayer {
namespace {

struct Shape {
  ptrdiff_t m, k, n;
};

// At last the tiles of few rows, as wide as they get.
const Shape kShapes[] = {
    {1, 1, 1},      {1, 0, 5},    {3, 0, 20},    {1, 3, 8},    {2, 5, 15},    {3, 7, 16},
    {4, 9, 17},     {5, 31, 31},  {6, 64, 33},   {7, 65, 40},  {8, 100, 50},  {9, 10, 64},
    {10, 33, 65},   {11, 2, 100}, {12, 8, 129},  {13, 16, 7},  {14, 255, 32}, {15, 256, 9},
    {16, 257, 48},  {17, 511, 5}, {29, 513, 35}, {43, 20, 10}, {1, 1000, 70}, {2, 1025, 1},
    {300, 600, 18}, {1, 9, 32},   {1, 9, 64},    {2, 9, 32},   {2, 9, 96},    {2, 9, 112},
    {4, 9, 96},
};

template <typename T>
T reference(const Shape& s, const T* x, const T* w, T start, ptrdiff_t i, ptrdiff_t j) {
  return reference_sum(start, x + i * s.k, 1, w + j * s.k, 1, s.k);
}

// Packed weights; then row-major (k, n) weights in place where whole lines allow it.
template <typename T>
void check_shape(const KernelTable& table, const Shape& s, bool at_end, bool accumulate,
                 bool with_bias) {
  constexpr ptrdiff_t L = kLine<T>;
  const Kernels<T>& kern = kernels_of<T>(table);
  Random random(static_cast<uint64_t>(s.m * 1000003 + s.k * 1009 + s.n));
  const std::vector<T> x = random.numbers<T>(s.m * s.k), w = random.numbers<T>(s.n * s.k),
                       bias = random.numbers<T>(s.n), before = random.numbers<T>(s.m * s.n);
  Guarded<T> gx(x, at_end), gy(before, at_end);

  const ptrdiff_t panels = (s.n + L - 1) / L, panel = (s.k + 1) * L;
  Guarded<T> packed(panels * panel, at_end), gw(w, at_end);
  for (ptrdiff_t p = 0; p < panels; ++p) {
    const ptrdiff_t cols = std::min(L, s.n - p * L);
    T* to = packed.data() + p * panel;
    for (ptrdiff_t j = 0; j < L; ++j) to[j] = j < cols ? bias[p * L + j] : T(0);
    kern.pack_panel(gw.data() + p * L * s.k, s.k, 1, cols, s.k, to + L, L);
    for (ptrdiff_t kk = 0; kk < s.k; ++kk) {
      for (ptrdiff_t j = 0; j < L; ++j) {
        const T expected = j < cols ? w[(p * L + j) * s.k + kk] : T(0);
        FL_CHECK(same_bits(to[L + kk * L + j], expected), "%s pack", table.name);
      }
    }
  }

  DenseArgs<T> d{};
  d.x_bytes = 256 * 1024;
  d.m = s.m;
  d.k = s.k;
  d.cols = s.n;
  d.x = gx.data();
  d.ldx = s.k;
  d.w = packed.data() + L;
  d.panel_stride = d.bias_stride = panel;
  d.line_stride = L;
  d.bias = with_bias ? packed.data() : nullptr;
  d.y = gy.data();
  d.ldy = s.n;
  d.accumulate = accumulate;
  d.activation = {Activation::kIdentity, T(0), T(0)};
  kern.dense(d);
  // Weights from afar, rows copied apart and sums kept elsewhere are matters of time alone.
  std::vector<T> y_far = before;
  const ptrdiff_t blocks = (s.k + kSumBlock - 1) / kSumBlock;
  Guarded<T> x_copy(blocks * kSumBlock * s.m, at_end);
  DenseArgs<T> far = d;
  far.y = y_far.data();
  far.far = true;
  far.x_copy = x_copy.data();
  far.x_bytes = 1;
  kern.dense(far);
  FL_CHECK(std::memcmp(gy.data(), y_far.data(), sizeof(T) * s.m * s.n) == 0, "%s far", table.name);
  Guarded<T> sums(s.m * panels * L, at_end);
  far.sums = sums.data();
  y_far = before;
  kern.dense(far);
  FL_CHECK(std::memcmp(gy.data(), y_far.data(), sizeof(T) * s.m * s.n) == 0, "%s sums", table.name);
  for (ptrdiff_t i = 0; i < s.m; ++i) {
    for (ptrdiff_t j = 0; j < s.n; ++j) {
      const T start = accumulate ? before[i * s.n + j] : with_bias ? bias[j] : T(0);
      const T expected = reference(s, x.data(), w.data(), start, i, j);
      FL_CHECK(same_bits(gy.data()[i * s.n + j], expected),
               "%s %s m=%td k=%td n=%td (%td, %td): %a instead of %a", table.name, type_name<T>(),
               s.m, s.k, s.n, i, j, double(gy.data()[i * s.n + j]), double(expected));
    }
  }

  // The same panels out of (k, n) weights, which are packed line by line.
  std::vector<T> transposed(w.size());
  for (ptrdiff_t j = 0; j < s.n; ++j) {
    for (ptrdiff_t kk = 0; kk < s.k; ++kk) transposed[kk * s.n + j] = w[j * s.k + kk];
  }
  Guarded<T> gt(transposed, at_end), y2(before, at_end), lines(s.k * L, at_end);
  for (ptrdiff_t p = 0; p < panels; ++p) {
    kern.pack_panel(gt.data() + p * L, 1, s.n, std::min(L, s.n - p * L), s.k, lines.data(), L);
    const T* same = packed.data() + p * panel + L;
    FL_CHECK(std::memcmp(lines.data(), same, sizeof(T) * s.k * L) == 0, "%s pack lines",
             table.name);
  }

  if (s.n % L != 0 || s.k == 0) return;
  d.w = gt.data();
  d.line_stride = s.n;
  d.panel_stride = d.bias_stride = L;
  d.bias = with_bias ? bias.data() : nullptr;
  d.y = y2.data();
  kern.dense(d);
  FL_CHECK(std::memcmp(gy.data(), y2.data(), sizeof(T) * s.m * s.n) == 0, "%s in place",
           table.name);
}

// The lanes kernel: plain weights times few rows, and many rows times the last panel's columns.
template <typename T>
void check_lanes(const KernelTable& table, ptrdiff_t rows, ptrdiff_t k, ptrdiff_t vectors,
                 ptrdiff_t spare, bool at_end, bool with_bias = true, bool far = false) {
  constexpr ptrdiff_t L = kLine<T>;
  const Kernels<T>& kern = kernels_of<T>(table);
  if (!kern.fits_lanes(rows, k) || vectors > kern.max_lane_vectors) return;
  Random random(static_cast<uint64_t>(rows * 1000003 + k * 1009 + vectors));
  const ptrdiff_t lda = k + spare, step = vectors == 1 && rows % 2 == 0 ? 1 : L;
  const std::vector<T> a = random.numbers<T>((rows - 1) * lda + k),
                       b = random.numbers<T>((k - 1) * step + vectors),
                       bias = random.numbers<T>(rows + vectors);
  Guarded<T> ga(a, at_end), gb(b, at_end);
  for (const bool by_row : {false, true}) {
    const ptrdiff_t ldy = by_row ? 1 : vectors + 1;  // rows of a y that has another column
    Guarded<T> gy(by_row ? rows * vectors : (rows - 1) * ldy + vectors, at_end);
    LaneArgs<T> t{};
    t.rows = rows;
    t.k = k;
    t.vectors = vectors;
    t.a = ga.data();
    t.lda = lda;
    t.far = far;
    t.b = gb.data();
    t.b_step = step;
    t.bias = with_bias ? bias.data() : nullptr;
    t.bias_row = by_row ? 1 : 0;
    t.bias_vector = by_row ? 0 : 1;
    t.y = gy.data();
    t.y_row = ldy;
    t.y_vector = by_row ? rows : 1;
    t.activation = {Activation::kIdentity, T(0), T(0)};
    kern.lanes(t);
    for (ptrdiff_t r = 0; r < rows; ++r) {
      for (ptrdiff_t j = 0; j < vectors; ++j) {
        const T start = with_bias ? bias[by_row ? r : j] : T(0);
        const T expected = reference_sum(start, a.data() + r * lda, 1, b.data() + j, step, k);
        const T found = gy.data()[r * t.y_row + j * t.y_vector];
        FL_CHECK(same_bits(found, expected), "%s %s lanes rows=%td k=%td vectors=%td: %a not %a",
                 table.name, type_name<T>(), rows, k, vectors, double(found), double(expected));
      }
    }
  }
}

// One row times (k, n) weights in place, beyond the size from which they are read by rows.
template <typename T>
void check_row_times_matrix(const KernelTable& table, bool accumulate, bool with_bias) {
  const ptrdiff_t k = 515, L = kLine<T>;
  for (const ptrdiff_t n : {20 * L, 320 * L}) {
    Random random(static_cast<uint64_t>(n));
    const std::vector<T> x = random.numbers<T>(k), w = random.numbers<T>(k * n),
                         bias = random.numbers<T>(n), before = random.numbers<T>(n);
    for (const bool at_end : {false, true}) {
      Guarded<T> gx(x, at_end), gw(w, at_end), gb(bias, at_end), gy(before, at_end);
      DenseArgs<T> d{};
      d.x_bytes = 256 * 1024;
      d.m = 1;
      d.k = k;
      d.cols = n;
      d.x = gx.data();
      d.ldx = k;
      d.w = gw.data();
      d.panel_stride = d.bias_stride = L;
      d.line_stride = n;
      d.bias = with_bias ? gb.data() : nullptr;
      d.y = gy.data();
      d.ldy = n;
      d.accumulate = accumulate;
      d.activation = {Activation::kIdentity, T(0), T(0)};
      kernels_of<T>(table).dense(d);
      for (ptrdiff_t j = 0; j < n; ++j) {
        const T start = accumulate ? before[j] : with_bias ? bias[j] : T(0);
        const T expected = reference_sum(start, x.data(), 1, w.data() + j, n, k);
        FL_CHECK(same_bits(gy.data()[j], expected), "%s %s row n=%td column %td", table.name,
                 type_name<T>(), n, j);
      }
    }
  }
}

// relu and leaky_relu in registers against the same functions over finished rows.
template <typename T>
void check_epilogue(const KernelTable& table, ActivationArgs<T> act) {
  const Kernels<T>& kern = kernels_of<T>(table);
  Random random(7);
  const ptrdiff_t m = 19, k = 70, n = 45, L = kLine<T>;
  std::vector<T> x = random.numbers<T>(m * k), w = random.numbers<T>((n + L) * k);
  std::vector<T> sums(m * n), fused(m * n);
  x[3] = INFINITY;
  x[k + 1] = NAN;
  const PackedWeights<T> packed(n, k, w.data(), k, 1, nullptr);
  DenseArgs<T> d{};
  d.x_bytes = 256 * 1024;
  d.m = m;
  d.k = k;
  d.cols = n;
  d.x = x.data();
  d.ldx = k;
  d.w = packed.weight_lines(0);
  d.panel_stride = d.bias_stride = packed.panel_stride();
  d.line_stride = L;
  d.bias = packed.bias_line(0);
  d.y = sums.data();
  d.ldy = n;
  d.activation = {Activation::kIdentity, T(0), T(0)};
  kern.dense(d);
  kern.activation(act, sums.data(), sums.data(), m * n);
  d.y = fused.data();
  d.activation = act;
  kern.dense(d);
  FL_CHECK(std::memcmp(sums.data(), fused.data(), sizeof(T) * m * n) == 0, "%s %s epilogue %d",
           table.name, type_name<T>(), int(act.kind));
}

// Every tile, whole lines and cut off, with each end that it has: sums, relu and leaky_relu.
template <typename T>
void check_tiles(const KernelTable& table) {
  constexpr ptrdiff_t L = kLine<T>, k = 5;
  const Kernels<T>& kern = kernels_of<T>(table);
  Random random(13);
  for (ptrdiff_t m = 1; m <= kern.max_tile_rows; ++m) {
    for (ptrdiff_t panels = 1; panels <= 8; ++panels) {
      for (const ptrdiff_t n : {panels * L - 1, panels * L}) {
        const std::vector<T> x = random.numbers<T>(m * k), w = random.numbers<T>(n * k),
                             bias = random.numbers<T>(n);
        const PackedWeights<T> packed(n, k, w.data(), k, 1, bias.data());
        std::vector<T> y(static_cast<size_t>(m * n));
        DenseArgs<T> d{};
        d.x_bytes = 256 * 1024;
        d.m = m;
        d.k = k;
        d.cols = n;
        d.x = x.data();
        d.ldx = k;
        d.w = packed.weight_lines(0);
        d.panel_stride = d.bias_stride = packed.panel_stride();
        d.line_stride = L;
        d.bias = packed.bias_line(0);
        d.y = y.data();
        d.ldy = n;
        for (const Activation kind :
             {Activation::kIdentity, Activation::kRelu, Activation::kLeakyRelu}) {
          const T slope = kind == Activation::kLeakyRelu ? T(0.375) : T(0);
          d.activation = {kind, slope, T(0)};
          kern.dense(d);
          for (ptrdiff_t i = 0; i < m; ++i) {
            for (ptrdiff_t j = 0; j < n; ++j) {
              T expected = reference_sum(bias[j], x.data() + i * k, 1, w.data() + j * k, 1, k);
              if (kind != Activation::kIdentity && expected < T(0)) {
                expected = kind == Activation::kRelu ? T(0) : slope * expected;
              }
              FL_CHECK(same_bits(y[i * n + j], expected), "%s %s tile m=%td n=%td at %td, %td",
                       table.name, type_name<T>(), m, n, i, j);
            }
          }
        }
      }
    }
  }
}

// Many rows of short sums and narrow last panels are those rows one by one: strips, whose relu is a
// maximum, with bounds, NaN, both zeros and infinities among the sums.
template <typename T>
void check_strips(const KernelTable& table, ptrdiff_t k, ptrdiff_t n, bool padded,
                  Activation activation) {
  constexpr ptrdiff_t L = kLine<T>;
  const Kernels<T>& kern = kernels_of<T>(table);
  Random random(static_cast<uint64_t>(k * 1009 + n));
  const std::vector<T> w = random.numbers<T>(n * k);
  std::vector<T> bias = random.numbers<T>(n);
  bias[n / 2] = T(-0.0);
  const PackedWeights<T> packed(n, k, w.data(), k, 1, bias.data());
  const ptrdiff_t most = 4 * kern.max_tile_rows + 1, ldy = padded ? (n + L - 1) / L * L : n + 1;
  std::vector<T> x = random.numbers<T>(most * k);
  const T limit = std::numeric_limits<T>::infinity(), tiny = std::numeric_limits<T>::denorm_min();
  x[0] = std::numeric_limits<T>::quiet_NaN();
  x[k] = limit;
  x[2 * k] = -limit;
  for (ptrdiff_t kk = 0; kk < k; ++kk) x[3 * k + kk] = kk == 0 ? tiny : T(0);  // sums of +-0
  for (const ptrdiff_t m : {most, most - 1, 2 * ptrdiff_t(kern.max_tile_rows)}) {
    Guarded<T> all((m - 1) * ldy + (padded ? ldy : n), true), one(padded ? ldy : n, true);
    DenseArgs<T> d{};
    d.k = k;
    d.cols = n;
    d.ldx = k;
    d.w = packed.weight_lines(0);
    d.panel_stride = d.bias_stride = packed.panel_stride();
    d.line_stride = L;
    d.bias = packed.bias_line(0);
    d.ldy = ldy;
    d.y_padded = padded;
    d.activation = {activation, T(0.25), T(0)};
    d.m = m;
    d.x = x.data();
    d.y = all.data();
    kern.dense(d);
    d.m = 1;
    d.y = one.data();
    for (ptrdiff_t i = 0; i < m; ++i, d.x += k) {
      kern.dense(d);
      for (ptrdiff_t j = 0; j < n; ++j) {
        const T a = all.data()[i * ldy + j], b = one.data()[j];
        FL_CHECK(same_bits(a, b) || (a != a && b != b),
                 "%s %s strip m=%td k=%td n=%td (%td, %td): %a instead of %a", table.name,
                 type_name<T>(), m, k, n, i, j, double(a), double(b));
      }
    }
  }
}

template <typename T>
void check_table(const KernelTable& table) {
  for (const Shape& s : kShapes) {
    for (const bool at_end : {false, true}) {
      for (const bool accumulate : {false, true}) {
        check_shape<T>(table, s, at_end, accumulate, true);
      }
      check_shape<T>(table, s, at_end, false, false);
    }
  }
  check_tiles<T>(table);
  for (const ptrdiff_t n : {1, 2, 3, 4, 5, 8, 9, 10, 13, 16, 24, 32, 35, 44, 100}) {
    for (const ptrdiff_t k : {1, 3, 16, 64, 256, 257, 520}) {
      for (const bool padded : {false, true}) {
        for (const auto kind : {Activation::kIdentity, Activation::kRelu, Activation::kLeakyRelu,
                                Activation::kTanh}) {
          check_strips<T>(table, k, n, padded, kind);
        }
      }
    }
  }
  for (const bool accumulate : {false, true}) check_row_times_matrix<T>(table, accumulate, true);
  check_row_times_matrix<T>(table, false, false);
  for (const bool at_end : {false, true}) {
    for (ptrdiff_t vectors = 1; vectors <= 16; ++vectors) {
      for (const ptrdiff_t rows : {1, 3, 4, 7, 8, 16, 19, 33, 70}) {
        for (const ptrdiff_t k : {2, 4, 5, 19, 256, 257, 511, 530}) {
          check_lanes<T>(table, rows, k, vectors, 0, at_end);
        }
      }
      for (const ptrdiff_t rows : {37, 38}) {
        check_lanes<T>(table, rows, 19, vectors, 0, at_end, false);
      }
      // One to four vectors of rows, the last of them whole or not, each with and without a bias.
      for (const ptrdiff_t rows : {6, 10, 13, 14, 15, 18, 22, 26, 27, 30, 31, 61, 62}) {
        for (const bool with_bias : {false, true}) {
          check_lanes<T>(table, rows, 300, vectors, 0, at_end, with_bias, false);
          check_lanes<T>(table, rows, 300, vectors, 0, at_end, with_bias, true);
          check_lanes<T>(table, rows, 512, vectors, 0, at_end, with_bias, false);
          check_lanes<T>(table, rows, 1281, vectors, (4096 - 1281) % 512, at_end, with_bias);
        }
      }
      // Strides that fill few sets of L1, and one, two and four blocks of the sum at a time.
      for (const ptrdiff_t k : {511, 512, 1024, 1801, 2048}) {
        for (const ptrdiff_t rows : {37, 38}) {
          check_lanes<T>(table, rows, k, vectors, (2048 - k) % 512, at_end);
        }
      }
      for (const ptrdiff_t spare : {0, 1}) {
        for (const ptrdiff_t rows : {7, 39, 40}) {
          check_lanes<T>(table, rows, 700, vectors, spare, at_end, true, true);
        }
      }
      // Four, three and two blocks beside each other, the last of them whole and cut off.
      for (const ptrdiff_t k : {769, 1000, 1023, 1026, 1281, 1536, 1801, 2304}) {
        for (const ptrdiff_t rows : {8, 38}) {
          check_lanes<T>(table, rows, k, vectors, (4096 - k) % 512, at_end);
        }
      }
    }
  }
  for (int kind = 0; kind < kActivationCount; ++kind) {
    const auto activation = static_cast<Activation>(kind);
    if (is_row_wise(activation)) continue;
    check_epilogue<T>(table, {activation, T(0.25), T(20)});
  }
}

template <typename T>
void check_round_trip() {
  Random random(3);
  for (const Shape& s : kShapes) {
    const std::vector<T> w = random.numbers<T>(s.n * s.k), bias = random.numbers<T>(s.n);
    const PackedWeights<T> packed(s.n, s.k, w.data(), s.k, 1, bias.data());
    std::vector<T> w2(w.size()), bias2(bias.size());
    packed.unpack(w2.data());
    packed.unpack_bias(bias2.data());
    FL_CHECK(w == w2 && bias == bias2, "round trip n=%td k=%td", s.n, s.k);
  }
}

}  // namespace

void test_dense() {
  check_round_trip<float>();
  check_round_trip<double>();
  for (const KernelTable* table : supported_tables()) {
    check_table<float>(*table);
    check_table<double>(*table);
  }
}

}  // namespace fastlayer
