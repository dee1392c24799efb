// Plans cover every row once, and use threads only where there is work for them; what is decided
// for products is what the table says.
#include "../core/plan.hpp"

#include <algorithm>

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

// Tiles of AVX-512, float32.
Product product(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n) {
  Product p{};
  p.m = m;
  p.n = n;
  p.k = k;
  p.element = 4;
  p.tile_rows = p.max_lane_vectors = 14;
  p.fits_lanes = n >= 8 && k >= 4;
  return p;
}

Product turned(Product p) {
  p.fits_lanes = false;
  p.lines_in_w = true;
  return p;
}

Product colliding(Product p, int tile_rows = 14) {
  p = turned(p);
  p.lines_collide = true;
  p.tile_rows = tile_rows;
  return p;
}
Product accumulated(Product p) {
  p.accumulate = true;
  return p;
}

Caches with_l2(size_t kib) {
  Caches caches = kDesktop;
  caches.l2 = kib * 1024;
  return caches;
}

// What is decided for typical products, in words.
void check_product_plans() {
  const struct {
    const char* what;
    Product product;
    Caches caches;
    int threads;
    const char* plan;
  } cases[] = {
      {"one sample", product(1, 784, 128), kDesktop, 1, "1 thread, lanes, 1 piece"},
      {"one sample, (k, n)", turned(product(1, 784, 128)), kDesktop, 1,
       "1 thread, in place, 1 piece"},
      {"one sample, two threads", turned(product(1, 4096, 4096)), kDesktop, 2,
       "2 threads, in place, 2 pieces"},
      {"one sample, accumulated", accumulated(product(1, 784, 128)), kDesktop, 1,
       "1 thread, packed, 1 block of 1 row, 1 stripe of 8 panels, 1 part of 784 products"},
      {"few rows", product(14, 784, 512), kDesktop, 2, "2 threads, lanes, 4 pieces"},
      {"few rows, (k, n)", turned(product(14, 784, 512)), kDesktop, 2,
       "2 threads, in place, 2 pieces"},
      {"few rows, (k, n), bad stride", colliding(product(14, 784, 512)), kDesktop, 2,
       "2 threads, in place, 2 pieces"},
      {"few rows, (k, n), bad stride, small tile", colliding(product(7, 784, 512), 6), kDesktop, 1,
       "1 thread, packed, 1 block of 7 rows, 4 stripes of 8 panels, 1 part of 784 products"},
      {"one tile, (k, n), bad stride, small tile", colliding(product(6, 784, 512), 6), kDesktop, 1,
       "1 thread, in place, 1 piece"},
      {"a row more", product(15, 784, 512), kDesktop, 2,
       "2 threads, packed, 1 block of 15 rows, 4 stripes of 8 panels, 1 part of 784 products"},
      {"a row more, (k, n)", turned(product(15, 784, 512)), kDesktop, 2,
       "2 threads, packed, 1 block of 15 rows, 4 stripes of 8 panels, 1 part of 784 products"},
      {"a block of rows", product(112, 1024, 1024), kDesktop, 2,
       "2 threads, packed, 1 block of 112 rows, 10 stripes of 7 panels, 1 part of 1024 products"},
      {"a block of rows, L2 of 512 KB", product(112, 1024, 1024), with_l2(512), 2,
       "2 threads, packed, 1 block of 112 rows, 22 stripes of 3 panels, 1 part of 1024 products"},
      {"a block of rows, L2 of 256 KB", product(112, 1024, 1024), with_l2(256), 2,
       "2 threads, packed, 1 block of 112 rows, 64 stripes of 1 panel, 1 part of 1024 products"},
      {"a block of rows, L2 of 256 KB, long k", product(112, 8192, 1024), with_l2(256), 2,
       "2 threads, packed, 1 block of 112 rows, 64 stripes of 1 panel, 8 parts of 1024 products"},
      {"rows of two blocks", product(113, 1024, 1024), kDesktop, 1,
       "1 thread, packed, 2 blocks of 57 rows, 1 stripe of 64 panels fetched ahead, 1 part of 1024 "
       "products"},
      {"many rows", product(4096, 1024, 1024), kDesktop, 2,
       "2 threads, packed, 37 blocks of 111 rows, 1 stripe of 64 panels fetched ahead, 1 part of "
       "1024 "
       "products"},
      {"many rows, L2 of 256 KB", product(4096, 1024, 1024), with_l2(256), 2,
       "2 threads, packed, 37 blocks of 111 rows, 1 stripe of 64 panels fetched ahead, 1 part of "
       "1024 "
       "products"},
      {"many rows, 16 threads", product(4096, 1024, 1024), kDesktop, 16,
       "16 threads, packed, 48 blocks of 86 rows, 1 stripe of 64 panels fetched ahead, 1 part of "
       "1024 "
       "products"},
      {"few blocks", product(256, 768, 3072), kDesktop, 1,
       "1 thread, packed, 3 blocks of 86 rows, 2 stripes of 96 panels fetched ahead, 1 part of 768 "
       "products"},
      {"a large square", product(4096, 4096, 4096), kDesktop, 1,
       "1 thread, packed, 37 blocks of 111 rows, 4 stripes of 64 panels fetched ahead, 1 part of "
       "4096 products"},
      {"long k", product(1024, 10000, 1024), kDesktop, 2,
       "2 threads, packed, 10 blocks of 103 rows, 3 stripes of 22 panels fetched ahead, 2 parts of "
       "5120 products"},
      {"long k, a block of rows", product(100, 10000, 64), kDesktop, 2,
       "2 threads, packed, 1 block of 100 rows, 2 stripes of 2 panels, 10 parts of 1024 products"},
      {"wide", product(1024, 1024, 50000), kDesktop, 2,
       "2 threads, packed, 10 blocks of 103 rows, 20 stripes of 157 panels fetched ahead, 1 part "
       "of "
       "1024 products"},
      {"a wide block of rows", turned(product(64, 64, 65536)), kDesktop, 1,
       "1 thread, packed, 1 block of 64 rows, 133 stripes of 31 panels, 1 part of 64 products"},
      {"few columns", product(4096, 1024, 10), kDesktop, 2,
       "2 threads, packed, 37 blocks of 111 rows, 1 stripe of 1 panel, 1 part of 1024 products"},
      {"few columns of few rows", product(14, 1024, 3), kDesktop, 2,
       "1 thread, packed, 1 block of 14 rows, 1 stripe of 1 panel, 1 part of 1024 products"},
  };
  for (const auto& c : cases) {
    const std::string plan = describe(make_product_plan(c.product, c.caches, c.threads));
    FL_CHECK(plan == c.plan, "%s: %s", c.what, plan.c_str());
  }
}

