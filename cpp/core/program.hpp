// A network compiled to row operations: what they are, and the slots between which they move rows.
// executor.hpp runs it.
#pragma once

#include <memory>
#include <vector>

#include "packed_weights.hpp"
#include "plan.hpp"
#include "types.hpp"

namespace fastlayer {

enum class OpKind { kDense, kActivation, kPrelu, kAffine, kLayerNorm, kRmsNorm, kAdd, kMultiply };

// What becomes of the results of branches.
enum class Join { kConcat, kAdd, kMultiply };

// Where an operation reads and writes: an intermediate buffer, or one of the two ends.
constexpr int kInputSlot = -1;
constexpr int kOutputSlot = -2;

// Where a value lies: in rows of a slot, from feature `at` on.
struct Place {
  int slot;
  ptrdiff_t at;
  bool operator==(const Place& other) const { return slot == other.slot && at == other.at; }
};

template <typename T>
struct Op {
  OpKind kind;
  ptrdiff_t in, out;                                // features
  Place src, dst;                                   // may be equal for everything but kDense
  Place other;                                      // kAdd, kMultiply: the second operand
  ActivationArgs<T> activation;                     // kDense, kActivation
  std::shared_ptr<const PackedWeights<T>> weights;  // kDense
  // kPrelu: slope in a; kAffine: scale in a, shift in b; norms: weight in a, bias in b or empty
  AlignedArray<T> a, b;
  T eps;
};

// The distance between rows of so many features in a slot, in elements: whole lines. Rows that lie
// a multiple of 4 KiB apart fall into the same few L1 sets; one more line spreads them.
template <typename T>
constexpr ptrdiff_t row_stride(ptrdiff_t features) {
  const ptrdiff_t lines = (features + kLine<T> - 1) / kLine<T> * kLine<T>;
  return lines * static_cast<ptrdiff_t>(sizeof(T)) % 4096 == 0 ? lines + kLine<T> : lines;
}

// Built by adding operations, then finish(); immutable afterwards, and safe to run from many
// threads.
template <typename T>
class Program {
 public:
  using Scalar = T;

  explicit Program(ptrdiff_t in_features)
      : in_(in_features), current_{{kInputSlot, 0}, in_features} {}

  // Each takes the features that the operation before it gives; the caller has checked shapes.
  void dense(std::shared_ptr<const PackedWeights<T>> weights, ActivationArgs<T> activation);
  void activation(ActivationArgs<T> activation);
  void vector_op(OpKind kind, AlignedArray<T> a, AlignedArray<T> b, T eps);
  // Features [begin, end) alone; nothing is copied.
  void slice(ptrdiff_t begin, ptrdiff_t end);
  // Branches take the same rows, one after the other, each between two of these calls; `total` is
  // the number of features that they give together, of kConcat.
  void begin_branches(Join join, ptrdiff_t total);
  void next_branch();
  void end_branches();
  void finish();

  ptrdiff_t in_features() const { return in_; }
  ptrdiff_t out_features() const { return current_.features; }
  bool finished() const { return finished_; }
  size_t open_branches() const { return open_.size(); }
  // Whether the branch that ends fits those before it.
  bool branch_fits() const;

  // Estimated time of m rows on one thread.
  double picoseconds(ptrdiff_t m) const { return estimate(m, work_); }
  // For m rows that take so long, with the threads that are worth inviting now.
  Plan plan(ptrdiff_t m, double picoseconds) const;
  Plan plan(ptrdiff_t m) const { return plan(m, picoseconds(m)); }
  const std::vector<Op<T>>& ops() const { return ops_; }
  // The distance between rows of each slot, in elements.
  const std::vector<ptrdiff_t>& slot_strides() const { return slot_strides_; }

 private:
  struct Value {
    Place place;
    ptrdiff_t features;
  };
  struct Branches {
    Join join;
    Value source, joined;
    ptrdiff_t total;
    bool first;    // nothing is joined yet
    size_t begin;  // the first operation of the branch at hand
  };

  // A slot that holds one value alone, from the beginning to the end.
  struct Concat {
    int slot;
    ptrdiff_t features;
  };

  int new_slot(ptrdiff_t features);
  bool held(int slot) const;
  void release(int slot);
  void push(Op<T> op, bool in_place_allowed);
  void move_to(Place place, size_t since);

  ptrdiff_t in_;
  Value current_;
  std::vector<Op<T>> ops_;
  std::vector<Branches> open_;
  std::vector<ptrdiff_t> slot_strides_;
  std::vector<Concat> concats_;
  std::vector<int> free_slots_;
  Work work_{};
  bool finished_ = false;
};

}  // namespace fastlayer
