// NumPy arrays as the core sees them: borrowed without a copy, or not taken at all. Nothing here
// converts and nothing explains: what is not taken goes back to Python as None.
#pragma once

#include <pybind11/numpy.h>

#include "../core/types.hpp"

namespace fastlayer {

namespace py = pybind11;

// An ndarray (exactly: a subclass may mean something else by its elements) of a real dtype in
// native byte order. Does not own a reference; its caller's argument does.
struct ArrayView {
  char* data;
  DType dtype;
  int ndim;
  const ptrdiff_t* shape;
  const ptrdiff_t* strides;  // bytes
  bool writeable;
};

bool borrow(py::handle object, ArrayView& view);

// The rows of an array (..., cols), merged leading dimensions. ndim >= 1. Throws std::bad_alloc for
// rows that no memory could hold when they are packed.
void rows_of(const ArrayView& array, RowsView& rows);

// Whether elements lie where a T may lie. As in NumPy's own flag, what no element depends on does
// not count: the strides of axes of length 1, and everything of an array without elements.
template <typename T>
bool whole_strides(const ArrayView& a) {
  constexpr ptrdiff_t size = sizeof(T);
  bool whole = reinterpret_cast<uintptr_t>(a.data) % size == 0;
  for (int d = 0; d < a.ndim; ++d) {
    if (a.shape[d] == 0) return true;
    if (a.shape[d] > 1 && a.strides[d] % size != 0) whole = false;
  }
  return whole;
}

// A new C-contiguous array of uninitialised elements. Throws what NumPy raises.
py::object new_array(DType dtype, const ptrdiff_t* shape, int ndim);

// Features [begin, begin + count) of an array (..., features) and its view, as a view.
py::object features_of(const py::object& array, const ArrayView& view, ptrdiff_t begin,
                       ptrdiff_t count);

// Where a function writes: `out` if it can be written in place, a new array, or a new array that is
// copied to `out` afterwards because `out` overlaps an input. usable() is false where `out` has
// another dtype or shape, is read-only, overlaps itself, or is no plain array.
class Result {
 public:
  Result(py::handle out, DType dtype, const ptrdiff_t* shape, int ndim);
  bool usable() const { return usable_; }
  // Call for each input, before view().
  void avoid(const ArrayView& input, bool in_place_allowed);
  bool in_place() const { return !out_.is_none() && !copy_back_; }
  const ArrayView& view();
  py::object finish();

 private:
  py::handle out_;
  py::object fresh_;
  ArrayView view_{};
  DType dtype_;
  const ptrdiff_t* shape_;
  int ndim_;
  bool usable_ = true, copy_back_ = false;
};

}  // namespace fastlayer
