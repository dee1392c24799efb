// What the tests of training share: an optimiser in plain words, and the losses.
#pragma once

#include <cmath>

#include "../kernels/table.hpp"

namespace fastlayer {

// One weight through an optimiser, as docs and NumPy have it.
template <typename T>
T optimized(const OptimizerArgs<T>& o, T w, T g, T& m, T& v) {
  if (o.clips) g = g * o.clip;
  if (o.kind == Optimizer::kAdamW) {
    w = w - o.decay * w;
  } else if (o.decays) {
    g = g + o.decay * w;
  }
  switch (o.kind) {
    case Optimizer::kSgd:
      return w - o.lr * g;
    case Optimizer::kMomentum:
      m = o.momentum * m + o.gain * g;
      return w - o.lr * m;
    case Optimizer::kNesterov:
      m = o.momentum * m + o.gain * g;
      return w - o.lr * (o.gain * g + o.momentum * m);
    default:
      m = m + o.c1 * (g - m);
      v = o.b2 * v + o.c2 * (g * g);
      return w - o.step * (m / (std::sqrt(v) * o.r2 + o.eps));
  }
}

constexpr Optimizer kOptimizers[] = {Optimizer::kSgd, Optimizer::kMomentum, Optimizer::kNesterov,
                                     Optimizer::kAdam, Optimizer::kAdamW};

struct LossCase {
  Loss kind;
  double p0;
  bool classes;
};
constexpr LossCase kLossCases[] = {{Loss::kMse, 0, false},
                                   {Loss::kMae, 0, false},
                                   {Loss::kHuber, 0.3, false},
                                   {Loss::kCrossEntropy, 0, true},
                                   {Loss::kCrossEntropy, 0.1, true},
                                   {Loss::kCrossEntropy, 0, false},
                                   {Loss::kCrossEntropy, 0.1, false},
                                   {Loss::kBinaryCrossEntropy, 0, false},
                                   {Loss::kPoisson, 0, false}};

}  // namespace fastlayer
