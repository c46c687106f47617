// The Launcher of device/operators.hpp for a CUDA stream.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/group.hpp"
#include "device/plan.hpp"
#include "sem/types.hpp"

namespace sem::cuda {

inline void require(cudaError_t error, const char* name) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string(name) + ": CUDA refused the launch: " + cudaGetErrorString(error));
}

// Makes a device current, and the one before it again at the end.
class OnDevice {
 public:
  OnDevice(int device, const char* name) {
    require(cudaGetDevice(&before_), name);
    if (before_ == device) return;
    require(cudaSetDevice(device), name);
    moved_ = true;
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() {
    if (moved_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  bool moved_ = false;
};

inline int attribute(cudaDeviceAttr which, Queue queue, const char* name) {
  int value = 0;
  require(cudaDeviceGetAttribute(&value, which, queue.device), name);
  return value;
}

inline device::Limits limits_of(Queue queue, const char* name) {
  return {attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, queue, name),
          attribute(cudaDevAttrMaxThreadsPerBlock, queue, name), Group::kSubGroup};
}

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kMostThreads, 1) entry(const __grid_constant__ Kernel kernel) {
  kernel(Group());
}

class Launcher {
 public:
  Launcher(const char* name, Queue queue)
      : name_(name), queue_(queue), guard_(queue.device, name), stream_(static_cast<cudaStream_t>(queue.handle)) {}

  device::Limits limits() const { return limits_of(queue_, name_); }

  template <class Kernel>
  void operator()(const Kernel& kernel, std::int64_t groups, int group_size, std::int64_t local_floats) const {
    if (groups == 0) return;
    constexpr std::size_t kAlwaysAllowed = 48 * 1024;
    const std::size_t bytes = static_cast<std::size_t>(local_floats) * sizeof(float);
    if (bytes > kAlwaysAllowed)
      require(cudaFuncSetAttribute(entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
              name_);
    if (groups > INT32_MAX)
      throw std::runtime_error(std::string(name_) + ": " + std::to_string(groups) +
                               " thread blocks are more than a CUDA launch can have; split the batch");
    void* arguments[] = {const_cast<Kernel*>(&kernel)};
    require(cudaLaunchKernel(reinterpret_cast<const void*>(entry<Kernel>), dim3(static_cast<unsigned>(groups)),
                             dim3(static_cast<unsigned>(group_size)), arguments, bytes, stream_),
            name_);
  }

 private:
  const char* name_;
  Queue queue_;
  OnDevice guard_;
  cudaStream_t stream_;
};

}  // namespace sem::cuda
