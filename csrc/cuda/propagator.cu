// pit, cayley and both in one: together, because their kernels are shared and would otherwise be compiled twice.
#include "cuda/launch.hpp"
#include "device/entry.hpp"
#include "device/operators.hpp"

namespace sem::cuda {

device::Limits limits(Queue queue) { return limits_of(queue, "sem"); }

void cayley(const device::CayleyTask& task, Queue queue) {
  Launcher launch(task.adjoint ? "cayley (backward)" : "cayley", queue);
  device::run(task, launch);
}

void pit_forward(const PitForward<float>& args, float* workspace, Queue queue) {
  Launcher launch("pit", queue);
  device::run(args, workspace, launch);
}

void pit_backward(const PitBackward<float>& args, float* workspace, Queue queue) {
  Launcher launch("pit (backward)", queue);
  device::run(args, workspace, launch);
}

void soliton_step(const device::SolitonTask& task, Queue queue) {
  Launcher launch(task.backward ? "soliton_step (backward)" : "soliton_step", queue);
  device::run(task, launch);
}

}  // namespace sem::cuda
