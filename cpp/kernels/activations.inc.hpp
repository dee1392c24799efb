// One function per element-wise activation, as activation_list.hpp calls it. What they are and how
// exact they are: docs/numerics.
#pragma once

#include "isa.inc.hpp"
#include "math.inc.hpp"
#include "trig.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

template <typename T>
FL_INLINE Vec<T> relu(Vec<T> x) {
  return select(less(x, Vec<T>::zero()), Vec<T>::zero(), x);
}
template <typename T>
FL_INLINE Vec<T> leaky_relu(Vec<T> x, Vec<T> slope) {
  return select(less(x, Vec<T>::zero()), slope * x, x);
}
template <typename T>
FL_INLINE Vec<T> hardtanh(Vec<T> x, Vec<T> low, Vec<T> high) {
  const Vec<T> y = select(less(x, low), low, x);
  return select(less(high, y), high, y);
}

// x times a factor h + l that is below 1, times `scale` where x < 0. A NaN, and a zero with its
// sign, stays what it is.
template <typename T>
FL_INLINE Vec<T> gated(Vec<T> x, Vec<T> clamped, Pair<T> factor, Vec<T> scale) {
  const auto negative = less(x, Vec<T>::zero());
  const Vec<T> first = select(negative, clamped, x);
  const Vec<T> y = fma(first, factor.h, clamped * factor.l);
  const Vec<T> down = y * scale * constant(MathConstants<T>::kScaleDown);
  return select(less(Vec<T>::zero(), abs(x)), select(negative, down, y), x);
}

// 1 / (1 + e^-z) at z = +-(a + low) >= 0 or <= 0 as n / d; where `negative`, the fraction still
// misses `scale` times kScaleDown.
template <typename T>
struct Sigmoid {
  Pair<T> n, d;
  Vec<T> scale;

  template <typename Mask>
  static FL_INLINE Sigmoid of(Vec<T> minus_a, Vec<T> minus_low, Mask negative) {
    const Vec<T> one = constant(T(1));
    const ExpParts<T> e = exp_parts(minus_a, minus_low);
    const Pair<T> m = mantissa(e);
    const Vec<T> scale = scale_up(e);
    const Vec<T> s = scale_beside_one(scale);
    const Vec<T> d = fma(m.h, s, one);
    const Vec<T> d_low = fma(m.l, s, fma(m.h, s, one - d));
    return {{select(negative, m.h, one), select(negative, m.l, Vec<T>::zero())}, {d, d_low}, scale};
  }

  // The same for plain arguments, with nothing missing: the quotient has the same bits.
  template <typename Mask>
  static FL_INLINE Sigmoid of_plain(Vec<T> minus_a, Mask negative) {
    const Vec<T> one = constant(T(1));
    const ExpParts<T> e = exp_parts(minus_a, Vec<T>::zero());
    const Vec<T> u = e.r + e.w;
    const Vec<T> s = power_of_two(e.shifted, T(1));
    const Vec<T> h = fma(u, s, s);
    const Vec<T> l = fma(u, s, s - h);
    const Vec<T> d = h + one;
    const Vec<T> d_low = l + (h + (one - d));
    return {{select(negative, h, one), select(negative, l, Vec<T>::zero())}, {d, d_low}, one};
  }
};

template <typename T>
FL_INLINE Vec<T> sigmoid(Vec<T> x) {
  using C = MathConstants<T>;
  const auto negative = less(x, Vec<T>::zero());
  if (plain(x)) {
    const Sigmoid<T> s = Sigmoid<T>::of_plain(negative_abs(x), negative);
    return quotient(s.n, s.d);
  }
  const Vec<T> minus_a = at_least(negative_abs(x), constant(C::kExpMin));
  const Sigmoid<T> s = Sigmoid<T>::of(minus_a, Vec<T>::zero(), negative);
  const Vec<T> y = quotient(s.n, s.d);
  const Vec<T> down = y * s.scale * constant(C::kScaleDown);
  return select(is_nan(x), x, select(negative, down, y));
}

