// What an instruction set offers to the core: a table of plain function pointers and the tile
// shapes behind them. Matrices are x (m, k), w (n, k), y (m, n); strides count elements.
#pragma once

#include <stddef.h>

#include "activation_list.hpp"

namespace fastlayer {

// The length of a block of the sum in docs/numerics: part of the results' definition, not a tuning
// knob.
constexpr ptrdiff_t kSumBlock = 256;

// Weights stand in panels one 64-byte line wide: 16 float or 8 double columns.
constexpr ptrdiff_t kLineBytes = 64;
template <typename T>
constexpr ptrdiff_t kLine = kLineBytes / static_cast<ptrdiff_t>(sizeof(T));

// Rows whose distance in bytes is a multiple of this fall into few sets of the L1 cache and drive
// each other out (32 KiB, 8 ways: 64 lines).
constexpr ptrdiff_t kBadStride = 2048;

// Rows that lanes read come from memory, and not from a cache, from this size of all of them on:
// the L3 of a core's neighbourhood, in a virtual machine often less than the system reports.
constexpr ptrdiff_t kFarBytes = 24 * 1024 * 1024;

// Rows of up to so many elements are short for softmax: while a line of them is at work, the next
// one is fetched, and neither drives the other out of L1.
constexpr ptrdiff_t kFetchedRow = 256;

// y = activation(x @ w.T + bias) for m rows and the panels of `cols` columns.
//
// Element (j, kk) of w is at w[(j / L) * panel_stride + kk * line_stride + j % L], L = kLine<T>:
// packed panels, or a row-major (k, n) matrix read in place with line_stride = its row stride and
// panel_stride = L. Every line of the last panel must be readable in full (padded), unless
// cols % L == 0. bias_stride is the distance between the panels' bias lines.
template <typename T>
struct DenseArgs {
  ptrdiff_t m, k, cols;
  const T* x;
  ptrdiff_t ldx;
  const T* w;
  ptrdiff_t panel_stride, line_stride;
  const T* bias;  // null: the sum starts at 0, or at y where accumulate is set
  ptrdiff_t bias_stride;
  T* y;
  ptrdiff_t ldy;
  bool accumulate;
  bool far;           // packed weights come from beyond L2
  ptrdiff_t x_bytes;  // of x are used at a time, and stay in L2 meanwhile
  // Null, or room for m rows of k elements, k rounded up to kSumBlock: x is copied here, for its
  // rows drive each other out of the cache where they lie.
  T* x_copy;
  // Null, or room for m rows of whole panels: far weights keep the sums here until their last
  // block, for rows of y may lie as badly.
  T* sums;
  bool y_padded;  // whole lines of y may be written: rows have room for the last panel
  ActivationArgs<T> activation;  // element-wise kinds only
};

// y = activation(a @ b.T + bias) for many rows of a and few vectors b, without packing: the lanes
// are rows of a. Element (r, kk) of a is at a[r * lda + kk], (j, kk) of b at b[kk * b_step + j], as
// in a panel, and the result of row r and vector j at y[r * y_row + j * y_vector].
template <typename T>
struct LaneArgs {
  ptrdiff_t rows, k;  // at least Kernels::lanes and a group of columns: see `fits_lanes`
  ptrdiff_t vectors;  // 1 .. Kernels::max_lane_vectors
  const T* a;
  ptrdiff_t lda;
  bool far = false;  // a is a part of more than kFarBytes
  const T* b;
  ptrdiff_t b_step;  // kLine; or 1, of a single vector
  const T* bias;     // null: the sum starts at 0
  ptrdiff_t bias_row, bias_vector;
  T* y;
  ptrdiff_t y_row, y_vector;
  ActivationArgs<T> activation;  // element-wise kinds only
};

// The gradient of the panels of a dense layer: line kk of panel p becomes the sum over the rows of
// x[kk] times panel p of dz, and the bias line the sum of dz alone; both in blocks of kSumBlock
// rows.
template <typename T>
struct GradientArgs {
  ptrdiff_t rows, k;
  const T* x;
  ptrdiff_t ldx;
  const T* dz;  // panels beside each other, readable in full
  ptrdiff_t ldz;
  ptrdiff_t panels;
  T* lines;
  T* bias;                 // null: not wanted
  ptrdiff_t panel_stride;  // of lines, and of bias lines
};

enum class Optimizer : int32_t { kSgd, kMomentum, kNesterov, kAdam, kAdamW };
constexpr const char* kOptimizerNames[] = {"sgd", "momentum", "nesterov", "adam", "adamw"};

// One step of an optimiser, its scalars rounded to T.
template <typename T>
struct OptimizerArgs {
  Optimizer kind;
  bool clips, decays;  // whether clip and decay count; AdamW always decays
  T clip;              // times the gradient
  T decay;             // times the weights, added to the gradient; of AdamW taken off the weights
  T lr, momentum;
  T gain;                       // of the gradient on its way into the moment of SGD
  T c1, b2, c2, step, r2, eps;  // Adam: 1 - b1, b2, 1 - b2; see optimizer.inc.hpp
};

enum class Loss : int32_t { kMse, kMae, kHuber, kCrossEntropy, kBinaryCrossEntropy, kPoisson };
constexpr const char* kLossNames[] = {
    "mse", "mae", "huber", "cross_entropy", "binary_cross_entropy", "poisson"};
// Rows of n elements that a loss needs as scratch for each row.
constexpr ptrdiff_t kLossScratch = 4;

// A loss of some rows: the double of each, and the gradient by y, or by the sum before the
// activation that the loss sees through.
template <typename T>
struct LossArgs {
  Loss kind;
  double p0;           // huber: delta; cross entropy: label smoothing
  double least, most;  // of a row's cross entropy, or of an element's binary one
  ptrdiff_t rows, n;
  const T* y;
  ptrdiff_t ldy;
  const T* t;  // or null, and class numbers in the place of rows
  ptrdiff_t ldt;
  const int64_t* labels;
  const double* shares;  // of each row in the whole loss; or null, and all have the same
  double share;
  T* dy;
  ptrdiff_t ldd;
  double* values;
  T* scratch;  // kLossScratch * rows * n
};

template <typename T>
struct Kernels {
  int max_tile_rows;  // rows of the largest register tile
  int max_lane_vectors;
  int vector_bytes;

