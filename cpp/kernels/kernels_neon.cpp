// The kernels of the instruction set `neon`.
#define FL_ISA neon

#include "vec_neon.hpp"

#include "all.inc.hpp"