template <typename T>
FL_INLINE Vec<T> silu(Vec<T> x) {
  using C = MathConstants<T>;
  const auto negative = less(x, Vec<T>::zero());
  if (plain(x)) {
    const Sigmoid<T> s = Sigmoid<T>::of_plain(negative_abs(x), negative);
    const Pair<T> factor = divide(s.n, s.d);
    const Vec<T> y = fma(x, factor.h, x * factor.l);
    return select(less(Vec<T>::zero(), abs(x)), y, x);
  }
  const Vec<T> minus_a = at_least(negative_abs(x), constant(C::kExpMin));
  const Sigmoid<T> s = Sigmoid<T>::of(minus_a, Vec<T>::zero(), negative);
  return gated(x, with_sign_of(negate(minus_a), x), divide(s.n, s.d), s.scale);
}

template <typename T>
FL_INLINE Vec<T> gelu_tanh(Vec<T> x) {
  using C = MathConstants<T>;
  const auto negative = less(x, Vec<T>::zero());
  const Vec<T> a = at_most(abs(x), constant(C::kGeluTanhMax));
  // z = a (A + B a^2) as a pair: its absolute error becomes the relative error of the result.
  const Pair<T> square = two_product(a, a);
  const Pair<T> b = two_product(constant(C::kGeluBHi), square.h);
  const Vec<T> b_low =
      fma(constant(C::kGeluBHi), square.l, fma(constant(C::kGeluBLo), square.h, b.l));
  const Pair<T> sum = two_sum(constant(C::kGeluAHi), b.h);
  const Vec<T> sum_low = sum.l + (b_low + constant(C::kGeluALo));
  const Pair<T> z = two_product(sum.h, a);
  const Vec<T> z_low = fma(sum_low, a, z.l);
  const Sigmoid<T> s = Sigmoid<T>::of(negate(z.h), negate(z_low), negative);
  // At the bound the result is -0, which the scale would come to by way of subnormal numbers.
  const Vec<T> scale = select(less(a, constant(C::kGeluTanhMax)), s.scale, Vec<T>::zero());
  return gated(x, with_sign_of(a, x), divide(s.n, s.d), scale);
}

// Where |x| <= kNearGelu.
template <typename T>
FL_INLINE Vec<T> near_gelu(Vec<T> x) {
  const Vec<T> one = constant(T(1));
  const auto negative = less(x, Vec<T>::zero());
  const Pair<T> tail = near_tail(abs(x));
  const Vec<T> rest = one - tail.h;
  const Vec<T> rest_low = ((one - rest) - tail.h) - tail.l;
  return fma(x, select(negative, tail.h, rest), x * select(negative, tail.l, rest_low));
}

// Where |x| >= kNearGelu.
template <typename T>
FL_INLINE Vec<T> far_gelu(Vec<T> x) {
  using C = MathConstants<T>;
  const Vec<T> one = constant(T(1));
  const auto negative = less(x, Vec<T>::zero());
  const Vec<T> a = at_most(at_least(abs(x), constant(C::kNearGelu)), constant(C::kGeluMax));
  const Pair<T> exponent = two_product(constant(T(-0.5)) * a, a);
  const ExpParts<T> e = exp_parts(exponent.h, exponent.l);
  const Vec<T> u = e.r + e.w;
  const Pair<T> g = far_tail(a);
  // Phi(-a) = phi 2^n
  const Pair<T> phi = fast_two_sum(g.h, fma(u, g.h, fma(u, g.l, g.l)));
  const Vec<T> scale = scale_up(e);
  const Vec<T> s = scale_beside_one(scale);
  const Vec<T> rest = fnma(phi.h, s, one);
  const Vec<T> rest_low = fnma(phi.h, s, one - rest);
  const Pair<T> factor = {select(negative, phi.h, rest), select(negative, phi.l, rest_low)};
  return gated(x, with_sign_of(a, x), factor, scale);
}

template <typename T>
FL_INLINE Vec<T> gelu(Vec<T> x) {
  const auto near = less(abs(x), constant(MathConstants<T>::kNearGelu));
  if (all(near)) return near_gelu(x);
  return select(near, near_gelu(x), far_gelu(x));
}

