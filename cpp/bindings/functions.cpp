// The functional path: linear, matmul and activations on arrays as they are.
#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>

#include "../core/elementwise.hpp"
#include "../core/matmul.hpp"
#include "../core/plan.hpp"
#include "../core/turns.hpp"
#include "../core/workspace.hpp"
#include "arrays.hpp"
#include "gil.hpp"
#include "registers.hpp"

namespace fastlayer {
namespace {

// Calls f with a null T* of the array's element type, unless that is another dtype.
template <typename F>
void with_float(DType dtype, F f) {
  if (dtype == DType::kFloat32) f(static_cast<float*>(nullptr));
  if (dtype == DType::kFloat64) f(static_cast<double*>(nullptr));
}

// The last axis as a contiguous vector of n elements, copied where it is not one already.
template <typename T>
const T* vector_in(const ArrayView& a, AlignedArray<T>& copy) {
  if (whole_strides<T>(a) && (a.shape[0] <= 1 || a.strides[0] == ptrdiff_t(sizeof(T)))) {
    return reinterpret_cast<const T*>(a.data);
  }
  copy = AlignedArray<T>(static_cast<size_t>(a.shape[0]));
  for (ptrdiff_t i = 0; i < a.shape[0]; ++i) {
    std::memcpy(&copy.data()[i], a.data + i * a.strides[0], sizeof(T));
  }
  return copy.data();
}

// y = act(x @ w.T + bias), all of them checked.
template <typename T>
void linear_into(const ArrayView& x, const ArrayView& w, const ArrayView* bias,
                 const ActivationArgs<T>& act, const ArrayView& y, bool accumulate) {
  AlignedArray<T> bias_copy;
  const T* const bias_data = bias == nullptr ? nullptr : vector_in(*bias, bias_copy);
  RowsView rows_x, rows_y;
  rows_of(x, rows_x);
  rows_of(y, rows_y);
  const ptrdiff_t size = sizeof(T);
  const MatmulArgs<T> args = {&rows_x,
                              &rows_y,
                              reinterpret_cast<const T*>(w.data),
                              w.shape[0],
                              w.strides[0] / size,
                              w.strides[1] / size,
                              bias_data,
                              accumulate,
                              act};
  run_released(matmul_picoseconds(rows_y.rows, w.shape[0], w.shape[1], sizeof(T)),
               [&] { matmul(args); });
}

template <typename T>
py::object linear_of(const ArrayView& x, const ArrayView& w, const ArrayView* bias,
                     const ActivationArgs<T>& act, py::handle out, bool accumulate) {
  if (!whole_strides<T>(w)) return py::none();
  ptrdiff_t shape[kMaxDims];
  for (int d = 0; d < x.ndim - 1; ++d) shape[d] = x.shape[d];
  shape[x.ndim - 1] = w.shape[0];
  Result result(out, dtype_of<T>(), shape, x.ndim);
  if (!result.usable()) return py::none();
  result.avoid(x, false);
  result.avoid(w, false);
  if (bias != nullptr) result.avoid(*bias, false);
  // The sums start at what `out` holds, so it has to be written in place.
  if (accumulate && !result.in_place()) return py::none();
  linear_into<T>(x, w, bias, act, result.view(), accumulate);
  return result.finish();
}

py::object linear(py::handle x, py::handle weight, py::handle bias, const std::string& activation,
                  double p0, double p1, py::handle out, bool accumulate) {
  ArrayView from, w, b;
  if (!borrow(x, from) || !borrow(weight, w)) return py::none();
  if (from.dtype != w.dtype || from.ndim < 1 || w.ndim != 2) return py::none();
  if (from.shape[from.ndim - 1] != w.shape[1]) return py::none();
  if (!bias.is_none() &&
      (!borrow(bias, b) || b.dtype != w.dtype || b.ndim != 1 || b.shape[0] != w.shape[0])) {
    return py::none();
  }
  py::object y = py::none();
  with_float(w.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    y = linear_of<T>(from, w, bias.is_none() ? nullptr : &b, activation_args<T>(activation, p0, p1),
                     out, accumulate);
  });
  return y;
}

// A vector as it is; of a matrix, its columns as rows.
struct Samples {
  ArrayView view;
  ptrdiff_t shape[2], strides[2];

