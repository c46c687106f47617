#include "sem/wave_gate.hpp"

#include <cmath>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {

template <class Real>
void wave_gate_forward(const WaveGateForward<Real>& args) {
  for (std::int64_t i = 0; i < args.rows * args.width; ++i) {
    const Real logit = args.logits[i];
    write(args.out, i, logit / (1 + std::exp(-logit)) * read(args.psi, i));
  }
}

template <class Real>
void wave_gate_backward(const WaveGateBackward<Real>& args) {
  for (std::int64_t i = 0; i < args.rows * args.width; ++i) {
    const Real logit = args.logits[i], open = 1 / (1 + std::exp(-logit));
    const std::complex<Real> grad = read(args.grad_out, i);
    write(args.grad_psi, i, logit * open * grad);
    args.grad_logits[i] = (open + logit * open * (1 - open)) * (std::conj(read(args.psi, i)) * grad).real();
  }
}

SEM_REFERENCE(WaveGateForward, wave_gate_forward)
SEM_REFERENCE(WaveGateBackward, wave_gate_backward)

}  // namespace sem::reference
