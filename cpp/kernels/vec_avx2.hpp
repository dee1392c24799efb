// One 256-bit vector of float or double, with FMA, and the tile that fits its registers. Words are
// the same in every vec_*.hpp; see vec_scalar.hpp for what each of them means.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "tile_shape.hpp"

#define FL_INLINE inline __attribute__((always_inline))

namespace fastlayer {
namespace avx2 {
namespace {

template <typename T>
struct Vec;

template <>
struct Vec<float> {
  using Bits = uint32_t;
  static constexpr int kLanes = 8;
  static constexpr bool kFmaByLane = false;
  static constexpr int kMantissaBits = 23;
  __m256 r;

  static FL_INLINE __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static FL_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static FL_INLINE Vec load_partial(const float* p, int n) {
    return {_mm256_maskload_ps(p, first(n))};
  }
  FL_INLINE void store(float* p) const { _mm256_storeu_ps(p, r); }
  FL_INLINE void store_partial(float* p, int n) const { _mm256_maskstore_ps(p, first(n), r); }
  static constexpr bool kStreams = true;
  FL_INLINE void stream(float* p) const { _mm256_stream_ps(p, r); }
  static FL_INLINE void end_stream() { _mm_sfence(); }
  static constexpr int kQuad = 4;
  static FL_INLINE void load_transposed(const float* p, ptrdiff_t stride, Vec (&columns)[kQuad]) {
    __m256 row[4];  // rows i and i + 4
    for (int i = 0; i < 4; ++i) {
      row[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + i * stride)),
                                    _mm_loadu_ps(p + (i + 4) * stride), 1);
    }
    const __m256 a = _mm256_unpacklo_ps(row[0], row[1]), b = _mm256_unpackhi_ps(row[0], row[1]);
    const __m256 c = _mm256_unpacklo_ps(row[2], row[3]), d = _mm256_unpackhi_ps(row[2], row[3]);
    columns[0] = {_mm256_shuffle_ps(a, c, 0x44)};
    columns[1] = {_mm256_shuffle_ps(a, c, 0xee)};
    columns[2] = {_mm256_shuffle_ps(b, d, 0x44)};
    columns[3] = {_mm256_shuffle_ps(b, d, 0xee)};
  }
  static FL_INLINE void splat(const float* p, Vec (&s)[kQuad]) {
    const __m256 v = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
    s[0] = {_mm256_permute_ps(v, 0x00)};
    s[1] = {_mm256_permute_ps(v, 0x55)};
    s[2] = {_mm256_permute_ps(v, 0xaa)};
    s[3] = {_mm256_permute_ps(v, 0xff)};
  }
  static FL_INLINE Vec zero() { return {_mm256_setzero_ps()}; }
  static FL_INLINE Vec set1(float s) { return {_mm256_set1_ps(s)}; }
  static FL_INLINE Vec set1_bits(Bits b) {
    return {_mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(b)))};
  }
};

template <>
struct Vec<double> {
  using Bits = uint64_t;
  static constexpr int kLanes = 4;
  static constexpr bool kFmaByLane = false;
  static constexpr int kMantissaBits = 52;
  __m256d r;

