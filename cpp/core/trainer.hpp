// Trains a chain of dense layers: forward, loss, backward and optimiser of a step as one piece of
// work, with the same bits on any number of threads. Holds everything that a step needs: weights,
// moments and gradients in panels, and the rows of a batch between the layers.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "../kernels/table.hpp"
#include "team.hpp"
#include "types.hpp"
#include "workspace.hpp"

namespace fastlayer {

// Rows whose loss is taken at a time: whole lines of them for softmax, or few long ones.
constexpr ptrdiff_t loss_rows(ptrdiff_t n) { return n <= 1024 ? 32 : 4; }

constexpr bool has_first_moment(Optimizer kind) { return kind != Optimizer::kSgd; }
constexpr bool has_second_moment(Optimizer kind) {
  return kind == Optimizer::kAdam || kind == Optimizer::kAdamW;
}

// What an optimiser goes by, in the order in which Python passes it. The powers of the betas are
// those so far, and are advanced by each step.
struct Rates {
  double lr, momentum, weight_decay, beta1, beta2, eps;
  double max_norm;  // of the gradient of all parameters; 0: any
  double power1, power2;
  // The loss counts `value_scale` times, its gradient `slope_scale` times; and penalty / 2 times
  // the squares of the weights, not the biases, over the weight of the batch is added.
  double value_scale = 1, slope_scale = 1, penalty = 0;
  // 1: the learning rate goes into the moment of SGD, and eps of Adam is added before the
  // correction of the root, as in scikit-learn.
  double other_forms = 0;
  // Of a cross entropy of one sample, or of one output for the binary one.
  double least = -HUGE_VAL, most = HUGE_VAL;
};

// Rows to learn from, and which of them in which order.
struct Samples {
  const RowsView* x;
  const RowsView* t;             // rows of T; or null, and class numbers:
  const char* labels = nullptr;  // int64, so many bytes apart
  ptrdiff_t label_stride = 0;
  const char* weights = nullptr;  // float64, or null
  ptrdiff_t weight_stride = 0;
  const int64_t* order = nullptr;  // null: as they stand

  ptrdiff_t row(ptrdiff_t i) const { return order == nullptr ? i : order[i]; }
  int64_t label(ptrdiff_t i) const;
  double weight(ptrdiff_t i) const;
};

// Arrays of one layer that are kept in panels.
enum class Kept : int32_t { kWeights, kGradient, kFirstMoment, kSecondMoment };

template <typename T>
class Trainer {
 public:
  using Scalar = T;

  explicit Trainer(ptrdiff_t in_features) : in_(in_features) {}

  // n neurons, the weights (n, k) with strides in elements; bias may be null.
  void dense(ptrdiff_t n, const T* w, ptrdiff_t stride_n, ptrdiff_t stride_k, const T* bias,
             ActivationArgs<T> activation, bool trained);
  // p0 is the loss's parameter. Without a loss there are the three parts only.
  void finish(bool has_loss, Loss loss, double p0, Optimizer optimizer);

  ptrdiff_t in_features() const { return in_; }
  ptrdiff_t out_features() const { return layers_.empty() ? in_ : layers_.back().n; }
  bool finished() const { return finished_; }
  bool has_loss() const { return has_loss_; }
  bool takes_classes() const { return loss_ == Loss::kCrossEntropy; }
  Optimizer optimizer() const { return optimizer_; }
  ptrdiff_t layers() const { return static_cast<ptrdiff_t>(layers_.size()); }
  ptrdiff_t n(ptrdiff_t layer) const { return at(layer).n; }
  ptrdiff_t k(ptrdiff_t layer) const { return at(layer).k; }
  bool has_bias(ptrdiff_t layer) const { return at(layer).has_bias; }
  // Row-major (n, k) and (n,), null for what is not wanted; false where the layer does not have it.
  bool has(ptrdiff_t layer, Kept kept) const { return array(layer, kept).size() > 0; }
  void get(ptrdiff_t layer, Kept kept, T* w, T* bias) const;
  void set(ptrdiff_t layer, Kept kept, const T* w, ptrdiff_t stride_n, ptrdiff_t stride_k,
           const T* bias);

  // Estimated time of a step on one thread, and of its last part.
  double picoseconds(ptrdiff_t rows) const;
  double update_picoseconds() const;
  // Makes room for batches of so many rows.
  void reserve(ptrdiff_t rows);
  // One step on rows [begin, begin + count) of the order; room has been made. Returns the loss.
  double step(const Samples& samples, ptrdiff_t begin, ptrdiff_t count, Rates& rates);

  // The parts of a step, for losses of the user's own. `y` and `dx` receive rows; dx may be null.
  void forward(const RowsView& x, const RowsView& y);
  void backward(const RowsView& dy, const RowsView* dx);
  void update(Rates& rates);
  // Rows of the last forward that no step or update has followed.
  ptrdiff_t open_rows() const { return open_rows_; }
  bool has_gradient() const { return has_gradient_; }

