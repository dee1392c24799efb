// Elementary functions over Vec<T>: exp and expm1 in parts, log1p, the tail of the normal
// distribution, and arithmetic on pairs. Activations and the row operations are built from these.
//
// Every step is one IEEE operation in a fixed order, so that all instruction sets agree to the bit.
#pragma once

#include "isa.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// Polynomials and split constants are made by bench/fit_polynomials.py; each polynomial is given
// lowest power first with its interval, degree and relative error before rounding of its steps.
// kExp: (e^r - 1 - r) / r^2. kLog: (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2. kNearTail and
// kFarTail: Q and F of near_tail and far_tail, whose first coefficients stand alone.
//
//   kMagic          added to a number, rounds it to an integer in the low bits
//   kPlainArg       below this magnitude 2^n may be applied at once: all that roundoff leaves of
//                   e^x / (1 + e^x), as pairs, is still a multiple of the least subnormal number
//   kPlainExp       below this magnitude e^x and 2^n are normal numbers
//   kExpMin         exp_parts with scale_up works down to here; e^kExpMin times any x is 0
//   kExpArg*        beyond these e^x is 0 or infinite
//   kScaleUp, Down  keep 2^n a normal number on the way
//   kScaleUpExponent  the exponent field of kScaleUp
//   kLeastScale     times kScaleDown: beside 1, a smaller 2^n changes the sign of a remainder at
//   most kLeastSquare    beside 1, a smaller square changes nothing kTanhMax        tanh is 1 from
//   here on kTinyArg        below, log(1 + e^x) and tanh(log(1 + e^x)) are e^x kLinearArg above,
//   log(1 + e^x) is x; below its negative, e^x - 1 is -1 kCeluTiny       below, e^x - 1 is x
//   kExpm1Max       above, expm1 may overflow
//   kGelu*Max       at this magnitude the negative branch has gone to 0
//   kNearGelu       up to here Phi is found without a division
//   kGeluOne        gelu is x from here on
//   kGeluSlopeMax   at this magnitude its derivative below 0 has gone to 0
//   kSlopeExpMax    up to here 2^n is a product of four normal numbers
//   kSoftsignMax    at this magnitude the derivative of softsign has gone to 0
template <typename T>
struct MathConstants;
template <>
struct MathConstants<float> {
  static constexpr float kMagic = 0x1.8p+23f;
  static constexpr float kPlainArg = 16.0f, kPlainExp = 86.0f;
  static constexpr float kExpMin = -130.0f;
  static constexpr float kExpArgMin = -104.0f, kExpArgMax = 89.0f;
  static constexpr float kScaleUp = 0x1p+64f, kScaleDown = 0x1p-64f;
  static constexpr float kScaleUpExponent = 64.0f + 127.0f;
  static constexpr float kLeastScale = 0x1p-16f, kLeastSquare = 0x1p-60f;
  static constexpr float kTanhMax = 10.0f;
  static constexpr float kTinyArg = -20.0f;
  static constexpr float kLinearArg = 64.0f;
  static constexpr float kCeluTiny = 0x1p-26f;
  static constexpr float kExpm1Max = 88.0f;
  static constexpr float kInteger = 0x1p+23f, kExponentBias = 127.0f;
  static constexpr float kGeluMax = 14.5f, kNearGelu = 5.0f;
  static constexpr float kGeluOne = 5.5f;
  static constexpr float kGeluTanhMax = 11.0f;
  static constexpr float kGeluSlopeMax = 14.75f;
  static constexpr float kSlopeExpMax = 340.0f, kSoftsignMax = 0x1p+80f;
  static constexpr float kLog2e = 0x1.715476p+0f;
  static constexpr float kLn2Hi = 0x1.62e43p-1f, kLn2Lo = -0x1.05c61p-29f;
  static constexpr float kGeluAHi = 0x1.988454p+0f, kGeluALo = -0x1.857936p-25f;
  static constexpr float kGeluBHi = 0x1.2444f2p-4f, kGeluBLo = 0x1.49b16ap-29f;
  static constexpr float kSeluScaleHi = 0x1.0cfabcp+0f, kSeluScaleLo = 0x1.6a9114p-24f;
  static constexpr float kSeluScaleAlphaHi = 0x1.c212ccp+0f, kSeluScaleAlphaLo = 0x1.903c0cp-26f;
  // [-0.34691, 0.34691], degree 5, error 2^-30.27
  static constexpr float kExp[] = {0x1p-1f,        0x1.555556p-3f,  0x1.555518p-5f,
                                   0x1.1110f6p-7f, 0x1.6d117ap-10f, 0x1.a0f8dp-13f};
  // [0, 1/9], degree 4, error 2^-29.96
  static constexpr float kLog[] = {0x1.555556p-1f, 0x1.9998d4p-2f, 0x1.24c926p-2f, 0x1.bc8cf8p-3f,
                                   0x1.dba26p-3f};
  // [-0.056034, 0.075], degree 6, error 2^-26.96
  static constexpr float kFarTail0 = 0x1.926972p-2f;
  static constexpr float kFarTail[] = {-0x1.7625d2p-4f, -0x1.384f3cp-2f, 0x1.add03p-2f,
                                       0x1.2d1a78p-2f,  -0x1.beca56p+0f, 0x1.dddf84p+0f};
  static constexpr float kNearCentre = 0x1.3d48p+1f;
  // [-2.4788, 2.5212], degree 11, error 2^-24.82
  static constexpr float kNearTail0 = -0x1.038feep-1f;
  static constexpr float kNearTail[] = {0x1.2d42eap-4f,   -0x1.7a243p-7f,  0x1.c65c7ap-10f,
                                        -0x1.eaf7fep-13f, 0x1.b2964ap-16f, -0x1.c2c692p-20f,
                                        -0x1.70ab52p-23f, 0x1.935b4cp-24f, -0x1.74f146p-26f,
                                        0x1.9e979ap-29f,  -0x1.a2f278p-33f};
};
template <>
struct MathConstants<double> {
  static constexpr double kMagic = 0x1.8p+52;
  static constexpr double kPlainArg = 256.0, kPlainExp = 707.0;
  static constexpr double kExpMin = -870.0;
  static constexpr double kExpArgMin = -746.0, kExpArgMax = 710.0;
  static constexpr double kScaleUp = 0x1p+256, kScaleDown = 0x1p-256;
  static constexpr double kScaleUpExponent = 256.0 + 1023.0;
  static constexpr double kLeastScale = 0x1p+56, kLeastSquare = 0x1p-200;
  static constexpr double kTanhMax = 20.0;
  static constexpr double kTinyArg = -40.0;
  static constexpr double kLinearArg = 64.0;
  static constexpr double kCeluTiny = 0x1p-55;
  static constexpr double kExpm1Max = 709.0;
  static constexpr double kInteger = 0x1p+52, kExponentBias = 1023.0;
  static constexpr double kGeluMax = 39.0, kNearGelu = 5.0;
  static constexpr double kGeluOne = 8.5;
  static constexpr double kGeluTanhMax = 21.75;
  static constexpr double kGeluSlopeMax = 39.0;
  static constexpr double kSlopeExpMax = 2800.0, kSoftsignMax = 0x1p+540;
  static constexpr double kLog2e = 0x1.71547652b82fep+0;
  static constexpr double kLn2Hi = 0x1.62e42fefa39efp-1, kLn2Lo = 0x1.abc9e3b39803fp-56;
  static constexpr double kGeluAHi = 0x1.9884533d43651p+0, kGeluALo = -0x1.cbc0d30ebfd15p-54;
  static constexpr double kGeluBHi = 0x1.2444f2a4d8b4bp-4, kGeluBLo = -0x1.6c843a29d1c7p-61;
  static constexpr double kSeluScaleHi = 0x1.0cfabd6a91132p+0, kSeluScaleLo = 0x1.6fc7d272f2695p-55;
  static constexpr double kSeluScaleAlphaHi = 0x1.c212cc640f031p+0,
                          kSeluScaleAlphaLo = 0x1.05161b045a1fep-56;
  // [-0.34691, 0.34691], degree 10, error 2^-59.83
  static constexpr double kExp[] = {0x1p-1,
                                    0x1.5555555555556p-3,
                                    0x1.5555555555555p-5,
                                    0x1.11111111109a6p-7,
                                    0x1.6c16c16c167dap-10,
                                    0x1.a01a01a7ce75dp-13,
                                    0x1.a01a01a480ee6p-16,
                                    0x1.71de0d863c737p-19,
                                    0x1.27e4e1dd94aefp-22,
                                    0x1.af39091a8441ap-26,
                                    0x1.1f67160206a4dp-29};
  // [0, 1/9], degree 10, error 2^-58.73
  static constexpr double kLog[] = {
      0x1.5555555555555p-1, 0x1.9999999999944p-2, 0x1.2492492499d46p-2, 0x1.c71c71bedea97p-3,
      0x1.745d19937b1fcp-3, 0x1.3b13515f6f9efp-3, 0x1.111abdc8abe16p-3, 0x1.e0a2d581ab68fp-4,
      0x1.bc37f0140c19ep-4, 0x1.32e0d25c9c761p-4, 0x1.401d3e65cdc48p-3};
  // [-0.099359, 0.075], degree 15, error 2^-53.27
  static constexpr double kFarTail0 = 0x1.9269722f50cddp-2;
  static constexpr double kFarTail[] = {
      -0x1.7625d6555fae1p-4, -0x1.384f9d26c5bep-2,   0x1.addbc35a4c30cp-2,  0x1.2e37385a2c6bep-2,
      -0x1.c5c6e2e4c580cp+0, 0x1.b6e56e1049f5fp+0,   0x1.3c91cc503573ap+2,  -0x1.30995692b4d3ap+4,
      0x1.cbe621e2c88f3p+3,  0x1.53a300a361732p+6,   -0x1.42be5696a1cafp+8, 0x1.11d797c6f47bep+8,
      0x1.00ddad0d9d167p+11, -0x1.c97c423108493p+12, -0x1.278e8559d9a8fp+13};
  static constexpr double kNearCentre = 0x1.402p+1;
  // [-2.501, 2.499], degree 24, error 2^-54.64
  static constexpr double kNearTail0 = -0x1.02ba7eea164d8p-1;
  static constexpr double kNearTail[] = {
      0x1.2b2becbeb494cp-4,   -0x1.7660e23057825p-7,  0x1.c0f1289beb55ep-10,
      -0x1.e4fae8c2e315fp-13, 0x1.aec21c1827f3fp-16,  -0x1.c7531295ef6c3p-20,
      -0x1.4f5132242cc3cp-23, 0x1.74340e2bcdabep-24,  -0x1.5abbf7882252ep-26,
      0x1.c971218ccccfp-29,   -0x1.9d13e9373223bp-32, 0x1.69bd4d99491dep-37,
      0x1.2aba7d921693fp-37,  -0x1.933abada5728dp-39, 0x1.4ea490f48c0f1p-41,
      -0x1.84a82b823e832p-44, 0x1.de71d3cca9835p-48,  0x1.e9c507ec51b5ep-52,
      -0x1.455ddf48e1e8dp-52, 0x1.19aa03c35be1bp-53,  -0x1.4750ed9734decp-55,
      0x1.7152370adaecep-59,  0x1.05e42230e0c2ap-60,  -0x1.4a2863ed80672p-63};
};

