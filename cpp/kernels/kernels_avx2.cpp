// The kernels of the instruction set `avx2`.
#define FL_ISA avx2
#define FL_PAIR avx2_pair
#define FL_QUAD avx2_quad

#include "vec_avx2.hpp"

#include "all.inc.hpp"
