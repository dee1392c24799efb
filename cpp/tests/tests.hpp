// The subjects that main.cpp can run.
#pragma once

#include "../core/cpu.hpp"

namespace fastlayer {

void test_dense();
void test_elementwise(bool exact);
void test_fetch();
void test_guards(bool all);
void test_plan();
void test_program();
void test_threads();
void test_exit();
void test_golden(const char* path, bool write);

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