// An unevaluated sum: h carries the value, l what h cannot hold.
template <typename T>
struct Pair {
  Vec<T> h, l;
};

template <typename T>
FL_INLINE Vec<T> constant(T value) {
  return Vec<T>::set1(value);
}

template <typename T>
FL_INLINE Vec<T> sign_bit() {
  return Vec<T>::set1(T(-0.0));
}
template <typename T>
FL_INLINE Vec<T> abs(Vec<T> x) {
  return bit_andnot(sign_bit<T>(), x);
}
template <typename T>
FL_INLINE Vec<T> negate(Vec<T> x) {
  return bit_xor(sign_bit<T>(), x);
}
template <typename T>
FL_INLINE Vec<T> negative_abs(Vec<T> x) {
  return bit_or(sign_bit<T>(), x);
}
// The sign of `sign` on a magnitude that has none.
template <typename T>
FL_INLINE Vec<T> with_sign_of(Vec<T> magnitude, Vec<T> sign) {
  return bit_or(magnitude, bit_and(sign_bit<T>(), sign));
}

// a + b exactly; fast_two_sum needs the exponent of a to be at least that of b, or a = 0.
template <typename T>
FL_INLINE Pair<T> fast_two_sum(Vec<T> a, Vec<T> b) {
  const Vec<T> h = a + b;
  return {h, b - (h - a)};
}
template <typename T>
FL_INLINE Pair<T> two_sum(Vec<T> a, Vec<T> b) {
  const Vec<T> h = a + b;
  const Vec<T> v = h - a;
  return {h, (a - (h - v)) + (b - v)};
}
template <typename T>
FL_INLINE Pair<T> two_product(Vec<T> a, Vec<T> b) {
  const Vec<T> h = a * b;
  return {h, fms(a, b, h)};
}

