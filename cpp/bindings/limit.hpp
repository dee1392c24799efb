// fastlayer.num_threads: limits that belong to Python's context, so that tasks which take turns on
// a thread each have their own. The core reads the number of a thread; calls that may use more
// than one thread make it that of the context first.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>

#include "../core/program.hpp"
#include "../core/team.hpp"

namespace fastlayer {

// The variable that holds the limits, innermost last; null until there has been one.
inline std::atomic<PyObject*> g_limits{nullptr};

// From now on calls ask `limits`, a ContextVar of tuples (number of threads, whatever).
void follow_limits(const pybind11::object& limits);

// Makes the innermost limit of the context that of this thread. With the GIL.
void read_limit(PyObject* limits);

inline void read_limit() {
  PyObject* const limits = g_limits.load(std::memory_order_acquire);
  if (limits != nullptr) read_limit(limits);
}
// For work of so many picoseconds.
inline void read_limit_for(double picoseconds) {
  if (picoseconds >= kOneThreadBelow) read_limit();
}

template <typename T>
Plan plan_within_limit(const Program<T>& program, ptrdiff_t m) {
  const double picoseconds = program.picoseconds(m);
  read_limit_for(picoseconds);
  return program.plan(m, picoseconds);
}

}  // namespace fastlayer
