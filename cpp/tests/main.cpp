// fastlayer_tests SUBJECT: exits 0, or prints the first failed check and exits 1.
#include <cstdio>
#include <cstring>

#include "tests.hpp"

int main(int argc, char** argv) {
  using namespace fastlayer;
  const char* subject = argc > 1 ? argv[1] : "";
  const auto is = [subject](const char* name) { return std::strcmp(subject, name) == 0; };
  std::printf("instruction sets:");
  for (const KernelTable* table : supported_tables()) std::printf(" %s", table->name);
  std::printf("\n");
  if (is("dense")) {
    test_dense();
  } else if (is("elementwise")) {
    test_elementwise(!(argc > 2 && std::strcmp(argv[2], "inexact") == 0));
  } else if (is("fetch")) {
    test_fetch();
  } else if (is("guards")) {
    test_guards(argc > 2 && std::strcmp(argv[2], "all") == 0);
  } else if (is("plan")) {
    test_plan();
  } else if (is("program")) {
    test_program();
  } else if (is("threads")) {
    test_threads();
  } else if (is("trainer")) {
    test_trainer();
  } else if (is("training")) {
    test_training();
  } else if (is("exit")) {
    test_exit();
  } else if (is("golden") && argc > 2) {
    test_golden(argv[2], argc > 3 && std::strcmp(argv[3], "--write") == 0);
  } else {
    std::fprintf(stderr,
                 "usage: %s dense|elementwise [inexact]|fetch|guards "
                 "[all]|plan|program|threads|trainer|training|exit|"
                 "golden FILE [--write]\n",
                 argv[0]);
    return 2;
  }
  std::printf("%s: ok\n", subject);
  return 0;
}
