// The kernels of the instruction set `scalar`.
#include "vec_scalar.hpp"

#define FL_ISA scalar

namespace {
// Register tile: at most kMaxRows rows; kMinPanels panels at that height, up to kMaxPanels for
// fewer rows.
constexpr int kRegisters = 32, kMaxRows = 2, kMinPanels = 1, kMaxPanels = 2;
template <typename T>
using LaneVec = fastlayer::scalar::Vec<T>;
// Sixteenths of a panel: with at most so many columns in use it goes by lanes.
constexpr int kLaneShare = 2;
}  // namespace

#include "all.inc.hpp"
