// The first guess of common/cayley_polynomial.hpp, in float32.
#pragma once

#include <cstdint>

#include "common/cayley_polynomial.hpp"
#include "device/spectrum.hpp"
#include "device/tile.hpp"

namespace sem::device {

using CayleyGuess = common::CayleyPolynomial<float>;

struct GuessMath {
  using Real = float;
  static SEM_DEVICE float sqrt(float x) { return device::sqrt(x); }
  static SEM_DEVICE float abs(float x) { return device::abs(x); }
};

// By one thread.
SEM_DEVICE void make_guess(const Interval& eigenvalues, float half_dt, float tol, std::int32_t max_iter,
                           CayleyGuess& out) {
  constexpr float kShare = 0.8f;  // of the tolerance: leaves room for coefficients in float32
  common::find_cayley_polynomial<GuessMath>(eigenvalues, half_dt, kShare * tol, max_iter, out);
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
