#define SEM_BACKEND cuda
#include "bindings/device_module.hpp"

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "CUDA kernels of sem; private, called by sem.ops alone.";
  sem::bindings::bind_device_operators(module);
}
