#include "executor.hpp"

#include <algorithm>
#include <atomic>
#include <new>

#include "convert.hpp"
#include "cpu.hpp"
#include "first_touch.hpp"
#include "team.hpp"
#include "turns.hpp"

namespace fastlayer {
namespace {

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
  const Plan* plan;
  Rows<T> input, output;
  T* scratch;
  const ptrdiff_t* offsets;  // of each slot, in elements
  const ptrdiff_t* strides;

  Rows<T> at(Place place) const {
    Rows<T> found = place.slot == kInputSlot ? input : output;
    if (place.slot >= 0) found = {scratch + offsets[place.slot], strides[place.slot], true};
    found.data += place.at;
    found.padded = found.padded && place.at == 0;
    return found;
  }
};

// Piece i of n of an operation's panels or rows.
struct Share {
  ptrdiff_t begin, end;
  Share(ptrdiff_t total, ptrdiff_t i, ptrdiff_t n)
      : begin(total * i / n), end(total * (i + 1) / n) {}
};

template <typename T>
void run_dense(const Op<T>& op, const Block<T>& block, ptrdiff_t piece, ptrdiff_t pieces) {
  const PackedWeights<T>& w = *op.weights;
  const Share panels(w.panels(), piece, pieces);
  if (panels.begin == panels.end) return;
  const Rows<T> x = block.at(op.src), y = block.at(op.dst);
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
  d.far = block.plan->far;
  d.x_bytes = block.plan->x_bytes;
  d.x_copy = nullptr;
  d.sums = nullptr;
  d.y_padded = y.padded;
  d.activation = op.activation;
  kernels<T>().dense(d);
}

template <typename T>
void run_row(const Op<T>& op, const T* x, const T* other, T* y) {
  const Kernels<T>& kern = kernels<T>();
  const T* a = op.a.data();
  const T* b = op.b.data();
  switch (op.kind) {
    case OpKind::kActivation:
      kern.activation(op.activation, x, y, op.out);
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
      kern.add(x, other, y, op.out);
      break;
    case OpKind::kMultiply:
      kern.multiply(x, other, y, op.out);
      break;
    case OpKind::kDense:
      break;
  }
}

template <typename T>
void run_op(const Op<T>& op, const Block<T>& block, ptrdiff_t piece, ptrdiff_t pieces) {
  if (op.kind == OpKind::kDense) {
    run_dense(op, block, piece, pieces);
    return;
  }
  const Rows<T> x = block.at(op.src), y = block.at(op.dst);
  const bool two = op.kind == OpKind::kAdd || op.kind == OpKind::kMultiply;
  const Rows<T> other = block.at(two ? op.other : op.src);
  const Share rows(block.rows, piece, pieces);
  if (op.kind == OpKind::kActivation && is_row_wise(op.activation.kind)) {
    const bool log = op.activation.kind == Activation::kLogSoftmax;
    (log ? kernels<T>().log_softmax : kernels<T>().softmax)(x.data + rows.begin * x.ld, x.ld,
                                                            y.data + rows.begin * y.ld, y.ld,
                                                            rows.end - rows.begin, op.out, false);
    return;
  }
  for (ptrdiff_t i = rows.begin; i < rows.end; ++i) {
    run_row(op, x.data + i * x.ld, other.data + i * other.ld, y.data + i * y.ld);
  }
}

// Pieces of an operation that threads share: eight panels, the widest tile of a single row, or a
// row.
template <typename T>
ptrdiff_t pieces_of(const Op<T>& op, ptrdiff_t rows, int threads) {
  if (op.kind != OpKind::kDense) return std::min(rows, kMaxPieces);
  const ptrdiff_t panels = op.weights->panels();
  const ptrdiff_t least = std::min({panels, ptrdiff_t(threads), kMaxPieces});
  return std::clamp(panels / 8, least, kMaxPieces);
}

// Whether a product reads the input more than once, so that rows that collide in the cache are
// worth copying apart.
template <typename T>
bool reads_often(const Program<T>& program) {
  const std::vector<Op<T>>& ops = program.ops();
  return std::any_of(ops.begin(), ops.end(), [](const Op<T>& op) {
    return op.kind == OpKind::kDense && op.src.slot == kInputSlot && op.out > kLine<T>;
  });
}

// Rows [first, first + count) of all inputs, beside each other.
template <typename T>
void load_inputs(const Inputs& x, ptrdiff_t first, ptrdiff_t count, const Rows<T>& to) {
  ptrdiff_t at = 0;
  for (int i = 0; i < x.count; ++i) {
    load_rows(x.views[i], first, count, to.data + at, to.ld, to.ld - at);
    at += x.views[i].cols;
  }
}

// Scratch of one call, in the caller's workspace: a header, then for each user the slots of a block
// and, where an end has to be converted, rows of input and output.
template <typename T>
class Scratch {
 public:
  Scratch(const Program<T>& program, const Inputs& x, const RowsView& y, ptrdiff_t rows, int users,
          size_t header, const Plan& plan)
      : x_(x),
        y_(y),
        strides_(program.slot_strides()),
        plan_(plan),
        direct_x_(x.count == 1 && x.views->direct<T>() &&
                  !(x.views->collides() && reads_often(program))),
        direct_y_(y.direct<T>()),
        ld_x_(direct_x_ ? 0 : row_stride<T>(program.in_features())),
        ld_y_(direct_y_ ? 0 : row_stride<T>(y.cols)) {
    const std::vector<ptrdiff_t>& strides = strides_;
    const size_t table = (strides.size() * sizeof(ptrdiff_t) + 63) / 64 * 64;
    for (ptrdiff_t stride : strides) slots_ += rows * stride;
    user_ = slots_ + rows * (ld_x_ + ld_y_);
    rows_ = rows;
    char* const memory = static_cast<char*>(
        workspace(header + table + static_cast<size_t>(user_ * users) * sizeof(T)));
    header_ = memory;
    offsets_ = reinterpret_cast<ptrdiff_t*>(memory + header);
    data_ = reinterpret_cast<T*>(memory + header + table);
    ptrdiff_t used = 0;
    for (size_t s = 0; s < strides.size(); ++s) {
      offsets_[s] = used;
      used += rows * strides[s];
    }
  }

