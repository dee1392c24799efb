// Optimisers over the panels of a layer, and the norm of its gradient. No fma: anybody can check
// the results with NumPy.
#pragma once

#include "isa.inc.hpp"
#include "math.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

template <typename T, Optimizer K>
FL_INLINE void optimize_as(const OptimizerArgs<T>& o, T* w, const T* g, T* m, T* v, ptrdiff_t n) {
  using V = Vec<T>;
  constexpr bool kAdams = K == Optimizer::kAdam || K == Optimizer::kAdamW;
  const bool clips = o.clips, decays = o.decays && K != Optimizer::kAdamW;
  const V clip = V::set1(o.clip), decay = V::set1(o.decay), lr = V::set1(o.lr);
  const V momentum = V::set1(o.momentum), gain = V::set1(o.gain);
  const V c1 = V::set1(o.c1), b2 = V::set1(o.b2), c2 = V::set1(o.c2);
  const V step = V::set1(o.step), r2 = V::set1(o.r2), eps = V::set1(o.eps);
  for (ptrdiff_t i = 0; i < n; i += V::kLanes) {
    V weight = V::load(w + i), d = V::load(g + i);
    if (clips) d = d * clip;
    if (decays) d = d + decay * weight;
    if constexpr (kAdams) {
      if constexpr (K == Optimizer::kAdamW) weight = weight - decay * weight;
      V first = V::load(m + i), second = V::load(v + i);
      first = first + c1 * (d - first);
      second = b2 * second + c2 * (d * d);
      first.store(m + i);
      second.store(v + i);
      weight = weight - step * (first / (sqrt(second) * r2 + eps));
    } else {
      if constexpr (K != Optimizer::kSgd) {
        d = gain * d;
        const V kept = momentum * V::load(m + i) + d;
        kept.store(m + i);
        d = K == Optimizer::kNesterov ? d + momentum * kept : kept;
      }
      weight = weight - lr * d;
    }
    weight.store(w + i);
  }
}

template <typename T>
void optimize(const OptimizerArgs<T>& o, T* w, const T* g, T* m, T* v, ptrdiff_t n) {
  switch (o.kind) {
    case Optimizer::kSgd:
      return optimize_as<T, Optimizer::kSgd>(o, w, g, m, v, n);
    case Optimizer::kMomentum:
      return optimize_as<T, Optimizer::kMomentum>(o, w, g, m, v, n);
    case Optimizer::kNesterov:
      return optimize_as<T, Optimizer::kNesterov>(o, w, g, m, v, n);
    case Optimizer::kAdam:
      return optimize_as<T, Optimizer::kAdam>(o, w, g, m, v, n);
    case Optimizer::kAdamW:
      return optimize_as<T, Optimizer::kAdamW>(o, w, g, m, v, n);
  }
}

// A line holds an element of each neuron of a panel: the chains lie beside each other.
template <typename T>
void neuron_squares(const T* lines, ptrdiff_t panel_stride, ptrdiff_t n, ptrdiff_t k,
                    double* sums) {
  constexpr ptrdiff_t L = kLine<T>;
  for (ptrdiff_t j = 0; j < n; j += L, lines += panel_stride) {
    double c[L] = {};
    for (ptrdiff_t k0 = 0; k0 < k; k0 += kSumBlock) {
      const ptrdiff_t end = k - k0 < kSumBlock ? k : k0 + kSumBlock;
      double a[L] = {};
      for (ptrdiff_t kk = k0; kk < end; ++kk) {
        for (ptrdiff_t l = 0; l < L; ++l) {
          const double w = lines[kk * L + l];
          a[l] = __builtin_fma(w, w, a[l]);
        }
      }
      for (ptrdiff_t l = 0; l < L; ++l) c[l] = c[l] + a[l];
    }
    const ptrdiff_t neurons = n - j < L ? n - j : L;
    for (ptrdiff_t l = 0; l < neurons; ++l) sums[j + l] = c[l];
  }
}

// Each sum is a chain; so a few blocks are taken side by side, their elements turned into lines
// first.
template <typename T>
void square_sums(const T* lines, ptrdiff_t panel_stride, ptrdiff_t n, ptrdiff_t k, ptrdiff_t first,
                 ptrdiff_t count, double* sums) {
  using V = Vec<double>;
  constexpr ptrdiff_t L = kLine<double>;
  alignas(64) double turned[kSumBlock * L];
  const ptrdiff_t total = n * k;
  for (ptrdiff_t b = 0; b < count; b += L) {
    const ptrdiff_t some = count - b < L ? count - b : L;
    for (ptrdiff_t s = 0; s < L; ++s) {
      ptrdiff_t at = (first + b + s) * kSumBlock;
      ptrdiff_t left = s >= some || at >= total ? 0 : total - at;
      if (left > kSumBlock) left = kSumBlock;
      ptrdiff_t neuron = at / k, kk = at % k, i = 0;
      while (i < left) {
        const ptrdiff_t run = left - i < k - kk ? left - i : k - kk;
        const T* from =
            lines + neuron / kLine<T> * panel_stride + kk * kLine<T> + neuron % kLine<T>;
        for (ptrdiff_t end = i + run; i < end; ++i, from += kLine<T>) turned[i * L + s] = *from;
        kk = 0;
        ++neuron;
      }
      for (; i < kSumBlock; ++i) turned[i * L + s] = 0;
    }
    V acc[L / V::kLanes];
    for (V& a : acc) a = V::zero();
    for (ptrdiff_t i = 0; i < kSumBlock; ++i) {
      for (int v = 0; v < L / V::kLanes; ++v) {
        const V x = V::load(turned + i * L + v * V::kLanes);
        acc[v] = fma(x, x, acc[v]);
      }
    }
    double line[L];
    for (int v = 0; v < L / V::kLanes; ++v) acc[v].store(line + v * V::kLanes);
    for (ptrdiff_t s = 0; s < some; ++s) sums[b + s] = line[s];
  }
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
