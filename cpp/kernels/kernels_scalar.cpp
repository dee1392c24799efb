// The kernels of the instruction set `scalar`.
#define FL_ISA scalar

#include "vec_scalar.hpp"

#include "all.inc.hpp"
