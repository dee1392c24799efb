// The n-th allocation fails, for every n: std::bad_alloc reaches the caller, nothing is lost, and
// the same object gives the right bits at the next call.
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <thread>

#include "../core/elementwise.hpp"
#include "../core/executor.hpp"
#include "../core/matmul.hpp"
#include "../core/threads.hpp"
#include "../core/trainer.hpp"
#include "check.hpp"
#include "tests.hpp"

namespace {

thread_local long t_until_failure = 0;  // the allocation that fails; 0 for none
thread_local long t_live = 0;           // allocations less releases
thread_local long t_count = 0;          // allocations

void* allocate(size_t bytes, size_t alignment) {
  if (t_until_failure > 0 && --t_until_failure == 0) throw std::bad_alloc();
  void* const p = std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
  if (p == nullptr) throw std::bad_alloc();
  ++t_live;
  ++t_count;
  return p;
}

void release(void* p) noexcept {
  if (p != nullptr) --t_live;
  std::free(p);
}

}  // namespace

void* operator new(size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(size_t bytes, std::align_val_t a) { return allocate(bytes, size_t(a)); }
void* operator new(size_t bytes, std::align_val_t a, const std::nothrow_t&) noexcept {
  try {
    return allocate(bytes, size_t(a));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* p) noexcept { release(p); }
void operator delete(void* p, size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { release(p); }

namespace fastlayer {
namespace {

// Calls f, which allocates, with its first allocation failing, then its second, until none fails.
// `kept`: what it has allocated may stay for the next call.
template <typename F>
void fail_each(const char* what, F f, bool kept = false) {
  long failures = 0;
  for (bool done = false; !done; failures += !done) {
    const long live = t_live;
    t_until_failure = failures + 1;
    try {
      f();
      done = true;
    } catch (const std::bad_alloc&) {
      FL_CHECK(kept || t_live <= live, "%s: %ld leaked after failure %ld", what, t_live - live,
               failures);
    }
    const bool reached = t_until_failure == 0;
    t_until_failure = 0;
    FL_CHECK(done != reached, "%s: failure %ld was swallowed", what, failures);
  }
  FL_CHECK(failures > 0, "%s allocates nothing", what);
  std::printf("%s: %ld allocations failed\n", what, failures);
}

// Scratch memory only grows: a thread of its own has none yet.
template <typename F>
void fail_each_in_new_thread(const char* what, F f) {
  std::thread([&] { fail_each(what, f); }).join();
}

template <typename T>
RowsView rows_of(std::vector<T>& v, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t step) {
  constexpr ptrdiff_t size = sizeof(T);
  RowsView view;
  view.data = reinterpret_cast<char*>(v.data());
  view.dtype = dtype_of<T>();
  view.rows = view.shape[0] = rows;
  view.cols = cols;
  view.col_stride = step * size;
  view.leading = 1;
  view.strides[0] = cols * step * size;
  return view;
}

template <typename T>
std::unique_ptr<Program<T>> build(const std::vector<T>& w) {
  auto net = std::make_unique<Program<T>>(20);
  const ActivationArgs<T> tanh = {Activation::kTanh, T(0), T(0)};
  net->dense(std::make_shared<const PackedWeights<T>>(33, 20, w.data(), 20, 1, w.data()), tanh);
  net->begin_branches(Join::kAdd, 0);
  net->vector_op(OpKind::kLayerNorm, AlignedArray<T>(), AlignedArray<T>(), T(1e-5));
  net->dense(std::make_shared<const PackedWeights<T>>(33, 33, w.data(), 33, 1, nullptr), tanh);
  net->next_branch();
  net->end_branches();
  net->finish();
  return net;
}

template <typename T>
void check_program() {
  Random random(1);
  const std::vector<T> w = random.numbers<T>(33 * 33);
  std::vector<T> x = random.numbers<T>(50 * 40), expected(50 * 33), y(expected.size());
  std::unique_ptr<Program<T>> net;
  fail_each("building a program", [&] { net = build(w); });
  const auto run = [&](std::vector<T>& to) {
    execute(*net, rows_of(x, 50, 20, 2), rows_of(to, 50, 33, 1), net->plan(50));
  };
  run(expected);
  fail_each_in_new_thread("running a program", [&] { run(y); });
  FL_CHECK(y == expected, "a program after failures");
}

template <typename T>
void check_functions() {
  Random random(2);
  const std::vector<T> w = random.numbers<T>(65 * 40);
  for (const ptrdiff_t m : {1, 5, 70, 300}) {
    std::vector<T> x = random.numbers<T>(m * 80), expected(m * 65), y(expected.size());
    const RowsView from = rows_of(x, m, 40, 2);
    const auto linear = [&](std::vector<T>& to) {
      const RowsView rows = rows_of(to, m, 65, 1);
      const ActivationArgs<T> none = {Activation::kIdentity, T(0), T(0)};
      matmul<T>({&from, &rows, w.data(), 65, 40, 1, nullptr, false, none});
    };
    linear(expected);
    fail_each_in_new_thread("matmul", [&] { linear(y); });
    FL_CHECK(y == expected, "matmul after failures");
  }
  std::vector<T> x = random.numbers<T>(100), y(50), expected(50);
  const auto activation = [&](std::vector<T>& to) {
    activate<T>({Activation::kExp, T(0), T(0)}, rows_of(x, 5, 10, 2), rows_of(to, 5, 10, 1));
  };
  activation(expected);
  fail_each_in_new_thread("activation", [&] { activation(y); });
  FL_CHECK(y == expected, "activation after failures");
}

template <typename T>
std::unique_ptr<Trainer<T>> build_trainer(const std::vector<T>& w) {
  auto trainer = std::make_unique<Trainer<T>>(20);
  trainer->dense(33, w.data(), 20, 1, w.data(), {Activation::kTanh, T(0), T(0)}, true);
  trainer->dense(5, w.data(), 33, 1, w.data(), {Activation::kSoftmax, T(0), T(0)}, true);
  trainer->finish(true, Loss::kCrossEntropy, 0, Optimizer::kAdam);
  return trainer;
}

// A step that fails changes nothing; one that has been taken before allocates nothing.
template <typename T>
void check_trainer() {
  Random random(3);
  const std::vector<T> w = random.numbers<T>(33 * 33);
  std::vector<T> x = random.numbers<T>(50 * 20), targets(50 * 5, T(0.2));
  const RowsView rows = rows_of(x, 50, 20, 1), t = rows_of(targets, 50, 5, 1);
  const Samples samples = {&rows, &t};
  std::unique_ptr<Trainer<T>> failing, other = build_trainer(w);
  fail_each("building a trainer", [&] { failing = build_trainer(w); });
  for (const double max_norm : {0.0, 0.1}) {
    Rates rates = {0.01, 0, 0, 0.9, 0.999, 1e-8, max_norm, 1, 1};
    rates.penalty = 0.1;
    Rates others = rates;
    double loss = 0;
    const auto step = [&] {
      failing->reserve(max_norm > 0 ? 50 : 40);
      loss = failing->step(samples, 0, max_norm > 0 ? 50 : 40, rates);
    };
    fail_each("a step", step, true);
    other->reserve(50);
    const double expected = other->step(samples, 0, max_norm > 0 ? 50 : 40, others);
    FL_CHECK(same_bits(loss, expected) && same_bits(rates.power1, others.power1),
             "a step after failures");
    const long before = t_count;
    for (int i = 0; i < 3; ++i) step();
    FL_CHECK(t_count == before, "%ld allocations in warm steps", t_count - before);
    for (int i = 0; i < 3; ++i) other->step(samples, 0, max_norm > 0 ? 50 : 40, others);
  }
}

// Sizes whose products do not fit are refused before anything is allocated or computed.
template <typename T>
void check_sizes() {
  const ptrdiff_t huge = std::numeric_limits<ptrdiff_t>::max();
  const T one = 1;
  for (const auto& [n, k] : {std::pair<ptrdiff_t, ptrdiff_t>(huge, 1),
                             {1, huge},
                             {huge / 64, huge / 64},
                             {ptrdiff_t(1) << 31, ptrdiff_t(1) << 31}}) {
    bool refused = false;
    try {
      PackedWeights<T>(n, k, &one, 0, 0, nullptr);
    } catch (const std::bad_alloc&) {
      refused = true;
    }
    FL_CHECK(refused, "weights of %td x %td", n, k);
  }
}

}  // namespace
}  // namespace fastlayer

int main() {
  using namespace fastlayer;
  set_num_threads(1);
  check_program<float>();
  check_program<double>();
  check_functions<float>();
  check_functions<double>();
  check_trainer<float>();
  check_trainer<double>();
  check_sizes<float>();
  check_sizes<double>();
}
