// The backward pass of activations on the instruction set `avx512`, two vectors at a time.
#define FL_HALF avx512
#define FL_ISA avx512_pair

#include "vec_avx512.hpp"

#include "vec_pair.hpp"

#include "backward.inc.hpp"
