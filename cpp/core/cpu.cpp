#include "cpu.hpp"

#include <cstdlib>
#include <fstream>
#include <stdexcept>

#if defined(FASTLAYER_HAVE_AVX2) || defined(FASTLAYER_HAVE_AVX512)
#include "cpu_x86.hpp"
#endif

namespace fastlayer {
namespace {

struct Candidate {
  const KernelTable* table;
  bool supported;
};

// Each with every feature that its kernels' file is compiled for.
std::vector<Candidate> candidates() {
  std::vector<Candidate> list;
#if defined(FASTLAYER_HAVE_AVX2) || defined(FASTLAYER_HAVE_AVX512)
  const X86Features has = x86_features();
#endif
#if defined(FASTLAYER_HAVE_AVX512)
  list.push_back({&avx512::kTable, has.avx512f && has.avx512vl && has.avx512bw && has.avx512dq &&
                                       has.avx2 && has.fma});
#endif
#if defined(FASTLAYER_HAVE_AVX2)
  list.push_back({&avx2::kTable, has.avx2 && has.fma});
#endif
#if defined(FASTLAYER_HAVE_NEON)
  list.push_back({&neon::kTable, true});
#endif
  list.push_back({&scalar::kTable, true});
  return list;
}

// The first line of a small file, or nothing.
std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// What Linux says of the caches of the first core; sysconf multiplies a shared L3 on some
// processors. Where the system does not say, the sizes of a small desktop processor.
Caches read_caches() {
  Caches sizes = {32 * 1024, 256 * 1024, 8 * 1024 * 1024};
  for (int i = 0; i < 8; ++i) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
    const std::string level = first_line(folder + "level");
    if (level.empty() || first_line(folder + "type") == "Instruction") continue;
    const std::string text = first_line(folder + "size");  // "1024K"
    const size_t kib = std::strtoul(text.c_str(), nullptr, 10);
    const size_t bytes = text.find('M') == std::string::npos ? kib << 10 : kib << 20;
    if (bytes == 0) continue;
    if (level == "1") sizes.l1 = bytes;
    if (level == "2") sizes.l2 = bytes;
    if (level == "3") sizes.l3 = bytes;
  }
  return sizes;
}

}  // namespace

std::vector<const KernelTable*> built_tables() {
  std::vector<const KernelTable*> tables;
  for (const Candidate& c : candidates()) tables.push_back(c.table);
  return tables;
}

std::vector<const KernelTable*> supported_tables() {
  std::vector<const KernelTable*> tables;
  for (const Candidate& c : candidates()) {
    if (c.supported) tables.push_back(c.table);
  }
  return tables;
}

const KernelTable& choose_table() {
  const std::vector<const KernelTable*> tables = supported_tables();
  const char* wanted = std::getenv("FASTLAYER_ISA");
  if (wanted == nullptr || *wanted == '\0') return *tables.front();
  std::string names;
  for (const KernelTable* table : tables) {
    if (table->name == std::string(wanted)) return *table;
    names += (names.empty() ? "" : ", ") + std::string(table->name);
  }
  throw std::invalid_argument("FASTLAYER_ISA=" + std::string(wanted) +
                              " is not an instruction set that this build and this processor have; "
                              "available: " +
                              names);
}

const KernelTable& active_table() {
  static const KernelTable& table = choose_table();
  return table;
}

const Caches& caches() {
  static const Caches sizes = read_caches();
  return sizes;
}

}  // namespace fastlayer
