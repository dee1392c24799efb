// The kernels of the instruction set `neon`.
#define FL_ISA neon
#define FL_PAIR neon_pair
#define FL_QUAD neon_quad

#include "vec_neon.hpp"

#include "all.inc.hpp"
