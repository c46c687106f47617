#include "cuda/launch.hpp"
#include "device/entry.hpp"
#include "device/operators.hpp"

namespace sem::cuda {

void scan_forward(const ScanForward<float>& args, Queue queue) {
  Launcher launch("scan", queue);
  device::run(args, launch);
}

void scan_backward(const ScanBackward<float>& args, float* workspace, Queue queue) {
  Launcher launch("scan (backward)", queue);
  device::run(args, workspace, launch);
}

}  // namespace sem::cuda
