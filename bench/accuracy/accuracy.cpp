// Measures the element-wise activations of the kernel tables in ULP: float32 over every input (or
// every N-th) against double, float64 over a dense sample against __float128. Prints Markdown.
#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/table.hpp"
#include "reference.hpp"

namespace {

using fastlayer::Activation;
using fastlayer::ActivationArgs;
using fastlayer::KernelTable;

template <typename R>
struct Case {
  const char* name;
  Activation kind;
  double p0, p1;
  R (*reference)(R);
};

template <typename R>
std::vector<Case<R>> cases() {
  return {
      {"exp", Activation::kExp, 0, 0, [](R x) { return f_exp(x); }},
      {"tanh", Activation::kTanh, 0, 0, [](R x) { return f_tanh(x); }},
      {"sigmoid", Activation::kSigmoid, 0, 0, [](R x) { return ref_sigmoid(x); }},
      {"silu", Activation::kSilu, 0, 0, [](R x) { return x * ref_sigmoid(x); }},
      {"softplus", Activation::kSoftplus, 1, 20, [](R x) { return ref_softplus(x, R(1), R(20)); }},
      {"softplus, beta 3", Activation::kSoftplus, 3, 60,
       [](R x) { return ref_softplus(x, R(3), R(60)); }},
      {"log_sigmoid", Activation::kLogSigmoid, 0, 0, [](R x) { return ref_log_sigmoid(x); }},
      {"elu", Activation::kElu, 1, 0, [](R x) { return x > 0 ? x : f_expm1(x); }},
      {"celu, alpha 0.75", Activation::kCelu, 0.75, 0,
       [](R x) { return x > 0 ? x : R(0.75) * f_expm1(x / R(0.75)); }},
      {"celu, alpha 3", Activation::kCelu, 3, 0,
       [](R x) { return x > 0 ? x : R(3) * f_expm1(x / R(3)); }},
      {"selu", Activation::kSelu, 0, 0, [](R x) { return ref_selu(x); }},
      {"gelu (erf)", Activation::kGelu, 0, 0, [](R x) { return ref_gelu(x); }},
      {"gelu (tanh)", Activation::kGeluTanh, 0, 0, [](R x) { return ref_gelu_tanh(x); }},
      {"mish", Activation::kMish, 0, 0, [](R x) { return ref_mish(x); }},
      {"hardsigmoid", Activation::kHardsigmoid, 0, 0,
       [](R x) {
         return (x < -3 ? R(0) : x > 3 ? R(6) : x + 3) / 6;
       }},
      {"hardswish", Activation::kHardswish, 0, 0,
       [](R x) { return x < -3  ? -R(0)
                        : x > 3 ? x
                                : x * ((x + 3) / 6); }},
      {"softsign", Activation::kSoftsign, 0, 0, [](R x) { return x / (1 + f_abs(x)); }},
  };
}

// |got - want| in units of the spacing of T's numbers around `want`.
double error_in_ulp(float got, double want) {
  const float rounded = static_cast<float>(want);
  if (got == rounded && std::isinf(got)) return 0;
  uint64_t pattern;
  std::memcpy(&pattern, &want, sizeof pattern);
  const int exponent = static_cast<int>(pattern >> 52 & 0x7ff) - 1023;
  const int spacing = exponent < -126 ? -149 : exponent - 23;
  pattern = static_cast<uint64_t>(1023 - spacing) << 52;
  double scale;
  std::memcpy(&scale, &pattern, sizeof scale);
  return std::fabs(got - want) * scale;
}

#ifdef FASTLAYER_HAVE_WIDE
double error_in_ulp(double got, Wide want) {
  if (got == static_cast<double>(want) && std::isinf(got)) return 0;
  int exponent = 0;
  frexpq(want, &exponent);
  const int spacing = want == 0 || exponent < -1021 ? -1074 : exponent - 53;
  // Not as double: the difference may lie below the smallest one.
  return static_cast<double>(scalbnq(f_abs(Wide(got) - want), -spacing));
}
#endif

struct Result {
  double worst = 0, sum = 0, at = 0;
  uint64_t count = 0, exact = 0, bad_nan = 0;

