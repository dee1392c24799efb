#include "limit.hpp"

#include "../core/threads.hpp"

namespace fastlayer {

namespace py = pybind11;

void follow_limits(const py::object& limits) {
  PyObject* none = nullptr;
  // Kept for good: calls read it until the process ends.
  if (g_limits.compare_exchange_strong(none, limits.ptr())) limits.inc_ref();
}

void read_limit(PyObject* limits) {
  PyObject* found = nullptr;
  if (PyContextVar_Get(limits, nullptr, &found) != 0) throw py::error_already_set();
  const auto stack = py::reinterpret_steal<py::object>(found);
  const Py_ssize_t depth = PyTuple_GET_SIZE(found);
  PyObject* const innermost = depth == 0 ? nullptr : PyTuple_GET_ITEM(found, depth - 1);
  const long n = innermost == nullptr ? 0 : PyLong_AsLong(PyTuple_GET_ITEM(innermost, 0));
  set_own_num_threads(static_cast<int>(n));
}

}  // namespace fastlayer
