// Activations of the instruction set `neon`, four vectors at a time.
#define FL_HALF neon
#define FL_ISA neon_pair

#include "vec_neon.hpp"

#include "vec_pair.hpp"

#undef FL_HALF
#undef FL_ISA
#define FL_HALF neon_pair
#define FL_ISA neon_quad

#include "vec_pair.hpp"

#define FL_QUADS
#include "groups.inc.hpp"
