#include "sem/complex_rms_norm.hpp"

#include <algorithm>
#include <cmath>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

template <class Real>
struct RowScale {
  Real scale, slope;

  RowScale(const Real* z, std::int64_t width, Real eps) {
    Real power = 0, active = 0;
    for (std::int64_t d = 0; d < width; ++d) {
      const Real one = std::norm(read(z, d));
      power += one;
      active += one > static_cast<Real>(kActivePower) ? Real(1) : Real(0);
    }
    const Real count = std::max(active, Real(1)), mean = power / count, least = static_cast<Real>(kLeastMeanPower);
    const Real rms = std::sqrt(mean < least ? least : mean);
    scale = 1 / (rms + eps);
    slope = mean >= least ? scale * scale / (count * rms) : Real(0);
  }
};

}  // namespace

template <class Real>
void complex_rms_norm_forward(const ComplexRmsNormForward<Real>& args) {
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::int64_t at = row * args.width;
    const RowScale<Real> of(args.z + 2 * at, args.width, args.eps);
    for (std::int64_t d = 0; d < args.width; ++d)
      write(args.out, at + d, of.scale * args.gamma[d] * read(args.z, at + d));
  }
}

template <class Real>
void complex_rms_norm_backward(const ComplexRmsNormBackward<Real>& args) {
  std::fill_n(args.grad_gamma, args.width, Real(0));
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::int64_t at = row * args.width;
    const RowScale<Real> of(args.z + 2 * at, args.width, args.eps);
    Real along = 0;
    for (std::int64_t d = 0; d < args.width; ++d) {
      const Real here = (std::conj(read(args.z, at + d)) * read(args.grad_out, at + d)).real();
      along += args.gamma[d] * here;
      args.grad_gamma[d] += of.scale * here;
    }
    for (std::int64_t d = 0; d < args.width; ++d)
      write(args.grad_z, at + d,
            of.scale * args.gamma[d] * read(args.grad_out, at + d) - of.slope * along * read(args.z, at + d));
  }
}

SEM_REFERENCE(ComplexRmsNormForward, complex_rms_norm_forward)
SEM_REFERENCE(ComplexRmsNormBackward, complex_rms_norm_backward)

}  // namespace sem::reference
