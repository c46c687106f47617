// A first guess for the Cayley solve: y = p(H) psi, for a psi whose mean over nodes is zero. p is the polynomial of its
// degree whose residual 1 - (1 + ia lambda) p is smallest on the interval of H's other eigenvalues: with
// z in [-1, 1] there and z0 the point at which 1 + ia lambda = 0, the residual is T_m(z) / T_m(z0).
//
// Each degree costs one product where an iteration of conjugate gradients on the normal form costs two, and for the
// same number of products the polynomial gains more: I + iaH has its spectrum on one side of the real axis, which
// squaring H forgets. It takes no sums over nodes and its coefficients belong to the graph, not to a row. The guess
// needs no faith: what its true residual shows to be unsolved is left to conjugate gradients.
#pragma once

#include "cpu/laplacian_tile.hpp"
#include "cpu/spectrum.hpp"

namespace sem::cpu::SEM_ISA {

class CayleyGuess {
 public:
  static constexpr int kMaxDegree = 32;

  // No guess costs more products than `max_iter` iterations would.
  CayleyGuess(const TileGraph& h, float half_dt, float tol, std::int32_t max_iter) : h_(h) {
    const Interval eigenvalues = spectrum(h);
    // 1 + ia lambda = 1 + i (middle + half z), with a > 0; below 5e-4 a narrower interval gains nothing.
    const double size = std::fabs(static_cast<double>(half_dt));
    const double middle = 0.5 * size * (eigenvalues.high + eigenvalues.low);
    double half = 0.5 * size * (eigenvalues.high - eigenvalues.low);
    if (half < 5e-4) half = 5e-4;
    if (!(size > 0) || !(middle + half < 1e6)) return;
    // z0 = (-middle + i) / half, s^2 = z0^2 - 1, t = z0 - s = 1 / (z0 + s) inside the unit circle
    const double z_re = -middle / half, z_im = 1 / half;
    const double s2_re = z_re * z_re - z_im * z_im - 1, s2_im = 2 * z_re * z_im;
    const double s2 = std::sqrt(s2_re * s2_re + s2_im * s2_im);
    const double major = std::sqrt(0.5 * (s2 + std::fabs(s2_re))), minor = -0.5 * s2_im / major;
    const double s_re = s2_re > 0 ? -major : -minor, s_im = s2_re > 0 ? minor : major;
    const double inverse2 = 1 / ((z_re + s_re) * (z_re + s_re) + (z_im + s_im) * (z_im + s_im));
    const double t_re = (z_re + s_re) * inverse2, t_im = -(z_im + s_im) * inverse2;

    const int most = max_iter < kMaxDegree / 2 ? 2 * max_iter : kMaxDegree;
    const double modulus = std::sqrt(inverse2);
    double residual = 2 * modulus;  // of degree 0, nearly
    while (degree_ < most && !(residual <= kShare * tol)) {
      residual *= modulus;
      ++degree_;
    }
    // p = (i / half) / s sum_k c_k T_k(z), c_k = 2 (t^k - t^(2m - k)) / (1 + t^2m) with m = degree + 1, half of it for
    // k = 0
    double power_re[2 * kMaxDegree + 3], power_im[2 * kMaxDegree + 3];
    power_re[0] = 1;
    power_im[0] = 0;
    const int last = 2 * (degree_ + 1);
    for (int k = 0; k < last; ++k) {
      power_re[k + 1] = power_re[k] * t_re - power_im[k] * t_im;
      power_im[k + 1] = power_re[k] * t_im + power_im[k] * t_re;
    }
    const double d_re = half * (s_re * (1 + power_re[last]) - s_im * power_im[last]);
    const double d_im = half * (s_re * power_im[last] + s_im * (1 + power_re[last]));
    const double d2 = d_re * d_re + d_im * d_im;
    const double f_re = d_im / d2, f_im = d_re / d2;  // i / d
    const double sign = half_dt < 0 ? -1 : 1;
    for (int k = 0; k <= degree_; ++k) {
      const double factor = k == 0 ? 1 : 2;
      const double c_re = factor * (power_re[k] - power_re[last - k]), c_im = factor * (power_im[k] - power_im[last - k]);
      re_[k] = static_cast<float>(c_re * f_re - c_im * f_im);
      im_[k] = static_cast<float>(sign * (c_re * f_im + c_im * f_re));
    }
    scale_ = static_cast<float>(2 * size / half);
    shift_ = static_cast<float>(-2 * z_re);
  }

  // What the guess costs, in iterations of two products.
  std::int32_t iterations() const { return (degree_ + 1) / 2; }

  // y = p(H) psi by Clenshaw's recurrence b_n = c_n psi + 2 z(H) b_(n+1) - b_(n+2), y = c_0 psi + z(H) b_1 - b_2;
  // `one` and `two` are working memory.
  void apply(const float* psi, float* one, float* two, float* y) const {
    zero(two, h_.nodes() * 2 * kLanes);
    if (degree_ == 0) return step(0, 0.0f, 0.0f, psi, two, two, y);
    for (std::int64_t i = 0; i < h_.nodes(); ++i) write(degree_, psi, i, vfloat{}, vfloat{}, one);
    for (int n = degree_ - 1; n > 0; --n) {
      step(n, scale_, shift_, psi, one, two, two);
      float* const held = one;
      one = two;
      two = held;
    }
    step(0, 0.5f * scale_, 0.5f * shift_, psi, one, two, y);
  }

 private:
  // Of the tolerance, leaves room for rounding.
  static constexpr double kShare = 0.96;

  // out = c_n psi + scale H one - shift one - two, node by node, so that `out` may be `two`.
  void step(int n, float scale, float shift, const float* psi, const float* one, const float* two, float* out) const {
    h_.for_each_row<2>(one, [&](std::int64_t i, const vfloat(&h_one)[2]) SEM_INLINE_LAMBDA {
      const std::int64_t re = i * 2 * kLanes, im = re + kLanes;
      write(n, psi, i, scale * h_one[0] - (shift * load(one + re) + load(two + re)),
            scale * h_one[1] - (shift * load(one + im) + load(two + im)), out);
    });
  }

  // out = c_n psi + (add_re, add_im) at node i
  SEM_INLINE void write(int n, const float* psi, std::int64_t i, vfloat add_re, vfloat add_im, float* out) const {
    const std::int64_t re = i * 2 * kLanes, im = re + kLanes;
    const vfloat psi_re = load(psi + re), psi_im = load(psi + im);
    store(out + re, (add_re + re_[n] * psi_re) - im_[n] * psi_im);
    store(out + im, (add_im + re_[n] * psi_im) + im_[n] * psi_re);
  }

  const TileGraph& h_;
  int degree_ = 0;
  float scale_ = 0, shift_ = 0;  // 2z(H) = scale H - shift
  float re_[kMaxDegree + 1] = {1.0f}, im_[kMaxDegree + 1] = {};
};

}  // namespace sem::cpu::SEM_ISA