  explicit Samples(const ArrayView& a) : view(a) {
    if (a.ndim != 2) return;
    for (int d = 0; d < 2; ++d) {
      shape[d] = a.shape[1 - d];
      strides[d] = a.strides[1 - d];
    }
    view.shape = shape;
    view.strides = strides;
  }
  Samples(const Samples&) = delete;
};

template <typename T>
py::object dense_forward_of(const ArrayView& x, const ArrayView& w, const ArrayView& bias,
                            const ActivationArgs<T>& act) {
  if (!whole_strides<T>(w)) return py::none();
  const ptrdiff_t shape[] = {w.shape[0], x.ndim == 2 ? x.shape[1] : 0};
  py::object z = new_array(x.dtype, shape, x.ndim), a = py::none();
  ArrayView to;
  borrow(z, to);
  const ArrayView b = {bias.data, bias.dtype, 1, bias.shape, bias.strides, false};
  const Samples rows_in(x), rows_out(to);
  linear_into<T>(rows_in.view, w, &b, {Activation::kIdentity, T(0), T(0)}, rows_out.view, false);
  if (act.kind != Activation::kIdentity && !is_row_wise(act.kind)) {
    a = new_array(x.dtype, shape, x.ndim);
    ArrayView activated;
    borrow(a, activated);
    RowsView from, result;
    rows_of(to, from);
    rows_of(activated, result);
    run_released(elementwise_picoseconds(from.rows * from.cols),
                 [&] { activate<T>(act, from, result); });
  }
  return py::make_tuple(std::move(a), std::move(z));
}

// (a, z) with z = w @ x + bias and a = act(z), samples being columns; a is None where act is the
// identity or runs over an axis.
py::object dense_forward(py::handle x, py::handle weight, py::handle bias,
                         const std::string& activation, double p0, double p1) {
  ArrayView from, w, b;
  if (!borrow(x, from) || !borrow(weight, w) || !borrow(bias, b)) return py::none();
  if (from.dtype != w.dtype || b.dtype != w.dtype || w.ndim != 2) return py::none();
  if (from.ndim < 1 || from.ndim > 2 || b.ndim != from.ndim) return py::none();
  if (from.shape[0] != w.shape[1] || b.shape[0] != w.shape[0]) return py::none();
  if (b.ndim == 2 && b.shape[1] != 1) return py::none();
  py::object pair = py::none();
  with_float(w.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    pair = dense_forward_of<T>(from, w, b, activation_args<T>(activation, p0, p1));
  });
  return pair;
}

// One stack of a @ b: strides of the leading dimensions, 0 where an operand is broadcast.
struct Stack {
  int ndim = 0;
  ptrdiff_t shape[kMaxDims], a[kMaxDims], b[kMaxDims], y[kMaxDims];
  ptrdiff_t count = 1;
};

bool broadcast(const ArrayView& a, const ArrayView& b, Stack& stack) {
  stack.ndim = std::max(a.ndim, b.ndim) - 2;
  for (int d = 0; d < stack.ndim; ++d) {
    const int da = d - (stack.ndim + 2 - a.ndim), db = d - (stack.ndim + 2 - b.ndim);
    const ptrdiff_t na = da < 0 ? 1 : a.shape[da], nb = db < 0 ? 1 : b.shape[db];
    if (na != nb && na != 1 && nb != 1) return false;
    stack.shape[d] = na == 1 ? nb : na;
    stack.a[d] = na == 1 ? 0 : a.strides[da];
    stack.b[d] = nb == 1 ? 0 : b.strides[db];
    stack.count *= stack.shape[d];
  }
  return true;
}

