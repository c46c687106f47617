#include "sem/pit.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "reference/run.hpp"

namespace sem::reference {
namespace {

constexpr double kTwoPi = 6.283185307179586476925;

// One row: the phases in bins and their density, straight from the definition.
template <class Real>
class Row {
 public:
  Row(const Real* psi, const Real* kerr, std::int64_t width, std::int32_t num_bins)
      : bins_(num_bins), psi_(2 * width), u_(width), intensity_(width), kerr_phase_(width) {
    Real largest = 0;
    for (std::int64_t i = 0; i < 2 * width; ++i) {
      if (!std::isfinite(psi[i])) finite_ = false;
      largest = std::max(largest, std::abs(psi[i]));
    }
    if (!finite_ || largest == 0) return;
    for (std::int64_t d = 0; d < width && kerr != nullptr; ++d)
      if (!std::isfinite(kerr[d])) finite_ = false;
    if (!finite_) return;
    exponent_ = std::ilogb(largest);
    rho_.assign(num_bins, 0);
    counted_.assign(width, false);
    Real square = 0;
    for (std::int64_t d = 0; d < width; ++d) {
      const Real re = psi_[2 * d] = std::scalbn(psi[2 * d], -exponent_);
      const Real im = psi_[2 * d + 1] = std::scalbn(psi[2 * d + 1], -exponent_);
      intensity_[d] = re * re + im * im;
      square += intensity_[d];
    }
    mean_ = square / width;
    for (std::int64_t d = 0; d < width; ++d) {
      const Real re = psi_[2 * d], im = psi_[2 * d + 1];
      intensity_[d] /= mean_;
      if (kerr != nullptr) kerr_phase_[d] = kerr[d] * intensity_[d];
      counted_[d] = std::max(std::abs(re), std::abs(im)) > Real(std::ldexp(1.0, -100));
      if (!counted_[d]) continue;
      count_ += 1;
      u_[d] = (std::atan2(im, re) + kerr_phase_[d]) / sigma();
      for (std::int32_t k = 0; k < bins_; ++k) rho_[k] += kernel(u_[d] - k).value;
    }
  }

  struct Derivatives {
    Real value = 0, first = 0, second = 0;
  };

  // g and its derivatives at x, summed over whole turns.
  Derivatives kernel(Real x) const {
    x -= bins_ * std::round(x / bins_);
    const int turns = bins_ < 20 ? 20 / bins_ + 1 : 0;
    Derivatives sum;
    for (int turn = -turns; turn <= turns; ++turn) {
      const Real y = x - turn * bins_;
      const Real g = std::exp(-y * y / 2);
      sum.value += g;
      sum.first -= y * g;
      sum.second += (y * y - 1) * g;
    }
    return sum;
  }

  Derivatives density(std::int64_t d) const {
    Derivatives n;
    for (std::int32_t k = 0; k < bins_; ++k) {
      const Derivatives g = kernel(u_[d] - k);
      n.value += rho_[k] * g.value;
      n.first += rho_[k] * g.first;
      n.second += rho_[k] * g.second;
    }
    return n;
  }

  bool finite() const { return finite_; }
  bool zero() const { return finite_ && rho_.empty(); }
  bool counted(std::int64_t d) const { return counted_[d]; }
  Real re(std::int64_t d) const { return psi_[2 * d]; }  // of psi / 2^exponent
  Real im(std::int64_t d) const { return psi_[2 * d + 1]; }
  Real u(std::int64_t d) const { return u_[d]; }
  Real mean() const { return mean_; }  // of |psi / 2^exponent|^2
  Real rms() const { return std::sqrt(mean_); }
  Real intensity(std::int64_t d) const { return intensity_[d]; }  // over its mean
  Real kerr_phase(std::int64_t d) const { return kerr_phase_[d]; }
  int exponent() const { return exponent_; }
  Real sigma() const { return static_cast<Real>(kTwoPi / bins_); }
  Real uniform() const { return static_cast<Real>(kTwoPi * count_ / bins_); }

 private:
  std::int32_t bins_;
  std::vector<Real> psi_, u_, rho_, intensity_, kerr_phase_;
  std::vector<bool> counted_;
  Real mean_ = 0;
  int exponent_ = 0;
  std::int64_t count_ = 0;
  bool finite_ = true;
};

// Shift per unit of strength: -+ sigma f(s).
template <class Real>
Real shift_sign(PitRule rule) {
  return rule == PitRule::score ? Real(-1) : Real(1);
}

}  // namespace

template <class Real>
void pit_forward(const PitForward<Real>& args) {
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const Real* psi = args.psi + r * 2 * args.width;
    Real* out = args.out + r * 2 * args.width;
    const Row<Real> row(psi, args.kerr, args.width, args.num_bins);
    const Real sign = shift_sign<Real>(args.rule);
    for (std::int64_t d = 0; d < args.width; ++d) {
      if (!row.finite() || row.zero()) {
        out[2 * d] = out[2 * d + 1] = row.zero() ? Real(0) : std::numeric_limits<Real>::quiet_NaN();
        continue;
      }
      Real shift = 0;
      if (row.counted(d)) {
        const auto n = row.density(d);
        const Real s = args.rule == PitRule::score ? n.first / n.value : row.uniform() / n.value - 1;
        shift = sign * args.strength[0] * row.sigma() * s / std::sqrt(1 + s * s);
      }
      const Real turn = row.kerr_phase(d) + shift;
      const Real cosine = std::cos(turn), sine = std::sin(turn);
      const Real re = row.re(d) * cosine - row.im(d) * sine, im = row.re(d) * sine + row.im(d) * cosine;
      if (args.reference_rms != nullptr) {
        out[2 * d] = re * (args.reference_rms[r] / row.rms());
        out[2 * d + 1] = im * (args.reference_rms[r] / row.rms());
      } else {
        out[2 * d] = std::scalbn(re, row.exponent());
        out[2 * d + 1] = std::scalbn(im, row.exponent());
      }
    }
  }
}

