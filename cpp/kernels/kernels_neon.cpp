// The kernels of the instruction set `neon`.
#include "vec_neon.hpp"

#define FL_ISA neon

namespace {
// Register tile: at most kMaxRows rows; kMinPanels panels at that height, up to kMaxPanels for
// fewer rows.
constexpr int kRegisters = 32, kMaxRows = 6, kMinPanels = 1, kMaxPanels = 4;
template <typename T>
using LaneVec = fastlayer::neon::Vec<T>;
// Sixteenths of a panel: with at most so many columns in use it goes by lanes.
constexpr int kLaneShare = 4;
}  // namespace

#include "all.inc.hpp"
