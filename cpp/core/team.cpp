#include "team.hpp"

#include <algorithm>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
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
constexpr double kWorkPerThread = kOneThreadBelow / 2;  // ps; ten times what joining costs
constexpr double kWorkToWake = 80e6;  // ps; found after 20 ms of idling, on 2 cores of Zen 4
// Calls that follow each other within this time are one stretch of work.
constexpr int64_t kStretchGapNs = 200'000;
int this_core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

class Team;

// One thread of the team. What is written in every call is on a line of its own.
class Helper {
 public:
  Team* const team;
  const int number;                 // of the thread in a call: from 1
  std::atomic<bool> inside{false};  // takes part in a call, or is about to

  Helper(Team* its_team, int its_number) : team(its_team), number(its_number) { choose_place(); }

  // By the thread itself, before anything else.
  void begin() {
#if defined(__linux__)
    id_ = static_cast<pid_t>(syscall(SYS_gettid));
#endif
    go_anywhere();
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
  // OMP_PROC_BIND binds the thread that loads OpenMP to the first of its places, and who is started
  // by it inherits that: helpers take the places after it in turn.
  void choose_place() {
    const int places = omp_get_num_places();
    if (places == 0 || omp_get_proc_bind() == omp_proc_bind_false) return;
    const int place = number % places;
    std::vector<int> cores(static_cast<size_t>(omp_get_place_num_procs(place)));
    omp_get_place_proc_ids(place, cores.data());
    CPU_ZERO(&allowed_);
    for (int core : cores) {
      if (core < CPU_SETSIZE) CPU_SET(core, &allowed_);
    }
    narrowed_ = true;
  }

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
  void choose_place() {}
  void keep_off(int, int) {}
#endif

  alignas(64) std::atomic<bool> asleep_{false};  // changed under mutex_
  std::mutex mutex_;
  std::condition_variable woken_;
};

// Starts a thread; pthread_create, since std::thread frees memory in the new thread, for which
// glibc reserves 64 MB of address space. A helper allocates nothing at all.
bool start_thread(pthread_t* thread, void* (*run)(void*), void* argument) {
  return pthread_create(thread, nullptr, run, argument) == 0;
}

// A thread that only holds its place, which is free for others afterwards.
class Place {
 public:
  Place() : closed_(gate_), held_(start_thread(&thread_, &wait, &gate_)) {}
  ~Place() {
    closed_.unlock();
    if (held_) pthread_join(thread_, nullptr);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  bool held() const { return held_; }

 private:
  static void* wait(void* gate) {
    const std::lock_guard<std::mutex> open(*static_cast<std::mutex*>(gate));
    return nullptr;
  }

  std::mutex gate_;
  std::unique_lock<std::mutex> closed_;
  pthread_t thread_;
  const bool held_;
};

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

  bool run(int threads, void (*body)(void*, int), void* context) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    grow(threads - 1);
    g_patience.store(threads > processors_ ? kHurried : kPatient, std::memory_order_relaxed);
    job_ = {body, context, threads, float_mode(), this_core()};
    const uint64_t call = gate_.load(std::memory_order_relaxed) / kCall + 1;
    gate_.store(call * kCall + static_cast<uint64_t>(threads), std::memory_order_seq_cst);
    wake_next(0);
    body(context, 0);
    // Closed: nobody comes in any more. Then wait for those inside.
    gate_.store(call * kCall, std::memory_order_seq_cst);
    for (int i = 1; i < threads && i <= size(); ++i) {
      const std::atomic<bool>& inside = helper(i).inside;
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

  int size() const { return static_cast<int>(helpers_.size()); }
  Helper& helper(int number) const { return *helpers_[static_cast<size_t>(number) - 1]; }

  // Wakes those of a call that thread i answers for: nobody has to wake more than two,
  // and more than there are processors are of no use.
  void wake_next(int i) {
    for (int next = 2 * i + 1; next <= 2 * i + 2; ++next) {
      if (next >= std::min(job_.threads, processors_) || next > size()) return;
      helper(next).wake(this_core(), job_.core);
    }
  }

  // Starts helpers until there are so many, or as many as can be had. They are never sent home.
  void grow(int wanted) {
    if (wanted <= size()) return;
    const uint64_t settings = thread_settings();
    if (wanted > most_ && settings == most_since_) return;
    wanted = std::min(wanted, omp_get_thread_limit() - 1);
    if (wanted <= size()) return;
    processors_ = omp_get_num_procs();
    const int missing = wanted - size();
    const int affordable = affordable_threads(missing + 1) - 1;  // one place is left to others
    try {
      if (affordable > 0) start_helpers(std::min(missing, affordable));
    } catch (const std::bad_alloc&) {
    }
    if (size() == wanted) return;
    // Remembered until somebody sets the number of threads anew.
    most_ = size();
    most_since_ = settings;
    report_missing_threads(wanted + 1, size() + 1);
  }

  void start_helpers(int count) {
    const Place others;
    if (!others.held()) return;
    helpers_.reserve(helpers_.size() + static_cast<size_t>(count));
    for (; count > 0; --count) {
      std::unique_ptr<Helper> made(new Helper(this, size() + 1));
      pthread_t thread;
      if (!start_thread(&thread, &help, made.get())) return;
      pthread_detach(thread);
      helpers_.push_back(std::move(made));
    }
  }

  static void* help(void* helper) {
    Helper& self = *static_cast<Helper*>(helper);
    self.team->help(self);
    return nullptr;
  }

  [[noreturn]] void help(Helper& self) {
    self.begin();
    uint64_t last_call = 0;
    const auto invited = [&](uint64_t gate) {
      return gate % kCall > static_cast<uint64_t>(self.number) && gate / kCall != last_call;
    };
    const auto wanted = [&] { return invited(gate_.load(std::memory_order_seq_cst)); };
    awake_.fetch_add(1, std::memory_order_relaxed);
    for (;;) {
      self.inside.store(true, std::memory_order_seq_cst);
      const uint64_t gate = gate_.load(std::memory_order_seq_cst);
      if (invited(gate)) {
        last_call = gate / kCall;
        wake_next(self.number);
        set_float_mode(job_.mode);
        job_.body(job_.context, self.number);
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
  }

  std::atomic<bool> busy_{false};
  // Changed by the one who is busy.
  std::vector<std::unique_ptr<Helper>> helpers_;
  int processors_ = 0;                          // when it last grew
  int most_ = std::numeric_limits<int>::max();  // helpers that can be had
  uint64_t most_since_ = 0;                     // thread_settings() then
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

// Threads do not survive a fork: the child starts a team of its own when it needs one. The one that
// it inherited is forgotten, whatever state it was in.
void in_child() { g_team.store(nullptr, std::memory_order_relaxed); }
const int g_fork_handler = pthread_atfork(nullptr, nullptr, &in_child);

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
