// Activations of the instruction set `avx2`, four vectors at a time.
#define FL_HALF avx2
#define FL_ISA avx2_pair

#include "vec_avx2.hpp"

#include "vec_pair.hpp"

#undef FL_HALF
#undef FL_ISA
#define FL_HALF avx2_pair
#define FL_ISA avx2_quad

#include "vec_pair.hpp"

#define FL_QUADS
#include "groups.inc.hpp"
