// laplacian_cg: conjugate gradients for S x = b with S = alpha I + beta H + gamma H^2, and its exact gradients.
//
// S is symmetric positive definite for alpha > 0 and beta, gamma >= 0. Screened Poisson is (alpha, 1, 0); the Cayley
// step's normal form is (1, 0, a^2). b is [rows, nodes, components] with 1 (real) or 2 (complex) components; a row,
// both components together, is one system. Converged means || b - S x || <= tol || b ||, recomputed.
#pragma once

#include "sem/types.hpp"

namespace sem {

template <class Real>
struct ShiftedLaplacian {
  Real alpha = 1;
  Real beta = 0;
  Real gamma = 0;
};

template <class Real>
struct LaplacianCgForward {
  Graph graph;
  std::int64_t rows = 0;
  int components = 1;
  const Real* edge_weight = nullptr;  // [edges]
  ShiftedLaplacian<Real> system;
  Real tol = 0;
  std::int32_t max_iter = 0;
  const Real* b = nullptr;  // [rows, nodes, components]
  Real* x = nullptr;        // [rows, nodes, components]
  SolveReport<Real> report;
};

// With l = S^-1 g and d(.) the difference across edge ij:   g_b = l,
// g_w[ij] = - sum over rows and components of [ beta d(l) d(x) + gamma ( d(l) d(Hx) + d(Hl) d(x) ) ].
// grad_weight may be null when only b needs a gradient.
template <class Real>
struct LaplacianCgBackward {
  Graph graph;
  std::int64_t rows = 0;
  int components = 1;
  const Real* edge_weight = nullptr;  // [edges]
  ShiftedLaplacian<Real> system;
  Real tol = 0;
  std::int32_t max_iter = 0;
  const Real* x = nullptr;         // [rows, nodes, components]
  const Real* grad_out = nullptr;  // [rows, nodes, components]
  Real* grad_b = nullptr;          // [rows, nodes, components]
  Real* grad_weight = nullptr;     // [edges]
  SolveReport<Real> report;        // of the adjoint solve
};

namespace reference {
template <class Real>
void laplacian_cg_forward(const LaplacianCgForward<Real>& args);
template <class Real>
void laplacian_cg_backward(const LaplacianCgBackward<Real>& args);
}  // namespace reference

namespace cpu {
void laplacian_cg_forward(const LaplacianCgForward<float>& args, Queue queue);
void laplacian_cg_backward(const LaplacianCgBackward<float>& args, Queue queue);
}  // namespace cpu

}  // namespace sem
