// A vector of one lane in plain C++, and what each word of the vector vocabulary means. Kernels are
// written once over these words; vec_avx2.hpp, vec_avx512.hpp and vec_neon.hpp spell the same ones.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "tile_shape.hpp"

#define FL_INLINE inline __attribute__((always_inline))

namespace fastlayer {
namespace scalar {
namespace {

template <typename T>
struct FloatTraits;
template <>
struct FloatTraits<float> {
  using Bits = uint32_t;
  static constexpr int kMantissaBits = 23;
};
template <>
struct FloatTraits<double> {
  using Bits = uint64_t;
  static constexpr int kMantissaBits = 52;
};

template <typename T>
struct Vec {
  using Bits = typename FloatTraits<T>::Bits;
  static constexpr int kLanes = 1;
  // Whether there is a.fma_lane<L>(b, c): fma(a, b, c) with lane L of a in the place of all its
  // lanes, in one instruction. Then x is read a vector at a time, not element by element.
  static constexpr bool kFmaByLane = false;
  static constexpr int kMantissaBits = FloatTraits<T>::kMantissaBits;
  T r;

  // Any alignment. load_partial and store_partial touch the first n of kLanes elements only
  // (0 <= n <= kLanes); the lanes that are not loaded are 0.
  static FL_INLINE Vec load(const T* p) { return {*p}; }
  static FL_INLINE Vec load_partial(const T* p, int n) { return {n > 0 ? *p : T(0)}; }
  FL_INLINE void store(T* p) const { *p = r; }
  FL_INLINE void store_partial(T* p, int n) const {
    if (n > 0) *p = r;
  }
  // Whether there are stores past the caches: stream(p), aligned to the vector, and end_stream()
  // before another thread may read what was stored.
  static constexpr bool kStreams = false;
  static FL_INLINE Vec zero() { return {T(0)}; }
  static FL_INLINE Vec set1(T s) { return {s}; }
  // Columns 0 .. kQuad-1 (16 bytes) of kLanes rows that lie `stride` elements apart: lane i of
  // columns[c] is p[i * stride + c].
  static constexpr int kQuad = 16 / sizeof(T);
  static FL_INLINE void load_transposed(const T* p, ptrdiff_t, Vec (&columns)[kQuad]) {
    for (int c = 0; c < kQuad; ++c) columns[c] = load(p + c);
  }
  // p[c] in every lane of s[c], from one load.
  static FL_INLINE void splat(const T* p, Vec (&s)[kQuad]) {
    for (int c = 0; c < kQuad; ++c) s[c] = set1(p[c]);
  }
  // The same bit pattern in every lane.
  static FL_INLINE Vec set1_bits(Bits b) {
    Vec v;
    __builtin_memcpy(&v.r, &b, sizeof(T));
    return v;
  }
};

template <typename T>
FL_INLINE typename Vec<T>::Bits bits(Vec<T> a) {
  typename Vec<T>::Bits b;
  __builtin_memcpy(&b, &a.r, sizeof(T));
  return b;
}

using VecF = Vec<float>;
using VecD = Vec<double>;

// IEEE arithmetic, one rounding each.
template <typename T>
FL_INLINE Vec<T> operator+(Vec<T> a, Vec<T> b) {
  return {a.r + b.r};
}
template <typename T>
FL_INLINE Vec<T> operator-(Vec<T> a, Vec<T> b) {
  return {a.r - b.r};
}
template <typename T>
FL_INLINE Vec<T> operator*(Vec<T> a, Vec<T> b) {
  return {a.r * b.r};
}
template <typename T>
FL_INLINE Vec<T> operator/(Vec<T> a, Vec<T> b) {
  return {a.r / b.r};
}
// fma(a, b, c) = a * b + c, fms(a, b, c) = a * b - c and fnma(a, b, c) = c - a * b, one rounding.
// The C library's fma uses the processor's instruction where there is one, and is exact where there
// is none.
FL_INLINE VecF fma(VecF a, VecF b, VecF c) { return {__builtin_fmaf(a.r, b.r, c.r)}; }
FL_INLINE VecD fma(VecD a, VecD b, VecD c) { return {__builtin_fma(a.r, b.r, c.r)}; }
FL_INLINE VecF fms(VecF a, VecF b, VecF c) { return {__builtin_fmaf(a.r, b.r, -c.r)}; }
FL_INLINE VecD fms(VecD a, VecD b, VecD c) { return {__builtin_fma(a.r, b.r, -c.r)}; }
FL_INLINE VecF fnma(VecF a, VecF b, VecF c) { return {__builtin_fmaf(-a.r, b.r, c.r)}; }
FL_INLINE VecD fnma(VecD a, VecD b, VecD c) { return {__builtin_fma(-a.r, b.r, c.r)}; }
FL_INLINE VecF sqrt(VecF a) { return {__builtin_sqrtf(a.r)}; }
FL_INLINE VecD sqrt(VecD a) { return {__builtin_sqrt(a.r)}; }
// The lanes of x as doubles, the first half of them in `low`, and the way back, rounded. Of a
// single lane both halves are the same.
FL_INLINE void widen(VecF x, VecD& low, VecD& high) { low.r = high.r = x.r; }
FL_INLINE VecF narrow(VecD low, VecD) { return {static_cast<float>(low.r)}; }

// Bit patterns; bit_andnot(a, b) is ~a & b; bit_add and bit_sub are integer arithmetic modulo 2^w;
// shifts are logical.
template <typename T>
FL_INLINE Vec<T> bit_and(Vec<T> a, Vec<T> b) {
  return Vec<T>::set1_bits(bits(a) & bits(b));
}
template <typename T>
FL_INLINE Vec<T> bit_or(Vec<T> a, Vec<T> b) {
  return Vec<T>::set1_bits(bits(a) | bits(b));
}
template <typename T>
FL_INLINE Vec<T> bit_xor(Vec<T> a, Vec<T> b) {
  return Vec<T>::set1_bits(bits(a) ^ bits(b));
}
template <typename T>
FL_INLINE Vec<T> bit_andnot(Vec<T> a, Vec<T> b) {
  return Vec<T>::set1_bits(~bits(a) & bits(b));
}
template <typename T>
FL_INLINE Vec<T> bit_add(Vec<T> a, Vec<T> b) {
  return Vec<T>::set1_bits(bits(a) + bits(b));
}
template <typename T>
FL_INLINE Vec<T> bit_sub(Vec<T> a, Vec<T> b) {
  return Vec<T>::set1_bits(bits(a) - bits(b));
}
template <int N, typename T>
FL_INLINE Vec<T> shift_left(Vec<T> a) {
  return Vec<T>::set1_bits(bits(a) << N);
}
template <int N, typename T>
FL_INLINE Vec<T> shift_right(Vec<T> a) {
  return Vec<T>::set1_bits(bits(a) >> N);
}

// Comparisons are false where an operand is NaN and raise no flag; select(m, yes, no) is m ? yes :
// no lane by lane and keeps the bits of what it selects. all(m): m holds in every lane.
template <typename T>
FL_INLINE bool less(Vec<T> a, Vec<T> b) {
  return __builtin_isless(a.r, b.r);
}
template <typename T>
FL_INLINE bool is_nan(Vec<T> a) {
  return __builtin_isunordered(a.r, a.r);
}
FL_INLINE bool all(bool m) { return m; }
template <typename T>
FL_INLINE Vec<T> select(bool m, Vec<T> yes, Vec<T> no) {
  return m ? yes : no;
}

// The lanes of a mask: as bits, the first the lowest; those of b that are not in a; stored side by
// side at p; loaded from there again, with those of `no` in between. A whole vector at p may be
// written and read.
FL_INLINE uint32_t bits_of(bool m) { return m ? 1 : 0; }
FL_INLINE bool but_not(bool a, bool b) { return !a && b; }
template <typename T>
FL_INLINE void store_selected(bool, Vec<T> v, T* p) {
  v.store(p);
}
template <typename T>
FL_INLINE Vec<T> load_selected(bool m, const T* p, Vec<T> no) {
  return m ? Vec<T>::load(p) : no;
}

// The bound where x lies beyond it, x elsewhere, NaN included; the bound must not be 0 or NaN.
template <typename T>
FL_INLINE Vec<T> at_least(Vec<T> x, Vec<T> bound) {
  return select(less(x, bound), bound, x);
}
// The same for any bound but NaN: of two zeros x stays.
template <typename T>
FL_INLINE Vec<T> floored(Vec<T> x, Vec<T> floor) {
  return select(less(x, floor), floor, x);
}
template <typename T>
FL_INLINE Vec<T> at_most(Vec<T> x, Vec<T> bound) {
  return select(less(bound, x), bound, x);
}
// The largest lane of a vector without NaN; with one, any of its lanes.
template <typename T>
FL_INLINE T largest_lane(Vec<T> a) {
  return a.r;
}

constexpr TileShape kShape = {/*registers=*/32, /*max_rows=*/2,
                              /*min_panels=*/1, /*max_panels=*/2,
                              /*rows_of_x=*/2,  /*lane_share=*/2};

// The vectors of lanes.inc.hpp, which are transposed on the way into registers.
template <typename T>
using LaneVec = Vec<T>;

}  // namespace
}  // namespace scalar
}  // namespace fastlayer
