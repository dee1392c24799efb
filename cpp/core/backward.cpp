#include "backward.hpp"

#include <algorithm>
#include <atomic>

#include "convert.hpp"
#include "cpu.hpp"
#include "elementwise.hpp"
#include "plan.hpp"
#include "turns.hpp"
#include "workspace.hpp"

namespace fastlayer {
namespace {

// Elements that a thread claims at a time, as in elementwise.cpp.
constexpr ptrdiff_t kPiece = 16 * 1024;

// Whether all elements are evenly apart, so that rows may be of any length.
bool evenly(const RowsView& v) {
  return v.rows == 1 || (v.leading == 1 && v.strides[0] == v.cols * v.col_stride);
}

// Elements from `first` on as `rows` rows of `cols`.
RowsView cut(RowsView v, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t cols) {
  v.data += first * v.col_stride;
  v.rows = v.shape[0] = rows;
  v.cols = cols;
  v.leading = 1;
  v.strides[0] = cols * v.col_stride;
  return v;
}

template <typename T>
void backward_of_row(const ActivationArgs<T>& act, const T* da, const T* z, T* dz, T* p,
                     ptrdiff_t n) {
  const Kernels<T>& kern = kernels<T>();
  if (!is_row_wise(act.kind)) return kern.activation_backward(act, da, z, dz, n);
  kern.softmax(z, n, p, n, 1, n, false);
  const bool log = act.kind == Activation::kLogSoftmax;
  (log ? kern.log_softmax_backward : kern.softmax_backward)(p, da, dz, n);
}

template <typename T>
void backward_of_rows(const ActivationArgs<T>& act, const RowsView& da, const RowsView& z,
                      const RowsView& dz) {
  const ptrdiff_t cols = z.cols;
  if (z.rows == 0 || cols == 0) return;
  const bool by_rows = is_row_wise(act.kind);
  const bool direct = da.direct<T>() && z.direct<T>() && dz.direct<T>();
  const ptrdiff_t rows = std::max<ptrdiff_t>(kPiece / cols, 1);
  const ptrdiff_t scratch_rows = (direct ? 0 : 2 * rows) + (by_rows ? 1 : 0);
  const int threads = threads_for(backward_picoseconds(z.rows * cols));
  T* const scratch =
      static_cast<T*>(workspace(static_cast<size_t>(threads * scratch_rows * cols) * sizeof(T)));
  std::atomic<ptrdiff_t> next{0};
  parallel_in_turns(threads, [&](int thread, Turn& turn) {
    T* const p = scratch + thread * scratch_rows * cols;
    T* const own_da = p + (by_rows ? cols : 0);
    T* const own_z = own_da + rows * cols;
    while (!turn.over()) {
      const ptrdiff_t first = next.fetch_add(rows, std::memory_order_relaxed);
      if (first >= z.rows) break;
      const ptrdiff_t count = std::min(rows, z.rows - first);
      if (direct) {
        for (ptrdiff_t i = first; i < first + count; ++i) {
          backward_of_row(act, reinterpret_cast<const T*>(da.row(i)),
                          reinterpret_cast<const T*>(z.row(i)), reinterpret_cast<T*>(dz.row(i)), p,
                          cols);
        }
      } else {
        load_rows(da, first, count, own_da, cols);
        load_rows(z, first, count, own_z, cols);
        for (ptrdiff_t at = 0; at < count * cols; at += cols) {
          backward_of_row(act, own_da + at, own_z + at, own_da + at, p, cols);
        }
        store_rows(own_da, cols, dz, first, count);
      }
    }
  });
}

}  // namespace

double backward_picoseconds(ptrdiff_t elements) { return 2 * elementwise_picoseconds(elements); }

template <typename T>
void activate_backward(const ActivationArgs<T>& act, const RowsView& da, const RowsView& z,
                       const RowsView& dz) {
  if (is_row_wise(act.kind) || !evenly(da) || !evenly(z) || !evenly(dz)) {
    return backward_of_rows(act, da, z, dz);
  }
  const ptrdiff_t elements = z.rows * z.cols, pieces = elements / kPiece, whole = pieces * kPiece;
  backward_of_rows(act, cut(da, 0, pieces, kPiece), cut(z, 0, pieces, kPiece),
                   cut(dz, 0, pieces, kPiece));
  const ptrdiff_t rest = elements - whole;
  backward_of_rows(act, cut(da, whole, 1, rest), cut(z, whole, 1, rest), cut(dz, whole, 1, rest));
}

template void activate_backward<float>(const ActivationArgs<float>&, const RowsView&,
                                       const RowsView&, const RowsView&);
template void activate_backward<double>(const ActivationArgs<double>&, const RowsView&,
                                        const RowsView&, const RowsView&);

}  // namespace fastlayer
