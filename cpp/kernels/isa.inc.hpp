// What kernels are written over: Vec, LaneVec and kShape in the namespace FL_ISA, which a kernel
// file defines and fills. A header that is opened by itself, in an editor, gets the scalar ones.
#pragma once

#include <stddef.h>

#include "table.hpp"
#include "tile_shape.hpp"

#ifndef FL_ISA
#define FL_ISA scalar
#include "vec_scalar.hpp"
#endif

// FL_INLINE of a lambda: called, it would load its constants for each group of vectors.
#define FL_INLINED __attribute__((always_inline))

// What is fetched ahead, to be read and to be written; a test counts it.
#ifndef FL_PREFETCH
#define FL_PREFETCH(address) __builtin_prefetch(address)
#endif
#ifndef FL_PREFETCH_WRITE
#define FL_PREFETCH_WRITE(address) __builtin_prefetch(address, 1)
#endif
#ifndef FL_PREFETCH_WRITE_L2
#define FL_PREFETCH_WRITE_L2(address) __builtin_prefetch(address, 1, 2)
#endif

namespace fastlayer {

// Activations of at least one group of vectors, from objects of their own: see groups.inc.hpp. A
// pair has those that are not by_fours(), and the backward pass of all, of any length: see
// backward.inc.hpp.
#ifdef FL_PAIR
namespace FL_PAIR {
void activation(const ActivationArgs<float>& act, const float* x, float* y, ptrdiff_t n);
void activation(const ActivationArgs<double>& act, const double* x, double* y, ptrdiff_t n);
void activation_backward(const ActivationArgs<float>& act, const float* da, const float* z,
                         float* dz, ptrdiff_t n);
void activation_backward(const ActivationArgs<double>& act, const double* da, const double* z,
                         double* dz, ptrdiff_t n);
}  // namespace FL_PAIR
namespace FL_QUAD {
void activation(const ActivationArgs<float>& act, const float* x, float* y, ptrdiff_t n);
void activation(const ActivationArgs<double>& act, const double* x, double* y, ptrdiff_t n);
}  // namespace FL_QUAD
#endif

namespace FL_ISA {
namespace {

// Which activations are taken four vectors at a time: those of the most operations, and with 32
// registers some more. Of the time by twos, on Zen 5, softplus, log_sigmoid and mish take 0.7 to
// 0.8 with AVX-512 and 0.8 to 0.94 with AVX2, gelu 0.8 to 0.85, gelu's other form, tanh, elu and
// selu 0.91 to 0.95. Sigmoid and silu would take 1.1, exp as long, and with 16 registers elu 1.2.
constexpr bool by_fours(Activation kind) {
  switch (kind) {
    case Activation::kSoftplus:
    case Activation::kLogSigmoid:
    case Activation::kMish:
    case Activation::kGeluTanh:
      return true;
    case Activation::kGelu:
    case Activation::kTanh:
    case Activation::kElu:
    case Activation::kCelu:
    case Activation::kSelu:
      return kShape.registers >= 32;
    default:
      return false;
  }
}

// Vectors in one 64-byte line.
template <typename T>
constexpr int kLineVecs = static_cast<int>(kLine<T>) / Vec<T>::kLanes;

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
