// What is compiled at run time for the user's device: every kernel of device/operators.hpp as a free function, which
// the host asks for by name (runtime.cpp).
#pragma once

#include <sycl/sycl.hpp>

#include "device/operators.hpp"
#include "sycl/work_group.hpp"

namespace sem::xpu {

namespace extension = sycl::ext::oneapi::experimental;

// The sub-group's size is an attribute: as a property it is ignored by the run-time compiler of 2025.3.
template <class Kernel, int kSubGroup>
SYCL_EXT_ONEAPI_FUNCTION_PROPERTY((extension::nd_range_kernel<1>))
[[sycl::reqd_sub_group_size(kSubGroup)]] void run(Kernel kernel, extension::work_group_memory<float[]> local) {
  kernel(Group<kSubGroup>(sycl::ext::oneapi::this_work_item::get_nd_item<1>(), &local[0]));
}

}  // namespace sem::xpu
