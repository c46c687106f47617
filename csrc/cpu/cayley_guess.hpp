// A first guess for the Cayley solve: y = p(H) psi, for a psi whose mean over nodes is zero. p is the polynomial of its
// degree whose residual 1 - (1 + ia lambda) p is smallest on the interval of H's other eigenvalues: with
// z in [-1, 1] there and z0 the point at which 1 + ia lambda = 0, the residual is T_m(z) / T_m(z0).
//
// Each degree costs one product where an iteration of conjugate gradients on the normal form costs two, and for the
// same number of products the polynomial gains more: I + iaH has its spectrum on one side of the real axis, which
// squaring H forgets. It takes no sums over nodes and its coefficients belong to the graph, not to a row. The guess
// needs no faith: what its true residual shows to be unsolved is left to conjugate gradients.
#pragma once

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
      const double c_re = factor * (power_re[k] - power_re[last - k]);
      const double c_im = factor * (power_im[k] - power_im[last - k]);
      re_[k] = static_cast<float>(c_re * f_re - c_im * f_im);
      im_[k] = static_cast<float>(sign * (c_re * f_im + c_im * f_re));
    }
    scale_ = static_cast<float>(2 * size / half);
    shift_ = static_cast<float>(-2 * z_re);
  }

  // What the guess costs, in iterations of two products.
  std::int32_t iterations() const { return (degree_ + 1) / 2; }

  // y = p(H) psi by Clenshaw's recurrence b_n = c_n psi + 2z(H) b_(n+1) - b_(n+2), y = c_0 psi + z(H) b_1 - b_2, whose
  // b of the highest degree is a multiple of psi and not formed; `one` and `two` are working memory.
  void apply(const float* psi, float* one, float* two, float* y) const {
    if (degree_ == 0) return multiple(psi, y);
    first_step(psi, degree_ == 1 ? y : one);
    for (int n = degree_ - 2; n >= 0; --n) {
      float* const out = n == 0 ? y : two;
      n == degree_ - 2 ? step<false>(n, psi, one, two, out) : step<true>(n, psi, one, two, out);
      two = one;
      one = out;
    }
  }

 private:
  // Of the tolerance, leaves room for rounding.
  static constexpr double kShare = 0.96;

  // y is made with z, not 2z.
  float scale(int n) const { return n == 0 ? 0.5f * scale_ : scale_; }
  float shift(int n) const { return n == 0 ? 0.5f * shift_ : shift_; }

  void multiple(const float* psi, float* out) const {
    for (std::int64_t i = 0; i < h_.nodes(); ++i) write(re_[0], im_[0], psi, i, vfloat{}, vfloat{}, out);
  }

  // out = c_n psi + c_(n+1) 2z(H) psi for n + 1 the degree
  void first_step(const float* psi, float* out) const {
    const int n = degree_ - 1;
    const float c_re = re_[n + 1] * scale(n), c_im = im_[n + 1] * scale(n);
    const float own_re = re_[n] - re_[n + 1] * shift(n), own_im = im_[n] - im_[n + 1] * shift(n);
    h_.for_each_row<2>(psi, [&](std::int64_t i, const vfloat(&h_psi)[2]) SEM_INLINE_LAMBDA {
      write(own_re, own_im, psi, i, c_re * h_psi[0] - c_im * h_psi[1], c_re * h_psi[1] + c_im * h_psi[0], out);
    });
  }

  // out = c_n psi + 2z(H) one - two, node by node, so that `out` may be `two`; if not kTwo, b_(n+2) is of the degree.
  template <bool kTwo>
  void step(int n, const float* psi, const float* one, const float* two, float* out) const {
    const float scale = this->scale(n), shift = this->shift(n);
    const float c_re = re_[n] - (kTwo ? 0.0f : re_[n + 2]), c_im = im_[n] - (kTwo ? 0.0f : im_[n + 2]);
    h_.for_each_row<2>(one, [&](std::int64_t i, const vfloat(&h_one)[2]) SEM_INLINE_LAMBDA {
      const std::int64_t re = i * 2 * kLanes, im = re + kLanes;
      vfloat less_re = shift * load(one + re), less_im = shift * load(one + im);
      if constexpr (kTwo) {
        less_re += load(two + re);
        less_im += load(two + im);
      }
      write(c_re, c_im, psi, i, scale * h_one[0] - less_re, scale * h_one[1] - less_im, out);
    });
  }

  // out = c psi + add at node i
  static SEM_INLINE void write(float c_re, float c_im, const float* psi, std::int64_t i, vfloat add_re, vfloat add_im,
                               float* out) {
    const std::int64_t re = i * 2 * kLanes, im = re + kLanes;
    const vfloat psi_re = load(psi + re), psi_im = load(psi + im);
    store(out + re, (add_re + c_re * psi_re) - c_im * psi_im);
    store(out + im, (add_im + c_re * psi_im) + c_im * psi_re);
  }

  const TileGraph& h_;
  int degree_ = 0;
  float scale_ = 0, shift_ = 0;  // 2z(H) = scale H - shift
  float re_[kMaxDegree + 1] = {1.0f}, im_[kMaxDegree + 1] = {};
};

}  // namespace sem::cpu::SEM_ISA
