// The kernels of the instruction set `avx512`.
#include "vec_avx512.hpp"

#define FL_ISA avx512

namespace {
// Register tile: at most kMaxRows rows; kMinPanels panels at that height, up to kMaxPanels for
// fewer rows.
constexpr int kRegisters = 32, kMaxRows = 14, kMinPanels = 2, kMaxPanels = 8;
}  // namespace

#include "all.inc.hpp"
