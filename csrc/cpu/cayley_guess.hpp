// The first guess of common/cayley_polynomial.hpp, found in double and applied to a tile; on a ring, the solution.
#pragma once

#include "common/cayley_polynomial.hpp"
#include "cpu/ring_solve.hpp"
#include "cpu/spectrum.hpp"

namespace sem::cpu::SEM_ISA {

struct GuessMath {
  using Real = double;
  static SEM_INLINE double sqrt(double x) { return std::sqrt(x); }
  static SEM_INLINE double abs(double x) { return std::fabs(x); }
};

class CayleyGuess {
 public:
  static constexpr int kMaxDegree = common::CayleyPolynomial<double>::kMaxDegree;

  // No guess costs more products than `max_iter` iterations would.
  CayleyGuess(const Graph& graph, const float* edge_weight, const TileGraph& h, float half_dt, float tol,
              std::int32_t max_iter)
      : h_(h), ring_(graph, edge_weight, half_dt), solves_(ring_.applies() && max_iter > 0) {
    if (solves_) return;
    constexpr double kShare = 0.96;  // of the tolerance: leaves room for rounding of its own
    common::CayleyPolynomial<double> found;
    common::find_cayley_polynomial<GuessMath>(spectrum(h), half_dt, kShare * tol, max_iter, found);
    degree_ = found.degree;
    scale_ = static_cast<float>(found.scale);
    shift_ = static_cast<float>(found.shift);
    for (int k = 0; k <= degree_; ++k) {
      re_[k] = static_cast<float>(found.re[k]);
      im_[k] = static_cast<float>(found.im[k]);
    }
  }

  // What the guess costs, in iterations of two products.
  std::int32_t iterations() const { return solves_ ? 1 : (degree_ + 1) / 2; }

  // y = p(H) psi by Clenshaw's recurrence b_n = c_n psi + 2z(H) b_(n+1) - b_(n+2), y = c_0 psi + z(H) b_1 - b_2, whose
  // b of the highest degree is a multiple of psi and not formed; `one` and `two` are working memory.
  void apply(const float* psi, float* one, float* two, float* y) const {
    if (solves_) return ring_.apply(psi, y);
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
  const RingSolve ring_;
  const bool solves_;
  int degree_ = 0;
  float scale_, shift_;  // 2z(H) = scale H - shift
  float re_[kMaxDegree + 1], im_[kMaxDegree + 1];
};

}  // namespace sem::cpu::SEM_ISA
