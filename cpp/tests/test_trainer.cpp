// Whole steps of training against plain loops, and the same bits on any number of threads. Each
// instruction set runs in a process of its own.
#include "../core/trainer.hpp"

#include <cmath>
#include <memory>

#include "../core/reference.hpp"
#include "../core/threads.hpp"
#include "check.hpp"
#include "tests.hpp"
#include "training.hpp"

namespace fastlayer {
namespace {

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

Rates rates_of(double max_norm) {
  return {0.01, 0.9, 0.01, 0.9, 0.999, 1e-8, max_norm, 1, 1, 1, 1, 0, 0};
}

// As scikit-learn counts: a penalty of the weights alone, other forms of the optimisers.
Rates penalised() {
  Rates rates = rates_of(0);
  rates.weight_decay = 0;
  rates.value_scale = 0.5;
  rates.slope_scale = 2.5;
  rates.penalty = 0.7;
  rates.other_forms = 1;
  rates.least = 0.1;  // of cross entropies
  rates.most = 2;
  return rates;
}

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
  const T scale =
      static_cast<T>(2.0 * (rates.slope_scale / static_cast<double>(m)) / double(outputs));
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
  double loss = rates.value_scale * ((sum + part) / static_cast<double>(m));
  const double pull = rates.penalty / static_cast<double>(m);
  if (rates.penalty > 0) {
    double squares = 0;
    for (int l = 0; l < 3; ++l) {
      const std::vector<double> wide(weights.w[l].begin(), weights.w[l].end());
      std::vector<double> rows;
      for (ptrdiff_t j = 0; j < kWidths[l + 1]; ++j) {
        const double* row = wide.data() + j * kWidths[l];
        rows.push_back(reference_sum(0.0, row, 1, row, 1, kWidths[l]));
      }
      const double one = 1;
      squares = squares + reference_sum(0.0, rows.data(), 1, &one, 0, ptrdiff_t(rows.size()));
    }
    loss = loss + 0.5 * rates.penalty * squares / static_cast<double>(m);
  }
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
  o.decays = rates.penalty > 0 || rates.weight_decay > 0;
  o.decay = static_cast<T>(rates.penalty > 0           ? pull
                           : kind == Optimizer::kAdamW ? rates.lr * rates.weight_decay
                                                       : rates.weight_decay);
  const bool velocity = rates.other_forms != 0 && kind != Optimizer::kSgd;
  o.lr = velocity ? T(1) : static_cast<T>(rates.lr);
  o.gain = velocity ? static_cast<T>(rates.lr) : T(1);
  o.momentum = static_cast<T>(rates.momentum);
  o.c1 = static_cast<T>(1 - rates.beta1);
  o.b2 = static_cast<T>(rates.beta2);
  o.c2 = static_cast<T>(1 - rates.beta2);
  o.step = static_cast<T>(rates.lr / (1 - rates.power1));
  o.r2 = static_cast<T>(1 / std::sqrt(1 - rates.power2));
  o.eps =
      static_cast<T>(rates.other_forms != 0 ? rates.eps / std::sqrt(1 - rates.power2) : rates.eps);
  OptimizerArgs<T> of_bias = o;
  if (rates.penalty > 0) of_bias.decays = false;
  for (int l = 0; l < 3; ++l) {
    for (size_t i = 0; i < gw[l].size(); ++i) {
      weights.w[l][i] = optimized(o, weights.w[l][i], gw[l][i], first.w[l][i], second.w[l][i]);
    }
    for (size_t i = 0; i < gb[l].size(); ++i) {
      weights.b[l][i] =
          optimized(of_bias, weights.b[l][i], gb[l][i], first.b[l][i], second.b[l][i]);
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
    for (const Rates& rates : {rates_of(0), rates_of(0.05), penalised()}) {
      if (rates.penalty > 0 && kind == Optimizer::kAdamW) continue;  // its decay is not in the loss
      Random random(5);
      Weights<T> weights(random), first = zero_weights<T>(), second = zero_weights<T>();
      const auto trainer = trainer_of(weights, Loss::kMse, kind);
      Rates ours = rates, theirs = rates;
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
std::vector<double> run(Loss loss, Optimizer optimizer, Rates rates, ptrdiff_t batch,
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
  for (const Rates& rates : {rates_of(0), rates_of(0.05), penalised()}) {
    std::vector<double> one;
    for (const int threads : {1, 2, 3, 7}) {
      set_num_threads(threads);
      const uint64_t before = parallel_regions();
      std::vector<double> results = run<T>(Loss::kCrossEntropy, Optimizer::kAdam, rates, 2000, 4);
      // One for each step, which is long enough to wake a team that sleeps.
      const auto regions = static_cast<int>(parallel_regions() - before);
      FL_CHECK(regions == (threads > 1 && has_openmp() ? 4 : 0), "%s: %d threads, %d regions",
               type_name<T>(), threads, regions);
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
        hash(run<T>(c.kind, Optimizer::kAdam, rates_of(0), 16, 300));
  }
  for (const Optimizer kind : kOptimizers) {
    const std::string optimizer = kOptimizerNames[static_cast<int>(kind)];
    hashes[std::string(type_name<T>()) + "/training/" + optimizer] =
        hash(run<T>(Loss::kCrossEntropy, kind, rates_of(0.5), 16, 300));
  }
  for (const Optimizer kind : {Optimizer::kNesterov, Optimizer::kAdam}) {
    const std::string optimizer = kOptimizerNames[static_cast<int>(kind)];
    hashes[std::string(type_name<T>()) + "/training/penalised_" + optimizer] =
        hash(run<T>(Loss::kCrossEntropy, kind, penalised(), 16, 300));
  }
}

}  // namespace

void add_training_hashes(Hashes& hashes) {
  add_runs<float>(hashes);
  add_runs<double>(hashes);
}

void test_trainer() {
  for_each_instruction_set([](const KernelTable&) {
    set_num_threads(1);
    check_steps<float>();
    check_steps<double>();
    check_threads<float>();
    check_threads<double>();
  });
}

}  // namespace fastlayer
