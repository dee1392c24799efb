// The backward pass of softmax and log_softmax over one row.
#pragma once

#include "elements.inc.hpp"
#include "isa.inc.hpp"
#include "math.inc.hpp"
#include "rows.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// p = softmax(z). dz = p (da - sum(da p)), and of the logarithm da - p sum(da). dz may be p or da.
template <typename T, bool kLog>
void softmax_backward(const T* p, const T* da, T* dz, ptrdiff_t n) {
  using V = Vec<T>;
  const V lane = lane_numbers<T>();
  LineSum<T> sums(V::zero());
  for_each_vector<T>(n, [&](ptrdiff_t i, int v) {
    const V d = load_up_to(da + i, n - i);
    const V term = kLog ? d : d * load_up_to(p + i, n - i);
    sums.add(v, n - i < V::kLanes ? zero_beyond(term, n - i, lane) : term);
  });
  const Sum<T> sum = sums.total();
  const V h = constant(sum.h), l = constant(sum.l);
  for (ptrdiff_t i = 0; i < n; i += V::kLanes) {
    const V d = load_up_to(da + i, n - i), q = load_up_to(p + i, n - i);
    store_up_to(kLog ? fnma(q, h, d) : q * ((d - h) - l), dz + i, n - i);
  }
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
