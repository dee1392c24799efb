// Long work in turns: between two of them the caller may ask whether to go on, so that Ctrl-C does
// not wait for the end of a call. Where nobody asks, which is in all short calls, turns never end.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "clock.hpp"
#include "team.hpp"

namespace fastlayer {

// Asks on behalf of the calls of one thread. stop() runs outside of every region and may do
// anything, calls of this package included; once it has said yes, the work that is left is not
// done.
struct Lookout {
  bool (*stop)(void* context);
  void* context;
  int64_t due;  // when to ask next
  bool stopped;
};

// A turn takes so long, and then the time of the pieces that have been begun: a block of rows, or a
// few milliseconds of a product.
constexpr int64_t kTurnNs = 40'000'000;
// The longest that a piece should take. Pieces are planned by estimates, which a slow or busy
// processor exceeds; where a piece was longer the next ones are made shorter.
constexpr int64_t kPieceNs = kTurnNs / 2;

inline thread_local Lookout* t_lookout = nullptr;

// This thread's, or null.
inline Lookout* lookout() { return t_lookout; }
// Returns the one before.
inline Lookout* set_lookout(Lookout* lookout) {
  Lookout* const before = t_lookout;
  t_lookout = lookout;
  return before;
}

// Asks now; false where the call is to end.
bool look_up();
// Asks if it is time to.
inline bool go_on() {
  const Lookout* const asked = lookout();
  return asked == nullptr || now_ns() < asked->due || look_up();
}

// Units of work, such as rows, that threads claim some at a time, fewer of them where those before
// took longer than kPieceNs.
class Claims {
 public:
  // At first `some` at a time, and never fewer than `least`.
  Claims(ptrdiff_t total, ptrdiff_t some, ptrdiff_t least)
      : total_(total), least_(least), some_(some) {}

  struct Range {
    ptrdiff_t begin, count;  // no count: none are left
  };
  Range claim() {
    const ptrdiff_t some = some_.load(std::memory_order_relaxed);
    const ptrdiff_t begin = next_.fetch_add(some, std::memory_order_relaxed);
    return {begin, begin < total_ ? (total_ - begin < some ? total_ - begin : some) : 0};
  }
  void took(ptrdiff_t count, int64_t ns) {
    if (ns <= kPieceNs) return;
    const auto fitting =
        static_cast<ptrdiff_t>(static_cast<double>(count) * kPieceNs / static_cast<double>(ns));
    const ptrdiff_t fewer = fitting / least_ * least_ > least_ ? fitting / least_ * least_ : least_;
    if (fewer < some_.load(std::memory_order_relaxed)) {
      some_.store(fewer, std::memory_order_relaxed);
    }
  }

 private:
  const ptrdiff_t total_, least_;
  std::atomic<ptrdiff_t> next_{0}, some_;
};

class Turn {
 public:
  explicit Turn(const Lookout* asked) : due_(asked == nullptr ? kNever : asked->due) {}
  // Ask before each piece; everybody leaves once it is over.
  bool over() {
    if (due_ == kNever) return false;
    if (!over_.load(std::memory_order_relaxed)) {
      if (now_ns() < due_) return false;
      over_.store(true, std::memory_order_relaxed);
    }
    return true;
  }
  bool called_off() const { return over_.load(std::memory_order_relaxed); }

 private:
  static constexpr int64_t kNever = INT64_MAX;
  const int64_t due_;
  std::atomic<bool> over_{false};
};

// parallel() with a body (thread index, turn) that leaves when the turn is over and takes up the
// work where it was left at the next.
template <typename Body>
void parallel_in_turns(int threads, Body body) {
  const Lookout* const asked = lookout();
  for (;;) {
    Turn turn(asked);
    parallel(threads, [&](int thread) { body(thread, turn); });
    if (!turn.called_off() || !look_up()) return;
  }
}

// A step that everybody in a body goes through, of any number of pieces: they are claimed, and
// nobody leaves it before all of them are done or the turn is over.
struct alignas(64) Step {
  std::atomic<ptrdiff_t> next{0}, done{0};

  // False where the step is not done when the turn ends.
  template <typename Piece>
  bool run(ptrdiff_t count, Turn& turn, Piece piece) {
    for (ptrdiff_t i; !turn.over() && (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      piece(i);
      done.fetch_add(1, std::memory_order_release);
    }
    const auto all_done = [&] { return done.load(std::memory_order_acquire) >= count; };
    wait_until([&] { return all_done() || turn.called_off(); });
    return all_done();
  }
};

}  // namespace fastlayer
