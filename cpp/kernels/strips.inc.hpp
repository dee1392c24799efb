// y = x @ w.T + bias for many rows whose weights stay in the caches: columns of register tiles, one
// tile after the other down the rows. What a tile costs beside its sums, which is a fifth of the
// time where they are 16 to 64 long, is paid once a column: no arguments to set up, nothing to
// fetch, one instruction for relu.
#pragma once

#include "isa.inc.hpp"
#include "tile.inc.hpp"

namespace fastlayer {
namespace FL_ISA {
namespace {

template <typename T>
struct StripArgs {
  ptrdiff_t rows;  // a multiple of the tile's
  ptrdiff_t k;
  const T* x;
  ptrdiff_t ldx;
  const T* w;
  ptrdiff_t panel_stride;
  const T* bias;
  ptrdiff_t bias_stride;
  T* y;
  ptrdiff_t ldy;
  bool relu;
};

// y = max(c + acc, floor) row by row, c being the bias or y itself. Unrolled in full, so that the
// accumulators never leave their registers.
template <typename T, typename V, int MR, int N, bool FromBias>
FL_INLINE void finish_strip(const V (&acc)[MR][N], const V (&bias)[N], V floor, T* y,
                            ptrdiff_t ldy) {
  constexpr int kVecs = static_cast<int>(kLine<T>) / V::kLanes;
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i, y += ldy) {
#pragma GCC unroll 16
    for (int v = 0; v < N; ++v) {
      T* const at = y + v / kVecs * kLine<T> + v % kVecs * V::kLanes;
      const V c = FromBias ? bias[v] : V::load(at);
      floored(c + acc[i][v], floor).store(at);
    }
  }
}

// Tiles of MR rows and N vectors V.
template <typename T, typename V, int MR, int N>
void strip(const StripArgs<T>& s) {
  constexpr int kVecs = static_cast<int>(kLine<T>) / V::kLanes;
  const ptrdiff_t ldx = s.ldx, panel_stride = s.panel_stride;
  const T* x = s.x;
  T* y = s.y;
  for (ptrdiff_t row = 0; row < s.rows; row += MR, x += MR * ldx, y += MR * s.ldy) {
    const T* w = s.w;
    for (ptrdiff_t k0 = 0; k0 < s.k; k0 += kSumBlock) {
      const ptrdiff_t kc = s.k - k0 < kSumBlock ? s.k - k0 : kSumBlock;
      const T* a = x + k0;
      V acc[MR][N];
      for (int i = 0; i < MR; ++i) {
        for (int v = 0; v < N; ++v) acc[i][v] = V::zero();
      }
      V b[N];
      ptrdiff_t kk = 0;
      if constexpr (kSumsByLanes<V, MR, N>) {
        for (; kk + V::kLanes <= kc; kk += V::kLanes) {
          V values[MR];
          for (int i = 0; i < MR; ++i) values[i] = V::load(a + i * ldx);
          sum_by_lanes<0>(values, w, panel_stride, kLine<T>, acc);
          a += V::kLanes;
          w += V::kLanes * kLine<T>;
        }
      }
      for (; kk < kc; ++kk) {
        for (int v = 0; v < N; ++v) {
          b[v] = V::load(w + v / kVecs * panel_stride + v % kVecs * V::kLanes);
        }
        for (int i = 0; i < MR; ++i) {
          const V value = V::set1(a[i * ldx]);
          for (int v = 0; v < N; ++v) acc[i][v] = fma(value, b[v], acc[i][v]);
        }
        a += 1;
        w += kLine<T>;
      }
      const V floor = V::set1(s.relu && k0 + kc == s.k ? T(0) : -T(__builtin_inf()));
      if (k0 == 0) {
        for (int v = 0; v < N; ++v) {
          b[v] = V::load(s.bias + v / kVecs * s.bias_stride + v % kVecs * V::kLanes);
        }
        finish_strip<T, V, MR, N, true>(acc, b, floor, y, s.ldy);
      } else {
        finish_strip<T, V, MR, N, false>(acc, b, floor, y, s.ldy);
      }
    }
  }
}

// The first half of a panel: half its vectors, or vectors of half the width.
template <typename T, bool Vectors>
struct HalfPanel {
  using V = Vec<T>;
  static constexpr int kVecs = kLineVecs<T> / 2;
  static constexpr int kRows = V::kFmaByLane ? 8 : 2 * kShape.max_rows;
};
template <typename T>
struct HalfPanel<T, false> {
  using V = LaneVec<T>;
  static constexpr int kVecs = 1;
  static constexpr int kRows = kShape.max_rows;
};

template <typename T>
using Half = HalfPanel<T, (kLineVecs<T> > 1)>;
template <typename T>
constexpr ptrdiff_t kHalfColumns = Half<T>::kVecs* Half<T>::V::kLanes;

// How many of m rows go by tiles of MR; the others, cut evenly, are not left to flat ones.
constexpr ptrdiff_t strip_rows(ptrdiff_t m, ptrdiff_t rows) {
  const ptrdiff_t rest = m % rows;
  return rest == 0 || 2 * rest >= rows || m < 2 * rows ? m - rest : m - rest - rows;
}

}  // namespace
}  // namespace FL_ISA
}  // namespace fastlayer
