// Activations and sums on arrays as they are.
#include <algorithm>
#include <stdexcept>

#include "../core/backward.hpp"
#include "../core/cpu.hpp"
#include "../core/elementwise.hpp"
#include "arrays.hpp"
#include "fast_call.hpp"
#include "gil.hpp"
#include "registers.hpp"
#include "typed.hpp"

namespace fastlayer {
namespace {

// An array without dimensions as one of a single element.
struct OneElement {
  ptrdiff_t shape[1] = {1}, strides[1] = {0};

  void show(ArrayView& view) {
    if (view.ndim > 0) return;
    view.ndim = 1;
    view.shape = shape;
    view.strides = strides;
  }
};

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
    Result result(out, from.dtype, from.shape, from.ndim);
    if (!result.usable()) return;
    result.avoid(from, true);
    if (vector != nullptr) result.avoid(*vector, false);
    ArrayView to = result.view();
    OneElement one;
    for (ArrayView* view : {&from, &to}) one.show(*view);
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

// A new array without dimensions as the scalar that NumPy's own functions return.
py::object scalar_if_0d(py::object y, py::handle out) {
  ArrayView view;
  if (!out.is_none() || y.is_none() || !borrow(y, view) || view.ndim > 0) return y;
  return y[py::tuple()];
}

PyObject* fast_activation(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("activation", 5, count)) return nullptr;
  return call_guarded([&] {
    const FusedArguments f(args[0], args[2], args[3]);
    return scalar_if_0d(activation(f.kind, args[1], f.p0, f.p1, args[4]), args[4]);
  });
}

// dz = da f'(z), arrays of one shape and dtype.
py::object activation_backward(Activation kind, py::handle da, py::handle z, double p0, double p1,
                               py::handle out) {
  ArrayView from_da, from_z;
  if (!borrow(da, from_da) || !borrow(z, from_z) || from_da.dtype != from_z.dtype) {
    return py::none();
  }
  if (from_da.ndim != from_z.ndim || (from_z.ndim == 0 && is_row_wise(kind)) ||
      !std::equal(from_z.shape, from_z.shape + from_z.ndim, from_da.shape)) {
    return py::none();
  }
  py::object dz = py::none();
  with_float(from_z.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Result result(out, from_z.dtype, from_z.shape, from_z.ndim);
    if (!result.usable()) return;
    result.avoid(from_da, true);
    result.avoid(from_z, true);
    ArrayView to = result.view();
    OneElement one;
    for (ArrayView* view : {&from_da, &from_z, &to}) one.show(*view);
    RowsView rows_da, rows_z, rows_dz;
    rows_of(from_da, rows_da);
    rows_of(from_z, rows_z);
    rows_of(to, rows_dz);
    run_released(backward_picoseconds(rows_z.rows * rows_z.cols), [&] {
      activate_backward<T>({kind, static_cast<T>(p0), static_cast<T>(p1)}, rows_da, rows_z,
                           rows_dz);
    });
    dz = result.finish();
  });
  return dz;
}

PyObject* fast_activation_backward(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("activation_backward", 6, count)) return nullptr;
  return call_guarded([&] {
    const FusedArguments f(args[0], args[3], args[4]);
    return scalar_if_0d(activation_backward(f.kind, args[1], args[2], f.p0, f.p1, args[5]),
                        args[5]);
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

PyObject* fast_prelu(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("prelu", 3, count)) return nullptr;
  return call_guarded([&] { return prelu(args[0], args[1], args[2]); });
}

// y = z + b along axes [d, ndim); strides in bytes, 0 where b is broadcast.
template <typename T>
void add_along(const ArrayView& shape_of_z, const ptrdiff_t* b_strides, const ArrayView& to, int d,
               const char* z, const char* b, char* y) {
  const ptrdiff_t count = shape_of_z.shape[d], size = sizeof(T);
  const ptrdiff_t z_step = shape_of_z.strides[d], b_step = b_strides[d], y_step = to.strides[d];
  if (d + 1 < shape_of_z.ndim) {
    for (ptrdiff_t i = 0; i < count && go_on(); ++i) {
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

// Elements between two looks for signals.
constexpr ptrdiff_t kPiece = 1 << 20;

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
      for (ptrdiff_t i = 0; i < count && go_on(); i += kPiece) {
        kernels<T>().add(reinterpret_cast<const T*>(z.data) + i,
                         reinterpret_cast<const T*>(b.data) + i, reinterpret_cast<T*>(y.data) + i,
                         std::min(kPiece, count - i));
      }
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

Activation activation_named(PyObject* name) {
  // Names in Python sources are interned, and found without a look at them.
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
  Py_ssize_t length = 0;
  const char* const text = PyUnicode_AsUTF8AndSize(name, &length);
  if (text == nullptr) throw py::error_already_set();
  return activation_named(std::string(text, static_cast<size_t>(length)));
}

FusedArguments::FusedArguments(PyObject* name, PyObject* first, PyObject* second)
    : kind(activation_named(name)), p0(PyFloat_AsDouble(first)), p1(PyFloat_AsDouble(second)) {
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
}

void register_functions(py::module_& m) {
  static PyMethodDef functions[] = {fast_function("activation", &fast_activation),
                                    fast_function("activation_backward", &fast_activation_backward),
                                    fast_function("bias_add", &fast_bias_add),
                                    fast_function("prelu", &fast_prelu),
                                    {nullptr, nullptr, 0, nullptr}};
  if (PyModule_AddFunctions(m.ptr(), functions) != 0) throw py::error_already_set();
}

}  // namespace fastlayer
