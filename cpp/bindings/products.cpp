// The functional path: linear, dense_forward and matmul on arrays as they are.
#include <algorithm>

#include "../core/elementwise.hpp"
#include "../core/matmul.hpp"
#include "../core/plan.hpp"
#include "../core/turns.hpp"
#include "arrays.hpp"
#include "fast_call.hpp"
#include "gil.hpp"
#include "registers.hpp"
#include "typed.hpp"

namespace fastlayer {
namespace {

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

PyObject* fast_linear(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("linear", 8, count)) return nullptr;
  return call_guarded([&] {
    return linear(args[0], args[1], args[2], FusedArguments(args[3], args[4], args[5]), args[6],
                  args[7] == Py_True);
  });
}

PyObject* fast_dense_forward(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("dense_forward", 6, count)) return nullptr;
  return call_guarded([&] {
    return dense_forward(args[0], args[1], args[2], FusedArguments(args[3], args[4], args[5]));
  });
}

PyObject* fast_matmul(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("matmul", 3, count)) return nullptr;
  return call_guarded([&] { return product(args[0], args[1], args[2], true); });
}

PyObject* fast_dot(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("dot", 3, count)) return nullptr;
  return call_guarded([&] { return product(args[0], args[1], args[2], false); });
}

}  // namespace

void register_products(py::module_& m) {
  static PyMethodDef functions[] = {fast_function("linear", &fast_linear),
                                    fast_function("dense_forward", &fast_dense_forward),
                                    fast_function("matmul", &fast_matmul),
                                    fast_function("dot", &fast_dot),
                                    {nullptr, nullptr, 0, nullptr}};
  if (PyModule_AddFunctions(m.ptr(), functions) != 0) throw py::error_already_set();
}

}  // namespace fastlayer
