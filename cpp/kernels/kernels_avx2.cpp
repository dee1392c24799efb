// The kernels of the instruction set `avx2`.
#define FL_ISA avx2
#define FL_PAIRS avx2_pair

#include "vec_avx2.hpp"

#include "all.inc.hpp"
