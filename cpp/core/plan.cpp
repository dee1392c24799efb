#include "plan.hpp"

#include <algorithm>
#include <cstdio>

namespace fastlayer {
namespace {

// Rough costs on one core of Zen 4 or Zen 5, picoseconds. They only decide how many threads a call
// is worth, so a factor of two does not matter.
constexpr double kMac = 8.0;          // one float multiply-add in a tile of many rows, per 4 bytes
constexpr double kWeightByte = 10.0;  // reading weights for few rows: 100 GB/s
constexpr double kElement = 400.0;    // one element of an activation

// Tiles of rows in a block, by where the weights come from: those from L3 or memory are read once a
// block, so blocks grow until that reading hides behind the arithmetic. Found with a prototype on
// Zen 5; on one core of Zen 4, 784-512-512-10 runs at 93 % of the FMA peak with them.
constexpr ptrdiff_t kTilesL2 = 2;
constexpr ptrdiff_t kTilesL3 = 4;
constexpr ptrdiff_t kTilesMemory = 24;

ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

ptrdiff_t cache_rows(const Work& work, const Caches& caches) {
  const ptrdiff_t tiles = work.weight_bytes <= caches.l2 / 2   ? kTilesL2
                          : work.weight_bytes <= caches.l3 / 2 ? kTilesL3
                                                               : kTilesMemory;
  const size_t row = std::max<size_t>(work.scratch_row_bytes, 1);
  // Narrow networks: what a block costs beside its work shrinks while all of its rows fit L1.
  const auto in_l1 = static_cast<ptrdiff_t>(caches.l1 / 2 / row) / work.tile_rows;
  const ptrdiff_t wanted = std::max(tiles, in_l1) * work.tile_rows;
  // Intermediate rows stay in L2 beside the weights that pass through it. Where the weights come
  // from memory, reading them less often is worth more, and the rows may spill into a part of L3.
  const size_t room =
      tiles == kTilesMemory ? std::max(caches.l2 / 2, caches.l3 / 8) : caches.l2 / 2;
  const auto fits = static_cast<ptrdiff_t>(room / row);
  return std::max<ptrdiff_t>(std::min(wanted, fits), work.tile_rows);
}

}  // namespace

double estimate(ptrdiff_t m, const Work& work) {
  const double element = static_cast<double>(work.element) / 4.0;
  const double arithmetic =
      static_cast<double>(m) * static_cast<double>(work.macs_per_row) * kMac * element;
  const double reading = static_cast<double>(work.weight_bytes) * kWeightByte;
  const double other =
      static_cast<double>(m) * static_cast<double>(work.other_per_row) * kElement * element;
  return std::max(arithmetic, reading) + other;
}

Plan make_plan(ptrdiff_t m, const Work& work, const Caches& caches, int threads) {
  Plan plan{};
  plan.picoseconds = estimate(m, work);
  plan.threads = threads;

  // Few rows: a split of the rows would make every thread read all weights.
  const bool few = m < plan.threads * static_cast<ptrdiff_t>(work.tile_rows);
  if (plan.threads > 1 && few && work.widest_panels >= 2 * plan.threads) {
    plan.split_columns = true;
    plan.row_block = m;
    plan.blocks = 1;
    return plan;
  }
  // Blocks as equal as can be, as many as there are threads or a multiple of it.
  ptrdiff_t blocks = std::max<ptrdiff_t>(ceil_div(m, cache_rows(work, caches)), 1);
  if (plan.threads > 1 && blocks < 4 * plan.threads) {
    blocks = ceil_div(blocks, plan.threads) * plan.threads;
  }
  plan.row_block = std::max<ptrdiff_t>(ceil_div(m, blocks), 1);
  plan.blocks = ceil_div(m, plan.row_block);
  plan.threads =
      static_cast<int>(std::min<ptrdiff_t>(plan.threads, std::max<ptrdiff_t>(plan.blocks, 1)));
  return plan;
}

Plan with_short_blocks(Plan plan, ptrdiff_t m, ptrdiff_t least, double longest) {
  const double each = plan.picoseconds / static_cast<double>(m);
  const auto most = static_cast<ptrdiff_t>(longest / each);
  plan.row_block = std::min(plan.row_block, std::max(most, least));
  plan.blocks = ceil_div(m, plan.row_block);
  return plan;
}

std::string describe(const Plan& plan) {
  char text[160];
  std::snprintf(text, sizeof text, "%d thread%s, %s, %td block%s of %td row%s, about %.1f us",
                plan.threads, plan.threads == 1 ? "" : "s",
                plan.split_columns ? "columns split" : "rows split", plan.blocks,
                plan.blocks == 1 ? "" : "s", plan.row_block, plan.row_block == 1 ? "" : "s",
                plan.picoseconds * 1e-6);
  return text;
}

}  // namespace fastlayer
