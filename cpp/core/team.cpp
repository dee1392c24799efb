#include "team.hpp"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__SSE__)
#include <immintrin.h>  // _mm_pause
#endif

#include "clock.hpp"
#include "float_mode.hpp"
#include "threads.hpp"

namespace fastlayer {
namespace {

std::atomic<uint64_t> g_regions{0};

// A wait looks so many times before it offers the processor to others. Longer than a piece takes,
// about 50 us on Zen 5: beside a busy process, an offer costs the whole period of the scheduler, 4
// ms. Sooner, about 5 us, where the team has more threads than there are processors: the one waited
// for is then likely to need this one.
constexpr unsigned kPatient = 2500, kHurried = 256;
std::atomic<unsigned> g_patience{kHurried};

#if defined(_OPENMP)

// A helper that ran out of work looks for more this long before it sleeps: a call that follows
// within it is joined in under a microsecond, one that finds the team asleep pays about 50 us for
// waking it. Longer spinning would take the processor from others (measured on 2 cores of Zen 4).
constexpr int64_t kSpinNs = 100'000;

// Work that is worth help: with the team awake, and with the team asleep.
constexpr double kWorkPerThread = 4e6;  // ps; ten times what joining costs
constexpr double kWorkToWake = 80e6;    // ps; found after 20 ms of idling, on 2 cores of Zen 4
// Calls that follow each other within this time are one stretch of work.
constexpr int64_t kStretchGapNs = 200'000;
// The end of the process waits at most this long for threads that are starting: a second, thousands
// of times what starting one takes.
constexpr int64_t kSettleNs = 1'000'000'000;

// A helper that sleeps. The system likes to wake it on the core of the caller, where it waits for
// milliseconds until it is moved, while another core idles; so it is kept off that core until its
// work is done. Measured after 20 ms of idling on 2 cores of Zen 4; docs/architecture.md has the
// times.
struct Sleeper {
  Sleeper* next = nullptr;
#if defined(__linux__)
  const pid_t id = static_cast<pid_t>(syscall(SYS_gettid));
  bool narrowed = false;
  cpu_set_t allowed;

  void keep_off_this_core() {
    const int core = sched_getcpu();
    if (narrowed || core < 0 || core >= CPU_SETSIZE) return;
    if (sched_getaffinity(id, sizeof allowed, &allowed) != 0) return;
    cpu_set_t others = allowed;
    CPU_CLR(core, &others);
    narrowed = CPU_COUNT(&others) > 0 && sched_setaffinity(id, sizeof others, &others) == 0;
  }
  void go_anywhere() {
    if (!narrowed) return;
    narrowed = false;
    sched_setaffinity(0, sizeof allowed, &allowed);
  }
#else
  void keep_off_this_core() {}
  void go_anywhere() {}
#endif
};

// How many of `wanted` threads can be started, found by starting them. libgomp ends the process
// when it can't have a thread, so it is only asked for what has just been possible.
int startable(int wanted) {
  std::vector<std::thread> threads;
  std::mutex gate;  // all of them are alive until it opens
  std::unique_lock<std::mutex> closed(gate);
  try {
    threads.reserve(static_cast<size_t>(wanted));
    while (static_cast<int>(threads.size()) < wanted) {
      threads.emplace_back([&gate] { const std::lock_guard<std::mutex> open(gate); });
    }
  } catch (const std::exception&) {  // std::system_error, std::bad_alloc
  }
  closed.unlock();
  for (std::thread& thread : threads) thread.join();
  return static_cast<int>(threads.size());
}

struct Job {
  void (*body)(void* context, int thread);
  void* context;
  int threads;
  unsigned long mode;
  std::atomic<int> next_thread{1};
};

// The team of one process. Never destroyed: helpers may still look at it while the process ends.
class Team {
 public:
  // How many threads would take part at once.
  bool awake() const { return spinning_.load(std::memory_order_relaxed) > 0; }

