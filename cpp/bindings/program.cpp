// PackedWeights, Version and Program: the weights of a layer, how often they have changed, and a
// network compiled to row operations.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <variant>
#include <vector>

#include "../core/network.hpp"
#include "arrays.hpp"
#include "gil.hpp"
#include "registers.hpp"

namespace fastlayer {
namespace {

[[noreturn]] void refuse(const char* what) { throw std::invalid_argument(what); }

// Elements of a 1-D array of dtype T, any stride.
template <typename T>
AlignedArray<T> vector_of(py::handle object, ptrdiff_t size) {
  ArrayView a;
  if (!borrow(object, a) || a.dtype != dtype_of<T>() || a.ndim != 1 || a.shape[0] != size) {
    refuse("expected a 1-D array of the program's dtype, one element for each feature");
  }
  AlignedArray<T> copy(static_cast<size_t>(size));
  for (ptrdiff_t i = 0; i < size; ++i)
    std::memcpy(&copy.data()[i], a.data + i * a.strides[0], sizeof(T));
  return copy;
}

class Weights {
 public:
  Weights(py::handle weight, py::handle bias) {
    ArrayView w;
    if (!borrow(weight, w) || w.ndim != 2) refuse("weight: expected a 2-D array");
    if (w.dtype == DType::kFloat32) {
      pack<float>(w, bias);
    } else if (w.dtype == DType::kFloat64) {
      pack<double>(w, bias);
    } else {
      refuse("weight: expected float32 or float64");
    }
  }

  template <typename T>
  std::shared_ptr<const PackedWeights<T>> get() const {
    const auto* p = std::get_if<std::shared_ptr<const PackedWeights<T>>>(&packed_);
    if (p == nullptr) refuse("weights and program have different dtypes");
    return *p;
  }

  template <typename F>
  auto visit(F f) const {
    return std::visit([&](const auto& p) { return f(*p); }, packed_);
  }

 private:
  template <typename T>
  void pack(const ArrayView& w, py::handle bias) {
    constexpr ptrdiff_t size = sizeof(T);
    const ptrdiff_t n = w.shape[0], k = w.shape[1];
    AlignedArray<T> b;
    if (!bias.is_none()) b = vector_of<T>(bias, n);
    const T* const bias_data = bias.is_none() ? nullptr : b.data();
    if (!whole_strides<T>(w)) refuse("weight: misaligned");
    packed_ = std::make_shared<const PackedWeights<T>>(n, k, reinterpret_cast<const T*>(w.data),
                                                       w.strides[0] / size, w.strides[1] / size,
                                                       bias_data);
  }

  std::variant<std::shared_ptr<const PackedWeights<float>>,
               std::shared_ptr<const PackedWeights<double>>>
      packed_;
};

template <typename T>
py::object unpack_weight(const PackedWeights<T>& p) {
  const ptrdiff_t shape[2] = {p.n(), p.k()};
  py::object array = new_array(dtype_of<T>(), shape, 2);
  ArrayView view;
  borrow(array, view);
  p.unpack(reinterpret_cast<T*>(view.data));
  return array;
}

template <typename T>
py::object unpack_bias(const PackedWeights<T>& p) {
  if (!p.has_bias()) return py::none();
  const ptrdiff_t shape[1] = {p.n()};
  py::object array = new_array(dtype_of<T>(), shape, 1);
  ArrayView view;
  borrow(array, view);
  p.unpack_bias(reinterpret_cast<T*>(view.data));
  return array;
}

template <typename T>
const char* dtype_name(const T&) {
  return sizeof(typename T::Scalar) == 4 ? "float32" : "float64";
}

// Counts the changes of something that programs are made from. They share the counter itself, and
// find out about a change without asking Python.
class Version {
 public:
  using Counter = std::atomic<uint64_t>;

  uint64_t value() const { return counter_->load(); }
  void advance() { counter_->fetch_add(1); }
  std::shared_ptr<const Counter> counter() const { return counter_; }

 private:
  std::shared_ptr<Counter> counter_ = std::make_shared<Counter>(0);
};

// What Program.run raises; one type for the life of the process.
PyObject* stale_type() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> type;
  return type
      .call_once_and_store_result([] {
        PyObject* const made = PyErr_NewExceptionWithDoc(
            "fastlayer._core.Stale", "The program was made from weights that have changed since.",
            PyExc_Exception, nullptr);
        if (made == nullptr) throw py::error_already_set();
        return py::reinterpret_steal<py::object>(made);
      })
      .get_stored()
      .ptr();
}

class Program {
 public:
  Program(const std::string& dtype, ptrdiff_t in_features)
      : network_(dtype == "float64" ? Either(Network<double>(in_features))
                                    : Either(Network<float>(in_features))) {
    if (dtype != "float32" && dtype != "float64") refuse("dtype: expected float32 or float64");
    if (in_features < 0) refuse("in_features: expected 0 or more");
  }