  void (*dense)(const DenseArgs<T>& args);
  bool (*fits_lanes)(ptrdiff_t rows, ptrdiff_t k);
  void (*lanes)(const LaneArgs<T>& args);
  // Lines [0, count) of k of one panel from w with any strides; columns beyond `cols` become 0.
  // The lines lie `step` elements apart: kLine in a panel, the row length where the columns of x
  // become rows.
  void (*pack_panel)(const T* w, ptrdiff_t stride_n, ptrdiff_t stride_k, ptrdiff_t cols,
                     ptrdiff_t count, T* panel, ptrdiff_t step);

  // x and y may be the same array; any n >= 0.
  void (*activation)(const ActivationArgs<T>& act, const T* x, T* y, ptrdiff_t n);
  // dz = da f'(z), f of an element-wise kind; dz may be da or z.
  void (*activation_backward)(const ActivationArgs<T>& act, const T* da, const T* z, T* dz,
                              ptrdiff_t n);
  void (*prelu)(const T* x, const T* slope, T* y, ptrdiff_t n);
  // Copies past the caches: a store to a line that is in none of them would first read the line.
  // end_stream() before another thread may read what was stored; it waits for memory. Both null
  // where the instruction set has no such stores.
  void (*stream)(const T* x, T* y, ptrdiff_t n);
  void (*end_stream)();
  void (*add)(const T* x, const T* b, T* y, ptrdiff_t n);
  void (*multiply)(const T* x, const T* b, T* y, ptrdiff_t n);
  void (*affine)(const T* x, const T* scale, const T* shift, T* y, ptrdiff_t n);
  // Over each row. Here and below sums are compensated, and their order is fixed. far: y lies
  // beyond the caches, and lines of rows up to kFetchedRow are fetched before they are written.
  void (*softmax)(const T* x, ptrdiff_t ldx, T* y, ptrdiff_t ldy, ptrdiff_t rows, ptrdiff_t n,
                  bool far);
  void (*log_softmax)(const T* x, ptrdiff_t ldx, T* y, ptrdiff_t ldy, ptrdiff_t rows, ptrdiff_t n,
                      bool far);
  // Of one row: dz from p = softmax(z) and da. dz may be p or da.
  void (*softmax_backward)(const T* p, const T* da, T* dz, ptrdiff_t n);
  void (*log_softmax_backward)(const T* p, const T* da, T* dz, ptrdiff_t n);
  // One row each.
  // weight and bias may be null.
  void (*layer_norm)(const T* x, const T* weight, const T* bias, T eps, T* y, ptrdiff_t n);
  void (*rms_norm)(const T* x, const T* weight, T eps, T* y, ptrdiff_t n);

  // Training.
  void (*gradient)(const GradientArgs<T>& args);
  // Of n weights, whole lines; m and v as far as the kind has them.
  void (*optimize)(const OptimizerArgs<T>& args, T* w, const T* g, T* m, T* v, ptrdiff_t n);
  void (*loss)(const LossArgs<T>& args);
  // Element i of an array in panels is element i % k of neuron i / k. sums[b] is the sum of the
  // squares of block b, kSumBlock elements, from block `first` on; the last may be shorter.
  void (*square_sums)(const T* lines, ptrdiff_t panel_stride, ptrdiff_t n, ptrdiff_t k,
                      ptrdiff_t first, ptrdiff_t count, double* sums);
  // sums[j] is the blocked sum of the squares of neuron j, of n in panels.
  void (*neuron_squares)(const T* lines, ptrdiff_t panel_stride, ptrdiff_t n, ptrdiff_t k,
                         double* sums);
  // The blocked sum of u times v; v may be null for ones.
  double (*blocked_dot)(const double* u, const double* v, ptrdiff_t n);
};

struct KernelTable {
  const char* name;
  Kernels<float> f32;
  Kernels<double> f64;
};

namespace scalar {
extern const KernelTable kTable;
}
namespace avx2 {
extern const KernelTable kTable;
}
namespace avx512 {
extern const KernelTable kTable;
}
namespace neon {
extern const KernelTable kTable;
}

}  // namespace fastlayer
