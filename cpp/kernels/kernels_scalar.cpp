// The kernels of the instruction set `scalar`.
#include "vec_scalar.hpp"

#define FL_ISA scalar
#include "all.inc.hpp"
