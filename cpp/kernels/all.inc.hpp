// Collects the kernels of one instruction set into the one symbol that its object file exports.
//
// A kernel file is freestanding: no call into std:: or the C library but fma, no allocation, no
// OpenMP, no exception, everything in an anonymous namespace. An inline function that leaked out of
// an AVX-512 object could be the copy that the linker keeps for everyone.
#pragma once

#ifndef FL_PAIR
#include "backward.inc.hpp"
#endif
#include "elements.inc.hpp"
#include "gemm.inc.hpp"
#include "gradient.inc.hpp"
#include "isa.inc.hpp"
#include "lanes.inc.hpp"
#include "loss.inc.hpp"
#include "norms.inc.hpp"
#include "optimizer.inc.hpp"
#include "pack.inc.hpp"
#include "row_backward.inc.hpp"
#include "softmax.inc.hpp"
#include "table.hpp"

#define FL_STRING_(s) #s
#define FL_STRING(s) FL_STRING_(s)

namespace fastlayer {
namespace FL_ISA {
namespace {

template <typename T>
void activation_backward(const ActivationArgs<T>& act, const T* da, const T* z, T* dz,
                         ptrdiff_t n) {
#ifdef FL_PAIR
  FL_PAIR::activation_backward(act, da, z, dz, n);
#else
  backward_of_groups(act, da, z, dz, n);
#endif
}

template <typename T>
constexpr Kernels<T> kernels() {
  Kernels<T> k{};
  k.max_tile_rows = kShape.max_rows;
  k.vector_bytes = Vec<T>::kLanes * static_cast<int>(sizeof(T));
  k.max_lane_vectors = most_lane_vectors<T>();
  k.dense = &dense<T>;
  k.fits_lanes = &fits_lanes<T>;
  k.lanes = &lanes<T, 1>;
  k.pack_panel = &pack_panel<T>;
  k.activation = &activation<T>;
  k.activation_backward = &activation_backward<T>;
  k.prelu = &prelu<T>;
  k.stream = Vec<T>::kStreams ? &stream<T> : nullptr;
  k.end_stream = Vec<T>::kStreams ? &end_stream<T> : nullptr;
  k.add = &add<T>;
  k.multiply = &multiply<T>;
  k.affine = &affine<T>;
  k.softmax = &softmax<T, false>;
  k.log_softmax = &softmax<T, true>;
  k.softmax_backward = &softmax_backward<T, false>;
  k.log_softmax_backward = &softmax_backward<T, true>;
  k.layer_norm = &layer_norm<T>;
  k.rms_norm = &rms_norm<T>;
  k.gradient = &gradient<T>;
  k.optimize = &optimize<T>;
  k.loss = &loss<T>;
  k.square_sums = &square_sums<T>;
  k.neuron_squares = &neuron_squares<T>;
  k.blocked_dot = &blocked_dot;
  return k;
}

}  // namespace

const KernelTable kTable = {FL_STRING(FL_ISA), kernels<float>(), kernels<double>()};

}  // namespace FL_ISA
}  // namespace fastlayer
