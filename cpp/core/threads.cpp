#include "threads.hpp"

#include <atomic>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace fastlayer {
namespace {

std::atomic<int> g_threads{1};
std::atomic<uint64_t> g_regions{0};
thread_local int t_limit = 0;

// libgomp's workers do not survive a fork, and its next region would wait for them for ever; a
// child of a process that had a team computes on one thread.
std::atomic<bool> g_team_started{false};
std::atomic<bool> g_team_lost{false};

#if defined(_OPENMP) && (defined(__unix__) || defined(__APPLE__))
void in_child() {
  if (g_team_started.load()) g_team_lost.store(true);
}
const int g_fork_handler = pthread_atfork(nullptr, nullptr, &in_child);
#endif

// Flush-to-zero and rounding are per thread: workers compute with the caller's, so that every row
// of a call is treated alike.
#if defined(__SSE__)
unsigned long float_mode() { return _mm_getcsr(); }
void set_float_mode(unsigned long mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
unsigned long float_mode() {
  unsigned long mode;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void set_float_mode(unsigned long mode) { __asm__ __volatile__("msr fpcr, %0" : : "r"(mode)); }
#else
unsigned long float_mode() { return 0; }
void set_float_mode(unsigned long) {}
#endif

}  // namespace

void set_num_threads(int n) { g_threads.store(n < 1 ? 1 : n, std::memory_order_relaxed); }

int num_threads() {
  const int n = g_threads.load(std::memory_order_relaxed);
  return t_limit > 0 && t_limit < n ? t_limit : n;
}

int set_thread_limit(int n) {
  const int previous = t_limit;
  t_limit = n;
  return previous;
}

uint64_t parallel_regions() { return g_regions.load(std::memory_order_relaxed); }

#if defined(_OPENMP)

bool has_openmp() { return true; }

int usable_threads(int wanted) {
  const int n = wanted < num_threads() ? wanted : num_threads();
  return n < 1 || omp_in_parallel() || g_team_lost.load(std::memory_order_relaxed) ? 1 : n;
}

void barrier() {
#pragma omp barrier
}

void run_parallel(int threads, void (*body)(void* context, int thread), void* context) {
  if (threads <= 1) {
    body(context, 0);
    return;
  }
  g_team_started.store(true, std::memory_order_relaxed);
  g_regions.fetch_add(1, std::memory_order_relaxed);
  const unsigned long mode = float_mode();
#pragma omp parallel num_threads(threads)
  {
    const unsigned long own = float_mode();
    if (own != mode) set_float_mode(mode);
    body(context, omp_get_thread_num());
    if (own != mode) set_float_mode(own);
  }
}

#else

bool has_openmp() { return false; }
int usable_threads(int) { return 1; }
void barrier() {}
void run_parallel(int, void (*body)(void* context, int thread), void* context) { body(context, 0); }

#endif

}  // namespace fastlayer
