// Threads: flush-to-zero is the caller's in every helper and is left as it was, a forked child
// computes, and every piece of work is done once, whoever comes to help.
#include "../core/threads.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <thread>

#include "../core/elementwise.hpp"
#include "../core/turns.hpp"
#include "check.hpp"
#include "tests.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#if defined(__linux__)
// In place of the system's, which can't be counted.
namespace {
thread_local int t_yields = 0, t_bindings = 0;
}
extern "C" int sched_yield() noexcept {
  ++t_yields;
  return static_cast<int>(syscall(SYS_sched_yield));
}
extern "C" int sched_setaffinity(pid_t thread, size_t size, const cpu_set_t* cores) noexcept {
  ++t_bindings;
  return static_cast<int>(syscall(SYS_sched_setaffinity, thread, size, cores));
}
#endif

namespace fastlayer {
namespace {

// A large array of subnormal numbers, scaled by leaky_relu on `threads` threads.
std::vector<float> scaled_subnormals(int threads) {
  const ptrdiff_t n = 1 << 20;
  std::vector<float> x(n, -64 * std::numeric_limits<float>::denorm_min()), y(n);
  RowsView rows{};
  rows.dtype = DType::kFloat32;
  rows.rows = rows.shape[0] = 1;
  rows.cols = n;
  rows.col_stride = sizeof(float);
  rows.leading = 1;
  rows.strides[0] = n * static_cast<ptrdiff_t>(sizeof(float));
  RowsView to = rows;
  rows.data = reinterpret_cast<char*>(x.data());
  to.data = reinterpret_cast<char*>(y.data());
  set_num_threads(threads);
  activate<float>({Activation::kLeakyRelu, 0.5f, 0.0f}, rows, to);
  return y;
}

void check_flush_to_zero() {
  const std::vector<float> gradual = scaled_subnormals(1);
  FL_CHECK(gradual[0] == -32 * std::numeric_limits<float>::denorm_min(), "subnormals are kept");
  for (int threads : {2, 3, 4}) {
    FL_CHECK(scaled_subnormals(threads) == gradual, "%d threads", threads);
  }
#if defined(__SSE__)
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040u);  // flush to zero, denormals are zero
  const unsigned flushing = _mm_getcsr();
  const std::vector<float> flushed = scaled_subnormals(1);
  for (int threads : {2, 3, 4}) {
    const std::vector<float> y = scaled_subnormals(threads);
    FL_CHECK(std::memcmp(y.data(), flushed.data(), y.size() * sizeof(float)) == 0,
             "flushing, %d threads", threads);
  }
  // Status flags may be raised; the modes may not change.
  FL_CHECK((_mm_getcsr() & ~0x3fu) == (flushing & ~0x3fu), "MXCSR changed");
  _mm_setcsr(before);
  for (int threads : {2, 3, 4}) {
    FL_CHECK(scaled_subnormals(threads) == gradual, "afterwards, %d threads", threads);
  }
#endif
}

void check_fork() {
  const std::vector<float> parent = scaled_subnormals(2);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(scaled_subnormals(2) == parent ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  FL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child ended with status %d", status);
  FL_CHECK(scaled_subnormals(2) == parent, "parent after fork");
}

// A call from inside a body finds the team busy and runs alone.
void check_nesting() {
  std::atomic<int> pieces{0};
  parallel(2, [&](int) {
    Step step;
    Turn turn(nullptr);
    parallel(8, [&](int) { step.run(10, turn, [&](ptrdiff_t) { ++pieces; }); });
    FL_CHECK(step.done >= 10, "a nested call is not done");
  });
  FL_CHECK(pieces % 10 == 0 && pieces >= 10, "%d pieces", pieces.load());
}

// Claims become smaller where one took too long, never smaller than the least; all is claimed once.
void check_claims() {
  Claims claims(1000, 128, 14);
  const auto next = [&](ptrdiff_t begin, ptrdiff_t count) {
    const Claims::Range range = claims.claim();
    FL_CHECK(range.begin == begin && range.count == count, "%td rows from %td, not %td from %td",
             range.count, range.begin, count, begin);
  };
  next(0, 128);
  claims.took(128, kPieceNs);
  next(128, 128);
  claims.took(128, 2 * kPieceNs + 1'000'000);
  next(256, 56);
  claims.took(128, 3 * kPieceNs / 2);  // of another thread, begun before
  next(312, 56);
  claims.took(56, 1000 * kPieceNs);
  next(368, 14);
  claims.took(14, 1000 * kPieceNs);
  ptrdiff_t end = 382;
  for (Claims::Range range; (range = claims.claim()).count > 0; end += range.count) {
    FL_CHECK(range.begin == end, "a gap at %td", end);
  }
  FL_CHECK(end == 1000, "the end at %td", end);
}

// Every piece is done exactly once, whoever comes and whenever, with teams that grow and are larger
// than a call wants; and a call has each of its threads once at most.
void check_pieces() {
  constexpr int kCounts[] = {1, 61, 64, 65, 200, static_cast<int>(kMaxPieces)};
  constexpr int kThreads[] = {2, 3, 4, 5, 6, 16, 64, 2, 5, 64};
  for (int round = 0; round < 2000; ++round) {
    const int threads = kThreads[round * 10 / 2000];
    const int count = kCounts[round % 6];
    std::atomic<int> times[2][kMaxPieces] = {}, came[64] = {};
    std::atomic<int> uninvited{0};
    Step step;
    Turn turn(nullptr);
    SharedStep shared(count);
    parallel(threads, [&](int thread) {
      ++(thread < threads ? came[thread] : uninvited);
      step.run(count, turn, [&](ptrdiff_t i) { ++times[0][i]; });
      shared.run(count, thread, threads, [&](ptrdiff_t i) { ++times[1][i]; });
    });
    for (int i = 0; i < kMaxPieces; ++i) {
      const int once = i < count ? 1 : 0;
      FL_CHECK(times[0][i] == once && times[1][i] == once, "piece %d in round %d", i, round);
    }
    FL_CHECK(uninvited == 0 && came[0] == 1, "round %d", round);
    for (const std::atomic<int>& thread : came) FL_CHECK(thread <= 1, "round %d", round);
  }
}

// However many sleep, the caller sets the affinity of two at most, and helpers that of the rest.
void check_waking() {
#if defined(__linux__)
  for (int round = 0; round < 20; ++round) {
    parallel(64, [](int) {});
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const int before = t_bindings;
    parallel(64, [](int) {});
    FL_CHECK(t_bindings - before <= 2, "the caller bound %d threads", t_bindings - before);
  }
#endif
}

// Nobody has to come, but if nobody ever does, threads are of no use.
void check_that_help_comes() {
  if (!has_openmp()) return;
  std::atomic<int> came{0};
  for (int round = 0; round < 1000 && came == 0; ++round) {
    parallel(2, [&](int thread) {
      if (thread > 0) came = thread;
      for (unsigned turn = 0; came == 0 && turn < 10000; ++turn) pause_briefly(turn);
    });
  }
  FL_CHECK(came == 1, "helper %d came", came.load());
}

// A wait of a few microseconds keeps its processor, unless the call has more threads than there
// are.
void check_patience() {
#if defined(__linux__)
  if (!has_openmp() || std::thread::hardware_concurrency() < 2) return;
  const auto offers = [](int threads) {
    parallel(threads, [](int) {});
    const int before = t_yields;
    for (unsigned turn = 0; turn < 1000; ++turn) pause_briefly(turn);
    return t_yields - before;
  };
  FL_CHECK(offers(2) == 0, "a wait beside one helper offers its processor");
  const int many = static_cast<int>(std::thread::hardware_concurrency()) + 1;
  FL_CHECK(many > 40 || offers(many) > 0, "%d threads never offer theirs", many);
#endif
}

// None where the limit is reached, in proportion to what is left otherwise, and all without one.
// An emulator of user programs takes a limit without setting it: there, there is nothing to see.
void check_affordable() {
  FL_CHECK(affordable_threads(64) == 64, "%d", affordable_threads(64));
#if defined(__linux__)
  for (auto kind : {RLIMIT_AS, RLIMIT_DATA}) {
    rlimit before;
    getrlimit(kind, &before);
    rlimit none = before, seen;
    none.rlim_cur = 0;
    setrlimit(kind, &none);
    getrlimit(kind, &seen);
    setrlimit(kind, &before);
    if (seen.rlim_cur != 0) {
      std::printf("limits of memory can't be set here\n");
      return;
    }
    const auto affordable = [&](rlim_t limit) {
      rlimit set = before;
      set.rlim_cur = std::min(limit, before.rlim_max);
      setrlimit(kind, &set);
      const int threads = affordable_threads(1 << 30);
      setrlimit(kind, &before);
      return threads;
    };
    FL_CHECK(affordable(0) == 0, "at the limit: %d", affordable(0));
    const rlim_t much = rlim_t(1) << 50;  // more than a sanitizer maps
    const int steps[] = {affordable(much), affordable(2 * much), affordable(3 * much)};
    const int bend = steps[2] - 2 * steps[1] + steps[0];
    FL_CHECK(steps[0] < steps[1] && std::abs(bend) <= 2, "%d, %d, %d", steps[0], steps[1],
             steps[2]);
  }
#endif
}

// Calls from many threads at once.
void check_callers() {
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 8; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        std::atomic<int> sum{0};
        Step step;
        Turn turn(nullptr);
        parallel(3, [&](int) { step.run(20, turn, [&](ptrdiff_t piece) { sum += int(piece); }); });
        if (sum != 190) ++wrong;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  FL_CHECK(wrong == 0, "%d wrong sums", wrong.load());
}

}  // namespace

// The process ends while its helpers are still starting.
void test_exit() {
  parallel(50, [](int) {});
}

void test_threads() {
  check_flush_to_zero();
  check_fork();
  check_nesting();
  check_claims();
  check_that_help_comes();
  check_pieces();
  check_patience();
  check_waking();
  check_affordable();
  check_callers();
}

}  // namespace fastlayer
