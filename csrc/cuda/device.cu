#include <cuda_runtime.h>

#include "device/operators.hpp"

namespace sem::accelerator {

std::string unavailable() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) return std::string("no CUDA device: ") + cudaGetErrorString(error);
  return devices > 0 ? std::string() : std::string("no CUDA device");
}

}  // namespace sem::accelerator
