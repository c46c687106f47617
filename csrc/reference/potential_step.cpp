#include "sem/potential_step.hpp"

#include <algorithm>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

template <class Real>
Real mean_intensity(const Real* psi, std::int64_t width) {
  Real sum = 0;
  for (std::int64_t d = 0; d < width; ++d) sum += std::norm(read(psi, d));
  return sum / static_cast<Real>(width);
}

}  // namespace

template <class Real>
void potential_step_forward(const PotentialStepForward<Real>& args) {
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::int64_t at = row * args.width;
    const Real mean = mean_intensity(args.psi + 2 * at, args.width), least = static_cast<Real>(kLeastMeanIntensity);
    const Real held = mean < least ? least : mean;
    for (std::int64_t d = 0; d < args.width; ++d) {
      const std::complex<Real> z = read(args.psi, at + d);
      const Real phase = args.potential[at + d] + args.kerr[d] * (std::norm(z) / held);
      write(args.out, at + d, std::polar(Real(1), phase) * z);
    }
  }
}

template <class Real>
void potential_step_backward(const PotentialStepBackward<Real>& args) {
  std::fill_n(args.grad_kerr, args.width, Real(0));
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::int64_t at = row * args.width;
    const Real mean = mean_intensity(args.psi + 2 * at, args.width), least = static_cast<Real>(kLeastMeanIntensity);
    const Real held = mean < least ? least : mean;
    Real shared = 0;  // sum of t_e I_e
    for (std::int64_t d = 0; d < args.width; ++d) {
      const std::complex<Real> z = read(args.psi, at + d);
      const Real intensity = std::norm(z) / held;
      const std::complex<Real> turn = std::polar(Real(1), args.potential[at + d] + args.kerr[d] * intensity);
      const std::complex<Real> back = std::conj(turn) * read(args.grad_out, at + d);
      const Real by_phase = (std::conj(std::complex<Real>(0, 1) * z) * back).real();
      args.grad_potential[at + d] = by_phase;
      args.grad_kerr[d] += by_phase * intensity;
      shared += by_phase * args.kerr[d] * intensity;
      write(args.grad_psi, at + d, back);
    }
    const Real through_mean = mean < least ? Real(0) : shared / static_cast<Real>(args.width);
    for (std::int64_t d = 0; d < args.width; ++d)
      add(args.grad_psi, at + d,
          2 / held * (args.grad_potential[at + d] * args.kerr[d] - through_mean) * read(args.psi, at + d));
  }
}

SEM_REFERENCE(PotentialStepForward, potential_step_forward)
SEM_REFERENCE(PotentialStepBackward, potential_step_backward)

}  // namespace sem::reference