// Blocks of rows follow the caches of a core, whatever the last one says of itself: far weights,
// from beyond L2, are fetched ahead, and so much of x is used at a time that it stays in L2.
void check_processors() {
  const struct {
    const char* what;
    Caches caches;
    int tile_rows;
    ptrdiff_t small, digits, wide;  // rows in a block; 0: weights are near, 28 or more
  } processors[] = {
      {"Skylake-SP", {32 << 10, 1 << 20, 25344 << 10}, 14, 448, 126, 126},
      {"Ice Lake", {48 << 10, 1280 << 10, 36 << 20}, 14, 672, 126, 126},
      {"Zen 3", {32 << 10, 512 << 10, 32 << 20}, 6, 450, 126, 126},
      {"Zen 3, virtual", {32 << 10, 512 << 10, 9 << 20}, 6, 450, 126, 126},
      {"Zen 4", {32 << 10, 1 << 20, 32 << 20}, 14, 448, 126, 126},
      {"laptop", {32 << 10, 256 << 10, 6 << 20}, 6, 450, 60, 60},
      {"Graviton2", {64 << 10, 1 << 20, 32 << 20}, 6, 906, 126, 126},
  };
  for (const auto& p : processors) {
    const auto rows = [&](ptrdiff_t k, ptrdiff_t n, size_t element, bool far) {
      Work work = dense_work(k, n);
      work.weight_bytes *= element / 4;
      work.scratch_row_bytes *= element / 4;
      work.element = element;
      work.tile_rows = p.tile_rows;
      const Plan plan = make_plan(100000, work, p.caches, 1);
      FL_CHECK(plan.far == far, "%s %td-%td: %s", p.what, k, n, describe(plan).c_str());
      const ptrdiff_t x = kSumBlock * plan.row_block * static_cast<ptrdiff_t>(element);
      FL_CHECK(!far || x <= static_cast<ptrdiff_t>(p.caches.l2) / 4, "%s: %td bytes of x", p.what,
               x);
      FL_CHECK(plan.x_bytes == static_cast<ptrdiff_t>(p.caches.l2) / 4, "%s", p.what);
      return plan.row_block;
    };
    FL_CHECK(rows(32, 9, 4, false) == p.small, "%s: %td", p.what, rows(32, 9, 4, false));
    FL_CHECK(rows(784, 1024, 4, true) == p.digits, "%s: %td", p.what, rows(784, 1024, 4, true));
    FL_CHECK(rows(4096, 4096, 4, true) == p.wide, "%s: %td", p.what, rows(4096, 4096, 4, true));
    rows(4096, 4096, 8, true);
  }
}

