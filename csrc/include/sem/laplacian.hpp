// laplacian: (H x)_i = sum over neighbours j of w_ij (x_i - x_j), and its gradients.
//
// x is [rows, nodes, components]; components is 1 (real) or 2 (real blocks of a complex vector). H is real, so it
// acts on each component alone. H is symmetric: the gradient to x is the product itself, g_x = H g.
#pragma once

#include "sem/types.hpp"

namespace sem {

template <class Real>
struct LaplacianForward {
  Graph graph;
  std::int64_t rows = 0;
  int components = 1;
  const Real* edge_weight = nullptr;  // [edges]
  const Real* x = nullptr;            // [rows, nodes, components]
  Real* out = nullptr;                // [rows, nodes, components]
};

// g_w[ij] = sum over rows and components of (g_i - g_j)(x_i - x_j)
template <class Real>
struct LaplacianWeightGradient {
  Graph graph;
  std::int64_t rows = 0;
  int components = 1;
  const Real* x = nullptr;         // [rows, nodes, components]
  const Real* grad_out = nullptr;  // [rows, nodes, components]
  Real* grad_weight = nullptr;     // [edges]
};

namespace reference {
template <class Real>
void laplacian_forward(const LaplacianForward<Real>& args);
template <class Real>
void laplacian_weight_gradient(const LaplacianWeightGradient<Real>& args);
}  // namespace reference

namespace cpu {
void laplacian_forward(const LaplacianForward<float>& args, Queue queue);
void laplacian_weight_gradient(const LaplacianWeightGradient<float>& args, Queue queue);
}  // namespace cpu

}  // namespace sem
