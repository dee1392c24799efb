// Training: every product and optimiser against plain loops, losses against the scalar kernels, and
// the same bits on any number of threads. Each instruction set runs in a process of its own.
#include <cmath>
#include <limits>
#include <memory>

#include "../core/reference.hpp"
#include "../core/threads.hpp"
#include "../core/trainer.hpp"
#include "check.hpp"
#include "tests.hpp"

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
    for (const ptrdiff_t rows : {1, 2, 15, 255, 256, 257, 600}) {
      for (const ptrdiff_t panels : {1, 2, 3, 5}) {
        for (const ptrdiff_t k :
             {ptrdiff_t(1), ptrdiff_t(2), most - 1, most, most + 1, 2 * most, 3 * most + 1}) {
          if (k > 0) check_gradient<T>(rows, k, panels, at_end);
        }
      }
    }
  }
}

// One weight through an optimiser, as docs and NumPy have it.
template <typename T>
T optimized(const OptimizerArgs<T>& o, T w, T g, T& m, T& v) {
  if (o.clips) g = g * o.clip;
  if (o.kind == Optimizer::kAdamW) {
    w = w - o.decay * w;
  } else if (o.decays) {
    g = g + o.decay * w;
  }
  switch (o.kind) {
    case Optimizer::kSgd:
      return w - o.lr * g;
    case Optimizer::kMomentum:
      m = o.momentum * m + g;
      return w - o.lr * m;
    case Optimizer::kNesterov:
      m = o.momentum * m + g;
      return w - o.lr * (g + o.momentum * m);
    default:
      m = m + o.c1 * (g - m);
      v = o.b2 * v + o.c2 * (g * g);
      return w - o.step * (m / (std::sqrt(v) * o.r2 + o.eps));
  }
}

const Optimizer kOptimizers[] = {Optimizer::kSgd, Optimizer::kMomentum, Optimizer::kNesterov,
                                 Optimizer::kAdam, Optimizer::kAdamW};

