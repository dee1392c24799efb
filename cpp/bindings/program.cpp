// _core.Program: networks compiled to row operations, and the exception for those that are stale.
#include <algorithm>
#include <atomic>
#include <iterator>
#include <memory>
#include <variant>
#include <vector>

#include "../core/executor.hpp"
#include "arrays.hpp"
#include "fast_call.hpp"
#include "gil.hpp"
#include "init.hpp"
#include "registers.hpp"
#include "weights.hpp"

namespace fastlayer {
namespace {

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

// Far more than memory holds, and few enough to count bytes in: branches may multiply features.
constexpr ptrdiff_t kMostFeatures = ptrdiff_t(1) << 40;

// Arrays that a call may read; Python puts more of them together.
constexpr size_t kMostInputs = 8;

class PyProgram {
 public:
  PyProgram(const std::string& dtype, ptrdiff_t in_features)
      : program_(dtype == "float64" ? Either(Program<double>(in_features))
                                    : Either(Program<float>(in_features))) {
    if (dtype != "float32" && dtype != "float64") refuse("dtype: expected float32 or float64");
    if (in_features < 0) refuse("in_features: expected 0 or more");
  }

  void dense(const PyPackedWeights& weights, const std::string& activation, double p0, double p1) {
    build([&](auto& program) {
      using T = typename std::remove_reference_t<decltype(program)>::Scalar;
      auto packed = weights.get<T>();
      if (packed->k() != program.out_features()) refuse("dense: in_features differ");
      program.dense(std::move(packed), activation_args<T>(activation, p0, p1));
    });
  }
  void activation(const std::string& name, double p0, double p1) {
    build([&](auto& program) {
      using T = typename std::remove_reference_t<decltype(program)>::Scalar;
      program.activation(activation_args<T>(name, p0, p1));
    });
  }
  void vector_op(OpKind kind, py::handle a, py::handle b, double eps) {
    build([&](auto& program) {
      using T = typename std::remove_reference_t<decltype(program)>::Scalar;
      const ptrdiff_t n = program.out_features();
      program.vector_op(kind, a.is_none() ? AlignedArray<T>() : vector_of<T>(a, n),
                        b.is_none() ? AlignedArray<T>() : vector_of<T>(b, n), static_cast<T>(eps));
    });
  }
  void slice(ptrdiff_t begin, ptrdiff_t end) {
    build([&](auto& program) {
      if (begin < 0 || end < begin || end > program.out_features()) refuse("slice: out of range");
      program.slice(begin, end);
    });
  }
  void begin_branches(const std::string& join, ptrdiff_t total) {
    const char* const names[] = {"concat", "add", "multiply"};
    const auto* const found = std::find(std::begin(names), std::end(names), join);
    if (found == std::end(names)) refuse("join: expected concat, add or multiply");
    if (total < 0 || total > kMostFeatures) refuse("total: too many features");
    build([&](auto& program) {
      program.begin_branches(static_cast<Join>(found - std::begin(names)), total);
    });
  }
  void next_branch() {
    build([](auto& program) {
      if (program.open_branches() == 0) refuse("next_branch without begin_branches");
      if (!program.branch_fits()) refuse("branches: features differ");
      program.next_branch();
    });
  }
  void end_branches() {
    build([](auto& program) {
      if (program.open_branches() == 0) refuse("end_branches without begin_branches");
      if (!program.branch_fits()) refuse("branches: features differ");
      program.end_branches();
    });
  }
  // Of a counter watched twice the older value counts: what changed in between was read too.
  void watch(const PyVersion& version, uint64_t value) {
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
    build([](auto& program) {
      if (program.open_branches() != 0) refuse("begin_branches without end_branches");
      program.finish();
    });
  }

  ptrdiff_t in_features() const {
    return std::visit([](const auto& program) { return program.in_features(); }, program_);
  }
  ptrdiff_t out_features() const {
    return std::visit([](const auto& program) { return program.out_features(); }, program_);
  }
  const char* dtype() const {
    return std::visit([](const auto& program) { return dtype_name(program); }, program_);
  }

  std::string describe_plan(ptrdiff_t m) const {
    return std::visit([m](const auto& p) { return describe(plan_within_limit(p, m)); }, program_);
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
    return std::visit([&](const auto& program) { return run_core(program, x, out); }, program_);
  }

  // Features of each of several arrays, which lie beside each other in the rows; 0 for any, where
  // all of them together are as many as there must be.
  void set_inputs(const py::tuple& given) {
    if (given.size() > kMostInputs) refuse("inputs: too many");
    inputs_ = widths_of(given, in_features(), true);
  }