 private:
  struct Layer {
    ptrdiff_t n, k;
    bool has_bias, trained;
    ActivationArgs<T> activation;
    AlignedArray<T> w, g, m, v;
    AlignedArray<T> turned;  // w with panels along k, where the gradient by the input is wanted
    ptrdiff_t ld = 0;
    // Of a batch: sums, activations (the same where the sums are not needed) and gradients by the
    // sums.
    T *z = nullptr, *a = nullptr, *d = nullptr;

    ptrdiff_t panels() const { return (n + kLine<T> - 1) / kLine<T>; }
    ptrdiff_t stride() const { return (k + 1) * kLine<T>; }
    bool keeps_sums() const {
      return activation.kind != Activation::kIdentity && activation.kind != Activation::kRelu;
    }
  };
  // A part of a layer's panels: what a thread takes from the gradient to the new weights.
  struct Unit {
    ptrdiff_t layer, panel, panels, line, lines;  // line 0 is the bias
  };
  // Blocks of the sum of squares of a weight or a bias.
  struct Squares {
    ptrdiff_t layer;
    bool bias;
    ptrdiff_t first, count, at;
  };
  struct Blocks {
    ptrdiff_t rows, each, count;
  };

  const Layer& at(ptrdiff_t layer) const { return layers_[static_cast<size_t>(layer)]; }
  Layer& at(ptrdiff_t layer) { return layers_[static_cast<size_t>(layer)]; }
  const AlignedArray<T>& array(ptrdiff_t layer, Kept kept) const;
  void make_units();
  void turn(Layer& layer);
  void turn(const Unit& unit);
  void want_input_gradient(ptrdiff_t from);
  void want_gradients();

  Blocks blocks(ptrdiff_t rows, int threads) const;
  // Threads for so much work, with scratch for each of them.
  int team_for(double picoseconds);
  T* own(int thread) { return scratch_.data() + thread * own_; }
  template <typename F>
  void over_rows(SharedStep& step, const Blocks& blocks, int thread, int threads, F f);
  void load(const Samples& s, ptrdiff_t begin, ptrdiff_t first, ptrdiff_t count);
  void forward_block(ptrdiff_t first, ptrdiff_t count, bool through);
  void loss_block(const Samples& s, const Rates& rates, ptrdiff_t begin, ptrdiff_t first,
                  ptrdiff_t count, T* scratch);
  // From the gradient by the output, or by the sum of the last layer, down to the first
  // layer that is trained, or to x.
  void backward_block(ptrdiff_t first, ptrdiff_t count, bool through, bool to_input, T* scratch);
  void gradient(const Unit& unit, T* g, ptrdiff_t panel_stride) const;
  void optimize(const Unit& unit, const OptimizerArgs<T>& args, const T* g, ptrdiff_t panel_stride);
  template <typename F>
  void over_units(SharedStep& step, int thread, int threads, F f);
  // Gradients are there: clipping, weights, turned copies.
  void finish_step(OptimizerArgs<T>& args, double max_norm, int thread, int threads);
  OptimizerArgs<T> advance(Rates& rates) const;
  void want_squares();
  void add_squares(SharedStep& step, int thread, int threads);
  // The sum of the squares of all weights that are trained, once neuron_squares_ are there.
  double squares() const;
  double norm() const;

  ptrdiff_t in_;
  bool finished_ = false, has_loss_ = false, through_ = false;
  Loss loss_ = Loss::kMse;
  double p0_ = 0;
  Optimizer optimizer_ = Optimizer::kSgd;
  std::vector<Layer> layers_;
  ptrdiff_t lowest_ = 0;  // the first layer that is trained
  std::vector<Unit> units_;
  std::vector<Squares> squares_;
  AlignedArray<double> square_sums_;
  AlignedArray<double> neuron_squares_;  // of the weights of each neuron of the layers in turn

  ptrdiff_t room_ = 0;  // rows
  ptrdiff_t ld_x_ = 0;
  AlignedArray<T> rows_;
  AlignedArray<T> dx_;  // where the gradient by x has been wanted
  T *x_ = nullptr, *t_ = nullptr;
  // What the layers read as x: rows of ours, or the caller's.
  const T* input_ = nullptr;
  ptrdiff_t ld_input_ = 0;
  AlignedArray<double> numbers_;  // of each row: its loss, weight and share
  std::vector<int64_t> labels_;
  ptrdiff_t own_ = 0;  // elements of a thread's scratch
  AlignedArray<T> scratch_;
  int room_for_threads_ = 0;
  ptrdiff_t batch_ = 0;         // rows of the batch whose gradients are d
  double share_ = 0;            // of one of them in the loss, where they have no weights
  bool spares_biases_ = false;  // decay is that of a penalty
  ptrdiff_t open_rows_ = 0;
  bool has_gradient_ = false;
  SharedStep steps_[6] = {SharedStep(0), SharedStep(0), SharedStep(0),
                          SharedStep(0), SharedStep(0), SharedStep(0)};
};

}  // namespace fastlayer
