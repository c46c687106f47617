#include "cuda/launch.hpp"
#include "device/operators.hpp"

namespace sem::accelerator {

std::int64_t laplacian_cg_workspace(const device::LaplacianCgTask& task, Queue queue) {
  return device::LaplacianCgLayout(task, cuda::limits(queue, "laplacian_cg")).floats;
}

void laplacian_cg(const device::LaplacianCgTask& task, Queue queue) {
  device::launch_laplacian_cg(task, cuda::limits(queue, "laplacian_cg"), cuda::Launcher("laplacian_cg", queue));
}

}  // namespace sem::accelerator
