// The team of threads that helps a call, and the steps and waiting that a call's threads share.
//
// The threads are the team's own. OpenMP is asked for its number, limit and places, never for a
// thread: its regions end with a barrier, at which the caller would wait for one that sleeps or has
// lost its processor, and libgomp ends the process where a thread can't be had. Without OpenMP
// everything runs on the caller's thread, with the same bits.
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
// Below this it is 1, and no limit is asked for.
constexpr double kOneThreadBelow = 8e6;

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

// Of a step that threads share: four each for 64 threads.
constexpr ptrdiff_t kMaxPieces = 256;

// A step that everybody in a body goes through: its at most kMaxPieces pieces are claimed, and
// nobody leaves it before all of them are done. A helper that comes late finds nothing left of the
// steps that are over. Each thread prefers its own share: the weights behind a piece may still be
// in its core's cache from the last call.
class SharedStep {
 public:
  // Of at most `count` pieces.
  explicit SharedStep(ptrdiff_t count) {
    for (Line* line = lines_; count > 0; count -= kBits, ++line) {
      line->taken.store(0, std::memory_order_relaxed);
      line->done.store(0, std::memory_order_relaxed);
    }
  }

  template <typename Piece>
  void run(int count, int thread, int threads, Piece piece) {
    if (threads == 1) {  // small products notice the rest
      for (int i = 0; i < count; ++i) piece(i);
      return;
    }
    const int first = static_cast<int>(int64_t(count) * thread / threads);
    for (int j = 0; j < count; ++j) {
      const int i = first + j < count ? first + j : first + j - count;
      Line& line = lines_[i / kBits];
      const uint64_t bit = uint64_t(1) << i % kBits;
      if (line.taken.load(std::memory_order_relaxed) & bit) continue;
      if (line.taken.fetch_or(bit, std::memory_order_relaxed) & bit) continue;
      piece(i);
      line.done.fetch_add(1, std::memory_order_release);
    }
    for (int i = 0; i < count; i += kBits) {
      const Line& line = lines_[i / kBits];
      const int pieces = count - i < kBits ? count - i : kBits;
      wait_until([&] { return line.done.load(std::memory_order_acquire) >= pieces; });
    }
  }

 private:
  static constexpr int kBits = 64;
  // Threads whose shares are apart write to different ones.
  struct alignas(64) Line {
    std::atomic<uint64_t> taken;
    std::atomic<int> done;
  };
  Line lines_[kMaxPieces / kBits];
};

}  // namespace fastlayer
