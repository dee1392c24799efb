// The executor: residuals, in-place operations and converted ends give what the operations give one
// after the other, under every plan.
#include "../core/executor.hpp"
#include "../core/threads.hpp"
#include "check.hpp"
#include "tests.hpp"

namespace fastlayer {
namespace {

template <typename T>
RowsView view_of(std::vector<T>& v, ptrdiff_t rows, ptrdiff_t cols) {
  const ptrdiff_t size = sizeof(T);
  RowsView view;
  view.data = reinterpret_cast<char*>(v.data());
  view.dtype = dtype_of<T>();
  view.rows = view.shape[0] = rows;
  view.cols = cols;
  view.col_stride = size;
  view.leading = 1;
  view.strides[0] = cols * size;
  return view;
}

template <typename T>
RowsView transposed_view_of(std::vector<T>& v, ptrdiff_t rows, ptrdiff_t cols) {
  RowsView view = view_of(v, rows, cols);
  view.col_stride = rows * static_cast<ptrdiff_t>(sizeof(T));
  view.strides[0] = sizeof(T);
  return view;
}

template <typename T>
std::shared_ptr<const PackedWeights<T>> weights(Random& random, ptrdiff_t n, ptrdiff_t k) {
  const std::vector<T> w = random.numbers<T>(n * k), b = random.numbers<T>(n);
  return std::make_shared<const PackedWeights<T>>(n, k, w.data(), k, 1, b.data());
}

template <typename T>
ActivationArgs<T> act(Activation kind) {
  return {kind, T(0), T(0)};
}

// dense 20 -> 33 relu, residual(layer norm, dense 33 -> 33 tanh, residual(dense)), softmax, dense
// -> 5
template <typename T>
void build(Program<T>& net) {
  Random random(5);
  net.dense(weights<T>(random, 33, 20), act<T>(Activation::kRelu));
  net.begin_branches(Join::kAdd, 0);
  net.vector_op(OpKind::kLayerNorm, AlignedArray<T>(), AlignedArray<T>(), T(1e-5));
  net.dense(weights<T>(random, 33, 33), act<T>(Activation::kTanh));
  net.begin_branches(Join::kAdd, 0);
  net.dense(weights<T>(random, 33, 33), act<T>(Activation::kIdentity));
  net.next_branch();
  net.end_branches();
  net.next_branch();
  net.end_branches();
  net.activation(act<T>(Activation::kSoftmax));
  net.dense(weights<T>(random, 5, 33), act<T>(Activation::kIdentity));
  net.finish();
}

// The same, operation by operation on plain arrays.
template <typename T>
std::vector<T> plain(const std::vector<T>& x, ptrdiff_t m) {
  Random random(5);
  const Kernels<T>& kern = kernels<T>();
  const auto dense = [&](const std::vector<T>& from, ptrdiff_t n, ptrdiff_t k, Activation kind) {
    Program<T> one(k);
    one.dense(weights<T>(random, n, k), act<T>(kind));
    one.finish();
    std::vector<T> input = from, y(static_cast<size_t>(m * n));
    execute(one, view_of(input, m, k), view_of(y, m, n), one.plan(m));
    return y;
  };
  const std::vector<T> a = dense(x, 33, 20, Activation::kRelu);
  std::vector<T> b(a.size());
  for (ptrdiff_t i = 0; i < m; ++i) {
    kern.layer_norm(a.data() + i * 33, nullptr, nullptr, T(1e-5), b.data() + i * 33, 33);
  }
  const std::vector<T> c = dense(b, 33, 33, Activation::kTanh);
  std::vector<T> d = dense(c, 33, 33, Activation::kIdentity);
  for (size_t i = 0; i < d.size(); ++i) d[i] = (d[i] + c[i]) + a[i];
  for (ptrdiff_t i = 0; i < m; ++i) kern.softmax(&d[i * 33], 33, &d[i * 33], 33, 1, 33, false);
  return dense(d, 5, 33, Activation::kIdentity);
}

// concat(dense 20 -> 7 tanh, the input, some of it through dense 6 -> 5 relu), a gate of its
// halves, sum(dense, what came in, dense relu), concat(dense 16 -> 3, dense 16 -> 4 softmax)
template <typename T>
void build_branches(Program<T>& net) {
  Random random(6);
  net.begin_branches(Join::kConcat, 32);
  net.dense(weights<T>(random, 7, 20), act<T>(Activation::kTanh));
  net.next_branch();
  net.next_branch();
  net.slice(3, 9);
  net.dense(weights<T>(random, 5, 6), act<T>(Activation::kRelu));
  net.end_branches();
  net.begin_branches(Join::kMultiply, 0);
  net.slice(0, 16);
  net.next_branch();
  net.slice(16, 32);
  net.activation(act<T>(Activation::kSigmoid));
  net.end_branches();
  net.begin_branches(Join::kAdd, 0);
  net.dense(weights<T>(random, 16, 16), act<T>(Activation::kIdentity));
  net.next_branch();
  net.next_branch();
  net.dense(weights<T>(random, 16, 16), act<T>(Activation::kRelu));
  net.end_branches();
  net.begin_branches(Join::kConcat, 7);
  net.dense(weights<T>(random, 3, 16), act<T>(Activation::kIdentity));
  net.next_branch();
  net.dense(weights<T>(random, 4, 16), act<T>(Activation::kSoftmax));
  net.end_branches();
  net.finish();
}

template <typename T>
std::vector<T> columns(const std::vector<T>& from, ptrdiff_t width, ptrdiff_t begin,
                       ptrdiff_t end) {
  std::vector<T> part;
  for (size_t row = 0; row < from.size(); row += static_cast<size_t>(width)) {
    part.insert(part.end(), from.begin() + static_cast<ptrdiff_t>(row) + begin,
                from.begin() + static_cast<ptrdiff_t>(row) + end);
  }
  return part;
}

template <typename T>
std::vector<T> beside(const std::vector<std::vector<T>>& parts, ptrdiff_t m) {
  std::vector<T> all;
  for (ptrdiff_t i = 0; i < m; ++i) {
    for (const std::vector<T>& part : parts) {
      const auto n = static_cast<ptrdiff_t>(part.size()) / m;
      all.insert(all.end(), part.begin() + i * n, part.begin() + (i + 1) * n);
    }
  }
  return all;
}

template <typename T>
std::vector<T> plain_branches(const std::vector<T>& x, ptrdiff_t m) {
  Random random(6);
  const Kernels<T>& kern = kernels<T>();
  const auto dense = [&](std::vector<T> from, ptrdiff_t n, ptrdiff_t k, Activation kind) {
    Program<T> one(k);
    one.dense(weights<T>(random, n, k), act<T>(kind));
    one.finish();
    std::vector<T> y(static_cast<size_t>(m * n));
    execute(one, view_of(from, m, k), view_of(y, m, n), one.plan(m));
    return y;
  };
  const std::vector<T> first = dense(x, 7, 20, Activation::kTanh);
  const std::vector<T> third = dense(columns(x, 20, 3, 9), 5, 6, Activation::kRelu);
  const std::vector<T> joined = beside<T>({first, x, third}, m);
  std::vector<T> gate = columns(joined, 32, 16, 32), h = columns(joined, 32, 0, 16);
  const auto count = static_cast<ptrdiff_t>(gate.size());
  kern.activation(act<T>(Activation::kSigmoid), gate.data(), gate.data(), count);
  for (size_t i = 0; i < h.size(); ++i) h[i] *= gate[i];
  std::vector<T> sum = dense(h, 16, 16, Activation::kIdentity);
  const std::vector<T> last = dense(h, 16, 16, Activation::kRelu);
  for (size_t i = 0; i < h.size(); ++i) sum[i] = (sum[i] + h[i]) + last[i];
  const std::vector<T> a = dense(sum, 3, 16, Activation::kIdentity);
  return beside<T>({a, dense(sum, 4, 16, Activation::kSoftmax)}, m);
}

// Columns [begin, end) of a view.
RowsView columns_of(RowsView view, ptrdiff_t begin, ptrdiff_t end) {
  view.data += begin * view.col_stride;
  view.cols = end - begin;
  return view;
}

// Under every plan the bits of `plain`, also where the features come in three arrays.
template <typename T>
void check_program(void (*build)(Program<T>&),
                   std::vector<T> (*plain)(const std::vector<T>&, ptrdiff_t), ptrdiff_t n) {
  Program<T> net(20);
  build(net);
  FL_CHECK(net.out_features() == n, "%td features", net.out_features());
  for (ptrdiff_t m : {1, 2, 13, 14, 40, 129}) {
    Random random(static_cast<uint64_t>(m));
    std::vector<T> x = random.numbers<T>(m * 20);
    const std::vector<T> expected = plain(x, m);
    std::vector<T> xt(x.size());
    for (ptrdiff_t i = 0; i < m; ++i) {
      for (ptrdiff_t j = 0; j < 20; ++j) xt[j * m + i] = x[i * 20 + j];
    }
    for (const bool columns : {false, true}) {
      for (ptrdiff_t block : {m, ptrdiff_t(1), ptrdiff_t(5)}) {
        for (int threads : {1, 2, 3}) {
          if (threads > 1 && !has_openmp()) continue;
          Plan plan{};
          plan.split_columns = columns;
          plan.row_block = columns ? m : block;
          plan.blocks = (m + plan.row_block - 1) / plan.row_block;
          plan.threads = threads;
          std::vector<T> y(static_cast<size_t>(m * n)), yt(y.size());
          execute(net, view_of(x, m, 20), view_of(y, m, n), plan);
          execute(net, transposed_view_of(xt, m, 20), transposed_view_of(yt, m, n), plan);
          std::vector<T> apart(y.size());
          const RowsView rows = view_of(x, m, 20), turned = transposed_view_of(xt, m, 20);
          const RowsView inputs[] = {columns_of(rows, 0, 7), columns_of(turned, 7, 8),
                                     columns_of(turned, 8, 20)};
          execute(net, Inputs{inputs, 3}, view_of(apart, m, n), plan);
          FL_CHECK(apart == y, "three arrays: m=%td columns=%d block=%td threads=%d", m, columns,
                   block, threads);
          for (ptrdiff_t i = 0; i < m * n; ++i) {
            const T transposed = yt[i % n * m + i / n];
            FL_CHECK(same_bits(y[i], expected[i]) && same_bits(transposed, expected[i]),
                     "m=%td columns=%d block=%td threads=%d at %td", m, columns, block, threads, i);
          }
        }
      }
    }
  }
}

// More threads, and more panels, than a shared step has pieces.
void check_many_threads() {
  if (!has_openmp()) return;
  Random random(9);
  const ptrdiff_t n = 100 * kLine<float>, k = 9;
  Program<float> net(k);
  net.dense(weights<float>(random, n, k), act<float>(Activation::kIdentity));
  net.finish();
  std::vector<float> x = random.numbers<float>(k), alone(n), together(n);
  Plan plan{};
  plan.row_block = plan.blocks = plan.threads = 1;
  plan.x_bytes = 256 * 1024;
  execute(net, view_of(x, 1, k), view_of(alone, 1, n), plan);
  plan.threads = 100;
  plan.split_columns = true;
  alarm(60);
  execute(net, view_of(x, 1, k), view_of(together, 1, n), plan);
  alarm(0);
  FL_CHECK(alone == together, "100 threads");
}

// An activation inside of a layer is part of the work that threads are worth, unless it is free.
void check_estimates() {
  Random random(4);
  const auto estimated = [&](Activation kind) {
    Program<float> net(64);
    net.dense(weights<float>(random, 100, 64), act<float>(kind));
    net.finish();
    return net.plan(128).picoseconds;
  };
  const double none = estimated(Activation::kIdentity);
  FL_CHECK(estimated(Activation::kRelu) == none, "relu costs something");
  FL_CHECK(estimated(Activation::kTanh) > none + 128 * 100 * 250, "tanh costs too little");
}

}  // namespace

void test_program() {
  check_estimates();
  check_many_threads();
  check_program<float>(build, plain, 5);
  check_program<double>(build, plain, 5);
  check_program<float>(build_branches, plain_branches, 7);
  check_program<double>(build_branches, plain_branches, 7);
}

}  // namespace fastlayer
