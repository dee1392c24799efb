#include "isa_speed.hpp"

#include <algorithm>

#include "clock.hpp"
#include "cpu.hpp"
#include "packed_weights.hpp"

namespace fastlayer {
namespace {

// 56 rows are whole tiles of 14 and 7, and nearly of 6 and 5; 256 KiB of weights fit the smallest
// L2.
constexpr ptrdiff_t kRows = 56, kSize = 256;
// A clock that falls for wide vectors does so within half a millisecond, and rises again after two.
constexpr int64_t kTurn = 10 * 1000 * 1000;

double turn(const Kernels<float>& kern, const DenseArgs<float>& d) {
  int64_t calls = 0, elapsed = 0;
  const int64_t start = now_ns();
  while (elapsed < kTurn) {
    kern.dense(d);
    ++calls;
    elapsed = now_ns() - start;
  }
  return 2e9 * kRows * kSize * kSize * static_cast<double>(calls) / static_cast<double>(elapsed);
}

}  // namespace

std::vector<IsaSpeed> isa_speeds(int turns) {
  AlignedArray<float> x(kRows * kSize), y(kRows * kSize), w(kSize * kSize);
  std::fill_n(x.data(), x.size(), 0.5f);
  std::fill_n(w.data(), w.size(), 0.5f);
  const PackedWeights<float> packed(kSize, kSize, w.data(), kSize, 1, nullptr);
  DenseArgs<float> d{};
  d.m = kRows;
  d.k = d.cols = d.ldx = d.ldy = kSize;
  d.x = x.data();
  d.y = y.data();
  d.w = packed.weight_lines(0);
  d.bias = packed.bias_line(0);
  d.panel_stride = d.bias_stride = packed.panel_stride();
  d.line_stride = kLine<float>;
  d.activation = {Activation::kIdentity, 0, 0};
  std::vector<IsaSpeed> speeds;
  for (const KernelTable* table : supported_tables()) speeds.push_back({table->name, 0});
  for (int i = 0; i < turns; ++i) {
    size_t at = 0;
    for (const KernelTable* table : supported_tables()) {
      speeds[at].flops = std::max(speeds[at].flops, turn(table->f32, d));
      ++at;
    }
  }
  return speeds;
}

}  // namespace fastlayer
