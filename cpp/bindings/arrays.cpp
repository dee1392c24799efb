#include "arrays.hpp"

#include <algorithm>
#include <new>

namespace fastlayer {
namespace {

using py::detail::array_descriptor_proxy;
using py::detail::array_proxy;
using py::detail::npy_api;

template <typename Integer>
constexpr DType integer() {
  constexpr bool is_signed = static_cast<Integer>(-1) < Integer(0);
  switch (sizeof(Integer)) {
    case 1:
      return is_signed ? DType::kInt8 : DType::kUint8;
    case 2:
      return is_signed ? DType::kInt16 : DType::kUint16;
    case 4:
      return is_signed ? DType::kInt32 : DType::kUint32;
    default:
      return is_signed ? DType::kInt64 : DType::kUint64;
  }
}

// Views with strides of 0 may be larger than any memory. A row of so many elements takes 64 TiB
// when it is packed, and sizes computed from fewer do not overflow.
constexpr ptrdiff_t kMaxColumns = ptrdiff_t(1) << 40;

bool dtype_of_number(int number, DType& dtype) {
  switch (number) {
    case npy_api::NPY_BOOL_:
      dtype = DType::kBool;
      return true;
    case npy_api::NPY_BYTE_:
      dtype = integer<signed char>();
      return true;
    case npy_api::NPY_UBYTE_:
      dtype = integer<unsigned char>();
      return true;
    case npy_api::NPY_SHORT_:
      dtype = integer<short>();
      return true;
    case npy_api::NPY_USHORT_:
      dtype = integer<unsigned short>();
      return true;
    case npy_api::NPY_INT_:
      dtype = integer<int>();
      return true;
    case npy_api::NPY_UINT_:
      dtype = integer<unsigned int>();
      return true;
    case npy_api::NPY_LONG_:
      dtype = integer<long>();
      return true;
    case npy_api::NPY_ULONG_:
      dtype = integer<unsigned long>();
      return true;
    case npy_api::NPY_LONGLONG_:
      dtype = integer<long long>();
      return true;
    case npy_api::NPY_ULONGLONG_:
      dtype = integer<unsigned long long>();
      return true;
    case npy_api::NPY_FLOAT_:
      dtype = DType::kFloat32;
      return true;
    case npy_api::NPY_DOUBLE_:
      dtype = DType::kFloat64;
      return true;
    case 23:  // NPY_HALF, which pybind11 does not name
      dtype = DType::kFloat16;
      return true;
    default:
      return false;
  }
}

ptrdiff_t item_size(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kInt8:
    case DType::kUint8:
      return 1;
    case DType::kInt16:
    case DType::kUint16:
    case DType::kFloat16:
      return 2;
    case DType::kInt32:
    case DType::kUint32:
    case DType::kFloat32:
      return 4;
    default:
      return 8;
  }
}

// First byte and one past the last; false for an array without elements.
bool extent(const ArrayView& a, const char*& low, const char*& high) {
  low = a.data;
  high = a.data + item_size(a.dtype);
  for (int d = 0; d < a.ndim; ++d) {
    if (a.shape[d] == 0) return false;
    const ptrdiff_t span = (a.shape[d] - 1) * a.strides[d];
    (span < 0 ? low : high) += span;
  }
  return true;
}

// Whether two elements may share bytes: NumPy allows to make such a view, and writing into it loses
// results. Axes from the finest to the coarsest: each has to step over all that the finer ones
// span.
bool overlaps_itself(const ArrayView& a) {
  ptrdiff_t spanned = item_size(a.dtype) - 1;
  ptrdiff_t previous = 0;  // strides up to here are done
  for (int done = 0; done < a.ndim;) {
    ptrdiff_t finest = 0, length = 0;
    int count = 0;
    for (int d = 0; d < a.ndim; ++d) {
      if (a.shape[d] == 0) return false;
      const ptrdiff_t step = a.strides[d] < 0 ? -a.strides[d] : a.strides[d];
      if (a.shape[d] == 1 || step < previous || (step == previous && previous > 0)) continue;
      if (count > 0 && step > finest) continue;
      count = count > 0 && step == finest ? count + 1 : 1;
      finest = step;
      length = a.shape[d];
    }
    if (count == 0) return false;
    if (count > 1 || finest <= spanned) return true;
    spanned += (length - 1) * finest;
    previous = finest;
    ++done;
  }
  return false;
}

// Whether the bytes of two arrays may overlap, by their extents.
bool may_overlap(const ArrayView& a, const ArrayView& b) {
  const char *low_a, *high_a, *low_b, *high_b;
  if (!extent(a, low_a, high_a) || !extent(b, low_b, high_b)) return false;
  return low_a < high_b && low_b < high_a;
}

bool same_shape(const ArrayView& a, const ptrdiff_t* shape, int ndim) {
  if (a.ndim != ndim) return false;
  for (int d = 0; d < ndim; ++d) {
    if (a.shape[d] != shape[d]) return false;
  }
  return true;
}

// Same memory, shape and strides: an element-wise function may run in place.
bool identical(const ArrayView& a, const ArrayView& b) {
  if (a.data != b.data || a.dtype != b.dtype || !same_shape(a, b.shape, b.ndim)) return false;
  for (int d = 0; d < a.ndim; ++d) {
    if (a.shape[d] > 1 && a.strides[d] != b.strides[d]) return false;
  }
  return true;
}

}  // namespace

