// Hashes of outputs for seeded inputs, the same on every instruction set, compiler and processor.
// The dense hashes were made from reference_sum, the others from the scalar kernels.
#include <cinttypes>
#include <fstream>
#include <string>

#include "../core/packed_weights.hpp"
#include "../core/reference.hpp"
#include "check.hpp"
#include "tests.hpp"

namespace fastlayer {
namespace {

struct DenseCase {
  ptrdiff_t m, k, n;
};
const DenseCase kCases[] = {{1, 3, 8},    {5, 64, 100},   {17, 256, 33}, {29, 257, 10},
                            {3, 784, 70}, {40, 1000, 16}, {2, 4097, 5}};

// table == nullptr: dense from reference_sum, the rest from the scalar kernels.
template <typename T>
void add_hashes(const KernelTable* table, Hashes& hashes) {
  const Kernels<T>& kern = kernels_of<T>(table == nullptr ? scalar::kTable : *table);
  const std::string type = type_name<T>();
  for (const DenseCase& c : kCases) {
    Random random(static_cast<uint64_t>(c.m * 7919 + c.k * 31 + c.n));
    const std::vector<T> x = random.numbers<T>(c.m * c.k), w = random.numbers<T>(c.n * c.k),
                         b = random.numbers<T>(c.n);
    std::vector<T> y(static_cast<size_t>(c.m * c.n));
    if (table == nullptr) {
      for (ptrdiff_t i = 0; i < c.m * c.n; ++i) {
        y[i] = reference_sum(b[i % c.n], &x[i / c.n * c.k], 1, &w[i % c.n * c.k], 1, c.k);
      }
    } else {
      const PackedWeights<T> packed(c.n, c.k, w.data(), c.k, 1, b.data());
      DenseArgs<T> d{};
      d.x_bytes = 256 * 1024;
      d.m = c.m;
      d.k = c.k;
      d.cols = c.n;
      d.x = x.data();
      d.ldx = c.k;
      d.w = packed.weight_lines(0);
      d.panel_stride = d.bias_stride = packed.panel_stride();
      d.line_stride = kLine<T>;
      d.bias = packed.bias_line(0);
      d.y = y.data();
      d.ldy = c.n;
      d.activation = {Activation::kIdentity, T(0), T(0)};
      kern.dense(d);
    }
    hashes[type + "/dense/" + std::to_string(c.m) + "x" + std::to_string(c.k) + "x" +
           std::to_string(c.n)] = hash(y);
  }
  // 1e5 numbers from 2^-20 to 2^7 and their opposites: tails, joints of the polynomial pieces,
  // zero.
  Random random(1);
  std::vector<T> x(100000), y(x.size());
  for (T& v : x) {
    v = random.number<T>() * T(128);
    const uint64_t shrink = random.next() % 28;
    for (uint64_t i = 0; i < shrink; ++i) v *= T(0.5);
  }
  const ptrdiff_t n = static_cast<ptrdiff_t>(x.size());
  for (int kind = 0; kind < kActivationCount; ++kind) {
    if (is_row_wise(static_cast<Activation>(kind))) continue;
    kern.activation({static_cast<Activation>(kind), T(0.75), T(20)}, x.data(), y.data(), n);
    hashes[type + "/activation/" + std::to_string(kind)] = hash(y);
  }
  const std::vector<T> da = random.numbers<T>(n);
  for (int kind = 0; kind < kActivationCount; ++kind) {
    if (is_row_wise(static_cast<Activation>(kind))) continue;
    const ActivationArgs<T> act = {static_cast<Activation>(kind), T(0.75), T(20)};
    kern.activation_backward(act, da.data(), x.data(), y.data(), n);
    hashes[type + "/backward/" + std::to_string(kind)] = hash(y);
  }
  const auto rows = [&](const char* name, auto f) {
    for (ptrdiff_t i = 0; i < n; i += 125) f(&x[i], &y[i]);
    hashes[type + "/" + name] = hash(y);
  };
  rows("softmax", [&](const T* from, T* to) { kern.softmax(from, 125, to, 125, 1, 125, false); });
  rows("log_softmax",
       [&](const T* from, T* to) { kern.log_softmax(from, 125, to, 125, 1, 125, false); });
  std::vector<T> p(125);
  const auto backward = [&](const char* name, auto f) {
    for (ptrdiff_t i = 0; i < n; i += 125) {
      kern.softmax(&x[i], 125, p.data(), 125, 1, 125, false);
      f(p.data(), &da[i], &y[i], 125);
    }
    hashes[type + "/backward/" + name] = hash(y);
  };
  backward("softmax", kern.softmax_backward);
  backward("log_softmax", kern.log_softmax_backward);
  rows("layer_norm",
       [&](const T* from, T* to) { kern.layer_norm(from, nullptr, nullptr, T(1e-5), to, 125); });
  rows("rms_norm", [&](const T* from, T* to) { kern.rms_norm(from, nullptr, T(1e-6), to, 125); });
}

Hashes hashes_of(const KernelTable* table) {
  Hashes hashes;
  add_hashes<float>(table, hashes);
  add_hashes<double>(table, hashes);
  add_training_hashes(hashes);
  return hashes;
}

}  // namespace

void test_golden(const char* path, bool write) {
  if (write) {
    setenv("FASTLAYER_ISA", "scalar", 1);
    std::ofstream file(path);
    for (const auto& [name, value] : hashes_of(nullptr)) {
      char line[100];
      std::snprintf(line, sizeof line, "%s %016" PRIx64 "\n", name.c_str(), value);
      file << line;
    }
    return;
  }
  Hashes golden;
  std::ifstream file(path);
  std::string name, value;
  while (file >> name >> value) golden[name] = std::strtoull(value.c_str(), nullptr, 16);
  FL_CHECK(!golden.empty(), "no hashes in %s", path);
  for_each_instruction_set([&](const KernelTable& table) {
    const Hashes hashes = hashes_of(&table);
    FL_CHECK(hashes.size() == golden.size(), "%s: %zu hashes instead of %zu", table.name,
             hashes.size(), golden.size());
    for (const auto& [key, h] : hashes) {
      FL_CHECK(golden.count(key) == 1 && golden[key] == h, "%s: %s is %016" PRIx64, table.name,
               key.c_str(), h);
    }
    std::printf("%s: %zu hashes equal\n", table.name, hashes.size());
  });
}

}  // namespace fastlayer
