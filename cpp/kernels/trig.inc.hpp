// sin and cos. The nearest multiple of pi is taken off, of cos the nearest odd multiple of pi / 2,
// and one polynomial does the rest, as sin(r + k pi) = (-1)^k sin(r). Both dtypes are computed in
// double: for float, that leaves no more than the last rounding.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "isa.inc.hpp"
#include "math.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// By bench/fit_polynomials.py, as those of math.inc.hpp.
struct SineConstants {
  // Below this magnitude pi is taken off by its parts: n kPiMid is exact, and nothing that counts
  // is missing beside a remainder of 2^-61, the least there is.
  static constexpr double kNear = 0x1p+28;
  static constexpr double kInversePi = 0x1.45f306dc9c883p-2;
  static constexpr double kPiHi = 0x1.921fb54442d18p+1, kPiLo = 0x1.1a62633145c07p-53;
  static constexpr double kPiMid = 0x1.1a6263p-53, kPiEnd = 0x1.8a2e03707344ap-80;
  // 1 / pi in words of 32 bits, the first of them before the binary point.
  static constexpr uint32_t kInversePiBits[] = {
      0x00000000, 0x517cc1b7, 0x27220a94, 0xfe13abe8, 0xfa9a6ee0, 0x6db14acc, 0x9e21c820,
      0xff28b1d5, 0xef5de2b0, 0xdb92371d, 0x2126e970, 0x03249775, 0x04e8c90e, 0x7f0ef58e,
      0x5894d39f, 0x74411afa, 0x975da242, 0x74ce3813, 0x5a2fbf20, 0x9cc8eb1c, 0xc1a99cfa,
      0x4e422fc5, 0xdefc941d, 0x8ffc4bff, 0xef02cc07, 0xf79788c5, 0xad05368f, 0xb69b3f67,
      0x93e584db, 0xa7a31fb3, 0x4f2ff516, 0xba93dd63, 0xf5f2f8bd, 0x9e839cfb, 0xc5294975,
      0x35fdafd8, 0x8fc6ae84, 0x2b019823};
  // What a number needs of it: its own 53 bits, those that a remainder of 2^-61 may have lost in
  // front, and what is kept of that.
  static constexpr int kWindow = 6;
  // kShortSine: sin(r) / r in r^2, to be rounded to float.
  // [0, 2.4686], degree 5, error 2^-35.13
  static constexpr double kShortSine[] = {0x1.ffffffffda544p-1,  -0x1.5555554429be1p-3,
                                          0x1.11110bfd9c2cdp-7,  -0x1.a017cf267e82ep-13,
                                          0x1.7170003be02c1p-19, -0x1.9a6772b2bb87fp-26};
  // kSine: (sin(r) / r - 1) / r^2 in r^2, whose first coefficient stands alone.
  // [0, 2.4686], degree 7, error 2^-60.69
  static constexpr double kSine0 = -0x1.5555555555555p-3;
  static constexpr double kSine[] = {
      0x1.11111111110c9p-7,  -0x1.a01a01a014eb1p-13, 0x1.71de3a52aa748p-19, -0x1.ae6454d93076bp-26,
      0x1.6123ce4133132p-33, -0x1.ae43d77fbc7c5p-41, 0x1.883b7b5d29799p-49};
  static constexpr double kCosineSlope = 0x1.9f02f6222c72p-2;  // 4 / pi^2
};

// An argument as k pi + r - minus_l, |r| <= pi / 2 and a little; `flip` has the sign bit of (-1)^k.
// For cos, of the argument plus pi / 2.
struct Turned {
  Vec<double> r, minus_l, flip;
};

