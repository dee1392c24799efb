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

// Weights that a tile fetches ahead; a test counts them.
#ifndef FL_PREFETCH_WRITE
#define FL_PREFETCH_WRITE(address) __builtin_prefetch(address, 1)
#endif
#ifndef FL_PREFETCH
#define FL_PREFETCH(address) __builtin_prefetch(address)
#endif

namespace fastlayer {

#ifdef FL_PAIRS
namespace FL_PAIRS {
// Of whole pairs of vectors, from an object of its own: see pairs.inc.hpp.
void activation(const ActivationArgs<float>& act, const float* x, float* y, ptrdiff_t n);
void activation(const ActivationArgs<double>& act, const double* x, double* y, ptrdiff_t n);
}  // namespace FL_PAIRS
#endif

namespace FL_ISA {
namespace {

// Vectors in one 64-byte line.
template <typename T>
constexpr int kLineVecs = static_cast<int>(kLine<T>) / Vec<T>::kLanes;

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
