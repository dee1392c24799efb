// _core.Trainer: a chain of dense layers in training.
#include <algorithm>
#include <atomic>
#include <iterator>
#include <memory>
#include <variant>
#include <vector>

#include "../core/trainer.hpp"
#include "arrays.hpp"
#include "gil.hpp"
#include "init.hpp"
#include "registers.hpp"
#include "typed.hpp"
#include "weights.hpp"

namespace fastlayer {
namespace {

// Elements of the array of scalars: the members of Rates.
constexpr ptrdiff_t kRates = sizeof(Rates) / sizeof(double);

// Names of `names`, which throws for another one.
template <typename Enum, size_t N>
Enum one_of(const char* const (&names)[N], const std::string& name, const char* message) {
  const auto* const found = std::find(std::begin(names), std::end(names), name);
  if (found == std::end(names)) refuse(message);
  return static_cast<Enum>(found - std::begin(names));
}

class PyTrainer {
  // One call at a time: a second thread, or a signal handler, may find the trainer at work.
  template <typename F>
  auto with(F f) {
    struct Lock {
      std::atomic<bool>& busy;
      explicit Lock(std::atomic<bool>& b) : busy(b) {
        if (busy.exchange(true)) throw std::runtime_error("the trainer is at work in another call");
      }
      ~Lock() { busy.store(false); }
    };
    const Lock lock(busy_);
    return std::visit([&](auto& trainer) { return f(*trainer); }, trainer_);
  }
  template <typename F>
  auto with_finished(F f) {
    return with([&](auto& trainer) {
      if (!trainer.finished()) refuse("the trainer is not finished");
      return f(trainer);
    });
  }

 public:
  PyTrainer(const std::string& dtype, ptrdiff_t in_features) {
    if (in_features < 1 || in_features > kMostFeatures) refuse("in_features: expected 1 or more");
    if (dtype == "float32") {
      trainer_ = std::make_unique<Trainer<float>>(in_features);
    } else if (dtype == "float64") {
      trainer_ = std::make_unique<Trainer<double>>(in_features);
    } else {
      refuse("dtype: expected float32 or float64");
    }
  }

  void dense(py::handle weight, py::handle bias, const std::string& activation, double p0,
             double p1, bool trained) {
    with([&](auto& trainer) {
      using T = typename std::remove_reference_t<decltype(trainer)>::Scalar;
      if (trainer.finished()) refuse("the trainer is finished");
      const Parts<T> parts(weight, bias, -1, trainer.out_features());
      trainer.dense(parts.w.shape[0], parts.weights(), parts.stride(0), parts.stride(1), parts.bias,
                    activation_args<T>(activation, p0, p1), trained);
    });
  }

  void finish(const std::string& loss, double p0, const std::string& optimizer) {
    with([&](auto& trainer) {
      if (trainer.finished()) refuse("the trainer is finished");
      if (trainer.layers() == 0) refuse("a trainer without layers");
      const auto kind =
          loss.empty() ? Loss::kMse : one_of<Loss>(kLossNames, loss, "loss: unknown name");
      trainer.finish(!loss.empty(), kind, p0,
                     one_of<Optimizer>(kOptimizerNames, optimizer, "optimizer: unknown name"));
    });
  }

  py::object step(py::handle x, py::handle t, py::handle weights, py::handle scalars) {
    return with_finished([&](auto& trainer) -> py::object {
      using T = typename std::remove_reference_t<decltype(trainer)>::Scalar;
      Given<T> given;
      double* const rates = rates_of(scalars);
      if (rates == nullptr || !given.take(trainer, x, t, weights)) return py::none();
      check_labels(given.samples, given.rows, trainer.out_features());
      trainer.reserve(given.rows);
      double loss = 0;
      run_released(trainer.picoseconds(given.rows), [&] {
        loss = trainer.step(given.samples, 0, given.rows, *reinterpret_cast<Rates*>(rates));
      });
      return py::float_(loss);
    });
  }

