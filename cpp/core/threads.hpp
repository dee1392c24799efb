// Threads: how many a call may use, and the team that helps it. All OpenMP of the project is in
// threads.cpp; without OpenMP everything runs on the caller's thread, with the same bits.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace fastlayer {

// The process-wide number, at least 1.
void set_num_threads(int n);
// What a call from this thread may use: this thread's own number if it has one, else the
// process-wide; and no more than OpenMP's number for this thread where somebody has changed that,
// as threadpoolctl does.
int num_threads();
// OpenMP's number in threads where nobody has; 0 for one for each processor.
void set_openmp_default(int n);
// Whether OpenMP's number is what limits num_threads() in this thread.
bool openmp_limits();
// For calls from this thread alone; 0 goes back to the process-wide number. Returns the previous
// one.
int set_own_num_threads(int n);

bool has_openmp();

// How many threads to plan for work that takes about `picoseconds` on one: 1 where help would not
// pay. Remembers what it was asked, so that a loop of small calls wakes the team and a lone one
// does not.
int threads_for(double picoseconds);

// Runs body(context, 0) on the caller and invites the team to run body(context, i), 0 < i <
// threads, beside it; returns when everybody who came has left. Nobody has to come: a helper that
// is asleep or without a processor joins late or never, and a second caller finds the team busy. So
// body takes its work in pieces that whoever is there claims. body must not throw.
void run_parallel(int threads, void (*body)(void* context, int thread), void* context);

// run_parallel with a lambda (thread index) -> void.
template <typename Body>
void parallel(int threads, Body&& body) {
  using B = typename std::remove_reference<Body>::type;
  run_parallel(
      threads, [](void* context, int thread) { (*static_cast<B*>(context))(thread); }, &body);
}

// Calls to run_parallel that invited the team.
uint64_t parallel_regions();

// The team is smaller than a call wanted because the system starts no more threads.
struct Missing {
  int wanted, available;  // the caller counted
};
// Whether there is such news; taking it leaves none: {0, 0}.
bool missing_threads();
Missing take_missing_threads();

// Waits for another thread: a few microseconds busily, then giving up the processor in between,
// since the one waited for may need this very processor.
void pause_briefly(unsigned turn);
template <typename Condition>
void wait_until(Condition condition) {
  for (unsigned turn = 0; !condition(); ++turn) pause_briefly(turn);
}

// A step that everybody in a body goes through: its pieces are claimed, and nobody leaves it before
// all of them are done. A helper that comes late finds nothing left of the steps that are over.
struct alignas(64) Step {
  std::atomic<ptrdiff_t> next{0}, done{0};

  template <typename Piece>
  void run(ptrdiff_t count, Piece piece) {
    for (ptrdiff_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      piece(i);
      done.fetch_add(1, std::memory_order_release);
    }
    wait_until([&] { return done.load(std::memory_order_acquire) >= count; });
  }
};

// The same for at most 64 pieces, where each thread prefers its own share of them: the weights
// behind a piece may still be in its core's cache from the last call.
struct alignas(64) SharedStep {
  std::atomic<uint64_t> taken{0};
  std::atomic<int> done{0};

  template <typename Piece>
  void run(int count, int thread, int threads, Piece piece) {
    const int first = count * thread / threads;
    for (int j = 0; j < count; ++j) {
      const int i = first + j < count ? first + j : first + j - count;
      const uint64_t bit = uint64_t(1) << i;
      if (taken.load(std::memory_order_relaxed) & bit) continue;
      if (taken.fetch_or(bit, std::memory_order_relaxed) & bit) continue;
      piece(i);
      done.fetch_add(1, std::memory_order_release);
    }
    wait_until([&] { return done.load(std::memory_order_acquire) >= count; });
  }
};
constexpr ptrdiff_t kMaxPieces = 64;

}  // namespace fastlayer
