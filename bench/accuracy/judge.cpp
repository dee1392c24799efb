// Judges results of activations in ULP, through a C interface that run.py calls with ctypes. A
// reference is computed once and may judge many results: double judges float, __float128 double.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "reference.hpp"

// The findings on one implementation's results; of finite inputs, but for `nan_lost`.
struct Verdict {
  double worst, near, at, sum;  // near: the worst where 2^-10 <= |x| <= 4
  double at_zero;               // the worst next to the zero, in eps; counted nowhere else
  uint64_t count, exact, nan_lost;
};

namespace {

template <typename R>
struct Case {
  const char* name;
  R (*reference)(R x, R p0, R p1);
};

template <typename R>
const Case<R>* find(const char* name) {
  static const Case<R> cases[] = {
      {"relu", [](R x, R, R) { return x > 0 ? x : R(0); }},
      {"clip", [](R x, R low, R high) { return ref_clip(x, low, high); }},
      {"leaky_relu", [](R x, R slope, R) { return x < 0 ? slope * x : x; }},
      {"exp", [](R x, R, R) { return f_exp(x); }},
      {"sin", [](R x, R, R) { return f_sin(x); }},
      {"cos", [](R x, R, R) { return f_cos(x); }},
      {"tanh", [](R x, R, R) { return f_tanh(x); }},
      {"sigmoid", [](R x, R, R) { return ref_sigmoid(x); }},
      {"silu", [](R x, R, R) { return x * ref_sigmoid(x); }},
      {"softplus", [](R x, R beta, R threshold) { return ref_softplus(x, beta, threshold); }},
      {"log_sigmoid", [](R x, R, R) { return ref_log_sigmoid(x); }},
      {"celu", [](R x, R alpha, R) { return x > 0 ? x : alpha * f_expm1(x / alpha); }},
      {"selu", [](R x, R, R) { return ref_selu(x); }},
      {"gelu", [](R x, R, R) { return ref_gelu(x); }},
      {"gelu_tanh", [](R x, R, R) { return ref_gelu_tanh(x); }},
      {"mish", [](R x, R, R) { return ref_mish(x); }},
      {"hardsigmoid", [](R x, R, R) { return ref_clip(x + 3, R(0), R(6)) / 6; }},
      {"hardswish", [](R x, R, R) { return x < 3 ? x * ref_clip(x + 3, R(0), R(6)) / 6 : x; }},
      {"softsign", [](R x, R, R) { return x / (1 + f_abs(x)); }},
      {"relu'", [](R x, R, R) { return R(x > 0); }},
      {"clip'", [](R x, R low, R high) { return R(x > low && x < high); }},
      {"leaky_relu'", [](R x, R slope, R) { return x > 0 ? R(1) : slope; }},
      {"cos'", [](R x, R, R) { return -f_sin(x); }},
      {"tanh'", [](R x, R, R) { return ref_tanh_slope(x); }},
      {"sigmoid'", [](R x, R, R) { return ref_sigmoid_slope(x); }},
      {"silu'", [](R x, R, R) { return ref_silu_slope(x); }},
      {"softplus'",
       [](R x, R beta, R most) { return beta * x > most ? R(1) : ref_sigmoid(beta * x); }},
      {"log_sigmoid'", [](R x, R, R) { return ref_sigmoid(-x); }},
      {"celu'", [](R x, R alpha, R) { return x > 0 ? R(1) : f_exp(x / alpha); }},
      {"selu'", [](R x, R, R) { return ref_selu_slope(x); }},
      {"gelu'", [](R x, R, R) { return ref_gelu_slope(x); }},
      {"gelu_tanh'", [](R x, R, R) { return ref_gelu_tanh_slope(x); }},
      {"mish'", [](R x, R, R) { return ref_mish_slope(x); }},
      {"hardsigmoid'", [](R x, R, R) { return x > -3 && x < 3 ? 1 / R(6) : R(0); }},
      {"hardswish'", [](R x, R, R) { return ref_hardswish_slope(x); }},
      {"softsign'", [](R x, R, R) { return ref_softsign_slope(x); }},
  };
  for (const Case<R>& c : cases) {
    if (std::strcmp(c.name, name) == 0) return &c;
  }
  return nullptr;
}

// |got - want| in units of the spacing of T's numbers around `want`.
double error_in_ulp(float got, double want) {
  if (std::isinf(got) && got == static_cast<float>(want)) return 0;
  uint64_t pattern;
  std::memcpy(&pattern, &want, sizeof pattern);
  const int exponent = static_cast<int>(pattern >> 52 & 0x7ff) - 1023;
  const int spacing = exponent < -126 ? -149 : exponent - 23;
  pattern = static_cast<uint64_t>(1023 - spacing) << 52;
  double scale;
  std::memcpy(&scale, &pattern, sizeof scale);
  return std::fabs(got - want) * scale;
}

#ifdef FASTLAYER_HAVE_WIDE
double error_in_ulp(double got, Wide want) {
  if (std::isinf(got) && got == static_cast<double>(want)) return 0;
  int exponent = 0;
  frexpq(want, &exponent);
  const int spacing = want == 0 || exponent < -1021 ? -1074 : exponent - 53;
  // Not as double: the difference may lie below the smallest one.
  return static_cast<double>(scalbnq(f_abs(Wide(got) - want), -spacing));
}
#endif

template <typename R, typename T>
int refer(const char* name, double p0, double p1, const T* x, R* want, size_t n) {
  const Case<R>* c = find<R>(name);
  if (c == nullptr) return 1;
  const R first = static_cast<T>(p0), second = static_cast<T>(p1);
  for (size_t i = 0; i < n; ++i) want[i] = c->reference(x[i], first, second);
  return 0;
}

// Of every `step`-th input from `first` on; `y` holds the results for these alone. Less than 1/4
// from `zero` the function passes through 0, and errors count absolutely.
template <typename R, typename T>
void judge(const T* x, const R* want, double zero, size_t first, size_t step, size_t n, const T* y,
           Verdict* verdict) {
  Verdict v = *verdict;
  for (size_t i = first; i < n; i += step, ++y) {
    if (std::isnan(x[i])) v.nan_lost += !std::isnan(*y);
    if (!std::isfinite(x[i])) continue;
    if (std::fabs(static_cast<double>(x[i]) - zero) < 0.25) {
      const double error =
          static_cast<double>(f_abs(R(*y) - want[i])) / std::numeric_limits<T>::epsilon();
      if (!(error <= v.at_zero)) v.at_zero = std::isnan(error) ? HUGE_VAL : error;
      continue;
    }
    double error = error_in_ulp(*y, want[i]);
    if (std::isnan(error)) error = HUGE_VAL;  // NaN out of a number
    ++v.count;
    v.exact += *y == static_cast<T>(want[i]);
    v.sum += error;
    const T size = std::fabs(x[i]);
    if (error > v.near && size >= T(0x1p-10) && size <= 4) v.near = error;
    if (error > v.worst) {
      v.worst = error;
      v.at = static_cast<double>(x[i]);
    }
  }
  *verdict = v;
}

}  // namespace

extern "C" {

int refer_float32(const char* name, double p0, double p1, const float* x, double* want, size_t n) {
  return refer(name, p0, p1, x, want, n);
}

void judge_float32(const float* x, const double* want, double zero, size_t first, size_t step,
                   size_t n, const float* y, Verdict* verdict) {
  judge(x, want, zero, first, step, n, y, verdict);
}

#ifdef FASTLAYER_HAVE_WIDE
int refer_float64(const char* name, double p0, double p1, const double* x, Wide* want, size_t n) {
  return refer(name, p0, p1, x, want, n);
}

void judge_float64(const double* x, const Wide* want, double zero, size_t first, size_t step,
                   size_t n, const double* y, Verdict* verdict) {
  judge(x, want, zero, first, step, n, y, verdict);
}
#endif

}  // extern "C"
