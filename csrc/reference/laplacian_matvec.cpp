#include "sem/laplacian_matvec.hpp"

#include "reference/graph.hpp"
#include "reference/run.hpp"

namespace sem::reference {

template <class Real>
void laplacian_matvec_forward(const LaplacianMatvecForward<Real>& args) {
  const std::int64_t row_size = args.graph.nodes * args.components;
  for (std::int64_t row = 0; row < args.rows; ++row)
    apply_laplacian(args.graph, args.edge_weight, args.components, args.x + row * row_size, args.out + row * row_size);
}

template <class Real>
void laplacian_matvec_weight_gradient(const LaplacianMatvecWeightGradient<Real>& args) {
  const int components = args.components;
  const std::int64_t row_size = args.graph.nodes * components;
  for (std::int64_t e = 0; e < args.graph.edges; ++e) {
    const std::int64_t i = args.graph.edge_i[e] * components, j = args.graph.edge_j[e] * components;
    Real sum = 0;
    for (std::int64_t row = 0; row < args.rows; ++row) {
      const Real* x = args.x + row * row_size;
      const Real* g = args.grad_out + row * row_size;
      for (int c = 0; c < components; ++c) sum += (g[i + c] - g[j + c]) * (x[i + c] - x[j + c]);
    }
    args.grad_weight[e] = sum;
  }
}

SEM_REFERENCE(LaplacianMatvecForward, laplacian_matvec_forward)
SEM_REFERENCE(LaplacianMatvecWeightGradient, laplacian_matvec_weight_gradient)

}  // namespace sem::reference