// Parts of k are whole blocks of the sum, columns and rows are all covered, and no thread is
// without a piece.
void check_products_are_covered() {
  for (ptrdiff_t m = 1; m < 5000; m = m * 5 / 4 + 1) {
    for (ptrdiff_t n : {1, 8, 17, 100, 4096}) {
      for (ptrdiff_t k : {0, 1, 255, 1024, 1537, 20000}) {
        for (int threads : {1, 2, 3, 16}) {
          for (const Product& p : {product(m, k, n), turned(product(m, k, n))}) {
            const ProductPlan plan = make_product_plan(p, kDesktop, threads);
            const std::string text = describe(plan);
            FL_CHECK(plan.threads >= 1 && plan.threads <= threads, "%s", text.c_str());
            if (plan.pieces > 0) {
              FL_CHECK(plan.pieces >= plan.threads && plan.pieces <= plan.panels, "%s",
                       text.c_str());
              continue;
            }
            FL_CHECK(plan.row_block * plan.blocks >= m && plan.row_block * (plan.blocks - 1) < m,
                     "m=%td: %s", m, text.c_str());
            FL_CHECK(plan.stripe * plan.stripes >= plan.panels &&
                         plan.stripe * (plan.stripes - 1) < plan.panels,
                     "n=%td: %s", n, text.c_str());
            ptrdiff_t end = 0;
            for (ptrdiff_t i = 0; i < plan.parts; ++i) {
              const Part part = plan.part(i);
              FL_CHECK(part.begin == end && part.begin % kSumBlock == 0 && part.count <= plan.depth,
                       "k=%td: %s", k, text.c_str());
              end += part.count;
            }
            FL_CHECK(end == k, "k=%td: %s", k, text.c_str());
          }
        }
      }
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
  check_processors();
  check_product_plans();
  check_products_are_covered();
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
        FL_CHECK(threads > 1 || p.blocks == 1 || p.row_block % work.tile_rows == 0,
                 "width=%td m=%td block=%td: no whole tiles", width, m, p.row_block);
      }
    }
  }
  FL_CHECK(make_plan(4096, dense_work(512, 512), kDesktop, 2).threads == 2, "large work, all");
  FL_CHECK(make_plan(1, dense_work(4096, 4096), kDesktop, 2).split_columns, "one row, columns");
  FL_CHECK(!make_plan(4096, dense_work(512, 512), kDesktop, 2).split_columns, "many rows, rows");
  FL_CHECK(estimate(1, dense_work(64, 64)) < 1e6, "4096 weights take less than a microsecond");
  FL_CHECK(estimate(1, dense_work(4096, 4096)) > 3e8, "one row waits for 64 MiB of weights");
  FL_CHECK(estimate(4096, dense_work(512, 512)) > 1e9, "two GFLOP take more than a millisecond");
  Work narrow = dense_work(512, 512);
  narrow.vectors = 2;
  FL_CHECK(estimate(4096, narrow) == 2 * estimate(4096, dense_work(512, 512)), "twice with AVX2");
  narrow = dense_work(4096, 4096);
  narrow.vectors = 2;
  FL_CHECK(estimate(1, narrow) == estimate(1, dense_work(4096, 4096)), "memory is no slower");
}

}  // namespace fastlayer
