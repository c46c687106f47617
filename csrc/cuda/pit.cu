#include "cuda/launch.hpp"
#include "device/entry.hpp"
#include "device/operators.hpp"

namespace sem::cuda {

void pit_forward(const PitForward<float>& args, float* workspace, Queue queue) {
  Launcher launch("pit", queue);
  device::run(args, workspace, launch);
}

void pit_backward(const PitBackward<float>& args, float* workspace, Queue queue) {
  Launcher launch("pit (backward)", queue);
  device::run(args, workspace, launch);
}

}  // namespace sem::cuda
