// layer_norm and rms_norm over one row.
#pragma once

#include "elements.inc.hpp"
#include "isa.inc.hpp"
#include "math.inc.hpp"
#include "rows.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// A row whose sums or squares overflow is done again with its elements scaled by this.
template <typename T>
constexpr T kRowScale = sizeof(T) == 4 ? T(0x1p-80) : T(0x1p-600);

// sum(f(x[i])), the lanes beyond the row left out.
template <typename T, typename F>
FL_INLINE Sum<T> row_sum(const T* x, ptrdiff_t n, Vec<T> lane, F f) {
  LineSum<T> sums(Vec<T>::zero());
  for_each_vector<T>(n, [&](ptrdiff_t i, int v) {
    const Vec<T> e = f(load_up_to(x + i, n - i));
    sums.add(v, n - i < Vec<T>::kLanes ? zero_beyond(e, n - i, lane) : e);
  });
  return sums.total();
}

template <typename T>
bool layer_norm_scaled(const T* x, const T* weight, const T* bias, T eps, T* y, ptrdiff_t n,
                       T row_scale) {
  using V = Vec<T>;
  const V scale = constant(row_scale);
  const V lane = lane_numbers<T>();
  const T count = static_cast<T>(n);
  const Sum<T> sum = row_sum(x, n, lane, [=](V e) { return e * scale; });
  // As a pair: where the mean is large its rounding would show in what is left of the elements.
  const Pair<T> mean =
      divide(Pair<T>{constant(sum.h), constant(sum.l)}, Pair<T>{constant(count), V::zero()});
  const auto centred = [=](V e) { return fma(e, scale, negate(mean.h)) - mean.l; };
  const T squares = row_sum(x, n, lane, [=](V e) {
                      const V d = centred(e);
                      return d * d;
                    }).h;
  if (!(squares < kInfinity<T>)) return false;
  const T variance = squares / count + eps * row_scale * row_scale;
  const V inverse = constant(T(1)) / sqrt(constant(variance));
  for (ptrdiff_t i = 0; i < n; i += V::kLanes) {
    const V d = centred(load_up_to(x + i, n - i)) * inverse;
    const V w = weight ? load_up_to(weight + i, n - i) : constant(T(1));
    const V b = bias ? load_up_to(bias + i, n - i) : constant(T(-0.0));
    store_up_to(fma(d, w, b), y + i, n - i);
  }
  if (!(variance > T(0))) unify_nans(y, n);  // 0 / 0, where eps is 0
  return true;
}

template <typename T>
void layer_norm(const T* x, const T* weight, const T* bias, T eps, T* y, ptrdiff_t n) {
  if (layer_norm_scaled(x, weight, bias, eps, y, n, T(1))) return;
  if (!layer_norm_scaled(x, weight, bias, eps, y, n, kRowScale<T>)) fill_nan(y, n);
}

template <typename T>
bool rms_norm_scaled(const T* x, const T* weight, T eps, T* y, ptrdiff_t n, T row_scale) {
  using V = Vec<T>;
  const V scale = constant(row_scale);
  const T squares = row_sum(x, n, lane_numbers<T>(), [=](V e) {
                      const V s = e * scale;
                      return s * s;
                    }).h;
  if (!(squares < kInfinity<T>)) return false;
  const T variance = squares / static_cast<T>(n) + eps * row_scale * row_scale;
  const V inverse = constant(T(1)) / sqrt(constant(variance));
  for (ptrdiff_t i = 0; i < n; i += V::kLanes) {
    const V e = load_up_to(x + i, n - i) * scale * inverse;
    const V w = weight ? load_up_to(weight + i, n - i) : constant(T(1));
    store_up_to(e * w, y + i, n - i);
  }
  if (!(variance > T(0))) unify_nans(y, n);  // 0 / 0, where eps is 0
  return true;
}

template <typename T>
void rms_norm(const T* x, const T* weight, T eps, T* y, ptrdiff_t n) {
  if (rms_norm_scaled(x, weight, eps, y, n, T(1))) return;
  if (!rms_norm_scaled(x, weight, eps, y, n, kRowScale<T>)) fill_nan(y, n);
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
