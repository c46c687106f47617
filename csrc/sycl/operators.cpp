#define SEM_BACKEND xpu
#include "device/operators.hpp"

#include "device/entry.hpp"
#include "sycl/runtime.hpp"

namespace sem::xpu {

device::Limits limits(Queue queue, const char*) { return limits_of(*static_cast<sycl::queue*>(queue.handle)); }

template <class Args>
void run(const Args& args, float* workspace, Queue queue) {
  Launcher launch(queue);
  device::run(args, workspace, launch);
}
SEM_DEVICE_OPERATORS(SEM_INSTANTIATE_RUN)

}  // namespace sem::xpu