// n / d with a relative error of about eps^2, given |d.l| <= ulp(d.h).
template <typename T>
FL_INLINE Pair<T> divide(Pair<T> n, Pair<T> d) {
  const Vec<T> inverse = constant(T(1)) / d.h;
  const Vec<T> q = n.h * inverse;
  const Vec<T> rest = fnma(q, d.h, n.h) + fnma(q, d.l, n.l);
  return {q, rest * inverse};
}

// n / d rounded to a single number.
template <typename T>
FL_INLINE Vec<T> quotient(Pair<T> n, Pair<T> d) {
  const Vec<T> inverse = constant(T(1)) / d.h;
  const Vec<T> q = n.h * inverse;
  return fma(fnma(q, d.h, n.h) + fnma(q, d.l, n.l), inverse, q);
}

// c[First] + c[First + 1] x + ... of `Count` terms, powers[i] = x^(2^i), in pairs of pairs: the
// loops wait for latency, so a chain of Count steps will not do.
template <int First, int Count, typename T, int N>
FL_INLINE Vec<T> terms(const T (&c)[N], const Vec<T>* powers) {
  if constexpr (Count == 1) {
    return constant(c[First]);
  } else {
    constexpr int kLog = Count > 4 ? 2 : Count > 2 ? 1 : 0;
    constexpr int kHalf = 1 << kLog;
    const Vec<T> low = terms<First, kHalf>(c, powers);
    return fma(terms<First + kHalf, Count - kHalf>(c, powers), powers[kLog], low);
  }
}
// Horner's scheme over groups of 2^kLog terms.
template <int kLog, int First, typename T, int N>
FL_INLINE Vec<T> groups(const T (&c)[N], const Vec<T>* powers) {
  constexpr int kGroup = 1 << kLog;
  if constexpr (N - First <= kGroup) {
    return terms<First, N - First>(c, powers);
  } else {
    const Vec<T> low = terms<First, kGroup>(c, powers);
    return fma(groups<kLog, First + kGroup>(c, powers), powers[kLog], low);
  }
}
template <typename T, int N>
FL_INLINE Vec<T> polynomial(const T (&c)[N], Vec<T> x) {
  const Vec<T> x2 = x * x;
  const Vec<T> x4 = x2 * x2;
  const Vec<T> powers[] = {x, x2, x4, x4 * x4};
  return groups<(N <= 6 ? 1 : N <= 12 ? 2 : 3), 0>(c, powers);
}