  // What run_parts gives: so many features each, one after the other.
  void set_outputs(const py::tuple& given) { outputs_ = widths_of(given, out_features(), false); }
  py::object parts_of(const py::object& rows) const {
    ArrayView view;
    if (!borrow(rows, view)) return py::none();
    py::tuple parts(outputs_.size());
    ptrdiff_t begin = 0;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      parts[i] = features_of(rows, view, begin, outputs_[i]);
      begin += outputs_[i];
    }
    return std::move(parts);
  }

  // Samples of more axes than one are refused.
  void set_one_row() { one_row_ = true; }
  bool one_row() const { return one_row_; }

 private:
  using Either = std::variant<Program<float>, Program<double>>;

  struct Watched {
    std::shared_ptr<const PyVersion::Counter> counter;
    uint64_t value;  // before what it counts was read
  };

  static std::vector<ptrdiff_t> widths_of(const py::tuple& given, ptrdiff_t features, bool any) {
    std::vector<ptrdiff_t> widths;
    ptrdiff_t total = 0;
    for (const py::handle item : given) {
      const auto width = item.cast<ptrdiff_t>();
      if (width < 0 || width > features - total) refuse("widths: more features than there are");
      total += width;
      widths.push_back(width);
    }
    if (total != features && !widths.empty() && !(any && total == 0))
      refuse("widths: fewer features than there are");
    return widths;
  }

  template <typename F>
  void build(F f) {
    std::visit(
        [&](auto& program) {
          if (program.finished()) refuse("the program is finished");
          f(program);
        },
        program_);
  }

  // Whether these are arrays of so many features, 0 for any, alike in all other axes.
  bool borrow_inputs(PyObject* const* objects, const ptrdiff_t* widths, size_t count,
                     ArrayView* views, ptrdiff_t total) const {
    for (size_t i = 0; i < count; ++i) {
      ArrayView& view = views[i];
      if (!borrow(objects[i], view) || view.ndim == 0 || (one_row_ && view.ndim > 2) ||
          view.ndim != views[0].ndim ||
          !std::equal(view.shape, view.shape + view.ndim - 1, views[0].shape)) {
        return false;
      }
      const ptrdiff_t width = view.shape[view.ndim - 1];
      if ((widths[i] != 0 && width != widths[i]) || width > total) return false;
      total -= width;
    }
    return total == 0;
  }

  template <typename T>
  py::object run_core(const Program<T>& program, py::handle x, py::handle out) const {
    if (!program.finished()) return py::none();
    if (PyTuple_CheckExact(x.ptr())) {
      const size_t count = inputs_.size();
      if (count == 0 || static_cast<size_t>(PyTuple_GET_SIZE(x.ptr())) != count) return py::none();
      ArrayView from[kMostInputs];
      if (!borrow_inputs(&PyTuple_GET_ITEM(x.ptr(), 0), inputs_.data(), count, from,
                         program.in_features())) {
        return py::none();
      }
      RowsView rows[kMostInputs];
      return run_views(program, from, rows, count, out);
    }
    ArrayView from;
    const ptrdiff_t width = program.in_features();
    if (!borrow_inputs(&x.ptr(), &width, 1, &from, width)) return py::none();
    RowsView rows;
    return run_views(program, &from, &rows, 1, out);
  }

  // `rows` is room for as many views.
  template <typename T>
  py::object run_views(const Program<T>& program, const ArrayView* from, RowsView* rows,
                       size_t count, py::handle out) const {
    const int last = from->ndim - 1;
    ptrdiff_t shape[kMaxDims];
    std::copy(from->shape, from->shape + last, shape);
    shape[last] = program.out_features();
    Result result(out, dtype_of<T>(), shape, from->ndim);
    if (!result.usable()) return py::none();
    for (size_t i = 0; i < count; ++i) {
      result.avoid(from[i], false);
      rows_of(from[i], rows[i]);
    }
    RowsView rows_y;
    rows_of(result.view(), rows_y);
    const Plan plan = plan_within_limit(program, rows_y.rows);
    const Inputs x{rows, static_cast<int>(count)};
    run_released(plan.picoseconds, [&] { execute(program, x, rows_y, plan); });
    return result.finish();
  }

