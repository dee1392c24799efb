// Every activation: this list is where the enumerators, the names in Python and the kernels' switch
// come from.
#pragma once

#include <stdint.h>

namespace fastlayer {

// ELEMENT(Enumerator, "name", result): `result` is what kernels compute for a vector v; p0 and p1
// are the parameters as vectors, act.p0 and act.p1 the same as numbers. ROW(Enumerator, "name")
// goes over a whole row and has a kernel of its own. A new activation goes to the end of its group:
// golden hashes count positions.
#define FASTLAYER_ACTIVATIONS(ELEMENT, ROW)                                        \
  ELEMENT(Identity, "identity", v)                                                 \
  ELEMENT(Relu, "relu", relu(v))                                                   \
  ELEMENT(LeakyRelu, "leaky_relu", leaky_relu(v, p0)) /* p0: negative_slope */     \
  ELEMENT(Hardtanh, "hardtanh", hardtanh(v, p0, p1))  /* min_val, max_val */       \
  ELEMENT(Elu, "elu", elu(v, p0))                     /* p0: alpha */              \
  ELEMENT(Celu, "celu", celu(v, p0))                  /* p0: alpha */              \
  ELEMENT(Selu, "selu", selu(v))                                                   \
  ELEMENT(Gelu, "gelu", gelu(v)) /* x Phi(x), by erf */                            \
  ELEMENT(GeluTanh, "gelu_tanh", gelu_tanh(v))                                     \
  ELEMENT(Silu, "silu", silu(v))                                                   \
  ELEMENT(Mish, "mish", mish(v))                                                   \
  ELEMENT(Sigmoid, "sigmoid", sigmoid(v))                                          \
  ELEMENT(LogSigmoid, "log_sigmoid", log_sigmoid(v))                               \
  ELEMENT(Hardsigmoid, "hardsigmoid", hardsigmoid(v))                              \
  ELEMENT(Hardswish, "hardswish", hardswish(v))                                    \
  ELEMENT(Tanh, "tanh", tanh(v))                                                   \
  ELEMENT(Softplus, "softplus", softplus(v, act.p0, act.p1)) /* beta, threshold */ \
  ELEMENT(Softsign, "softsign", softsign(v))                                       \
  ELEMENT(Exp, "exp", exp(v))                                                      \
  ELEMENT(Sin, "sin", sin(v))                                                      \
  ELEMENT(Cos, "cos", cos(v))                                                      \
  ELEMENT(Sqrt, "sqrt", square_root(v))                                            \
  ELEMENT(Threshold, "threshold", threshold(v, p0, p1)) /* threshold, value */     \
  ELEMENT(Hardshrink, "hardshrink", hardshrink(v, p0))  /* p0: lambd */            \
  ELEMENT(Softshrink, "softshrink", softshrink(v, p0))  /* p0: lambd */            \
  ROW(Softmax, "softmax")                                                          \
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