// The rows of one (rows, cols) matrix of a stack.
void matrix_rows(const ArrayView& a, char* data, RowsView& rows) {
  const ArrayView matrix = {data, a.dtype, 2, a.shape + a.ndim - 2, a.strides + a.ndim - 2, true};
  rows_of(matrix, rows);
}

template <typename T>
py::object matmul_of(const ArrayView& a, const ArrayView& b, py::handle out) {
  Stack stack;
  if (!whole_strides<T>(b) || !broadcast(a, b, stack)) return py::none();
  const ptrdiff_t m = a.shape[a.ndim - 2], k = a.shape[a.ndim - 1], n = b.shape[b.ndim - 1];
  ptrdiff_t shape[kMaxDims];
  std::copy(stack.shape, stack.shape + stack.ndim, shape);
  shape[stack.ndim] = m;
  shape[stack.ndim + 1] = n;
  Result result(out, dtype_of<T>(), shape, stack.ndim + 2);
  if (!result.usable()) return py::none();
  result.avoid(a, false);
  result.avoid(b, false);
  const ArrayView y = result.view();
  const ptrdiff_t size = sizeof(T);
  const double cost = matmul_picoseconds(m, n, k, sizeof(T)) * static_cast<double>(stack.count);
  run_released(cost, [&] {
    for (ptrdiff_t i = 0; i < stack.count && go_on(); ++i) {
      char *pa = a.data, *pb = b.data, *py_ = y.data;
      ptrdiff_t rest = i;
      for (int d = stack.ndim - 1; d >= 0; --d) {
        const ptrdiff_t at = rest % stack.shape[d];
        rest /= stack.shape[d];
        pa += at * stack.a[d];
        pb += at * stack.b[d];
        py_ += at * y.strides[d];
      }
      RowsView rows_a, rows_y;
      matrix_rows(a, pa, rows_a);
      matrix_rows(y, py_, rows_y);
      matmul<T>({&rows_a,
                 &rows_y,
                 reinterpret_cast<const T*>(pb),
                 n,
                 b.strides[b.ndim - 1] / size,
                 b.strides[b.ndim - 2] / size,
                 nullptr,
                 false,
                 {Activation::kIdentity, T(0), T(0)}});
    }
  });
  return result.finish();
}

py::object matmul_arrays(py::handle a, py::handle b, py::handle out) {
  ArrayView va, vb;
  if (!borrow(a, va) || !borrow(b, vb) || va.dtype != vb.dtype) return py::none();
  if (va.ndim < 2 || vb.ndim < 2 || va.shape[va.ndim - 1] != vb.shape[vb.ndim - 2]) {
    return py::none();
  }
  py::object y = py::none();
  with_float(va.dtype, [&](auto* type) {
    y = matmul_of<std::remove_pointer_t<decltype(type)>>(va, vb, out);
  });
  return y;
}

// y has x's shape; f(rows of x, rows of y, T) does the work.
template <typename F>
py::object map_rows(py::handle x, py::handle out, bool zero_d_allowed, const ArrayView* vector,
                    F f) {
  ArrayView from;
  if (!borrow(x, from) || (from.ndim == 0 && !zero_d_allowed)) return py::none();
  if (vector != nullptr && (vector->dtype != from.dtype || vector->ndim != 1 ||
                            vector->shape[0] != from.shape[from.ndim - 1])) {
    return py::none();
  }
  py::object y = py::none();
  with_float(from.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Result result(out, from.dtype, from.shape, from.ndim);
    if (!result.usable()) return;
    result.avoid(from, true);
    if (vector != nullptr) result.avoid(*vector, false);
    ArrayView to = result.view();
    const ptrdiff_t one[1] = {1}, step[1] = {ptrdiff_t(sizeof(T))};
    if (from.ndim == 0) {
      for (ArrayView* v : {&from, &to}) {
        v->ndim = 1;
        v->shape = one;
        v->strides = step;
      }
    }
    RowsView rows_x, rows_y;
    rows_of(from, rows_x);
    rows_of(to, rows_y);
    run_released(elementwise_picoseconds(rows_x.rows * rows_x.cols),
                 [&] { f(rows_x, rows_y, type); });
    y = result.finish();
  });
  return y;
}

