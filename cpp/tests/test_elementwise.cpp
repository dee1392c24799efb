// Element-wise and row kernels: every instruction set gives the scalar kernels' bits, for every
// length of tail, in place and out of place, without touching a byte beyond the array.
#include <cmath>
#include <limits>

#include "check.hpp"
#include "tests.hpp"

namespace fastlayer {
namespace {

constexpr ptrdiff_t kMaxLength = 67;

// Where an emulator's FMA is not exact, numbers are compared and differences only counted.
bool exact_fma = true;
long differences = 0;

// Random bit patterns (every exponent, NaN and subnormals among them), ordinary numbers and
// specials.
template <typename T>
std::vector<T> values(ptrdiff_t n, uint64_t seed) {
  const T specials[] = {T(0),
                        -T(0),
                        std::numeric_limits<T>::infinity(),
                        -std::numeric_limits<T>::infinity(),
                        std::numeric_limits<T>::quiet_NaN(),
                        std::numeric_limits<T>::denorm_min(),
                        std::numeric_limits<T>::max(),
                        std::numeric_limits<T>::lowest(),
                        T(-3),
                        T(3)};
  Random random(seed);
  std::vector<T> v(static_cast<size_t>(n));
  for (T& x : v) {
    const uint64_t bits = random.next();
    switch (random.next() % 4) {
      case 0:
        std::memcpy(&x, &bits, sizeof(T));
        break;
      case 1:
        x = specials[bits % 10];
        break;
      default:
        x = random.number<T>() * T(bits % 2 == 0 ? 2 : 30);
    }
  }
  return v;
}

// NaN payloads are not part of the promise: any NaN equals any other.
template <typename T>
void expect_same(const T* a, const T* b, ptrdiff_t n, const char* isa, const char* what,
                 int detail) {
  for (ptrdiff_t i = 0; i < n; ++i) {
    const bool both_nan = std::isnan(a[i]) && std::isnan(b[i]);
    const bool same = both_nan || same_bits(a[i], b[i]);
    differences += !same;
    FL_CHECK(same || !exact_fma, "%s %s %s %d at %td of %td: %a instead of %a", isa, type_name<T>(),
             what, detail, i, n, double(a[i]), double(b[i]));
  }
}

// f(kernels, x, y, n) on guarded memory for each length, against the scalar table.
template <typename T, typename F>
void check(const KernelTable& table, const char* what, int detail, F f, ptrdiff_t first = 0,
           ptrdiff_t last = kMaxLength) {
  for (ptrdiff_t n = first; n <= last; ++n) {
    const std::vector<T> x = values<T>(n, static_cast<uint64_t>(n * 131 + detail));
    std::vector<T> expected(x.size());
    f(kernels_of<T>(scalar::kTable), x.data(), expected.data(), n);
    for (const bool at_end : {false, true}) {
      Guarded<T> from(x, at_end), to(n, at_end);
      f(kernels_of<T>(table), from.data(), to.data(), n);
      expect_same(to.data(), expected.data(), n, table.name, what, detail);
      f(kernels_of<T>(table), from.data(), from.data(), n);
      expect_same(from.data(), expected.data(), n, table.name, what, detail);
    }
  }
}

template <typename T>
void check_table(const KernelTable& table) {
  for (int kind = 0; kind < kActivationCount; ++kind) {
    if (is_row_wise(static_cast<Activation>(kind))) continue;
    // Of softplus beta and threshold: any and the usual ones; a threshold beyond the curve.
    const T parameters[][2] = {{T(0.75), T(20)}, {T(1), T(20)}, {T(0.75), T(100)}, {T(1), T(100)}};
    for (const auto& p : parameters) {
      const ActivationArgs<T> act = {static_cast<Activation>(kind), p[0], p[1]};
      const auto activate = [&](const Kernels<T>& k, const T* x, T* y, ptrdiff_t n) {
        k.activation(act, x, y, n);
      };
      check<T>(table, "activation", kind, activate);
      check<T>(table, "activation in groups", kind, activate, 120, 150);
      check<T>(table, "activation in groups", kind, activate, 250, 289);
      if (act.kind != Activation::kSoftplus) break;
    }
  }
  const std::vector<T> a = values<T>(kMaxLength, 1), b = values<T>(kMaxLength, 2);
  const auto with_vectors = [&](const char* what, auto f) {
    check<T>(table, what, 0, [&](const Kernels<T>& k, const T* x, T* y, ptrdiff_t n) {
      const std::vector<T> an(a.begin(), a.begin() + n), bn(b.begin(), b.begin() + n);
      Guarded<T> ga(an, true), gb(bn, true);
      f(k, x, ga.data(), gb.data(), y, n);
    });
  };
  with_vectors("prelu", [](auto& k, const T* x, const T* va, const T*, T* y, ptrdiff_t n) {
    k.prelu(x, va, y, n);
  });
  with_vectors("add", [](auto& k, const T* x, const T* va, const T*, T* y, ptrdiff_t n) {
    k.add(x, va, y, n);
  });
  with_vectors("affine", [](auto& k, const T* x, const T* va, const T* vb, T* y, ptrdiff_t n) {
    k.affine(x, va, vb, y, n);
  });
  with_vectors("layer_norm", [](auto& k, const T* x, const T* va, const T* vb, T* y, ptrdiff_t n) {
    k.layer_norm(x, va, vb, T(1e-5), y, n);
  });
  with_vectors("layer_norm plain", [](auto& k, const T* x, const T*, const T*, T* y, ptrdiff_t n) {
    k.layer_norm(x, nullptr, nullptr, T(1e-5), y, n);
  });
  with_vectors("rms_norm", [](auto& k, const T* x, const T* va, const T*, T* y, ptrdiff_t n) {
    k.rms_norm(x, va, T(1e-6), y, n);
  });
  check<T>(table, "softmax", 0, [](const Kernels<T>& k, const T* x, T* y, ptrdiff_t n) {
    k.softmax(x, n, y, n, 1, n, false);
  });
  check<T>(table, "log_softmax", 0, [](const Kernels<T>& k, const T* x, T* y, ptrdiff_t n) {
    k.log_softmax(x, n, y, n, 1, n, false);
  });
}

// f(kernels, da, z, dz, n) in its own memory, then over da and over z.
template <typename T, typename F>
void check_backward(const KernelTable& table, const char* what, int detail, F f,
                    const std::vector<T>& da, const std::vector<T>& z) {
  const ptrdiff_t n = static_cast<ptrdiff_t>(z.size());
  std::vector<T> expected(z.size());
  f(kernels_of<T>(scalar::kTable), da.data(), z.data(), expected.data(), n);
  for (const bool at_end : {false, true}) {
    for (const int over : {0, 1, 2}) {
      Guarded<T> from_da(da, at_end), from_z(z, at_end), to(n, at_end);
      T* const dz = (over == 0 ? to : over == 1 ? from_da : from_z).data();
      f(kernels_of<T>(table), from_da.data(), from_z.data(), dz, n);
      expect_same(dz, expected.data(), n, table.name, what, detail);
    }
  }
}

std::vector<ptrdiff_t> lengths_of_tails() {
  std::vector<ptrdiff_t> lengths;
  for (ptrdiff_t n = 0; n <= kMaxLength; ++n) lengths.push_back(n);
  for (ptrdiff_t n = 250; n <= 289; ++n) lengths.push_back(n);
  return lengths;
}

template <typename T>
void check_activation_backward(const KernelTable& table) {
  for (int kind = 0; kind < kActivationCount; ++kind) {
    if (is_row_wise(static_cast<Activation>(kind))) continue;
    const T parameters[][2] = {{T(0.75), T(20)}, {T(-2), T(100)}, {T(1e30), T(1)}};
    for (const auto& p : parameters) {
      const ActivationArgs<T> act = {static_cast<Activation>(kind), p[0], p[1]};
      const auto f = [&](const Kernels<T>& k, const T* da, const T* z, T* dz, ptrdiff_t n) {
        k.activation_backward(act, da, z, dz, n);
      };
      for (const ptrdiff_t n : lengths_of_tails()) {
        const uint64_t seed = static_cast<uint64_t>(n * 131 + kind);
        check_backward<T>(table, "backward pass of activation", kind, f, values<T>(n, seed + 1),
                          values<T>(n, seed));
      }
    }
  }
}

// The kernels take the row's softmax, of ordinary numbers and of special ones.
template <typename T>
void check_softmax_backward(const KernelTable& table) {
  std::vector<ptrdiff_t> lengths = lengths_of_tails();
  for (const ptrdiff_t n : {1000, 1024, 4097, 20011}) lengths.push_back(n);
  for (const ptrdiff_t n : lengths) {
    Random random(static_cast<uint64_t>(n));
    for (const bool special : {false, true}) {
      std::vector<T> z = random.numbers<T>(n), da = random.numbers<T>(n);
      for (T& v : z) v *= T(10);
      if (special) da = values<T>(n, static_cast<uint64_t>(n + 1));
      kernels_of<T>(scalar::kTable).softmax(z.data(), n, z.data(), n, 1, n, false);
      for (const bool log : {false, true}) {
        const auto f = [&](const Kernels<T>& k, const T* d, const T* p, T* dz, ptrdiff_t count) {
          (log ? k.log_softmax_backward : k.softmax_backward)(p, d, dz, count);
        };
        check_backward<T>(table, "backward pass of softmax", log, f, da, z);
      }
    }
  }
}

// gelu takes its two formulas apart in blocks of many elements: few and many of those beyond the
// near one, all and none, where they meet, in place too.
template <typename T>
void check_gelu(const KernelTable& table) {
  const ActivationArgs<T> act = {Activation::kGelu, T(0), T(0)};
  const T edges[] = {T(5), T(5.5), T(8.5), T(14.5), T(39), std::numeric_limits<T>::infinity()};
  for (const ptrdiff_t n : {16, 32, 48, 100, 1000, 1024, 1040, 2048, 3001}) {
    // How many of 64 elements are random with this spread, and how many at an edge.
    const struct {
      int spread, wide, edge;
    } mixes[] = {{1, 64, 0}, {4, 1, 0}, {9, 3, 1}, {20, 32, 4}, {40, 64, 8}, {9, 0, 64}};
    for (const auto& mix : mixes) {
      Random random(static_cast<uint64_t>(n + mix.spread));
      std::vector<T> x = random.numbers<T>(n);
      for (T& v : x) {
        const uint64_t bits = random.next();
        if (static_cast<int>(bits % 64) < mix.wide) v = random.number<T>() * T(mix.spread);
        if (static_cast<int>(bits / 64 % 64) >= mix.edge) continue;
        const T edge = edges[bits / 4096 % 6];
        const T beside[] = {edge, std::nextafter(edge, T(0)), std::nextafter(edge, T(99))};
        v = std::copysign(beside[bits / 65536 % 3], v);
        if (bits >> 60 == 0) v = std::numeric_limits<T>::quiet_NaN();
      }
      std::vector<T> expected(x.size());
      kernels_of<T>(scalar::kTable).activation(act, x.data(), expected.data(), n);
      Guarded<T> from(x, true), to(n, true);
      kernels_of<T>(table).activation(act, from.data(), to.data(), n);
      expect_same(to.data(), expected.data(), n, table.name, "gelu of spread", mix.spread);
      kernels_of<T>(table).activation(act, from.data(), from.data(), n);
      expect_same(from.data(), expected.data(), n, table.name, "gelu in place", mix.spread);
      const auto slope = [&](const Kernels<T>& k, const T* da, const T* z, T* dz, ptrdiff_t count) {
        k.activation_backward(act, da, z, dz, count);
      };
      check_backward<T>(table, "slope of gelu", mix.spread, slope, std::vector<T>(x.size(), T(1)),
                        x);
    }
  }
}

// Copies past the cache, from every alignment to every alignment.
template <typename T>
void check_stream(const KernelTable& table) {
  const Kernels<T>& k = kernels_of<T>(table);
  if (!k.stream) return;
  for (ptrdiff_t n = 0; n <= kMaxLength; ++n) {
    const std::vector<T> x = values<T>(n, static_cast<uint64_t>(n));
    for (const bool at_end : {false, true}) {
      Guarded<T> from(x, at_end), to(n, !at_end);
      k.stream(from.data(), to.data(), n);
      FL_CHECK(std::memcmp(from.data(), to.data(), sizeof(T) * static_cast<size_t>(n)) == 0,
               "%s %s stream of %td", table.name, type_name<T>(), n);
    }
  }
}

// Finite rows: the special values above make most rows of the row kernels NaN.
template <typename T>
void check_finite_rows(const KernelTable& table) {
  Random random(11);
  for (ptrdiff_t n : {1, 2, 10, 16, 17, 33, 64, 100, 257, 1000}) {
    std::vector<T> x = random.numbers<T>(n), y(x.size()), expected(x.size());
    for (T& v : x) v *= T(10);
    const auto compare = [&](const char* what, auto f) {
      f(kernels_of<T>(scalar::kTable), expected.data());
      f(kernels_of<T>(table), y.data());
      expect_same(y.data(), expected.data(), n, table.name, what, 0);
    };
    compare("softmax", [&](auto& k, T* to) { k.softmax(x.data(), n, to, n, 1, n, false); });
    compare("log_softmax", [&](auto& k, T* to) { k.log_softmax(x.data(), n, to, n, 1, n, false); });
    compare("layer_norm",
            [&](auto& k, T* to) { k.layer_norm(x.data(), nullptr, nullptr, T(1e-5), to, n); });
    compare("rms_norm", [&](auto& k, T* to) { k.rms_norm(x.data(), nullptr, T(1e-6), to, n); });
  }
}

// eps = 0 and squares that add up to 0: elements are divided by 0, and all NaNs are the same one.
template <typename T>
void check_rows_without_variance(const KernelTable& table) {
  const T tiny = std::numeric_limits<T>::denorm_min();
  for (const ptrdiff_t n : {1, 4, 17, 67}) {
    std::vector<T> x(static_cast<size_t>(n)), y(x.size()), expected(x.size());
    for (ptrdiff_t i = 0; i < n; i += 3) x[i] = i % 2 == 0 ? tiny : -tiny;
    const auto compare = [&](const char* what, auto f) {
      f(kernels_of<T>(scalar::kTable), expected.data());
      f(kernels_of<T>(table), y.data());
      for (ptrdiff_t i = 0; i < n; ++i) {
        FL_CHECK(same_bits(y[i], expected[i]) && !std::isfinite(y[i]), "%s %s %s at %td of %td: %a",
                 table.name, type_name<T>(), what, i, n, double(y[i]));
      }
    };
    compare("layer_norm",
            [&](auto& k, T* to) { k.layer_norm(x.data(), nullptr, nullptr, T(0), to, n); });
    compare("rms_norm", [&](auto& k, T* to) { k.rms_norm(x.data(), nullptr, T(0), to, n); });
    for (ptrdiff_t i = 0; i < n; ++i) {
      const bool right = x[i] == T(0) ? std::isnan(y[i]) : y[i] == x[i] / T(0);
      FL_CHECK(right, "%s %s rms_norm of %a: %a", table.name, type_name<T>(), double(x[i]),
               double(y[i]));
    }
  }
}

// Many rows at a time against one at a time, in place too, special rows among them, and where no
// exponent needs care and some do.
template <typename T>
void check_softmax_rows(const KernelTable& table) {
  const Kernels<T>& kern = kernels_of<T>(table);
  for (const ptrdiff_t n : {1, 2, 5, 8, 10, 16, 17, 31, 32, 33, 40, 100, 255, 256, 1024, 1025}) {
    for (const ptrdiff_t m : {1, 7, 8, 16, 21, 40}) {
      for (const ptrdiff_t spare : {0, 3}) {
        const ptrdiff_t ld = n + spare;
        Random random(static_cast<uint64_t>(m * 1000 + n));
        std::vector<T> x = random.numbers<T>((m - 1) * ld + n);
        for (T& v : x) v *= T(20);
        for (size_t i = 0; i < x.size(); i += 97) x[i] *= random.number<T>() * T(50);
        x[0] = T(NAN);
        if (m > 5)
          x[ld] = T(INFINITY), x[2 * ld] = T(-INFINITY), x[3 * ld] = T(0), x[4 * ld] = T(1e30);
        if (m > 5) std::fill(&x[5 * ld], &x[5 * ld] + n, T(-INFINITY));
        for (const bool log : {false, true}) {
          const auto f = log ? kern.log_softmax : kern.softmax;
          std::vector<T> expected = x;
          const Kernels<T>& plain = kernels_of<T>(scalar::kTable);
          const auto row = log ? plain.log_softmax : plain.softmax;
          for (ptrdiff_t i = 0; i < m; ++i) row(&x[i * ld], ld, &expected[i * ld], ld, 1, n, false);
          for (const bool at_end : {false, true}) {
            Guarded<T> to(x, at_end), from(x, at_end);
            f(from.data(), ld, to.data(), ld, m, n, at_end);
            expect_same(to.data(), expected.data(), static_cast<ptrdiff_t>(x.size()), table.name,
                        "softmax of rows", static_cast<int>(n));
            f(from.data(), ld, from.data(), ld, m, n, at_end);
            expect_same(from.data(), expected.data(), static_cast<ptrdiff_t>(x.size()), table.name,
                        "softmax of rows in place", static_cast<int>(n));
          }
        }
      }
    }
  }
}

}  // namespace

void test_elementwise(bool exact) {
  exact_fma = exact;
  for (const KernelTable* table : supported_tables()) {
    check_table<float>(*table);
    check_table<double>(*table);
    check_finite_rows<float>(*table);
    check_finite_rows<double>(*table);
    check_activation_backward<float>(*table);
    check_activation_backward<double>(*table);
    check_softmax_backward<float>(*table);
    check_softmax_backward<double>(*table);
    check_gelu<float>(*table);
    check_gelu<double>(*table);
    check_softmax_rows<float>(*table);
    check_softmax_rows<double>(*table);
    check_rows_without_variance<float>(*table);
    check_rows_without_variance<double>(*table);
    check_stream<float>(*table);
    check_stream<double>(*table);
  }
  if (!exact) std::printf("%ld elements differ\n", differences);
}

}  // namespace fastlayer
