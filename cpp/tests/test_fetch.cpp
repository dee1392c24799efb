// Weights from beyond L2, and the next rows of a softmax, are fetched while others are used: a
// guard without a clock. The scalar kernels are compiled here once more, and what they prefetch is
// written down.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "tests.hpp"

namespace {
std::vector<uintptr_t> g_fetched, g_written;
}
#define FL_PREFETCH(address) g_fetched.push_back(reinterpret_cast<uintptr_t>(address))
#define FL_PREFETCH_WRITE(address) g_written.push_back(reinterpret_cast<uintptr_t>(address))
#define FL_PREFETCH_WRITE_L2(address) FL_PREFETCH_WRITE(address)
#define FL_ISA scalar

#include "../kernels/vec_scalar.hpp"

#include "../kernels/gemm.inc.hpp"
#include "../kernels/softmax.inc.hpp"

namespace fastlayer {
namespace {

constexpr ptrdiff_t kTiles = 5;  // of rows, each of the full height; then a tile is one panel wide

struct Product {
  ptrdiff_t k, panels, x_blocks;  // x_blocks: blocks of the sum in a chunk of k
};

// Every line of the weights in the order of its use. Each step of a tile fetches one line, so a
// line that is fetched at step s is fetched while line s / kTiles of this order is used.
std::vector<ptrdiff_t> order_of_use(const Product& p) {
  std::vector<ptrdiff_t> lines;
  const ptrdiff_t chunk = p.x_blocks * kSumBlock;
  for (ptrdiff_t begin = 0; begin < p.k; begin += chunk) {
    for (ptrdiff_t panel = 0; panel < p.panels; ++panel) {
      for (ptrdiff_t kk = begin; kk < std::min(begin + chunk, p.k); ++kk) {
        lines.push_back(panel * (p.k + 1) + kk);
      }
    }
  }
  return lines;
}

// x (m, k) times panels that lie `panel_stride` apart.
template <typename T>
DenseArgs<T> dense_args(const Product& p, ptrdiff_t m, const std::vector<T>& x,
                        const std::vector<T>& w, ptrdiff_t panel_stride, std::vector<T>& y,
                        ptrdiff_t ldy) {
  DenseArgs<T> d{};
  d.m = m;
  d.k = p.k;
  d.cols = p.panels * kLine<T>;
  d.x = x.data();
  d.ldx = p.k;
  d.w = w.data();
  d.panel_stride = panel_stride;
  d.line_stride = kLine<T>;
  d.y = y.data();
  d.ldy = ldy;
  d.x_bytes = p.x_blocks * kSumBlock * m * static_cast<ptrdiff_t>(sizeof(T));
  return d;
}

template <typename T>
void run(const Product& p, bool far) {
  using namespace scalar;
  constexpr ptrdiff_t L = kLine<T>, m = kTiles * kShape.max_rows;
  static_assert(max_panels<T>(kShape.max_rows) == kShape.min_panels && kShape.min_panels == 1);
  std::vector<T> w(static_cast<size_t>(p.panels * (p.k + 1) * L)), x(static_cast<size_t>(m * p.k)),
      y(static_cast<size_t>(m * p.panels * L));
  DenseArgs<T> d = dense_args(p, m, x, w, (p.k + 1) * L, y, p.panels * L);
  d.y_padded = true;
  d.far = far;
  g_fetched.clear();
  dense_sums(d);

  const auto base = reinterpret_cast<uintptr_t>(w.data());
  const std::vector<ptrdiff_t> order = order_of_use(p);
  const size_t steps = order.size() * kTiles;
  FL_CHECK(g_fetched.size() == steps, "%zu fetches in %zu steps", g_fetched.size(), steps);
  // When each line was fetched, in lines used until then; a share may reach into the next one.
  std::vector<std::vector<ptrdiff_t>> at(w.size() / L);
  for (size_t s = 0; s < g_fetched.size(); ++s) {
    const uintptr_t line = (g_fetched[s] - base) / kLineBytes;
    if (line < at.size()) at[line].push_back(static_cast<ptrdiff_t>(s) / kTiles);
  }
  ptrdiff_t missed = 0;
  for (ptrdiff_t i = kSumBlock; far && i < static_cast<ptrdiff_t>(order.size()); ++i) {
    const std::vector<ptrdiff_t>& times = at[static_cast<size_t>(order[static_cast<size_t>(i)])];
    missed += std::none_of(times.begin(), times.end(), [i](ptrdiff_t t) {
      return i - t >= kSumBlock / 2 && i - t <= 3 * kSumBlock / 2;
    });
  }
  if (far) {
    // A share that reaches over the end of a chunk goes on there, not in the next panel.
    const auto lines = static_cast<ptrdiff_t>(order.size());
    FL_CHECK(missed <= lines / 20, "k=%td panels=%td: %td of %td lines are not fetched ahead", p.k,
             p.panels, missed, lines);
    return;
  }
  // Panels of whole blocks, each used in one go: tile by tile, a few lines ahead.
  if (p.k % kSumBlock != 0 || p.x_blocks * kSumBlock < p.k) return;
  for (size_t s = 0; s < g_fetched.size(); ++s) {
    const ptrdiff_t used = order[s / (kSumBlock * kTiles) * kSumBlock];
    const uintptr_t line = (g_fetched[s] - base) / kLineBytes;
    const auto step = static_cast<ptrdiff_t>(s) % kSumBlock;
    FL_CHECK(static_cast<ptrdiff_t>(line) == used + step + kPrefetchLines,
             "near weights, step %zu: line %zu", s, static_cast<size_t>(line));
  }
}

// While a line of rows is at work, every line of the next one is fetched: of x, and of y that is
// far. Of long rows nothing is.
template <typename T>
void run_softmax(ptrdiff_t n, bool far) {
  constexpr ptrdiff_t L = kLine<T>;
  const std::vector<T> x(static_cast<size_t>(2 * L * n));
  std::vector<T> y(x.size());
  g_fetched.clear();
  g_written.clear();
  scalar::softmax_line_of_rows<T, false>(x.data(), n, y.data(), n, n, far);
  g_fetched.insert(g_fetched.end(), g_written.begin(), g_written.end());
  const ptrdiff_t arrays = n > kFetchedRow ? 0 : far ? 2 : 1;
  const ptrdiff_t steps = arrays * L * ((n + L - 1) / L);
  FL_CHECK(static_cast<ptrdiff_t>(g_fetched.size()) == steps, "rows of %td: %zu fetches", n,
           g_fetched.size());
  const std::vector<T>* const both[] = {&x, &y};
  for (ptrdiff_t i = L * n; i < 2 * L * n; ++i) {
    for (ptrdiff_t a = 0; a < arrays; ++a) {
      const auto at = reinterpret_cast<uintptr_t>(&(*both[a])[static_cast<size_t>(i)]);
      const bool found = std::any_of(g_fetched.begin(), g_fetched.end(), [at](uintptr_t fetched) {
        return at - fetched < static_cast<uintptr_t>(kLineBytes);
      });
      FL_CHECK(found, "rows of %td: element %td is not fetched", n, i);
    }
  }
}

// Sums that go on are kept, so that y is written once; each of its lines but the first panel's
// has been fetched by then, once, while the panel on its left was computed.
template <typename T>
void run_sums(const Product& p, ptrdiff_t spare) {
  using namespace scalar;
  constexpr ptrdiff_t L = kLine<T>, m = kTiles * kShape.max_rows;
  const ptrdiff_t ldy = p.panels * L + spare;
  const std::vector<T> x(static_cast<size_t>(m * p.k), T(1)),
      w(static_cast<size_t>(p.panels * p.k * L), T(1));
  std::vector<T> y(static_cast<size_t>(m * ldy)), sums(static_cast<size_t>(m * p.panels * L));
  DenseArgs<T> d = dense_args(p, m, x, w, p.k * L, y, ldy);
  d.far = true;
  d.sums = sums.data();
  g_written.clear();
  dense_sums(d);
  std::vector<uintptr_t> of_y, expected;
  const auto first = reinterpret_cast<uintptr_t>(y.data());
  for (const uintptr_t at : g_written) {
    if (at >= first && at < first + y.size() * sizeof(T)) of_y.push_back(at);
  }
  for (ptrdiff_t panel = 1; panel < p.panels; ++panel) {
    for (ptrdiff_t i = 0; i < m; ++i) {
      expected.push_back(reinterpret_cast<uintptr_t>(y.data() + i * ldy + panel * L));
    }
  }
  FL_CHECK(of_y == expected, "k=%td panels=%td: %zu lines of y instead of %zu, or others", p.k,
           p.panels, of_y.size(), expected.size());
  for (ptrdiff_t i = 0; i < m * ldy; ++i) {
    const T sum = i % ldy < d.cols ? static_cast<T>(p.k) : T(0);
    FL_CHECK(y[static_cast<size_t>(i)] == sum, "y[%td]", i);
  }
}

}  // namespace

void test_fetch() {
  for (const ptrdiff_t n : {33, 64, 125, 128, 256, 257}) {
    for (const bool far : {false, true}) {
      run_softmax<float>(n, far);
      run_softmax<double>(n, far);
    }
  }
  for (const bool far : {true, false}) {
    for (const Product& p : {Product{1024, 6, 4}, Product{1024, 6, 2}, Product{1024, 6, 1},
                             Product{784, 9, 4}, Product{2000, 3, 2}, Product{256, 20, 1}}) {
      run<float>(p, far);
      run<double>(p, far);
      if (!far) continue;
      run_sums<float>(p, 3);
      run_sums<double>(p, 3);
    }
  }
}

}  // namespace fastlayer
