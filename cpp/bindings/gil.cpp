#include "gil.hpp"

#include <atomic>
#include <chrono>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include "../core/clock.hpp"

namespace fastlayer {
namespace {

// Calls that are on their way without the GIL, and whether the interpreter is about to end.
std::atomic<int> g_away{0};
std::atomic<bool> g_ending{false};

#if defined(__unix__) || defined(__APPLE__)
// The threads of those calls are not in the child.
const int g_fork_handler = pthread_atfork(nullptr, nullptr, [] { g_away.store(0); });
#endif

}  // namespace

bool on_main_thread() {
#if defined(__linux__)
  return syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__)
  return pthread_main_np() != 0;
#else
  return true;  // asking from others is in vain, and cheap
#endif
}

Released::Released(bool asks_for_signals)
    : lookout_{&check_signals, this, now_ns() + kTurnNs, false}, asks_(asks_for_signals) {
  release();
  if (asks_) before_ = set_lookout(&lookout_);
}

Released::~Released() noexcept(false) {
  if (asks_) set_lookout(before_);
  take_back();
}

void Released::release() {
  g_away.fetch_add(1);
  if (!g_ending.load()) {
    state_ = PyEval_SaveThread();
  } else {
    g_away.fetch_sub(1);
  }
}

void Released::take_back() {
  if (state_ == nullptr) return;
  PyThreadState* const state = state_;
  state_ = nullptr;
  PyEval_RestoreThread(state);
  g_away.fetch_sub(1);
}

bool Released::check_signals(void* self) {
  auto* const released = static_cast<Released*>(self);
  released->take_back();
  Lookout* const ours = set_lookout(nullptr);  // a handler may call the package
  const int limit = set_own_num_threads(0);
  const bool raised = PyErr_CheckSignals() != 0;
  set_own_num_threads(limit);
  set_lookout(ours);
  if (!raised) released->release();
  return raised;
}

void drain() {
  g_ending.store(true);
  PyThreadState* const state = PyEval_SaveThread();
  while (g_away.load() != 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
  PyEval_RestoreThread(state);
}

void warn_of_missing_threads() {
  const Missing missing = take_missing_threads();
  if (missing.wanted == 0) return;
  const int failed = PyErr_WarnFormat(
      PyExc_RuntimeWarning, 2,
      "fastlayer wanted %d threads and could have %d: the system starts no more for this process "
      "(limits on processes or memory). Calls are slower, their results the same; "
      "fastlayer.set_num_threads tries again",
      missing.wanted, missing.available);
  if (failed != 0) throw pybind11::error_already_set();
}

}  // namespace fastlayer