  py::object steps(py::handle x, py::handle t, py::handle weights, ptrdiff_t batch_size,
                   py::handle order, py::handle scalars) {
    return with_finished([&](auto& trainer) -> py::object {
      using T = typename std::remove_reference_t<decltype(trainer)>::Scalar;
      if (batch_size < 1) refuse("batch_size: expected 1 or more");
      Given<T> given;
      double* const rates = rates_of(scalars);
      if (rates == nullptr || !given.take(trainer, x, t, weights)) return py::none();
      ptrdiff_t total = given.rows;
      if (!order.is_none()) {
        if (!copy_order(order, given.rows)) return py::none();
        total = static_cast<ptrdiff_t>(order_.size());
        given.samples.order = order_.data();
      }
      check_labels(given.samples, total, trainer.out_features());
      batch_size = std::min(batch_size, std::max<ptrdiff_t>(total, 1));
      const ptrdiff_t batches = (total + batch_size - 1) / batch_size;
      done_ = 0;
      losses_.resize(static_cast<size_t>(batches));
      trainer.reserve(batch_size);
      const double each = trainer.picoseconds(batch_size);
      run_released(each * static_cast<double>(batches), [&] {
        while (done_ < batches && (done_ == 0 || go_on())) {
          const ptrdiff_t begin = done_ * batch_size;
          losses_[static_cast<size_t>(done_)] =
              trainer.step(given.samples, begin, std::min(batch_size, total - begin),
                           *reinterpret_cast<Rates*>(rates));
          ++done_;
        }
      });
      return losses_done();
    });
  }

  py::object forward(py::handle x) {
    return with_finished([&](auto& trainer) -> py::object {
      using T = typename std::remove_reference_t<decltype(trainer)>::Scalar;
      Rows rows;
      if (!rows.take(x, trainer.in_features()) || rows.view.rows < 1) return py::none();
      const ptrdiff_t shape[] = {rows.view.rows, trainer.out_features()};
      py::object y = new_array(dtype_of<T>(), shape, 2);
      Rows to;
      to.take(y, shape[1]);
      run_released(trainer.picoseconds(rows.view.rows),
                   [&] { trainer.forward(rows.view, to.view); });
      return y;
    });
  }

  py::object backward(py::handle dy, bool wrt_input) {
    return with_finished([&](auto& trainer) -> py::object {
      using T = typename std::remove_reference_t<decltype(trainer)>::Scalar;
      if (trainer.open_rows() == 0) refuse("backward without a forward before it");
      Rows rows;
      if (!rows.take(dy, trainer.out_features()) || rows.view.dtype != dtype_of<T>() ||
          rows.view.rows != trainer.open_rows()) {
        return py::none();
      }
      py::object dx = py::none();
      Rows to;
      if (wrt_input) {
        const ptrdiff_t shape[] = {rows.view.rows, trainer.in_features()};
        dx = new_array(dtype_of<T>(), shape, 2);
        to.take(dx, shape[1]);
      }
      run_released(trainer.picoseconds(rows.view.rows),
                   [&] { trainer.backward(rows.view, wrt_input ? &to.view : nullptr); });
      return dx;
    });
  }

  bool update(py::handle scalars) {
    return with_finished([&](auto& trainer) {
      if (!trainer.has_gradient()) refuse("update without a backward before it");
      double* const rates = rates_of(scalars);
      if (rates == nullptr) return false;
      run_released(trainer.update_picoseconds(),
                   [&] { trainer.update(*reinterpret_cast<Rates*>(rates)); });
      return true;
    });
  }

  // (n, k) or (n,) of a layer; None where there is none.
  py::object get(ptrdiff_t layer, Kept kept, bool bias) {
    return with_finished([&](auto& trainer) -> py::object {
      using T = typename std::remove_reference_t<decltype(trainer)>::Scalar;
      check_layer(trainer, layer);
      if (!trainer.has(layer, kept) || (bias && !trainer.has_bias(layer))) return py::none();
      const ptrdiff_t shape[] = {trainer.n(layer), trainer.k(layer)};
      py::object array = new_array(dtype_of<T>(), shape, bias ? 1 : 2);
      ArrayView view;
      borrow(array, view);
      T* const to = reinterpret_cast<T*>(view.data);
      trainer.get(layer, kept, bias ? nullptr : to, bias ? to : nullptr);
      return array;
    });
  }

