// Working without the GIL, and what a call owes to Python while it does: signals, the end of the
// interpreter, and warnings from the core.
#pragma once

#include <pybind11/pybind11.h>

#include <type_traits>

#include "../core/plan.hpp"
#include "../core/threads.hpp"
#include "../core/turns.hpp"
#include "limit.hpp"

namespace fastlayer {

// A call that is estimated to take longer than this, in picoseconds, looks up from its work for
// signals. Far below a turn, because estimates are those of a fast processor for float32.
constexpr double kLookUpAbove = 1e9;

// The GIL given up until the end of the scope. Not once the interpreter ends: see drain() there.
class Released {
 public:
  explicit Released(bool asks_for_signals);
  // Taking the GIL back ends the thread where the interpreter is gone.
  ~Released() noexcept(false);
  Released(const Released&) = delete;
  Released& operator=(const Released&) = delete;

  // Whether a signal handler has raised.
  bool stopped() const { return lookout_.stopped; }

 private:
  static bool check_signals(void* self);
  void release();
  void take_back();

  PyThreadState* state_ = nullptr;
  Lookout lookout_;
  Lookout* before_ = nullptr;
  const bool asks_;
};

// Lets calls without the GIL end, and has all later ones keep it. At exit.
void drain();

bool on_main_thread();
// The warning about threads that could not be started, if there is one to give.
void warn_of_missing_threads();

// Runs f, without the GIL where it takes long enough. Throws what a signal handler raised.
template <typename F>
void run_released(double picoseconds, F f) {
  read_limit_for(picoseconds);
  if (picoseconds > kReleaseGilAbove) {
    bool stopped = false;
    {
      const Released released(picoseconds > kLookUpAbove && on_main_thread());
      f();
      stopped = released.stopped();
    }
    if (stopped) throw pybind11::error_already_set();
  } else {
    f();
  }
  if (missing_threads()) warn_of_missing_threads();
}

}  // namespace fastlayer
