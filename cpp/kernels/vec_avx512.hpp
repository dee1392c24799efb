// One 512-bit vector of float or double, and the tile that fits its registers. Words are the same
// in every vec_*.hpp; see vec_scalar.hpp for what each of them means.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "tile_shape.hpp"
#include "vec_avx2.hpp"

#define FL_INLINE inline __attribute__((always_inline))

namespace fastlayer {
namespace avx512 {
namespace {

template <typename T>
struct Vec;

template <>
struct Vec<float> {
  using Bits = uint32_t;
  static constexpr int kLanes = 16;
  static constexpr bool kFmaByLane = false;
  static constexpr int kMantissaBits = 23;
  __m512 r;

  static FL_INLINE __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static FL_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static FL_INLINE Vec load_partial(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(first(n), p)};
  }
  FL_INLINE void store(float* p) const { _mm512_storeu_ps(p, r); }
  FL_INLINE void store_partial(float* p, int n) const { _mm512_mask_storeu_ps(p, first(n), r); }
  static constexpr bool kStreams = true;
  FL_INLINE void stream(float* p) const { _mm512_stream_ps(p, r); }
  static FL_INLINE void end_stream() { _mm_sfence(); }
  static FL_INLINE Vec joined(avx2::Vec<float> low, avx2::Vec<float> high) {
    return {_mm512_insertf32x8(_mm512_castps256_ps512(low.r), high.r, 1)};
  }
  static FL_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
  static FL_INLINE Vec set1(float s) { return {_mm512_set1_ps(s)}; }
  static FL_INLINE Vec set1_bits(Bits b) {
    return {_mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(b)))};
  }
};

template <>
struct Vec<double> {
  using Bits = uint64_t;
  static constexpr int kLanes = 8;
  static constexpr bool kFmaByLane = false;
  static constexpr int kMantissaBits = 52;
  __m512d r;

  static FL_INLINE __mmask8 first(int n) { return static_cast<__mmask8>((1u << n) - 1u); }
  static FL_INLINE Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static FL_INLINE Vec load_partial(const double* p, int n) {
    return {_mm512_maskz_loadu_pd(first(n), p)};
  }
  FL_INLINE void store(double* p) const { _mm512_storeu_pd(p, r); }
  FL_INLINE void store_partial(double* p, int n) const { _mm512_mask_storeu_pd(p, first(n), r); }
  static constexpr bool kStreams = true;
  FL_INLINE void stream(double* p) const { _mm512_stream_pd(p, r); }
  static FL_INLINE void end_stream() { _mm_sfence(); }
  static FL_INLINE Vec joined(avx2::Vec<double> low, avx2::Vec<double> high) {
    return {_mm512_insertf64x4(_mm512_castpd256_pd512(low.r), high.r, 1)};
  }
  static FL_INLINE Vec zero() { return {_mm512_setzero_pd()}; }
  static FL_INLINE Vec set1(double s) { return {_mm512_set1_pd(s)}; }
  static FL_INLINE Vec set1_bits(Bits b) {
    return {_mm512_castsi512_pd(_mm512_set1_epi64(static_cast<long long>(b)))};
  }
};

using VecF = Vec<float>;
using VecD = Vec<double>;

