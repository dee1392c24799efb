#include "team.hpp"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <limits>
#include <memory>
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

int this_core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// One thread of the team. What is written in every call is on a line of its own.
class Helper {
 public:
  std::atomic<bool> inside{false};  // takes part in a call, or is about to

  // By the thread itself, before anything else.
  void begin() {
#if defined(__linux__)
    id_ = static_cast<pid_t>(syscall(SYS_gettid));
#endif
  }

  // By the thread itself: sleeps until wanted() is true.
  template <typename Wanted>
  void sleep(Wanted wanted) {
    std::unique_lock<std::mutex> lock(mutex_);
    asleep_.store(true, std::memory_order_seq_cst);
    woken_.wait(lock, [&] {
      if (wanted()) return true;
      go_anywhere();  // woken too late, and bound for the last caller's sake
      return false;
    });
    asleep_.store(false, std::memory_order_relaxed);
  }

  // The system likes to wake a thread on the core of the one who wakes it, where it waits for
  // milliseconds until it is moved, while another core idles; so it is kept off the cores of the
  // waker and of the caller until its work is done. Measured after 20 ms of idling on 2 cores of
  // Zen 4; docs/architecture.md has the times.
  void wake(int waker, int caller) {
    if (!asleep_.load(std::memory_order_seq_cst)) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!asleep_.load(std::memory_order_relaxed)) return;
    keep_off(waker, caller);
    woken_.notify_one();
  }

#if defined(__linux__)
  // By the thread itself.
  void go_anywhere() {
    if (!narrowed_) return;
    narrowed_ = false;
    sched_setaffinity(0, sizeof allowed_, &allowed_);
  }

 private:
  void keep_off(int waker, int caller) {
    if (narrowed_ || sched_getaffinity(id_, sizeof allowed_, &allowed_) != 0) return;
    cpu_set_t others = allowed_;
    for (int core : {waker, caller}) {
      if (core >= 0 && core < CPU_SETSIZE) CPU_CLR(core, &others);
    }
    narrowed_ = CPU_COUNT(&others) > 0 && sched_setaffinity(id_, sizeof others, &others) == 0;
  }

  pid_t id_ = 0;
  // Of the thread itself; while it sleeps, of those who hold mutex_.
  bool narrowed_ = false;
  cpu_set_t allowed_;
#else
  void go_anywhere() {}

 private:
  void keep_off(int, int) {}
#endif

  alignas(64) std::atomic<bool> asleep_{false};  // changed under mutex_
  std::mutex mutex_;
  std::condition_variable woken_;
};

// The helpers that were started together.
struct Crew {
  explicit Crew(int size) : count(size), helpers(new Helper[static_cast<size_t>(size)]) {}

  const int count;
  const std::unique_ptr<Helper[]> helpers;  // thread i of a call is helpers[i - 1]
  std::atomic<bool> dismissed{false};
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
  int core;  // of the caller
};

// The team of one process. Never destroyed: helpers may still look at it while the process ends.
class Team {
 public:
  // Whether somebody would take part at once.
  bool awake() const { return awake_.load(std::memory_order_relaxed) > 0; }

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
    g_patience.store(threads > processors_ ? kHurried : kPatient, std::memory_order_relaxed);
    job_ = {body, context, threads, float_mode(), this_core()};
    const uint64_t call = gate_.load(std::memory_order_relaxed) / kCall + 1;
    gate_.store(call * kCall + static_cast<uint64_t>(threads), std::memory_order_seq_cst);
    wake_next(crew_.get(), 0);
    body(context, 0);
    // Closed: nobody comes in any more. Then wait for those inside.
    gate_.store(call * kCall, std::memory_order_seq_cst);
    for (int i = 1; crew_ != nullptr && i < threads && i <= crew_->count; ++i) {
      const std::atomic<bool>& inside = crew_->helpers[i - 1].inside;
      wait_until([&] { return !inside.load(std::memory_order_seq_cst); });
    }
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  // gate_: the number of the call, and how many threads it wants; none where it is closed. A helper
  // says that it is inside, then looks whether the call is still open, and the caller does it the
  // other way round: so one of them sees the other, and nobody else's line is written.
  static constexpr uint64_t kCall = 1 << 16;

