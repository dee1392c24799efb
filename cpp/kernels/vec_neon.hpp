// One 128-bit vector of float or double on AArch64, and the tile that fits its registers. Words are
// the same in every vec_*.hpp; see vec_scalar.hpp for what each of them means.
#pragma once

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#include "tile_shape.hpp"

#define FL_INLINE inline __attribute__((always_inline))

namespace fastlayer {
namespace neon {
namespace {

template <typename T>
struct Vec;

template <>
struct Vec<float> {
  using Bits = uint32_t;
  static constexpr int kLanes = 4;
  static constexpr bool kFmaByLane = true;
  static constexpr int kMantissaBits = 23;
  float32x4_t r;

  static FL_INLINE Vec load(const float* p) { return {vld1q_f32(p)}; }
  static FL_INLINE Vec load_partial(const float* p, int n) {
    float t[4] = {0, 0, 0, 0};
    for (int i = 0; i < n; ++i) t[i] = p[i];
    return {vld1q_f32(t)};
  }
  FL_INLINE void store(float* p) const { vst1q_f32(p, r); }
  static constexpr bool kStreams = false;
  FL_INLINE void store_partial(float* p, int n) const {
    float t[4];
    vst1q_f32(t, r);
    for (int i = 0; i < n; ++i) p[i] = t[i];
  }
  template <int L>
  FL_INLINE Vec fma_lane(Vec b, Vec c) const {
    return {vfmaq_laneq_f32(c.r, b.r, r, L)};
  }
  static constexpr int kQuad = 4;
  static FL_INLINE void load_transposed(const float* p, ptrdiff_t stride, Vec (&columns)[kQuad]) {
    const float32x4_t r0 = vld1q_f32(p), r1 = vld1q_f32(p + stride);
    const float32x4_t r2 = vld1q_f32(p + 2 * stride), r3 = vld1q_f32(p + 3 * stride);
    const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r0, r1));
    const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r0, r1));
    const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r2, r3));
    const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r2, r3));
    columns[0] = {vreinterpretq_f32_f64(vtrn1q_f64(a, c))};
    columns[1] = {vreinterpretq_f32_f64(vtrn1q_f64(b, d))};
    columns[2] = {vreinterpretq_f32_f64(vtrn2q_f64(a, c))};
    columns[3] = {vreinterpretq_f32_f64(vtrn2q_f64(b, d))};
  }
  static FL_INLINE void splat(const float* p, Vec (&s)[kQuad]) {
    const float32x4_t v = vld1q_f32(p);
    s[0] = {vdupq_laneq_f32(v, 0)};
    s[1] = {vdupq_laneq_f32(v, 1)};
    s[2] = {vdupq_laneq_f32(v, 2)};
    s[3] = {vdupq_laneq_f32(v, 3)};
  }
  static FL_INLINE Vec zero() { return {vdupq_n_f32(0)}; }
  static FL_INLINE Vec set1(float s) { return {vdupq_n_f32(s)}; }
  static FL_INLINE Vec set1_bits(Bits b) { return {vreinterpretq_f32_u32(vdupq_n_u32(b))}; }
};

template <>
struct Vec<double> {
  using Bits = uint64_t;
  static constexpr int kLanes = 2;
  static constexpr bool kFmaByLane = true;
  static constexpr int kMantissaBits = 52;
  float64x2_t r;

  static FL_INLINE Vec load(const double* p) { return {vld1q_f64(p)}; }
  static FL_INLINE Vec load_partial(const double* p, int n) {
    double t[2] = {0, 0};
    for (int i = 0; i < n; ++i) t[i] = p[i];
    return {vld1q_f64(t)};
  }
  FL_INLINE void store(double* p) const { vst1q_f64(p, r); }
  static constexpr bool kStreams = false;
  FL_INLINE void store_partial(double* p, int n) const {
    double t[2];
    vst1q_f64(t, r);
    for (int i = 0; i < n; ++i) p[i] = t[i];
  }
  template <int L>
  FL_INLINE Vec fma_lane(Vec b, Vec c) const {
    return {vfmaq_laneq_f64(c.r, b.r, r, L)};
  }
  static constexpr int kQuad = 2;
  static FL_INLINE void load_transposed(const double* p, ptrdiff_t stride, Vec (&columns)[kQuad]) {
    const float64x2_t a = vld1q_f64(p), b = vld1q_f64(p + stride);
    columns[0] = {vtrn1q_f64(a, b)};
    columns[1] = {vtrn2q_f64(a, b)};
  }
  static FL_INLINE void splat(const double* p, Vec (&s)[kQuad]) {
    const float64x2_t v = vld1q_f64(p);
    s[0] = {vdupq_laneq_f64(v, 0)};
    s[1] = {vdupq_laneq_f64(v, 1)};
  }
  static FL_INLINE Vec zero() { return {vdupq_n_f64(0)}; }
  static FL_INLINE Vec set1(double s) { return {vdupq_n_f64(s)}; }
  static FL_INLINE Vec set1_bits(Bits b) { return {vreinterpretq_f64_u64(vdupq_n_u64(b))}; }
};

