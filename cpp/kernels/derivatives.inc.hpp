// The derivative of each element-wise activation, as activation_list.hpp calls it. What they are
// and how exact they are: docs/numerics.
//
// Where f is curved, all comes from E = e^-a with a >= 0, in pairs up to the last step, so that a
// tail is as exact as the middle. At a kink the value is PyTorch's.
#pragma once

#include "activations.inc.hpp"
#include "isa.inc.hpp"
#include "math.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

template <typename T>
FL_INLINE Vec<T> or_nan(Vec<T> x, Vec<T> y) {
  return select(is_nan(x), x, y);
}

template <typename T>
FL_INLINE Vec<T> identity_slope(Vec<T> x) {
  return or_nan(x, constant(T(1)));
}
template <typename T>
FL_INLINE Vec<T> leaky_relu_slope(Vec<T> x, Vec<T> slope) {
  return or_nan(x, select(less(Vec<T>::zero(), x), constant(T(1)), slope));
}
template <typename T>
FL_INLINE Vec<T> relu_slope(Vec<T> x) {
  return leaky_relu_slope(x, Vec<T>::zero());
}
// `inside` strictly between the bounds, 0 elsewhere.
template <typename T>
FL_INLINE Vec<T> slope_between(Vec<T> x, Vec<T> low, Vec<T> high, Vec<T> inside) {
  const Vec<T> below = select(less(x, high), inside, Vec<T>::zero());
  return or_nan(x, select(less(low, x), below, Vec<T>::zero()));
}
template <typename T>
FL_INLINE Vec<T> hardtanh_slope(Vec<T> x, Vec<T> low, Vec<T> high) {
  return slope_between(x, low, high, constant(T(1)));
}
template <typename T>
FL_INLINE Vec<T> hardsigmoid_slope(Vec<T> x) {
  return slope_between(x, constant(T(-3)), constant(T(3)), constant(T(1) / T(6)));
}
template <typename T>
FL_INLINE Vec<T> hardswish_slope(Vec<T> x) {
  const Vec<T> three = constant(T(3));
  const Vec<T> a = at_most(at_least(x, negate(three)), three);
  const Vec<T> between = sixth(two_sum(a + a, three));
  const Vec<T> below = select(less(x, three), between, constant(T(1)));
  return or_nan(x, select(less(negate(three), x), below, Vec<T>::zero()));
}
template <typename T>
FL_INLINE Vec<T> threshold_slope(Vec<T> x, Vec<T> bound) {
  return or_nan(x, select(less(bound, x), constant(T(1)), Vec<T>::zero()));
}
template <typename T>
FL_INLINE Vec<T> shrink_slope(Vec<T> x, Vec<T> lambd) {
  return or_nan(x, select(less(lambd, abs(x)), constant(T(1)), Vec<T>::zero()));
}
template <typename T>
FL_INLINE Vec<T> square_root_slope(Vec<T> x) {
  return or_nan(x, constant(T(0.5)) / abs(square_root(x)));
}
template <typename T>
FL_INLINE Vec<T> cosine_slope(Vec<T> x) {
  return or_nan(x, negate(sin(x)));
}

// (a + b) c, each a pair, to about eps^2.
template <typename T>
FL_INLINE Pair<T> times(Pair<T> x, Pair<T> y) {
  const Pair<T> p = two_product(x.h, y.h);
  return {p.h, fma(x.h, y.l, fma(x.l, y.h, p.l))};
}
template <typename T>
FL_INLINE Pair<T> plus(Pair<T> x, Pair<T> y) {
  const Pair<T> s = two_sum(x.h, y.h);
  return {s.h, s.l + (x.l + y.l)};
}
// As `quotient` wants a divisor: |l| <= ulp(h).
template <typename T>
FL_INLINE Pair<T> normalised(Pair<T> p) {
  return fast_two_sum(p.h, p.l);
}

// E = e^(minus_a + minus_low) for arguments in [kExpMin, 0]: m 2^n. `beside_one` is E as a pair
// that is never subnormal.
template <typename T>
struct Exponential {
  Pair<T> m, beside_one;
  Vec<T> scale;

