#include "cuda/launch.hpp"
#include "device/operators.hpp"

namespace sem::accelerator {

std::int64_t pit_forward_workspace(const PitForward<float>& task, Queue) { return device::pit_workspace(task); }
std::int64_t pit_backward_workspace(const PitBackward<float>& task, Queue) { return device::pit_workspace(task); }

void pit_forward(const PitForward<float>& task, float* workspace, Queue queue) {
  device::launch_pit_forward(task, workspace, cuda::Launcher("pit", queue));
}

void pit_backward(const PitBackward<float>& task, float* workspace, Queue queue) {
  device::launch_pit_backward(task, workspace, cuda::Launcher("pit (backward)", queue));
}

}  // namespace sem::accelerator
