// The operators of a device back end for Python; SEM_BACKEND is its namespace.
#pragma once

#include "bindings/call.hpp"
#include "device/entry.hpp"
#include "device/operators.hpp"

namespace sem::bindings {

struct DeviceBackend {
  static constexpr bool kReadable = false;
  template <class Args>
  static std::int64_t floats(const Args& args, Queue queue) {
    return device::floats(args, SEM_BACKEND::limits(queue, Args::kName));
  }
  template <class Args>
  static void run(const Args& args, float* workspace, Queue queue) {
    SEM_BACKEND::run(args, workspace, queue);
  }
};

inline void bind_device_operators(py::module_& module) {
  py::dict fields;
#define SEM_BIND(Args) bind<Args<float>, DeviceBackend>(module, fields);
  SEM_DEVICE_OPERATORS(SEM_BIND)
#undef SEM_BIND
  module.attr("FIELDS") = fields;
}

}  // namespace sem::bindings