  static FL_INLINE Exponential of(Vec<T> minus_a, Vec<T> minus_low) {
    const ExpParts<T> e = exp_parts(minus_a, minus_low);
    const Pair<T> m = mantissa(e);
    const Vec<T> scale = scale_up(e);
    const Vec<T> s = scale_beside_one(scale);
    return {m, {m.h * s, m.l * s}, scale};
  }
  // y 2^n, rounded once where it is subnormal.
  FL_INLINE Vec<T> scaled(Vec<T> y) const {
    return y * scale * constant(MathConstants<T>::kScaleDown);
  }
  // (1 + E)^2
  FL_INLINE Pair<T> square_of_one_plus() const {
    const Pair<T> d = plus(Pair<T>{constant(T(1)), Vec<T>::zero()}, beside_one);
    return normalised(times(d, d));
  }
};

// unit E / (1 + E)^2
template <typename T>
FL_INLINE Vec<T> logistic_slope(Vec<T> minus_a, T unit) {
  const Exponential<T> e = Exponential<T>::of(minus_a, Vec<T>::zero());
  const Pair<T> n = {e.m.h * constant(unit), e.m.l * constant(unit)};
  return e.scaled(quotient(n, e.square_of_one_plus()));
}
template <typename T>
FL_INLINE Vec<T> sigmoid_slope(Vec<T> x) {
  return or_nan(
      x, logistic_slope(at_least(negative_abs(x), constant(MathConstants<T>::kExpMin)), T(1)));
}
// tanh(x) is 2 sigmoid(2 x) - 1.
template <typename T>
FL_INLINE Vec<T> tanh_slope(Vec<T> x) {
  const Vec<T> least = constant(MathConstants<T>::kExpMin * T(0.5));
  const Vec<T> minus_a = at_least(negative_abs(x), least);
  return or_nan(x, logistic_slope(minus_a + minus_a, T(4)));
}
template <typename T>
FL_INLINE Vec<T> log_sigmoid_slope(Vec<T> x) {
  return or_nan(x, sigmoid(negate(x)));
}

template <typename T>
FL_INLINE Vec<T> softplus_slope(Vec<T> x, T beta, T threshold) {
  using C = MathConstants<T>;
  const Vec<T> limit = constant(threshold < C::kLinearArg ? threshold : C::kLinearArg);
  const Pair<T> z = two_product(constant(beta), x);
  const auto negative = less(z.h, Vec<T>::zero());
  const Vec<T> a = negative_abs(z.h);
  const auto clamped = less(a, constant(C::kExpMin));
  const Vec<T> low = select(clamped, Vec<T>::zero(), select(negative, z.l, negate(z.l)));
  const Sigmoid<T> s = Sigmoid<T>::of(at_least(a, constant(C::kExpMin)), low, negative);
  const Vec<T> y = quotient(s.n, s.d);
  const Vec<T> down = y * s.scale * constant(C::kScaleDown);
  const Vec<T> curved = select(negative, down, y);
  return or_nan(x, select(less(limit, z.h), constant(T(1)), curved));
}

// The derivative of x s(u), s the sigmoid and E = e^-|u|, given p = |x| u'(x) and the sign of x:
//   (1 + E (1 + p)) / (1 + E)^2    or, below 0,    E (1 + E - p) / (1 + E)^2
template <typename T>
FL_INLINE Vec<T> gate_slope(Vec<T> x, const Exponential<T>& e, Pair<T> p) {
  const Vec<T> zero = Vec<T>::zero();
  const Pair<T> one = {constant(T(1)), zero};
  const auto negative = less(x, zero);
  const Pair<T> minus_p = {negate(p.h), negate(p.l)};
  const Pair<T> above = plus(one, times(e.beside_one, plus(one, p)));
  const Pair<T> below = times(plus(plus(one, minus_p), e.beside_one), e.m);
  const Pair<T> n = {select(negative, below.h, above.h), select(negative, below.l, above.l)};
  const Vec<T> y = quotient(n, e.square_of_one_plus());
  return or_nan(x, select(negative, e.scaled(y), y));
}
template <typename T>
FL_INLINE Vec<T> silu_slope(Vec<T> x) {
  const Vec<T> minus_a = at_least(negative_abs(x), constant(MathConstants<T>::kExpMin));
  const Exponential<T> e = Exponential<T>::of(minus_a, Vec<T>::zero());
  return gate_slope(x, e, Pair<T>{negate(minus_a), Vec<T>::zero()});
}
// u = x (A + B x^2), |x| u' = |x| (A + 3 B x^2)
template <typename T>
FL_INLINE Vec<T> gelu_tanh_slope(Vec<T> x) {
  using C = MathConstants<T>;
  const Pair<T> a = {at_most(abs(x), constant(C::kGeluTanhMax)), Vec<T>::zero()};
  const Pair<T> slope = {constant(C::kGeluAHi), constant(C::kGeluALo)};
  const Pair<T> curve = {constant(C::kGeluBHi), constant(C::kGeluBLo)};
  const Pair<T> bent = times(curve, two_product(a.h, a.h));
  const Pair<T> thrice = times(bent, Pair<T>{constant(T(3)), Vec<T>::zero()});
  const Pair<T> u = normalised(times(plus(slope, bent), a));
  const Exponential<T> e = Exponential<T>::of(negate(u.h), negate(u.l));
  return gate_slope(x, e, times(plus(slope, thrice), a));
}

