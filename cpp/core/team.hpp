// The team of threads that helps a call, and the steps and waiting that a call's threads share.
//
// OpenMP only makes the threads, so that its places, stack size and limits hold for them. Who works
// when is decided here: OpenMP's regions end with a barrier, at which the caller would wait for a
// thread that sleeps or has lost its processor. Without OpenMP everything runs on the caller's
// thread, with the same bits.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace fastlayer {

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

// Waits for another thread: busily for longer than a piece of work takes, then giving up the
// processor in between, since the one waited for may need this very processor.
void pause_briefly(unsigned turn);
template <typename Condition>
void wait_until(Condition condition) {
  for (unsigned turn = 0; !condition(); ++turn) pause_briefly(turn);
}

constexpr ptrdiff_t kMaxPieces = 64;  // bits of SharedStep::taken

// A step that everybody in a body goes through: its at most kMaxPieces pieces are claimed, and
// nobody leaves it before all of them are done. A helper that comes late finds nothing left of the
// steps that are over. Each thread prefers its own share: the weights behind a piece may still be
// in its core's cache from the last call.
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

}  // namespace fastlayer
