// Memory that is new: the system makes a page, of 4 KiB to 2 MiB, when it is first touched. Rows of
// an array that is kept by columns touch all of its pages, so that the first block of rows would
// take as long as making all of them: half a second for 250 MB on a virtual machine.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "turns.hpp"
#include "types.hpp"

namespace fastlayer {

// Touches an array kept by columns in turns, where turns end; what it holds stays.
inline void touch_in_turns(const RowsView& y, int threads) {
  constexpr ptrdiff_t kPage = 4096, kPieceBytes = 1 << 20;
  const ptrdiff_t step = std::abs(y.strides[0]);
  if (lookout() == nullptr || y.leading != 1 || y.rows < 2 || step == 0 ||
      step >= std::abs(y.col_stride)) {
    return;
  }
  const ptrdiff_t rows = std::max<ptrdiff_t>(1, kPage / step);
  const ptrdiff_t some = std::max<ptrdiff_t>(1, kPieceBytes / (y.rows * step));
  std::atomic<ptrdiff_t> next{0};
  parallel_in_turns(threads, [&](int, Turn& turn) {
    ptrdiff_t first;
    while (!turn.over() && (first = next.fetch_add(some, std::memory_order_relaxed)) < y.cols) {
      for (ptrdiff_t j = first; j < std::min(first + some, y.cols); ++j) {
        for (ptrdiff_t i = 0; i < y.rows; i += rows) {
          volatile char* const byte = y.row(i) + j * y.col_stride;
          *byte = *byte;
        }
      }
    }
  });
}

}  // namespace fastlayer
