// Runs programs: blocks of rows through all operations, or all rows through one operation after the
// other; one invitation of the team a call. A reader starts at execute() in executor.cpp.
#pragma once

#include "plan.hpp"
#include "program.hpp"
#include "types.hpp"

namespace fastlayer {

// The rows that go in: features of one array beside those of the next, one or several, with the
// same number of rows each.
struct Inputs {
  const RowsView* views;
  int count;
};

// y = program(x). x and y have the same number of rows and do not overlap; y.dtype is T's.
template <typename T>
void execute(const Program<T>& program, const Inputs& x, const RowsView& y, const Plan& plan);

template <typename T>
void execute(const Program<T>& program, const RowsView& x, const RowsView& y, const Plan& plan) {
  execute(program, Inputs{&x, 1}, y, plan);
}

}  // namespace fastlayer
