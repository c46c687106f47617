#define SEM_BACKEND xpu
#include "device/operators.hpp"

#include "device/entry.hpp"
#include "sycl/runtime.hpp"

namespace sem::xpu {

device::Limits limits(Queue queue) { return limits_of(*static_cast<sycl::queue*>(queue.handle)); }

void laplacian_forward(const LaplacianForward<float>& args, Queue queue) {
  Launcher launch(queue);
  device::run(args, launch);
}

void laplacian_weight_gradient(const LaplacianWeightGradient<float>& args, float* workspace, Queue queue) {
  Launcher launch(queue);
  device::run(args, workspace, launch);
}

void cayley(const device::CayleyTask& task, Queue queue) {
  Launcher launch(queue);
  device::run(task, launch);
}

void laplacian_cg(const device::LaplacianCgTask& task, Queue queue) {
  Launcher launch(queue);
  device::run(task, launch);
}

void pit_forward(const PitForward<float>& args, float* workspace, Queue queue) {
  Launcher launch(queue);
  device::run(args, workspace, launch);
}

void pit_backward(const PitBackward<float>& args, float* workspace, Queue queue) {
  Launcher launch(queue);
  device::run(args, workspace, launch);
}

void soliton_step(const device::SolitonTask& task, Queue queue) {
  Launcher launch(queue);
  device::run(task, launch);
}

void scan_forward(const ScanForward<float>& args, Queue queue) {
  Launcher launch(queue);
  device::run(args, launch);
}

void scan_backward(const ScanBackward<float>& args, float* workspace, Queue queue) {
  Launcher launch(queue);
  device::run(args, workspace, launch);
}

void diffraction_forward(const DiffractionForward<float>& args, float* workspace, Queue queue) {
  Launcher launch(queue);
  device::run(args, workspace, launch);
}

void diffraction_backward(const DiffractionBackward<float>& args, float* workspace, Queue queue) {
  Launcher launch(queue);
  device::run(args, workspace, launch);
}

}  // namespace sem::xpu
