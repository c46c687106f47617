// Kernels on a SYCL queue. Two routes, chosen when this is compiled: by a SYCL compiler (icpx -fsycl) kernels are
// compiled ahead of time; by any other C++ compiler they are compiled at run time for the user's own device, by SYCL's
// run-time compiler (sycl_ext_oneapi_kernel_compiler), from the same sources.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <sycl/sycl.hpp>

#include "device/plan.hpp"
#include "sem/types.hpp"
#ifdef SYCL_LANGUAGE_VERSION
#include "sycl/work_group.hpp"
#endif

namespace sem::xpu {

// "ahead of time" or "at run time".
const char* compilation();

// Folder with device/, sycl/ and include/, from which kernels are compiled at run time. Set before the first launch.
void set_sources(const std::string& folder);

// For tests: narrower limits than the device's own; a zero leaves the device's.
void set_limits(const device::Limits& limits);

device::Limits limits_of(const sycl::queue& queue);

// The kernel of a type of csrc/device, compiled at its first use on a device.
sycl::kernel kernel(const sycl::queue& queue, std::string_view type, int sub_group_size);

// A type as source code writes it: "sem::device::CayleySolveKernel<8>".
template <class Type>
constexpr std::string_view name_of() {
  const std::string_view signature = __PRETTY_FUNCTION__;  // "... [with Type = NAME; ...]" or "... [Type = NAME]"
  constexpr std::string_view before = "Type = ";
  const std::size_t begin = signature.find(before) + before.size();
  return signature.substr(begin, signature.find_first_of(";]", begin) - begin);
}

class Launcher {
 public:
  explicit Launcher(Queue queue) : queue_(*static_cast<sycl::queue*>(queue.handle)), limits_(limits_of(queue_)) {}

  device::Limits limits() const { return limits_; }

  template <class Kernel>
  void operator()(const Kernel& kernel, std::int64_t groups, int group_size, std::int64_t local_floats) {
    if (groups == 0) return;
    const auto size = static_cast<std::size_t>(group_size);
    const sycl::nd_range<1> range(static_cast<std::size_t>(groups) * size, size);
    const auto floats = static_cast<std::size_t>(local_floats > 0 ? local_floats : 1);
#ifdef SYCL_LANGUAGE_VERSION
    switch (limits_.sub_group_size) {
      case 8:
        return ahead_of_time<8>(kernel, range, floats);
      case 16:
        return ahead_of_time<16>(kernel, range, floats);
      default:
        return ahead_of_time<32>(kernel, range, floats);
    }
#else
    constexpr std::string_view name = name_of<Kernel>();
    static_assert(name.starts_with("sem::device::"));
    const sycl::kernel compiled = xpu::kernel(queue_, name, limits_.sub_group_size);
    queue_.submit([&](sycl::handler& handler) {
      sycl::ext::oneapi::experimental::work_group_memory<float[]> local(floats, handler);
      handler.set_arg(0, Kernel(kernel));
      handler.set_arg(1, local);
      handler.parallel_for(range, compiled);
    });
#endif
  }

 private:
#ifdef SYCL_LANGUAGE_VERSION
  template <int kSubGroup, class Kernel>
  void ahead_of_time(const Kernel& kernel, const sycl::nd_range<1>& range, std::size_t floats) {
    queue_.submit([&](sycl::handler& handler) {
      const sycl::local_accessor<float, 1> local(floats, handler);
      handler.parallel_for(range, [=](sycl::nd_item<1> item) [[sycl::reqd_sub_group_size(kSubGroup)]] {
        kernel(Group<kSubGroup>(item, &local[0]));
      });
    });
  }
#endif

  sycl::queue& queue_;
  device::Limits limits_;
};

}  // namespace sem::xpu