  static FL_INLINE __m256i first(int n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
  }
  static FL_INLINE Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static FL_INLINE Vec load_partial(const double* p, int n) {
    return {_mm256_maskload_pd(p, first(n))};
  }
  FL_INLINE void store(double* p) const { _mm256_storeu_pd(p, r); }
  FL_INLINE void store_partial(double* p, int n) const { _mm256_maskstore_pd(p, first(n), r); }
  static constexpr bool kStreams = true;
  FL_INLINE void stream(double* p) const { _mm256_stream_pd(p, r); }
  static FL_INLINE void end_stream() { _mm_sfence(); }
  static constexpr int kQuad = 2;
  static FL_INLINE void load_transposed(const double* p, ptrdiff_t stride, Vec (&columns)[kQuad]) {
    __m256d row[2];  // rows i and i + 2
    for (int i = 0; i < 2; ++i) {
      row[i] = _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p + i * stride)),
                                    _mm_loadu_pd(p + (i + 2) * stride), 1);
    }
    columns[0] = {_mm256_unpacklo_pd(row[0], row[1])};
    columns[1] = {_mm256_unpackhi_pd(row[0], row[1])};
  }
  static FL_INLINE void splat(const double* p, Vec (&s)[kQuad]) {
    const __m256d v = _mm256_broadcast_pd(reinterpret_cast<const __m128d*>(p));
    s[0] = {_mm256_permute_pd(v, 0x0)};
    s[1] = {_mm256_permute_pd(v, 0xf)};
  }
  static FL_INLINE Vec zero() { return {_mm256_setzero_pd()}; }
  static FL_INLINE Vec set1(double s) { return {_mm256_set1_pd(s)}; }
  static FL_INLINE Vec set1_bits(Bits b) {
    return {_mm256_castsi256_pd(_mm256_set1_epi64x(static_cast<long long>(b)))};
  }
};

using VecF = Vec<float>;
using VecD = Vec<double>;

FL_INLINE VecF operator+(VecF a, VecF b) { return {_mm256_add_ps(a.r, b.r)}; }
FL_INLINE VecD operator+(VecD a, VecD b) { return {_mm256_add_pd(a.r, b.r)}; }
FL_INLINE VecF operator-(VecF a, VecF b) { return {_mm256_sub_ps(a.r, b.r)}; }
FL_INLINE VecD operator-(VecD a, VecD b) { return {_mm256_sub_pd(a.r, b.r)}; }
FL_INLINE VecF operator*(VecF a, VecF b) { return {_mm256_mul_ps(a.r, b.r)}; }
FL_INLINE VecD operator*(VecD a, VecD b) { return {_mm256_mul_pd(a.r, b.r)}; }
FL_INLINE VecF operator/(VecF a, VecF b) { return {_mm256_div_ps(a.r, b.r)}; }
FL_INLINE VecD operator/(VecD a, VecD b) { return {_mm256_div_pd(a.r, b.r)}; }
FL_INLINE VecF fma(VecF a, VecF b, VecF c) { return {_mm256_fmadd_ps(a.r, b.r, c.r)}; }
FL_INLINE VecD fma(VecD a, VecD b, VecD c) { return {_mm256_fmadd_pd(a.r, b.r, c.r)}; }
FL_INLINE VecF fms(VecF a, VecF b, VecF c) { return {_mm256_fmsub_ps(a.r, b.r, c.r)}; }
FL_INLINE VecD fms(VecD a, VecD b, VecD c) { return {_mm256_fmsub_pd(a.r, b.r, c.r)}; }
FL_INLINE VecF fnma(VecF a, VecF b, VecF c) { return {_mm256_fnmadd_ps(a.r, b.r, c.r)}; }
FL_INLINE VecD fnma(VecD a, VecD b, VecD c) { return {_mm256_fnmadd_pd(a.r, b.r, c.r)}; }
FL_INLINE VecF sqrt(VecF a) { return {_mm256_sqrt_ps(a.r)}; }
FL_INLINE VecD sqrt(VecD a) { return {_mm256_sqrt_pd(a.r)}; }
FL_INLINE void widen(VecF x, VecD& low, VecD& high) {
  low = {_mm256_cvtps_pd(_mm256_castps256_ps128(x.r))};
  high = {_mm256_cvtps_pd(_mm256_extractf128_ps(x.r, 1))};
}
FL_INLINE VecF narrow(VecD low, VecD high) {
  return {_mm256_set_m128(_mm256_cvtpd_ps(high.r), _mm256_cvtpd_ps(low.r))};
}