  // Whether cold calls have added up to enough work, in a row, to wake the team for.
  bool worth_waking(double picoseconds) {
    // From start to start; a call may well take a few times its estimate.
    const int64_t now = now_ns();
    const int64_t gap = kStretchGapNs + static_cast<int64_t>(4e-3 * picoseconds);
    const bool in_a_row = now - last_call_.exchange(now, std::memory_order_relaxed) < gap;
    const double sum = (in_a_row ? stretch_.load(std::memory_order_relaxed) : 0.0) + picoseconds;
    stretch_.store(sum, std::memory_order_relaxed);
    return sum >= kWorkToWake;
  }

  // Before OpenMP is taken down at the end of the process: libomp crashes where a thread is still
  // starting then. No new team begins from here on; the wait is bounded for the sake of the exit.
  void settle() {
    busy_.store(true);
    const int64_t until = now_ns() + kSettleNs;
    wait_until([&] { return starting_.load() == 0 || now_ns() > until; });
  }

  bool run(int threads, void (*body)(void*, int), void* context) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    grow(threads - 1);
    job_.body = body;
    job_.context = context;
    job_.threads = threads;
    job_.mode = float_mode();
    g_patience.store(threads > processors_ ? kHurried : kPatient, std::memory_order_relaxed);
    job_.next_thread.store(1, std::memory_order_relaxed);
    gate_.fetch_add(kOpen, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) > 0) wake();
    body(context, 0);
    // Closed: nobody comes in any more. Then wait for those inside.
    gate_.fetch_add(kNextCall - kOpen, std::memory_order_acq_rel);
    wait_until([this] { return (gate_.load(std::memory_order_acquire) & kInside) == 0; });
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  // gate_: how many helpers are inside, whether more may enter, and the number of the call.
  static constexpr uint64_t kInside = 0xffff, kOpen = 0x10000, kNextCall = 0x20000;

  void wake() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Sleeper* s = sleepers_; s != nullptr; s = s->next) s->keep_off_this_core();
    wanted_.notify_all();
  }

  // The one that opens the region is a thread of its own, since a region lasts as long as its team.
  void grow(int helpers) {
    if (helpers <= helpers_) return;
    processors_ = omp_get_num_procs();
    const uint64_t settings = thread_settings();
    if (helpers > most_ && settings == most_since_) return;
    // All of them beside those of the smaller team, and one place is left to others.
    const int found = startable(helpers + 1) - 1;
    if (found < helpers) {
      miss(helpers, std::max(found, helpers_), settings);
      if (found <= helpers_) return;
      helpers = found;
    }
    const uint64_t team = team_.fetch_add(1) + 1;  // the smaller team before it goes home
    if (helpers_ > 0) wake();
    helpers_ = 0;
    starting_.fetch_add(helpers);
    try {
      std::thread([this, helpers, team] {
#pragma omp parallel num_threads(helpers)
        {
          // The first one counts for those too that OpenMP's own limits left out.
          const int left_out = omp_get_thread_num() == 0 ? helpers - omp_get_num_threads() : 0;
          starting_.fetch_sub(1 + left_out);
          help(team);
        }
      }).detach();
      helpers_ = helpers;
    } catch (const std::exception&) {
      starting_.fetch_sub(helpers);
      miss(helpers, 0, settings);
    }
  }

  // Remembered until somebody sets the number of threads anew.
  void miss(int helpers, int found, uint64_t settings) {
    most_ = found;
    most_since_ = settings;
    report_missing_threads(helpers + 1, found + 1);
  }

  bool enter(uint64_t& last_call) {
    uint64_t gate = gate_.load(std::memory_order_acquire);
    while ((gate & kOpen) != 0 && gate / kNextCall != last_call) {
      if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) {
        last_call = gate / kNextCall;
        return true;
      }
    }
    return false;
  }

  void help(uint64_t team) {
    uint64_t last_call = ~uint64_t(0);
    Sleeper self;
    const auto wanted = [&] {
      const uint64_t gate = gate_.load(std::memory_order_seq_cst);
      return team_.load(std::memory_order_relaxed) != team ||
             ((gate & kOpen) != 0 && gate / kNextCall != last_call);
    };
    while (team_.load(std::memory_order_relaxed) == team) {
      if (enter(last_call)) {
        const int thread = job_.next_thread.fetch_add(1, std::memory_order_relaxed);
        if (thread < job_.threads) {
          set_float_mode(job_.mode);
          job_.body(job_.context, thread);
        }
        gate_.fetch_sub(1, std::memory_order_release);
      }
      self.go_anywhere();
      spinning_.fetch_add(1, std::memory_order_relaxed);
      const int64_t until = now_ns() + kSpinNs;
      while (!wanted() && now_ns() < until) {
        for (int i = 0; i < 32 && !wanted(); ++i) pause_briefly(0);
      }
      spinning_.fetch_sub(1, std::memory_order_relaxed);
      if (wanted()) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      self.next = sleepers_;
      sleepers_ = &self;
      sleeping_.fetch_add(1, std::memory_order_seq_cst);
      wanted_.wait(lock, [&] {
        if (wanted()) return true;
        self.go_anywhere();  // woken too late, and bound for the last caller's sake
        return false;
      });
      sleeping_.fetch_sub(1, std::memory_order_relaxed);
      Sleeper** link = &sleepers_;
      while (*link != &self) link = &(*link)->next;
      *link = self.next;
    }
  }

  std::atomic<bool> busy_{false};
  // Changed by the one who is busy: helpers of the newest team, and how many there can be.
  int helpers_ = 0;
  int processors_ = 0;  // when it was made
  int most_ = std::numeric_limits<int>::max();
  uint64_t most_since_ = 0;  // thread_settings() then
  std::atomic<uint64_t> team_{0};
  std::atomic<int> starting_{0};  // helpers that OpenMP was asked for and that have not come yet
  Job job_;
  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<int> spinning_{0};
  std::atomic<int> sleeping_{0};
  std::mutex mutex_;
  std::condition_variable wanted_;
  Sleeper* sleepers_ = nullptr;  // under mutex_
  std::atomic<int64_t> last_call_{0};
  std::atomic<double> stretch_{0.0};
};

