#include "workspace.hpp"

#include <atomic>
#include <limits>
#include <new>

namespace fastlayer {
namespace {

constexpr std::align_val_t kAlignment{64};

std::atomic<uint64_t> g_allocations{0};

// Failure as an exception of ours: a sanitizer's throwing operator new ends the process.
void* allocate(size_t bytes) {
  void* const memory = ::operator new(bytes, kAlignment, std::nothrow);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

struct Scratch {
  void* data = nullptr;
  size_t size = 0;
  ~Scratch() { ::operator delete(data, kAlignment); }
};

thread_local Scratch t_scratch;

}  // namespace

void* workspace(size_t bytes) {
  Scratch& scratch = t_scratch;
  if (bytes > scratch.size) {
    ::operator delete(scratch.data, kAlignment);
    scratch.data = nullptr;
    scratch.size = 0;
    scratch.data = allocate(bytes);
    scratch.size = bytes;
    g_allocations.fetch_add(1, std::memory_order_relaxed);
  }
  return scratch.data;
}

WorkspaceAside::WorkspaceAside() : data_(t_scratch.data), size_(t_scratch.size) {
  t_scratch.data = nullptr;
  t_scratch.size = 0;
}

WorkspaceAside::~WorkspaceAside() {
  ::operator delete(t_scratch.data, kAlignment);
  t_scratch.data = data_;
  t_scratch.size = size_;
}

uint64_t workspace_allocations() { return g_allocations.load(std::memory_order_relaxed); }

template <typename T>
AlignedArray<T>::AlignedArray(size_t size) : size_(size) {
  if (size > std::numeric_limits<size_t>::max() / 2 / sizeof(T)) throw std::bad_alloc();
  data_ = static_cast<T*>(allocate(size * sizeof(T)));
}

template <typename T>
AlignedArray<T>::~AlignedArray() {
  ::operator delete(data_, kAlignment);
}

template class AlignedArray<float>;
template class AlignedArray<double>;

}  // namespace fastlayer
