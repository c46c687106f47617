#include "cuda/launch.hpp"
#include "device/entry.hpp"
#include "device/operators.hpp"

namespace sem::cuda {

void laplacian_cg(const device::LaplacianCgTask& task, Queue queue) {
  Launcher launch("laplacian_cg", queue);
  device::run(task, launch);
}

}  // namespace sem::cuda