FL_INLINE VecF bit_and(VecF a, VecF b) { return {_mm256_and_ps(a.r, b.r)}; }
FL_INLINE VecD bit_and(VecD a, VecD b) { return {_mm256_and_pd(a.r, b.r)}; }
FL_INLINE VecF bit_or(VecF a, VecF b) { return {_mm256_or_ps(a.r, b.r)}; }
FL_INLINE VecD bit_or(VecD a, VecD b) { return {_mm256_or_pd(a.r, b.r)}; }
FL_INLINE VecF bit_xor(VecF a, VecF b) { return {_mm256_xor_ps(a.r, b.r)}; }
FL_INLINE VecD bit_xor(VecD a, VecD b) { return {_mm256_xor_pd(a.r, b.r)}; }
FL_INLINE VecF bit_andnot(VecF a, VecF b) { return {_mm256_andnot_ps(a.r, b.r)}; }
FL_INLINE VecD bit_andnot(VecD a, VecD b) { return {_mm256_andnot_pd(a.r, b.r)}; }
FL_INLINE VecF bit_add(VecF a, VecF b) {
  return {
      _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.r), _mm256_castps_si256(b.r)))};
}
FL_INLINE VecD bit_add(VecD a, VecD b) {
  return {
      _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(a.r), _mm256_castpd_si256(b.r)))};
}
FL_INLINE VecF bit_sub(VecF a, VecF b) {
  return {
      _mm256_castsi256_ps(_mm256_sub_epi32(_mm256_castps_si256(a.r), _mm256_castps_si256(b.r)))};
}
FL_INLINE VecD bit_sub(VecD a, VecD b) {
  return {
      _mm256_castsi256_pd(_mm256_sub_epi64(_mm256_castpd_si256(a.r), _mm256_castpd_si256(b.r)))};
}
template <int N>
FL_INLINE VecF shift_left(VecF a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.r), N))};
}
template <int N>
FL_INLINE VecD shift_left(VecD a) {
  return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a.r), N))};
}
template <int N>
FL_INLINE VecF shift_right(VecF a) {
  return {_mm256_castsi256_ps(_mm256_srli_epi32(_mm256_castps_si256(a.r), N))};
}
template <int N>
FL_INLINE VecD shift_right(VecD a) {
  return {_mm256_castsi256_pd(_mm256_srli_epi64(_mm256_castpd_si256(a.r), N))};
}

FL_INLINE __m256 less(VecF a, VecF b) { return _mm256_cmp_ps(a.r, b.r, _CMP_LT_OQ); }
FL_INLINE __m256d less(VecD a, VecD b) { return _mm256_cmp_pd(a.r, b.r, _CMP_LT_OQ); }
FL_INLINE __m256 is_nan(VecF a) { return _mm256_cmp_ps(a.r, a.r, _CMP_UNORD_Q); }
FL_INLINE __m256d is_nan(VecD a) { return _mm256_cmp_pd(a.r, a.r, _CMP_UNORD_Q); }
FL_INLINE bool all(__m256 m) { return _mm256_movemask_ps(m) == 0xff; }
FL_INLINE bool all(__m256d m) { return _mm256_movemask_pd(m) == 0xf; }
FL_INLINE VecF select(__m256 m, VecF yes, VecF no) { return {_mm256_blendv_ps(no.r, yes.r, m)}; }
FL_INLINE VecD select(__m256d m, VecD yes, VecD no) { return {_mm256_blendv_pd(no.r, yes.r, m)}; }

