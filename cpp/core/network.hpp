// The executor of whole networks: operations in order, row blocks through all of them, one parallel
// region a call. A reader starts at run() in network.cpp.
#pragma once

#include <memory>
#include <vector>

#include "packed_weights.hpp"
#include "plan.hpp"
#include "types.hpp"

namespace fastlayer {

enum class OpKind { kDense, kActivation, kPrelu, kAffine, kLayerNorm, kRmsNorm, kAdd };

// Where an operation reads and writes: an intermediate buffer, or one of the two ends.
constexpr int kInputSlot = -1;
constexpr int kOutputSlot = -2;

template <typename T>
struct Op {
  OpKind kind;
  ptrdiff_t in, out;                                // features
  int src, dst;                                     // slots; may be equal for everything but kDense
  int residual;                                     // kAdd: the slot that is added to src
  ActivationArgs<T> activation;                     // kDense, kActivation
  std::shared_ptr<const PackedWeights<T>> weights;  // kDense
  // kPrelu: slope in a; kAffine: scale in a, shift in b; norms: weight in a, bias in b or empty
  AlignedArray<T> a, b;
  T eps;
};

// Built by adding operations, then finish(); immutable and safe to run from many threads
// afterwards.
template <typename T>
class Network {
 public:
  using Scalar = T;

  explicit Network(ptrdiff_t in_features) : in_(in_features), features_(in_features) {}

  // Each takes the features that the operation before it gives; the caller has checked shapes.
  void dense(std::shared_ptr<const PackedWeights<T>> weights, ActivationArgs<T> activation);
  void activation(ActivationArgs<T> activation);
  void vector_op(OpKind kind, AlignedArray<T> a, AlignedArray<T> b, T eps);
  void begin_residual();
  void end_residual();
  void finish();

  ptrdiff_t in_features() const { return in_; }
  ptrdiff_t out_features() const { return features_; }
  bool finished() const { return finished_; }
  size_t open_residuals() const { return open_.size(); }
  ptrdiff_t residual_features() const { return open_.back().features; }

  // For m rows, with the threads that are worth inviting now.
  Plan plan(ptrdiff_t m) const;
  // y = network(x). x and y have the same number of rows and do not overlap; y.dtype is T's.
  void run(const RowsView& x, const RowsView& y, const Plan& plan) const;

 private:
  struct Residual {
    int slot;
    ptrdiff_t features;
  };

  // Whether the first operation reads its input more than once, so that rows that collide in the
  // cache are worth copying apart.
  bool reads_often() const {
    return !ops_.empty() && ops_[0].kind == OpKind::kDense && ops_[0].out > kLine<T>;
  }
  void run_rows(const RowsView& x, const RowsView& y, const Plan& plan) const;
  void run_columns(const RowsView& x, const RowsView& y, const Plan& plan) const;
  int new_slot(ptrdiff_t features);
  void release(int slot);
  void push(Op<T> op, bool in_place_allowed);

  ptrdiff_t in_, features_;
  std::vector<Op<T>> ops_;
  int current_ = kInputSlot;
  std::vector<Residual> open_;
  std::vector<ptrdiff_t> slot_width_;  // in elements, whole lines
  std::vector<int> free_slots_;
  Work work_{};
  bool finished_ = false;
};

}  // namespace fastlayer