  Either program_;
  std::vector<ptrdiff_t> inputs_;   // features of each array, where there may be several
  std::vector<ptrdiff_t> outputs_;  // features of each part of the result
  std::vector<Watched> watched_;
  bool one_row_ = false;
};

// Program.run as a plain built-in function: pybind11's dispatch costs 0.1 us, a fifth of the call
// of a tiny network.
constexpr const char* kProgramCapsule = "fastlayer._core.Program";

PyObject* run_either(PyObject* capsule, PyObject* const* args, Py_ssize_t count,
                     bool parts) noexcept {
  if (count != 1 && count != 2) {
    PyErr_SetString(PyExc_TypeError, "run(x, out=None) takes one or two positional arguments");
    return nullptr;
  }
  const auto* program =
      static_cast<const PyProgram*>(PyCapsule_GetPointer(capsule, kProgramCapsule));
  if (program == nullptr) return nullptr;
  if (program->stale()) {
    PyErr_SetString(stale_type(), "the weights have changed since the program was made");
    return nullptr;
  }
  return call_guarded([&] {
    py::object rows = program->run(args[0], count == 2 ? args[1] : Py_None);
    return parts && !rows.is_none() ? program->parts_of(rows) : std::move(rows);
  });
}

PyObject* run_program(PyObject* capsule, PyObject* const* args, Py_ssize_t count) noexcept {
  return run_either(capsule, args, count, false);
}

PyObject* run_program_parts(PyObject* capsule, PyObject* const* args, Py_ssize_t count) noexcept {
  return run_either(capsule, args, count, true);
}

PyMethodDef run_parts_definition = {
    "run_parts", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&run_program_parts)),
    METH_FASTCALL,
    "run_parts($self, x, out=None, /)\n--\n\nLike run, but a tuple of views of the result."};
PyMethodDef run_definition = {
    "run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&run_program)), METH_FASTCALL,
    "run($self, x, out=None, /)\n--\n\nThe result for an array, or a tuple of those that "
    "set_inputs "
    "allows; or None: not mine. Raises Stale."};

// The function keeps the program alive through its capsule.
py::object run_function(const py::object& self, PyMethodDef& definition) {
  PyObject* const capsule = PyCapsule_New(
      &self.cast<PyProgram&>(), kProgramCapsule,
      [](PyObject* c) { Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(c))); });
  if (capsule == nullptr) throw py::error_already_set();
  const auto owner = py::reinterpret_steal<py::object>(capsule);
  if (PyCapsule_SetContext(capsule, self.ptr()) != 0) throw py::error_already_set();
  Py_INCREF(self.ptr());
  PyObject* const function = PyCFunction_New(&definition, capsule);
  if (function == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

// Module.__call__, of which call_module is the way without Python, and the names that it looks for.
PyObject *module_call, *name_run, *name_axis, *name_out;

// Whether (x, *others, axis=-1, out=None) is all that the call was given; else Python sorts it out.
bool is_plain_call(PyObject* args, PyObject* keywords, PyObject*& out) {
  if (PyTuple_GET_SIZE(args) == 0) return false;
  if (keywords == nullptr) return true;
  PyObject *key, *value;
  for (Py_ssize_t at = 0; PyDict_Next(keywords, &at, &key, &value);) {
    int overflow = 0;
    if (key == name_out) {
      out = value;
    } else if (key != name_axis || !PyLong_CheckExact(value) ||
               PyLong_AsLongAndOverflow(value, &overflow) != -1 || overflow != 0) {
      return false;
    }
  }
  return true;
}

// Null without an error: the program does not take the arguments, or there is none.
PyObject* run_module(PyObject* self, PyObject* x, PyObject* out) {
  PyObject* const run = PyObject_GetAttr(self, name_run);
  if (run == nullptr) return nullptr;
  PyObject* y = nullptr;
  const PyCFunction function =
      PyCFunction_CheckExact(run) ? PyCFunction_GET_FUNCTION(run) : nullptr;
  const bool parts = function == run_parts_definition.ml_meth;
  if (parts || function == run_definition.ml_meth) {
    PyObject* const both[] = {x, out};
    y = run_either(PyCFunction_GET_SELF(run), both, 2, parts);
    if (y == nullptr && PyErr_ExceptionMatches(stale_type())) PyErr_Clear();
    if (y == Py_None) {
      Py_DECREF(y);
      y = nullptr;
    }
  }
  Py_DECREF(run);
  return y;
}

// tp_call of modules.
PyObject* call_module(PyObject* self, PyObject* args, PyObject* keywords) noexcept {
  PyObject* out = Py_None;
  if (is_plain_call(args, keywords, out)) {
    // Several arrays are the tuple that they come in.
    PyObject* const x = PyTuple_GET_SIZE(args) == 1 ? PyTuple_GET_ITEM(args, 0) : args;
    PyObject* const y = run_module(self, x, out);
    if (y != nullptr || PyErr_Occurred() != nullptr) return y;
  }
  const Py_ssize_t count = PyTuple_GET_SIZE(args);
  PyObject* const with_self = PyTuple_New(count + 1);
  if (with_self == nullptr) return nullptr;
  Py_INCREF(self);
  PyTuple_SET_ITEM(with_self, 0, self);
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* const arg = PyTuple_GET_ITEM(args, i);
    Py_INCREF(arg);
    PyTuple_SET_ITEM(with_self, i + 1, arg);
  }
  PyObject* const y = PyObject_Call(module_call, with_self, keywords);
  Py_DECREF(with_self);
  return y;
}