// max and min return their second operand where either is NaN.
FL_INLINE VecF at_least(VecF x, VecF bound) { return {_mm256_max_ps(bound.r, x.r)}; }
FL_INLINE VecD at_least(VecD x, VecD bound) { return {_mm256_max_pd(bound.r, x.r)}; }
FL_INLINE VecF floored(VecF x, VecF floor) { return {_mm256_max_ps(floor.r, x.r)}; }
FL_INLINE VecD floored(VecD x, VecD floor) { return {_mm256_max_pd(floor.r, x.r)}; }
FL_INLINE VecF at_most(VecF x, VecF bound) { return {_mm256_min_ps(bound.r, x.r)}; }
FL_INLINE VecD at_most(VecD x, VecD bound) { return {_mm256_min_pd(bound.r, x.r)}; }
FL_INLINE float largest_lane(VecF a) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.r), _mm256_extractf128_ps(a.r, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
FL_INLINE double largest_lane(VecD a) {
  const __m128d two = _mm_max_pd(_mm256_castpd256_pd128(a.r), _mm256_extractf128_pd(a.r, 1));
  return _mm_cvtsd_f64(_mm_max_sd(two, _mm_unpackhi_pd(two, two)));
}

// Where lanes go: byte i of an entry is the lane that lane i comes from. Packed: the lanes of the
// mask first; spread: the reverse.
struct LaneTable {
  uint64_t packed[256], spread[256];

  // Words: how many 32-bit lanes make one lane of the mask.
  static constexpr LaneTable of(int lanes, int words) {
    LaneTable t{};
    for (int m = 0; m < 1 << lanes; ++m) {
      int n = 0;
      for (int i = 0; i < lanes; ++i) {
        if ((m >> i & 1) == 0) continue;
        for (int w = 0; w < words; ++w) {
          t.packed[m] |= static_cast<uint64_t>(i * words + w) << 8 * (n * words + w);
          t.spread[m] |= static_cast<uint64_t>(n * words + w) << 8 * (i * words + w);
        }
        ++n;
      }
    }
    return t;
  }
};
constexpr LaneTable kLanesF = LaneTable::of(8, 1), kLanesD = LaneTable::of(4, 2);

FL_INLINE __m256 permuted(__m256 v, uint64_t lanes) {
  const __m128i bytes = _mm_cvtsi64_si128(static_cast<long long>(lanes));
  return _mm256_permutevar8x32_ps(v, _mm256_cvtepu8_epi32(bytes));
}
FL_INLINE uint32_t bits_of(__m256 m) { return static_cast<uint32_t>(_mm256_movemask_ps(m)); }
FL_INLINE uint32_t bits_of(__m256d m) { return static_cast<uint32_t>(_mm256_movemask_pd(m)); }
FL_INLINE __m256 but_not(__m256 a, __m256 b) { return _mm256_andnot_ps(a, b); }
FL_INLINE __m256d but_not(__m256d a, __m256d b) { return _mm256_andnot_pd(a, b); }
FL_INLINE void store_selected(__m256 m, VecF v, float* p) {
  _mm256_storeu_ps(p, permuted(v.r, kLanesF.packed[bits_of(m)]));
}
FL_INLINE void store_selected(__m256d m, VecD v, double* p) {
  const uint64_t lanes = kLanesD.packed[bits_of(m)];
  _mm256_storeu_pd(p, _mm256_castps_pd(permuted(_mm256_castpd_ps(v.r), lanes)));
}
FL_INLINE VecF load_selected(__m256 m, const float* p, VecF no) {
  const __m256 v = permuted(_mm256_loadu_ps(p), kLanesF.spread[bits_of(m)]);
  return {_mm256_blendv_ps(no.r, v, m)};
}
FL_INLINE VecD load_selected(__m256d m, const double* p, VecD no) {
  const __m256 v = _mm256_castpd_ps(_mm256_loadu_pd(p));
  const uint64_t lanes = kLanesD.spread[bits_of(m)];
  return {_mm256_blendv_pd(no.r, _mm256_castps_pd(permuted(v, lanes)), m)};
}

constexpr TileShape kShape = {/*registers=*/16, /*max_rows=*/6,
                              /*min_panels=*/1, /*max_panels=*/6,
                              /*rows_of_x=*/3,  /*lane_share=*/2};

template <typename T>
using LaneVec = Vec<T>;

}  // namespace
}  // namespace avx2
}  // namespace fastlayer
