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
  static constexpr const char* kName = "laplacian_cg_forward";

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

  template <class Visitor>
  void visit(Visitor& field) {
    field("graph", graph);
    field("rows", rows);
    field("components", components);
    field("edge_weight", edge_weight, graph.edges, Values::nonnegative);
    field("alpha", system.alpha);
    field("beta", system.beta);
    field("gamma", system.gamma);
    field("tol", tol);
    field("max_iter", max_iter);
    field("b", b, rows * graph.nodes * components);
    field("x", x, rows * graph.nodes * components);
    report.visit(field, rows);
  }
};

// With l = S^-1 g and d(.) the difference across edge ij:   g_b = l,
// g_w[ij] = - sum over rows and components of [ beta d(l) d(x) + gamma ( d(l) d(Hx) + d(Hl) d(x) ) ].
// Not to_weights: only b needs a gradient, grad_weight is not touched.
template <class Real>
struct LaplacianCgBackward {
  static constexpr const char* kName = "laplacian_cg_backward";

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
  bool to_weights = true;

  template <class Visitor>
  void visit(Visitor& field) {
    field("graph", graph);
    field("rows", rows);
    field("components", components);
    field("edge_weight", edge_weight, graph.edges);
    field("alpha", system.alpha);
    field("beta", system.beta);
    field("gamma", system.gamma);
    field("tol", tol);
    field("max_iter", max_iter);
    field("x", x, rows * graph.nodes * components);
    field("grad_out", grad_out, rows * graph.nodes * components);
    field("grad_b", grad_b, rows * graph.nodes * components);
    field("grad_weight", grad_weight, graph.edges);
    field("to_weights", to_weights);
    report.visit(field, rows);
  }
};

}  // namespace sem