template <typename T>
void check_optimizers() {
  const ptrdiff_t n = 3 * kLine<T>;
  for (const Optimizer kind : kOptimizers) {
    for (const bool clips : {false, true}) {
      for (const bool decays : {false, true}) {
        const OptimizerArgs<T> o = {kind,   clips,    decays,   T(0.3),    T(0.02), T(0.1), T(0.9),
                                    T(0.1), T(0.999), T(0.001), T(0.0625), T(1.7),  T(1e-8)};
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

struct LossCase {
  Loss kind;
  double p0;
  bool classes;
};
const LossCase kLossCases[] = {{Loss::kMse, 0, false},
                               {Loss::kMae, 0, false},
                               {Loss::kHuber, 0.3, false},
                               {Loss::kCrossEntropy, 0, true},
                               {Loss::kCrossEntropy, 0.1, true},
                               {Loss::kCrossEntropy, 0, false},
                               {Loss::kCrossEntropy, 0.1, false},
                               {Loss::kBinaryCrossEntropy, 0, false},
                               {Loss::kPoisson, 0, false}};

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

// ---------------------------------------------------------------------------------- whole runs

template <typename T>
RowsView view_of(const std::vector<T>& v, ptrdiff_t rows, ptrdiff_t cols) {
  RowsView view;
  view.data = const_cast<char*>(reinterpret_cast<const char*>(v.data()));
  view.dtype = dtype_of<T>();
  view.rows = view.shape[0] = rows;
  view.cols = cols;
  view.col_stride = sizeof(T);
  view.leading = 1;
  view.strides[0] = cols * static_cast<ptrdiff_t>(sizeof(T));
  return view;
}

const ptrdiff_t kWidths[] = {21, 33, 40, 5};
const Activation kActivations[] = {Activation::kTanh, Activation::kRelu, Activation::kIdentity};

template <typename T>
struct Weights {
  std::vector<T> w[3], b[3];
  explicit Weights(Random& random) {
    for (int l = 0; l < 3; ++l) {
      w[l] = random.numbers<T>(kWidths[l + 1] * kWidths[l]);
      b[l] = random.numbers<T>(kWidths[l + 1]);
      for (T& v : w[l]) v *= T(0.25);
    }
  }
};

template <typename T>
std::unique_ptr<Trainer<T>> trainer_of(const Weights<T>& weights, Loss loss, Optimizer optimizer) {
  auto trainer = std::make_unique<Trainer<T>>(kWidths[0]);
  for (int l = 0; l < 3; ++l) {
    trainer->dense(kWidths[l + 1], weights.w[l].data(), kWidths[l], 1, weights.b[l].data(),
                   {kActivations[l], T(0), T(0)}, true);
  }
  trainer->finish(true, loss, 0.1, optimizer);
  return trainer;
}

Rates rates_of(double max_norm) { return {0.01, 0.9, 0.01, 0.9, 0.999, 1e-8, max_norm, 1, 1}; }

// One step by plain loops; returns the loss.
template <typename T>
double plain_step(Weights<T>& weights, Weights<T>& first, Weights<T>& second, Optimizer kind,
                  const std::vector<T>& x, const std::vector<T>& t, ptrdiff_t m, Rates& rates) {
  const Kernels<T>& kern = kernels<T>();
  std::vector<T> a[4] = {x}, z[3], gw[3], gb[3];
  for (int l = 0; l < 3; ++l) {
    const ptrdiff_t n = kWidths[l + 1], k = kWidths[l];
    z[l].resize(static_cast<size_t>(m * n));
    for (ptrdiff_t i = 0; i < m * n; ++i) {
      z[l][i] =
          reference_sum(weights.b[l][i % n], &a[l][i / n * k], 1, &weights.w[l][i % n * k], 1, k);
    }
    a[l + 1].resize(z[l].size());
    kern.activation({kActivations[l], T(0), T(0)}, z[l].data(), a[l + 1].data(), m * n);
  }
  const ptrdiff_t outputs = kWidths[3];
  std::vector<T> d(a[3].size());
  const T scale = static_cast<T>(2.0 * (1.0 / static_cast<double>(m)) / double(outputs));
  double sum = 0, part = 0;
  for (ptrdiff_t i = 0; i < m; ++i) {
    if (i % 256 == 0 && i > 0) {
      sum = sum + part;
      part = 0;
    }
    double squares = 0;
    for (ptrdiff_t j = i * outputs; j < (i + 1) * outputs; ++j) {
      const T difference = a[3][j] - t[j];
      squares = std::fma(double(difference), double(difference), squares);
      d[j] = difference * scale;
    }
    part = part + squares / double(outputs);
  }
  const double loss = (sum + part) / static_cast<double>(m);
  double norm = 0;
  for (int l = 2; l >= 0; --l) {
    const ptrdiff_t n = kWidths[l + 1], k = kWidths[l];
    if (l < 2)
      kern.activation_backward({kActivations[l], T(0), T(0)}, d.data(), z[l].data(), d.data(),
                               m * n);
    const T one = 1;
    for (ptrdiff_t j = 0; j < n; ++j) {
      for (ptrdiff_t kk = 0; kk < k; ++kk) {
        gw[l].push_back(reference_sum(T(0), &d[j], n, &a[l][kk], k, m));
      }
      gb[l].push_back(reference_sum(T(0), &d[j], n, &one, 0, m));
    }
    std::vector<T> dx(static_cast<size_t>(m * k));
    for (ptrdiff_t i = 0; i < m * k; ++i) {
      dx[i] = reference_sum(T(0), &d[i / k * n], 1, &weights.w[l][i % k], k, n);
    }
    d = dx;
  }
  for (int l = 0; l < 3; ++l) {
    for (const std::vector<T>* g : {&gw[l], &gb[l]}) {
      const std::vector<double> wide(g->begin(), g->end());
      norm = norm + reference_sum(0.0, wide.data(), 1, wide.data(), 1, ptrdiff_t(wide.size()));
    }
  }
  rates.power1 *= rates.beta1;
  rates.power2 *= rates.beta2;
  const double coefficient = rates.max_norm / (std::sqrt(norm) + 1e-6);
  OptimizerArgs<T> o{};
  o.kind = kind;
  o.clips = rates.max_norm > 0 && coefficient < 1;
  o.clip = static_cast<T>(coefficient);
  o.decays = true;
  o.decay = static_cast<T>(kind == Optimizer::kAdamW ? rates.lr * rates.weight_decay
                                                     : rates.weight_decay);
  o.lr = static_cast<T>(rates.lr);
  o.momentum = static_cast<T>(rates.momentum);
  o.c1 = static_cast<T>(1 - rates.beta1);
  o.b2 = static_cast<T>(rates.beta2);
  o.c2 = static_cast<T>(1 - rates.beta2);
  o.step = static_cast<T>(rates.lr / (1 - rates.power1));
  o.r2 = static_cast<T>(1 / std::sqrt(1 - rates.power2));
  o.eps = static_cast<T>(rates.eps);
  for (int l = 0; l < 3; ++l) {
    for (size_t i = 0; i < gw[l].size(); ++i) {
      weights.w[l][i] = optimized(o, weights.w[l][i], gw[l][i], first.w[l][i], second.w[l][i]);
    }
    for (size_t i = 0; i < gb[l].size(); ++i) {
      weights.b[l][i] = optimized(o, weights.b[l][i], gb[l][i], first.b[l][i], second.b[l][i]);
    }
  }
  return loss;
}

template <typename T>
Weights<T> zero_weights() {
  Random random(0);
  Weights<T> zeros(random);
  for (int l = 0; l < 3; ++l) {
    zeros.w[l].assign(zeros.w[l].size(), T(0));
    zeros.b[l].assign(zeros.b[l].size(), T(0));
  }
  return zeros;
}

template <typename T>
void check_steps() {
  for (const Optimizer kind : kOptimizers) {
    for (const double max_norm : {0.0, 0.05}) {
      Random random(5);
      Weights<T> weights(random), first = zero_weights<T>(), second = zero_weights<T>();
      const auto trainer = trainer_of(weights, Loss::kMse, kind);
      Rates ours = rates_of(max_norm), theirs = ours;
      for (const ptrdiff_t m : {7, 300, 33}) {
        const std::vector<T> x = random.numbers<T>(m * kWidths[0]),
                             t = random.numbers<T>(m * kWidths[3]);
        const RowsView rows = view_of(x, m, kWidths[0]), targets = view_of(t, m, kWidths[3]);
        Samples samples;
        samples.x = &rows;
        samples.t = &targets;
        trainer->reserve(m);
        const double loss = trainer->step(samples, 0, m, ours);
        const double expected = plain_step(weights, first, second, kind, x, t, m, theirs);
        FL_CHECK(same_bits(loss, expected), "%s: optimiser %d, loss %.17g, not %.17g",
                 type_name<T>(), static_cast<int>(kind), loss, expected);
      }
      for (int l = 0; l < 3; ++l) {
        std::vector<T> w(weights.w[l].size()), b(weights.b[l].size());
        trainer->get(l, Kept::kWeights, w.data(), b.data());
        FL_CHECK(std::memcmp(w.data(), weights.w[l].data(), w.size() * sizeof(T)) == 0 &&
                     std::memcmp(b.data(), weights.b[l].data(), b.size() * sizeof(T)) == 0,
                 "%s: optimiser %d, layer %d", type_name<T>(), static_cast<int>(kind), l);
      }
    }
  }
}

// Losses and all that is left of `steps` steps on batches of `batch` rows.
template <typename T>
std::vector<double> run(Loss loss, Optimizer optimizer, double max_norm, ptrdiff_t batch,
                        ptrdiff_t steps) {
  Random random(6);
  const Weights<T> weights(random);
  const auto trainer = trainer_of(weights, loss, optimizer);
  const ptrdiff_t rows = 3 * batch + 1;
  const std::vector<T> x = random.numbers<T>(rows * kWidths[0]);
  std::vector<T> t = random.numbers<T>(rows * kWidths[3]);
  for (T& v : t) v = std::fabs(v);
  std::vector<int64_t> labels, order;
  for (ptrdiff_t i = 0; i < rows; ++i) labels.push_back(int64_t(random.next() % 5));
  for (ptrdiff_t i = 0; i < batch * steps; ++i) {
    order.push_back(static_cast<int64_t>(random.next() % static_cast<uint64_t>(rows)));
  }
  const RowsView from = view_of(x, rows, kWidths[0]), targets = view_of(t, rows, kWidths[3]);
  Samples samples;
  samples.x = &from;
  const bool classes = loss == Loss::kCrossEntropy;
  samples.t = classes ? nullptr : &targets;
  samples.labels = reinterpret_cast<const char*>(labels.data());
  samples.label_stride = sizeof(int64_t);
  samples.order = order.data();
  trainer->reserve(batch);
  Rates rates = rates_of(max_norm);
  std::vector<double> results;
  for (ptrdiff_t i = 0; i < steps; ++i) {
    results.push_back(trainer->step(samples, i * batch, batch, rates));
  }
  for (int l = 0; l < 3; ++l) {
    std::vector<T> w(weights.w[l].size()), b(weights.b[l].size());
    for (const Kept kept : {Kept::kWeights, Kept::kFirstMoment, Kept::kSecondMoment}) {
      if (!trainer->has(l, kept)) continue;
      trainer->get(l, kept, w.data(), b.data());
      results.insert(results.end(), w.begin(), w.end());
      results.insert(results.end(), b.begin(), b.end());
    }
  }
  return results;
}

template <typename T>
void check_threads() {
  for (const double max_norm : {0.0, 0.05}) {
    // Long enough that threads are wanted, and many blocks of rows.
    std::vector<double> one;
    for (const int threads : {1, 2, 3, 7}) {
      set_num_threads(threads);
      std::vector<double> results =
          run<T>(Loss::kCrossEntropy, Optimizer::kAdam, max_norm, 6000, 6);
      if (threads == 1) one = results;
      FL_CHECK(std::memcmp(one.data(), results.data(), one.size() * sizeof(double)) == 0,
               "%s: %d threads", type_name<T>(), threads);
    }
    set_num_threads(1);
  }
}

template <typename T>
void add_runs(Hashes& hashes) {
  for (const LossCase& c : kLossCases) {
    if (c.kind == Loss::kCrossEntropy && !(c.classes && c.p0 > 0)) continue;
    const std::string loss = kLossNames[static_cast<int>(c.kind)];
    hashes[std::string(type_name<T>()) + "/training/" + loss] =
        hash(run<T>(c.kind, Optimizer::kAdam, 0, 16, 300));
  }
  for (const Optimizer kind : kOptimizers) {
    const std::string optimizer = kOptimizerNames[static_cast<int>(kind)];
    hashes[std::string(type_name<T>()) + "/training/" + optimizer] =
        hash(run<T>(Loss::kCrossEntropy, kind, 0.5, 16, 300));
  }
}

}  // namespace

void add_training_hashes(Hashes& hashes) {
  add_runs<float>(hashes);
  add_runs<double>(hashes);
}

void test_training() {
  for_each_instruction_set([](const KernelTable&) {
    check_gradients<float>();
    check_gradients<double>();
    check_optimizers<float>();
    check_optimizers<double>();
    check_square_sums<float>();
    check_square_sums<double>();
    check_losses<float>();
    check_losses<double>();
    set_num_threads(1);
    check_steps<float>();
    check_steps<double>();
    check_threads<float>();
    check_threads<double>();
  });
}

}  // namespace fastlayer
