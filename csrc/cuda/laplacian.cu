#include "cuda/launch.hpp"
#include "device/entry.hpp"
#include "device/operators.hpp"

namespace sem::cuda {

void laplacian_forward(const LaplacianForward<float>& args, Queue queue) {
  Launcher launch("laplacian", queue);
  device::run(args, launch);
}

void laplacian_weight_gradient(const LaplacianWeightGradient<float>& args, float* workspace, Queue queue) {
  Launcher launch("laplacian (backward)", queue);
  device::run(args, workspace, launch);
}

}  // namespace sem::cuda