  void set(ptrdiff_t layer, Kept kept, py::handle weight, py::handle bias) {
    with_finished([&](auto& trainer) {
      using T = typename std::remove_reference_t<decltype(trainer)>::Scalar;
      check_layer(trainer, layer);
      if (!trainer.has(layer, kept)) refuse("the layer has no such array");
      if (bias.is_none() == trainer.has_bias(layer)) refuse("bias: one more or less than there is");
      const Parts<T> parts(weight, bias, trainer.n(layer), trainer.k(layer));
      trainer.set(layer, kept, parts.weights(), parts.stride(0), parts.stride(1), parts.bias);
    });
  }

  ptrdiff_t layers() {
    return with([](auto& trainer) { return trainer.layers(); });
  }
  ptrdiff_t steps_done() const { return done_; }
  // Of the steps of the last call of `steps`, as far as it went.
  py::object losses() {
    return with([this](auto&) { return losses_done(); });
  }

 private:
  py::object losses_done() const {
    const ptrdiff_t shape[] = {done_};
    py::object array = new_array(DType::kFloat64, shape, 1);
    ArrayView view;
    borrow(array, view);
    std::copy_n(losses_.data(), shape[0], reinterpret_cast<double*>(view.data));
    return array;
  }

  static constexpr ptrdiff_t kMostFeatures = ptrdiff_t(1) << 40;

  // A weight (n, k), n of any number where it is -1, and its bias, which may be None.
  template <typename T>
  struct Parts {
    ArrayView w;
    AlignedArray<T> copy;
    const T* bias = nullptr;

    Parts(py::handle weight, py::handle b, ptrdiff_t n, ptrdiff_t k) {
      if (!borrow(weight, w) || w.ndim != 2 || w.dtype != dtype_of<T>() || w.shape[1] != k ||
          w.shape[0] < 1 || (n >= 0 && w.shape[0] != n) || !whole_strides<T>(w)) {
        refuse("weight: expected an aligned 2-D array of the trainer's dtype that fits");
      }
      if (b.is_none()) return;
      copy = vector_of<T>(b, w.shape[0]);
      bias = copy.data();
    }
    const T* weights() const { return reinterpret_cast<const T*>(w.data); }
    ptrdiff_t stride(int d) const { return w.strides[d] / static_cast<ptrdiff_t>(sizeof(T)); }
  };

  // Rows of so many features, which may have any real dtype.
  struct Rows {
    RowsView view;

    bool take(py::handle object, ptrdiff_t features) {
      ArrayView array;
      if (!borrow(object, array) || array.ndim != 2 || array.shape[1] != features) return false;
      rows_of(array, view);
      return true;
    }
  };

  // The arguments of a step.
  template <typename T>
  struct Given {
    Rows x, t;
    Samples samples{};
    ptrdiff_t rows = 0;

    bool take(const Trainer<T>& trainer, py::handle from, py::handle targets, py::handle weights) {
      if (!trainer.has_loss() || !x.take(from, trainer.in_features())) return false;
      rows = x.view.rows;
      if (rows < 1) return false;
      samples.x = &x.view;
      ArrayView array;
      if (!borrow(targets, array) || array.ndim < 1 || array.shape[0] != rows) return false;
      if (array.ndim == 1) {
        if (array.dtype != DType::kInt64 || !trainer.takes_classes()) return false;
        samples.labels = array.data;
        samples.label_stride = array.strides[0];
      } else {
        if (array.dtype != dtype_of<T>() || !t.take(targets, trainer.out_features())) return false;
        samples.t = &t.view;
      }
      if (weights.is_none()) return true;
      if (!borrow(weights, array) || array.ndim != 1 || array.dtype != DType::kFloat64 ||
          array.shape[0] != rows) {
        return false;
      }
      samples.weights = array.data;
      samples.weight_stride = array.strides[0];
      return true;
    }
  };

  // Where the scalars lie, in the order of Rates; null for another array.
  static double* rates_of(py::handle scalars) {
    ArrayView a;
    if (!borrow(scalars, a) || a.ndim != 1 || a.dtype != DType::kFloat64 || a.shape[0] != kRates ||
        a.strides[0] != ptrdiff_t(sizeof(double)) || !a.writeable || !whole_strides<double>(a)) {
      return nullptr;
    }
    return reinterpret_cast<double*>(a.data);
  }

