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

namespace fastlayer {
namespace FL_ISA {
namespace {

// Vectors in one 64-byte line.
template <typename T>
constexpr int kLineVecs = static_cast<int>(kLine<T>) / Vec<T>::kLanes;

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
