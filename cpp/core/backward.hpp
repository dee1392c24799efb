// The backward pass of activations, on arrays of any strides and on several threads where the array
// is large.
#pragma once

#include "../kernels/table.hpp"
#include "types.hpp"

namespace fastlayer {

// dz = da f'(z), and of kinds over rows the product with their Jacobian. All have one shape; dz is
// da or z, or overlaps neither. da and z may have strides of 0.
template <typename T>
void activate_backward(const ActivationArgs<T>& act, const RowsView& da, const RowsView& z,
                       const RowsView& dz);

// Estimated time on one thread.
double backward_picoseconds(ptrdiff_t elements);

}  // namespace fastlayer
