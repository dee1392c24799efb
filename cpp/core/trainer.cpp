#include "trainer.hpp"

#include <algorithm>
#include <cmath>
#include <new>

#include "cpu.hpp"
#include "elementwise.hpp"
#include "packed_weights.hpp"
#include "plan.hpp"

namespace fastlayer {
namespace {

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

template <typename T>
AlignedArray<T> zeros(size_t size) {
  AlignedArray<T> array(size);
  std::fill_n(array.data(), size, T(0));
  return array;
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
                  kLossScratch * loss_rows(out_features()) * out_features());
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
  size_t each = static_cast<size_t>(ld_x + out_features());
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
OptimizerArgs<T> Trainer<T>::advance(Rates& rates) const {
  OptimizerArgs<T> args{};
  args.kind = optimizer_;
  args.decays = rates.weight_decay != 0;
  args.decay = static_cast<T>(optimizer_ == Optimizer::kAdamW ? rates.lr * rates.weight_decay
                                                              : rates.weight_decay);
  const bool velocity = rates.other_forms != 0 && optimizer_ != Optimizer::kSgd;
  args.lr = velocity ? T(1) : static_cast<T>(rates.lr);
  args.gain = velocity ? static_cast<T>(rates.lr) : T(1);
  args.momentum = static_cast<T>(rates.momentum);
  if (has_second_moment(optimizer_)) {
    rates.power1 *= rates.beta1;
    rates.power2 *= rates.beta2;
    args.c1 = static_cast<T>(1 - rates.beta1);
    args.b2 = static_cast<T>(rates.beta2);
    args.c2 = static_cast<T>(1 - rates.beta2);
    args.step = static_cast<T>(rates.lr / (1 - rates.power1));
    const double scale = 1 / std::sqrt(1 - rates.power2);
    args.r2 = static_cast<T>(scale);
    args.eps = static_cast<T>(rates.other_forms != 0 ? rates.eps * scale : rates.eps);
  }
  return args;
}

template <typename T>
void Trainer<T>::want_squares() {
  ptrdiff_t neurons = 0;
  for (const Layer& layer : layers_) neurons += layer.n;
  if (neuron_squares_.size() == 0) neuron_squares_ = zeros<double>(static_cast<size_t>(neurons));
}

// Before any weight changes: the threads meet at the end of it.
template <typename T>
void Trainer<T>::add_squares(SharedStep& step, int thread, int threads) {
  constexpr ptrdiff_t kPanels = 8;
  ptrdiff_t count = 0;
  for (const Layer& layer : layers_) count += (layer.panels() + kPanels - 1) / kPanels;
  const ptrdiff_t pieces = std::min(count, kMaxPieces);
  step.run(static_cast<int>(pieces), thread, threads, [&](ptrdiff_t piece) {
    ptrdiff_t begin = count * piece / pieces, left = count * (piece + 1) / pieces - begin;
    double* sums = neuron_squares_.data();
    for (const Layer& layer : layers_) {
      const ptrdiff_t parts = (layer.panels() + kPanels - 1) / kPanels;
      for (; begin < parts && left > 0; ++begin, --left) {
        const ptrdiff_t panel = begin * kPanels, neuron = panel * kLine<T>;
        kernels<T>().neuron_squares(layer.w.data() + panel * layer.stride() + kLine<T>,
                                    layer.stride(), std::min(kPanels * kLine<T>, layer.n - neuron),
                                    layer.k, sums + neuron);
      }
      begin = std::max<ptrdiff_t>(begin - parts, 0);
      sums += layer.n;
    }
  });
}

template <typename T>
double Trainer<T>::squares() const {
  double total = 0;
  const double* sums = neuron_squares_.data();
  for (const Layer& layer : layers_) {
    if (layer.trained) total = total + kernels<T>().blocked_dot(sums, nullptr, layer.n);
    sums += layer.n;
  }
  return total;
}

template class Trainer<float>;
template class Trainer<double>;

}  // namespace fastlayer
