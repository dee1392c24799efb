// No byte outside the caller's arrays is read or written: x, weights, bias and y lie against
// inaccessible pages, at either end, for all m, k and n up to twice the tile and one more. Each
// instruction set runs in a process of its own, as users run it.
#include <algorithm>

#include "../core/executor.hpp"
#include "../core/matmul.hpp"
#include "check.hpp"
#include "tests.hpp"

namespace fastlayer {
namespace {

// Memory for up to `most` elements, given out so that they end, or begin, where it does. The rest
// of it holds a pattern.
template <typename T>
class Edge {
 public:
  Edge(ptrdiff_t most, bool at_end) : memory_(most, at_end), most_(most), at_end_(at_end) {}

  T* place(const T* values, ptrdiff_t n) {
    std::memset(memory_.data(), kPattern, static_cast<size_t>(most_) * sizeof(T));
    T* const to = memory_.data() + (at_end_ ? most_ - n : 0);
    std::copy(values, values + n, to);
    return to;
  }
  bool rest_is_untouched(ptrdiff_t n) {
    const auto* rest = reinterpret_cast<const unsigned char*>(memory_.data() + (at_end_ ? 0 : n));
    const auto* end = rest + static_cast<size_t>(most_ - n) * sizeof(T);
    return std::all_of(rest, end, [](unsigned char c) { return c == kPattern; });
  }

 private:
  static constexpr unsigned char kPattern = 0xa5;
  Guarded<T> memory_;
  ptrdiff_t most_;
  bool at_end_;
};

template <typename T>
RowsView rows_at(T* data, ptrdiff_t rows, ptrdiff_t cols, bool transposed) {
  constexpr ptrdiff_t size = sizeof(T);
  RowsView view;
  view.data = reinterpret_cast<char*>(data);
  view.dtype = dtype_of<T>();
  view.rows = view.shape[0] = rows;
  view.cols = cols;
  view.col_stride = transposed ? rows * size : size;
  view.leading = 1;
  view.strides[0] = transposed ? size : cols * size;
  return view;
}

// Sums of small integers are exact in any order: the sum over k grows by one product at a time.
template <typename T>
class Cube {
 public:
  Cube(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, bool at_end)
      : m_(m),
        n_(n),
        sums_(m * n),
        x_(m * k, at_end),
        w_(n * k, at_end),
        b_(n, at_end),
        y_(m * n, at_end) {}

  void check(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, bool turned) {
    values_.resize(static_cast<size_t>(std::max({m * k, n * k, n, m * n})));
    const auto at = [turned](ptrdiff_t i, ptrdiff_t j, ptrdiff_t rows, ptrdiff_t cols) {
      return turned ? j * rows + i : i * cols + j;
    };
    each(m, k, [&](ptrdiff_t i, ptrdiff_t j) { values_[at(i, j, m, k)] = element(i, j); });
    T* const x = x_.place(values_.data(), m * k);
    each(n, k, [&](ptrdiff_t i, ptrdiff_t j) { values_[at(i, j, n, k)] = element(j, i); });
    T* const w = w_.place(values_.data(), n * k);
    for (ptrdiff_t j = 0; j < n; ++j) values_[j] = T(j);
    const T* const b = b_.place(values_.data(), n);
    T* const y = y_.place(values_.data(), m * n);

    const RowsView from = rows_at(x, m, k, turned), to = rows_at(y, m, n, turned);
    const ActivationArgs<T> none = {Activation::kIdentity, T(0), T(0)};
    const ptrdiff_t stride_n = turned ? 1 : k, stride_k = turned ? n : 1;
    matmul<T>({&from, &to, w, n, stride_n, stride_k, b, false, none});
    expect(y, m, k, n, turned, "matmul");
    matmul<T>({&from, &to, w, n, stride_n, stride_k, nullptr, true, none});
    std::fill(y, y + m * n, T(-1));
    Program<T> net(k);
    net.dense(std::make_shared<const PackedWeights<T>>(n, k, w, stride_n, stride_k, b), none);
    net.finish();
    execute(net, from, to, net.plan(m));
    expect(y, m, k, n, turned, "program");
    FL_CHECK(x_.rest_is_untouched(m * k) && w_.rest_is_untouched(n * k) &&
                 b_.rest_is_untouched(n) && y_.rest_is_untouched(m * n),
             "m=%td k=%td n=%td: written outside", m, k, n);
  }

  // To be called with k = 0, 1, 2 ... before `check` with the same k.
  void advance(ptrdiff_t k) {
    if (k == 0) return;
    each(m_, n_, [&](ptrdiff_t i, ptrdiff_t j) {
      sums_[i * n_ + j] += element(i, k - 1) * element(k - 1, j);
    });
  }

 private:
  static T element(ptrdiff_t i, ptrdiff_t j) { return T((i * 7 + j * 5) % 11 - 5); }

  template <typename F>
  static void each(ptrdiff_t rows, ptrdiff_t cols, F f) {
    for (ptrdiff_t i = 0; i < rows; ++i) {
      for (ptrdiff_t j = 0; j < cols; ++j) f(i, j);
    }
  }

  void expect(const T* y, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, bool turned, const char* what) {
    each(m, n, [&](ptrdiff_t i, ptrdiff_t j) {
      const T found = y[turned ? j * m + i : i * n + j];
      FL_CHECK(found == sums_[i * n_ + j] + T(j), "%s %s m=%td k=%td n=%td turned=%d at %td, %td",
               what, type_name<T>(), m, k, n, turned, i, j);
    });
  }

  ptrdiff_t m_, n_;
  std::vector<T> sums_, values_;
  Edge<T> x_, w_, b_, y_;
};

// All sizes of the cube, or those where something changes: at tiles, lines and vectors.
std::vector<ptrdiff_t> sizes(ptrdiff_t tile, bool all) {
  std::vector<ptrdiff_t> list;
  for (ptrdiff_t i = 0; i <= 2 * tile + 1; ++i) {
    const bool near = i % tile <= 1 || i % tile == tile - 1 || i % 16 <= 1 || i % 16 == 15;
    if (all || i < 4 || near) list.push_back(i);
  }
  return list;
}

template <typename T>
void check_cube(bool all) {
  // The widest tile is that of a single row: eight panels of AVX-512.
  const std::vector<ptrdiff_t> ms = sizes(kernels<T>().max_tile_rows, all),
                               ns = sizes(8 * kLine<T>, all), ks = sizes(kLine<T>, all);
  const ptrdiff_t most_k = ks.back();
  for (const bool at_end : {false, true}) {
    Cube<T> cube(ms.back(), ns.back(), most_k, at_end);
    for (ptrdiff_t k = 0; k <= most_k; ++k) {
      cube.advance(k);
      if (!std::binary_search(ks.begin(), ks.end(), k)) continue;
      for (const ptrdiff_t m : ms) {
        for (const ptrdiff_t n : ns) {
          for (const bool turned : {false, true}) cube.check(m, k, n, turned);
        }
      }
    }
  }
}

}  // namespace

void test_guards(bool all) {
  for_each_instruction_set([all](const KernelTable&) {
    check_cube<float>(all);
    check_cube<double>(all);
  });
}

}  // namespace fastlayer
