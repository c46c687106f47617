#include "cuda/launch.hpp"
#include "device/entry.hpp"
#include "device/operators.hpp"

namespace sem::cuda {

device::Limits limits(Queue queue) { return limits_of(queue, "sem"); }

void cayley(const device::CayleyTask& task, Queue queue) {
  Launcher launch(task.adjoint ? "cayley (backward)" : "cayley", queue);
  device::run(task, launch);
}

}  // namespace sem::cuda
