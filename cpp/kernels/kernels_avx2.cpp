// The kernels of the instruction set `avx2`.
#include "vec_avx2.hpp"

#define FL_ISA avx2

namespace {
// Register tile: at most kMaxRows rows; kMinPanels panels at that height, up to kMaxPanels for
// fewer rows.
constexpr int kRegisters = 16, kMaxRows = 6, kMinPanels = 1, kMaxPanels = 4;
template <typename T>
using LaneVec = fastlayer::avx2::Vec<T>;
// Sixteenths of a panel: with at most so many columns in use it goes by lanes.
constexpr int kLaneShare = 4;
}  // namespace

#include "all.inc.hpp"