  void merge(const Result& other) {
    if (!(other.worst <= worst)) {
      worst = other.worst;
      at = other.at;
    }
    sum += other.sum;
    count += other.count;
    exact += other.exact;
    bad_nan += other.bad_nan;
  }
};

template <typename T, typename R>
void measure(const fastlayer::Kernels<T>& kernels, const Case<R>& c, const std::vector<T>& x,
             std::vector<T>& y, Result& result) {
  const ActivationArgs<T> args{c.kind, static_cast<T>(c.p0), static_cast<T>(c.p1)};
  kernels.activation(args, x.data(), y.data(), static_cast<ptrdiff_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(x[i])) result.bad_nan += !std::isnan(y[i]);
    if (!std::isfinite(x[i])) continue;
    const R want = c.reference(R(x[i]));
    const double error = error_in_ulp(y[i], want);
    ++result.count;
    result.exact += y[i] == static_cast<T>(want);
    result.sum += error;
    if (!(error <= result.worst)) {
      result.worst = error;
      result.at = static_cast<double>(x[i]);
    }
  }
}

void progress(const char* name, double share) {
  const int width = 40, done = static_cast<int>(share * width);
  std::fprintf(stderr, "\r%-18s [%.*s%*s] %3d%%", name, done,
               "########################################", width - done, "",
               static_cast<int>(share * 100));
  if (share >= 1) std::fputc('\n', stderr);
}

void print_row(const char* name, const char* type, const Result& r) {
  std::printf("| %s | %s | %.4f | %a (%.9g) | %.4f | %.4f %% | %" PRIu64 " |%s\n", name, type,
              r.worst, r.at, r.at, r.sum / static_cast<double>(r.count),
              100.0 * static_cast<double>(r.exact) / static_cast<double>(r.count), r.count,
              r.bad_nan ? " NaN LOST" : "");
  std::fflush(stdout);
}

struct Options {
  std::string isa = "avx512", only;
  uint64_t stride = 1, samples = 2000000;
  int threads = 2;
  bool f32 = true, f64 = true;
};

void measure_float(const KernelTable& table, const Options& options) {
  constexpr uint64_t kAll = uint64_t(1) << 32;
  constexpr uint64_t kChunk = 1 << 14;
  for (const Case<double>& c : cases<double>()) {
    if (!options.only.empty() && options.only != c.name) continue;
    std::atomic<uint64_t> next{0};
    std::mutex lock;
    Result total;
    const uint64_t count = kAll / options.stride;
    const uint64_t chunks = (count + kChunk - 1) / kChunk;
    auto work = [&](bool reports) {
      std::vector<float> x, y(kChunk);
      Result mine;
      for (uint64_t k; (k = next++) < chunks;) {
        x.resize(std::min(kChunk, count - k * kChunk));
        for (uint64_t i = 0; i < x.size(); ++i) {
          const uint32_t bits = static_cast<uint32_t>((k * kChunk + i) * options.stride);
          std::memcpy(&x[i], &bits, sizeof bits);
        }
        measure<float, double>(table.f32, c, x, y, mine);
        if (reports && k % 64 == 0) progress(c.name, double(k) / double(chunks));
      }
      std::lock_guard<std::mutex> hold(lock);
      total.merge(mine);
    };
    std::vector<std::thread> pool;
    for (int t = 1; t < options.threads; ++t) pool.emplace_back(work, false);
    work(true);
    for (std::thread& t : pool) t.join();
    progress(c.name, 1);
    print_row(c.name, "float32", total);
  }
}

