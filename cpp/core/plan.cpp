#include "plan.hpp"

#include <algorithm>
#include <cstdio>

#include "../kernels/table.hpp"
#include "team.hpp"

namespace fastlayer {
namespace {

// Rough costs on one core of Zen 5 with AVX-512, picoseconds. They only decide how many threads a
// call is worth, so a factor of two does not matter.
constexpr double kMac = 8.0;          // one float multiply-add in a tile of many rows, per 4 bytes
constexpr double kWeightByte = 10.0;  // reading weights for few rows: 100 GB/s
constexpr double kElement = 400.0;    // one element of an activation

// Tiles of rows in a block where weights come from L2. Found with a prototype on Zen 5; on one core
// of Zen 4, 784-512-512-10 runs at 93 % of the FMA peak with them.
constexpr ptrdiff_t kNearTiles = 2;

// Weights from beyond L2 are read once a block, ahead of their use, so blocks need no more rows
// than hide that. 128 were best on Zen 3, whose memory gives 5 to 12 GB/s; on Zen 5 56 to 256 are
// alike, and 4096-4096-4096 gains 3 % from 128 over 256. Intermediate rows of a block take at most
// kFarScratch bytes: they may leave L2.
constexpr ptrdiff_t kFarRows = 128;
constexpr size_t kFarScratch = 4 * 1024 * 1024;

// Packed weights of a product in flight: at most this much, or one panel for each thread, and up to
// four times as much for many blocks of rows. A small part of the 9 to 12 MiB that virtual machines
// have of a 32 MiB L3 is best for few blocks, which soon take up what was packed. Many profit more
// from fewer stripes, for all of x and y pass by at each: 4096 squares take 608 ms with 5 MiB and
// parts of 1024, 575 with 18 and 4096 (Zen 5). A block asks for no more than 5 GB/s of weights.
constexpr ptrdiff_t kPackedBytes = 5 * 1024 * 1024;

ptrdiff_t packed_bytes(ptrdiff_t blocks) {
  return kPackedBytes * std::clamp<ptrdiff_t>(blocks / 4, 1, 4);
}

// Row-major (k, n) weights are read in place for up to this many rows; from there on a packed copy,
// with its adjacent lines, pays for itself. Lines whose distance fills few sets of L1 are not read
// for a second tile of rows: 8 rows by 784 by 512 then take 92 us packed, 99 in place, 14 rows 130
// and 146, and float64 205 and 269, 305 and 447 (AVX2 code on Zen 5).
constexpr ptrdiff_t kDirectRows = 14;

// Tiles of rows in a block of a product: 112 rows of 1024 floats are 448 KiB of L2.
constexpr ptrdiff_t kBlockTiles = 8;

// Panels that a thread takes at a time from a single block of rows.
constexpr ptrdiff_t kGroup = 8;
// Short panels of wide weights, an eighth of L2 at most: long pieces of the rows of w and y, which
// are pages apart. 64 x 64 x 65536 takes 10 % less than with 8 (Zen 5, both types; AVX2 level), but
// 64 x 64 x 16384, which the caches hold, takes 1 to 7 % more: hence a 128th of a thread's share.
constexpr ptrdiff_t kWideGroup = 32;

// Rows are taken through so much of k at a time, for all columns; the sum goes on in y. Panels of a
// single block of rows stay small. Multiples of kSumBlock.
constexpr ptrdiff_t kOneBlockDepth = 4 * kSumBlock;
constexpr ptrdiff_t kDepth = 16 * kSumBlock;

ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

// So much of x is taken through all weights at a time, and stays in L2 meanwhile.
ptrdiff_t bytes_of_x(const Caches& caches) { return static_cast<ptrdiff_t>(caches.l2 / 4); }

// Whether weights come from beyond L2. How large the last cache says it is does not matter: a
// virtual machine may have a third of it.
bool is_far(const Work& work, const Caches& caches) { return work.weight_bytes > caches.l2 / 2; }

ptrdiff_t cache_rows(const Work& work, const Caches& caches) {
  const size_t row = std::max<size_t>(work.scratch_row_bytes, 1);
  ptrdiff_t rows;
  if (is_far(work, caches)) {
    // One block of the sum of all rows of x, at least, is to stay in L2.
    const ptrdiff_t x = bytes_of_x(caches) / (kSumBlock * static_cast<ptrdiff_t>(work.element));
    rows = std::min({kFarRows, x, static_cast<ptrdiff_t>(kFarScratch / row)});
  } else {
    // Narrow networks: what a block costs beside its work shrinks while all of its rows fit L1.
    // Intermediate rows stay in L2 beside the weights.
    const auto in_l1 = static_cast<ptrdiff_t>(caches.l1 / 2 / row) / work.tile_rows;
    rows = std::min(std::max(kNearTiles, in_l1) * work.tile_rows,
                    static_cast<ptrdiff_t>(caches.l2 / 2 / row));
  }
  return std::max<ptrdiff_t>(rows / work.tile_rows, 1) * work.tile_rows;
}

std::string counted(ptrdiff_t n, const char* what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

std::string about(double picoseconds) {
  char text[40];
  std::snprintf(text, sizeof text, ", about %.1f us", picoseconds * 1e-6);
  return text;
}

ProductWay way_of(const Product& p) {
  const ptrdiff_t direct =
      p.lines_collide ? std::min<ptrdiff_t>(kDirectRows, p.tile_rows) : kDirectRows;
  if (p.lines_in_w && p.m <= direct) return ProductWay::kInPlace;
  if (p.fits_lanes && p.m <= p.max_lane_vectors && !p.accumulate) {
    return ProductWay::kLanes;
  }
  return p.m <= kBlockTiles * p.tile_rows ? ProductWay::kOneBlock : ProductWay::kManyBlocks;
}

}  // namespace

double estimate(ptrdiff_t m, const Work& work) {
  const double element = static_cast<double>(work.element) / 4.0 * work.vectors;
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
  plan.far = is_far(work, caches);
  plan.x_bytes = bytes_of_x(caches);
  if (threads == 1 && m > 0 &&
      m <= work.tile_rows) {  // the call of a tiny network notices the rest
    plan.row_block = m;
    plan.blocks = 1;
    return plan;
  }

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
  // Whole tiles, where a smaller last block leaves no thread idle.
  if (blocks > 1 && (plan.threads == 1 || blocks >= 8 * plan.threads)) {
    plan.row_block = ceil_div(plan.row_block, work.tile_rows) * work.tile_rows;
  }
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
  return counted(plan.threads, "thread") + (plan.split_columns ? ", columns" : ", rows") +
         " split, " + counted(plan.blocks, "block") + " of " + counted(plan.row_block, "row") +
         (plan.far ? ", weights fetched ahead" : "") + about(plan.picoseconds);
}

double matmul_picoseconds(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, size_t element) {
  Work work{};
  work.macs_per_row = n * k;
  work.weight_bytes = static_cast<size_t>(n * k) * element;
  work.element = element;
  return estimate(m, work);
}

Part ProductPlan::part(ptrdiff_t i) const {
  const ptrdiff_t sums = ceil_div(k, kSumBlock);
  const ptrdiff_t begin = sums * i / parts * kSumBlock;
  return {begin, std::min(k, sums * (i + 1) / parts * kSumBlock) - begin};
}

ProductPlan make_product_plan(const Product& product, const Caches& caches, int threads) {
  const ptrdiff_t m = product.m, n = product.n;
  // Divided by constants: small products notice a division.
  const bool single = product.element == sizeof(float);
  const ptrdiff_t full = single ? n / kLine<float> : n / kLine<double>;
  const ptrdiff_t panels = single ? ceil_div(n, kLine<float>) : ceil_div(n, kLine<double>);
  ProductPlan plan{};
  plan.way = way_of(product);
  plan.threads = threads;
  plan.k = product.k;
  plan.x_bytes = bytes_of_x(caches);
  plan.panels = panels;

  if (plan.way == ProductWay::kInPlace) {
    // Memory is read best along long stretches of the rows of w.
    plan.pieces = std::min<ptrdiff_t>(threads, panels);
  } else if (plan.way == ProductWay::kLanes) {
    // A last panel too narrow for a vector of lanes goes with the one before it.
    plan.panels = std::max<ptrdiff_t>(1, full);
    plan.pieces = threads == 1 ? 1 : std::min(kMaxPieces, ceil_div(plan.panels, kGroup));
  }
  if (plan.pieces > 0) {
    plan.threads = static_cast<int>(std::min<ptrdiff_t>(threads, plan.pieces));
    return plan;
  }

  const ptrdiff_t depth = plan.way == ProductWay::kOneBlock ? kOneBlockDepth : kDepth;
  plan.parts = std::max<ptrdiff_t>(1, (product.k + depth / 2) / depth);
  for (ptrdiff_t i = 0; i < plan.parts; ++i) plan.depth = std::max(plan.depth, plan.part(i).count);
  const ptrdiff_t panel_bytes = (plan.depth + 1) * kLineBytes;
  if (plan.way == ProductWay::kOneBlock) {
    plan.blocks = 1;
    plan.row_block = m;
    const auto fits = static_cast<ptrdiff_t>(caches.l2) / 2 / panel_bytes;
    const ptrdiff_t most = std::min({kWideGroup, panels / (128 * threads), fits / 4});
    plan.stripe =
        std::clamp<ptrdiff_t>(std::min(ceil_div(panels, threads), fits), 1, std::max(kGroup, most));
  } else {
    // Near-equal blocks, as many as threads can share evenly.
    ptrdiff_t blocks = ceil_div(m, kBlockTiles * product.tile_rows);
    if (blocks < 8 * threads) blocks = ceil_div(blocks, threads) * threads;
    plan.row_block = ceil_div(m, std::min(blocks, m));
    plan.blocks = ceil_div(m, plan.row_block);
    plan.stripe = std::clamp<ptrdiff_t>(packed_bytes(plan.blocks) / panel_bytes,
                                        std::min<ptrdiff_t>(threads, panels), panels);
    plan.stripe = ceil_div(panels, ceil_div(panels, plan.stripe));  // near-equal
    plan.far = plan.stripe * panel_bytes > static_cast<ptrdiff_t>(caches.l2) / 2;
  }
  plan.stripes = ceil_div(panels, plan.stripe);
  if (plan.way == ProductWay::kOneBlock) {
    plan.threads = static_cast<int>(std::min<ptrdiff_t>(threads, plan.stripes));
  }
  return plan;
}

std::string describe(const ProductPlan& plan) {
  const std::string threads = counted(plan.threads, "thread");
  if (plan.pieces > 0) {
    return threads + (plan.way == ProductWay::kLanes ? ", lanes, " : ", in place, ") +
           counted(plan.pieces, "piece");
  }
  return threads + ", packed, " + counted(plan.blocks, "block") + " of " +
         counted(plan.row_block, "row") + ", " + counted(plan.stripes, "stripe") + " of " +
         counted(plan.stripe, "panel") + (plan.far ? " fetched ahead, " : ", ") +
         counted(plan.parts, "part") + " of " + counted(plan.depth, "product");
}

}  // namespace fastlayer
