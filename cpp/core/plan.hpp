// How a call is cut up: a pure function of shapes, caches and threads, so that it can be printed
// and tested. Results never depend on a plan, only time does.
#pragma once

#include <cstddef>
#include <string>

#include "cpu.hpp"

namespace fastlayer {

// What a network costs, whatever the batch.
struct Work {
  ptrdiff_t macs_per_row;    // multiply-adds of one row through all layers
  ptrdiff_t other_per_row;   // elements that activations and norms touch
  size_t weight_bytes;       // all packed weights
  size_t scratch_row_bytes;  // intermediate rows of one sample
  ptrdiff_t widest_panels;   // panels of the widest layer
  size_t element;            // sizeof(T)
  int tile_rows;             // rows of the largest register tile
  double vectors = 1;        // vectors that do the work of one of 512 bits
};

struct Plan {
  ptrdiff_t row_block;  // rows that go through all layers together
  ptrdiff_t blocks;
  int threads;
  bool far;            // weights come from beyond L2
  ptrdiff_t x_bytes;   // of x are used at a time
  bool split_columns;  // one block; threads share the columns of each layer
  double picoseconds;  // estimated time on one thread
};

// Time on one thread, in picoseconds.
double estimate(ptrdiff_t m, const Work& work);

Plan make_plan(ptrdiff_t m, const Work& work, const Caches& caches, int threads);
// The plan with blocks that take at most `longest` picoseconds, or `least` rows: a block of a
// network of a gigabyte takes seconds.
Plan with_short_blocks(Plan plan, ptrdiff_t m, ptrdiff_t least, double longest);
std::string describe(const Plan& plan);

// A product of arrays as they are, y (m, n) = x (m, k) @ w.T, nothing packed beforehand.
struct Product {
  ptrdiff_t m, n, k;   // m, n >= 1
  size_t element;      // sizeof(T)
  bool lines_in_w;     // w is row-major (k, n): lines of a panel can be read in place
  bool lines_collide;  // their distance is a multiple of kBadStride
  bool accumulate;
  int tile_rows;         // rows of the largest register tile
  int max_lane_vectors;  // rows of x that lanes can take
  bool fits_lanes;       // w is row-major (n, k) and large enough for lanes
};

// See matmul.cpp for what each of them does, and why.
enum class ProductWay { kInPlace, kLanes, kOneBlock, kManyBlocks };

// A range of k.
struct Part {
  ptrdiff_t begin, count;
};

struct ProductPlan {
  ProductWay way;
  int threads;
  ptrdiff_t k;
  // kInPlace and kLanes: the columns, in pieces of whole panels.
  ptrdiff_t panels, pieces;
  // kOneBlock and kManyBlocks: near-equal parts of k, panels that are packed together, rows.
  ptrdiff_t parts, depth;  // depth: the longest part
  ptrdiff_t stripe, stripes;
  ptrdiff_t row_block, blocks;
  bool far;           // packed weights come from beyond L2
  ptrdiff_t x_bytes;  // of x are used at a time

  // Part i: whole blocks of the sum.
  Part part(ptrdiff_t i) const;
};

// Estimated time on one thread.
double matmul_picoseconds(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, size_t element);

ProductPlan make_product_plan(const Product& product, const Caches& caches, int threads);
std::string describe(const ProductPlan& plan);

// Below this the GIL is kept: giving it up and taking it back costs about 0.1 us, and a thread that
// wants it can be kept waiting this long without harm.
constexpr double kReleaseGilAbove = 20e6;

}  // namespace fastlayer
