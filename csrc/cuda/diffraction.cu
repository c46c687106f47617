#include "cuda/launch.hpp"
#include "device/entry.hpp"
#include "device/operators.hpp"

namespace sem::cuda {

void diffraction_forward(const DiffractionForward<float>& args, float* workspace, Queue queue) {
  Launcher launch("diffraction", queue);
  device::run(args, workspace, launch);
}

void diffraction_backward(const DiffractionBackward<float>& args, float* workspace, Queue queue) {
  Launcher launch("diffraction (backward)", queue);
  device::run(args, workspace, launch);
}

}  // namespace sem::cuda
