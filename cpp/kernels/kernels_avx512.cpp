// The kernels of the instruction set `avx512`.
#include "vec_avx2.hpp"
#include "vec_avx512.hpp"

#define FL_ISA avx512

namespace {
// Register tile: at most kMaxRows rows; kMinPanels panels at that height, up to kMaxPanels for
// fewer rows.
constexpr int kRegisters = 32, kMaxRows = 14, kMinPanels = 2, kMaxPanels = 8;
// Transpositions in 256 bits: on Zen 4 a 512-bit one takes three times as long, and two 256-bit
// FMAs no longer than one of 512.
template <typename T>
using LaneVec = fastlayer::avx2::Vec<T>;
// Sixteenths of a panel: with at most so many columns in use it goes by lanes.
constexpr int kLaneShare = 12;
}  // namespace

#include "all.inc.hpp"
