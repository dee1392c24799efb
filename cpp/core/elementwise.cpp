#include "elementwise.hpp"

#include <algorithm>
#include <atomic>

#include "convert.hpp"
#include "cpu.hpp"
#include "first_touch.hpp"
#include "plan.hpp"
#include "team.hpp"
#include "turns.hpp"
#include "workspace.hpp"

namespace fastlayer {
namespace {

// A piece of work that a thread claims: 16 Ki elements are 5 us and more, against 0.1 us for the
// claim.
constexpr ptrdiff_t kPiece = 16 * 1024;

// Results of the last cache's size and more go past it, made in L1 so many elements at a time: relu
// of 1e8 bytes takes 4.4 ms on a core of Zen 5, as long as a copy. With 4 Ki elements it took 11 on
// Zen 4, and with 1 Ki 7: the reading ahead stops while a piece is copied.
constexpr ptrdiff_t kStreamed = 1024;

// A direct array without gaps is one long row where a row function does not care for rows.
bool flat(const RowsView& v, ptrdiff_t size) {
  return (v.cols <= 1 || v.col_stride == size) && (v.rows <= 1 || v.strides[0] == v.cols * size);
}

// Rows that are taken together: whole lines of them, as softmax takes short ones.
template <typename T>
ptrdiff_t rows_in_piece(ptrdiff_t cols) {
  const ptrdiff_t rows = std::max<ptrdiff_t>(kPiece / cols, 1);
  return rows < kLine<T> ? rows : rows / kLine<T> * kLine<T>;
}

// Larger than the caches.
bool is_far(const RowsView& v, ptrdiff_t size) {
  return static_cast<size_t>(v.rows * v.cols * size) >= caches().l3;
}

// Calls block(x, ldx, y, ldy, rows, n) for groups of rows, or of pieces of rows where `splittable`.
template <typename T, typename Block>
void for_each_block(RowsView x, RowsView y, bool splittable, bool streamable, Block block) {
  constexpr ptrdiff_t size = sizeof(T);
  ptrdiff_t elements = x.rows * x.cols;
  if (elements == 0) return;
  const bool direct = x.direct<T>() && y.direct<T>();
  const bool whole_y = direct && flat(y, size);
  const bool one_row = splittable && whole_y && flat(x, size);
  const bool streamed = streamable && whole_y && kernels<T>().stream && x.data != y.data &&
                        is_far(x, size) && (one_row || x.cols <= kPiece);
  if (one_row && streamed) {
    // Pieces begin at whole lines: the two ends of a piece that does not would be read from memory.
    const ptrdiff_t before =
        static_cast<ptrdiff_t>(-reinterpret_cast<uintptr_t>(y.data) % kLineBytes / sizeof(T));
    block(reinterpret_cast<const T*>(x.data), before, reinterpret_cast<T*>(y.data), before, 1,
          before);
    x.data += before * size;
    y.data += before * size;
    elements -= before;
  }
  if (one_row) {
    const ptrdiff_t flat_row = streamed ? kStreamed : kPiece;
    for (RowsView* v : {&x, &y}) {
      v->rows = (elements + flat_row - 1) / flat_row;
      v->cols = flat_row;
      v->strides[0] = flat_row * size;
    }
  }
  const int threads = threads_for(elementwise_picoseconds(elements));
  const ptrdiff_t rows = rows_in_piece<T>(x.cols);
  const ptrdiff_t pieces = (x.rows + rows - 1) / rows;
  const bool in_place = direct && !streamed;
  T* const scratch =
      in_place
          ? nullptr
          : static_cast<T*>(workspace(static_cast<size_t>(threads * rows * x.cols) * sizeof(T)));
  if (!direct) touch_in_turns(y, threads);
  std::atomic<ptrdiff_t> next{0};
  parallel_in_turns(threads, [&](int thread, Turn& turn) {
    T* const own = in_place ? nullptr : scratch + thread * rows * x.cols;
    while (!turn.over()) {
      const ptrdiff_t first = next.fetch_add(1, std::memory_order_relaxed) * rows;
      if (first >= pieces * rows) break;
      const ptrdiff_t count = std::min(rows, x.rows - first);
      if (!direct) load_rows(x, first, count, own, x.cols);
      if (direct) {
        const ptrdiff_t ldy = y.strides[0] / size;
        const ptrdiff_t together = streamed ? std::max<ptrdiff_t>(kStreamed / x.cols, 1) : count;
        for (ptrdiff_t r = 0; r < count; r += together) {
          const ptrdiff_t some = std::min(together, count - r);
          const ptrdiff_t n = std::min(x.cols, elements - (first + r) * x.cols);  // the last: rest
          T* const to = reinterpret_cast<T*>(y.row(first + r));
          block(reinterpret_cast<const T*>(x.row(first + r)), x.strides[0] / size,
                streamed ? own : to, streamed ? n : ldy, some, n);
          if (streamed) kernels<T>().stream(own, to, some * n);
        }
      } else {
        block(own, x.cols, own, x.cols, count, x.cols);
      }
      if (!direct) store_rows(own, x.cols, y, first, count);
    }
    if (streamed) kernels<T>().end_stream();
  });
}

// Calls row(x, y, n) for every row.
template <typename T, typename Row>
void for_each_row(const RowsView& x, const RowsView& y, bool splittable, Row row) {
  for_each_block<T>(
      x, y, splittable, true,
      [&](const T* from, ptrdiff_t ldx, T* to, ptrdiff_t ldy, ptrdiff_t rows, ptrdiff_t n) {
        for (ptrdiff_t i = 0; i < rows; ++i) row(from + i * ldx, to + i * ldy, n);
      });
}

}  // namespace

double elementwise_picoseconds(ptrdiff_t elements) {
  Work work{};
  work.other_per_row = 1;
  work.element = sizeof(float);
  return estimate(elements, work);
}

template <typename T>
void activate(const ActivationArgs<T>& act, const RowsView& x, const RowsView& y) {
  const Kernels<T>& kern = kernels<T>();
  // A single piece of work: there is nothing to cut up, and a short call notices.
  const ptrdiff_t elements = x.rows * x.cols;
  if (elements <= kPiece && x.direct<T>() && y.direct<T>() && flat(x, sizeof(T)) &&
      flat(y, sizeof(T))) {
    kern.activation(act, reinterpret_cast<const T*>(x.data), reinterpret_cast<T*>(y.data),
                    elements);
    return;
  }
  for_each_row<T>(x, y, true,
                  [&](const T* from, T* to, ptrdiff_t n) { kern.activation(act, from, to, n); });
}

template <typename T>
void softmax_rows(const RowsView& x, const RowsView& y, bool log) {
  const Kernels<T>& kern = kernels<T>();
  const auto f = log ? kern.log_softmax : kern.softmax;
  // Storing past the caches does not overlap with computing; fetching the lines first does.
  const bool fetched = x.cols <= kFetchedRow;
  const bool far = fetched && is_far(x, sizeof(T));
  for_each_block<T>(x, y, false, !fetched,
                    [&](const T* from, ptrdiff_t ldx, T* to, ptrdiff_t ldy, ptrdiff_t rows,
                        ptrdiff_t n) { f(from, ldx, to, ldy, rows, n, far); });
}

template <typename T>
void prelu_rows(const RowsView& x, const T* slope, const RowsView& y) {
  const Kernels<T>& kern = kernels<T>();
  for_each_row<T>(x, y, false,
                  [&](const T* from, T* to, ptrdiff_t n) { kern.prelu(from, slope, to, n); });
}

template <typename T>
void add_rows(const RowsView& x, const T* bias, const RowsView& y) {
  const Kernels<T>& kern = kernels<T>();
  for_each_row<T>(x, y, false,
                  [&](const T* from, T* to, ptrdiff_t n) { kern.add(from, bias, to, n); });
}

template void activate<float>(const ActivationArgs<float>&, const RowsView&, const RowsView&);
template void activate<double>(const ActivationArgs<double>&, const RowsView&, const RowsView&);
template void softmax_rows<float>(const RowsView&, const RowsView&, bool);
template void softmax_rows<double>(const RowsView&, const RowsView&, bool);
template void prelu_rows<float>(const RowsView&, const float*, const RowsView&);
template void prelu_rows<double>(const RowsView&, const double*, const RowsView&);
template void add_rows<float>(const RowsView&, const float*, const RowsView&);
template void add_rows<double>(const RowsView&, const double*, const RowsView&);

}  // namespace fastlayer
