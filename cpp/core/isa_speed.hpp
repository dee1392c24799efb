// How fast each instruction set is on this processor: a wider one is not always, where the clock
// falls while it is used.
#pragma once

#include <vector>

namespace fastlayer {

struct IsaSpeed {
  const char* name;
  double flops;  // of a second
};

// float32 products of one thread that stay in its caches, in `turns` turns of 10 ms for each
// supported set, best of turns; the active set stays what it is. Best set first, as cpu.hpp has
// them. Throws std::bad_alloc.
std::vector<IsaSpeed> isa_speeds(int turns);

}  // namespace fastlayer
