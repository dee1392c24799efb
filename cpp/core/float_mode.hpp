// Rounding and flush-to-zero of the calling thread. Helpers compute with the caller's, so that
// every row of a call is treated alike.
#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace fastlayer {

#if defined(__SSE__)
inline unsigned long float_mode() { return _mm_getcsr(); }
inline void set_float_mode(unsigned long mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
inline unsigned long float_mode() {
  unsigned long mode;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void set_float_mode(unsigned long mode) {
  __asm__ __volatile__("msr fpcr, %0" : : "r"(mode));
}
#else
inline unsigned long float_mode() { return 0; }
inline void set_float_mode(unsigned long) {}
#endif

}  // namespace fastlayer
