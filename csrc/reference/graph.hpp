// The Laplacian of one row, edge by edge, as the definition reads.
#pragma once

#include "sem/types.hpp"

namespace sem::reference {

template <class Real>
void apply_laplacian(const Graph& graph, const Real* edge_weight, int components, const Real* x, Real* out) {
  for (std::int64_t n = 0; n < graph.nodes * components; ++n) out[n] = 0;
  for (std::int64_t e = 0; e < graph.edges; ++e) {
    const std::int64_t i = graph.edge_i[e] * components, j = graph.edge_j[e] * components;
    for (int c = 0; c < components; ++c) {
      const Real flow = edge_weight[e] * (x[i + c] - x[j + c]);
      out[i + c] += flow;
      out[j + c] -= flow;
    }
  }
}

}  // namespace sem::reference
