// A first guess for the Cayley solve: y = p(H) psi with p the Chebyshev series of 1 / (1 + ia lambda) on [0, largest
// eigenvalue of H], cut where its residual is below the tolerance.
//
// Each degree costs one product where an iteration of conjugate gradients on the normal form costs two, and for the
// same number of products the series gains more: I + iaH has its spectrum on one side of the real axis, which squaring
// H forgets. It takes no sums over nodes and its coefficients belong to the graph, not to a row. The guess needs no
// faith: what its true residual shows to be unsolved is left to conjugate gradients.
#pragma once

#include "cpu/laplacian_tile.hpp"

namespace sem::cpu::SEM_ISA {

// Largest eigenvalue of H to a few per cent, from below, by Lanczos steps from a fixed vector.
inline double largest_eigenvalue(const TileGraph& h) {
  constexpr int kSteps = 8;
  const std::int64_t nodes = h.nodes();
  const Scratch scratch(static_cast<std::size_t>(3 * nodes));
  float *v = scratch.data(), *before = v + nodes, *next = before + nodes;
  std::uint32_t random = 1;
  double norm2 = 0;
  for (std::int64_t i = 0; i < nodes; ++i) {
    random = random * 1664525u + 1013904223u;
    v[i] = static_cast<float>(random >> 8) * 0x1p-23f - 1.0f;
    before[i] = 0.0f;
    norm2 += static_cast<double>(v[i]) * v[i];
  }
  const float unit = static_cast<float>(1 / std::sqrt(norm2));
  for (std::int64_t i = 0; i < nodes; ++i) v[i] *= unit;

  double diagonal[kSteps] = {}, beside[kSteps + 1] = {};
  int steps = 0;
  while (steps < kSteps && steps < nodes) {
    h.product_of_one(v, next);
    double along = 0, left = 0;
    for (std::int64_t i = 0; i < nodes; ++i) along += static_cast<double>(next[i]) * v[i];
    for (std::int64_t i = 0; i < nodes; ++i) {
      next[i] -= static_cast<float>(along) * v[i] + static_cast<float>(beside[steps]) * before[i];
      left += static_cast<double>(next[i]) * next[i];
    }
    diagonal[steps++] = along;
    beside[steps] = std::sqrt(left);
    if (!(beside[steps] > 1e-5 * along)) break;  // the vectors so far span all that H reaches
    const float inverse = static_cast<float>(1 / beside[steps]);
    for (std::int64_t i = 0; i < nodes; ++i) {
      before[i] = v[i];
      v[i] = next[i] * inverse;
    }
  }
  // Bisection: x is above every eigenvalue of the tridiagonal matrix T when T - x has only negative pivots.
  double low = 0, high = 0;
  for (int j = 0; j < steps; ++j) {
    const double reach = diagonal[j] + beside[j] + (j + 1 < steps ? beside[j + 1] : 0);
    if (!(reach <= high)) high = reach;
  }
  for (int round = 0; round < 20; ++round) {
    const double x = 0.5 * (low + high);
    double pivot = diagonal[0] - x;
    bool above = pivot < 0;
    for (int j = 1; j < steps && above; ++j) {
      pivot = diagonal[j] - x - beside[j] * beside[j] / pivot;
      above = pivot < 0;
    }
    (above ? high : low) = x;
  }
  return high;
}

class CayleyGuess {
 public:
  static constexpr int kMaxDegree = 32;

  // No guess costs more products than `max_iter` iterations would.
  CayleyGuess(const TileGraph& h, float half_dt, float tol, std::int32_t max_iter) : h_(h) {
    // A little above the estimate; outside the interval the series would not converge. Below 1e-3 nothing is gained.
    const double size = std::fabs(static_cast<double>(half_dt));
    double reach = 1.03 * size * largest_eigenvalue(h);
    if (reach < 1e-3) reach = 1e-3;
    if (!(size > 0) || !(reach < 1e6)) return;
    // On z in [-1, 1] with lambda = reach (1 + z) / (2 size): 1 / (1 + ia lambda) = i q / (z0 - z), z0 = -1 + iq,
    // whose coefficients are those of a geometric series, i q / s (1, 2t, 2t^2, ...), with s^2 = z0^2 - 1, t = z0 - s.
    const double q = 2 / reach, root = std::sqrt(q * q + 4);
    const double excess = 2 * q / (root + q);  // v^2 - q^2 without cancellation
    const double v = std::sqrt(q * q + excess), over = excess / (v + q);
    const double t_re = -over / v, t_im = -over;          // for a > 0; the conjugate for a < 0
    const double s_re = -q / v, s_im = v, s2 = q * root;  // |s|^2
    double c_re = q * s_im / s2, c_im = q * s_re / s2;    // i q / s
    const double modulus = std::sqrt(t_re * t_re + t_im * t_im);
    double residual = (1 + modulus) / std::sqrt(s2);
    const int most = max_iter < kMaxDegree / 2 ? 2 * max_iter : kMaxDegree;
    const double sign = half_dt < 0 ? -1 : 1;
    re_[0] = static_cast<float>(c_re);
    im_[0] = static_cast<float>(sign * c_im);
    c_re *= 2;
    c_im *= 2;
    while (degree_ < most && !(residual <= 0.5 * tol)) {
      const double next = c_re * t_re - c_im * t_im;
      c_im = c_re * t_im + c_im * t_re;
      c_re = next;
      residual *= modulus;
      ++degree_;
      re_[degree_] = static_cast<float>(c_re);
      im_[degree_] = static_cast<float>(sign * c_im);
    }
    scale_ = static_cast<float>(4 * size / reach);
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
      step(n, scale_, 2.0f, psi, one, two, two);
      float* const held = one;
      one = two;
      two = held;
    }
    step(0, 0.5f * scale_, 1.0f, psi, one, two, y);
  }

 private:
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
  float scale_ = 0;
  float re_[kMaxDegree + 1] = {1.0f}, im_[kMaxDegree + 1] = {};
};

}  // namespace sem::cpu::SEM_ISA
