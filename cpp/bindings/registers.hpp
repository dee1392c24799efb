// What module.cpp puts into the module, one function for each subject.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "../kernels/table.hpp"

namespace fastlayer {

void register_weights(pybind11::module_& m);
void register_program(pybind11::module_& m);
void register_products(pybind11::module_& m);
void register_trainer(pybind11::module_& m);
void register_functions(pybind11::module_& m);
void register_config(pybind11::module_& m);

// Throws std::invalid_argument for a name that Python should not have passed.
Activation activation_named(const std::string& name);
Activation activation_named(PyObject* name);

// The three arguments of an activation.
struct FusedArguments {
  Activation kind;
  double p0, p1;

  FusedArguments(PyObject* name, PyObject* first, PyObject* second);
  template <typename T>
  ActivationArgs<T> args() const {
    return {kind, static_cast<T>(p0), static_cast<T>(p1)};
  }
};

template <typename T>
ActivationArgs<T> activation_args(const std::string& name, double p0, double p1) {
  return {activation_named(name), static_cast<T>(p0), static_cast<T>(p1)};
}

}  // namespace fastlayer