  static void check_labels(const Samples& samples, ptrdiff_t count, ptrdiff_t classes) {
    if (samples.labels == nullptr) return;
    for (ptrdiff_t i = 0; i < count; ++i) {
      const int64_t label = samples.label(i);
      if (label < 0 || label >= classes)
        refuse("class numbers: expected 0 to one less than there are outputs");
    }
  }

  template <typename T>
  static void check_layer(const Trainer<T>& trainer, ptrdiff_t layer) {
    if (layer < 0 || layer >= trainer.layers()) throw py::index_error("layer out of range");
  }

  // A copy, which nobody changes meanwhile.
  bool copy_order(py::handle order, ptrdiff_t rows) {
    ArrayView a;
    if (!borrow(order, a) || a.ndim != 1 || a.dtype != DType::kInt64) return false;
    order_.resize(static_cast<size_t>(a.shape[0]));
    for (ptrdiff_t i = 0; i < a.shape[0]; ++i) {
      int64_t& row = order_[static_cast<size_t>(i)];
      std::memcpy(&row, a.data + i * a.strides[0], sizeof row);
      if (row < 0 || row >= rows) refuse("order: expected indices of rows");
    }
    return true;
  }

  std::variant<std::unique_ptr<Trainer<float>>, std::unique_ptr<Trainer<double>>> trainer_;
  std::atomic<bool> busy_{false};
  std::vector<int64_t> order_;
  std::vector<double> losses_;
  std::atomic<ptrdiff_t> done_{0};
};

}  // namespace

void register_trainer(py::module_& m) {
  py::class_<PyTrainer> trainer(m, "Trainer", py::module_local());
  define_init<PyTrainer, const std::string&, ptrdiff_t>(trainer, py::arg("dtype"),
                                                        py::arg("in_features"));
  trainer
      .def("dense", &PyTrainer::dense, py::arg("weight"), py::arg("bias"),
           py::arg("activation") = "identity", py::arg("p0") = 0.0, py::arg("p1") = 0.0,
           py::arg("trained") = true)
      .def("finish", &PyTrainer::finish, py::arg("loss"), py::arg("p0"), py::arg("optimizer"))
      .def("step", &PyTrainer::step, py::arg("x"), py::arg("t"), py::arg("sample_weight"),
           py::arg("scalars"))
      .def("steps", &PyTrainer::steps, py::arg("x"), py::arg("t"), py::arg("sample_weight"),
           py::arg("batch_size"), py::arg("order"), py::arg("scalars"))
      .def("forward", &PyTrainer::forward, py::arg("x"))
      .def("backward", &PyTrainer::backward, py::arg("dy"), py::arg("wrt_input") = true)
      .def("update", &PyTrainer::update, py::arg("scalars"))
      .def_property_readonly("layers", &PyTrainer::layers)
      .def_property_readonly("steps_done", &PyTrainer::steps_done)
      .def("losses", &PyTrainer::losses);
  const struct {
    const char *weight, *bias, *set;
    Kept kept;
  } arrays[] = {
      {"weight", "bias", "set_weights", Kept::kWeights},
      {"gradient_weight", "gradient_bias", nullptr, Kept::kGradient},
      {"first_moment_weight", "first_moment_bias", "set_first_moments", Kept::kFirstMoment},
      {"second_moment_weight", "second_moment_bias", "set_second_moments", Kept::kSecondMoment}};
  for (const auto& a : arrays) {
    const Kept kept = a.kept;
    for (const bool bias : {false, true}) {
      trainer.def(
          bias ? a.bias : a.weight,
          [kept, bias](PyTrainer& t, ptrdiff_t layer) { return t.get(layer, kept, bias); },
          py::arg("layer"));
    }
    if (a.set == nullptr) continue;
    trainer.def(
        a.set,
        [kept](PyTrainer& t, ptrdiff_t layer, py::handle weight, py::handle bias) {
          t.set(layer, kept, weight, bias);
        },
        py::arg("layer"), py::arg("weight"), py::arg("bias"));
  }
}

}  // namespace fastlayer