// e^x = 2^n (1 + r + w): n stands in the low bits of `shifted`, |r| < 0.35, |w| < 0.08. Where n is
// 0, r is x.
template <typename T>
struct ExpParts {
  Vec<T> shifted, n, r, w;
};

// e^(x + y + low) for |low| <= ulp(x + y) and any sum whose n fits the exponent field's width.
// `rounder` is kMagic plus an integer, which is added to n in `shifted`.
template <typename T>
FL_INLINE ExpParts<T> exp_parts(Vec<T> x, Vec<T> y, Vec<T> low,
                                T rounder = MathConstants<T>::kMagic) {
  using C = MathConstants<T>;
  const Vec<T> magic = constant(rounder);
  const Vec<T> shifted = fma(x + y, constant(C::kLog2e), magic);
  const Vec<T> n = shifted - magic;
  // Exact, or nearly where |y| is near 1 or above: the terms are multiples of the last place of
  // ln 2, and they nearly cancel.
  const Vec<T> head = fnma(n, constant(C::kLn2Hi), x) + y;
  const Vec<T> tail = fnma(n, constant(C::kLn2Lo), low);
  // What this sum loses counts in the polynomial's terms only, by less than a tenth of an ULP.
  const Vec<T> r = head + tail;
  return {shifted, n, head, fma(r * r, polynomial(C::kExp, r), tail)};
}
template <typename T>
FL_INLINE ExpParts<T> exp_parts(Vec<T> x, Vec<T> low) {
  return exp_parts(x, constant(T(-0.0)), low);
}

