// Losses of rows and their gradients. What is summed is summed in double, in blocks of kSumBlock
// and in order; what is stored is one rounding in T for each operation.
#pragma once

#include <stdint.h>

#include "elements.inc.hpp"
#include "isa.inc.hpp"
#include "softmax.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// c of R rows at once: step(a, row, j) is the sum so far with the next term. Each row is a chain of
// its own.
template <int R, typename F>
FL_INLINE void blocked_rows(ptrdiff_t n, double (&c)[R], F step) {
  for (double& sum : c) sum = 0;
  for (ptrdiff_t j0 = 0; j0 < n; j0 += kSumBlock) {
    const ptrdiff_t end = n - j0 < kSumBlock ? n : j0 + kSumBlock;
    double a[R] = {};
    for (ptrdiff_t j = j0; j < end; ++j) {
      for (int r = 0; r < R; ++r) a[r] = step(a[r], r, j);
    }
    for (int r = 0; r < R; ++r) c[r] = c[r] + a[r];
  }
}

// sums[i], of n terms each. step(a, row, j) as above.
template <typename F>
FL_INLINE void blocked_sums(ptrdiff_t rows, ptrdiff_t n, double* sums, F step) {
  constexpr int R = 4;
  ptrdiff_t i = 0;
  for (; i + R <= rows; i += R) {
    double c[R];
    blocked_rows(n, c, [=](double a, int r, ptrdiff_t j) FL_INLINED { return step(a, i + r, j); });
    for (int r = 0; r < R; ++r) sums[i + r] = c[r];
  }
  for (; i < rows; ++i) {
    double c[1];
    blocked_rows(n, c, [=](double a, int, ptrdiff_t j) FL_INLINED { return step(a, i, j); });
    sums[i] = c[0];
  }
}

double blocked_dot(const double* u, const double* v, ptrdiff_t n) {
  double c[1];
  if (v == nullptr) {
    blocked_rows(n, c, [=](double a, int, ptrdiff_t j) FL_INLINED { return a + u[j]; });
  } else {
    blocked_rows(
        n, c, [=](double a, int, ptrdiff_t j) FL_INLINED { return __builtin_fma(u[j], v[j], a); });
  }
  return c[0];
}

template <typename T>
double share_of(const LossArgs<T>& l, ptrdiff_t row) {
  return l.shares == nullptr ? l.share : l.shares[row];
}

template <typename T>
FL_INLINE T magnitude(T d) {
  return sizeof(T) == 4 ? static_cast<T>(__builtin_fabsf(static_cast<float>(d)))
                        : static_cast<T>(__builtin_fabs(static_cast<double>(d)));
}

// Within the bounds of a cross entropy; NaN stays.
template <typename T>
FL_INLINE double bounded(const LossArgs<T>& l, double value) {
  return value < l.least ? l.least : value > l.most ? l.most : value;
}

// dy = f(y - t) * T(factor * share / n) for the losses of differences.
template <typename T, typename F>
FL_INLINE void differences(const LossArgs<T>& l, double factor, F f) {
  for (ptrdiff_t i = 0; i < l.rows; ++i) {
    const T scale = static_cast<T>(factor * share_of(l, i) / static_cast<double>(l.n));
    const T* y = l.y + i * l.ldy;
    const T* t = l.t + i * l.ldt;
    T* dy = l.dy + i * l.ldd;
    for (ptrdiff_t j = 0; j < l.n; ++j) dy[j] = f(y[j] - t[j]) * scale;
  }
}

// values[i] = the sum over step(a, y - t) / n.
template <typename T, typename F>
FL_INLINE void sums_of_differences(const LossArgs<T>& l, F step) {
  const T* const y = l.y;
  const T* const t = l.t;
  const ptrdiff_t ldy = l.ldy, ldt = l.ldt;
  blocked_sums(l.rows, l.n, l.values, [=](double a, ptrdiff_t i, ptrdiff_t j) FL_INLINED {
    return step(a, static_cast<T>(y[i * ldy + j] - t[i * ldt + j]));
  });
  for (ptrdiff_t i = 0; i < l.rows; ++i) l.values[i] = l.values[i] / static_cast<double>(l.n);
}

template <typename T>
void mse(const LossArgs<T>& l) {
  sums_of_differences(l, [](double a, T d) FL_INLINED { return __builtin_fma(d, d, a); });
  differences(l, 2.0, [](T d) FL_INLINED { return d; });
}

template <typename T>
void mae(const LossArgs<T>& l) {
  sums_of_differences(l, [](double a, T d) FL_INLINED { return a + magnitude(d); });
  differences(l, 1.0, [](T d) FL_INLINED {
    return d > T(0) ? T(1) : d < T(0) ? T(-1) : d == T(0) ? T(0) : d;
  });
}

template <typename T>
void huber(const LossArgs<T>& l) {
  const T delta = static_cast<T>(l.p0);
  const double wide = delta;
  sums_of_differences(l, [=](double a, T difference) FL_INLINED {
    const double d = difference, size = __builtin_fabs(d);
    return a + (size < wide ? 0.5 * d * d : wide * (size - 0.5 * wide));
  });
  differences(l, 1.0, [=](T d) FL_INLINED { return d > delta ? delta : d < -delta ? -delta : d; });
}

// Targets of class numbers, or smoothed ones, as rows; rows of n in `to`.
template <typename T>
void target_rows(const LossArgs<T>& l, T* to) {
  const double kept = 1 - l.p0, spread = l.p0 / static_cast<double>(l.n);
  for (ptrdiff_t i = 0; i < l.rows; ++i) {
    T* const row = to + i * l.n;
    for (ptrdiff_t j = 0; j < l.n; ++j) {
      const double t = l.t == nullptr ? (l.labels[i] == j ? 1 : 0) : double(l.t[i * l.ldt + j]);
      row[j] = static_cast<T>(kept * t + spread);
    }
  }
}