// Instances of `type` are called without a Python frame, which takes a third of the call of a tiny
// network. Whoever gives the type another __call__ later gets that one: Python sets the slot anew.
void call_directly(const py::type& type, const py::function& call) {
  Py_XSETREF(module_call, py::object(call).release().ptr());
  reinterpret_cast<PyTypeObject*>(type.ptr())->tp_call = &call_module;
}

}  // namespace

void register_program(py::module_& m) {
  m.attr("Stale") = py::handle(stale_type());
  name_run = py::str("_run").release().ptr();
  name_axis = py::str("axis").release().ptr();
  name_out = py::str("out").release().ptr();
  for (PyObject** name : {&name_run, &name_axis, &name_out}) PyUnicode_InternInPlace(name);
  m.def("call_directly", &call_directly, py::arg("type"), py::arg("call"), py::pos_only());

  const py::none none;
  py::class_<PyProgram> program(m, "Program", py::module_local());
  define_init<PyProgram, const std::string&, ptrdiff_t>(program, py::arg("dtype"),
                                                        py::arg("in_features"));
  program
      .def("dense", &PyProgram::dense, py::arg("weights"), py::arg("activation") = "identity",
           py::arg("p0") = 0.0, py::arg("p1") = 0.0)
      .def("activation", &PyProgram::activation, py::arg("name"), py::arg("p0") = 0.0,
           py::arg("p1") = 0.0)
      .def(
          "prelu",
          [none](PyProgram& p, py::handle slope) { p.vector_op(OpKind::kPrelu, slope, none, 0); },
          py::arg("slope"))
      .def(
          "affine",
          [](PyProgram& p, py::handle scale, py::handle shift) {
            p.vector_op(OpKind::kAffine, scale, shift, 0);
          },
          py::arg("scale"), py::arg("shift"))
      .def(
          "layer_norm",
          [](PyProgram& p, py::handle weight, py::handle bias, double eps) {
            p.vector_op(OpKind::kLayerNorm, weight, bias, eps);
          },
          py::arg("weight"), py::arg("bias"), py::arg("eps"))
      .def(
          "rms_norm",
          [none](PyProgram& p, py::handle weight, double eps) {
            p.vector_op(OpKind::kRmsNorm, weight, none, eps);
          },
          py::arg("weight"), py::arg("eps"))
      .def("slice", &PyProgram::slice, py::arg("begin"), py::arg("end"))
      .def("begin_branches", &PyProgram::begin_branches, py::arg("join"), py::arg("total") = 0)
      .def("next_branch", &PyProgram::next_branch)
      .def("end_branches", &PyProgram::end_branches)
      .def("watch", &PyProgram::watch, py::arg("version"), py::arg("value"))
      .def("finish", &PyProgram::finish)
      .def_property_readonly("in_features", &PyProgram::in_features)
      .def_property_readonly("out_features", &PyProgram::out_features)
      .def_property_readonly("dtype", &PyProgram::dtype)
      .def_property_readonly("one_row", &PyProgram::one_row)
      .def("set_inputs", &PyProgram::set_inputs, py::arg("widths"))
      .def("set_one_row", &PyProgram::set_one_row)
      .def("describe", &PyProgram::describe_plan, py::arg("m"))
      .def("set_outputs", &PyProgram::set_outputs, py::arg("widths"))
      .def_property_readonly(
          "run", [](const py::object& self) { return run_function(self, run_definition); })
      .def_property_readonly("run_parts", [](const py::object& self) {
        return run_function(self, run_parts_definition);
      });
}

}  // namespace fastlayer
