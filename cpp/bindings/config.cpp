// Threads, counters and what the build and the processor offer.
#include "../core/cpu.hpp"
#include "../core/isa_speed.hpp"
#include "../core/team.hpp"
#include "../core/threads.hpp"
#include "../core/workspace.hpp"
#include "gil.hpp"
#include "limit.hpp"
#include "registers.hpp"

namespace fastlayer {
namespace {

namespace py = pybind11;

py::list names(const std::vector<const KernelTable*>& tables) {
  py::list list;
  for (const KernelTable* table : tables) list.append(table->name);
  return list;
}

py::dict config() {
  py::dict caches_dict;
  caches_dict["l1"] = caches().l1;
  caches_dict["l2"] = caches().l2;
  caches_dict["l3"] = caches().l3;
  py::dict d;
  d["version"] = FASTLAYER_VERSION;
#if defined(__clang__)
  d["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
  d["compiler"] = "gcc " __VERSION__;
#else
  d["compiler"] = "unknown";
#endif
  d["openmp"] = has_openmp();
  d["isa_built"] = names(built_tables());
  d["isa_supported"] = names(supported_tables());
  d["isa_active"] = active_table().name;
  d["caches"] = caches_dict;
  return d;
}

py::dict stats() {
  py::dict d;
  d["parallel_regions"] = parallel_regions();
  d["workspace_allocations"] = workspace_allocations();
  return d;
}

// {name: flops of a second}; takes 30 ms for each instruction set.
py::dict isa_speeds_of_names() {
  std::vector<IsaSpeed> speeds;
  run_released(kLookUpAbove, [&] { speeds = isa_speeds(3); });
  py::dict d;
  for (const IsaSpeed& speed : speeds) d[speed.name] = speed.flops;
  return d;
}

}  // namespace

void register_config(py::module_& m) {
  m.def("set_num_threads", &set_num_threads, py::arg("n"), py::pos_only());
  m.def("get_num_threads", [] {
    read_limit();
    return num_threads();
  });
  m.def("follow_limits", &follow_limits, py::arg("limits"), py::pos_only());
  m.def("set_openmp_default", &set_openmp_default, py::arg("n"), py::pos_only());
  m.def("openmp_limits", [] {
    read_limit();
    return openmp_limits();
  });
  m.def("config", &config);
  m.def("isa_speeds", &isa_speeds_of_names);
  m.def("stats", &stats);
}

}  // namespace fastlayer