using VecF = Vec<float>;
using VecD = Vec<double>;

FL_INLINE uint32x4_t bits(VecF a) { return vreinterpretq_u32_f32(a.r); }
FL_INLINE uint64x2_t bits(VecD a) { return vreinterpretq_u64_f64(a.r); }
FL_INLINE VecF from_bits(uint32x4_t b) { return {vreinterpretq_f32_u32(b)}; }
FL_INLINE VecD from_bits(uint64x2_t b) { return {vreinterpretq_f64_u64(b)}; }

FL_INLINE VecF operator+(VecF a, VecF b) { return {vaddq_f32(a.r, b.r)}; }
FL_INLINE VecD operator+(VecD a, VecD b) { return {vaddq_f64(a.r, b.r)}; }
FL_INLINE VecF operator-(VecF a, VecF b) { return {vsubq_f32(a.r, b.r)}; }
FL_INLINE VecD operator-(VecD a, VecD b) { return {vsubq_f64(a.r, b.r)}; }
FL_INLINE VecF operator*(VecF a, VecF b) { return {vmulq_f32(a.r, b.r)}; }
FL_INLINE VecD operator*(VecD a, VecD b) { return {vmulq_f64(a.r, b.r)}; }
FL_INLINE VecF operator/(VecF a, VecF b) { return {vdivq_f32(a.r, b.r)}; }
FL_INLINE VecD operator/(VecD a, VecD b) { return {vdivq_f64(a.r, b.r)}; }
FL_INLINE VecF fma(VecF a, VecF b, VecF c) { return {vfmaq_f32(c.r, a.r, b.r)}; }
FL_INLINE VecD fma(VecD a, VecD b, VecD c) { return {vfmaq_f64(c.r, a.r, b.r)}; }
FL_INLINE VecF fms(VecF a, VecF b, VecF c) { return {vfmaq_f32(vnegq_f32(c.r), a.r, b.r)}; }
FL_INLINE VecD fms(VecD a, VecD b, VecD c) { return {vfmaq_f64(vnegq_f64(c.r), a.r, b.r)}; }
FL_INLINE VecF fnma(VecF a, VecF b, VecF c) { return {vfmsq_f32(c.r, a.r, b.r)}; }
FL_INLINE VecD fnma(VecD a, VecD b, VecD c) { return {vfmsq_f64(c.r, a.r, b.r)}; }
FL_INLINE VecF sqrt(VecF a) { return {vsqrtq_f32(a.r)}; }
FL_INLINE VecD sqrt(VecD a) { return {vsqrtq_f64(a.r)}; }
FL_INLINE void widen(VecF x, VecD& low, VecD& high) {
  low = {vcvt_f64_f32(vget_low_f32(x.r))};
  high = {vcvt_high_f64_f32(x.r)};
}
FL_INLINE VecF narrow(VecD low, VecD high) {
  return {vcvt_high_f32_f64(vcvt_f32_f64(low.r), high.r)};
}

FL_INLINE VecF bit_and(VecF a, VecF b) { return from_bits(vandq_u32(bits(a), bits(b))); }
FL_INLINE VecD bit_and(VecD a, VecD b) { return from_bits(vandq_u64(bits(a), bits(b))); }
FL_INLINE VecF bit_or(VecF a, VecF b) { return from_bits(vorrq_u32(bits(a), bits(b))); }
FL_INLINE VecD bit_or(VecD a, VecD b) { return from_bits(vorrq_u64(bits(a), bits(b))); }
FL_INLINE VecF bit_xor(VecF a, VecF b) { return from_bits(veorq_u32(bits(a), bits(b))); }
FL_INLINE VecD bit_xor(VecD a, VecD b) { return from_bits(veorq_u64(bits(a), bits(b))); }
FL_INLINE VecF bit_andnot(VecF a, VecF b) { return from_bits(vbicq_u32(bits(b), bits(a))); }
FL_INLINE VecD bit_andnot(VecD a, VecD b) { return from_bits(vbicq_u64(bits(b), bits(a))); }
FL_INLINE VecF bit_add(VecF a, VecF b) { return from_bits(vaddq_u32(bits(a), bits(b))); }
FL_INLINE VecD bit_add(VecD a, VecD b) { return from_bits(vaddq_u64(bits(a), bits(b))); }
FL_INLINE VecF bit_sub(VecF a, VecF b) { return from_bits(vsubq_u32(bits(a), bits(b))); }
FL_INLINE VecD bit_sub(VecD a, VecD b) { return from_bits(vsubq_u64(bits(a), bits(b))); }
template <int N>
FL_INLINE VecF shift_left(VecF a) {
  return from_bits(vshlq_n_u32(bits(a), N));
}
template <int N>
FL_INLINE VecD shift_left(VecD a) {
  return from_bits(vshlq_n_u64(bits(a), N));
}
template <int N>
FL_INLINE VecF shift_right(VecF a) {
  return from_bits(vshrq_n_u32(bits(a), N));
}
template <int N>
FL_INLINE VecD shift_right(VecD a) {
  return from_bits(vshrq_n_u64(bits(a), N));
}

