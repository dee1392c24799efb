#include "network.hpp"

#include <algorithm>
#include <atomic>

#include "convert.hpp"
#include "cpu.hpp"
#include "threads.hpp"

namespace fastlayer {
namespace {

template <typename T>
ptrdiff_t whole_lines(ptrdiff_t features) {
  return (features + kLine<T> - 1) / kLine<T> * kLine<T>;
}

// Rows that lie a multiple of 4 KiB apart fall into the same few L1 sets; one more line spreads
// them.
template <typename T>
ptrdiff_t row_stride(ptrdiff_t width) {
  const ptrdiff_t lines = whole_lines<T>(width);
  return lines * static_cast<ptrdiff_t>(sizeof(T)) % 4096 == 0 ? lines + kLine<T> : lines;
}

// Rows in one place: a pointer to the first and the distance to the next.
template <typename T>
struct Rows {
  T* data;
  ptrdiff_t ld;
  bool padded;  // whole lines may be written
};

// The buffers of one block of rows.
template <typename T>
struct Block {
  ptrdiff_t rows;
  Rows<T> input, output;
  T* scratch;
  const ptrdiff_t* offsets;  // of each slot, in elements
  const ptrdiff_t* strides;

  Rows<T> slot(int s) const {
    if (s == kInputSlot) return input;
    if (s == kOutputSlot) return output;
    return {scratch + offsets[s], strides[s], true};
  }
};

// The part [begin, end) of `total` that falls to thread t of n.
struct Share {
  ptrdiff_t begin, end;
  Share(ptrdiff_t total, int t, int n) : begin(total * t / n), end(total * (t + 1) / n) {}
};

template <typename T>
void run_dense(const Op<T>& op, const Block<T>& block, int thread, int threads) {
  const PackedWeights<T>& w = *op.weights;
  const Share panels(w.panels(), thread, threads);
  if (panels.begin == panels.end) return;
  const Rows<T> x = block.slot(op.src), y = block.slot(op.dst);
  DenseArgs<T> d;
  d.m = block.rows;
  d.k = op.in;
  d.cols = std::min(op.out, panels.end * kLine<T>) - panels.begin * kLine<T>;
  d.x = x.data;
  d.ldx = x.ld;
  d.w = w.weight_lines(panels.begin);
  d.panel_stride = w.panel_stride();
  d.line_stride = kLine<T>;
  d.bias = w.bias_line(panels.begin);
  d.bias_stride = w.panel_stride();
  d.y = y.data + panels.begin * kLine<T>;
  d.ldy = y.ld;
  d.accumulate = false;
  d.y_padded = y.padded;
  d.activation = op.activation;
  kernels<T>().dense(d);
}

template <typename T>
void run_row(const Op<T>& op, const T* x, const T* residual, T* y) {
  const Kernels<T>& kern = kernels<T>();
  const T* a = op.a.data();
  const T* b = op.b.data();
  switch (op.kind) {
    case OpKind::kActivation:
      if (op.activation.kind == Activation::kSoftmax) {
        kern.softmax(x, y, op.out);
      } else if (op.activation.kind == Activation::kLogSoftmax) {
        kern.log_softmax(x, y, op.out);
      } else {
        kern.activation(op.activation, x, y, op.out);
      }
      break;
    case OpKind::kPrelu:
      kern.prelu(x, a, y, op.out);
      break;
    case OpKind::kAffine:
      kern.affine(x, a, b, y, op.out);
      break;
    case OpKind::kLayerNorm:
      kern.layer_norm(x, a, b, op.eps, y, op.out);
      break;
    case OpKind::kRmsNorm:
      kern.rms_norm(x, a, op.eps, y, op.out);
      break;
    case OpKind::kAdd:
      kern.add(x, residual, y, op.out);
      break;
    case OpKind::kDense:
      break;
  }
}

template <typename T>
void run_op(const Op<T>& op, const Block<T>& block, int thread, int threads) {
  if (op.kind == OpKind::kDense) {
    run_dense(op, block, thread, threads);
    return;
  }
  const Rows<T> x = block.slot(op.src), y = block.slot(op.dst);
  const Rows<T> r = block.slot(op.kind == OpKind::kAdd ? op.residual : op.src);
  const Share rows(block.rows, thread, threads);
  for (ptrdiff_t i = rows.begin; i < rows.end; ++i) {
    run_row(op, x.data + i * x.ld, r.data + i * r.ld, y.data + i * y.ld);
  }
}

}  // namespace

template <typename T>
int Network<T>::new_slot(ptrdiff_t features) {
  if (free_slots_.empty()) {
    slot_width_.push_back(0);
    free_slots_.push_back(static_cast<int>(slot_width_.size()) - 1);
  }
  const int slot = free_slots_.back();
  free_slots_.pop_back();
  slot_width_[slot] = std::max(slot_width_[slot], row_stride<T>(features));
  return slot;
}

template <typename T>
void Network<T>::release(int slot) {
  const bool held =
      std::any_of(open_.begin(), open_.end(), [slot](const Residual& r) { return r.slot == slot; });
  if (slot >= 0 && !held) free_slots_.push_back(slot);
}

template <typename T>
void Network<T>::push(Op<T> op, bool in_place_allowed) {
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
  work_.other_per_row += op.kind == OpKind::kDense ? 0 : op.out;
  ops_.push_back(std::move(op));
}

template <typename T>
void Network<T>::dense(std::shared_ptr<const PackedWeights<T>> weights,
                       ActivationArgs<T> activation) {
  Op<T> op{};
  op.kind = OpKind::kDense;
  op.out = weights->n();
  op.activation = is_row_wise(activation.kind)
                      ? ActivationArgs<T>{Activation::kIdentity, T(0), T(0)}
                      : activation;
  work_.macs_per_row += weights->n() * weights->k();
  work_.weight_bytes += weights->nbytes();
  work_.widest_panels = std::max(work_.widest_panels, weights->panels());
  op.weights = std::move(weights);
  push(std::move(op), false);
  if (is_row_wise(activation.kind)) this->activation(activation);
}

template <typename T>
void Network<T>::activation(ActivationArgs<T> activation) {
  Op<T> op{};
  op.kind = OpKind::kActivation;
  op.out = features_;
  op.activation = activation;
  push(std::move(op), true);
}

template <typename T>
void Network<T>::vector_op(OpKind kind, AlignedArray<T> a, AlignedArray<T> b, T eps) {
  Op<T> op{};
  op.kind = kind;
  op.out = features_;
  op.a = std::move(a);
  op.b = std::move(b);
  op.eps = eps;
  push(std::move(op), true);
}

template <typename T>
void Network<T>::begin_residual() {
  open_.push_back({current_, features_});
}

template <typename T>
void Network<T>::end_residual() {
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
void Network<T>::finish() {
  if (ops_.empty()) activation({Activation::kIdentity, T(0), T(0)});
  ops_.back().dst = kOutputSlot;
  for (ptrdiff_t width : slot_width_) {
    work_.scratch_row_bytes += static_cast<size_t>(width) * sizeof(T);
  }
  work_.element = sizeof(T);
  work_.tile_rows = kernels<T>().max_tile_rows;
  finished_ = true;
}

template <typename T>
Plan Network<T>::plan(ptrdiff_t m, int max_threads) const {
  return make_plan(m, work_, caches(), max_threads);
}

// The whole call: cut the rows into blocks, and let each thread take blocks through all operations.
template <typename T>
void Network<T>::run(const RowsView& x, const RowsView& y, const Plan& plan) const {
  if (x.rows == 0 || out_features() == 0) return;
  const bool direct_x = x.direct<T>(), direct_y = y.direct<T>();
  const ptrdiff_t slots = static_cast<ptrdiff_t>(slot_width_.size());
  const ptrdiff_t rows = plan.row_block;

  // One workspace: the table of slots, then for every thread its slots and, where the ends need
  // converting, rows of input and output.
  const ptrdiff_t ld_x = row_stride<T>(in_features()), ld_y = row_stride<T>(out_features());
  ptrdiff_t elements = rows * ((direct_x ? 0 : ld_x) + (direct_y ? 0 : ld_y));
  for (ptrdiff_t width : slot_width_) elements += rows * width;
  const int scratches = plan.split_columns ? 1 : plan.threads;
  const size_t table = (static_cast<size_t>(slots) * sizeof(ptrdiff_t) + 63) / 64 * 64;
  char* const memory =
      static_cast<char*>(workspace(table + static_cast<size_t>(elements * scratches) * sizeof(T)));
  ptrdiff_t* const offsets = reinterpret_cast<ptrdiff_t*>(memory);
  T* const scratch = reinterpret_cast<T*>(memory + table);
  ptrdiff_t used = 0;
  for (ptrdiff_t s = 0; s < slots; ++s) {
    offsets[s] = used;
    used += rows * slot_width_[s];
  }

  const auto block_at = [&](ptrdiff_t first, ptrdiff_t count, T* own) {
    Block<T> block{count, {}, {}, own, offsets, slot_width_.data()};
    T* const converted_x = own + used;
    T* const converted_y = converted_x + (direct_x ? 0 : rows * ld_x);
    const ptrdiff_t size = sizeof(T);
    block.input = direct_x ? Rows<T>{reinterpret_cast<T*>(x.row(first)), x.strides[0] / size, false}
                           : Rows<T>{converted_x, ld_x, true};
    block.output = direct_y
                       ? Rows<T>{reinterpret_cast<T*>(y.row(first)), y.strides[0] / size, false}
                       : Rows<T>{converted_y, ld_y, true};
    return block;
  };

  if (plan.split_columns) {
    const Block<T> block = block_at(0, x.rows, scratch);
    parallel(plan.threads, [&](int thread) {
      if (!direct_x) {
        if (thread == 0) load_rows(x, 0, x.rows, block.input.data, block.input.ld);
        barrier();
      }
      for (const Op<T>& op : ops_) {
        run_op(op, block, thread, plan.threads);
        barrier();
      }
      if (!direct_y && thread == 0) store_rows(block.output.data, block.output.ld, y, 0, y.rows);
    });
    return;
  }

  std::atomic<ptrdiff_t> next{0};
  parallel(plan.threads, [&](int thread) {
    T* const own = scratch + thread * elements;
    for (;;) {
      const ptrdiff_t b = next.fetch_add(1, std::memory_order_relaxed);
      if (b >= plan.blocks) break;
      const ptrdiff_t first = b * rows;
      const ptrdiff_t count = std::min(rows, x.rows - first);
      const Block<T> block = block_at(first, count, own);
      if (!direct_x) load_rows(x, first, count, block.input.data, block.input.ld);
      for (const Op<T>& op : ops_) run_op(op, block, 0, 1);
      if (!direct_y) store_rows(block.output.data, block.output.ld, y, first, count);
    }
  });
}

template class Network<float>;
template class Network<double>;

}  // namespace fastlayer
