// The kernels of the instruction set `avx512`.
#define FL_ISA avx512
#define FL_PAIR avx512_pair
#define FL_QUAD avx512_quad

#include "vec_avx512.hpp"

#include "all.inc.hpp"