FL_INLINE uint32x4_t less(VecF a, VecF b) { return vcltq_f32(a.r, b.r); }
FL_INLINE uint64x2_t less(VecD a, VecD b) { return vcltq_f64(a.r, b.r); }
FL_INLINE uint32x4_t is_nan(VecF a) { return vmvnq_u32(vceqq_f32(a.r, a.r)); }
FL_INLINE uint64x2_t is_nan(VecD a) {
  return veorq_u64(vceqq_f64(a.r, a.r), vdupq_n_u64(~static_cast<uint64_t>(0)));
}
FL_INLINE bool all(uint32x4_t m) { return vminvq_u32(m) != 0; }
FL_INLINE bool all(uint64x2_t m) { return (vgetq_lane_u64(m, 0) & vgetq_lane_u64(m, 1)) != 0; }
FL_INLINE VecF select(uint32x4_t m, VecF yes, VecF no) { return {vbslq_f32(m, yes.r, no.r)}; }
FL_INLINE VecD select(uint64x2_t m, VecD yes, VecD no) { return {vbslq_f64(m, yes.r, no.r)}; }

FL_INLINE VecF at_least(VecF x, VecF bound) { return {vmaxq_f32(x.r, bound.r)}; }
FL_INLINE VecD at_least(VecD x, VecD bound) { return {vmaxq_f64(x.r, bound.r)}; }
FL_INLINE VecF floored(VecF x, VecF floor) { return select(less(x, floor), floor, x); }
FL_INLINE VecD floored(VecD x, VecD floor) { return select(less(x, floor), floor, x); }
FL_INLINE VecF at_most(VecF x, VecF bound) { return {vminq_f32(x.r, bound.r)}; }
FL_INLINE VecD at_most(VecD x, VecD bound) { return {vminq_f64(x.r, bound.r)}; }
FL_INLINE float largest_lane(VecF a) { return vmaxvq_f32(a.r); }
FL_INLINE double largest_lane(VecD a) { return vmaxvq_f64(a.r); }

FL_INLINE uint32_t bits_of(uint32x4_t m) {
  const uint32_t powers[] = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(m, vld1q_u32(powers)));
}
FL_INLINE uint32_t bits_of(uint64x2_t m) {
  return static_cast<uint32_t>((vgetq_lane_u64(m, 0) & 1) | (vgetq_lane_u64(m, 1) & 2));
}
FL_INLINE uint32x4_t but_not(uint32x4_t a, uint32x4_t b) { return vbicq_u32(b, a); }
FL_INLINE uint64x2_t but_not(uint64x2_t a, uint64x2_t b) { return vbicq_u64(b, a); }
template <typename Mask, typename T>
FL_INLINE void store_selected(Mask m, Vec<T> v, T* p) {
  constexpr int kLanes = Vec<T>::kLanes;
  T lanes[kLanes];
  v.store(lanes);
  int n = 0;
  for (int i = 0; i < kLanes; ++i) {
    p[n] = lanes[i];
    n += m[i] != 0;
  }
}
template <typename Mask, typename T>
FL_INLINE Vec<T> load_selected(Mask m, const T* p, Vec<T> no) {
  constexpr int kLanes = Vec<T>::kLanes;
  T lanes[kLanes];
  int n = 0;
  for (int i = 0; i < kLanes; ++i) {
    lanes[i] = p[n];
    n += m[i] != 0;
  }
  return select(m, Vec<T>::load(lanes), no);
}

// By counts of instructions, without a machine: 5 rows, of which a vector each is in a register,
// take 1.3 to 1.5 for an FMA. A sixth row leaves two registers for weights, and gcc 12 spills; read
// element by element, 6 rows take 1.7.
constexpr TileShape kShape = {/*registers=*/32, /*max_rows=*/5,
                              /*min_panels=*/1, /*max_panels=*/4,
                              /*rows_of_x=*/2,  /*lane_share=*/4};

template <typename T>
using LaneVec = Vec<T>;

}  // namespace
}  // namespace neon
}  // namespace fastlayer
