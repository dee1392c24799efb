// The gradient of a dense layer's weights: the sums of tile.inc.hpp with the batch as k. Rows of dz
// are the lines of a panel as they lie, x is walked down its columns, and the result is a panel.
#pragma once

#include "isa.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

// A block of the sum for some columns of x and panels of dz.
template <typename T>
struct GradientTile {
  ptrdiff_t rows;  // 1..kSumBlock
  const T* x;
  ptrdiff_t ldx;
  const T* dz;
  ptrdiff_t ldz;
  T* g;
  ptrdiff_t panel_stride;
  bool first;  // the sum starts at 0, not at g
};

template <typename T, int MR, int P>
void gradient_tile(const GradientTile<T>& t) {
  using V = Vec<T>;
  constexpr int kVecs = kLineVecs<T>, N = P * kVecs;
  V acc[MR][N];
  for (int r = 0; r < MR; ++r) {
    for (int v = 0; v < N; ++v) acc[r][v] = V::zero();
  }
  const T* x = t.x;
  const T* dz = t.dz;
  const ptrdiff_t ldx = t.ldx, ldz = t.ldz;
  for (ptrdiff_t i = 0; i < t.rows; ++i, x += ldx, dz += ldz) {
    V b[N];
    for (int v = 0; v < N; ++v) b[v] = V::load(dz + v * V::kLanes);
    for (int r = 0; r < MR; ++r) {
      const V a = V::set1(x[r]);
      for (int v = 0; v < N; ++v) acc[r][v] = fma(a, b[v], acc[r][v]);
    }
  }
  T* g = t.g;
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r, g += kLine<T>) {
#pragma GCC unroll 16
    for (int v = 0; v < N; ++v) {
      T* const at = g + v / kVecs * t.panel_stride + v % kVecs * V::kLanes;
      const V c = t.first ? V::zero() : V::load(at);
      (c + acc[r][v]).store(at);
    }
  }
}

// The bias lines: the tile with x = 1.
template <typename T, int P>
void bias_tile(const GradientTile<T>& t) {
  using V = Vec<T>;
  constexpr int kVecs = kLineVecs<T>, N = P * kVecs;
  V acc[N];
  for (int v = 0; v < N; ++v) acc[v] = V::zero();
  const T* dz = t.dz;
  for (ptrdiff_t i = 0; i < t.rows; ++i, dz += t.ldz) {
    for (int v = 0; v < N; ++v) acc[v] = acc[v] + V::load(dz + v * V::kLanes);
  }
  for (int v = 0; v < N; ++v) {
    T* const at = t.g + v / kVecs * t.panel_stride + v % kVecs * V::kLanes;
    ((t.first ? V::zero() : V::load(at)) + acc[v]).store(at);
  }
}

template <typename T>
using GradientFunction = void (*)(const GradientTile<T>&);

template <typename T>
struct GradientTable {
  GradientFunction<T> at[kShape.max_rows + 1][kShape.min_panels + 1];
};

template <typename T, int MR, int P>
constexpr void fill_gradient_tiles(GradientTable<T>& tiles) {
  tiles.at[MR][P] = &gradient_tile<T, MR, P>;
  if constexpr (P < kShape.min_panels) {
    fill_gradient_tiles<T, MR, P + 1>(tiles);
  } else if constexpr (MR < kShape.max_rows) {
    fill_gradient_tiles<T, MR + 1, 1>(tiles);
  }
}

template <typename T>
constexpr GradientTable<T> make_gradient_tiles() {
  GradientTable<T> tiles{};
  fill_gradient_tiles<T, 1, 1>(tiles);
  return tiles;
}

template <typename T>
constexpr GradientTable<T> kGradientTiles = make_gradient_tiles<T>();

template <typename T>
void bias_gradient(const GradientArgs<T>& d, GradientTile<T> t) {
  constexpr ptrdiff_t kTogether = 4;
  for (ptrdiff_t p = 0; p < d.panels;) {
    t.dz = d.dz + p * kLine<T>;
    t.g = d.bias + p * d.panel_stride;
    for (; p + kTogether <= d.panels; p += kTogether) {
      bias_tile<T, kTogether>(t);
      t.dz += kTogether * kLine<T>;
      t.g += kTogether * d.panel_stride;
    }
    if (p == d.panels) return;
    bias_tile<T, 1>(t);
    ++p;
  }
}

// A block of rows at a time; within it, a few panels of dz stay in L1 while x passes by.
template <typename T>
void gradient(const GradientArgs<T>& d) {
  constexpr ptrdiff_t most = kShape.max_rows, wide = kShape.min_panels;
  const ptrdiff_t tiles = (d.k + most - 1) / most;
  for (ptrdiff_t i = 0; i < d.rows; i += kSumBlock) {
    GradientTile<T> t;
    t.rows = d.rows - i < kSumBlock ? d.rows - i : kSumBlock;
    t.ldx = d.ldx;
    t.ldz = d.ldz;
    t.panel_stride = d.panel_stride;
    t.first = i == 0;
    GradientArgs<T> block = d;
    block.x += i * d.ldx;
    block.dz += i * d.ldz;
    if (d.bias != nullptr) bias_gradient(block, t);
    for (ptrdiff_t p = 0; p < d.panels; p += wide) {
      const ptrdiff_t panels = d.panels - p < wide ? d.panels - p : wide;
      t.dz = block.dz + p * kLine<T>;
      // Near-equal tiles.
      for (ptrdiff_t tile = 0, kk = 0; tile < tiles; ++tile) {
        const ptrdiff_t count = (d.k - kk) / (tiles - tile);
        t.x = block.x + kk;
        t.g = d.lines + p * d.panel_stride + kk * kLine<T>;
        kGradientTiles<T>.at[count][panels](t);
        kk += count;
      }
    }
  }
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
