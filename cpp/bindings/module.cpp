// The extension module: a table of contents.
#include "../core/cpu.hpp"
#include "gil.hpp"
#include "registers.hpp"

PYBIND11_MODULE(_core_of_main, m, pybind11::mod_gil_not_used()) {
  m.doc() = "The compiled core of fastlayer; see _core.pyi.";
  try {
    fastlayer::active_table();
  } catch (const std::invalid_argument& error) {
    throw pybind11::import_error(error.what());
  }
  fastlayer::register_weights(m);
  fastlayer::register_program(m);
  fastlayer::register_trainer(m);
  fastlayer::register_products(m);
  fastlayer::register_functions(m);
  fastlayer::register_config(m);
  // Before the interpreter ends threads that may be in the middle of a call.
  pybind11::module_::import("atexit").attr("register")(pybind11::cpp_function(&fastlayer::drain));
}

// Neither NumPy nor pybind11 is made for sub-interpreters, and pybind11's start waits for ever in
// one of CPython 3.11.
PyMODINIT_FUNC PyInit__core() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return PyInit__core_of_main();
  PyErr_SetString(
      PyExc_ImportError,
      "fastlayer can't be used in a sub-interpreter, only in the main one. Under mod_wsgi, "
      "'WSGIApplicationGroup %{GLOBAL}' chooses that");
  return nullptr;
}