// x tanh(log(1 + e^x)) = x n / d with E = e^-|x|:
//   x < 0:   n = 2 E + E^2, d = n + 2        x >= 0:  n = 2 E + 1, d = n + 2 E^2
template <typename T>
FL_INLINE Vec<T> mish(Vec<T> x) {
  using C = MathConstants<T>;
  const Vec<T> one = constant(T(1));
  const auto negative = less(x, Vec<T>::zero());
  const Vec<T> minus_a = at_least(negative_abs(x), constant(C::kExpMin));
  const ExpParts<T> e = exp_parts(minus_a, Vec<T>::zero());
  const Pair<T> m = mantissa(e);
  const Vec<T> scale = scale_up(e);
  const Vec<T> s = scale * constant(C::kScaleDown);
  const Pair<T> big_e = {m.h * s, m.l * s};
  const Pair<T> square = two_product(big_e.h, big_e.h);
  const Vec<T> twice = big_e.h + big_e.h;
  const Vec<T> square_low = fma(twice, big_e.l, square.l);
  const Pair<T> p = {select(negative, square.h, one), select(negative, square_low, Vec<T>::zero())};
  const Pair<T> r = {select(negative, one, square.h), select(negative, Vec<T>::zero(), square_low)};
  Pair<T> n = two_sum(p.h, twice);
  n.l = n.l + fma(constant(T(2)), big_e.l, p.l);
  Pair<T> d = two_sum(n.h, r.h + r.h);
  d.l = d.l + fma(constant(T(2)), r.l, n.l);
  const Pair<T> q = divide(n, d);
  // Far below 0 the quotient is E itself, which may be subnormal.
  const auto tiny = less(x, constant(C::kTinyArg));
  const Pair<T> factor = {select(tiny, m.h, q.h), select(tiny, m.l, q.l)};
  return gated(x, with_sign_of(negate(minus_a), x), factor,
               select(tiny, scale, constant(C::kScaleUp)));
}

// log(1 + e^(beta x)) / beta; x itself where beta x > threshold. kUnit: beta is 1, and the bits are
// those of the general form.
template <typename T, bool kUnit>
struct Softplus {
  Vec<T> beta, inverse_beta, threshold;

  static FL_INLINE Softplus of(T beta, T threshold) {
    // Beyond kLinearArg the result is x in any case, and products cannot overflow.
    const T limit = MathConstants<T>::kLinearArg;
    return {constant(beta), constant(T(1) / beta), constant(threshold < limit ? threshold : limit)};
  }

  FL_INLINE Vec<T> operator()(Vec<T> x) const {
    using C = MathConstants<T>;
    const Vec<T> zero = Vec<T>::zero();
    const Pair<T> z = kUnit ? Pair<T>{x, zero} : two_product(beta, x);
    const auto negative = less(z.h, zero);
    const Vec<T> a = negative_abs(z.h);
    const Vec<T> minus_a = at_least(a, constant(C::kExpMin));
    const Vec<T> z_low = kUnit ? zero : select(less(a, constant(C::kExpMin)), zero, z.l);
    const Vec<T> a_low = kUnit ? zero : select(negative, z_low, negate(z_low));
    const ExpParts<T> e = exp_parts(minus_a, a_low);
    const Pair<T> m = mantissa(e);
    const Vec<T> scale = scale_up(e);
    const Vec<T> s = scale * constant(C::kScaleDown);
    const Pair<T> l = log1p(Pair<T>{m.h * s, m.l * s});
    const Pair<T> sum = two_sum(select(negative, zero, z.h), l.h);
    const Vec<T> l_low = kUnit ? l.l : l.l + select(negative, zero, z_low);
    // Far below 0 the logarithm is e^z itself, which may be subnormal.
    const auto tiny = less(z.h, constant(C::kTinyArg));
    const Vec<T> h = select(tiny, m.h, sum.h);
    const Vec<T> low = select(tiny, m.l, sum.l + l_low);
    const Vec<T> y = kUnit ? h + low : quotient_by_beta(h, low);
    const Vec<T> result = select(tiny, y * scale * constant(C::kScaleDown), y);
    return select(is_nan(x), x, select(less(threshold, z.h), x, result));
  }

