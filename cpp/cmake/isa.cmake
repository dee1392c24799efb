# One object library for each instruction set that the compiler and the target have. Sets
# FASTLAYER_ISAS, their FASTLAYER_ISA_LIBRARIES, FASTLAYER_ISA_DEFINITIONS and FASTLAYER_ISA_FLAGS, and
# FASTLAYER_WARNINGS for everyone.
include(CheckCXXCompilerFlag)

# GCC and Clang, under Windows by the name of clang-cl, which takes most flags as /clang:FLAG.
set(clang_cl FALSE)
if(MSVC)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "fastlayer's kernels need Clang or GCC; with Visual Studio, install \"C++ "
      "Clang tools for Windows\" and pass -T ClangCL to CMake, or `pip install . -C "
      "cmake.args='-T ClangCL'`")
  endif()
  if(CMAKE_CXX_COMPILER_FRONTEND_VARIANT STREQUAL "MSVC")
    set(clang_cl TRUE)
  endif()
endif()

if(MINGW)
  message(WARNING "the fma of mingw-w64 (version 10) rounds twice: scalar kernels and processors "
    "without FMA give other bits than promised; use Clang with -T ClangCL")
endif()

set(FASTLAYER_WARNINGS -Wall -Wextra -Wshadow -Wpointer-arith)
if(FASTLAYER_WERROR)
  list(APPEND FASTLAYER_WARNINGS -Werror)
endif()
set(FASTLAYER_EXACT -ffp-contract=off)

# The numbers are the product: no contraction, no reassociation, the same in every kernel file. No LTO,
# which could merge code of different instruction sets. -O2 at least: without inlining, the vector
# words are calls.
set(FASTLAYER_KERNEL_FLAGS -O3 ${FASTLAYER_EXACT} -fno-math-errno -fno-trapping-math
  -fno-exceptions -fno-rtti)
if(FASTLAYER_SANITIZE)
  list(APPEND FASTLAYER_KERNEL_FLAGS -O1)  # instrumented tiles take -O3 a quarter of an hour
endif()
if(NOT WIN32)  # there every function needs them
  list(APPEND FASTLAYER_KERNEL_FLAGS -fno-asynchronous-unwind-tables)
endif()
if(clang_cl)
  foreach(flags FASTLAYER_WARNINGS FASTLAYER_EXACT FASTLAYER_KERNEL_FLAGS)
    list(TRANSFORM ${flags} PREPEND /clang:)
  endforeach()
endif()

# Scheduled before registers are given out, the vectors of a group alternate: 4 to 14 % on AVX2, 2
# to 9 % with AVX-512 (Zen 5, gcc 12). Clang does as much by itself.
set(FASTLAYER_GROUP_FLAGS)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(FASTLAYER_GROUP_FLAGS -fschedule-insns -fsched-pressure)
endif()

set(FASTLAYER_ISAS)
set(FASTLAYER_ISA_LIBRARIES)
set(FASTLAYER_ISA_DEFINITIONS)
set(FASTLAYER_ISA_FLAGS)

function(fastlayer_add_isa name)
  foreach(flag IN LISTS ARGN)
    string(MAKE_C_IDENTIFIER "FASTLAYER_FLAG${flag}" has_flag)
    check_cxx_compiler_flag(${flag} ${has_flag})
    if(NOT ${has_flag})
      return()
    endif()
  endforeach()
  set(target fastlayer_kernels_${name})
  add_library(${target} OBJECT cpp/kernels/kernels_${name}.cpp)
  if(NOT name STREQUAL "scalar")
    foreach(group pairs quads backward)
      set(source ${CMAKE_CURRENT_SOURCE_DIR}/cpp/kernels/${group}_${name}.cpp)
      target_sources(${target} PRIVATE ${source})
      set(flags ${FASTLAYER_GROUP_FLAGS})
      # 4 to 9 % on gelu, softplus and tanh with AVX-512, 2 to 6 % by fours with AVX2 (Zen 5, gcc 12);
      # exp by twos would lose 6 % there.
      if(flags AND (name STREQUAL "avx512" OR "${group};${name}" STREQUAL "quads;avx2"))
        list(APPEND flags --param=sched-pressure-algorithm=2)
      endif()
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}")
    endforeach()
  endif()
  target_compile_options(${target} PRIVATE ${FASTLAYER_WARNINGS} ${FASTLAYER_KERNEL_FLAGS} ${ARGN})
  # gcc 12's own AVX-512 header trips this warning (gcc bug 105593).
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND name STREQUAL "avx512")
    target_compile_options(${target} PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
  endif()
  # GCC's default for AArch64 moves loads of weights so far up that tiles keep accumulators in
  # memory; this is its default for other processors.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND name STREQUAL "neon")
    target_compile_options(${target} PRIVATE --param=sched-pressure-algorithm=1)
  endif()
  set_target_properties(${target} PROPERTIES INTERPROCEDURAL_OPTIMIZATION OFF)
  string(TOUPPER ${name} upper)
  set(FASTLAYER_ISAS ${FASTLAYER_ISAS} ${name} PARENT_SCOPE)
  set(FASTLAYER_ISA_FLAGS ${FASTLAYER_ISA_FLAGS} ${ARGN} PARENT_SCOPE)
  set(FASTLAYER_ISA_LIBRARIES ${FASTLAYER_ISA_LIBRARIES} ${target} PARENT_SCOPE)
  set(FASTLAYER_ISA_DEFINITIONS ${FASTLAYER_ISA_DEFINITIONS} FASTLAYER_HAVE_${upper} PARENT_SCOPE)
endfunction()

fastlayer_add_isa(scalar)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  fastlayer_add_isa(avx2 -mavx2 -mfma)
  fastlayer_add_isa(avx512 -mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
  fastlayer_add_isa(neon)
endif()
