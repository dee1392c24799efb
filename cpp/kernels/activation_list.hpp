// Every activation: this list is where the enumerators, the names in Python and the kernels' switch
// come from.
#pragma once

#include <stdint.h>

namespace fastlayer {

// ELEMENT(Enumerator, "name", result, slope): `result` is what kernels compute for a vector v, and
// `slope` its derivative there; p0 and p1 are the parameters as vectors, act.p0 and act.p1 the same
// as numbers. ROW(Enumerator, "name") goes over a whole row and has a kernel of its own. A new
// activation goes to the end of its group: golden hashes count positions.
#define FASTLAYER_ACTIVATIONS(ELEMENT, ROW)                                                        \
  ELEMENT(Identity, "identity", v, identity_slope(v))                                              \
  ELEMENT(Relu, "relu", relu(v), relu_slope(v))                                                    \
  ELEMENT(LeakyRelu, "leaky_relu", leaky_relu(v, p0),                                              \
          leaky_relu_slope(v, p0)) /* p0: negative_slope */                                        \
  ELEMENT(Hardtanh, "hardtanh", hardtanh(v, p0, p1),                                               \
          hardtanh_slope(v, p0, p1))                    /* min_val, max_val */                     \
  ELEMENT(Elu, "elu", elu(v, p0), elu_slope(v, p0))     /* p0: alpha */                            \
  ELEMENT(Celu, "celu", celu(v, p0), celu_slope(v, p0)) /* p0: alpha */                            \
  ELEMENT(Selu, "selu", selu(v), selu_slope(v))                                                    \
  ELEMENT(Gelu, "gelu", gelu(v), gelu_slope(v)) /* x Phi(x), by erf */                             \
  ELEMENT(GeluTanh, "gelu_tanh", gelu_tanh(v), gelu_tanh_slope(v))                                 \
  ELEMENT(Silu, "silu", silu(v), silu_slope(v))                                                    \
  ELEMENT(Mish, "mish", mish(v), mish_slope(v))                                                    \
  ELEMENT(Sigmoid, "sigmoid", sigmoid(v), sigmoid_slope(v))                                        \
  ELEMENT(LogSigmoid, "log_sigmoid", log_sigmoid(v), log_sigmoid_slope(v))                         \
  ELEMENT(Hardsigmoid, "hardsigmoid", hardsigmoid(v), hardsigmoid_slope(v))                        \
  ELEMENT(Hardswish, "hardswish", hardswish(v), hardswish_slope(v))                                \
  ELEMENT(Tanh, "tanh", tanh(v), tanh_slope(v))                                                    \
  ELEMENT(Softplus, "softplus", softplus(v, act.p0, act.p1),                                       \
          softplus_slope(v, act.p0, act.p1)) /* beta, threshold */                                 \
  ELEMENT(Softsign, "softsign", softsign(v), softsign_slope(v))                                    \
  ELEMENT(Exp, "exp", exp(v), exp(v))                                                              \
  ELEMENT(Sin, "sin", sin(v), cos(v))                                                              \
  ELEMENT(Cos, "cos", cos(v), cosine_slope(v))                                                     \
  ELEMENT(Sqrt, "sqrt", square_root(v), square_root_slope(v))                                      \
  ELEMENT(Threshold, "threshold", threshold(v, p0, p1),                                            \
          threshold_slope(v, p0))                                           /* threshold, value */ \
  ELEMENT(Hardshrink, "hardshrink", hardshrink(v, p0), shrink_slope(v, p0)) /* p0: lambd */        \
  ELEMENT(Softshrink, "softshrink", softshrink(v, p0), shrink_slope(v, p0)) /* p0: lambd */        \
  ROW(Softmax, "softmax")                                                                          \
  ROW(LogSoftmax, "log_softmax")

enum class Activation : int32_t {
#define FASTLAYER_ENUMERATOR(Name, ...) k##Name,
  FASTLAYER_ACTIVATIONS(FASTLAYER_ENUMERATOR, FASTLAYER_ENUMERATOR)
#undef FASTLAYER_ENUMERATOR
};

#define FASTLAYER_NAME(Name, name, ...) name,
constexpr const char* kActivationNames[] = {FASTLAYER_ACTIVATIONS(FASTLAYER_NAME, FASTLAYER_NAME)};
#undef FASTLAYER_NAME
constexpr int kActivationCount = sizeof(kActivationNames) / sizeof(kActivationNames[0]);

constexpr bool is_row_wise(Activation a) {
#define FASTLAYER_NOTHING(...)
#define FASTLAYER_SAME(Name, ...) || a == Activation::k##Name
  return false FASTLAYER_ACTIVATIONS(FASTLAYER_NOTHING, FASTLAYER_SAME);
#undef FASTLAYER_NOTHING
#undef FASTLAYER_SAME
}

// An activation with its parameters, already rounded to the element type by whoever fills it in.
template <typename T>
struct ActivationArgs {
  Activation kind;
  T p0, p1;
};

// What a dense kernel applies itself; a row-wise activation runs over finished rows.
template <typename T>
constexpr ActivationArgs<T> element_wise_part(ActivationArgs<T> act) {
  return is_row_wise(act.kind) ? ActivationArgs<T>{Activation::kIdentity, T(0), T(0)} : act;
}

}  // namespace fastlayer