template <typename T>
void cross_entropy(const LossArgs<T>& l) {
  const ptrdiff_t n = l.n;
  T* const q = l.scratch;
  softmax<T, true>(l.y, l.ldy, q, n, l.rows, n, false);
  softmax<T, false>(l.y, l.ldy, l.dy, l.ldd, l.rows, n, false);
  if (l.t == nullptr && l.p0 == 0) {
    for (ptrdiff_t i = 0; i < l.rows; ++i) {
      T* const dz = l.dy + i * l.ldd;
      l.values[i] = bounded(l, -(0.0 + static_cast<double>(q[i * n + l.labels[i]])));
      const T scale = static_cast<T>(share_of(l, i));
      dz[l.labels[i]] = dz[l.labels[i]] - T(1);
      for (ptrdiff_t j = 0; j < n; ++j) dz[j] = dz[j] * scale;
    }
    return;
  }
  const T* t = l.t;
  ptrdiff_t ldt = l.ldt;
  if (l.p0 != 0) {
    T* const smoothed = l.scratch + l.rows * n;
    target_rows(l, smoothed);
    t = smoothed;
    ldt = n;
  }
  blocked_sums(l.rows, n, l.values, [=](double a, ptrdiff_t i, ptrdiff_t j) FL_INLINED {
    const T target = t[i * ldt + j];
    return target == T(0) ? a : __builtin_fma(target, q[i * n + j], a);
  });
  for (ptrdiff_t i = 0; i < l.rows; ++i) {
    l.values[i] = bounded(l, -l.values[i]);
    double sum[1];
    blocked_rows(n, sum, [=](double a, int, ptrdiff_t j) FL_INLINED { return a + t[i * ldt + j]; });
    const T sigma = static_cast<T>(sum[0]), scale = static_cast<T>(share_of(l, i));
    T* const dz = l.dy + i * l.ldd;
    for (ptrdiff_t j = 0; j < n; ++j) dz[j] = (dz[j] * sigma - t[i * ldt + j]) * scale;
  }
}

// Rows of y without gaps, so that activations take them as one.
template <typename T>
void pack_rows(const LossArgs<T>& l, T* to) {
  for (ptrdiff_t i = 0; i < l.rows; ++i) {
    for (ptrdiff_t j = 0; j < l.n; ++j) to[i * l.n + j] = l.y[i * l.ldy + j];
  }
}

template <typename T>
void binary_cross_entropy(const LossArgs<T>& l) {
  const ptrdiff_t n = l.n, size = l.rows * n;
  T* const z = l.scratch;
  T* const minus = z + size;
  T* const f = minus + size;
  T* const f_minus = f + size;
  pack_rows(l, z);
  for (ptrdiff_t i = 0; i < size; ++i) minus[i] = -z[i];
  const ActivationArgs<T> softplus = {Activation::kSoftplus, T(1), T(__builtin_inf())};
  activation(softplus, z, f, size);
  activation(softplus, minus, f_minus, size);
  const T* const t = l.t;
  const ptrdiff_t ldt = l.ldt;
  blocked_sums(l.rows, n, l.values, [=, &l](double a, ptrdiff_t i, ptrdiff_t j) FL_INLINED {
    const double target = t[i * ldt + j];
    return a + bounded(l, target * f_minus[i * n + j] + (1 - target) * f[i * n + j]);
  });
  const ActivationArgs<T> sigmoid = {Activation::kSigmoid, T(0), T(0)};
  activation(sigmoid, z, f, size);
  activation(sigmoid, minus, f_minus, size);
  for (ptrdiff_t i = 0; i < l.rows; ++i) {
    l.values[i] = l.values[i] / static_cast<double>(n);
    const T scale = static_cast<T>(share_of(l, i) / static_cast<double>(n));
    for (ptrdiff_t j = 0; j < n; ++j) {
      const T target = t[i * ldt + j];
      const T g = target == T(1) ? -f_minus[i * n + j] : f[i * n + j] - target;
      l.dy[i * l.ldd + j] = g * scale;
    }
  }
}

template <typename T>
void poisson(const LossArgs<T>& l) {
  const ptrdiff_t n = l.n, size = l.rows * n;
  T* const z = l.scratch;
  T* const rate = z + size;
  pack_rows(l, z);
  activation({Activation::kExp, T(0), T(0)}, z, rate, size);
  const T* const t = l.t;
  const ptrdiff_t ldt = l.ldt;
  blocked_sums(l.rows, n, l.values, [=](double a, ptrdiff_t i, ptrdiff_t j) FL_INLINED {
    const double product = static_cast<double>(t[i * ldt + j]) * z[i * n + j];
    return a + (rate[i * n + j] - product);
  });
  for (ptrdiff_t i = 0; i < l.rows; ++i) {
    l.values[i] = l.values[i] / static_cast<double>(n);
    const T scale = static_cast<T>(share_of(l, i) / static_cast<double>(n));
    for (ptrdiff_t j = 0; j < n; ++j) {
      l.dy[i * l.ldd + j] = (rate[i * n + j] - t[i * ldt + j]) * scale;
    }
  }
}

template <typename T>
void loss(const LossArgs<T>& l) {
  switch (l.kind) {
    case Loss::kMse:
      return mse(l);
    case Loss::kMae:
      return mae(l);
    case Loss::kHuber:
      return huber(l);
    case Loss::kCrossEntropy:
      return cross_entropy(l);
    case Loss::kBinaryCrossEntropy:
      return binary_cross_entropy(l);
    case Loss::kPoisson:
      return poisson(l);
  }
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