  void dense(const Weights& weights, const std::string& activation, double p0, double p1) {
    build([&](auto& net) {
      using T = typename std::remove_reference_t<decltype(net)>::Scalar;
      auto packed = weights.get<T>();
      if (packed->k() != net.out_features()) refuse("dense: in_features differ");
      net.dense(std::move(packed), activation_args<T>(activation, p0, p1));
    });
  }
  void activation(const std::string& name, double p0, double p1) {
    build([&](auto& net) {
      using T = typename std::remove_reference_t<decltype(net)>::Scalar;
      net.activation(activation_args<T>(name, p0, p1));
    });
  }
  void vector_op(OpKind kind, py::handle a, py::handle b, double eps) {
    build([&](auto& net) {
      using T = typename std::remove_reference_t<decltype(net)>::Scalar;
      const ptrdiff_t n = net.out_features();
      net.vector_op(kind, a.is_none() ? AlignedArray<T>() : vector_of<T>(a, n),
                    b.is_none() ? AlignedArray<T>() : vector_of<T>(b, n), static_cast<T>(eps));
    });
  }
  void begin_residual() {
    build([](auto& net) { net.begin_residual(); });
  }
  void end_residual() {
    build([](auto& net) {
      if (net.open_residuals() == 0) refuse("end_residual without begin_residual");
      if (net.residual_features() != net.out_features()) refuse("residual: features differ");
      net.end_residual();
    });
  }
  // Of a counter watched twice the older value counts: what changed in between was read too.
  void watch(const Version& version, uint64_t value) {
    build([&](auto&) {
      const auto counter = version.counter();
      for (Watched& w : watched_) {
        if (w.counter != counter) continue;
        w.value = std::min(w.value, value);
        return;
      }
      watched_.push_back({counter, value});
    });
  }
  void finish() {
    build([](auto& net) {
      if (net.open_residuals() != 0) refuse("begin_residual without end_residual");
      net.finish();
    });
  }

  ptrdiff_t in_features() const {
    return std::visit([](const auto& net) { return net.in_features(); }, network_);
  }
  ptrdiff_t out_features() const {
    return std::visit([](const auto& net) { return net.out_features(); }, network_);
  }
  const char* dtype() const {
    return std::visit([](const auto& net) { return dtype_name(net); }, network_);
  }

  std::string describe_plan(ptrdiff_t m) const {
    return std::visit([m](const auto& net) { return describe(net.plan(m)); }, network_);
  }

  // Whether a watched value is another one now. Relaxed: the program has its own copy of the
  // weights, and nothing else is read after this.
  bool stale() const {
    for (const Watched& w : watched_) {
      if (w.counter->load(std::memory_order_relaxed) != w.value) return true;
    }
    return false;
  }

  // The whole of a call from Python: no conversion, no copy, no message.
  py::object run(py::handle x, py::handle out) const {
    return std::visit([&](const auto& net) { return run_network(net, x, out); }, network_);
  }

 private:
  using Either = std::variant<Network<float>, Network<double>>;

  struct Watched {
    std::shared_ptr<const Version::Counter> counter;
    uint64_t value;  // before what it counts was read
  };

  template <typename F>
  void build(F f) {
    std::visit(
        [&](auto& net) {
          if (net.finished()) refuse("the program is finished");
          f(net);
        },
        network_);
  }

  template <typename T>
  static py::object run_network(const Network<T>& net, py::handle x, py::handle out) {
    ArrayView from;
    if (!net.finished() || !borrow(x, from) || from.ndim == 0 ||
        from.shape[from.ndim - 1] != net.in_features()) {
      return py::none();
    }
    ptrdiff_t shape[kMaxDims];
    for (int d = 0; d < from.ndim - 1; ++d) shape[d] = from.shape[d];
    shape[from.ndim - 1] = net.out_features();
    Result result(out, dtype_of<T>(), shape, from.ndim);
    if (!result.usable()) return py::none();
    result.avoid(from, false);
    RowsView rows_x, rows_y;
    rows_of(from, rows_x);
    rows_of(result.view(), rows_y);
    const Plan plan = net.plan(rows_x.rows);
    run_released(plan.picoseconds, [&] { net.run(rows_x, rows_y, plan); });
    return result.finish();
  }

