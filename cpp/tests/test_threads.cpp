// Threads: flush-to-zero is the caller's in every worker and is left as it was, a forked child
// computes, and a call from inside a team does not start another.
#include "../core/threads.hpp"

#include <sys/wait.h>

#include <atomic>
#include <limits>

#include "../core/elementwise.hpp"
#include "check.hpp"
#include "tests.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
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

void check_nesting() {
  if (!has_openmp()) return;
  set_num_threads(2);
  std::atomic<int> inner{0};
  parallel(2, [&](int) { inner += usable_threads(8); });
  FL_CHECK(inner == 2, "a team inside a team");
}

}  // namespace

void test_threads() {
  check_flush_to_zero();
  check_fork();
  check_nesting();
}

}  // namespace fastlayer
