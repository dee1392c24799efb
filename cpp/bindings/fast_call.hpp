// Plain built-in functions: pybind11's dispatch costs 0.1 us and more with each argument, a third
// of the call of a small product.
#pragma once

#include <pybind11/pybind11.h>

#include <new>
#include <stdexcept>

namespace fastlayer {

// What f returns, as a new reference; or null, with what it throws as Python's exception.
template <typename F>
PyObject* call_guarded(F f) noexcept {
  try {
    return f().release().ptr();
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

using FastFunction = PyObject* (*)(PyObject* self, PyObject* const* args, Py_ssize_t count);

// The table's entry of a function that takes positional arguments only.
inline PyMethodDef fast_function(const char* name, FastFunction function) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)),
          METH_FASTCALL, nullptr};
}

inline bool takes(const char* name, Py_ssize_t wanted, Py_ssize_t count) {
  if (count == wanted) return true;
  PyErr_Format(PyExc_TypeError, "%s takes %zd positional arguments, got %zd", name, wanted, count);
  return false;
}

}  // namespace fastlayer
