// fastlayer_instructions CALLS M SIZE SIZE...: that many calls of a network on one thread, for a
// program that counts instructions. Two runs with different CALLS differ by the calls alone.
// fastlayer_instructions CALLS M ACTIVATION N: the same of an activation of M rows of N.
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../core/elementwise.hpp"
#include "../core/executor.hpp"
#include "../core/threads.hpp"
#include "check.hpp"

namespace fastlayer {
namespace {

RowsView view(std::vector<float>& v, ptrdiff_t m, ptrdiff_t cols) {
  RowsView rows;
  rows.data = reinterpret_cast<char*>(v.data());
  rows.dtype = dtype_of<float>();
  rows.rows = rows.shape[0] = m;
  rows.cols = cols;
  rows.col_stride = sizeof(float);
  rows.leading = 1;
  rows.strides[0] = cols * static_cast<ptrdiff_t>(sizeof(float));
  return rows;
}

void call_activation(int calls, ptrdiff_t m, const char* name, ptrdiff_t n) {
  int kind = 0;
  while (kind < kActivationCount && std::strcmp(kActivationNames[kind], name) != 0) ++kind;
  FL_CHECK(kind < kActivationCount, "no activation %s", name);
  const ActivationArgs<float> act = {static_cast<Activation>(kind), 0, 0};
  Random random(1);
  std::vector<float> x = random.numbers<float>(m * n), y(x.size());
  for (int i = 0; i < calls; ++i) {
    if (is_row_wise(act.kind)) {
      softmax_rows<float>(view(x, m, n), view(y, m, n), act.kind == Activation::kLogSoftmax);
    } else {
      activate<float>(act, view(x, m, n), view(y, m, n));
    }
  }
  std::printf("%g\n", static_cast<double>(y[0]));
}

}  // namespace
}  // namespace fastlayer

int main(int argc, char** argv) {
  using namespace fastlayer;
  FL_CHECK(argc >= 5, "usage: %s CALLS M SIZE SIZE...", argv[0]);
  set_num_threads(1);
  const int calls = std::atoi(argv[1]);
  const ptrdiff_t m = std::atoi(argv[2]);
  if (std::isalpha(argv[3][0])) {
    call_activation(calls, m, argv[3], std::atoi(argv[4]));
    return 0;
  }
  const ptrdiff_t in = std::atoi(argv[3]), out = std::atoi(argv[argc - 1]);
  Random random(1);
  Program<float> net(in);
  for (int i = 4; i < argc; ++i) {
    const ptrdiff_t k = std::atoi(argv[i - 1]), n = std::atoi(argv[i]);
    const std::vector<float> w = random.numbers<float>(n * k), b = random.numbers<float>(n);
    const Activation kind = i == argc - 1 ? Activation::kIdentity : Activation::kRelu;
    net.dense(std::make_shared<const PackedWeights<float>>(n, k, w.data(), k, 1, b.data()),
              {kind, 0, 0});
  }
  net.finish();
  std::vector<float> x = random.numbers<float>(m * in), y(static_cast<size_t>(m * out));
  for (int i = 0; i < calls; ++i) execute(net, view(x, m, in), view(y, m, out), net.plan(m));
  std::printf("%g\n", static_cast<double>(y[0]));
  return 0;
}