// For |x| < kNear, of cos for x >= 0, so that it is even; kExtra: with minus_l.
template <bool kCosine, bool kExtra>
FL_INLINE Turned near_turn(Vec<double> x) {
  using C = SineConstants;
  const Vec<double> magic = constant(MathConstants<double>::kMagic);
  const Vec<double> inverse = constant(C::kInversePi), half = constant(0.5);
  const Vec<double> shifted = kCosine ? fma(x, inverse, half) + magic : fma(x, inverse, magic);
  const Vec<double> n = kCosine ? (shifted - magic) - half : shifted - magic;
  const Vec<double> flip = shift_left<63>(shifted);
  // Exact from |x| = 1 on: both are multiples of 2^-52.
  const Vec<double> head = fnma(n, constant(C::kPiHi), x);
  if constexpr (!kExtra) return {fnma(n, constant(C::kPiLo), head), Vec<double>::zero(), flip};
  const Vec<double> mid = n * constant(C::kPiMid);
  const Vec<double> r = head - mid;
  Vec<double> minus_l = fma(n, constant(C::kPiEnd), mid - (head - r));
  // Below 1, sin has n = 0 and cos n = 1/2: there `head` is rounded.
  if constexpr (kCosine) minus_l = minus_l + (fma(n, constant(C::kPiHi), head) - x);
  return {r, minus_l, flip};
}

// The same for one finite x of any larger magnitude.
FL_INLINE void far_turn(double x, bool cosine, double* r, double* minus_l, double* flip) {
  using C = SineConstants;
  uint64_t pattern;
  __builtin_memcpy(&pattern, &x, sizeof pattern);
  const bool negative = pattern >> 63 != 0;
  const uint64_t m = (pattern & 0xfffffffffffff) | 0x10000000000000;  // |x| = m 2^exponent
  const int exponent = static_cast<int>(pattern >> 52 & 0x7ff) - 1075;
  // |x| / pi modulo 2 in v, whose first bit is 1; the bits of 1 / pi before it give multiples of 2.
  const int skipped = exponent - 1 + 32;
  uint32_t window[C::kWindow], v[C::kWindow];
  for (int i = 0; i < C::kWindow; ++i) {
    const uint32_t* const word = C::kInversePiBits + skipped / 32 + i;
    const uint64_t two = static_cast<uint64_t>(word[0]) << 32 | word[1];
    window[i] = static_cast<uint32_t>(two << skipped % 32 >> 32);
  }
  uint64_t carry = 0;
  for (int i = C::kWindow - 1; i >= 0; --i) {
    carry += window[i] * (m & 0xffffffff);
    v[i] = static_cast<uint32_t>(carry);
    carry >>= 32;
  }
  carry = 0;
  for (int i = C::kWindow - 2; i >= 0; --i) {
    carry += window[i + 1] * (m >> 32) + v[i];
    v[i] = static_cast<uint32_t>(carry);
    carry >>= 32;
  }
  constexpr uint32_t kHalf = uint32_t(1) << 30;
  if (cosine) v[0] += kHalf;
  const bool below = (v[0] & kHalf) != 0;  // the nearest whole number is the one above
  const bool odd = (v[0] >> 31 != 0) != below;
  for (uint32_t& word : v) word = below ? ~word : word;  // minus the least bit, which is far below
  const uint64_t high = static_cast<uint64_t>(v[0] & 0x7fffffff) << 32 | v[1];
  const uint64_t low = static_cast<uint64_t>(v[2]) << 32 | v[3];
  const uint64_t rest = static_cast<uint64_t>(v[4]) << 32 | v[5];
  const int zeros = __builtin_clzll(high | 1);  // of 1 to 63
  const uint64_t a = high << zeros | low >> (64 - zeros);
  const uint64_t b = low << zeros | rest >> (64 - zeros);
  // The first 53 bits, the next 53, and what the last of the first ones stands for.
  const double f = static_cast<double>(a >> 11);
  const double g = static_cast<double>((a & 0x7ff) << 42 | b >> 22) * 0x1p-53;
  const uint64_t unit_pattern = static_cast<uint64_t>(1023 - 52 - zeros) << 52;
  double unit;
  __builtin_memcpy(&unit, &unit_pattern, sizeof unit);
  if (below != negative) unit = -unit;
  const double p = f * C::kPiHi;
  const double p_low = __builtin_fma(f, C::kPiHi, -p) + __builtin_fma(f, C::kPiLo, g * C::kPiHi);
  const double sum = p + p_low;
  *r = sum * unit;
  *minus_l = ((sum - p) - p_low) * unit;
  *flip = odd ? -0.0 : 0.0;
}