  FL_INLINE Vec<T> quotient_by_beta(Vec<T> h, Vec<T> low) const {
    const Vec<T> q = h * inverse_beta;
    return fma(fnma(q, beta, h) + low, inverse_beta, q);
  }
};

template <typename T>
FL_INLINE Vec<T> softplus(Vec<T> x, T beta, T threshold) {
  return Softplus<T, false>::of(beta, threshold)(x);
}

template <typename T>
FL_INLINE Vec<T> log_sigmoid(Vec<T> x) {
  const auto softplus = Softplus<T, true>::of(T(1), MathConstants<T>::kLinearArg);
  return negate(softplus(negate(x)));
}

template <typename T>
FL_INLINE Vec<T> tanh(Vec<T> x) {
  using C = MathConstants<T>;
  const Vec<T> one = constant(T(1));
  const Vec<T> two = constant(T(2));
  const Vec<T> minus_a = at_least(negative_abs(x), constant(-C::kTanhMax));
  // (1 - E) / (1 + E), E = e^-2a, with 1 - E as exact as expm1.
  const ExpParts<T> e = exp_parts(minus_a + minus_a, Vec<T>::zero());
  const Vec<T> s = power_of_two(e.shifted, T(1));
  const Vec<T> c = one - s;
  const Vec<T> c_low = (one - c) - s;
  const Pair<T> u = fast_two_sum(e.r, e.w);
  const Vec<T> n = fnma(s, u.h, c);
  const Vec<T> n_low = fnma(s, u.l, fnma(s, u.h, c - n) + c_low);
  const Vec<T> d = two - n;
  const Vec<T> d_low = ((two - d) - n) - n_low;
  const Vec<T> y = quotient(Pair<T>{n, n_low}, Pair<T>{d, d_low});
  return select(is_nan(x), x, with_sign_of(y, x));
}

template <typename T>
FL_INLINE Vec<T> elu(Vec<T> x, Vec<T> alpha) {
  const Vec<T> floor = constant(-MathConstants<T>::kLinearArg);
  const Pair<T> m = expm1(at_least(x, floor), Vec<T>::zero());
  return select(less(x, Vec<T>::zero()), fma(alpha, m.h, alpha * m.l), x);
}

template <typename T>
FL_INLINE Vec<T> celu(Vec<T> x, Vec<T> alpha) {
  using C = MathConstants<T>;
  const Vec<T> inverse_alpha = constant(T(1)) / alpha;
  const Vec<T> floor = constant(-C::kLinearArg);
  const Vec<T> u = x / alpha;
  const auto clamped = less(u, floor);
  const Vec<T> u_low = fnma(u, alpha, x) * inverse_alpha;
  const Pair<T> m = expm1(select(clamped, floor, u), select(clamped, Vec<T>::zero(), u_low));
  const Vec<T> y = fma(alpha, m.h, alpha * m.l);
  // Where u is tiny the result is x; where u > 0, alpha < 0 and e^u may overflow.
  const Vec<T> infinite = alpha * constant(static_cast<T>(__builtin_inf()));
  const Vec<T> result = select(less(constant(C::kExpm1Max), u), infinite, y);
  const auto curved = less(constant(C::kCeluTiny), abs(u));
  return select(less(x, Vec<T>::zero()), select(curved, result, x), x);
}

template <typename T>
FL_INLINE Vec<T> selu(Vec<T> x) {
  using C = MathConstants<T>;
  const Vec<T> floor = constant(-C::kLinearArg);
  const Pair<T> m = expm1(at_least(x, floor), Vec<T>::zero());
  const Vec<T> below =
      fma(constant(C::kSeluScaleAlphaHi), m.h,
          fma(constant(C::kSeluScaleAlphaHi), m.l, constant(C::kSeluScaleAlphaLo) * m.h));
  const Vec<T> above = fma(constant(C::kSeluScaleHi), x, constant(C::kSeluScaleLo) * x);
  return select(less(x, Vec<T>::zero()), below, above);
}

