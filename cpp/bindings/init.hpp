// Constructors of bound classes that survive a lack of memory.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <new>

namespace fastlayer {

namespace py = pybind11;

// pybind11 3.1 makes an instance without asking whether there was memory for it.
inline PyObject* new_instance(PyTypeObject* type, PyObject*, PyObject*) noexcept {
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

}  // namespace fastlayer
