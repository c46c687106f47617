// cayley: the unitary step psi_out = (I + iaH)^-1 (I - iaH) psi with a = half_dt, and its exact gradients.
//
// psi_out = 2y - psi with (I + iaH) y = psi. I + iaH is normal but not symmetric, so y comes from conjugate gradients
// on the symmetric positive definite normal form (I + a^2 H^2) y = (I - iaH) psi. The step is then rescaled to its
// input's norm, a property of the exact operator. A row is called converged when psi - (I + iaH) y is at most tol psi
// in norm, for y = (psi_out + psi) / 2 of what is returned, whatever rounding does to its measurement.
#pragma once

#include "sem/types.hpp"

namespace sem {

// What a step and its adjoint are given beside the graph and its weights.
template <class Real>
struct CayleySettings {
  const Real* half_dt = nullptr;  // [1]
  Real tol = 0;
  std::int32_t max_iter = 0;

  template <class Visitor>
  void visit(Visitor& field) {
    field("half_dt", half_dt, 1, Values::finite);
    field("tol", tol);
    field("max_iter", max_iter);
  }
};

template <class Real>
struct CayleyForward {
  static constexpr const char* kName = "cayley_forward";

  Graph graph;
  std::int64_t rows = 0;
  const Real* edge_weight = nullptr;  // [edges]
  CayleySettings<Real> settings;
  const Real* psi = nullptr;  // [rows, nodes, 2]
  Real* psi_out = nullptr;    // [rows, nodes, 2]
  SolveReport<Real> report;

  template <class Visitor>
  void visit(Visitor& field) {
    field("graph", graph);
    field("rows", rows);
    field("edge_weight", edge_weight, graph.edges, Values::nonnegative);
    settings.visit(field);
    field("psi", psi, rows * graph.nodes * 2);
    field("psi_out", psi_out, rows * graph.nodes * 2);
    report.visit(field, rows);
  }
};

// With z = (I - iaH)^-1 g:   g_psi = 2z - g,   g_w[ij] = 2a G_ij,   g_a = 2 sum_ij w_ij G_ij,
// G_ij = sum over rows of Im( conj(z_i - z_j) (y_i - y_j) )   and   y = (psi_out + psi) / 2.
// Not to_weights: only psi needs a gradient, grad_weight and grad_half_dt are not touched.
template <class Real>
struct CayleyBackward {
  static constexpr const char* kName = "cayley_backward";

  Graph graph;
  std::int64_t rows = 0;
  const Real* edge_weight = nullptr;  // [edges]
  CayleySettings<Real> settings;
  const Real* psi = nullptr;       // [rows, nodes, 2]
  const Real* psi_out = nullptr;   // [rows, nodes, 2]
  const Real* grad_out = nullptr;  // [rows, nodes, 2]
  Real* grad_psi = nullptr;        // [rows, nodes, 2]
  Real* grad_weight = nullptr;     // [edges]
  Real* grad_half_dt = nullptr;    // [1]
  SolveReport<Real> report;        // of the adjoint solve
  bool to_weights = true;

  template <class Visitor>
  void visit(Visitor& field) {
    field("graph", graph);
    field("rows", rows);
    field("edge_weight", edge_weight, graph.edges);
    settings.visit(field);
    field("psi", psi, rows * graph.nodes * 2);
    field("psi_out", psi_out, rows * graph.nodes * 2);
    field("grad_out", grad_out, rows * graph.nodes * 2);
    field("grad_psi", grad_psi, rows * graph.nodes * 2);
    field("grad_weight", grad_weight, graph.edges);
    field("grad_half_dt", grad_half_dt, 1);
    field("to_weights", to_weights);
    report.visit(field, rows);
  }
};

}  // namespace sem
