// Scratch memory of the calling thread: aligned, grows only, freed when the thread ends. Threads of
// a team get their part of the caller's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastlayer {

// At least `bytes` bytes, 64-byte aligned, valid until this thread's next call. Throws
// std::bad_alloc.
void* workspace(size_t bytes);
// Keeps this thread's scratch as it is while something else runs in the middle of a call, and gives
// that a scratch of its own.
class WorkspaceAside {
 public:
  WorkspaceAside();
  ~WorkspaceAside();
  WorkspaceAside(const WorkspaceAside&) = delete;
  WorkspaceAside& operator=(const WorkspaceAside&) = delete;

 private:
  void* data_;
  size_t size_;
};
// How often any thread's scratch had to grow.
uint64_t workspace_allocations();

// An owned, aligned array of T; what PackedWeights and operation parameters live in.
template <typename T>
class AlignedArray {
 public:
  AlignedArray() = default;
  explicit AlignedArray(size_t size);
  ~AlignedArray();
  AlignedArray(AlignedArray&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
    other.size_ = 0;
  }
  AlignedArray& operator=(AlignedArray&& other) noexcept {
    T* const data = data_;
    const size_t size = size_;
    data_ = other.data_;
    size_ = other.size_;
    other.data_ = data;
    other.size_ = size;
    return *this;
  }
  AlignedArray(const AlignedArray&) = delete;
  AlignedArray& operator=(const AlignedArray&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace fastlayer
