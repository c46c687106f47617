// laplacian_matvec: (H x)_i = sum over neighbours j of w_ij (x_i - x_j), and its gradients.
//
// x is [rows, nodes, components]; components is 1 (real) or 2 (real blocks of a complex vector). H is real, so it
// acts on each component alone. H is symmetric: the gradient to x is the product itself, g_x = H g.
#pragma once

#include "sem/types.hpp"

namespace sem {

template <class Real>
struct LaplacianMatvecForward {
  static constexpr const char* kName = "laplacian_matvec_forward";

  Graph graph;
  std::int64_t rows = 0;
  int components = 1;
  const Real* edge_weight = nullptr;  // [edges]
  const Real* x = nullptr;            // [rows, nodes, components]
  Real* out = nullptr;                // [rows, nodes, components]
  bool signed_weight = false;         // admits negative weights, which higher derivatives need

  template <class Visitor>
  void visit(Visitor& field) {
    field("graph", graph);
    field("rows", rows);
    field("components", components);
    field("signed_weight", signed_weight);
    field("edge_weight", edge_weight, graph.edges, signed_weight ? Values::any : Values::nonnegative);
    field("x", x, rows * graph.nodes * components);
    field("out", out, rows * graph.nodes * components);
  }
};

// g_w[ij] = sum over rows and components of (g_i - g_j)(x_i - x_j)
template <class Real>
struct LaplacianMatvecWeightGradient {
  static constexpr const char* kName = "laplacian_matvec_weight_gradient";

  Graph graph;
  std::int64_t rows = 0;
  int components = 1;
  const Real* x = nullptr;         // [rows, nodes, components]
  const Real* grad_out = nullptr;  // [rows, nodes, components]
  Real* grad_weight = nullptr;     // [edges]

  template <class Visitor>
  void visit(Visitor& field) {
    field("graph", graph);
    field("rows", rows);
    field("components", components);
    field("x", x, rows * graph.nodes * components);
    field("grad_out", grad_out, rows * graph.nodes * components);
    field("grad_weight", grad_weight, graph.edges);
  }
};

}  // namespace sem
