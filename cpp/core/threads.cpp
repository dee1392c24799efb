#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <utility>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
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

#if defined(__linux__)

// What the process has mapped, in bytes: all of it, and its data and stacks.
struct Mapped {
  unsigned long long all, data;
};

// Without memory of its own. False where /proc can't be read.
bool read_mapped(Mapped* mapped) {
  const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  char text[256];
  const ssize_t size = read(file, text, sizeof text - 1);
  close(file);
  if (size <= 0) return false;
  text[size] = 0;
  if (std::sscanf(text, "%llu %*u %*u %*u %*u %llu", &mapped->all, &mapped->data) != 2)
    return false;
  const auto page = static_cast<unsigned long long>(sysconf(_SC_PAGESIZE));
  mapped->all *= page;
  mapped->data *= page;
  return true;
}

// The stack of a thread that is started without wishes, with its guard.
unsigned long long stack_size() {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return 0;
  size_t stack = 0, guard = 0;
  pthread_attr_getstacksize(&attributes, &stack);
  pthread_attr_getguardsize(&attributes, &guard);
  pthread_attr_destroy(&attributes);
  return stack + guard;
}

#endif

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

int affordable_threads(int wanted) {
#if defined(__linux__)
  rlimit space, data;
  if (getrlimit(RLIMIT_AS, &space) != 0) space.rlim_cur = RLIM_INFINITY;
  if (getrlimit(RLIMIT_DATA, &data) != 0) data.rlim_cur = RLIM_INFINITY;
  if (space.rlim_cur == RLIM_INFINITY && data.rlim_cur == RLIM_INFINITY) return wanted;
  Mapped mapped;
  const unsigned long long stack = stack_size();
  if (stack == 0 || !read_mapped(&mapped)) return 0;
  for (const auto& [limit, used] :
       {std::pair<unsigned long long, unsigned long long>{space.rlim_cur, mapped.all},
        {data.rlim_cur, mapped.data}}) {
    const unsigned long long stacks = limit > used ? (limit - used) / 2 / stack : 0;
    if (stacks < static_cast<unsigned long long>(wanted)) wanted = static_cast<int>(stacks);
  }
#endif
  return wanted;
}

void report_missing_threads(int wanted, int available) {
  g_missing_available.store(available, std::memory_order_relaxed);
  g_missing_wanted.store(wanted, std::memory_order_release);
}

uint64_t thread_settings() { return g_settings.load(std::memory_order_relaxed); }

}  // namespace fastlayer
