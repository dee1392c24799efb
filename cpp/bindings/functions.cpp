// The functional path: linear, matmul and activations on arrays as they are.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "../core/elementwise.hpp"
#include "../core/matmul.hpp"
#include "../core/plan.hpp"
#include "../core/turns.hpp"
#include "../core/workspace.hpp"
#include "arrays.hpp"
#include "fast_call.hpp"
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

// The three arguments of a fused activation: its name and parameters.
struct FusedArguments {
  std::string name;
  double p0, p1;

  explicit FusedArguments(PyObject* const* args)
      : p0(PyFloat_AsDouble(args[1])), p1(PyFloat_AsDouble(args[2])) {
    Py_ssize_t length = 0;
    const char* const text = PyUnicode_AsUTF8AndSize(args[0], &length);
    if (text == nullptr || PyErr_Occurred() != nullptr) throw py::error_already_set();
    name.assign(text, static_cast<size_t>(length));
  }
  template <typename T>
  ActivationArgs<T> args() const {
    return activation_args<T>(name, p0, p1);
  }
};

py::object linear(py::handle x, py::handle weight, py::handle bias, const FusedArguments& fused,
                  py::handle out, bool accumulate) {
  ArrayView from, w, b;
  if (!borrow(x, from) || !borrow(weight, w)) return py::none();
  if (from.dtype != w.dtype || from.ndim < 1 || w.ndim != 2) return py::none();
  if (from.shape[from.ndim - 1] != w.shape[1]) return py::none();
  if (!bias.is_none()) {
    if (!borrow(bias, b) || b.dtype != w.dtype) return py::none();
    if (b.ndim == 2 && b.shape[0] == 1 && from.ndim > 1) {  // (1, n) beside rows
      b.ndim = 1;
      ++b.shape;
      ++b.strides;
    }
    if (b.ndim != 1 || b.shape[0] != w.shape[0]) return py::none();
  }
  py::object y = py::none();
  with_float(w.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    y = linear_of<T>(from, w, bias.is_none() ? nullptr : &b, fused.args<T>(), out, accumulate);
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
                         const FusedArguments& fused) {
  ArrayView from, w, b;
  if (!borrow(x, from) || !borrow(weight, w) || !borrow(bias, b)) return py::none();
  if (from.dtype != w.dtype || b.dtype != w.dtype || w.ndim != 2) return py::none();
  if (from.ndim < 1 || from.ndim > 2 || b.ndim != from.ndim) return py::none();
  if (from.shape[0] != w.shape[1] || b.shape[0] != w.shape[0]) return py::none();
  if (b.ndim == 2 && b.shape[1] != 1) return py::none();
  py::object pair = py::none();
  with_float(w.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    pair = dense_forward_of<T>(from, w, b, fused.args<T>());
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

// A matrix at `data`, by strides in bytes.
RowsView matrix(char* data, DType dtype, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t row_stride,
                ptrdiff_t col_stride) {
  const ptrdiff_t shape[] = {rows, cols}, strides[] = {row_stride, col_stride};
  RowsView view;
  rows_of({data, dtype, 2, shape, strides, true}, view);
  return view;
}

// A vector as a matrix: a row on the left, a column on the right.
struct Operand {
  ArrayView view;
  ptrdiff_t shape[2], strides[2];

  Operand(const ArrayView& a, bool left) : view(a) {
    if (a.ndim != 1) return;
    const int along = left ? 1 : 0;
    shape[along] = a.shape[0];
    strides[along] = a.strides[0];
    shape[1 - along] = 1;
    strides[1 - along] = a.dtype == DType::kFloat32 ? 4 : 8;
    view.ndim = 2;
    view.shape = shape;
    view.strides = strides;
  }
  Operand(const Operand&) = delete;
};

template <typename T>
py::object matmul_of(const ArrayView& left, const ArrayView& right, py::handle out) {
  const Operand left_matrix(left, true), right_matrix(right, false);
  const ArrayView &a = left_matrix.view, &b = right_matrix.view;
  Stack stack;
  if (!whole_strides<T>(b) || !broadcast(a, b, stack)) return py::none();
  const ptrdiff_t m = a.shape[a.ndim - 2], k = a.shape[a.ndim - 1], n = b.shape[b.ndim - 1];
  ptrdiff_t shape[kMaxDims];
  std::copy(stack.shape, stack.shape + stack.ndim, shape);
  int ndim = stack.ndim;
  if (left.ndim > 1) shape[ndim++] = m;
  if (right.ndim > 1) shape[ndim++] = n;
  Result result(out, dtype_of<T>(), shape, ndim);
  if (!result.usable()) return py::none();
  result.avoid(a, false);
  result.avoid(b, false);
  const ArrayView y = result.view();
  const ptrdiff_t size = sizeof(T);
  const ptrdiff_t y_row = left.ndim > 1 ? y.strides[stack.ndim] : size;
  const ptrdiff_t y_col = right.ndim > 1 ? y.strides[ndim - 1] : size;
  const ptrdiff_t a_row = a.strides[a.ndim - 2], a_col = a.strides[a.ndim - 1];
  const ptrdiff_t b_row = b.strides[b.ndim - 2], b_col = b.strides[b.ndim - 1];
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
      const ActivationArgs<T> identity = {Activation::kIdentity, T(0), T(0)};
      if (n == 1 && whole_strides<T>(a)) {
        // The same sums: a column is the one sample of a layer whose weights are a.
        const RowsView x = matrix(pb, b.dtype, 1, k, b_col, b_row);
        const RowsView to = matrix(py_, y.dtype, 1, m, y_col, y_row);
        matmul<T>({&x, &to, reinterpret_cast<const T*>(pa), m, a_row / size, a_col / size, nullptr,
                   false, identity});
      } else {
        const RowsView x = matrix(pa, a.dtype, m, k, a_row, a_col);
        const RowsView to = matrix(py_, y.dtype, m, n, y_row, y_col);
        matmul<T>({&x, &to, reinterpret_cast<const T*>(pb), n, b_col / size, b_row / size, nullptr,
                   false, identity});
      }
    }
  });
  return result.finish();
}