// That of the normal distribution at 0.
template <typename T>
FL_INLINE Pair<T> density() {
  using C = MathConstants<T>;
  return {constant(C::kGeluAHi * T(0.25)), constant(C::kGeluALo * T(0.25))};
}

// Phi(x) + x phi(x). With q = Phi(-a) - a phi(a) it is q below 0 and 1 - q above.
template <typename T>
FL_INLINE Vec<T> near_gelu_slope(Vec<T> x) {
  using C = MathConstants<T>;
  const Pair<T> one = {constant(T(1)), Vec<T>::zero()};
  const Vec<T> a = at_most(abs(x), constant(C::kNearGelu));
  const Pair<T> exponent = two_product(constant(T(-0.5)) * a, a);
  const ExpParts<T> e = exp_parts(exponent.h, exponent.l);
  const Pair<T> m = mantissa(e);
  const Vec<T> s = power_of_two(e.shifted, T(1));
  const Pair<T> phi = times(density<T>(), Pair<T>{m.h * s, m.l * s});
  const Pair<T> q = plus(near_tail(a), times(phi, Pair<T>{negate(a), Vec<T>::zero()}));
  const Pair<T> above = plus(one, Pair<T>{negate(q.h), negate(q.l)});
  return select(less(x, Vec<T>::zero()), q.h + q.l, above.h + above.l);
}
template <typename T>
FL_INLINE Vec<T> far_gelu_slope(Vec<T> x) {
  using C = MathConstants<T>;
  const Pair<T> one = {constant(T(1)), Vec<T>::zero()};
  const Vec<T> a = at_most(at_least(abs(x), constant(C::kNearGelu)), constant(C::kGeluSlopeMax));
  const Pair<T> exponent = two_product(constant(T(-0.5)) * a, a);
  const Exponential<T> e = Exponential<T>::of(exponent.h, exponent.l);
  const Pair<T> minus_a_phi = times(density<T>(), Pair<T>{negate(a), Vec<T>::zero()});
  const Pair<T> q = plus(far_tail(a), minus_a_phi);
  const Pair<T> times_m = times(q, e.m);
  const Pair<T> times_e = times(q, e.beside_one);
  const Pair<T> above = plus(one, Pair<T>{negate(times_e.h), negate(times_e.l)});
  const auto negative = less(x, Vec<T>::zero());
  return select(negative, e.scaled(times_m.h + times_m.l), above.h + above.l);
}
template <typename T>
FL_INLINE Vec<T> gelu_slope(Vec<T> x) {
  const auto near = less(abs(x), constant(MathConstants<T>::kNearGelu));
  if (all(near)) return near_gelu_slope(x);
  return or_nan(x, select(near, near_gelu_slope(x), far_gelu_slope(x)));
}

