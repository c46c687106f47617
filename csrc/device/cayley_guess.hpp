// A first guess for the Cayley solve: y = p(H) psi, for a psi whose mean over nodes is zero. p is the polynomial of its
// degree whose residual 1 - (1 + ia lambda) p is smallest on the interval of H's other eigenvalues: with
// z in [-1, 1] there and z0 the point at which 1 + ia lambda = 0, the residual is T_m(z) / T_m(z0).
//
// Each degree costs one product where an iteration of conjugate gradients on the normal form costs two, and takes no
// sums over nodes. What the true residual shows to be unsolved is left to conjugate gradients.
#pragma once

#include <cstdint>

#include "device/spectrum.hpp"
#include "device/tile.hpp"

namespace sem::device {

struct CayleyGuess {
  static constexpr int kMaxDegree = 32;
  // Of the tolerance; leaves room for coefficients in float32.
  static constexpr float kShare = 0.8f;

  std::int32_t degree;
  float scale, shift;  // 2z(H) = scale H - shift
  float re[kMaxDegree + 1], im[kMaxDegree + 1];
};

// No guess costs more products than `max_iter` iterations would. By one thread.
SEM_DEVICE void make_guess(const Interval& eigenvalues, float half_dt, float tol, std::int32_t max_iter,
                           CayleyGuess& out) {
  out.degree = 0;
  out.scale = out.shift = 0;
  out.re[0] = 1;
  out.im[0] = 0;
  // 1 + ia lambda = 1 + i (middle + half z), with a > 0; below 5e-4 a narrower interval gains nothing.
  const float size = abs(half_dt);
  const float middle = 0.5f * size * (eigenvalues.high + eigenvalues.low);
  float half = 0.5f * size * (eigenvalues.high - eigenvalues.low);
  if (half < 5e-4f) half = 5e-4f;
  if (!(size > 0) || !(middle + half < 1e6f)) return;
  // z0 = (-middle + i) / half, s^2 = z0^2 - 1, t = z0 - s = 1 / (z0 + s) inside the unit circle
  const float z_re = -middle / half, z_im = 1 / half;
  const float s2_re = (z_re - z_im) * (z_re + z_im) - 1, s2_im = 2 * z_re * z_im;
  const float s2 = sqrt(s2_re * s2_re + s2_im * s2_im);
  const float major = sqrt(0.5f * (s2 + abs(s2_re))), minor = -0.5f * s2_im / major;
  const float s_re = s2_re > 0 ? -major : -minor, s_im = s2_re > 0 ? minor : major;
  const float inverse2 = 1 / ((z_re + s_re) * (z_re + s_re) + (z_im + s_im) * (z_im + s_im));
  const float t_re = (z_re + s_re) * inverse2, t_im = -(z_im + s_im) * inverse2;

  const int most = max_iter < CayleyGuess::kMaxDegree / 2 ? 2 * max_iter : CayleyGuess::kMaxDegree;
  const float modulus = sqrt(inverse2);
  float residual = 2 * modulus;  // of degree 0, nearly
  while (out.degree < most && !(residual <= CayleyGuess::kShare * tol)) {
    residual *= modulus;
    ++out.degree;
  }
  // p = (i / half) / s sum_k c_k T_k(z), c_k = 2 (t^k - t^(2m - k)) / (1 + t^2m) with m = degree + 1, half of it for
  // k = 0. With u = t^(2m - k) going down from t^m: u_k = t^m t^(m - k).
  const int m = out.degree + 1;
  float tm_re = 1, tm_im = 0;  // t^k, in the end t^m
  for (int k = 0; k < m; ++k) {
    if (k <= out.degree) {
      out.re[k] = tm_re;
      out.im[k] = tm_im;
    }
    const float re = tm_re * t_re - tm_im * t_im;
    tm_im = tm_re * t_im + tm_im * t_re;
    tm_re = re;
  }
  const float last_re = tm_re * tm_re - tm_im * tm_im, last_im = 2 * tm_re * tm_im;
  const float d_re = half * (s_re * (1 + last_re) - s_im * last_im);
  const float d_im = half * (s_re * last_im + s_im * (1 + last_re));
  const float d2 = d_re * d_re + d_im * d_im;
  const float f_re = d_im / d2, f_im = d_re / d2;  // i / d
  const float sign = half_dt < 0 ? -1.0f : 1.0f;
  float up_re = tm_re * t_re - tm_im * t_im, up_im = tm_re * t_im + tm_im * t_re;  // t^(2m - k) for k = degree
  for (int k = out.degree; k >= 0; --k) {
    const float factor = k == 0 ? 1.0f : 2.0f;
    const float c_re = factor * (out.re[k] - up_re), c_im = factor * (out.im[k] - up_im);
    out.re[k] = c_re * f_re - c_im * f_im;
    out.im[k] = sign * (c_re * f_im + c_im * f_re);
    const float re = up_re * t_re - up_im * t_im;
    up_im = up_re * t_im + up_im * t_re;
    up_re = re;
  }
  out.scale = 2 * size / half;
  out.shift = -2 * z_re;
}

// x = p(H) psi by Clenshaw's recurrence b_n = c_n psi + 2z(H) b_(n+1) - b_(n+2), x = c_0 psi + z(H) b_1 - b_2, whose b
// of the highest degree is a multiple of psi. x is left where it can be gathered too, in tile.one or tile.two, whose
// address is returned; `before` is working memory. Barriers before and after.
template <class Tile>
SEM_DEVICE float* apply_guess(const Tile& tile, const Prepared& h, const CayleyGuess& guess, typename Tile::Vector& psi,
                              typename Tile::Vector& before, typename Tile::Vector& x) {
  const int degree = guess.degree;
  float *from = tile.one, *to = tile.two;
  const float top_re = guess.re[degree], top_im = guess.im[degree];
  tile.each([&](int k, std::int64_t i) {
    const float re = psi.at(k, i, 0), im = psi.at(k, i, 1);
    x.at(k, i, 0) = top_re * re - top_im * im;
    x.at(k, i, 1) = top_re * im + top_im * re;
    before.at(k, i, 0) = before.at(k, i, 1) = 0;
  });
  tile.publish(x, from);
  tile.group.barrier();
  for (int n = degree - 1; n >= 0; --n) {
    const float scale = n == 0 ? 0.5f * guess.scale : guess.scale;
    const float shift = n == 0 ? 0.5f * guess.shift : guess.shift;
    const float c_re = guess.re[n], c_im = guess.im[n];
    tile.each([&](int k, std::int64_t i) {
      float hx[2];
      tile.product(h, from, i, hx);
      const float re = psi.at(k, i, 0), im = psi.at(k, i, 1);
      const float x_re = x.at(k, i, 0), x_im = x.at(k, i, 1);
      x.at(k, i, 0) = (scale * hx[0] - (shift * x_re + before.at(k, i, 0)) + c_re * re) - c_im * im;
      x.at(k, i, 1) = (scale * hx[1] - (shift * x_im + before.at(k, i, 1)) + c_re * im) + c_im * re;
      before.at(k, i, 0) = x_re;
      before.at(k, i, 1) = x_im;
    });
    tile.publish(x, to);
    tile.group.barrier();
    float* const swap = from;
    from = to;
    to = swap;
  }
  return from;
}

}  // namespace sem::device