// np.matmul, and np.dot where both are the same.
py::object product(py::handle left, py::handle right, py::handle out, bool stacks) {
  ArrayView a, b;
  if (!borrow(left, a) || !borrow(right, b) || a.dtype != b.dtype) return py::none();
  if (a.ndim < 1 || b.ndim < 1 || (!stacks && b.ndim > 2)) return py::none();
  if (a.shape[a.ndim - 1] != b.shape[b.ndim > 1 ? b.ndim - 2 : 0]) return py::none();
  py::object y = py::none();
  with_float(a.dtype,
             [&](auto* type) { y = matmul_of<std::remove_pointer_t<decltype(type)>>(a, b, out); });
  if (a.ndim == 1 && b.ndim == 1 && out.is_none() && !y.is_none()) {
    return y[py::tuple()];  // two vectors give a scalar
  }
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

py::object activation(const std::string& name, py::handle x, double p0, double p1, py::handle out) {
  const Activation kind = activation_named(name);
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

// y = z + b along axes [d, ndim); strides in bytes, 0 where b is broadcast.
template <typename T>
void add_along(const ArrayView& shape_of_z, const ptrdiff_t* b_strides, const ArrayView& to, int d,
               const char* z, const char* b, char* y) {
  const ptrdiff_t count = shape_of_z.shape[d], size = sizeof(T);
  const ptrdiff_t z_step = shape_of_z.strides[d], b_step = b_strides[d], y_step = to.strides[d];
  if (d + 1 < shape_of_z.ndim) {
    for (ptrdiff_t i = 0; i < count; ++i) {
      add_along<T>(shape_of_z, b_strides, to, d + 1, z + i * z_step, b + i * b_step,
                   y + i * y_step);
    }
  } else if (z_step == size && y_step == size && b_step == size) {
    kernels<T>().add(reinterpret_cast<const T*>(z), reinterpret_cast<const T*>(b),
                     reinterpret_cast<T*>(y), count);
  } else {
    for (ptrdiff_t i = 0; i < count; ++i) {
      const T sum =
          *reinterpret_cast<const T*>(z + i * z_step) + *reinterpret_cast<const T*>(b + i * b_step);
      *reinterpret_cast<T*>(y + i * y_step) = sum;
    }
  }
}

// Whether elements follow each other from the first to the last.
template <typename T>
bool is_contiguous(const ArrayView& a) {
  ptrdiff_t step = sizeof(T);
  for (int d = a.ndim - 1; d >= 0; step *= a.shape[d--]) {
    if (a.shape[d] != 1 && a.strides[d] != step) return false;
  }
  return true;
}

// z + b where b broadcasts to the shape of z: a column beside columns, or an equal shape.
template <typename T>
py::object add_broadcast(const ArrayView& z, const ArrayView& b, py::handle out) {
  ptrdiff_t b_strides[kMaxDims];
  bool equal = true;
  for (int d = 0; d < z.ndim; ++d) {
    const int at = d - (z.ndim - b.ndim);
    const ptrdiff_t length = at < 0 ? 1 : b.shape[at];
    if (length != 1 && length != z.shape[d]) return py::none();
    b_strides[d] = length == 1 ? 0 : b.strides[at];
    equal = equal && length == z.shape[d];
  }
  Result result(out, z.dtype, z.shape, z.ndim);
  if (!result.usable() || !whole_strides<T>(z) || !whole_strides<T>(b)) return py::none();
  result.avoid(z, true);
  result.avoid(b, false);
  const ArrayView y = result.view();
  ptrdiff_t count = 1;
  for (int d = 0; d < z.ndim; ++d) count *= z.shape[d];
  if (count > 0 && !whole_strides<T>(y)) return py::none();
  run_released(elementwise_picoseconds(count), [&] {
    if (count == 0) return;
    if (equal && is_contiguous<T>(z) && is_contiguous<T>(b) && is_contiguous<T>(y)) {
      kernels<T>().add(reinterpret_cast<const T*>(z.data), reinterpret_cast<const T*>(b.data),
                       reinterpret_cast<T*>(y.data), count);
    } else {
      add_along<T>(z, b_strides, y, 0, z.data, b.data, y.data);
    }
  });
  return result.finish();
}

py::object bias_add(py::handle z, py::handle bias, py::handle out) {
  ArrayView from, b;
  if (!borrow(z, from) || !borrow(bias, b) || from.dtype != b.dtype) return py::none();
  if (from.ndim < 1 || b.ndim < 1 || b.ndim > from.ndim) return py::none();
  if (b.ndim == 1 && b.shape[0] == from.shape[from.ndim - 1]) {
    return map_with_vector(
        z, bias, out,
        [](const RowsView& rows, const auto* v, const RowsView& to) { add_rows(rows, v, to); });
  }
  py::object y = py::none();
  with_float(from.dtype, [&](auto* type) {
    y = add_broadcast<std::remove_pointer_t<decltype(type)>>(from, b, out);
  });
  return y;
}

PyObject* fast_linear(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("linear", 8, count)) return nullptr;
  return call_guarded([&] {
    return linear(args[0], args[1], args[2], FusedArguments(args + 3), args[6], args[7] == Py_True);
  });
}

PyObject* fast_dense_forward(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("dense_forward", 6, count)) return nullptr;
  return call_guarded(
      [&] { return dense_forward(args[0], args[1], args[2], FusedArguments(args + 3)); });
}

