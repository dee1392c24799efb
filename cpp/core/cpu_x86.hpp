// What an x86 processor has and its operating system saves, from CPUID and XCR0. The compilers'
// __builtin_cpu_supports needs a library that clang-cl does not link.
#pragma once

#include <cpuid.h>

namespace fastlayer {

struct X86Features {
  bool avx2 = false, fma = false;
  bool avx512f = false, avx512vl = false, avx512bw = false, avx512dq = false;
};

inline X86Features x86_features() {
  X86Features features;
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return features;
  constexpr unsigned kFma = 1u << 12, kXsave = 1u << 27, kAvx = 1u << 28;
  if ((c & kXsave) == 0 || (c & kAvx) == 0) return features;
  unsigned saved, high;
  __asm__ __volatile__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  constexpr unsigned kYmm = 0x06;  // SSE and AVX
  if ((saved & kYmm) != kYmm) return features;
#if defined(__APPLE__)
  const bool saves_zmm = true;  // macOS does from their first use on, and tells only then
#else
  constexpr unsigned kZmm = 0xe0;  // masks, and the rest of the registers
  const bool saves_zmm = (saved & kZmm) == kZmm;
#endif
  features.fma = (c & kFma) != 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return features;
  features.avx2 = (b & (1u << 5)) != 0;
  features.avx512f = saves_zmm && (b & (1u << 16)) != 0;
  features.avx512dq = saves_zmm && (b & (1u << 17)) != 0;
  features.avx512bw = saves_zmm && (b & (1u << 30)) != 0;
  features.avx512vl = saves_zmm && (b & (1u << 31)) != 0;
  return features;
}

}  // namespace fastlayer
