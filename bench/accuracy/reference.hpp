// The activations as formulas that lose nothing to cancellation, for any type with the
// functions below. In double they serve as reference for float, in __float128 for double.
#pragma once

#include <cmath>

#if defined(__SIZEOF_FLOAT128__) && defined(FASTLAYER_QUADMATH)
#include <quadmath.h>
using Wide = __float128;
inline Wide f_exp(Wide x) { return expq(x); }
inline Wide f_expm1(Wide x) { return expm1q(x); }
inline Wide f_log1p(Wide x) { return log1pq(x); }
inline Wide f_tanh(Wide x) { return tanhq(x); }
inline Wide f_sin(Wide x) { return sinq(x); }
inline Wide f_cos(Wide x) { return cosq(x); }
inline Wide f_erfc(Wide x) { return erfcq(x); }
inline Wide f_abs(Wide x) { return fabsq(x); }
#define FASTLAYER_HAVE_WIDE 1
#endif

inline double f_exp(double x) { return std::exp(x); }
inline double f_expm1(double x) { return std::expm1(x); }
inline double f_log1p(double x) { return std::log1p(x); }
inline double f_tanh(double x) { return std::tanh(x); }
inline double f_sin(double x) { return std::sin(x); }
inline double f_cos(double x) { return std::cos(x); }
inline double f_erfc(double x) { return std::erfc(x); }
inline double f_abs(double x) { return std::fabs(x); }

// A decimal constant as an unevaluated sum of doubles, exact to 106 bits.
template <typename R>
R wide(double high, double low) {
  return R(high) + R(low);
}

template <typename R>
R ref_clip(R x, R low, R high) {
  if (x < low) return low;
  return x > high ? high : x;
}
template <typename R>
R ref_sigmoid(R x) {
  if (x < 0) {
    const R e = f_exp(x);
    return e / (1 + e);
  }
  return 1 / (1 + f_exp(-x));
}
template <typename R>
R ref_gelu(R x) {
  const R root_half = wide<R>(0x1.6a09e667f3bcdp-1, -0x1.bdd3413b26456p-55);
  return x * f_erfc(-x * root_half) / 2;
}
template <typename R>
R ref_gelu_tanh(R x) {
  const R root = wide<R>(0x1.9884533d43651p+0, -0x1.cbc0d30ebfd15p-54);  // 2 sqrt(2 / pi)
  const R cubic = R(44715) / R(1000000);
  return x * ref_sigmoid(root * (x + cubic * x * x * x));
}
template <typename R>
R ref_mish(R x) {
  if (x < 0) {
    const R e = f_exp(x);
    const R n = e * (e + 2);
    return x * n / (n + 2);
  }
  const R e = f_exp(-x);
  return x * (1 + 2 * e) / (1 + 2 * e + 2 * e * e);
}
template <typename R>
R ref_softplus(R x, R beta, R threshold) {
  const R z = beta * x;
  if (z > threshold) return x;
  return ((z > 0 ? z : R(0)) + f_log1p(f_exp(-f_abs(z)))) / beta;
}
template <typename R>
R ref_log_sigmoid(R x) {
  return (x < 0 ? x : R(0)) - f_log1p(f_exp(-f_abs(x)));
}
template <typename R>
R ref_selu(R x) {
  const R scale = wide<R>(0x1.0cfabd6a91132p+0, 0x1.6fc7d272f2695p-55);
  const R product = wide<R>(0x1.c212cc640f031p+0, 0x1.05161b045a1fep-56);
  return x < 0 ? product * f_expm1(x) : scale * x;
}

// Derivatives, by E = e^-a with a = |x|, so that the tails keep their digits.
template <typename R>
R ref_sigmoid_slope(R x) {
  const R e = f_exp(-f_abs(x));
  return e / ((1 + e) * (1 + e));
}
template <typename R>
R ref_tanh_slope(R x) {
  return 4 * ref_sigmoid_slope(2 * x);
}
// x s(u) with the sigmoid s: s(u) + x u' s(u) (1 - s(u)).
template <typename R>
R ref_gate_slope(R x, R u, R slope_of_u) {
  const R e = f_exp(-f_abs(u)), p = f_abs(x) * slope_of_u;
  const R n = x < 0 ? e * (1 + e - p) : 1 + e * (1 + p);
  return n / ((1 + e) * (1 + e));
}
template <typename R>
R ref_silu_slope(R x) {
  return f_abs(x) > 20000 ? R(x > 0) : ref_gate_slope(x, x, R(1));
}
template <typename R>
R ref_gelu_tanh_slope(R x) {
  if (f_abs(x) > 40) return R(x > 0);
  const R root = wide<R>(0x1.9884533d43651p+0, -0x1.cbc0d30ebfd15p-54);  // 2 sqrt(2 / pi)
  const R cubic = R(44715) / R(1000000);
  return ref_gate_slope(x, root * (x + cubic * x * x * x), root * (1 + 3 * cubic * x * x));
}
template <typename R>
R ref_gelu_slope(R x) {
  const R root_half = wide<R>(0x1.6a09e667f3bcdp-1, -0x1.bdd3413b26456p-55);
  const R density = wide<R>(0x1.9884533d43651p-2, -0x1.cbc0d30ebfd15p-56);  // 1 / sqrt(2 pi)
  if (f_abs(x) > 40) return R(x > 0);
  return f_erfc(-x * root_half) / 2 + x * density * f_exp(-x * x / 2);
}
// With n = e^x (e^x + 2) mish is x n / (n + 2).
template <typename R>
R ref_mish_slope(R x) {
  if (f_abs(x) > 20000) return R(x > 0);
  const R e = f_exp(-f_abs(x));
  if (x < 0) {
    const R d = 2 + 2 * e + e * e;
    return e * (4 * (1 + x) + e * (6 + 4 * x + e * (4 + e))) / (d * d);
  }
  const R d = 1 + 2 * e + 2 * e * e;
  return (1 + e * (4 + e * (6 + 4 * x + e * (4 + 4 * x)))) / (d * d);
}
template <typename R>
R ref_selu_slope(R x) {
  const R scale = wide<R>(0x1.0cfabd6a91132p+0, 0x1.6fc7d272f2695p-55);
  const R product = wide<R>(0x1.c212cc640f031p+0, 0x1.05161b045a1fep-56);
  return x > 0 ? scale : product * f_exp(x);
}
template <typename R>
R ref_hardswish_slope(R x) {
  return x <= -3 ? R(0) : x >= 3 ? R(1) : (2 * x + 3) / 6;
}
template <typename R>
R ref_softsign_slope(R x) {
  const R d = 1 + f_abs(x);
  return 1 / d / d;
}
