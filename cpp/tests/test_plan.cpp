// Plans cover every row once, and use threads only where there is work for them.
#include "../core/plan.hpp"

#include <algorithm>

#include "../core/matmul.hpp"
#include "../core/team.hpp"
#include "../core/threads.hpp"
#include "check.hpp"
#include "tests.hpp"

#if defined(FASTLAYER_HAVE_AVX512)
#include "../core/cpu_x86.hpp"
#endif

namespace fastlayer {
namespace {

constexpr Caches kDesktop = {32 * 1024, 1024 * 1024, 32 * 1024 * 1024};

Work dense_work(ptrdiff_t k, ptrdiff_t n) {
  Work work{};
  work.macs_per_row = n * k;
  work.weight_bytes = static_cast<size_t>(n * (k + 1)) * 4;
  work.scratch_row_bytes = static_cast<size_t>(n) * 4;
  work.widest_panels = (n + 15) / 16;
  work.element = 4;
  work.tile_rows = 14;
  return work;
}

// Rows that the busiest of `threads` takes when blocks are claimed one after the other.
ptrdiff_t longest_share(const Plan& p, ptrdiff_t m) {
  const ptrdiff_t rounds = (p.blocks + p.threads - 1) / p.threads;
  return std::min(m, rounds * p.row_block);
}

// More threads never leave the slowest one with more to do, and two nearly halve it.
void check_shares(const Work& work, ptrdiff_t width) {
  for (ptrdiff_t m = 4; m < 5000; m = m * 5 / 4 + 1) {
    for (int threads : {2, 3, 4, 8, 16}) {
      const Plan p = make_plan(m, work, kDesktop, threads);
      if (p.split_columns) continue;
      const ptrdiff_t share = longest_share(p, m), ideal = (m + p.threads - 1) / p.threads;
      FL_CHECK(share <= ideal + ideal / 4 + 1, "width=%td m=%td threads=%d: %td rows for one",
               width, m, threads, share);
    }
  }
}

// Below twice the work that is worth a helper, a call stays on its own thread, team awake or not.
void check_small_calls_stay_alone() {
  const int before = num_threads();
  set_num_threads(16);
  for (int i = 0; i < 100; ++i) {
    FL_CHECK(threads_for(estimate(1, dense_work(64, 64))) == 1, "one sample, 64 x 64");
    FL_CHECK(threads_for(matmul_picoseconds(1, 128, 784, 4)) == 1, "one sample, plain 784 x 128");
    FL_CHECK(threads_for(matmul_picoseconds(64, 64, 64, 4)) == 1, "64 square");
  }
  set_num_threads(before);
}

#if defined(FASTLAYER_HAVE_AVX512) && defined(__linux__)
// GCC and Clang ask in ways of their own.
void check_features() {
  const X86Features has = x86_features();
  FL_CHECK(has.avx2 == (__builtin_cpu_supports("avx2") != 0), "avx2 %d", has.avx2);
  FL_CHECK(has.fma == (__builtin_cpu_supports("fma") != 0), "fma %d", has.fma);
  FL_CHECK(has.avx512f == (__builtin_cpu_supports("avx512f") != 0), "avx512f %d", has.avx512f);
  FL_CHECK(has.avx512vl == (__builtin_cpu_supports("avx512vl") != 0), "avx512vl %d", has.avx512vl);
  FL_CHECK(has.avx512bw == (__builtin_cpu_supports("avx512bw") != 0), "avx512bw %d", has.avx512bw);
  FL_CHECK(has.avx512dq == (__builtin_cpu_supports("avx512dq") != 0), "avx512dq %d", has.avx512dq);
}
#else
void check_features() {}
#endif

}  // namespace

void test_plan() {
  check_features();
  check_small_calls_stay_alone();
  for (ptrdiff_t width : {3, 10, 64, 512, 4096}) {
    const Work work = dense_work(width, width);
    check_shares(work, width);
    for (int threads : {1, 2, 3, 16}) {
      for (ptrdiff_t m = 1; m < 5000; m = m * 5 / 4 + 1) {
        const Plan p = make_plan(m, work, kDesktop, threads);
        FL_CHECK(p.threads >= 1 && p.threads <= threads, "width=%td m=%td", width, m);
        FL_CHECK(
            p.row_block >= 1 && p.row_block * p.blocks >= m && p.row_block * (p.blocks - 1) < m,
            "width=%td m=%td block=%td blocks=%td", width, m, p.row_block, p.blocks);
        FL_CHECK(!p.split_columns || p.blocks == 1, "width=%td m=%td", width, m);
        FL_CHECK(p.split_columns || p.threads <= p.blocks, "width=%td m=%td", width, m);
      }
    }
  }
  FL_CHECK(make_plan(4096, dense_work(512, 512), kDesktop, 2).threads == 2, "large work, all");
  FL_CHECK(make_plan(1, dense_work(4096, 4096), kDesktop, 2).split_columns, "one row, columns");
  FL_CHECK(!make_plan(4096, dense_work(512, 512), kDesktop, 2).split_columns, "many rows, rows");
  FL_CHECK(estimate(1, dense_work(64, 64)) < 1e6, "4096 weights take less than a microsecond");
  FL_CHECK(estimate(1, dense_work(4096, 4096)) > 3e8, "one row waits for 64 MiB of weights");
  FL_CHECK(estimate(4096, dense_work(512, 512)) > 1e9, "two GFLOP take more than a millisecond");
}

}  // namespace fastlayer
