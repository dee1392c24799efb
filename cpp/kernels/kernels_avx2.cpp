// The kernels of the instruction set `avx2`.
#define FL_ISA avx2

#include "vec_avx2.hpp"

#include "all.inc.hpp"