// Whether 2^n needs no care in any lane. The bits are the same either way.
template <typename T>
FL_INLINE bool plain(Vec<T> x) {
  return all(less(abs(x), constant(MathConstants<T>::kPlainArg)));
}

// 2^n times `unit`, a power of two, while the product is a normal number.
template <typename T>
FL_INLINE Vec<T> power_of_two(Vec<T> shifted, T unit) {
  return bit_add(shift_left<Vec<T>::kMantissaBits>(shifted), constant(unit));
}

// 1 + r + w
template <typename T>
FL_INLINE Pair<T> mantissa(ExpParts<T> e) {
  return fast_two_sum(constant(T(1)), e.r + e.w);
}
template <typename T>
FL_INLINE Vec<T> rounded_mantissa(ExpParts<T> e) {
  const Pair<T> m = fast_two_sum(constant(T(1)), e.r);
  return m.h + (m.l + e.w);
}

// 2^n kScaleUp, for arguments in [kExpMin, 0]. Values are kept unscaled up to the end and then
// multiplied by this and by kScaleDown, so that a subnormal result is rounded once.
template <typename T>
FL_INLINE Vec<T> scale_up(ExpParts<T> e) {
  return power_of_two(e.shifted, MathConstants<T>::kScaleUp);
}

// 2^n, or a number as good as it beside 1: subnormal products take a hundred cycles.
template <typename T>
FL_INLINE Vec<T> scale_beside_one(Vec<T> scaled_up) {
  using C = MathConstants<T>;
  return at_least(scaled_up, constant(C::kLeastScale)) * constant(C::kScaleDown);
}

template <typename T>
FL_INLINE Vec<T> exp(Vec<T> x) {
  using C = MathConstants<T>;
  if (all(less(abs(x), constant(C::kPlainExp)))) {
    const ExpParts<T> e = exp_parts(x, Vec<T>::zero());
    return rounded_mantissa(e) * power_of_two(e.shifted, T(1));
  }
  const Vec<T> a = at_most(at_least(x, constant(C::kExpArgMin)), constant(C::kExpArgMax));
  const ExpParts<T> e = exp_parts(a, Vec<T>::zero());
  // 2^n in two factors: n may lie beyond the exponents of normal numbers.
  const Vec<T> half = fma(e.n, constant(T(0.5)), constant(C::kMagic));
  const Vec<T> s1 = power_of_two(half, T(1));
  const Vec<T> s2 = power_of_two(bit_sub(e.shifted, half), T(1));
  return select(is_nan(x), x, rounded_mantissa(e) * s1 * s2);
}

// e^(x + low) kScaleUp for x + low in [kExpMin, 0], at most kScaleUp; to about 1.2 ULP.
template <typename T>
FL_INLINE Vec<T> exp_scaled_up(Vec<T> x, Vec<T> low) {
  using C = MathConstants<T>;
  const ExpParts<T> e = exp_parts(x, constant(T(-0.0)), low, C::kMagic + C::kScaleUpExponent);
  return (constant(T(1)) + (e.r + e.w)) * shift_left<Vec<T>::kMantissaBits>(e.shifted);
}

// e^(x + low) - 1, accurate near 0 too, while 2^n is a normal number.
template <typename T>
FL_INLINE Pair<T> expm1(Vec<T> x, Vec<T> low) {
  const ExpParts<T> e = exp_parts(x, low);
  const Vec<T> s = power_of_two(e.shifted, T(1));
  const Pair<T> u = fast_two_sum(e.r, e.w);
  const Vec<T> c = s - constant(T(1));
  const Vec<T> h = fma(s, u.h, c);
  return {h, fma(s, u.l, fma(s, u.h, c - h))};
}

