// Threads: how many a call may use, and the only parallel region. All OpenMP of the project is in
// threads.cpp; without OpenMP everything runs on the caller's thread, with the same bits.
#pragma once

#include <cstdint>
#include <type_traits>

namespace fastlayer {

// The process-wide number, at least 1.
void set_num_threads(int n);
// What a call from this thread may use: the process-wide number, capped by this thread's limit.
int num_threads();
// A cap for calls from this thread, 0 for none. Returns the previous one.
int set_thread_limit(int n);

bool has_openmp();

// Runs body(context, i) for i in [0, threads) at once, on one team. body must not throw.
// In a process forked from one that has run a team, or inside another team, it runs them in turn,
// which bodies that meet at a barrier cannot take: ask usable_threads() first.
void run_parallel(int threads, void (*body)(void* context, int thread), void* context);
// All threads of the team wait for each other; call it from a body only.
void barrier();
// min(wanted, num_threads()), and 1 where a team cannot be started.
int usable_threads(int wanted);

// Teams of more than one thread started so far, and calls that ran on the caller alone.
uint64_t parallel_regions();

// run_parallel with a lambda (thread index) -> void.
template <typename Body>
void parallel(int threads, Body&& body) {
  using B = typename std::remove_reference<Body>::type;
  run_parallel(
      threads, [](void* context, int thread) { (*static_cast<B*>(context))(thread); }, &body);
}

}  // namespace fastlayer
