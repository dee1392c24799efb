// How many threads a call may use, and what limits them: settings, OpenMP, the system. team.hpp has
// the threads themselves.
#pragma once

#include <cstdint>

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

// The team is smaller than a call wanted because the system starts no more threads.
struct Missing {
  int wanted, available;  // the caller counted
};
// Whether there is such news; taking it leaves none: {0, 0}.
bool missing_threads();
Missing take_missing_threads();

// For the team: how many of `wanted` more threads may be started. Where address space is limited,
// their stacks take half of what is left: the rest is for the program, which may end without it.
int affordable_threads(int wanted);
// The system had `available` threads where `wanted` were asked for.
void report_missing_threads(int wanted, int available);
// How often set_num_threads has been called; missing threads are tried again after it.
uint64_t thread_settings();

}  // namespace fastlayer