FL_INLINE VecF operator+(VecF a, VecF b) { return {_mm512_add_ps(a.r, b.r)}; }
FL_INLINE VecD operator+(VecD a, VecD b) { return {_mm512_add_pd(a.r, b.r)}; }
FL_INLINE VecF operator-(VecF a, VecF b) { return {_mm512_sub_ps(a.r, b.r)}; }
FL_INLINE VecD operator-(VecD a, VecD b) { return {_mm512_sub_pd(a.r, b.r)}; }
FL_INLINE VecF operator*(VecF a, VecF b) { return {_mm512_mul_ps(a.r, b.r)}; }
FL_INLINE VecD operator*(VecD a, VecD b) { return {_mm512_mul_pd(a.r, b.r)}; }
FL_INLINE VecF operator/(VecF a, VecF b) { return {_mm512_div_ps(a.r, b.r)}; }
FL_INLINE VecD operator/(VecD a, VecD b) { return {_mm512_div_pd(a.r, b.r)}; }
FL_INLINE VecF fma(VecF a, VecF b, VecF c) { return {_mm512_fmadd_ps(a.r, b.r, c.r)}; }
FL_INLINE VecD fma(VecD a, VecD b, VecD c) { return {_mm512_fmadd_pd(a.r, b.r, c.r)}; }
FL_INLINE VecF fms(VecF a, VecF b, VecF c) { return {_mm512_fmsub_ps(a.r, b.r, c.r)}; }
FL_INLINE VecD fms(VecD a, VecD b, VecD c) { return {_mm512_fmsub_pd(a.r, b.r, c.r)}; }
FL_INLINE VecF fnma(VecF a, VecF b, VecF c) { return {_mm512_fnmadd_ps(a.r, b.r, c.r)}; }
FL_INLINE VecD fnma(VecD a, VecD b, VecD c) { return {_mm512_fnmadd_pd(a.r, b.r, c.r)}; }
FL_INLINE VecF sqrt(VecF a) { return {_mm512_sqrt_ps(a.r)}; }
FL_INLINE VecD sqrt(VecD a) { return {_mm512_sqrt_pd(a.r)}; }
FL_INLINE void widen(VecF x, VecD& low, VecD& high) {
  low = {_mm512_cvtps_pd(_mm512_castps512_ps256(x.r))};
  high = {_mm512_cvtps_pd(_mm512_extractf32x8_ps(x.r, 1))};
}
FL_INLINE VecF narrow(VecD low, VecD high) {
  const __m512 first = _mm512_castps256_ps512(_mm512_cvtpd_ps(low.r));
  return {_mm512_insertf32x8(first, _mm512_cvtpd_ps(high.r), 1)};
}

FL_INLINE VecF bit_and(VecF a, VecF b) { return {_mm512_and_ps(a.r, b.r)}; }
FL_INLINE VecD bit_and(VecD a, VecD b) { return {_mm512_and_pd(a.r, b.r)}; }
FL_INLINE VecF bit_or(VecF a, VecF b) { return {_mm512_or_ps(a.r, b.r)}; }
FL_INLINE VecD bit_or(VecD a, VecD b) { return {_mm512_or_pd(a.r, b.r)}; }
FL_INLINE VecF bit_xor(VecF a, VecF b) { return {_mm512_xor_ps(a.r, b.r)}; }
FL_INLINE VecD bit_xor(VecD a, VecD b) { return {_mm512_xor_pd(a.r, b.r)}; }
FL_INLINE VecF bit_andnot(VecF a, VecF b) { return {_mm512_andnot_ps(a.r, b.r)}; }
FL_INLINE VecD bit_andnot(VecD a, VecD b) { return {_mm512_andnot_pd(a.r, b.r)}; }
FL_INLINE VecF bit_add(VecF a, VecF b) {
  return {
      _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.r), _mm512_castps_si512(b.r)))};
}
FL_INLINE VecD bit_add(VecD a, VecD b) {
  return {
      _mm512_castsi512_pd(_mm512_add_epi64(_mm512_castpd_si512(a.r), _mm512_castpd_si512(b.r)))};
}
FL_INLINE VecF bit_sub(VecF a, VecF b) {
  return {
      _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_castps_si512(a.r), _mm512_castps_si512(b.r)))};
}
FL_INLINE VecD bit_sub(VecD a, VecD b) {
  return {
      _mm512_castsi512_pd(_mm512_sub_epi64(_mm512_castpd_si512(a.r), _mm512_castpd_si512(b.r)))};
}
template <int N>
FL_INLINE VecF shift_left(VecF a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.r), N))};
}
template <int N>
FL_INLINE VecD shift_left(VecD a) {
  return {_mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a.r), N))};
}
template <int N>
FL_INLINE VecF shift_right(VecF a) {
  return {_mm512_castsi512_ps(_mm512_srli_epi32(_mm512_castps_si512(a.r), N))};
}
template <int N>
FL_INLINE VecD shift_right(VecD a) {
  return {_mm512_castsi512_pd(_mm512_srli_epi64(_mm512_castpd_si512(a.r), N))};
}

