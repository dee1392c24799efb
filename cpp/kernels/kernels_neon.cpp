// The kernels of the instruction set `neon`.
#define FL_ISA neon
#define FL_PAIRS neon_pair

#include "vec_neon.hpp"

#include "all.inc.hpp"
