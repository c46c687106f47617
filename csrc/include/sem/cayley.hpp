// cayley: the unitary step psi_out = (I + iaH)^-1 (I - iaH) psi with a = half_dt, and its exact gradients.
//
// psi_out = 2y - psi with (I + iaH) y = psi. I + iaH is normal but not symmetric, so y comes from conjugate gradients
// on the symmetric positive definite normal form (I + a^2 H^2) y = (I - iaH) psi. A row is called converged when
// || psi - (I + iaH) y || <= tol || psi ||, recomputed and not taken from the recursion; it is then rescaled to its
// input's norm, a property of the exact operator.
#pragma once

#include "sem/types.hpp"

namespace sem {

template <class Real>
struct CayleyForward {
  Graph graph;
  std::int64_t rows = 0;
  const Real* edge_weight = nullptr;  // [edges]
  Real half_dt = 0;
  Real tol = 0;
  std::int32_t max_iter = 0;
  const Real* psi = nullptr;  // [rows, nodes, 2]
  Real* psi_out = nullptr;    // [rows, nodes, 2]
  SolveReport<Real> report;
};

// With z = (I - iaH)^-1 g:   g_psi = 2z - g,   g_w[ij] = 2a G_ij,   g_a = 2 sum_ij w_ij G_ij,
// G_ij = sum over rows of Im( conj(z_i - z_j) (y_i - y_j) )   and   y = (psi_out + psi) / 2.
// grad_weight and grad_half_dt may both be null when only psi needs a gradient.
template <class Real>
struct CayleyBackward {
  Graph graph;
  std::int64_t rows = 0;
  const Real* edge_weight = nullptr;  // [edges]
  Real half_dt = 0;
  Real tol = 0;
  std::int32_t max_iter = 0;
  const Real* psi = nullptr;       // [rows, nodes, 2]
  const Real* psi_out = nullptr;   // [rows, nodes, 2]
  const Real* grad_out = nullptr;  // [rows, nodes, 2]
  Real* grad_psi = nullptr;        // [rows, nodes, 2]
  Real* grad_weight = nullptr;     // [edges]
  Real* grad_half_dt = nullptr;    // [1]
  SolveReport<Real> report;        // of the adjoint solve
};

namespace reference {
template <class Real>
void cayley_forward(const CayleyForward<Real>& args);
template <class Real>
void cayley_backward(const CayleyBackward<Real>& args);
}  // namespace reference

namespace cpu {
void cayley_forward(const CayleyForward<float>& args, Queue queue);
void cayley_backward(const CayleyBackward<float>& args, Queue queue);
}  // namespace cpu

}  // namespace sem
