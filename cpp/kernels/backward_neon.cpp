// The backward pass of activations on the instruction set `neon`, two vectors at a time.
#define FL_HALF neon
#define FL_ISA neon_pair

#include "vec_neon.hpp"

#include "vec_pair.hpp"

#include "backward.inc.hpp"