  Either network_;
  std::vector<Watched> watched_;
};

// Program.run as a plain built-in function: pybind11's dispatch costs 0.1 us, a fifth of the call
// of a tiny network.
constexpr const char* kProgramCapsule = "fastlayer._core.Program";

PyObject* run_program(PyObject* capsule, PyObject* const* args, Py_ssize_t count) noexcept {
  if (count != 1 && count != 2) {
    PyErr_SetString(PyExc_TypeError, "run(x, out=None) takes one or two positional arguments");
    return nullptr;
  }
  try {
    const auto* program =
        static_cast<const Program*>(PyCapsule_GetPointer(capsule, kProgramCapsule));
    if (program == nullptr) return nullptr;
    if (program->stale()) {
      PyErr_SetString(stale_type(), "the weights have changed since the program was made");
      return nullptr;
    }
    return program->run(args[0], count == 2 ? args[1] : Py_None).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// The function keeps the program alive through its capsule.
py::object run_function(const py::object& self) {
  static PyMethodDef definition = {
      "run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&run_program)),
      METH_FASTCALL,
      "run($self, x, out=None, /)\n--\n\nThe result, or None: not mine. Raises Stale."};
  PyObject* const capsule = PyCapsule_New(&self.cast<Program&>(), kProgramCapsule, [](PyObject* c) {
    Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(c)));
  });
  if (capsule == nullptr) throw py::error_already_set();
  const auto owner = py::reinterpret_steal<py::object>(capsule);
  if (PyCapsule_SetContext(capsule, self.ptr()) != 0) throw py::error_already_set();
  Py_INCREF(self.ptr());
  PyObject* const function = PyCFunction_New(&definition, capsule);
  if (function == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

// pybind11 3.1 makes an instance without asking whether there was memory for it.
PyObject* new_instance(PyTypeObject* type, PyObject*, PyObject*) noexcept {
  PyObject* const self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  try {
    reinterpret_cast<py::detail::instance*>(self)->allocate_layout();
    return self;
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
  type->tp_free(self);  // what pybind11 does at the end needs the layout
  Py_DECREF(type);
  return nullptr;
}

// A constructor, as py::init makes one; but pybind11 3.1 lets what is thrown while an instance is
// registered go out into CPython, which ends the process. Here it is registered where that is
// caught.
template <typename C, typename... Args, typename... Options>
void define_init(py::class_<C>& type, const Options&... options) {
  reinterpret_cast<PyTypeObject*>(type.ptr())->tp_new = &new_instance;
  type.def(
      "__init__",
      [](py::detail::value_and_holder& instance, Args... args) {
        auto made = std::make_unique<C>(args...);
        instance.value_ptr() = made.get();
        try {
          instance.type->init_instance(instance.inst, nullptr);
        } catch (...) {
          instance.value_ptr() = nullptr;
          throw;
        }
        made.release();  // the instance's own now
      },
      py::detail::is_new_style_constructor(), options...);
}

}  // namespace

void register_program(py::module_& m) {
  m.attr("Stale") = py::handle(stale_type());

  py::class_<Version> version(m, "Version", py::module_local());
  define_init<Version>(version);
  version.def_property_readonly("value", &Version::value).def("advance", &Version::advance);

  py::class_<Weights> weights(m, "PackedWeights", py::module_local());
  define_init<Weights, py::handle, py::handle>(weights, py::arg("weight"), py::arg("bias"));
  weights
      .def_property_readonly(
          "in_features", [](const Weights& w) { return w.visit([](auto& p) { return p.k(); }); })
      .def_property_readonly(
          "out_features", [](const Weights& w) { return w.visit([](auto& p) { return p.n(); }); })
      .def_property_readonly(
          "dtype", [](const Weights& w) { return w.visit([](auto& p) { return dtype_name(p); }); })
      .def_property_readonly(
          "has_bias",
          [](const Weights& w) { return w.visit([](auto& p) { return p.has_bias(); }); })
      .def_property_readonly(
          "nbytes", [](const Weights& w) { return w.visit([](auto& p) { return p.nbytes(); }); })
      .def("weight",
           [](const Weights& w) { return w.visit([](auto& p) { return unpack_weight(p); }); })
      .def("bias",
           [](const Weights& w) { return w.visit([](auto& p) { return unpack_bias(p); }); });

  const py::none none;
  py::class_<Program> program(m, "Program", py::module_local());
  define_init<Program, const std::string&, ptrdiff_t>(program, py::arg("dtype"),
                                                      py::arg("in_features"));
  program
      .def("dense", &Program::dense, py::arg("weights"), py::arg("activation") = "identity",
           py::arg("p0") = 0.0, py::arg("p1") = 0.0)
      .def("activation", &Program::activation, py::arg("name"), py::arg("p0") = 0.0,
           py::arg("p1") = 0.0)
      .def(
          "prelu",
          [none](Program& p, py::handle slope) { p.vector_op(OpKind::kPrelu, slope, none, 0); },
          py::arg("slope"))
      .def(
          "affine",
          [](Program& p, py::handle scale, py::handle shift) {
            p.vector_op(OpKind::kAffine, scale, shift, 0);
          },
          py::arg("scale"), py::arg("shift"))
      .def(
          "layer_norm",
          [](Program& p, py::handle weight, py::handle bias, double eps) {
            p.vector_op(OpKind::kLayerNorm, weight, bias, eps);
          },
          py::arg("weight"), py::arg("bias"), py::arg("eps"))
      .def(
          "rms_norm",
          [none](Program& p, py::handle weight, double eps) {
            p.vector_op(OpKind::kRmsNorm, weight, none, eps);
          },
          py::arg("weight"), py::arg("eps"))
      .def("begin_residual", &Program::begin_residual)
      .def("end_residual", &Program::end_residual)
      .def("watch", &Program::watch, py::arg("version"), py::arg("value"))
      .def("finish", &Program::finish)
      .def_property_readonly("in_features", &Program::in_features)
      .def_property_readonly("out_features", &Program::out_features)
      .def_property_readonly("dtype", &Program::dtype)
      .def("describe", &Program::describe_plan, py::arg("m"))
      .def_property_readonly("run", &run_function);
}

}  // namespace fastlayer
