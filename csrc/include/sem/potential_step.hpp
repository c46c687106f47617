// potential_step: every entry of a wave turned by a potential and by its own share of the row's intensity (the
// potential half of a split step, whose kinetic half mixes entries).
//
//   out_d = exp(i phi_d) psi_d,   phi_d = potential_d + kerr_d I_d,   I_d = |psi_d|^2 / m
//
// with m the mean of |psi|^2 over the row, taken as at least the smallest normal float32: a row of zeros stays one.
// Moduli are kept. Complex arrays are real blocks [..., 2].
#pragma once

#include "sem/types.hpp"

namespace sem {

inline constexpr double kLeastMeanIntensity = 1.1754943508222875e-38;

template <class Real>
struct PotentialStepForward {
  static constexpr const char* kName = "potential_step_forward";

  std::int64_t rows = 0;
  std::int64_t width = 0;
  const Real* psi = nullptr;        // [rows, width, 2]
  const Real* potential = nullptr;  // [rows, width], in radians
  const Real* kerr = nullptr;       // [width]
  Real* out = nullptr;              // [rows, width, 2]

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", rows);
    field("width", width);
    field("psi", psi, rows * width * 2);
    field("potential", potential, rows * width);
    field("kerr", kerr, width);
    field("out", out, rows * width * 2);
  }
};

// With G the gradient to out, q_d = Re( conj(i out_d) G_d ) that to phi_d, and t_d = q_d kerr_d:
//   g_psi_d = exp(-i phi_d) G_d + (2 / m) (t_d - mean over e of t_e I_e) psi_d,
//   g_potential = q,    g_kerr_d = sum over rows of q_d I_d,
// without the mean where m is held at its least value.
template <class Real>
struct PotentialStepBackward {
  static constexpr const char* kName = "potential_step_backward";

  std::int64_t rows = 0;
  std::int64_t width = 0;
  const Real* psi = nullptr;
  const Real* potential = nullptr;
  const Real* kerr = nullptr;
  const Real* grad_out = nullptr;  // [rows, width, 2]
  Real* grad_psi = nullptr;
  Real* grad_potential = nullptr;
  Real* grad_kerr = nullptr;

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", rows);
    field("width", width);
    field("psi", psi, rows * width * 2);
    field("potential", potential, rows * width);
    field("kerr", kerr, width);
    field("grad_out", grad_out, rows * width * 2);
    field("grad_psi", grad_psi, rows * width * 2);
    field("grad_potential", grad_potential, rows * width);
    field("grad_kerr", grad_kerr, width);
  }
};

}  // namespace sem