bool borrow(py::handle object, ArrayView& view) {
  const npy_api& api = npy_api::get();
  if (reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) !=
      reinterpret_cast<PyObject*>(api.PyArray_Type_)) {
    return false;
  }
  const auto* array = array_proxy(object.ptr());
  const auto* descr = array_descriptor_proxy(array->descr);
  if (!dtype_of_number(descr->type_num, view.dtype)) return false;
  if (descr->byteorder != '=' && descr->byteorder != '|') return false;
  view.data = array->data;
  view.ndim = array->nd;
  view.shape = array->dimensions;
  view.strides = array->strides;
  view.writeable = (array->flags & npy_api::NPY_ARRAY_WRITEABLE_) != 0;
  return true;
}

void rows_of(const ArrayView& array, RowsView& rows) {
  const int last = array.ndim - 1;
  if (array.shape[last] > kMaxColumns) throw std::bad_alloc();
  rows.data = array.data;
  rows.dtype = array.dtype;
  rows.cols = array.shape[last];
  rows.col_stride = array.strides[last];
  rows.rows = 1;
  rows.leading = 0;
  for (int d = 0; d < last; ++d) {
    const ptrdiff_t size = array.shape[d], stride = array.strides[d];
    rows.rows *= size;
    if (size == 1) continue;
    int& n = rows.leading;
    if (n > 0 && rows.strides[n - 1] == size * stride) {
      rows.shape[n - 1] *= size;
      rows.strides[n - 1] = stride;
    } else {
      rows.shape[n] = size;
      rows.strides[n] = stride;
      ++n;
    }
  }
  // NumPy gives any stride to a dimension of length 1; a lone row gets one that can be used.
  if (rows.leading == 0) {
    rows.leading = 1;
    rows.shape[0] = 1;
    rows.strides[0] = rows.cols * item_size(array.dtype);
  }
  if (rows.cols <= 1) rows.col_stride = item_size(array.dtype);
}

py::object new_array(DType dtype, const ptrdiff_t* shape, int ndim) {
  const npy_api& api = npy_api::get();
  const int number = dtype == DType::kFloat32 ? npy_api::NPY_FLOAT_ : npy_api::NPY_DOUBLE_;
  PyObject* descr = api.PyArray_DescrFromType_(number);
  // NewFromDescr takes over the reference to descr.
  PyObject* array =
      api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, ndim, const_cast<Py_intptr_t*>(shape),
                                nullptr, nullptr, 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(array);
}

py::object features_of(const py::object& array, const ArrayView& view, ptrdiff_t begin,
                       ptrdiff_t count) {
  const npy_api& api = npy_api::get();
  const int last = view.ndim - 1;
  Py_intptr_t shape[kMaxDims], strides[kMaxDims];
  std::copy(view.shape, view.shape + last, shape);
  std::copy(view.strides, view.strides + view.ndim, strides);
  shape[last] = count;
  PyObject* const descr = array_proxy(array.ptr())->descr;
  Py_INCREF(descr);
  PyObject* const part = api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, view.ndim, shape,
                                                   strides, view.data + begin * strides[last],
                                                   npy_api::NPY_ARRAY_WRITEABLE_, nullptr);
  if (part == nullptr) throw py::error_already_set();
  auto result = py::reinterpret_steal<py::object>(part);
  Py_INCREF(array.ptr());
  if (api.PyArray_SetBaseObject_(part, array.ptr()) != 0) throw py::error_already_set();
  return result;
}

Result::Result(py::handle out, DType dtype, const ptrdiff_t* shape, int ndim)
    : out_(out), dtype_(dtype), shape_(shape), ndim_(ndim) {
  if (out.is_none()) return;
  usable_ = borrow(out, view_) && view_.dtype == dtype && view_.writeable &&
            same_shape(view_, shape, ndim) && !overlaps_itself(view_);
}

void Result::avoid(const ArrayView& input, bool in_place_allowed) {
  if (out_.is_none() || copy_back_) return;
  if (in_place_allowed && identical(view_, input)) return;
  copy_back_ = may_overlap(view_, input);
}

const ArrayView& Result::view() {
  if (out_.is_none() || copy_back_) {
    fresh_ = new_array(dtype_, shape_, ndim_);
    borrow(fresh_, view_);
  }
  return view_;
}

py::object Result::finish() {
  if (copy_back_ && npy_api::get().PyArray_CopyInto_(out_.ptr(), fresh_.ptr()) != 0) {
    throw py::error_already_set();
  }
  return out_.is_none() ? std::move(fresh_) : py::reinterpret_borrow<py::object>(out_);
}

}  // namespace fastlayer