std::atomic<Team*> g_team{nullptr};

Team& team() {
  Team* known = g_team.load(std::memory_order_acquire);
  if (known != nullptr) return *known;
  Team* const made = new Team;
  if (g_team.compare_exchange_strong(known, made)) return *made;
  delete made;
  return *known;
}

struct AtExit {
  ~AtExit() {
    if (Team* const known = g_team.load()) known->settle();
  }
} g_at_exit;

#if defined(__unix__) || defined(__APPLE__)
// Threads do not survive a fork: the child starts a team of its own when it needs one. The one that
// it inherited is forgotten, whatever state it was in.
void in_child() { g_team.store(nullptr, std::memory_order_relaxed); }
const int g_fork_handler = pthread_atfork(nullptr, nullptr, &in_child);
#endif

#endif  // _OPENMP

}  // namespace

uint64_t parallel_regions() { return g_regions.load(std::memory_order_relaxed); }

void pause_briefly(unsigned turn) {
  if (turn < g_patience.load(std::memory_order_relaxed)) {
#if defined(__SSE__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
  } else {
    std::this_thread::yield();
  }
}

#if defined(_OPENMP)

int threads_for(double picoseconds) {
  const double worth = picoseconds / kWorkPerThread;
  if (worth < 2) return 1;
  const int limit = num_threads();
  if (limit == 1) return 1;
  if (!team().awake() && !team().worth_waking(picoseconds)) return 1;
  return worth >= limit ? limit : static_cast<int>(worth);
}

void run_parallel(int threads, void (*body)(void* context, int thread), void* context) {
  if (threads > 1 && team().run(threads, body, context)) {
    g_regions.fetch_add(1, std::memory_order_relaxed);
  } else {
    body(context, 0);
  }
}

#else

int threads_for(double) { return 1; }
void run_parallel(int, void (*body)(void* context, int thread), void* context) { body(context, 0); }

#endif

}  // namespace fastlayer