  void* header() const { return header_; }
  bool direct_x() const { return direct_x_; }
  bool direct_y() const { return direct_y_; }

  // Rows [first, first + count) in the buffers of one user.
  Block<T> block(ptrdiff_t first, ptrdiff_t count, int user) const {
    const ptrdiff_t size = sizeof(T);
    T* const own = data_ + user * user_;
    T* const converted = own + slots_;
    Block<T> block{count, &plan_, {}, {}, own, offsets_, strides_.data()};
    const RowsView& x = *x_.views;
    block.input = direct_x_
                      ? Rows<T>{reinterpret_cast<T*>(x.row(first)), x.strides[0] / size, false}
                      : Rows<T>{converted, ld_x_, true};
    block.output = direct_y_
                       ? Rows<T>{reinterpret_cast<T*>(y_.row(first)), y_.strides[0] / size, false}
                       : Rows<T>{converted + rows_ * ld_x_, ld_y_, true};
    return block;
  }

 private:
  const Inputs& x_;
  const RowsView& y_;
  const std::vector<ptrdiff_t>& strides_;
  const Plan& plan_;
  bool direct_x_, direct_y_;
  ptrdiff_t ld_x_, ld_y_;
  ptrdiff_t slots_ = 0, user_ = 0,
            rows_ = 0;  // elements of a user's slots, of a user; rows of a block
  void* header_;
  ptrdiff_t* offsets_;
  T* data_;
};

// Depth first: each thread takes blocks of rows through all operations.
template <typename T>
void run_rows(const Program<T>& program, const Inputs& x, const RowsView& y, const Plan& plan) {
  const Scratch<T> scratch(program, x, y, plan.row_block, plan.threads, 0, plan);
  const auto run_block = [&](ptrdiff_t first, ptrdiff_t count, int thread) {
    const Block<T> block = scratch.block(first, count, thread);
    if (!scratch.direct_x()) load_inputs(x, first, block.rows, block.input);
    for (const Op<T>& op : program.ops()) run_op(op, block, 0, 1);
    if (!scratch.direct_y()) {
      store_rows(block.output.data, block.output.ld, y, first, block.rows);
    }
  };
  if (plan.blocks == 1) {
    run_block(0, y.rows, 0);
    return;
  }
  const bool timed = lookout() != nullptr;
  touch_in_turns(y, plan.threads);
  Claims rows(y.rows, plan.row_block,
              std::min<ptrdiff_t>(plan.row_block, kernels<T>().max_tile_rows));
  parallel_in_turns(plan.threads, [&](int thread, Turn& turn) {
    while (!turn.over()) {
      const auto [first, count] = rows.claim();
      if (count == 0) break;
      const int64_t begun = timed ? now_ns() : 0;
      run_block(first, count, thread);
      if (timed) rows.took(count, now_ns() - begun);
    }
  });
}

// Few rows: all threads take them through one operation after the other, and share its columns.
template <typename T>
void run_columns(const Program<T>& program, const Inputs& x, const RowsView& y, const Plan& plan) {
  const size_t count = program.ops().size() + 2;
  const Scratch<T> scratch(program, x, y, y.rows, 1, count * sizeof(SharedStep), plan);
  SharedStep* const steps = static_cast<SharedStep*>(scratch.header());
  const int threads = plan.threads;
  SharedStep* end = steps;
  new (end++) SharedStep(1);
  for (const Op<T>& op : program.ops()) new (end++) SharedStep(pieces_of(op, y.rows, threads));
  new (end) SharedStep(1);
  const Block<T> block = scratch.block(0, y.rows, 0);
  parallel(threads, [&](int thread) {
    SharedStep* step = steps;
    (step++)->run(scratch.direct_x() ? 0 : 1, thread, threads,
                  [&](ptrdiff_t) { load_inputs(x, 0, y.rows, block.input); });
    for (const Op<T>& op : program.ops()) {
      const ptrdiff_t pieces = pieces_of(op, y.rows, threads);
      (step++)->run(static_cast<int>(pieces), thread, threads,
                    [&](ptrdiff_t piece) { run_op(op, block, piece, pieces); });
    }
    step->run(scratch.direct_y() ? 0 : 1, thread, threads,
              [&](ptrdiff_t) { store_rows(block.output.data, block.output.ld, y, 0, y.rows); });
  });
}

}  // namespace

template <typename T>
void execute(const Program<T>& program, const Inputs& x, const RowsView& y, const Plan& plan) {
  if (y.rows == 0 || program.out_features() == 0) return;
  if (plan.split_columns) {
    run_columns(program, x, y, plan);
  } else if (lookout() == nullptr) {
    run_rows(program, x, y, plan);
  } else {
    // Without vectors a multiply-add may be a call, which takes ten times what is estimated.
    const bool calls = kernels<T>().vector_bytes == ptrdiff_t(sizeof(T));
    const double longest = 1e3 * static_cast<double>(kPieceNs) / (calls ? 8 : 1);
    run_rows(program, x, y, with_short_blocks(plan, y.rows, kernels<T>().max_tile_rows, longest));
  }
}

template void execute<float>(const Program<float>&, const Inputs&, const RowsView&, const Plan&);
template void execute<double>(const Program<double>&, const Inputs&, const RowsView&, const Plan&);

}  // namespace fastlayer