// log(1 + f) for f in [0, 1].
template <typename T>
FL_INLINE Pair<T> log1p(Pair<T> f) {
  Pair<T> d = fast_two_sum(constant(T(2)), f.h);
  d.l = d.l + f.l;
  const Pair<T> s = divide(f, d);
  const Vec<T> square = s.h * s.h;
  // Its product with s.h may be subnormal, and would take a hundred cycles.
  const Vec<T> least = constant(MathConstants<T>::kLeastSquare);
  const Vec<T> z = select(less(square, least), Vec<T>::zero(), square);
  const Vec<T> p = polynomial(MathConstants<T>::kLog, z);
  return {s.h + s.h, fma(s.h * z, p, s.l + s.l)};
}

// log(1 + f) for a normalised f >= 0.
template <typename T>
FL_INLINE Pair<T> log1p_any(Pair<T> f) {
  using C = MathConstants<T>;
  using V = Vec<T>;
  const V one = constant(T(1));
  Pair<T> sum = two_sum(one, f.h);
  sum.l = sum.l + f.l;
  // Where f > 1: sum = 2^n (1 + reduced), 0 <= reduced < 1.
  const V exponent = bit_and(sum.h, constant(static_cast<T>(__builtin_inf())));
  const V inverse = bit_sub(bit_add(one, one), exponent);
  const Pair<T> reduced = fast_two_sum(fms(sum.h, inverse, one), sum.l * inverse);
  const V biased = bit_or(shift_right<V::kMantissaBits>(exponent), constant(C::kInteger));
  const auto large = less(one, f.h);
  const V n = select(large, biased - constant(C::kInteger + C::kExponentBias), V::zero());
  const Pair<T> l = log1p(Pair<T>{select(large, reduced.h, f.h), select(large, reduced.l, f.l)});
  const Pair<T> nln2 = two_product(n, constant(C::kLn2Hi));
  const Pair<T> r = two_sum(nln2.h, l.h);
  return {r.h, r.l + (fma(n, constant(C::kLn2Lo), nln2.l) + l.l)};
}

// Phi(-a), the lower tail of the normal distribution, is h + l for 0 <= a <= kNearGelu. It is
// e^(-a^2/2 + a Q) / 2, Q smooth.
template <typename T>
FL_INLINE Pair<T> near_tail(Vec<T> a) {
  using C = MathConstants<T>;
  const Vec<T> minus_half = constant(T(-0.5));
  const Vec<T> s = a - constant(C::kNearCentre);
  const Vec<T> c = constant(C::kNearTail0);
  const Vec<T> p = polynomial(C::kNearTail, s);
  const Vec<T> q = fma(s, p, c);
  const Vec<T> q_low = fma(s, p, c - q);
  const Pair<T> y = two_product(a, q);
  const Pair<T> square = two_product(a, a);
  const Vec<T> low = fma(square.l, minus_half, fma(a, q_low, y.l));
  const ExpParts<T> e = exp_parts(minus_half * square.h, y.h, low);
  const Vec<T> u = e.r + e.w;
  const Vec<T> scale = power_of_two(e.shifted, T(0.5));
  const Vec<T> h = fma(u, scale, scale);
  return {h, fma(u, scale, scale - h)};
}

// Phi(-a) e^(a^2/2) for kNearGelu <= a <= kGeluMax. It is w F(w - 1/8) with w = 1 / a, F smooth.
template <typename T>
FL_INLINE Pair<T> far_tail(Vec<T> a) {
  using C = MathConstants<T>;
  const Vec<T> one = constant(T(1));
  const Vec<T> w = one / a;
  const Vec<T> s = w - constant(T(0.125));
  const Vec<T> c = constant(C::kFarTail0);
  const Vec<T> q = polynomial(C::kFarTail, s);
  const Vec<T> f = fma(s, q, c);
  // What rounding took from F, and from w, to first order.
  const Vec<T> f_low = fma(fnma(w, a, one), f, fma(s, q, c - f));
  const Pair<T> g = two_product(w, f);
  return {g.h, fma(w, f_low, g.l)};
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
