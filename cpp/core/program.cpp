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

template <typename T>
void Program<T>::release(int slot) {
  const bool held =
      std::any_of(open_.begin(), open_.end(), [slot](const Residual& r) { return r.slot == slot; });
  if (slot >= 0 && !held) free_slots_.push_back(slot);
}

template <typename T>
void Program<T>::push(Op<T> op, bool in_place_allowed) {
  op.in = features_;
  op.src = current_;
  const bool held = std::any_of(open_.begin(), open_.end(),
                                [this](const Residual& r) { return r.slot == current_; });
  if (in_place_allowed && current_ >= 0 && !held) {
    op.dst = current_;
  } else {
    op.dst = new_slot(op.out);
    release(op.src);
  }
  current_ = op.dst;
  features_ = op.out;
  work_.other_per_row += op.kind == OpKind::kDense && is_cheap(op.activation.kind) ? 0 : op.out;
  ops_.push_back(std::move(op));
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
  op.out = features_;
  op.activation = activation;
  push(std::move(op), true);
}

template <typename T>
void Program<T>::vector_op(OpKind kind, AlignedArray<T> a, AlignedArray<T> b, T eps) {
  Op<T> op{};
  op.kind = kind;
  op.out = features_;
  op.a = std::move(a);
  op.b = std::move(b);
  op.eps = eps;
  push(std::move(op), true);
}

template <typename T>
void Program<T>::begin_residual() {
  open_.push_back({current_, features_});
}

template <typename T>
void Program<T>::end_residual() {
  const Residual residual = open_.back();
  open_.pop_back();
  Op<T> op{};
  op.kind = OpKind::kAdd;
  op.out = features_;
  op.residual = residual.slot;
  const int before = current_;
  push(std::move(op), true);
  if (residual.slot != before && residual.slot != current_) release(residual.slot);
}

template <typename T>
void Program<T>::finish() {
  if (ops_.empty()) activation({Activation::kIdentity, T(0), T(0)});
  ops_.back().dst = kOutputSlot;
  for (ptrdiff_t stride : slot_strides_) {
    work_.scratch_row_bytes += static_cast<size_t>(stride) * sizeof(T);
  }
  work_.element = sizeof(T);
  work_.tile_rows = kernels<T>().max_tile_rows;
  work_.vectors = static_cast<double>(kLineBytes) / kernels<T>().vector_bytes;
  finished_ = true;
}

template <typename T>
Plan Program<T>::plan(ptrdiff_t m) const {
  return make_plan(m, work_, caches(), threads_for(estimate(m, work_)));
}

template class Program<float>;
template class Program<double>;

}  // namespace fastlayer
