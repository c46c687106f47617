// Aligned scratch memory: one allocation per operator call, before any thread starts. Debug builds fill it with NaN
// (all bits set: as integers -1) so that a kernel which reads what it did not write is caught by its tests.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

namespace sem::cpu::SEM_ISA {

template <class T>
class ScratchOf {
 public:
  explicit ScratchOf(std::size_t count) {
    const std::size_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    data_ = static_cast<T*>(std::aligned_alloc(kAlignment, bytes == 0 ? kAlignment : bytes));
    if (data_ == nullptr) throw std::bad_alloc();
#ifdef SEM_POISON_SCRATCH
    std::memset(static_cast<void*>(data_), 0xff, bytes);
#endif
  }
  ~ScratchOf() { std::free(data_); }
  ScratchOf(const ScratchOf&) = delete;
  ScratchOf& operator=(const ScratchOf&) = delete;

  T* data() const { return data_; }

 private:
  static constexpr std::size_t kAlignment = 64;
  T* data_ = nullptr;
};
using Scratch = ScratchOf<float>;

}  // namespace sem::cpu::SEM_ISA
