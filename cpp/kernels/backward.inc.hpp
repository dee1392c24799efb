// The backward pass of an activation over whole arrays, a group of vectors at a time. An object of
// its own, like groups.inc.hpp.
#pragma once

#include <stddef.h>

#include "derivatives.inc.hpp"
#include "isa.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// dz[i] = da[i] f(z[i]) of whole groups; dz may be da or z.
template <typename T, typename F>
FL_INLINE void map_back(const T* da, const T* z, T* dz, ptrdiff_t n, F f) {
  for (ptrdiff_t i = 0; i < n; i += Vec<T>::kLanes) {
    (Vec<T>::load(da + i) * f(Vec<T>::load(z + i))).store(dz + i);
  }
}

// What is left over after whole groups is a group of its own, read before dz is written.
template <typename T, typename F>
FL_INLINE void map_back_all(const T* da, const T* z, T* dz, ptrdiff_t n, F f) {
  constexpr ptrdiff_t kLanes = Vec<T>::kLanes;
  alignas(64) T last_da[kLanes] = {}, last_z[kLanes] = {}, last_dz[kLanes];
  const ptrdiff_t rest = n % kLanes, whole = n - rest;
  for (ptrdiff_t i = 0; i < rest; ++i) {
    last_da[i] = da[whole + i];
    last_z[i] = z[whole + i];
  }
  T* to = dz;
  for (ptrdiff_t count = whole;; count = kLanes) {
    map_back(da, z, to, count, f);
    if (rest == 0 || to == last_dz) break;
    da = last_da;
    z = last_z;
    to = last_dz;
  }
  for (ptrdiff_t i = 0; i < rest; ++i) dz[whole + i] = last_dz[i];
}

template <typename T>
FL_INLINE void backward_of_groups(const ActivationArgs<T>& act, const T* da, const T* z, T* dz,
                                  ptrdiff_t n) {
  [[maybe_unused]] const Vec<T> p0 = constant(act.p0), p1 = constant(act.p1);
  switch (act.kind) {
#define FL_ELEMENT(Name, name, result, slope)                               \
  case Activation::k##Name:                                                 \
    map_back_all(da, z, dz, n, [=](Vec<T> v) FL_INLINED { return slope; }); \
    return;
#define FL_ROW(Name, name)  \
  case Activation::k##Name: \
    return;  // row_backward.inc.hpp
    FASTLAYER_ACTIVATIONS(FL_ELEMENT, FL_ROW)
#undef FL_ELEMENT
#undef FL_ROW
  }
}

}  // namespace

#ifdef FL_HALF
void activation_backward(const ActivationArgs<float>& act, const float* da, const float* z,
                         float* dz, ptrdiff_t n) {
  backward_of_groups(act, da, z, dz, n);
}
void activation_backward(const ActivationArgs<double>& act, const double* da, const double* z,
                         double* dz, ptrdiff_t n) {
  backward_of_groups(act, da, z, dz, n);
}
#endif

}  // namespace FL_ISA
}  // namespace fastlayer
