// The little that the C++ tests need: a check that says where it failed, numbers from a seed, and
// memory that faults when somebody reads or writes past its end.
#pragma once

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>

namespace fastlayer {

#define FL_CHECK(condition, ...)                                           \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                   \
      std::fprintf(stderr, "\n");                                          \
      std::exit(1);                                                        \
    }                                                                      \
  } while (0)

// splitmix64 (Steele, Lea and Flood, 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Uniform in [-1, 1), 24 bits, exact in float and double.
  template <typename T>
  T number() {
    return static_cast<T>(static_cast<int32_t>(next() >> 40) - (1 << 23)) / T(1 << 23);
  }
  template <typename T>
  std::vector<T> numbers(ptrdiff_t n) {
    std::vector<T> v(static_cast<size_t>(n));
    for (T& x : v) x = number<T>();
    return v;
  }

 private:
  uint64_t state_;
};

template <typename T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// n elements that end exactly where an inaccessible page begins, or begin where one ends.
template <typename T>
class Guarded {
 public:
  Guarded(ptrdiff_t n, bool at_end) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(n) * sizeof(T);
    size_ = (bytes + page - 1) / page * page + 2 * page;
    base_ = static_cast<char*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    FL_CHECK(base_ != MAP_FAILED, "mmap of %zu bytes", size_);
    const size_t inner = size_ - 2 * page;
    if (inner > 0) mprotect(base_ + page, inner, PROT_READ | PROT_WRITE);
    data_ = reinterpret_cast<T*>(base_ + page + (at_end ? inner - bytes : 0));
  }
  Guarded(const std::vector<T>& values, bool at_end)
      : Guarded(static_cast<ptrdiff_t>(values.size()), at_end) {
    if (!values.empty()) std::memcpy(data_, values.data(), values.size() * sizeof(T));
  }
  ~Guarded() { munmap(base_, size_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  T* data() { return data_; }

 private:
  char* base_;
  size_t size_;
  T* data_;
};

// FNV-1a, 64 bits, of the bytes in little-endian order.
template <typename T>
uint64_t hash(const std::vector<T>& v) {
  using Bits = std::conditional_t<sizeof(T) == sizeof(uint32_t), uint32_t, uint64_t>;
  uint64_t h = 0xcbf29ce484222325u;
  for (const T& x : v) {
    Bits bits;
    static_assert(sizeof bits == sizeof x, "");
    std::memcpy(&bits, &x, sizeof bits);
    for (unsigned byte = 0; byte < sizeof bits; ++byte) {
      h = (h ^ (bits >> 8 * byte & 0xff)) * 0x100000001b3u;
    }
  }
  return h;
}

template <typename T>
const char* type_name() {
  return sizeof(T) == 4 ? "float" : "double";
}

}  // namespace fastlayer