// n / d^2 with E = e^-|x|, a = |x|:
//   x < 0:   n = E (4 (1 - a) + E (6 - 4 a + E (4 + E)))     d = 2 + 2 E + E^2
//   x >= 0:  n = 1 + E (4 + E (6 + 4 a + 4 E (1 + a)))       d = 1 + 2 E + 2 E^2
template <typename T>
FL_INLINE Vec<T> mish_slope(Vec<T> x) {
  const Vec<T> zero = Vec<T>::zero(), one = constant(T(1)), two = constant(T(2));
  const Vec<T> four = constant(T(4)), six = constant(T(6));
  const auto negative = less(x, zero);
  const Vec<T> minus_a = at_least(negative_abs(x), constant(MathConstants<T>::kExpMin));
  const Exponential<T> exponential = Exponential<T>::of(minus_a, zero);
  const Pair<T> e = exponential.beside_one;
  const Vec<T> x4 = select(negative, minus_a, negate(minus_a)) * four;
  // What stands in the brackets behind the first E, and the term before it, as a pair.
  const Vec<T> inner = fma(e.h, select(negative, four + e.h, four + x4), six + x4);
  const Vec<T> behind = select(negative, inner, fma(e.h, inner, four));
  const Pair<T> first = two_sum(one, minus_a);
  const Pair<T> before = {select(negative, first.h * four, one),
                          select(negative, first.l * four, zero)};
  const Pair<T> n = plus(before, times(e, Pair<T>{behind, zero}));
  const Pair<T> square = times(e, e);
  const Pair<T> r = {select(negative, square.h, square.h + square.h),
                     select(negative, square.l, square.l + square.l)};
  const Pair<T> twice = {e.h + e.h, e.l + e.l};
  const Pair<T> d = plus(Pair<T>{select(negative, two, one), zero}, plus(twice, r));
  const Pair<T> below = times(n, exponential.m);
  const Pair<T> top = {select(negative, below.h, n.h), select(negative, below.l, n.l)};
  const Vec<T> y = quotient(top, normalised(times(d, d)));
  return or_nan(x, select(negative, exponential.scaled(y), y));
}

template <typename T>
FL_INLINE Vec<T> softsign_slope(Vec<T> x) {
  // From the bound on the square of the quotient is 0.
  const Vec<T> a = at_most(abs(x), constant(MathConstants<T>::kSoftsignMax));
  const Pair<T> q = divide(Pair<T>{constant(T(1)), Vec<T>::zero()}, two_sum(constant(T(1)), a));
  return or_nan(x, fma(q.h, q.h, (q.h + q.h) * q.l));
}

// factor e^(x + low) for any x: factor m 2^n, 2^n in four steps, for the factor may be huge and the
// result subnormal.
template <typename T>
FL_INLINE Vec<T> exp_times(Pair<T> factor, Vec<T> x, Vec<T> low) {
  using C = MathConstants<T>;
  const auto beyond = less(constant(C::kSlopeExpMax), abs(x));
  const Vec<T> bound = with_sign_of(constant(C::kSlopeExpMax), x);
  const ExpParts<T> e = exp_parts(select(beyond, bound, x), select(beyond, Vec<T>::zero(), low));
  const Pair<T> y = times(factor, mantissa(e));
  const Vec<T> quarter = fma(e.n, constant(T(0.25)), constant(C::kMagic));
  const Vec<T> three = bit_add(bit_add(quarter, quarter), quarter);
  const Vec<T> s = power_of_two(quarter, T(1));
  return (y.h + y.l) * power_of_two(bit_sub(e.shifted, three), T(1)) * s * s * s;
}
template <typename T>
FL_INLINE Vec<T> not_above_zero(Vec<T> x) {
  return select(less(Vec<T>::zero(), x), Vec<T>::zero(), x);
}
template <typename T>
FL_INLINE Vec<T> elu_slope(Vec<T> x, Vec<T> alpha) {
  const Vec<T> zero = Vec<T>::zero();
  const Vec<T> below = exp_times(Pair<T>{alpha, zero}, not_above_zero(x), zero);
  return or_nan(x, select(less(zero, x), constant(T(1)), below));
}
template <typename T>
FL_INLINE Vec<T> celu_slope(Vec<T> x, Vec<T> alpha) {
  const Vec<T> zero = Vec<T>::zero(), one = constant(T(1));
  const Vec<T> u = x / alpha;
  const Vec<T> low = fnma(u, alpha, x) / alpha;
  const Vec<T> below = exp_times(Pair<T>{one, zero}, u, low);
  return or_nan(x, select(less(zero, x), one, below));
}
template <typename T>
FL_INLINE Vec<T> selu_slope(Vec<T> x) {
  using C = MathConstants<T>;
  const Vec<T> zero = Vec<T>::zero();
  const Pair<T> factor = {constant(C::kSeluScaleAlphaHi), constant(C::kSeluScaleAlphaLo)};
  const Vec<T> below = exp_times(factor, not_above_zero(x), zero);
  return or_nan(x, select(less(zero, x), constant(C::kSeluScaleHi + C::kSeluScaleLo), below));
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
