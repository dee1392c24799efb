// Two vectors of the instruction set FL_HALF as one, with the words of vec_scalar.hpp that
// activations are written in: what is written once over Vec computes two vectors side by side, step
// by step, and while one waits for a result the other goes on. Four vectors are a pair of pairs:
// for them this header is included once more, with the pair as FL_HALF.

#include <stddef.h>
#include <stdint.h>

#include "tile_shape.hpp"

#ifndef FL_HALF  // opened by itself
#include "vec_scalar.hpp"
#define FL_ISA scalar_pair
#define FL_HALF scalar
#endif

namespace fastlayer {
namespace FL_ISA {
namespace {

using FL_HALF::kShape;

template <typename T>
struct Vec {
  using Half = FL_HALF::Vec<T>;
  using Bits = typename Half::Bits;
  static constexpr int kLanes = 2 * Half::kLanes;
  static constexpr int kMantissaBits = Half::kMantissaBits;
  static constexpr bool kStreams = Half::kStreams;
  Half a, b;

  static FL_INLINE Vec load(const T* p) { return {Half::load(p), Half::load(p + Half::kLanes)}; }
  FL_INLINE void store(T* p) const {
    a.store(p);
    b.store(p + Half::kLanes);
  }
  static FL_INLINE Vec zero() { return {Half::zero(), Half::zero()}; }
  static FL_INLINE Vec set1(T s) {
    const Half h = Half::set1(s);
    return {h, h};
  }
  static FL_INLINE Vec set1_bits(Bits s) {
    const Half h = Half::set1_bits(s);
    return {h, h};
  }
};

// What less() of two halves gives; `T` only names it.
template <typename T>
struct Mask {
  using Half = FL_HALF::Vec<T>;
  decltype(less(Half{}, Half{})) a, b;
};

template <typename T>
FL_INLINE Vec<T> operator+(Vec<T> x, Vec<T> y) {
  return {x.a + y.a, x.b + y.b};
}
template <typename T>
FL_INLINE Vec<T> operator-(Vec<T> x, Vec<T> y) {
  return {x.a - y.a, x.b - y.b};
}
template <typename T>
FL_INLINE Vec<T> operator*(Vec<T> x, Vec<T> y) {
  return {x.a * y.a, x.b * y.b};
}
template <typename T>
FL_INLINE Vec<T> operator/(Vec<T> x, Vec<T> y) {
  return {x.a / y.a, x.b / y.b};
}
template <typename T>
FL_INLINE Vec<T> fma(Vec<T> x, Vec<T> y, Vec<T> z) {
  return {fma(x.a, y.a, z.a), fma(x.b, y.b, z.b)};
}
template <typename T>
FL_INLINE Vec<T> fms(Vec<T> x, Vec<T> y, Vec<T> z) {
  return {fms(x.a, y.a, z.a), fms(x.b, y.b, z.b)};
}
template <typename T>
FL_INLINE Vec<T> fnma(Vec<T> x, Vec<T> y, Vec<T> z) {
  return {fnma(x.a, y.a, z.a), fnma(x.b, y.b, z.b)};
}

template <typename T>
FL_INLINE Vec<T> sqrt(Vec<T> x) {
  return {sqrt(x.a), sqrt(x.b)};
}
FL_INLINE void widen(Vec<float> x, Vec<double>& low, Vec<double>& high) {
  FL_HALF::widen(x.a, low.a, low.b);
  FL_HALF::widen(x.b, high.a, high.b);
}
FL_INLINE Vec<float> narrow(Vec<double> low, Vec<double> high) {
  return {FL_HALF::narrow(low.a, low.b), FL_HALF::narrow(high.a, high.b)};
}

template <typename T>
FL_INLINE Vec<T> bit_and(Vec<T> x, Vec<T> y) {
  return {bit_and(x.a, y.a), bit_and(x.b, y.b)};
}
template <typename T>
FL_INLINE Vec<T> bit_or(Vec<T> x, Vec<T> y) {
  return {bit_or(x.a, y.a), bit_or(x.b, y.b)};
}
template <typename T>
FL_INLINE Vec<T> bit_xor(Vec<T> x, Vec<T> y) {
  return {bit_xor(x.a, y.a), bit_xor(x.b, y.b)};
}
template <typename T>
FL_INLINE Vec<T> bit_andnot(Vec<T> x, Vec<T> y) {
  return {bit_andnot(x.a, y.a), bit_andnot(x.b, y.b)};
}
template <typename T>
FL_INLINE Vec<T> bit_add(Vec<T> x, Vec<T> y) {
  return {bit_add(x.a, y.a), bit_add(x.b, y.b)};
}
template <typename T>
FL_INLINE Vec<T> bit_sub(Vec<T> x, Vec<T> y) {
  return {bit_sub(x.a, y.a), bit_sub(x.b, y.b)};
}
template <int N, typename T>
FL_INLINE Vec<T> shift_left(Vec<T> x) {
  return {FL_HALF::shift_left<N>(x.a), FL_HALF::shift_left<N>(x.b)};
}
template <int N, typename T>
FL_INLINE Vec<T> shift_right(Vec<T> x) {
  return {FL_HALF::shift_right<N>(x.a), FL_HALF::shift_right<N>(x.b)};
}

template <typename T>
FL_INLINE Mask<T> less(Vec<T> x, Vec<T> y) {
  return {less(x.a, y.a), less(x.b, y.b)};
}
template <typename T>
FL_INLINE Mask<T> is_nan(Vec<T> x) {
  return {is_nan(x.a), is_nan(x.b)};
}
template <typename T>
FL_INLINE bool all(Mask<T> m) {
  const int a = FL_HALF::all(m.a), b = FL_HALF::all(m.b);
  return (a & b) != 0;  // one branch for both
}
template <typename T>
FL_INLINE Vec<T> select(Mask<T> m, Vec<T> yes, Vec<T> no) {
  return {FL_HALF::select(m.a, yes.a, no.a), FL_HALF::select(m.b, yes.b, no.b)};
}

template <typename T>
FL_INLINE uint64_t bits_of(Mask<T> m) {
  const uint64_t b = FL_HALF::bits_of(m.b);
  return FL_HALF::bits_of(m.a) | b << (Vec<T>::kLanes / 2);
}
template <typename T>
FL_INLINE Mask<T> but_not(Mask<T> a, Mask<T> b) {
  return {FL_HALF::but_not(a.a, b.a), FL_HALF::but_not(a.b, b.b)};
}
template <typename T>
FL_INLINE void store_selected(Mask<T> m, Vec<T> v, T* p) {
  FL_HALF::store_selected(m.a, v.a, p);
  FL_HALF::store_selected(m.b, v.b, p + __builtin_popcountll(FL_HALF::bits_of(m.a)));
}
template <typename T>
FL_INLINE Vec<T> load_selected(Mask<T> m, const T* p, Vec<T> no) {
  const T* const p_b = p + __builtin_popcountll(FL_HALF::bits_of(m.a));
  return {FL_HALF::load_selected(m.a, p, no.a), FL_HALF::load_selected(m.b, p_b, no.b)};
}

template <typename T>
FL_INLINE Vec<T> at_least(Vec<T> x, Vec<T> bound) {
  return {at_least(x.a, bound.a), at_least(x.b, bound.b)};
}
template <typename T>
FL_INLINE Vec<T> at_most(Vec<T> x, Vec<T> bound) {
  return {at_most(x.a, bound.a), at_most(x.b, bound.b)};
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
