#include "program.hpp"

#include <algorithm>

#include "cpu.hpp"
#include "team.hpp"

namespace fastlayer {
namespace {

// Whether an activation takes an instruction or three a vector, nothing beside the sum before it.
bool is_cheap(Activation kind) {
  return kind == Activation::kIdentity || kind == Activation::kRelu ||
         kind == Activation::kLeakyRelu || kind == Activation::kHardtanh ||
         kind == Activation::kHardsigmoid || kind == Activation::kHardswish;
}

}  // namespace

template <typename T>
int Program<T>::new_slot(ptrdiff_t features) {
  if (free_slots_.empty()) {
    slot_strides_.push_back(0);
    free_slots_.push_back(static_cast<int>(slot_strides_.size()) - 1);
  }
  const int slot = free_slots_.back();
  free_slots_.pop_back();
  slot_strides_[slot] = std::max(slot_strides_[slot], row_stride<T>(features));
  return slot;
}

// Whether somebody reads a slot later: a branch that has not begun yet, or the end of this one.
template <typename T>
bool Program<T>::held(int slot) const {
  return std::any_of(open_.begin(), open_.end(), [slot](const Branches& b) {
    return b.source.place.slot == slot || (!b.first && b.joined.place.slot == slot);
  });
}

template <typename T>
void Program<T>::release(int slot) {
  const bool concat = std::any_of(concats_.begin(), concats_.end(),
                                  [slot](const Concat& c) { return c.slot == slot; });
  if (slot >= 0 && !held(slot) && !concat) free_slots_.push_back(slot);
}

template <typename T>
void Program<T>::push(Op<T> op, bool in_place_allowed) {
  op.in = current_.features;
  op.src = current_.place;
  if (in_place_allowed && op.src.slot >= 0 && !held(op.src.slot)) {
    op.dst = op.src;
  } else {
    op.dst = {new_slot(op.out), 0};
    release(op.src.slot);
  }
  current_ = {op.dst, op.out};
  work_.other_per_row += op.kind == OpKind::kDense && is_cheap(op.activation.kind) ? 0 : op.out;
  ops_.push_back(std::move(op));
}

// The value at hand comes to lie somewhere else: its operation writes there where that is the last
// one, and none of those before `since`; else it is copied.
template <typename T>
void Program<T>::move_to(Place place, size_t since) {
  const bool fresh = ops_.size() > since && ops_.back().dst == current_.place &&
                     ops_.back().out == current_.features;
  if (!fresh) {
    Op<T> copy{};
    copy.kind = OpKind::kActivation;
    copy.activation = {Activation::kIdentity, T(0), T(0)};
    copy.in = copy.out = current_.features;
    copy.src = current_.place;
    work_.other_per_row += copy.out;
    ops_.push_back(std::move(copy));
  }
  ops_.back().dst = place;
  release(current_.place.slot);
  current_.place = place;
}

template <typename T>
void Program<T>::dense(std::shared_ptr<const PackedWeights<T>> weights,
                       ActivationArgs<T> activation) {
  Op<T> op{};
  op.kind = OpKind::kDense;
  op.out = weights->n();
  op.activation = element_wise_part(activation);
  work_.macs_per_row += weights->n() * weights->k();
  work_.weight_bytes += weights->nbytes();
  work_.widest_panels = std::max(work_.widest_panels, weights->panels());
  op.weights = std::move(weights);
  push(std::move(op), false);
  if (is_row_wise(activation.kind)) this->activation(activation);
}

template <typename T>
void Program<T>::activation(ActivationArgs<T> activation) {
  Op<T> op{};
  op.kind = OpKind::kActivation;
  op.out = current_.features;
  op.activation = activation;
  push(std::move(op), true);
}

template <typename T>
void Program<T>::vector_op(OpKind kind, AlignedArray<T> a, AlignedArray<T> b, T eps) {
  Op<T> op{};
  op.kind = kind;
  op.out = current_.features;
  op.a = std::move(a);
  op.b = std::move(b);
  op.eps = eps;
  push(std::move(op), true);
}

template <typename T>
void Program<T>::slice(ptrdiff_t begin, ptrdiff_t end) {
  current_.place.at += begin;
  current_.features = end - begin;
}

template <typename T>
void Program<T>::begin_branches(Join join, ptrdiff_t total) {
  Branches branches{join, current_, {}, total, true, ops_.size()};
  if (join == Join::kConcat) {
    slot_strides_.push_back(row_stride<T>(total));
    concats_.push_back({static_cast<int>(slot_strides_.size()) - 1, total});
    branches.joined = {{concats_.back().slot, 0}, 0};
  }
  open_.push_back(branches);
}

template <typename T>
bool Program<T>::branch_fits() const {
  const Branches& b = open_.back();
  if (b.join == Join::kConcat) return b.joined.features + current_.features <= b.total;
  return b.first || b.joined.features == current_.features;
}

template <typename T>
void Program<T>::next_branch() {
  Branches& b = open_.back();
  if (b.join == Join::kConcat) {
    move_to({b.joined.place.slot, b.joined.features}, b.begin);
    b.joined.features += current_.features;
  } else if (b.first) {
    b.joined = current_;
  } else {
    Op<T> op{};
    op.kind = b.join == Join::kAdd ? OpKind::kAdd : OpKind::kMultiply;
    op.out = current_.features;
    op.other = current_.place;
    const int other = op.other.slot;
    current_ = b.joined;
    b.first = true;  // what was joined is read here for the last time
    push(std::move(op), true);
    if (other != current_.place.slot) release(other);
    b.joined = current_;
  }
  b.first = false;
  b.begin = ops_.size();
  current_ = b.source;
}

template <typename T>
void Program<T>::end_branches() {
  next_branch();
  const Branches b = open_.back();
  open_.pop_back();
  current_ = b.joined;
  if (b.source.place.slot != current_.place.slot) release(b.source.place.slot);
}

template <typename T>
void Program<T>::finish() {
  // A slot of joined branches holds nothing else, so all that write there may write to the output.
  const int last = current_.place.slot;
  const auto whole = [&](const Concat& c) {
    return c.slot == last && c.features == current_.features;
  };
  if (std::any_of(concats_.begin(), concats_.end(), whole)) {
    for (Op<T>& op : ops_) {
      for (Place* place : {&op.src, &op.dst, &op.other}) {
        if (place->slot == last) place->slot = kOutputSlot;
      }
    }
    slot_strides_[last] = 0;
  } else {
    move_to({kOutputSlot, 0}, 0);
  }
  for (ptrdiff_t stride : slot_strides_) {
    work_.scratch_row_bytes += static_cast<size_t>(stride) * sizeof(T);
  }
  work_.element = sizeof(T);
  work_.tile_rows = kernels<T>().max_tile_rows;
  work_.vectors = static_cast<double>(kLineBytes) / kernels<T>().vector_bytes;
  finished_ = true;
}

template <typename T>
Plan Program<T>::plan(ptrdiff_t m, double picoseconds) const {
  return make_plan(m, work_, caches(), threads_for(picoseconds));
}

template class Program<float>;
template class Program<double>;

}  // namespace fastlayer
