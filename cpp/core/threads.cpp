#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <limits>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace fastlayer {
namespace {

std::atomic<int> g_threads{1};
std::atomic<uint64_t> g_settings{0};   // calls of set_num_threads
std::atomic<int> g_openmp_default{0};  // 0: not known
std::atomic<int> g_missing_wanted{0}, g_missing_available{0};
thread_local int t_threads = 0;

int asked_threads() {
  return t_threads > 0 ? t_threads : g_threads.load(std::memory_order_relaxed);
}

// OpenMP's number for this thread where somebody has changed it.
int openmp_threads() {
  constexpr int kAny = std::numeric_limits<int>::max();
#if defined(_OPENMP)
  const int standard = g_openmp_default.load(std::memory_order_relaxed);
  const int now = omp_get_max_threads();
  return standard == 0 || now == standard ? kAny : now;
#else
  return kAny;
#endif
}

}  // namespace

void set_num_threads(int n) {
  g_threads.store(std::max(n, 1), std::memory_order_relaxed);
  g_settings.fetch_add(1, std::memory_order_relaxed);
}

int num_threads() { return std::min(asked_threads(), openmp_threads()); }

bool openmp_limits() { return openmp_threads() < asked_threads(); }

void set_openmp_default(int n) {
#if defined(_OPENMP)
  if (n == 0) n = omp_get_num_procs();
#endif
  g_openmp_default.store(n, std::memory_order_relaxed);
}

int set_own_num_threads(int n) {
  const int previous = t_threads;
  t_threads = n;
  return previous;
}

bool has_openmp() {
#if defined(_OPENMP)
  return true;
#else
  return false;
#endif
}

bool missing_threads() { return g_missing_wanted.load(std::memory_order_relaxed) != 0; }

Missing take_missing_threads() {
  const int wanted = g_missing_wanted.exchange(0, std::memory_order_acquire);
  return {wanted, wanted == 0 ? 0 : g_missing_available.load(std::memory_order_relaxed)};
}

void report_missing_threads(int wanted, int available) {
  g_missing_available.store(available, std::memory_order_relaxed);
  g_missing_wanted.store(wanted, std::memory_order_release);
}

uint64_t thread_settings() { return g_settings.load(std::memory_order_relaxed); }

}  // namespace fastlayer
