#include "elementwise.hpp"

#include <algorithm>
#include <atomic>

#include "convert.hpp"
#include "cpu.hpp"
#include "plan.hpp"
#include "turns.hpp"
#include "workspace.hpp"

namespace fastlayer {
namespace {

// A piece of work that a thread claims: 16 Ki elements are 5 us and more, against 0.1 us for the
// claim.
constexpr ptrdiff_t kPiece = 16 * 1024;

// An array without gaps is one long row where a row function does not care for rows.
bool flat(const RowsView& v, ptrdiff_t size) {
  return v.leading == 1 && (v.cols <= 1 || v.col_stride == size) &&
         (v.rows <= 1 || v.strides[0] == v.cols * size);
}

// Calls block(x, ldx, y, ldy, rows, n) for groups of rows, or of pieces of rows where `splittable`.
template <typename T, typename Block>
void for_each_block(RowsView x, RowsView y, bool splittable, Block block) {
  constexpr ptrdiff_t size = sizeof(T);
  const ptrdiff_t elements = x.rows * x.cols;
  if (elements == 0) return;
  const bool direct = x.direct<T>() && y.direct<T>();
  if (splittable && direct && flat(x, size) && flat(y, size)) {
    for (RowsView* v : {&x, &y}) {
      v->rows = (elements + kPiece - 1) / kPiece;
      v->cols = kPiece;
      v->strides[0] = kPiece * size;
    }
  }
  const int threads = threads_for(elementwise_picoseconds(elements));
  const ptrdiff_t rows = std::max<ptrdiff_t>(kPiece / x.cols, 1);  // in a piece of work
  const ptrdiff_t pieces = (x.rows + rows - 1) / rows;
  T* const scratch =
      direct ? nullptr
             : static_cast<T*>(workspace(static_cast<size_t>(threads * rows * x.cols) * sizeof(T)));
  std::atomic<ptrdiff_t> next{0};
  parallel_in_turns(threads, [&](int thread, Turn& turn) {
    T* const own = direct ? nullptr : scratch + thread * rows * x.cols;
    while (!turn.over()) {
      const ptrdiff_t first = next.fetch_add(1, std::memory_order_relaxed) * rows;
      if (first >= pieces * rows) break;
      const ptrdiff_t count = std::min(rows, x.rows - first);
      if (!direct) load_rows(x, first, count, own, x.cols);
      if (direct) {
        const ptrdiff_t n = std::min(x.cols, elements - first * x.cols);  // of a last piece
        block(reinterpret_cast<const T*>(x.row(first)), x.strides[0] / size,
              reinterpret_cast<T*>(y.row(first)), y.strides[0] / size, count, n);
      } else {
        block(own, x.cols, own, x.cols, count, x.cols);
      }
      if (!direct) store_rows(own, x.cols, y, first, count);
    }
  });
}

// Calls row(x, y, n) for every row.
template <typename T, typename Row>
void for_each_row(const RowsView& x, const RowsView& y, bool splittable, Row row) {
  for_each_block<T>(
      x, y, splittable,
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
  for_each_row<T>(x, y, true,
                  [&](const T* from, T* to, ptrdiff_t n) { kern.activation(act, from, to, n); });
}

template <typename T>
void softmax_rows(const RowsView& x, const RowsView& y, bool log) {
  const Kernels<T>& kern = kernels<T>();
  for_each_block<T>(x, y, false, log ? kern.log_softmax : kern.softmax);
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
