// ring_echo: each row moved forward in time on a ring, turned entry by entry, and moved back.
//
//   out = U^-1 exp(i phi) U psi,   U = (I + iaH)^-1 (I - iaH),   a = half_dt,
//   phi_d = potential_d + kerr_d I_d,   I_d = |u_d|^2 / m,   u = U psi,
//
// with H the weighted Laplacian of the ring whose edge j joins node j to the next one, the last to the first, and m the
// mean of |psi|^2 over the row, which is that of |u|^2, taken as at least the smallest normal float32. U is (2 A^-1 -
// I) for A = I + iaH, cyclic and tridiagonal, and solved by elimination. Norms are kept; without phases a row stays as
// it is. Complex arrays are real blocks [..., 2]; a ring has at least three nodes.
#pragma once

#include "sem/potential_step.hpp"

namespace sem {

template <class Real>
struct RingEchoForward {
  static constexpr const char* kName = "ring_echo_forward";

  std::int64_t rows = 0;
  std::int64_t width = 0;
  const Real* psi = nullptr;          // [rows, width, 2]
  const Real* potential = nullptr;    // [rows, width], in radians
  const Real* kerr = nullptr;         // [width]
  const Real* edge_weight = nullptr;  // [width]
  const Real* half_dt = nullptr;      // [1]
  Real* out = nullptr;                // [rows, width, 2]

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", rows);
    field("width", width);
    field("psi", psi, rows * width * 2);
    field("potential", potential, rows * width);
    field("kerr", kerr, width);
    field("edge_weight", edge_weight, width, Values::nonnegative);
    field("half_dt", half_dt, 1, Values::finite);
    field("out", out, rows * width * 2);
  }
};

// With G the gradient to out, h = U G that to w = exp(i phi) u, q_d = Re( conj(i w_d) h_d ) that to phi_d and
// t_d = q_d kerr_d:
//   g_u_d = exp(-i phi_d) h_d + (2 / m) (t_d - mean over e of t_e I_e) u_d,   g_psi = U^-1 g_u,
//   g_potential = q,   g_kerr_d = sum over rows of q_d I_d,   g_edge_weight_j = 2a C_j,   g_a = 2 sum_j edge_weight_j
//   C_j, C_j = sum over rows of Im( conj(d_j z) d_j y - conj(d_j z') d_j y' ),   d_j x = x_j - x_j+1, y = (psi + u) /
//   2,   z = (g_u + g_psi) / 2,   y' = (w + out) / 2,   z' = (G + h) / 2,
// without the mean where m is held at its least value.
template <class Real>
struct RingEchoBackward {
  static constexpr const char* kName = "ring_echo_backward";

  std::int64_t rows = 0;
  std::int64_t width = 0;
  const Real* psi = nullptr;
  const Real* potential = nullptr;
  const Real* kerr = nullptr;
  const Real* edge_weight = nullptr;
  const Real* half_dt = nullptr;
  const Real* out = nullptr;       // of the forward
  const Real* grad_out = nullptr;  // [rows, width, 2]
  Real* grad_psi = nullptr;
  Real* grad_potential = nullptr;
  Real* grad_kerr = nullptr;
  Real* grad_edge_weight = nullptr;
  Real* grad_half_dt = nullptr;

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", rows);
    field("width", width);
    field("psi", psi, rows * width * 2);
    field("potential", potential, rows * width);
    field("kerr", kerr, width);
    field("edge_weight", edge_weight, width);
    field("half_dt", half_dt, 1);
    field("out", out, rows * width * 2);
    field("grad_out", grad_out, rows * width * 2);
    field("grad_psi", grad_psi, rows * width * 2);
    field("grad_potential", grad_potential, rows * width);
    field("grad_kerr", grad_kerr, width);
    field("grad_edge_weight", grad_edge_weight, width);
    field("grad_half_dt", grad_half_dt, 1);
  }
};

}  // namespace sem
