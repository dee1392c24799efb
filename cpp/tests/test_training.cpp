// Kernels of training: gradients and optimisers against plain loops, losses against the scalar
// kernels. Each instruction set runs in a process of its own.
#include <cmath>

#include "../core/reference.hpp"
#include "check.hpp"
#include "tests.hpp"
#include "training.hpp"

namespace fastlayer {
namespace {

// ------------------------------------------------------------------------------------- kernels

template <typename T>
void check_gradient(ptrdiff_t rows, ptrdiff_t k, ptrdiff_t panels, bool at_end) {
  constexpr ptrdiff_t L = kLine<T>;
  Random random(static_cast<uint64_t>(rows * 1000 + k * 10 + panels));
  const ptrdiff_t ldx = k + 3, ldz = panels * L, stride = (k + 2) * L;
  Guarded<T> x(random.numbers<T>((rows - 1) * ldx + k), at_end);
  Guarded<T> dz(random.numbers<T>(rows * ldz), at_end);
  const ptrdiff_t size = (panels - 1) * stride + (k + 1) * L;
  Guarded<T> g(random.numbers<T>(size), at_end);
  GradientArgs<T> args;
  args.rows = rows;
  args.k = k;
  args.x = x.data();
  args.ldx = ldx;
  args.dz = dz.data();
  args.ldz = ldz;
  args.panels = panels;
  args.bias = g.data();
  args.lines = g.data() + L;
  args.panel_stride = stride;
  kernels<T>().gradient(args);
  const T one = 1;
  for (ptrdiff_t j = 0; j < panels * L; ++j) {
    const T* const column = g.data() + j / L * stride + j % L;
    for (ptrdiff_t kk = -1; kk < k; ++kk) {
      const T* const from = kk < 0 ? &one : x.data() + kk;
      const T expected = reference_sum(T(0), dz.data() + j, ldz, from, kk < 0 ? 0 : ldx, rows);
      FL_CHECK(same_bits(column[(kk + 1) * L], expected), "%s: %td rows, k %td of %td, column %td",
               type_name<T>(), rows, kk, k, j);
    }
  }
}

template <typename T>
void check_gradients() {
  const ptrdiff_t most = kernels<T>().max_tile_rows;
  for (const bool at_end : {false, true}) {
    for (const ptrdiff_t rows : {1, 2, 17, 256, 257, 513}) {
      for (const ptrdiff_t panels : {1, 2, 3, 5}) {
        for (const ptrdiff_t k :
             {ptrdiff_t(1), ptrdiff_t(2), most - 1, most, most + 1, 2 * most, 3 * most + 1}) {
          const bool few = rows <= 17 || panels == 3 || k == 1;
          if (k > 0 && few) check_gradient<T>(rows, k, panels, at_end);
        }
      }
    }
  }
}

template <typename T>
void check_optimizers() {
  const ptrdiff_t n = 3 * kLine<T>;
  for (const Optimizer kind : kOptimizers) {
    for (const bool clips : {false, true}) {
      for (const bool decays : {false, true}) {
        const OptimizerArgs<T> o = {kind,   clips,  decays,   T(0.3),   T(0.02),   T(0.1), T(0.9),
                                    T(0.7), T(0.1), T(0.999), T(0.001), T(0.0625), T(1.7), T(1e-8)};
        Random random(3);
        std::vector<T> w = random.numbers<T>(n), g = random.numbers<T>(n), m = random.numbers<T>(n),
                       v = random.numbers<T>(n);
        for (T& x : v) x = std::fabs(x);
        std::vector<T> ours = w, our_m = m, our_v = v;
        kernels<T>().optimize(o, ours.data(), g.data(), our_m.data(), our_v.data(), n);
        for (size_t i = 0; i < w.size(); ++i) {
          const T expected = optimized(o, w[i], g[i], m[i], v[i]);
          FL_CHECK(same_bits(ours[i], expected) && same_bits(our_m[i], m[i]) &&
                       same_bits(our_v[i], v[i]),
                   "%s: optimiser %d", type_name<T>(), static_cast<int>(kind));
        }
      }
    }
  }
}

template <typename T>
void check_neuron_squares() {
  constexpr ptrdiff_t L = kLine<T>;
  for (const ptrdiff_t n : {1, 3, 40}) {
    for (const ptrdiff_t k : {1, 7, 255, 256, 600}) {
      Random random(4);
      const ptrdiff_t stride = (k + 1) * L;
      const std::vector<T> panels = random.numbers<T>((n + L - 1) / L * stride);
      std::vector<double> sums(static_cast<size_t>(n) + 1, 5.0);
      kernels<T>().neuron_squares(panels.data() + L, stride, n, k, sums.data());
      FL_CHECK(sums.back() == 5.0, "%s: %td neurons: one more was written", type_name<T>(), n);
      for (ptrdiff_t j = 0; j < n; ++j) {
        std::vector<double> row;
        for (ptrdiff_t kk = 0; kk < k; ++kk) {
          row.push_back(panels[static_cast<size_t>(j / L * stride + (kk + 1) * L + j % L)]);
        }
        const double expected = reference_sum(0.0, row.data(), 1, row.data(), 1, k);
        FL_CHECK(same_bits(sums[static_cast<size_t>(j)], expected), "%s: neuron %td of %td x %td",
                 type_name<T>(), j, n, k);
      }
    }
  }
}

template <typename T>
void check_square_sums() {
  constexpr ptrdiff_t L = kLine<T>;
  for (const ptrdiff_t n : {1, 3, 40}) {
    for (const ptrdiff_t k : {1, 7, 255, 256, 300}) {
      Random random(4);
      const ptrdiff_t stride = (k + 1) * L, blocks = (n * k + kSumBlock - 1) / kSumBlock;
      const std::vector<T> panels = random.numbers<T>((n + L - 1) / L * stride);
      std::vector<double> sums(static_cast<size_t>(blocks));
      for (ptrdiff_t first = 0; first < blocks; first += 9) {
        kernels<T>().square_sums(panels.data() + L, stride, n, k, first,
                                 std::min<ptrdiff_t>(9, blocks - first), sums.data() + first);
      }
      for (ptrdiff_t b = 0; b < blocks; ++b) {
        double a = 0;
        for (ptrdiff_t i = b * kSumBlock; i < std::min((b + 1) * kSumBlock, n * k); ++i) {
          const double g =
              panels[static_cast<size_t>(i / k / L * stride + (i % k + 1) * L + i / k % L)];
          a = std::fma(g, g, a);
        }
        FL_CHECK(same_bits(sums[static_cast<size_t>(b)], a), "%s: block %td of %td x %td",
                 type_name<T>(), b, n, k);
      }
    }
  }
}

// Gradients and values of one loss, y and t being seeded.
template <typename T>
std::vector<double> loss_of(const Kernels<T>& kern, const LossCase& c, ptrdiff_t rows,
                            ptrdiff_t n) {
  Random random(static_cast<uint64_t>(rows * 1000 + n));
  std::vector<T> y = random.numbers<T>(rows * n), t = random.numbers<T>(rows * n);
  for (T& v : t) v = v > T(0.5) ? T(1) : v < T(0) ? T(0) : v;
  std::vector<int64_t> labels(static_cast<size_t>(rows));
  for (int64_t& label : labels) label = static_cast<int64_t>(random.next() % uint64_t(n));
  std::vector<double> values(static_cast<size_t>(rows)), shares(values.size(), 1.0 / 3);
  shares.back() = 0.7;
  std::vector<T> dy(static_cast<size_t>(rows * n)), scratch(kLossScratch * dy.size());
  LossArgs<T> l;
  l.kind = c.kind;
  l.p0 = c.p0;
  l.least = -HUGE_VAL;
  l.most = HUGE_VAL;
  l.rows = rows;
  l.n = l.ldy = l.ldt = l.ldd = n;
  l.y = y.data();
  l.t = c.classes ? nullptr : t.data();
  l.labels = labels.data();
  l.shares = rows % 2 == 1 ? shares.data() : nullptr;
  l.share = 0.125;
  l.dy = dy.data();
  l.values = values.data();
  l.scratch = scratch.data();
  kern.loss(l);
  values.insert(values.end(), dy.begin(), dy.end());
  return values;
}

template <typename T>
void check_losses() {
  for (const LossCase& c : kLossCases) {
    for (const ptrdiff_t rows : {1, 4, 7, 16, 32}) {
      for (const ptrdiff_t n : {1, 3, 10, 17, 300}) {
        const std::vector<double> ours = loss_of(kernels<T>(), c, rows, n);
        const std::vector<double> plain = loss_of(kernels_of<T>(scalar::kTable), c, rows, n);
        FL_CHECK(std::memcmp(ours.data(), plain.data(), ours.size() * sizeof(double)) == 0,
                 "%s: loss %d, %td x %td", type_name<T>(), static_cast<int>(c.kind), rows, n);
        for (const double v : ours) FL_CHECK(std::isfinite(v), "loss %d", static_cast<int>(c.kind));
      }
    }
  }
}

}  // namespace

void test_training() {
  for_each_instruction_set([](const KernelTable&) {
    check_gradients<float>();
    check_gradients<double>();
    check_optimizers<float>();
    check_optimizers<double>();
    check_square_sums<float>();
    check_square_sums<double>();
    check_neuron_squares<float>();
    check_neuron_squares<double>();
    check_losses<float>();
    check_losses<double>();
  });
}

}  // namespace fastlayer
