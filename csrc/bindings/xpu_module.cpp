#define SEM_BACKEND xpu
#include "bindings/device_module.hpp"
#include "sycl/runtime.hpp"

PYBIND11_MODULE(_xpu, module) {
  module.doc() = "XPU kernels of sem, in SYCL; private, called by sem.ops alone.";
  module.attr("compilation") = sem::xpu::compilation();
  module.attr("sycl_major") = __LIBSYCL_MAJOR_VERSION;
  module.def("set_sources", &sem::xpu::set_sources);
  sem::bindings::bind_device_operators(module);

  // For tests (sem.ops.testing): a SYCL CPU device reads ordinary memory, so kernels can run on CPU tensors.
  module.def("cpu_queue", [] {
    // Never destroyed: a queue must not outlive SYCL's own libraries at exit.
    static auto* const queue = new sycl::queue(sycl::cpu_selector_v, sycl::property::queue::in_order());
    return reinterpret_cast<std::uintptr_t>(queue);
  });
  module.def("wait", [](std::uintptr_t queue) {
    const pybind11::gil_scoped_release unlocked;
    reinterpret_cast<sycl::queue*>(queue)->wait_and_throw();
  });
  module.def("sub_group_size", [](std::uintptr_t queue) {
    return sem::xpu::limits_of(*reinterpret_cast<sycl::queue*>(queue)).sub_group_size;
  });
  module.def("set_limits", [](std::int64_t local_bytes, int group_size, int sub_group_size) {
    sem::xpu::set_limits({local_bytes, group_size, sub_group_size});
  });
}
