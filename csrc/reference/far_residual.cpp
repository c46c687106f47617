#include "sem/far_residual.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

template <class Real>
struct Pixel {
  Real loss = 0, slope = 0;
};

template <class Real>
Pixel<Real> pixel(ResidualKind kind, Real w, Real intensity, Real x, Real scale) {
  const Real a = std::sqrt(intensity), n = x * x;
  switch (kind) {
    case ResidualKind::amplitude:
    case ResidualKind::projection:
      return {w * (a - x) * (a - x) / 2, a > 0 ? w * (a - x) / (2 * a) : 0};
    case ResidualKind::poisson:
      if (n == 0) return {w * intensity, w};
      if (intensity == 0) return {w > 0 ? std::numeric_limits<Real>::infinity() : 0, 0};
      return {w * (intensity - n + n * std::log(n / intensity)), w * (1 - n / intensity)};
    case ResidualKind::intensity:
      return {w * (intensity - n) * (intensity - n) / 2, w * (intensity - n)};
    case ResidualKind::amplitude_mae:
      break;
  }
  const Real sign = a > x ? 1 : a < x ? -1 : 0;
  return {w * std::abs(a - x) / scale, a > 0 ? w * sign / (2 * a * scale) : 0};
}

template <class Real>
void far_residual(const FarResidual<Real>& args) {
  const auto kind = static_cast<ResidualKind>(args.kind);
  if (args.to_background != nullptr && !args.onto) std::fill_n(args.to_background, args.frame, Real(0));
  for (std::int64_t j = 0; j < args.patterns; ++j) {
    const Real *data = args.data + j * args.frame, *weight = args.weight_of(j);
    const auto at = [&](std::int64_t m, std::int64_t i) { return (j * args.modes + m) * args.frame + i; };
    std::vector<Real> intensity(static_cast<std::size_t>(args.frame));
    bool finite = true, lit = false, counts = false, infinite = false;
    Real loss = 0, off = 0, all = 0;
    for (std::int64_t i = 0; i < args.frame; ++i) {
      intensity[i] = args.background == nullptr ? 0 : args.background[i];
      for (std::int64_t m = 0; m < args.modes; ++m) intensity[i] += std::norm(read(args.psi, at(m, i)));
      const Real w = weight == nullptr ? 1 : weight[i];
      finite = finite && std::isfinite(intensity[i]) && std::isfinite(w) && (w == 0 || std::isfinite(data[i]));
      if (!(w > 0)) continue;
      const Real one = pixel(kind, w, intensity[i], data[i], args.scale).loss;
      lit = true;
      counts = counts || data[i] > 0;
      infinite = infinite || std::isinf(one);
      loss += one;
      off += w * std::abs(std::sqrt(intensity[i]) - data[i]);
      all += w * data[i];
    }
    const PatternStatus status = !finite    ? PatternStatus::nonfinite
                                 : !lit     ? PatternStatus::masked
                                 : infinite ? PatternStatus::infinite
                                 : !counts  ? PatternStatus::dark
                                            : PatternStatus::ok;
    args.status[j] = static_cast<std::int8_t>(status);
    args.loss[j] = finite ? loss : 0;
    args.misfit[j] = finite ? off / all : std::numeric_limits<Real>::quiet_NaN();
    for (std::int64_t i = 0; i < args.frame; ++i) {
      const Real w = weight == nullptr ? 1 : weight[i];
      const bool valid = finite && w > 0;
      const Real slope = valid ? pixel(kind, w, intensity[i], data[i], args.scale).slope : 0;
      const Real a = std::sqrt(intensity[i]);
      for (std::int64_t m = 0; m < args.modes; ++m) {
        const std::complex<Real> psi = read(args.psi, at(m, i));
        if (kind == ResidualKind::projection)
          write(args.out, at(m, i), valid && a > 0 ? psi * (data[i] / a) : psi);
        else
          write(args.out, at(m, i), finite ? 2 * slope * psi : 0);
      }
      if (args.to_background != nullptr) args.to_background[i] += slope;
    }
  }
}

}  // namespace

SEM_REFERENCE(FarResidual, far_residual)

}  // namespace sem::reference
