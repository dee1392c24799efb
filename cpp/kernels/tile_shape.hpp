// How large the register tile of an instruction set is.
#pragma once

namespace fastlayer {

struct TileShape {
  int registers;
  int max_rows;
  int min_panels, max_panels;  // at the full height, and for fewer rows
  // Sixteenths of a panel: with at most so many columns in use it goes by lanes.
  int lane_share;
};

}  // namespace fastlayer
