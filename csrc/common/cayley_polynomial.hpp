// A first guess for the Cayley solve: y = p(H) psi, for a psi whose mean over nodes is zero. p is the polynomial of its
// degree whose residual 1 - (1 + ia lambda) p is smallest on the interval of H's other eigenvalues: with
// z in [-1, 1] there and z0 the point at which 1 + ia lambda = 0, the residual is T_m(z) / T_m(z0).
//
// Each degree costs one product where an iteration of conjugate gradients on the normal form costs two, and for the
// same number of products the polynomial gains more: I + iaH has its spectrum on one side of the real axis, which
// squaring H forgets. It takes no sums over nodes and its coefficients belong to the graph, not to a row. The guess
// needs no faith: what its true residual shows to be unsolved is left to conjugate gradients.
#pragma once

#include <cstdint>

#include "common/tridiagonal.hpp"

namespace sem::common {

// p = sum_k (re + i im)_k T_k(z).
template <class Real>
struct CayleyPolynomial {
  static constexpr int kMaxDegree = 32;

  std::int32_t degree;
  Real scale, shift;  // 2z(H) = scale H - shift
  Real re[kMaxDegree + 1], im[kMaxDegree + 1];
};

// Of the degree whose residual is `goal`, but with no more products than `max_iter` iterations would take. Math has the
// back end's type Real and its functions sqrt and abs.
template <class Math>
SEM_COMMON void find_cayley_polynomial(const Interval<typename Math::Real>& eigenvalues, typename Math::Real half_dt,
                                       typename Math::Real goal, std::int32_t max_iter,
                                       CayleyPolynomial<typename Math::Real>& out) {
  using Real = typename Math::Real;
  constexpr int kMaxDegree = CayleyPolynomial<Real>::kMaxDegree;
  out.degree = 0;
  out.scale = out.shift = 0;
  out.re[0] = 1;
  out.im[0] = 0;
  // 1 + ia lambda = 1 + i (middle + half z), with a > 0; below 5e-4 a narrower interval gains nothing.
  const Real size = Math::abs(half_dt);
  const Real middle = Real(0.5) * size * (eigenvalues.high + eigenvalues.low);
  Real half = Real(0.5) * size * (eigenvalues.high - eigenvalues.low);
  if (half < Real(5e-4)) half = Real(5e-4);
  if (!(size > 0) || !(middle + half < Real(1e6))) return;
  // z0 = (-middle + i) / half, s^2 = z0^2 - 1, t = z0 - s = 1 / (z0 + s) inside the unit circle
  const Real z_re = -middle / half, z_im = 1 / half;
  const Real s2_re = (z_re - z_im) * (z_re + z_im) - 1, s2_im = 2 * z_re * z_im;
  const Real s2 = Math::sqrt(s2_re * s2_re + s2_im * s2_im);
  const Real major = Math::sqrt(Real(0.5) * (s2 + Math::abs(s2_re))), minor = Real(-0.5) * s2_im / major;
  const Real s_re = s2_re > 0 ? -major : -minor, s_im = s2_re > 0 ? minor : major;
  const Real inverse2 = 1 / ((z_re + s_re) * (z_re + s_re) + (z_im + s_im) * (z_im + s_im));
  const Real t_re = (z_re + s_re) * inverse2, t_im = -(z_im + s_im) * inverse2;

  const int most = max_iter < kMaxDegree / 2 ? 2 * max_iter : kMaxDegree;
  const Real modulus = Math::sqrt(inverse2);
  Real residual = 2 * modulus;  // of degree 0, nearly
  while (out.degree < most && !(residual <= goal)) {
    residual *= modulus;
    ++out.degree;
  }
  // p = (i / half) / s sum_k c_k T_k(z), c_k = 2 (t^k - t^(2m - k)) / (1 + t^2m) with m = degree + 1, half of it for
  // k = 0. With u = t^(2m - k) going down from t^m: u_k = t^m t^(m - k).
  const int m = out.degree + 1;
  Real tm_re = 1, tm_im = 0;  // t^k, in the end t^m
  for (int k = 0; k < m; ++k) {
    out.re[k] = tm_re;
    out.im[k] = tm_im;
    const Real re = tm_re * t_re - tm_im * t_im;
    tm_im = tm_re * t_im + tm_im * t_re;
    tm_re = re;
  }
  const Real last_re = tm_re * tm_re - tm_im * tm_im, last_im = 2 * tm_re * tm_im;
  const Real d_re = half * (s_re * (1 + last_re) - s_im * last_im);
  const Real d_im = half * (s_re * last_im + s_im * (1 + last_re));
  const Real d2 = d_re * d_re + d_im * d_im;
  const Real f_re = d_im / d2, f_im = d_re / d2;  // i / d
  const Real sign = half_dt < 0 ? Real(-1) : Real(1);
  Real up_re = tm_re * t_re - tm_im * t_im, up_im = tm_re * t_im + tm_im * t_re;  // t^(2m - k) for k = degree
  for (int k = out.degree; k >= 0; --k) {
    const Real factor = k == 0 ? Real(1) : Real(2);
    const Real c_re = factor * (out.re[k] - up_re), c_im = factor * (out.im[k] - up_im);
    out.re[k] = c_re * f_re - c_im * f_im;
    out.im[k] = sign * (c_re * f_im + c_im * f_re);
    const Real re = up_re * t_re - up_im * t_im;
    up_im = up_re * t_im + up_im * t_re;
    up_re = re;
  }
  out.scale = 2 * size / half;
  out.shift = -2 * z_re;
}

}  // namespace sem::common
