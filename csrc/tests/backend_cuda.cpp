// The CUDA back end on the first device, on a stream of its own.
#define SEM_BACKEND cuda
#include <cuda_runtime.h>

#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tests/backend.hpp"

namespace sem::backend {
namespace {

void require(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// Arrays are copied to the device before the work and back after it. What kernels only write starts as NaN.
class Device {
 public:
  Device() { require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() {
    for (void* memory : owned_) cudaFree(memory);
    cudaStreamDestroy(stream_);
  }

  template <class T>
  const T* in(const T* host, std::int64_t count) {
    if (host == nullptr) return nullptr;
    void* const memory = copy_of(host, bytes<T>(count));
    read_.push_back({host, memory});
    return static_cast<T*>(memory);
  }
  template <class T>
  T* out(T* host, std::int64_t count, bool kept) {
    if (host == nullptr) return nullptr;
    void* memory = nullptr;
    for (const auto& [read, copy] : read_)
      if (read == host) memory = copy;
    if (memory == nullptr) memory = kept ? copy_of(host, bytes<T>(count)) : poisoned(bytes<T>(count));
    back_.push_back({host, memory, bytes<T>(count)});
    return static_cast<T*>(memory);
  }
  float* workspace(std::int64_t floats) { return static_cast<float*>(poisoned(bytes<float>(floats))); }
  Queue queue() const { return {stream_, 1, 0}; }
  void finish() {
    require(cudaStreamSynchronize(stream_));
    for (const Back& back : back_) require(cudaMemcpy(back.host, back.device, back.bytes, cudaMemcpyDeviceToHost));
  }

 private:
  struct Back {
    void* host;
    void* device;
    std::size_t bytes;
  };

  template <class T>
  static std::size_t bytes(std::int64_t count) {
    return static_cast<std::size_t>(count) * sizeof(T);
  }
  void* allocated(std::size_t bytes) {
    void* memory = nullptr;
    require(cudaMalloc(&memory, bytes + 1));  // an empty array has an address too
    owned_.push_back(memory);
    return memory;
  }
  void* poisoned(std::size_t bytes) {
    void* const memory = allocated(bytes);
    require(cudaMemset(memory, 0xff, bytes));
    require(cudaDeviceSynchronize());
    return memory;
  }
  void* copy_of(const void* host, std::size_t bytes) {
    void* const memory = allocated(bytes);
    require(cudaMemcpy(memory, host, bytes, cudaMemcpyHostToDevice));
    return memory;
  }

  cudaStream_t stream_ = nullptr;
  std::vector<void*> owned_;
  std::vector<std::pair<const void*, void*>> read_;
  std::vector<Back> back_;
};

}  // namespace

std::string unavailable() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) return std::string("no CUDA device: ") + cudaGetErrorString(error);
  return devices > 0 ? std::string() : std::string("no CUDA device");
}

}  // namespace sem::backend

#include "tests/device_backend.hpp"
