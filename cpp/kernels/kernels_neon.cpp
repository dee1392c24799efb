// The kernels of the instruction set `neon`.
#include "vec_neon.hpp"

#define FL_ISA neon
#include "all.inc.hpp"
