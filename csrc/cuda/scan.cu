#include "cuda/launch.hpp"
#include "device/operators.hpp"

namespace sem::accelerator {

void scan_forward(const ScanForward<float>& task, Queue queue) {
  device::launch_scan_forward(task, cuda::Launcher("scan", queue));
}

std::int64_t scan_backward_workspace(const ScanBackward<float>& task, Queue) {
  return device::scan_backward_workspace(task);
}

void scan_backward(const ScanBackward<float>& task, float* workspace, Queue queue) {
  device::launch_scan_backward(task, workspace, cuda::Launcher("scan (backward)", queue));
}

}  // namespace sem::accelerator
