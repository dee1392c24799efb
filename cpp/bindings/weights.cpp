#include "weights.hpp"

#include "init.hpp"
#include "registers.hpp"

namespace fastlayer {
namespace {

template <typename T>
py::object unpack_weight(const PackedWeights<T>& p) {
  const ptrdiff_t shape[2] = {p.n(), p.k()};
  py::object array = new_array(dtype_of<T>(), shape, 2);
  ArrayView view;
  borrow(array, view);
  p.unpack(reinterpret_cast<T*>(view.data));
  return array;
}

template <typename T>
py::object unpack_bias(const PackedWeights<T>& p) {
  if (!p.has_bias()) return py::none();
  const ptrdiff_t shape[1] = {p.n()};
  py::object array = new_array(dtype_of<T>(), shape, 1);
  ArrayView view;
  borrow(array, view);
  p.unpack_bias(reinterpret_cast<T*>(view.data));
  return array;
}

}  // namespace

void register_weights(py::module_& m) {
  py::class_<PyVersion> version(m, "Version", py::module_local());
  define_init<PyVersion>(version);
  version.def_property_readonly("value", &PyVersion::value).def("advance", &PyVersion::advance);

  py::class_<PyPackedWeights> weights(m, "PackedWeights", py::module_local());
  define_init<PyPackedWeights, py::handle, py::handle>(weights, py::arg("weight"), py::arg("bias"));
  weights
      .def_property_readonly(
          "in_features",
          [](const PyPackedWeights& w) { return w.visit([](auto& p) { return p.k(); }); })
      .def_property_readonly(
          "out_features",
          [](const PyPackedWeights& w) { return w.visit([](auto& p) { return p.n(); }); })
      .def_property_readonly(
          "dtype",
          [](const PyPackedWeights& w) { return w.visit([](auto& p) { return dtype_name(p); }); })
      .def_property_readonly(
          "has_bias",
          [](const PyPackedWeights& w) { return w.visit([](auto& p) { return p.has_bias(); }); })
      .def_property_readonly(
          "nbytes",
          [](const PyPackedWeights& w) { return w.visit([](auto& p) { return p.nbytes(); }); })
      .def("weight",
           [](const PyPackedWeights& w) {
             return w.visit([](auto& p) { return unpack_weight(p); });
           })
      .def("bias", [](const PyPackedWeights& w) {
        return w.visit([](auto& p) { return unpack_bias(p); });
      });
}

}  // namespace fastlayer
