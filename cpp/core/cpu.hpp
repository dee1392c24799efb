// Which instruction sets can be used and which one is, and the sizes of the caches.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "../kernels/table.hpp"

namespace fastlayer {

struct Caches {
  size_t l1, l2, l3;  // bytes: data cache of a core, cache of a core, cache of the chip
};

// Best first. A table is built when the compiler had the flags, supported when the processor and
// the operating system have the features; both are needed.
std::vector<const KernelTable*> built_tables();
std::vector<const KernelTable*> supported_tables();

// The best supported one, or the one that the environment's FASTLAYER_ISA names. Throws
// std::invalid_argument, with the names that would do, for an unknown or unsupported name.
const KernelTable& choose_table();
// The table chosen at the first call.
const KernelTable& active_table();

const Caches& caches();

template <typename T>
const Kernels<T>& kernels();
template <>
inline const Kernels<float>& kernels<float>() {
  return active_table().f32;
}
template <>
inline const Kernels<double>& kernels<double>() {
  return active_table().f64;
}

}  // namespace fastlayer
