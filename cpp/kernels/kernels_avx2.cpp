// The kernels of the instruction set `avx2`.
#include "vec_avx2.hpp"

#define FL_ISA avx2
#include "all.inc.hpp"
