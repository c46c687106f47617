#include "cuda/launch.hpp"
#include "device/operators.hpp"

namespace sem::accelerator {

void laplacian_forward(const LaplacianForward<float>& task, Queue queue) {
  device::launch_laplacian_forward(task, cuda::Launcher("laplacian", queue));
}

std::int64_t laplacian_weight_gradient_workspace(const LaplacianWeightGradient<float>& task, Queue) {
  return device::laplacian_weight_gradient_workspace(task);
}

void laplacian_weight_gradient(const LaplacianWeightGradient<float>& task, float* workspace, Queue queue) {
  device::launch_laplacian_weight_gradient(task, workspace, cuda::Launcher("laplacian (backward)", queue));
}

}  // namespace sem::accelerator