// far_turn for those of `count` arguments that are far and finite.
template <bool kCosine>
__attribute__((noinline)) void turn_far_ones(const double* x, double* r, double* minus_l,
                                             double* flip, int count) {
  for (int i = 0; i < count; ++i) {
    const double size = __builtin_fabs(x[i]);
    if (__builtin_isless(size, SineConstants::kNear) || !__builtin_isfinite(size)) continue;
    far_turn(x[i], kCosine, r + i, minus_l + i, flip + i);
  }
}

// For any x; what is not finite is taken for 0.
template <bool kCosine, bool kExtra>
FL_INLINE Turned any_turn(Vec<double> x) {
  constexpr int kLanes = Vec<double>::kLanes;
  const auto near = less(abs(x), constant(SineConstants::kNear));
  const Turned t = near_turn<kCosine, kExtra>(select(near, x, Vec<double>::zero()));
  alignas(64) double from[kLanes], r[kLanes], minus_l[kLanes], flip[kLanes];
  x.store(from);
  t.r.store(r);
  t.minus_l.store(minus_l);
  t.flip.store(flip);
  turn_far_ones<kCosine>(from, r, minus_l, flip, kLanes);
  return {Vec<double>::load(r), Vec<double>::load(minus_l), Vec<double>::load(flip)};
}

FL_INLINE Vec<double> with_flip(Vec<double> y, Vec<double> flip) {
  return bit_xor(y, bit_and(sign_bit<double>(), flip));
}

// To be rounded to float.
FL_INLINE Vec<double> short_sine(Turned t) {
  return with_flip(t.r * polynomial(SineConstants::kShortSine, t.r * t.r), t.flip);
}

// r m - minus_l cos(r), m = 1 + r^2 p as a pair: one rounding beside those of the low parts. Of
// zero the terms have the signs that keep its own.
FL_INLINE Vec<double> sine(Turned t) {
  using C = SineConstants;
  const Vec<double> one = constant(1.0), c = constant(C::kSine0);
  const Pair<double> z = two_product(t.r, t.r);
  const Vec<double> q = polynomial(C::kSine, z.h);
  const Vec<double> p = fma(z.h, q, c);
  const Vec<double> p_low = fma(z.h, q, c - p);
  const Vec<double> m = fma(z.h, p, one);
  const Vec<double> m_low = fma(z.h, p, one - m) + fma(z.h, p_low, z.l * p);
  // Of cos(r), a digit.
  const Vec<double> slope = fnma(z.h, constant(C::kCosineSlope), one);
  const Vec<double> minus_low = fnma(t.r, m_low, t.minus_l * slope);
  return with_flip(fms(t.r, m, minus_low), t.flip);
}

// One NaN for the infinities; one that came in stays what it is.
template <typename T>
FL_INLINE Vec<T> nan_unless_finite(Vec<T> x, Vec<T> y) {
  const Vec<T> nan = constant(static_cast<T>(__builtin_nan("")));
  const auto finite = less(abs(x), constant(static_cast<T>(__builtin_inf())));
  return select(finite, y, select(is_nan(x), x, nan));
}

template <bool kCosine>
FL_INLINE Vec<double> wave(Vec<double> x) {
  const Vec<double> a = kCosine ? abs(x) : x;
  if (all(less(abs(x), constant(SineConstants::kNear)))) return sine(near_turn<kCosine, true>(a));
  return nan_unless_finite(x, sine(any_turn<kCosine, true>(a)));
}
template <bool kCosine>
FL_INLINE Vec<float> wave(Vec<float> x) {
  Vec<double> low, high;
  widen(kCosine ? abs(x) : x, low, high);
  if (all(less(abs(x), constant(static_cast<float>(SineConstants::kNear))))) {
    return narrow(short_sine(near_turn<kCosine, false>(low)),
                  short_sine(near_turn<kCosine, false>(high)));
  }
  const Vec<float> y =
      narrow(short_sine(any_turn<kCosine, false>(low)), short_sine(any_turn<kCosine, false>(high)));
  return nan_unless_finite(x, y);
}

template <typename T>
FL_INLINE Vec<T> sin(Vec<T> x) {
  return wave<false>(x);
}
template <typename T>
FL_INLINE Vec<T> cos(Vec<T> x) {
  return wave<true>(x);
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
