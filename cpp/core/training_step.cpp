#include <algorithm>
#include <cstring>

#include "convert.hpp"
#include "cpu.hpp"
#include "trainer.hpp"

namespace fastlayer {
namespace {

// Rows that go through all layers and back together, at most, as in plan.cpp.
constexpr ptrdiff_t kMostRows = 128;
// Whether rows of the caller's may be walked down where they lie.
bool lies_well(const RowsView& x) { return x.rows <= 32 || x.strides[0] % 256 != 0; }

// Rows in any order lie far apart: while one is copied, those that so many bytes hold are on their
// way. 4 KiB: saves 8 % of a step of 50-100-1 on 100,000 rows in float64, 15 % in float32 (Zen 5).
constexpr ptrdiff_t kFetched = 4096;

void fetch(const char* row, ptrdiff_t bytes) {
  for (ptrdiff_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at);
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
  const ptrdiff_t bytes = in_ * static_cast<ptrdiff_t>(sizeof(T));
  const ptrdiff_t ahead = std::max<ptrdiff_t>(kFetched / bytes, 1);
  ptrdiff_t fetched = first;
  for (ptrdiff_t i = first; i < first + count; ++i) {
    const ptrdiff_t row = s.order[begin + i];
    T* const to = x_ + i * ld_x_;
    if (direct) {
      for (; fetched < std::min(i + ahead + 1, first + count); ++fetched) {
        fetch(s.x->row(s.order[begin + fetched]), bytes);
      }
      std::memcpy(to, s.x->row(row), static_cast<size_t>(bytes));
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
void Trainer<T>::loss_block(const Samples& s, const Rates& rates, ptrdiff_t begin, ptrdiff_t first,
                            ptrdiff_t count, T* scratch) {
  const Layer& last = layers_.back();
  double* const shares = numbers_.data() + 2 * room_;
  LossArgs<T> l;
  l.kind = loss_;
  l.p0 = p0_;
  l.least = rates.least;
  l.most = rates.most;
  l.n = last.n;
  l.ldy = l.ldd = last.ld;
  l.ldt = last.n;
  l.share = share_;
  l.scratch = scratch;
  const ptrdiff_t some = loss_rows(l.n);
  for (ptrdiff_t i = first; i < first + count; i += some) {
    l.rows = std::min(some, first + count - i);
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
    T* const to = (l == 0 ? dx_.data() : at(l - 1).d) + first * ld;
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
  const auto lines = [&](const OptimizerArgs<T>& of, ptrdiff_t panel, ptrdiff_t line,
                         ptrdiff_t count) {
    const ptrdiff_t first = (unit.panel + panel) * layer.stride() + line * kLine<T>;
    kernels<T>().optimize(of, layer.w.data() + first,
                          g + panel * panel_stride + (line - unit.line) * kLine<T>,
                          layer.m.data() + (layer.m.size() > 0 ? first : 0),
                          layer.v.data() + (layer.v.size() > 0 ? first : 0), count * kLine<T>);
  };
  const ptrdiff_t spared = spares_biases_ && unit.line == 0 ? 1 : 0;
  OptimizerArgs<T> of_bias = args;
  of_bias.decays = false;
  for (ptrdiff_t p = 0; p < unit.panels; ++p) {
    if (spared > 0) lines(of_bias, p, 0, 1);
    lines(args, p, unit.line + spared, unit.lines - spared);
  }
  if (layer.turned.size() > 0) turn(unit);
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
    for (ptrdiff_t i = 0; i < count; ++i) {
      weights[room_ + i] = rates.slope_scale * weights[i] / total;
    }
  }
  share_ = rates.slope_scale / total;
  OptimizerArgs<T> args = advance(rates);
  spares_biases_ = rates.penalty > 0;
  if (spares_biases_) {
    args.decays = true;
    args.decay = static_cast<T>(rates.penalty / total);
    want_squares();
  }
  const Blocks parts = blocks(count, team);
  parallel(team, [&](int thread) {
    T* const scratch = own(thread);
    if (spares_biases_) add_squares(steps_[5], thread, team);
    over_rows(steps_[0], parts, thread, team, [&](ptrdiff_t first, ptrdiff_t some) {
      load(s, begin, first, some);
      forward_block(first, some, through_);
      loss_block(s, rates, begin, first, some, scratch);
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
  const double sum = dot(values, s.weights == nullptr ? nullptr : weights, count);
  const double value = rates.value_scale * (sum / total);
  return spares_biases_ ? value + 0.5 * rates.penalty * squares() / total : value;
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
  if (dx != nullptr) {
    want_input_gradient(0);
    const auto size = static_cast<size_t>(room_ * ld_x_);
    if (dx_.size() < size) dx_ = AlignedArray<T>(size);
  }
  batch_ = dy.rows;
  const Layer& last = layers_.back();
  const Blocks parts = blocks(dy.rows, team);
  parallel(team, [&](int thread) {
    T* const scratch = own(thread);
    over_rows(steps_[0], parts, thread, team, [&](ptrdiff_t first, ptrdiff_t count) {
      load_rows(dy, first, count, last.d + first * last.ld, last.ld);
      backward_block(first, count, false, dx != nullptr, scratch);
      if (dx != nullptr) store_rows(dx_.data() + first * ld_x_, ld_x_, *dx, first, count);
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
  spares_biases_ = false;
  const int team = team_for(update_picoseconds());
  parallel(team, [&](int thread) { finish_step(args, rates.max_norm, thread, team); });
}

#define FL_INSTANCES(T)                                                           \
  template double Trainer<T>::step(const Samples&, ptrdiff_t, ptrdiff_t, Rates&); \
  template void Trainer<T>::forward(const RowsView&, const RowsView&);            \
  template void Trainer<T>::backward(const RowsView&, const RowsView*);           \
  template void Trainer<T>::update(Rates&);
FL_INSTANCES(float)
FL_INSTANCES(double)
#undef FL_INSTANCES

}  // namespace fastlayer