py::object activation(Activation kind, py::handle x, double p0, double p1, py::handle out) {
  return map_rows(x, out, !is_row_wise(kind), nullptr,
                  [&](const RowsView& from, const RowsView& to, auto* type) {
                    using T = std::remove_pointer_t<decltype(type)>;
                    if (is_row_wise(kind)) {
                      softmax_rows<T>(from, to, kind == Activation::kLogSoftmax);
                    } else {
                      activate<T>({kind, static_cast<T>(p0), static_cast<T>(p1)}, from, to);
                    }
                  });
}

// As activation_named(); names in Python sources are interned, and found without a look at them.
Activation activation_of(PyObject* name) {
  static PyObject* const* const interned = [] {
    static PyObject* names[kActivationCount];
    for (int i = 0; i < kActivationCount; ++i) {
      names[i] = PyUnicode_InternFromString(kActivationNames[i]);
    }
    return names;
  }();
  for (int i = 0; i < kActivationCount; ++i) {
    if (name == interned[i]) return static_cast<Activation>(i);
  }
  return activation_named(py::cast<std::string>(name));
}

double number(PyObject* object) {
  const double value = PyFloat_AsDouble(object);
  if (value == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return value;
}

// A new array without dimensions as the scalar that NumPy's own functions return.
py::object scalar_if_0d(py::object y, py::handle out) {
  ArrayView view;
  if (!out.is_none() || y.is_none() || !borrow(y, view) || view.ndim > 0) return y;
  return y[py::tuple()];
}

// A plain built-in function, as Program.run is one: pybind11's dispatch costs 0.1 us, as much as
// tanh of 1000 bytes.
PyObject* call_activation(PyObject*, PyObject* const* args, Py_ssize_t count) noexcept {
  if (count != 5) {
    PyErr_SetString(PyExc_TypeError, "activation(name, x, p0, p1, out) takes five arguments");
    return nullptr;
  }
  try {
    const Activation kind = activation_of(args[0]);
    py::object y = activation(kind, args[1], number(args[2]), number(args[3]), args[4]);
    return scalar_if_0d(y, args[4]).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::cast_error& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// x combined with a vector along its last axis.
template <typename F>
py::object map_with_vector(py::handle x, py::handle vector, py::handle out, F f) {
  ArrayView v;
  if (!borrow(vector, v)) return py::none();
  return map_rows(x, out, false, &v, [&](const RowsView& from, const RowsView& to, auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    AlignedArray<T> copy;
    f(from, vector_in<T>(v, copy), to);
  });
}

py::object prelu(py::handle x, py::handle slope, py::handle out) {
  return map_with_vector(
      x, slope, out,
      [](const RowsView& from, const auto* v, const RowsView& to) { prelu_rows(from, v, to); });
}

py::object bias_add(py::handle z, py::handle bias, py::handle out) {
  return map_with_vector(z, bias, out, [](const RowsView& from, const auto* v, const RowsView& to) {
    add_rows(from, v, to);
  });
}

}  // namespace

Activation activation_named(const std::string& name) {
  for (int i = 0; i < kActivationCount; ++i) {
    if (name == kActivationNames[i]) return static_cast<Activation>(i);
  }
  throw std::invalid_argument("unknown activation " + name);
}

void register_functions(py::module_& m) {
  m.def("linear", &linear);
  m.def("dense_forward", &dense_forward);
  m.def("matmul", &matmul_arrays);
  static PyMethodDef definition = {
      "activation", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call_activation)),
      METH_FASTCALL, "activation(name, x, p0, p1, out, /)\n--\n\nThe result, or None: not mine."};
  PyObject* const function = PyCFunction_NewEx(&definition, nullptr, m.attr("__name__").ptr());
  if (function == nullptr) throw py::error_already_set();
  m.attr("activation") = py::reinterpret_steal<py::object>(function);
  m.def("prelu", &prelu);
  m.def("bias_add", &bias_add);
}

}  // namespace fastlayer
