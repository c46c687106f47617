#include "cuda/launch.hpp"
#include "device/operators.hpp"

namespace sem::accelerator {
namespace {

const char* name_of(const device::CayleyTask& task) { return task.adjoint ? "cayley (backward)" : "cayley"; }

}  // namespace

std::int64_t cayley_workspace(const device::CayleyTask& task, Queue queue) {
  return device::CayleyLayout(task, cuda::limits(queue, name_of(task))).floats;
}

void cayley(const device::CayleyTask& task, Queue queue) {
  device::launch_cayley(task, cuda::limits(queue, name_of(task)), cuda::Launcher(name_of(task), queue));
}

}  // namespace sem::accelerator