PyObject* fast_matmul(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("matmul", 3, count)) return nullptr;
  return call_guarded([&] { return product(args[0], args[1], args[2], true); });
}

PyObject* fast_dot(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("dot", 3, count)) return nullptr;
  return call_guarded([&] { return product(args[0], args[1], args[2], false); });
}

PyObject* fast_bias_add(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("bias_add", 3, count)) return nullptr;
  return call_guarded([&] { return bias_add(args[0], args[1], args[2]); });
}

}  // namespace

Activation activation_named(const std::string& name) {
  for (int i = 0; i < kActivationCount; ++i) {
    if (name == kActivationNames[i]) return static_cast<Activation>(i);
  }
  throw std::invalid_argument("unknown activation " + name);
}

void register_functions(py::module_& m) {
  static PyMethodDef functions[] = {fast_function("linear", &fast_linear),
                                    fast_function("dense_forward", &fast_dense_forward),
                                    fast_function("matmul", &fast_matmul),
                                    fast_function("dot", &fast_dot),
                                    fast_function("bias_add", &fast_bias_add),
                                    {nullptr, nullptr, 0, nullptr}};
  if (PyModule_AddFunctions(m.ptr(), functions) != 0) throw py::error_already_set();
  m.def("activation", &activation);
  m.def("prelu", &prelu);
}

}  // namespace fastlayer