  // Wakes those of a call that thread i answers for: nobody has to wake more than two,
  // and more than there are processors are of no use.
  void wake_next(Crew* crew, int i) {
    for (int next = 2 * i + 1; next <= 2 * i + 2; ++next) {
      if (next >= std::min(job_.threads, processors_) || crew == nullptr || next > crew->count)
        return;
      crew->helpers[next - 1].wake(this_core(), job_.core);
    }
  }

  // The one that opens the region is a thread of its own, since a region lasts as long as its team.
  void grow(int helpers) {
    const int now = crew_ == nullptr ? 0 : crew_->count;
    if (helpers <= now) return;
    processors_ = omp_get_num_procs();
    const uint64_t settings = thread_settings();
    if (helpers > most_ && settings == most_since_) return;
    // All of them beside those of the smaller team, and one place is left to others.
    const int found = startable(helpers + 1) - 1;
    if (found < helpers) {
      miss(helpers, std::max(found, now), settings);
      if (found <= now) return;
      helpers = found;
    }
    dismiss();
    starting_.fetch_add(helpers);
    try {
      const auto crew = std::make_shared<Crew>(helpers);
      std::thread([this, helpers, crew] {
#pragma omp parallel num_threads(helpers)
        {
          // The first one counts for those too that OpenMP's own limits left out.
          const int left_out = omp_get_thread_num() == 0 ? helpers - omp_get_num_threads() : 0;
          starting_.fetch_sub(1 + left_out);
          help(*crew, omp_get_thread_num() + 1);
        }
      }).detach();
      crew_ = crew;
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

  // The smaller team goes home.
  void dismiss() {
    if (crew_ == nullptr) return;
    crew_->dismissed.store(true, std::memory_order_seq_cst);
    for (int i = 0; i < crew_->count; ++i) crew_->helpers[i].wake(-1, -1);
    crew_ = nullptr;
  }

  void help(Crew& crew, int i) {
    Helper& self = crew.helpers[i - 1];
    self.begin();
    uint64_t last_call = 0;
    const auto invited = [&](uint64_t gate) {
      return gate % kCall > static_cast<uint64_t>(i) && gate / kCall != last_call &&
             !crew.dismissed.load(std::memory_order_seq_cst);
    };
    const auto wanted = [&] {
      return invited(gate_.load(std::memory_order_seq_cst)) ||
             crew.dismissed.load(std::memory_order_relaxed);
    };
    awake_.fetch_add(1, std::memory_order_relaxed);
    while (!crew.dismissed.load(std::memory_order_relaxed)) {
      self.inside.store(true, std::memory_order_seq_cst);
      const uint64_t gate = gate_.load(std::memory_order_seq_cst);
      if (invited(gate)) {
        last_call = gate / kCall;
        wake_next(&crew, i);
        set_float_mode(job_.mode);
        job_.body(job_.context, i);
      }
      self.inside.store(false, std::memory_order_release);
      self.go_anywhere();
      const int64_t until = now_ns() + kSpinNs;
      while (!wanted() && now_ns() < until) {
        for (int turn = 0; turn < 32 && !wanted(); ++turn) pause_briefly(0);
      }
      if (wanted()) continue;
      awake_.fetch_sub(1, std::memory_order_relaxed);
      self.sleep(wanted);
      awake_.fetch_add(1, std::memory_order_relaxed);
    }
    awake_.fetch_sub(1, std::memory_order_relaxed);
  }

  std::atomic<bool> busy_{false};
  // Changed by the one who is busy.
  std::shared_ptr<Crew> crew_;                  // the newest
  int processors_ = 0;                          // when it was made
  int most_ = std::numeric_limits<int>::max();  // helpers that can be had
  uint64_t most_since_ = 0;                     // thread_settings() then
  std::atomic<int> starting_{0};  // helpers that OpenMP was asked for and that have not come yet
  Job job_{};
  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<int> awake_{0};  // helpers at work or looking for it
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
