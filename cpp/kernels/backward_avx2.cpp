// The backward pass of activations on the instruction set `avx2`, two vectors at a time.
#define FL_HALF avx2
#define FL_ISA avx2_pair

#include "vec_avx2.hpp"

#include "vec_pair.hpp"

#include "backward.inc.hpp"
