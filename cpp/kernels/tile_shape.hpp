// How large the register tile of an instruction set is.
#pragma once

namespace fastlayer {

struct TileShape {
  int registers;
  int max_rows;
  int min_panels, max_panels;  // at the full height, and for fewer rows
  // Up to so many rows keep their x in registers and load weights one at a time.
  int rows_of_x;
  // Sixteenths of a panel: with at most so many columns in use it goes by lanes.
  int lane_share;
};

}  // namespace fastlayer