FL_INLINE __mmask16 less(VecF a, VecF b) { return _mm512_cmp_ps_mask(a.r, b.r, _CMP_LT_OQ); }
FL_INLINE __mmask8 less(VecD a, VecD b) { return _mm512_cmp_pd_mask(a.r, b.r, _CMP_LT_OQ); }
FL_INLINE __mmask16 is_nan(VecF a) { return _mm512_cmp_ps_mask(a.r, a.r, _CMP_UNORD_Q); }
FL_INLINE __mmask8 is_nan(VecD a) { return _mm512_cmp_pd_mask(a.r, a.r, _CMP_UNORD_Q); }
FL_INLINE bool all(__mmask16 m) { return m == 0xffff; }
FL_INLINE bool all(__mmask8 m) { return m == 0xff; }
FL_INLINE VecF select(__mmask16 m, VecF yes, VecF no) {
  return {_mm512_mask_blend_ps(m, no.r, yes.r)};
}
FL_INLINE VecD select(__mmask8 m, VecD yes, VecD no) {
  return {_mm512_mask_blend_pd(m, no.r, yes.r)};
}

// max and min return their second operand where either is NaN.
FL_INLINE VecF at_least(VecF x, VecF bound) { return {_mm512_max_ps(bound.r, x.r)}; }
FL_INLINE VecD at_least(VecD x, VecD bound) { return {_mm512_max_pd(bound.r, x.r)}; }
FL_INLINE VecF floored(VecF x, VecF floor) { return {_mm512_max_ps(floor.r, x.r)}; }
FL_INLINE VecD floored(VecD x, VecD floor) { return {_mm512_max_pd(floor.r, x.r)}; }
FL_INLINE VecF at_most(VecF x, VecF bound) { return {_mm512_min_ps(bound.r, x.r)}; }
FL_INLINE VecD at_most(VecD x, VecD bound) { return {_mm512_min_pd(bound.r, x.r)}; }
FL_INLINE float largest_lane(VecF a) {
  const __m256 high = _mm512_extractf32x8_ps(a.r, 1);
  return avx2::largest_lane(avx2::VecF{_mm256_max_ps(_mm512_castps512_ps256(a.r), high)});
}
FL_INLINE double largest_lane(VecD a) {
  const __m256d high = _mm512_extractf64x4_pd(a.r, 1);
  return avx2::largest_lane(avx2::VecD{_mm256_max_pd(_mm512_castpd512_pd256(a.r), high)});
}

FL_INLINE uint32_t bits_of(__mmask16 m) { return m; }
FL_INLINE uint32_t bits_of(__mmask8 m) { return m; }
FL_INLINE __mmask16 but_not(__mmask16 a, __mmask16 b) { return _kandn_mask16(a, b); }
FL_INLINE __mmask8 but_not(__mmask8 a, __mmask8 b) { return _kandn_mask8(a, b); }
FL_INLINE void store_selected(__mmask16 m, VecF v, float* p) {
  _mm512_storeu_ps(p, _mm512_maskz_compress_ps(m, v.r));
}
FL_INLINE void store_selected(__mmask8 m, VecD v, double* p) {
  _mm512_storeu_pd(p, _mm512_maskz_compress_pd(m, v.r));
}
FL_INLINE VecF load_selected(__mmask16 m, const float* p, VecF no) {
  return {_mm512_mask_expand_ps(no.r, m, _mm512_loadu_ps(p))};
}
FL_INLINE VecD load_selected(__mmask8 m, const double* p, VecD no) {
  return {_mm512_mask_expand_pd(no.r, m, _mm512_loadu_pd(p))};
}

constexpr TileShape kShape = {/*registers=*/32, /*max_rows=*/14,
                              /*min_panels=*/2, /*max_panels=*/8,
                              /*rows_of_x=*/3,  /*lane_share=*/2};

// Transpositions in 256 bits: on Zen 4 a 512-bit one takes three times as long, and two 256-bit
// FMAs no longer than one of 512.
template <typename T>
using LaneVec = avx2::Vec<T>;

}  // namespace
}  // namespace avx512
}  // namespace fastlayer
