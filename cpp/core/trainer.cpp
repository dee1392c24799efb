#include "trainer.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "convert.hpp"
#include "cpu.hpp"
#include "elementwise.hpp"
#include "packed_weights.hpp"
#include "plan.hpp"

namespace fastlayer {
namespace {

// Rows whose loss is taken at a time: whole lines of them for softmax.
constexpr ptrdiff_t kLossRows = 32;
// Rows that go through all layers and back together, at most, as in plan.cpp.
constexpr ptrdiff_t kMostRows = 128;
// Panels and lines of a unit: 32 KiB of gradient, which the optimiser finds in L1 or L2.
constexpr ptrdiff_t kUnitPanels = 2;
constexpr ptrdiff_t kUnitLines = 256;
// Blocks of the sum of squares that are taken together.
constexpr ptrdiff_t kSquares = 64;
// One weight through an optimiser, picoseconds.
constexpr double kWeight = 500;

// An odd number of lines from a row to the next: rows of a batch are walked down, and would drive
// each other out of L1 otherwise.
template <typename T>
constexpr ptrdiff_t batch_stride(ptrdiff_t features) {
  const ptrdiff_t lines = (features + kLine<T> - 1) / kLine<T>;
  return (lines < 4 ? lines : lines | 1) * kLine<T>;
}

// Whether rows of the caller's may be walked down where they lie.
bool lies_well(const RowsView& x) { return x.rows <= 32 || x.strides[0] % 256 != 0; }

template <typename T>
AlignedArray<T> zeros(size_t size) {
  AlignedArray<T> array(size);
  std::fill_n(array.data(), size, T(0));
  return array;
}

template <typename T>
DenseArgs<T> product(ptrdiff_t rows, ptrdiff_t k, ptrdiff_t n, const T* x, ptrdiff_t ldx,
                     const T* panels, T* y, ptrdiff_t ldy, bool far) {
  DenseArgs<T> d;
  d.m = rows;
  d.k = k;
  d.cols = n;
  d.x = x;
  d.ldx = ldx;
  d.w = panels + kLine<T>;
  d.panel_stride = d.bias_stride = (k + 1) * kLine<T>;
  d.line_stride = kLine<T>;
  d.bias = panels;
  d.y = y;
  d.ldy = ldy;
  d.accumulate = false;
  d.far = far;
  d.x_bytes = static_cast<ptrdiff_t>(caches().l2 / 4);
  d.x_copy = nullptr;
  d.sums = nullptr;
  d.y_padded = true;
  d.activation = {Activation::kIdentity, T(0), T(0)};
  return d;
}

bool has_first_moment(Optimizer kind) { return kind != Optimizer::kSgd; }
bool has_second_moment(Optimizer kind) {
  return kind == Optimizer::kAdam || kind == Optimizer::kAdamW;
}

// Whether a loss is taken of the sum before this activation.
bool sees_through(Loss loss, Activation last) {
  switch (loss) {
    case Loss::kCrossEntropy:
      return is_row_wise(last);
    case Loss::kBinaryCrossEntropy:
      return last == Activation::kSigmoid;
    case Loss::kPoisson:
      return last == Activation::kExp;
    default:
      return false;
  }
}

}  // namespace

int64_t Samples::label(ptrdiff_t i) const {
  int64_t value;
  std::memcpy(&value, labels + row(i) * label_stride, sizeof value);
  return value;
}

double Samples::weight(ptrdiff_t i) const {
  double value;
  std::memcpy(&value, weights + row(i) * weight_stride, sizeof value);
  return value;
}

template <typename T>
void Trainer<T>::dense(ptrdiff_t n, const T* w, ptrdiff_t stride_n, ptrdiff_t stride_k,
                       const T* bias, ActivationArgs<T> activation, bool trained) {
  Layer layer;
  layer.n = n;
  layer.k = out_features();
  layer.has_bias = bias != nullptr;
  layer.trained = trained;
  layer.activation = activation;
  layer.ld = batch_stride<T>(n);
  layer.w = AlignedArray<T>(elements_in_panels<T>(n, layer.k));
  pack_panels(n, layer.k, w, stride_n, stride_k, bias, layer.w.data());
  layers_.push_back(std::move(layer));
}

template <typename T>
void Trainer<T>::finish(bool has_loss, Loss loss, double p0, Optimizer optimizer) {
  has_loss_ = has_loss;
  loss_ = loss;
  p0_ = p0;
  optimizer_ = optimizer;
  through_ = has_loss && sees_through(loss, layers_.back().activation.kind);
  lowest_ = 0;
  while (lowest_ < layers() && !at(lowest_).trained) ++lowest_;
  for (Layer& layer : layers_) {
    if (!layer.trained) continue;
    if (has_first_moment(optimizer)) layer.m = zeros<T>(layer.w.size());
    if (has_second_moment(optimizer)) layer.v = zeros<T>(layer.w.size());
  }
  want_input_gradient(lowest_ + 1);
  make_units();
  own_ = std::max(kUnitPanels * (kUnitLines + 2 * kLine<T>)*kLine<T>,
                  kLossScratch * kLossRows * out_features());
  for (const Layer& layer : layers_) own_ = std::max(own_, layer.n);
  own_ = (own_ + kLine<T> - 1) / kLine<T> * kLine<T>;
  finished_ = true;
}

// Units of one range of k beside each other: they read the same columns of x.
template <typename T>
void Trainer<T>::make_units() {
  ptrdiff_t sums = 0;
  for (ptrdiff_t l = lowest_; l < layers(); ++l) {
    const Layer& layer = at(l);
    if (!layer.trained) continue;
    const ptrdiff_t chunks = (layer.k + kUnitLines - 1) / kUnitLines;
    const ptrdiff_t blocks = (layer.k + kLine<T> - 1) / kLine<T>;
    for (ptrdiff_t c = 0; c < chunks; ++c) {
      const ptrdiff_t begin = blocks * c / chunks * kLine<T>;
      const ptrdiff_t end = std::min(blocks * (c + 1) / chunks * kLine<T>, layer.k);
      const ptrdiff_t line = begin == 0 && layer.has_bias ? 0 : begin + 1;
      for (ptrdiff_t p = 0; p < layer.panels(); p += kUnitPanels) {
        units_.push_back({l, p, std::min(kUnitPanels, layer.panels() - p), line, end + 1 - line});
      }
    }
    for (const bool bias : {false, true}) {
      if (bias && !layer.has_bias) continue;
      const ptrdiff_t total = layer.n * (bias ? 1 : layer.k);
      const ptrdiff_t count = (total + kSumBlock - 1) / kSumBlock;
      for (ptrdiff_t first = 0; first < count; first += kSquares) {
        const ptrdiff_t some = std::min(kSquares, count - first);
        squares_.push_back({l, bias, first, some, sums});
        sums += some;
      }
    }
  }
  square_sums_ = zeros<double>(static_cast<size_t>(sums));
}

template <typename T>
const AlignedArray<T>& Trainer<T>::array(ptrdiff_t layer, Kept kept) const {
  const Layer& found = at(layer);
  switch (kept) {
    case Kept::kGradient:
      return found.g;
    case Kept::kFirstMoment:
      return found.m;
    case Kept::kSecondMoment:
      return found.v;
    case Kept::kWeights:
      break;
  }
  return found.w;
}

template <typename T>
void Trainer<T>::get(ptrdiff_t layer, Kept kept, T* w, T* bias) const {
  const T* const panels = array(layer, kept).data();
  if (w != nullptr) unpack_panels(n(layer), k(layer), panels, w);
  if (bias != nullptr) unpack_bias_lines(n(layer), k(layer), panels, bias);
}

template <typename T>
void Trainer<T>::set(ptrdiff_t layer, Kept kept, const T* w, ptrdiff_t stride_n, ptrdiff_t stride_k,
                     const T* bias) {
  auto& to = const_cast<AlignedArray<T>&>(array(layer, kept));
  pack_panels(n(layer), k(layer), w, stride_n, stride_k, bias, to.data());
  if (kept == Kept::kWeights && at(layer).turned.size() > 0) turn(at(layer));
}

// The copy of the weights for the gradient by the input: packed from the panels, which are rows of
// lines.
template <typename T>
void Trainer<T>::turn(Layer& layer) {
  for (ptrdiff_t p = 0; p < layer.panels(); ++p) {
    turn({&layer - layers_.data(), p, 1, 1, layer.k});
  }
}

template <typename T>
void Trainer<T>::turn(const Unit& unit) {
  constexpr ptrdiff_t L = kLine<T>;
  Layer& layer = at(unit.layer);
  const ptrdiff_t begin = std::max<ptrdiff_t>(unit.line - 1, 0), end = unit.line + unit.lines - 1;
  const ptrdiff_t turned_stride = (layer.n + 1) * L;
  for (ptrdiff_t p = unit.panel; p < unit.panel + unit.panels; ++p) {
    const T* const lines = layer.w.data() + p * layer.stride() + L;
    const ptrdiff_t neurons = std::min(L, layer.n - p * L);
    for (ptrdiff_t kk = begin; kk < end; kk += L) {
      kernels<T>().pack_panel(lines + kk * L, L, 1, std::min(L, end - kk), neurons,
                              layer.turned.data() + kk / L * turned_stride + (1 + p * L) * L, L);
    }
  }
}

template <typename T>
void Trainer<T>::want_input_gradient(ptrdiff_t from) {
  for (ptrdiff_t l = from; l < layers(); ++l) {
    Layer& layer = at(l);
    if (layer.turned.size() > 0) continue;
    layer.turned = zeros<T>(elements_in_panels<T>(layer.k, layer.n));
    turn(layer);
  }
}

template <typename T>
void Trainer<T>::want_gradients() {
  for (Layer& layer : layers_) {
    if (layer.trained && layer.g.size() == 0) layer.g = zeros<T>(layer.w.size());
  }
}

template <typename T>
double Trainer<T>::update_picoseconds() const {
  double sum = 0;
  for (const Layer& layer : layers_) sum += kWeight * static_cast<double>(layer.n * layer.k);
  return sum;
}

template <typename T>
double Trainer<T>::picoseconds(ptrdiff_t rows) const {
  double sum = update_picoseconds();
  ptrdiff_t elements = 0;
  for (const Layer& layer : layers_) {
    sum += 3 * matmul_picoseconds(rows, layer.n, layer.k, sizeof(T));
    elements += layer.n;
  }
  return sum + 3 * elementwise_picoseconds(rows * elements);
}

template <typename T>
void Trainer<T>::reserve(ptrdiff_t rows) {
  if (rows <= room_) return;
  const ptrdiff_t ld_x = batch_stride<T>(in_);
  size_t each = static_cast<size_t>(2 * ld_x + out_features());
  for (const Layer& layer : layers_) {
    each += static_cast<size_t>((layer.keeps_sums() ? 3 : 2) * layer.ld);
  }
  const auto count = static_cast<size_t>(rows);
  if (count > SIZE_MAX / 16 / sizeof(T) / each) throw std::bad_alloc();
  AlignedArray<T> memory = zeros<T>(count * each + 2 * kLine<T>);
  AlignedArray<double> numbers(3 * count);
  labels_.resize(count);
  rows_ = std::move(memory);
  numbers_ = std::move(numbers);
  ld_x_ = ld_x;
  T* next = rows_.data();
  const auto take = [&](ptrdiff_t ld) {
    T* const taken = next;
    next += rows * ld;
    return taken;
  };
  x_ = take(ld_x);
  dx_ = take(ld_x);
  for (Layer& layer : layers_) {
    layer.a = take(layer.ld);
    layer.z = layer.keeps_sums() ? take(layer.ld) : layer.a;
    layer.d = take(layer.ld);
  }
  t_ = take(out_features());
  room_ = rows;
  open_rows_ = 0;
}

template <typename T>
int Trainer<T>::team_for(double picoseconds) {
  const int wanted = threads_for(picoseconds);
  if (wanted > room_for_threads_) {
    scratch_ = AlignedArray<T>(static_cast<size_t>(wanted * own_));
    room_for_threads_ = wanted;
  }
  if (wanted > 1) {
    for (SharedStep& step : steps_) new (&step) SharedStep(kMaxPieces);
  }
  return wanted;
}

template <typename T>
typename Trainer<T>::Blocks Trainer<T>::blocks(ptrdiff_t rows, int threads) const {
  const ptrdiff_t tile = kernels<T>().max_tile_rows;
  ptrdiff_t row = ld_x_, weights = 0;
  for (const Layer& layer : layers_) {
    row += 3 * layer.ld;
    weights += layer.n * layer.k;
  }
  const auto l2 = static_cast<ptrdiff_t>(caches().l2 / sizeof(T));
  const bool far = weights > l2 / 2;
  ptrdiff_t each = far ? kMostRows : std::clamp(l2 / 4 / row, 2 * tile, kMostRows);
  ptrdiff_t count = (rows + each - 1) / each;
  if (threads > 1 && count < 4 * threads) count = (count + threads - 1) / threads * threads;
  count = std::min(count, std::max<ptrdiff_t>((rows + tile - 1) / tile, 1));
  each = (rows + count - 1) / count;
  return {rows, each, (rows + each - 1) / each};
}

// f(first, count) for all blocks, a few of them a piece where there are many.
template <typename T>
template <typename F>
void Trainer<T>::over_rows(SharedStep& step, const Blocks& blocks, int thread, int threads, F f) {
  const ptrdiff_t pieces = std::min(blocks.count, kMaxPieces);
  step.run(static_cast<int>(pieces), thread, threads, [&](ptrdiff_t piece) {
    const ptrdiff_t end = blocks.count * (piece + 1) / pieces;
    for (ptrdiff_t b = blocks.count * piece / pieces; b < end; ++b) {
      const ptrdiff_t first = b * blocks.each;
      f(first, std::min(blocks.each, blocks.rows - first));
    }
  });
}

template <typename T>
template <typename F>
void Trainer<T>::over_units(SharedStep& step, int thread, int threads, F f) {
  const auto count = static_cast<ptrdiff_t>(units_.size());
  const ptrdiff_t pieces = std::min(count, kMaxPieces);
  step.run(static_cast<int>(pieces), thread, threads, [&](ptrdiff_t piece) {
    const ptrdiff_t end = count * (piece + 1) / pieces;
    for (ptrdiff_t i = count * piece / pieces; i < end; ++i) f(units_[static_cast<size_t>(i)]);
  });
}

// Rows of the batch into ours.
template <typename T>
void Trainer<T>::load(const Samples& s, ptrdiff_t begin, ptrdiff_t first, ptrdiff_t count) {
  const ptrdiff_t outputs = out_features();
  if (s.order == nullptr) {
    if (input_ == x_) load_rows(*s.x, begin + first, count, x_ + first * ld_x_, ld_x_);
    if (s.t != nullptr) load_rows(*s.t, begin + first, count, t_ + first * outputs, outputs);
    return;
  }
  const bool direct = s.x->template direct<T>();
  for (ptrdiff_t i = first; i < first + count; ++i) {
    const ptrdiff_t row = s.order[begin + i];
    T* const to = x_ + i * ld_x_;
    if (direct) {
      std::memcpy(to, s.x->row(row), static_cast<size_t>(in_) * sizeof(T));
    } else {
      load_rows(*s.x, row, 1, to, ld_x_);
    }
    if (s.t != nullptr) load_rows(*s.t, row, 1, t_ + i * outputs, outputs);
  }
}

template <typename T>
void Trainer<T>::forward_block(ptrdiff_t first, ptrdiff_t count, bool through) {
  const Kernels<T>& kern = kernels<T>();
  const T* x = input_ + first * ld_input_;
  ptrdiff_t ldx = ld_input_;
  for (const Layer& layer : layers_) {
    const ptrdiff_t begin = first * layer.ld;
    const bool far = layer.w.size() * sizeof(T) > caches().l2 / 2;
    DenseArgs<T> d =
        product(count, layer.k, layer.n, x, ldx, layer.w.data(), layer.z + begin, layer.ld, far);
    if (!layer.keeps_sums()) d.activation = layer.activation;
    kern.dense(d);
    x = layer.a + begin;
    ldx = layer.ld;
    if (!layer.keeps_sums() || (through && &layer == &layers_.back())) continue;
    const Activation kind = layer.activation.kind;
    if (is_row_wise(kind)) {
      (kind == Activation::kSoftmax ? kern.softmax : kern.log_softmax)(
          layer.z + begin, ldx, layer.a + begin, ldx, count, layer.n, false);
    } else {
      kern.activation(layer.activation, layer.z + begin, layer.a + begin,
                      (count - 1) * ldx + layer.n);
    }
  }
}

template <typename T>
void Trainer<T>::loss_block(const Samples& s, ptrdiff_t begin, ptrdiff_t first, ptrdiff_t count,
                            T* scratch) {
  const Layer& last = layers_.back();
  double* const shares = numbers_.data() + 2 * room_;
  LossArgs<T> l;
  l.kind = loss_;
  l.p0 = p0_;
  l.n = last.n;
  l.ldy = l.ldd = last.ld;
  l.ldt = last.n;
  l.share = 1.0 / static_cast<double>(batch_);
  l.scratch = scratch;
  for (ptrdiff_t i = first; i < first + count; i += kLossRows) {
    l.rows = std::min(kLossRows, first + count - i);
    l.y = (through_ ? last.z : last.a) + i * last.ld;
    l.dy = last.d + i * last.ld;
    l.t = s.t == nullptr ? nullptr : t_ + i * last.n;
    l.labels = labels_.data() + i;
    if (s.t == nullptr) {
      // Checked before, but the array is the caller's.
      for (ptrdiff_t r = i; r < i + l.rows; ++r) {
        const int64_t label = s.label(begin + r);
        labels_[static_cast<size_t>(r)] = label >= 0 && label < last.n ? label : 0;
      }
    }
    l.shares = s.weights == nullptr ? nullptr : shares + i;
    l.values = numbers_.data() + i;
    kernels<T>().loss(l);
  }
}

template <typename T>
void Trainer<T>::backward_block(ptrdiff_t first, ptrdiff_t count, bool through, bool to_input,
                                T* scratch) {
  const Kernels<T>& kern = kernels<T>();
  const ptrdiff_t bottom = to_input ? 0 : lowest_;
  for (ptrdiff_t l = layers() - 1; l >= bottom; --l) {
    const Layer& layer = at(l);
    const ptrdiff_t at_row = first * layer.ld;
    T* const d = layer.d + at_row;
    const Activation kind = layer.activation.kind;
    if ((through && l == layers() - 1) || kind == Activation::kIdentity) {
      // d is the gradient by the sum.
    } else if (is_row_wise(kind)) {
      for (ptrdiff_t i = 0; i < count; ++i) {
        const T* p = layer.a + at_row + i * layer.ld;
        if (kind == Activation::kLogSoftmax) {
          kern.softmax(layer.z + at_row + i * layer.ld, layer.n, scratch, layer.n, 1, layer.n,
                       false);
          p = scratch;
        }
        (kind == Activation::kSoftmax ? kern.softmax_backward : kern.log_softmax_backward)(
            p, d + i * layer.ld, d + i * layer.ld, layer.n);
      }
    } else {
      // relu' of what relu gave is relu' of its argument.
      kern.activation_backward(layer.activation, d, layer.z + at_row, d,
                               (count - 1) * layer.ld + layer.n);
    }
    if (l == bottom && !to_input) break;
    const bool far = layer.turned.size() * sizeof(T) > caches().l2 / 2;
    const ptrdiff_t ld = l == 0 ? ld_x_ : at(l - 1).ld;
    T* const to = (l == 0 ? dx_ : at(l - 1).d) + first * ld;
    kern.dense(product(count, layer.n, layer.k, d, layer.ld, layer.turned.data(), to, ld, far));
  }
}

// Of the unit's lines; panels of g lie panel_stride apart and begin with the unit's first line.
template <typename T>
void Trainer<T>::gradient(const Unit& unit, T* g, ptrdiff_t panel_stride) const {
  const Layer& layer = at(unit.layer);
  const bool bias = unit.line == 0;
  const ptrdiff_t begin = bias ? 0 : unit.line - 1;
  GradientArgs<T> args;
  args.rows = batch_;
  args.k = unit.lines - (bias ? 1 : 0);
  args.x = (unit.layer == 0 ? input_ : at(unit.layer - 1).a) + begin;
  args.ldx = unit.layer == 0 ? ld_input_ : at(unit.layer - 1).ld;
  args.dz = layer.d + unit.panel * kLine<T>;
  args.ldz = layer.ld;
  args.panels = unit.panels;
  args.bias = bias ? g : nullptr;
  args.lines = g + (bias ? kLine<T> : 0);
  args.panel_stride = panel_stride;
  kernels<T>().gradient(args);
}

template <typename T>
void Trainer<T>::optimize(const Unit& unit, const OptimizerArgs<T>& args, const T* g,
                          ptrdiff_t panel_stride) {
  Layer& layer = at(unit.layer);
  for (ptrdiff_t p = 0; p < unit.panels; ++p) {
    const ptrdiff_t first = (unit.panel + p) * layer.stride() + unit.line * kLine<T>;
    kernels<T>().optimize(args, layer.w.data() + first, g + p * panel_stride,
                          layer.m.data() + (layer.m.size() > 0 ? first : 0),
                          layer.v.data() + (layer.v.size() > 0 ? first : 0), unit.lines * kLine<T>);
  }
  if (layer.turned.size() > 0) turn(unit);
}

template <typename T>
double Trainer<T>::norm() const {
  double total = 0, c = 0;
  for (size_t i = 0; i < squares_.size(); ++i) {
    const Squares& s = squares_[i];
    if (s.first == 0) {
      total = total + c;
      c = 0;
    }
    for (ptrdiff_t b = 0; b < s.count; ++b) c = c + square_sums_.data()[s.at + b];
  }
  return std::sqrt(total + c);
}

template <typename T>
void Trainer<T>::finish_step(OptimizerArgs<T>& args, double max_norm, int thread, int threads) {
  if (max_norm > 0) {
    const auto count = static_cast<ptrdiff_t>(squares_.size());
    const ptrdiff_t pieces = std::min(count, kMaxPieces);
    steps_[2].run(static_cast<int>(pieces), thread, threads, [&](ptrdiff_t piece) {
      for (ptrdiff_t i = count * piece / pieces; i < count * (piece + 1) / pieces; ++i) {
        const Squares& s = squares_[static_cast<size_t>(i)];
        const Layer& layer = at(s.layer);
        kernels<T>().square_sums(layer.g.data() + (s.bias ? 0 : kLine<T>), layer.stride(), layer.n,
                                 s.bias ? 1 : layer.k, s.first, s.count,
                                 square_sums_.data() + s.at);
      }
    });
    steps_[3].run(1, thread, threads, [&](ptrdiff_t) {
      const double coefficient = max_norm / (norm() + 1e-6);
      args.clips = coefficient < 1;
      args.clip = static_cast<T>(coefficient);
    });
  }
  over_units(steps_[4], thread, threads, [&](const Unit& unit) {
    const Layer& layer = at(unit.layer);
    optimize(unit, args, layer.g.data() + unit.panel * layer.stride() + unit.line * kLine<T>,
             layer.stride());
  });
}

template <typename T>
OptimizerArgs<T> Trainer<T>::advance(Rates& rates) const {
  OptimizerArgs<T> args{};
  args.kind = optimizer_;
  args.decays = rates.weight_decay != 0;
  args.decay = static_cast<T>(optimizer_ == Optimizer::kAdamW ? rates.lr * rates.weight_decay
                                                              : rates.weight_decay);
  args.lr = static_cast<T>(rates.lr);
  args.momentum = static_cast<T>(rates.momentum);
  if (has_second_moment(optimizer_)) {
    rates.power1 *= rates.beta1;
    rates.power2 *= rates.beta2;
    args.c1 = static_cast<T>(1 - rates.beta1);
    args.b2 = static_cast<T>(rates.beta2);
    args.c2 = static_cast<T>(1 - rates.beta2);
    args.step = static_cast<T>(rates.lr / (1 - rates.power1));
    args.r2 = static_cast<T>(1 / std::sqrt(1 - rates.power2));
    args.eps = static_cast<T>(rates.eps);
  }
  return args;
}

template <typename T>
double Trainer<T>::step(const Samples& s, ptrdiff_t begin, ptrdiff_t count, Rates& rates) {
  const int team = team_for(picoseconds(count));
  const bool clips = rates.max_norm > 0;
  if (clips) want_gradients();
  open_rows_ = 0;
  has_gradient_ = false;
  batch_ = count;
  const bool in_place = s.order == nullptr && s.x->template direct<T>() && lies_well(*s.x);
  input_ = in_place ? reinterpret_cast<const T*>(s.x->row(begin)) : x_;
  ld_input_ = in_place ? s.x->strides[0] / static_cast<ptrdiff_t>(sizeof(T)) : ld_x_;
  double* const values = numbers_.data();
  double* const weights = values + room_;
  const auto dot = kernels<T>().blocked_dot;
  double total = static_cast<double>(count);
  if (s.weights != nullptr) {
    for (ptrdiff_t i = 0; i < count; ++i) weights[i] = s.weight(begin + i);
    total = dot(weights, nullptr, count);
    for (ptrdiff_t i = 0; i < count; ++i) weights[room_ + i] = weights[i] / total;
  }
  OptimizerArgs<T> args = advance(rates);
  const Blocks parts = blocks(count, team);
  parallel(team, [&](int thread) {
    T* const scratch = own(thread);
    over_rows(steps_[0], parts, thread, team, [&](ptrdiff_t first, ptrdiff_t some) {
      load(s, begin, first, some);
      forward_block(first, some, through_);
      loss_block(s, begin, first, some, scratch);
      backward_block(first, some, through_, false, scratch);
    });
    over_units(steps_[1], thread, team, [&](const Unit& unit) {
      if (clips) {
        Layer& layer = at(unit.layer);
        gradient(unit, layer.g.data() + unit.panel * layer.stride() + unit.line * kLine<T>,
                 layer.stride());
      } else {
        gradient(unit, scratch, unit.lines * kLine<T>);
        optimize(unit, args, scratch, unit.lines * kLine<T>);
      }
    });
    if (clips) finish_step(args, rates.max_norm, thread, team);
  });
  return dot(values, s.weights == nullptr ? nullptr : weights, count) / total;
}

template <typename T>
void Trainer<T>::forward(const RowsView& x, const RowsView& y) {
  reserve(x.rows);
  const int team = team_for(picoseconds(x.rows));
  open_rows_ = 0;
  has_gradient_ = false;
  input_ = x_;
  ld_input_ = ld_x_;
  Samples s;
  s.x = &x;
  s.t = nullptr;
  const Layer& last = layers_.back();
  const Blocks parts = blocks(x.rows, team);
  parallel(team, [&](int thread) {
    over_rows(steps_[0], parts, thread, team, [&](ptrdiff_t first, ptrdiff_t count) {
      load(s, 0, first, count);
      forward_block(first, count, false);
      store_rows(last.a + first * last.ld, last.ld, y, first, count);
    });
  });
  open_rows_ = x.rows;
}

template <typename T>
void Trainer<T>::backward(const RowsView& dy, const RowsView* dx) {
  const int team = team_for(picoseconds(dy.rows));
  want_gradients();
  if (dx != nullptr) want_input_gradient(0);
  batch_ = dy.rows;
  const Layer& last = layers_.back();
  const Blocks parts = blocks(dy.rows, team);
  parallel(team, [&](int thread) {
    T* const scratch = own(thread);
    over_rows(steps_[0], parts, thread, team, [&](ptrdiff_t first, ptrdiff_t count) {
      load_rows(dy, first, count, last.d + first * last.ld, last.ld);
      backward_block(first, count, false, dx != nullptr, scratch);
      if (dx != nullptr) store_rows(dx_ + first * ld_x_, ld_x_, *dx, first, count);
    });
    over_units(steps_[1], thread, team, [&](const Unit& unit) {
      Layer& layer = at(unit.layer);
      gradient(unit, layer.g.data() + unit.panel * layer.stride() + unit.line * kLine<T>,
               layer.stride());
    });
  });
  open_rows_ = 0;
  has_gradient_ = true;
}

template <typename T>
void Trainer<T>::update(Rates& rates) {
  OptimizerArgs<T> args = advance(rates);
  const int team = team_for(update_picoseconds());
  parallel(team, [&](int thread) { finish_step(args, rates.max_norm, thread, team); });
}

template class Trainer<float>;
template class Trainer<double>;

}  // namespace fastlayer
