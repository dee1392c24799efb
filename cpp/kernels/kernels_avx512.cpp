// The kernels of the instruction set `avx512`.
#define FL_ISA avx512
#define FL_PAIRS avx512_pair

#include "vec_avx512.hpp"

#include "all.inc.hpp"
