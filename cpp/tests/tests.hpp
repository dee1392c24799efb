// The subjects that main.cpp can run.
#pragma once

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <string>

#include "../core/cpu.hpp"
#include "check.hpp"

namespace fastlayer {

void test_dense();
void test_elementwise(bool exact);
void test_fetch();
void test_guards(bool all);
void test_plan();
void test_program();
void test_threads();
void test_trainer();
void test_training();
void test_exit();
void test_golden(const char* path, bool write);

using Hashes = std::map<std::string, uint64_t>;
// Of whole runs of training, with the instruction set of the process.
void add_training_hashes(Hashes& hashes);

// Calls check(table) in a process of its own for each, as users run it.
template <typename Check>
void for_each_instruction_set(Check check) {
  for (const KernelTable* table : supported_tables()) {
    std::fflush(stdout);  // the child would say it again
    const pid_t child = fork();
    if (child == 0) {
      setenv("FASTLAYER_ISA", table->name, 1);
      check(*table);
      std::exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    FL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s ended with status %d", table->name,
             status);
  }
}

template <typename T>
const Kernels<T>& kernels_of(const KernelTable& table);
template <>
inline const Kernels<float>& kernels_of<float>(const KernelTable& table) {
  return table.f32;
}
template <>
inline const Kernels<double>& kernels_of<double>(const KernelTable& table) {
  return table.f64;
}

}  // namespace fastlayer