// (h + l) / 6, rounded once.
template <typename T>
FL_INLINE Vec<T> sixth(Pair<T> p) {
  const Vec<T> inverse = constant(T(1) / T(6));
  const Vec<T> q = p.h * inverse;
  return fma(fnma(q, constant(T(6)), p.h) + p.l, inverse, q);
}

template <typename T>
FL_INLINE Vec<T> hardsigmoid(Vec<T> x) {
  const Vec<T> three = constant(T(3));
  const Vec<T> a = at_most(at_least(x, negate(three)), three);
  const Vec<T> y = sixth(fast_two_sum(three, a));
  return select(is_nan(x), x, y);
}

template <typename T>
FL_INLINE Vec<T> hardswish(Vec<T> x) {
  const Vec<T> three = constant(T(3));
  const Vec<T> a = at_most(at_least(x, negate(three)), three);
  const Pair<T> t = fast_two_sum(three, a);
  const Pair<T> p = two_product(a, t.h);
  const Vec<T> y = sixth(Pair<T>{p.h, fma(a, t.l, p.l)});
  return select(less(a, three), with_sign_of(y, x), x);
}

template <typename T>
FL_INLINE Vec<T> softsign(Vec<T> x) {
  // The bound only keeps inf / inf away; the quotient is 1 well before it.
  const Vec<T> a = at_most(abs(x), constant(T(0x1p+60)));
  const Vec<T> y = quotient(Pair<T>{a, Vec<T>::zero()}, two_sum(constant(T(1)), a));
  return select(is_nan(x), x, with_sign_of(y, x));
}

template <typename T>
FL_INLINE Vec<T> square_root(Vec<T> x) {
  const auto negative = less(x, Vec<T>::zero());
  const Vec<T> y = sqrt(select(negative, Vec<T>::zero(), x));
  return select(is_nan(x), x, select(negative, constant(static_cast<T>(__builtin_nan(""))), y));
}

template <typename T>
FL_INLINE Vec<T> threshold(Vec<T> x, Vec<T> bound, Vec<T> value) {
  return select(less(bound, x), x, select(is_nan(x), x, value));
}
template <typename T>
FL_INLINE Vec<T> hardshrink(Vec<T> x, Vec<T> lambd) {
  return select(less(lambd, abs(x)), x, select(is_nan(x), x, Vec<T>::zero()));
}
template <typename T>
FL_INLINE Vec<T> softshrink(Vec<T> x, Vec<T> lambd) {
  const Vec<T> a = abs(x);
  const Vec<T> y = with_sign_of(a - lambd, x);
  return select(less(lambd, a), y, select(is_nan(x), x, Vec<T>::zero()));
}

// Calls use(f) with the function of `act` on vectors, if the constant expression Takes(its kind).
template <bool (*Takes)(Activation), typename T, typename Use>
FL_INLINE void with_function(const ActivationArgs<T>& act, Use use) {
  [[maybe_unused]] const Vec<T> p0 = constant(act.p0), p1 = constant(act.p1);
  // Nothing of beta x is rounded away: fewer steps, and the same bits.
  if constexpr (Takes(Activation::kSoftplus)) {
    if (act.kind == Activation::kSoftplus && act.p0 == T(1)) {
      return use(Softplus<T, true>::of(act.p0, act.p1));
    }
  }
  // Likewise, celu with alpha 1 is elu.
  const bool is_elu = act.kind == Activation::kCelu && act.p0 == T(1);
  switch (is_elu ? Activation::kElu : act.kind) {
#define FL_ELEMENT(Name, name, result, slope)                                                   \
  case Activation::k##Name:                                                                     \
    if constexpr (Takes(Activation::k##Name)) use([=](Vec<T> v) FL_INLINED { return result; }); \
    return;
#define FL_ROW(Name, name)  \
  case Activation::k##Name: \
    return;  // softmax.inc.hpp
    FASTLAYER_ACTIVATIONS(FL_ELEMENT, FL_ROW)
#undef FL_ELEMENT
#undef FL_ROW
  }
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
