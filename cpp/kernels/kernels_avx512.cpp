// The kernels of the instruction set `avx512`.
#include "vec_avx512.hpp"

#define FL_ISA avx512
#include "all.inc.hpp"