template <class Real>
void pit_backward(const PitBackward<Real>& args) {
  const std::int64_t width = args.width;
  const bool score = args.rule == PitRule::score;
  Real grad_strength = 0;
  for (std::int64_t d = 0; d < width && args.kerr != nullptr; ++d) args.grad_kerr[d] = 0;
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const Real* grad_out = args.grad_out + r * 2 * width;
    Real* grad_psi = args.grad_psi + r * 2 * width;
    const Row<Real> row(args.psi + r * 2 * width, args.kerr, width, args.num_bins);
    if (!row.finite() || row.zero()) {
      const Real nan = std::numeric_limits<Real>::quiet_NaN();
      for (std::int64_t i = 0; i < 2 * width; ++i)
        grad_psi[i] = !row.finite() ? nan : args.reference_rms == nullptr ? grad_out[i] : Real(0);
      if (args.grad_reference_rms != nullptr) args.grad_reference_rms[r] = row.finite() ? Real(0) : nan;
      if (!row.finite()) grad_strength = nan;
      for (std::int64_t d = 0; d < width && args.kerr != nullptr && !row.finite(); ++d) args.grad_kerr[d] = nan;
      continue;
    }
    const Real direction = shift_sign<Real>(args.rule) * row.sigma();
    // p = psi / 2^exponent is what the formulas of the header are evaluated on; `scale` turns dL/dp into dL/dpsi.
    const bool rescaled = args.reference_rms != nullptr;
    const Real c = rescaled ? args.reference_rms[r] / row.rms() : std::scalbn(Real(1), row.exponent());
    const Real scale = rescaled ? std::scalbn(c, -row.exponent()) : Real(1);
    std::vector<Real> q(2 * width), angular(width), local(width, 0), lambda(args.num_bins, 0);
    Real radial = 0;
    for (std::int64_t d = 0; d < width; ++d) {
      Real shift = 0, s = 0, bounded = 0;
      typename Row<Real>::Derivatives n;
      if (row.counted(d)) {
        n = row.density(d);
        s = score ? n.first / n.value : row.uniform() / n.value - 1;
        bounded = s / std::sqrt(1 + s * s);
        shift = direction * args.strength[0] * bounded;
      }
      const Real cosine = std::cos(row.kerr_phase(d) + shift), sine = std::sin(row.kerr_phase(d) + shift);
      q[2 * d] = cosine * grad_out[2 * d] + sine * grad_out[2 * d + 1];
      q[2 * d + 1] = cosine * grad_out[2 * d + 1] - sine * grad_out[2 * d];
      radial += row.re(d) * q[2 * d] + row.im(d) * q[2 * d + 1];
      const Real w = angular[d] = row.re(d) * q[2 * d + 1] - row.im(d) * q[2 * d];
      if (!row.counted(d)) continue;
      grad_strength += c * w * direction * bounded;
      const Real h = direction * args.strength[0] * w / std::pow(1 + s * s, Real(1.5));
      const Real by_slope = score ? h / n.value : Real(0);
      const Real by_value = score ? -h * s / n.value : -h * row.uniform() / (n.value * n.value);
      local[d] = by_slope * n.second + by_value * n.first;
      for (std::int32_t k = 0; k < args.num_bins; ++k) {
        const auto g = row.kernel(row.u(d) - k);
        lambda[k] += by_slope * g.first + by_value * g.value;
      }
    }
    if (rescaled) args.grad_reference_rms[r] = radial / row.rms();
    const Real pull = rescaled ? radial / (width * row.rms() * row.rms()) : Real(0);
    Real kerr_sum = 0;
    for (std::int64_t d = 0; d < width; ++d) {
      if (row.counted(d)) {
        for (std::int32_t k = 0; k < args.num_bins; ++k) local[d] += lambda[k] * row.kernel(row.u(d) - k).first;
        local[d] /= row.sigma();  // by the phase in radians
      }
      if (args.kerr == nullptr) continue;
      angular[d] += local[d];
      args.grad_kerr[d] += c * angular[d] * row.intensity(d);
      kerr_sum += args.kerr[d] * angular[d] * row.intensity(d);
    }
    for (std::int64_t d = 0; d < width; ++d) {
      const Real re = row.re(d), im = row.im(d);
      Real radial_by_kerr = 0;
      if (args.kerr != nullptr) radial_by_kerr = 2 * (args.kerr[d] * angular[d] - kerr_sum / width) / row.mean();
      Real turn_re = 0, turn_im = 0;  // (dL/dtheta / |p|^2) p
      if (row.counted(d)) {
        const Real size = std::max(std::abs(re), std::abs(im));
        const Real x = re / size, y = im / size;  // |p|^2 itself may underflow
        const Real turn = local[d] / (x * x + y * y) / size;
        turn_re = turn * x;
        turn_im = turn * y;
      }
      grad_psi[2 * d] = scale * (q[2 * d] - (pull - radial_by_kerr) * re - turn_im);
      grad_psi[2 * d + 1] = scale * (q[2 * d + 1] - (pull - radial_by_kerr) * im + turn_re);
    }
  }
  args.grad_strength[0] = grad_strength;
}

SEM_REFERENCE(PitForward, pit_forward)
SEM_REFERENCE(PitBackward, pit_backward)

}  // namespace sem::reference
