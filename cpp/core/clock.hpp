// The clock of turns and of the team.
#pragma once

#include <chrono>
#include <cstdint>

namespace fastlayer {

inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace fastlayer