#ifdef FASTLAYER_HAVE_WIDE
// Random bit patterns, the range where the functions bend, their tails, and the places where the
// reduction of exp changes n or a branch changes.
std::vector<double> double_inputs(uint64_t samples, uint64_t seed) {
  std::mt19937_64 random(seed);
  auto uniform = [&](double low, double high) {
    return low + (high - low) * (static_cast<double>(random() >> 11) * 0x1p-53);
  };
  std::vector<double> x = {0.0, -0.0, 0x1p-1074, -0x1p-1074, 0x1p-1022, -0x1p-1022};
  for (double edge : {3.0, 20.0, 21.75, 39.0, 40.0, 64.0, 709.0, 710.0, 745.0, 746.0, 870.0}) {
    for (double sign : {-1.0, 1.0}) {
      for (int i = -50; i <= 50; ++i) x.push_back(sign * edge * (1 + i * 0x1p-52));
    }
  }
  while (x.size() < samples) {
    const uint64_t pattern = random();
    double value;
    std::memcpy(&value, &pattern, sizeof value);
    if (std::isfinite(value)) x.push_back(value);
    const double sign = random() & 1 ? 1 : -1;
    x.push_back(uniform(-3, 3));
    x.push_back(uniform(-3, 3));
    x.push_back(uniform(-45, 45));
    x.push_back(uniform(-760, 715));
    x.push_back(sign * std::exp2(uniform(-60, 10)));
    const double joint = std::floor(uniform(0, 60)) * 0.34657359027997264;
    x.push_back(sign * joint * (1 + uniform(-1, 1) * 0x1p-20));
    x.push_back(sign * std::sqrt(2 * joint) * (1 + uniform(-1, 1) * 0x1p-20));
  }
  return x;
}

void measure_double(const KernelTable& table, const Options& options) {
  for (const Case<Wide>& c : cases<Wide>()) {
    if (!options.only.empty() && options.only != c.name) continue;
    Result total;
    std::mutex lock;
    std::vector<std::thread> pool;
    for (int t = 0; t < options.threads; ++t) {
      pool.emplace_back([&, t] {
        const std::vector<double> x =
            double_inputs(options.samples / static_cast<uint64_t>(options.threads), 1 + t);
        std::vector<double> y(x.size());
        Result mine;
        measure<double, Wide>(table.f64, c, x, y, mine);
        std::lock_guard<std::mutex> hold(lock);
        total.merge(mine);
      });
    }
    for (std::thread& t : pool) t.join();
    print_row(c.name, "float64", total);
  }
}
#endif

const KernelTable* find_table(const std::string& isa) {
#if defined(__x86_64__)
  if (isa == "avx512") return &fastlayer::avx512::kTable;
  if (isa == "avx2") return &fastlayer::avx2::kTable;
#elif defined(__aarch64__)
  if (isa == "neon") return &fastlayer::neon::kTable;
#endif
  return isa == "scalar" ? &fastlayer::scalar::kTable : nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    auto value = [&] { return i + 1 < argc ? argv[++i] : ""; };
    if (name == "--stride") {
      options.stride = std::strtoull(value(), nullptr, 10);
    } else if (name == "--samples") {
      options.samples = std::strtoull(value(), nullptr, 10);
    } else if (name == "--threads") {
      options.threads = std::atoi(value());
    } else if (name == "--isa") {
      options.isa = value();
    } else if (name == "--only") {
      options.only = value();
    } else if (name == "--f32") {
      options.f64 = false;
    } else if (name == "--f64") {
      options.f32 = false;
    } else {
      std::fprintf(stderr,
                   "usage: accuracy [--isa avx512|avx2|neon|scalar] [--stride N] [--samples N]\n"
                   "                [--threads N] [--only NAME] [--f32 | --f64]\n");
      return 2;
    }
  }
  const KernelTable* table = find_table(options.isa);
  if (table == nullptr || options.stride == 0 || options.threads < 1) return 2;
  std::printf("| function | type | max ULP | at | mean ULP | correctly rounded | inputs |\n");
  std::printf("|---|---|---|---|---|---|---|\n");
  if (options.f32) measure_float(*table, options);
#ifdef FASTLAYER_HAVE_WIDE
  if (options.f64) measure_double(*table, options);
#endif
  return 0;
}
