#include "tests/backend.hpp"

namespace sem::backend {

std::string unavailable() { return {}; }

void laplacian_forward(const LaplacianForward<float>& args, Queue queue) { cpu::laplacian_forward(args, queue); }
void laplacian_weight_gradient(const LaplacianWeightGradient<float>& args, Queue queue) {
  cpu::laplacian_weight_gradient(args, queue);
}
void cayley_forward(const CayleyForward<float>& args, Queue queue) { cpu::cayley_forward(args, queue); }
void cayley_backward(const CayleyBackward<float>& args, Queue queue) { cpu::cayley_backward(args, queue); }
void laplacian_cg_forward(const LaplacianCgForward<float>& args, Queue queue) {
  cpu::laplacian_cg_forward(args, queue);
}
void laplacian_cg_backward(const LaplacianCgBackward<float>& args, Queue queue) {
  cpu::laplacian_cg_backward(args, queue);
}
void pit_forward(const PitForward<float>& args, Queue queue) { cpu::pit_forward(args, queue); }
void pit_backward(const PitBackward<float>& args, Queue queue) { cpu::pit_backward(args, queue); }
void scan_forward(const ScanForward<float>& args, Queue queue) { cpu::scan_forward(args, queue); }
void scan_backward(const ScanBackward<float>& args, Queue queue) { cpu::scan_backward(args, queue); }
void diffraction_forward(const DiffractionForward<float>& args, Queue queue) { cpu::diffraction_forward(args, queue); }
void diffraction_backward(const DiffractionBackward<float>& args, Queue queue) {
  cpu::diffraction_backward(args, queue);
}

}  // namespace sem::backend
