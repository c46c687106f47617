// A thread block as the Group that kernel bodies know (device/group.hpp).
#pragma once

#include <cstdint>

#include "device/group.hpp"

namespace sem::cuda {

class Group {
 public:
  static constexpr int kSubGroup = 32;

  SEM_DEVICE int rank() const { return static_cast<int>(threadIdx.x); }
  SEM_DEVICE int size() const { return static_cast<int>(blockDim.x); }
  SEM_DEVICE int sub_group_size() const { return kSubGroup; }
  SEM_DEVICE std::int64_t id() const { return blockIdx.x; }
  SEM_DEVICE std::int64_t count() const { return gridDim.x; }
  SEM_DEVICE void barrier() const { __syncthreads(); }
  SEM_DEVICE bool any(bool condition) const { return __syncthreads_or(condition) != 0; }
  SEM_DEVICE float* local() const {
    extern __shared__ __align__(16) float memory[];
    return memory;
  }
  SEM_DEVICE float shuffle_xor(float value, int mask) const { return __shfl_xor_sync(kAll, value, mask); }
  SEM_DEVICE std::int32_t shuffle_xor(std::int32_t value, int mask) const { return __shfl_xor_sync(kAll, value, mask); }

 private:
  static constexpr unsigned kAll = 0xffffffffu;
};

}  // namespace sem::cuda
