// Activations of the instruction set `avx512`, four vectors at a time.
#define FL_HALF avx512
#define FL_ISA avx512_pair

#include "vec_avx512.hpp"

#include "vec_pair.hpp"

#undef FL_HALF
#undef FL_ISA
#define FL_HALF avx512_pair
#define FL_ISA avx512_quad

#include "vec_pair.hpp"

#define FL_QUADS
#include "groups.inc.hpp"
