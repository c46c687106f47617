// Aligned scratch memory: one allocation per operator call, before any thread starts. Debug builds fill it with NaN so
// that a kernel which reads what it did not write is caught by its tests.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <limits>
#include <new>

namespace sem::cpu::SEM_ISA {

class Scratch {
 public:
  explicit Scratch(std::size_t floats) {
    const std::size_t bytes = (floats * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
    data_ = static_cast<float*>(std::aligned_alloc(kAlignment, bytes == 0 ? kAlignment : bytes));
    if (data_ == nullptr) throw std::bad_alloc();
#ifdef SEM_POISON_SCRATCH
    for (std::size_t i = 0; i < floats; ++i) data_[i] = std::numeric_limits<float>::quiet_NaN();
#endif
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  float* data() const { return data_; }

 private:
  static constexpr std::size_t kAlignment = 64;
  float* data_ = nullptr;
};

}  // namespace sem::cpu::SEM_ISA
